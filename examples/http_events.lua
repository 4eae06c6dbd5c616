-- A clock for browsers: server-sent events. A page shows what time it is on the server; when the connection breaks, the
-- browser comes back by itself, and says which tick it had last.
--
--     perilune run examples/http_events.lua
--     curl -N http://127.0.0.1:8080/ticks          # or open http://127.0.0.1:8080/ in a browser
local http = require "perilune.http"
local perilune = require "perilune"

local PAGE = [[
<!doctype html>
<title>Clock</title>
<h1 id="time"></h1>
<script>
  new EventSource("/ticks").addEventListener("tick", event => {
    document.getElementById("time").textContent = JSON.parse(event.data).time;
  });
</script>
]]

local Clock = {}

-- From the tick behind the last one that the client had.
local function ticks(request)
  local last = tonumber(request.headers["Last-Event-ID"]) or 0
  return http.events(function(events)
    for tick = last + 1, math.huge do
      local time = os.date("!%H:%M:%S", math.floor(perilune.time()))
      if not events:send({ tick = tick, time = time }, { event = "tick", id = tick, retry = "2s" }) then return end
      perilune.sleep(1)
    end
  end)
end

function Clock:proceed(request) -- luacheck: no self
  if request.path == "/ticks" then return ticks(request) end
  if request.path == "/" then return http.html(PAGE) end
  return http.error(404)
end

return { listen = "http://127.0.0.1:8080", agent = Clock }
