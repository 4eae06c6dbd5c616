-- @NAME@: a chat with names and rooms. What belongs to a connection is in its agent. Rooms are topics, and users have
-- names, which all workers share: so it does not matter which worker serves whom, and a reload changes nothing.
--
--   perilune run --watch
--   nc 127.0.0.1 9000            (twice: the first line is your name)
local perilune = require "perilune"

local LOBBY = "lobby"
local NAME = "^[%w_-]+$"
local NAME_MAX = 20

---@class Chat: perilune.agent
---@field name string? once it is known
---@field room string? where this user is
local Chat = {}

-- What a client says becomes part of a topic or of a name only if it is that: it cannot be a pattern.
local function is_name(text) return text:find(NAME) and #text <= NAME_MAX end

local function topic_of(room) return "room." .. room end
local function address_of(name) return "user." .. name end

-- Says something to all others in the room, on whatever worker they are.
function Chat:tell(text) self.conn:publish(topic_of(self.room), text, { others = true }) end

function Chat:enter(room)
  local ok, message = self.conn:join(topic_of(room))
  if not ok then return message end
  self.room = room
  self:tell(("* %s is here"):format(self.name))
  return self:count()
end

function Chat:leave()
  self:tell(("* %s has left"):format(self.name))
  self.conn:leave(topic_of(self.room))
  self.room = nil
end

function Chat:count()
  return ("you are in %s with %d others"):format(self.room, perilune.hub.count(topic_of(self.room)) - 1)
end

-- What follows a "/": the name of a command, and then its argument. A method each.
local commands = {}

function commands:room() return self:count() end

function commands:join(room)
  if not is_name(room) then return "/join ROOM: letters, digits, _ and - only, at most " .. NAME_MAX end
  if room == self.room then return "you are there" end
  self:leave()
  return self:enter(room)
end

function commands:tell(argument)
  local name, text = argument:match "^(%S+)%s+(.+)$"
  if not name then return "/tell NAME TEXT" end
  local ok = perilune.send(address_of(name), ("%s, to you: %s"):format(self.name, text))
  if not ok then return "nobody has that name" end
end

function commands:quit() return "bye", "close" end

function Chat:opened() return "your name?" end

function Chat:introduce(name)
  if not is_name(name) then return "letters, digits, _ and - only, at most " .. NAME_MAX end
  if not perilune.register(address_of(name)) then return "that name is taken" end
  self.name = name
  return self:enter(LOBBY)
end

function Chat:proceed(line)
  if not self.name then return self:introduce(line) end
  local name, argument = line:match("^/(%w+)%s*(.-)%s*$")
  if not name then return self:tell(self.name .. ": " .. line) end
  local command = commands[name]
  if not command then return "there are: /join ROOM, /room, /tell NAME TEXT, /quit" end
  return command(self, argument)
end

-- What is sent to the user's name.
function Chat:message(_, text) self.conn:send(text) end

function Chat:timeout(kind)
  if kind == "idle" then return "you have been silent for too long" end
end

function Chat:drain() return "the server is going down" end

-- Runs once for every agent, whatever ended its connection. Its name is free by now, and it is in no room any more.
function Chat:closed()
  if self.room then self:tell(("* %s has left"):format(self.name)) end
end

-- A reload: the old agent says what the new one is to know. Names and rooms go along by themselves.
function Chat:snapshot() return { name = self.name, room = self.room } end

function Chat:upgrade(old) self.name, self.room = old.name, old.room end

---@type perilune.app
return {
  listen = "tcp://127.0.0.1:9000",
  reload = "migrate",
  frame = { "line", max = "1k", empty = "ignore" },
  agent = Chat,
  -- Who does not read what is said is dropped rather than waited for.
  hub = { policy = "disconnect", messages = 256, bytes = "64k" },
  limits = { connections = 5000, per_ip = 100, send_buffer = "64k", slow_consumer = "close" },
  timeout = { idle = "5m", first_frame = "30s" },
}
