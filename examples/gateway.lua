-- Several listeners in one script, each with its own framing, agent and limits, and a table in common:
-- sensors send binary readings to one port, people read them as text from another.
--
--   scripts/run examples/gateway.lua
--   nc 127.0.0.1 9001
--   python3 -c '
--   import socket, struct
--   s = socket.create_connection(("127.0.0.1", 9000))
--   for reading in 215, 220: s.sendall(struct.pack(">HHh", 4, 7, reading))   # length, sensor 7, tenths of a degree'
local latest = {}   -- sensor → degrees
local watchers = {} -- agent → true

local Sensor = {}

function Sensor:proceed(frame)
  if #frame ~= 4 then error("a reading has 4 bytes, this one " .. #frame) end
  local a, b, c, d = frame:byte(1, 4)
  local sensor, tenths = a * 256 + b, c * 256 + d
  if tenths >= 32768 then tenths = tenths - 65536 end
  latest[sensor] = tenths / 10
  local text = ("%d %.1f"):format(sensor, latest[sensor])
  for watcher in pairs(watchers) do watcher.conn:send(text) end
end

local Watcher = {}

-- What is known first, then what comes.
function Watcher:opened()
  watchers[self] = true
  local lines = {}
  for sensor, degrees in pairs(latest) do lines[#lines + 1] = ("%d %.1f"):format(sensor, degrees) end
  table.sort(lines)
  return lines
end

function Watcher:proceed()
  return "there is nothing to say here"
end

function Watcher:closed()
  watchers[self] = nil
end

-- A reload begins with empty tables: watchers follow into the new one, readings come again.
function Watcher:snapshot() end
function Watcher:upgrade() watchers[self] = true end
function Sensor:snapshot() end
function Sensor:upgrade() end

return {
  workers = 1,
  reload = "migrate",
  listen = {
    { "tcp://127.0.0.1:9000", name = "sensors", frame = { "u16be", max = 64 }, agent = Sensor },
    -- A watcher says nothing for hours. One that does not read loses readings, not its connection.
    { "tcp://127.0.0.1:9001", name = "watchers", frame = "line", agent = Watcher,
      timeout = { idle = false }, limits = { send_buffer = "16k", slow_consumer = "drop" } },
  },
}
