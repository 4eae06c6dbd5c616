-- Drained: a reload ends the connections that are there, one after another within timeout.drain. Each agent says
-- good-bye, and how long it would still have; its client comes back to the new code.
--
--   scripts/run examples/reload_drain.lua
--   nc 127.0.0.1 9000, then change VERSION, kill -HUP
local VERSION = 1

local Clock = {}

function Clock:opened() self.conn:send(("version %d"):format(VERSION)) end

function Clock:proceed() return os.date "!%H:%M:%S" end

-- The connection ends once this is out. An agent that returned true would close by itself.
function Clock:drain(seconds)
  self.conn:send(("good-bye: version %d ends within %.0f s, please come back"):format(VERSION, seconds))
end

return {
  listen = "tcp://127.0.0.1:9000", frame = "line", agent = Clock, reload = "drain",
  timeout = { drain = "5s" },
}
