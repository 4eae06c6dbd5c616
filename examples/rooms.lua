-- Rooms: what is said in one is sent to all who are there, on whatever worker they are, by a terminal or a browser.
--
--     perilune run examples/rooms.lua
--     nc 127.0.0.1 9000                            # join tea
--     curl -N http://127.0.0.1:8080/listen/tea     # what is said there, as server-sent events
--     curl -d hello http://127.0.0.1:8080/say/tea
local http = require "perilune.http"
local perilune = require "perilune"

-- What a client says is made part of a topic only if it is one part of it.
local function topic_of(room) return room:find "^[%w_-]+$" and "room." .. room end

local Talker = {}

function Talker:join(room)
  local topic = topic_of(room)
  if not topic then return "join ROOM: letters, digits, _ and - only" end
  if self.topic then self.conn:leave(self.topic) end
  local ok, message = self.conn:join(topic)
  if not ok then return message end
  self.topic = topic
  return ("you are in %s with %d others"):format(room, perilune.hub.count(topic) - 1)
end

function Talker:proceed(line)
  local room = line:match "^join (.+)$"
  if room then return self:join(room) end
  if not self.topic then return "join ROOM" end
  self.conn:publish(self.topic, line, { others = true })
end

local site = http.router()

site:get("/listen/{room}", function(request)
  local topic = topic_of(request.params.room)
  if not topic then return http.error(404) end
  -- A browser that is slow is to see what is new.
  return http.events(function(events)
    events:join(topic, { policy = "drop_oldest", messages = 16 })
    events:wait()
  end)
end)

site:post("/say/{room}", function(request)
  local topic = topic_of(request.params.room)
  if not topic then return http.error(404) end
  perilune.hub.publish(topic, request.body or "")
end)

return {
  listen = {
    { "tcp://127.0.0.1:9000", frame = "line", agent = Talker },
    { "http://127.0.0.1:8080", agent = site },
  },
}
