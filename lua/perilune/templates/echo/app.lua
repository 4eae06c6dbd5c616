-- @NAME@: says every line back, until it hears "quit".
--
--   perilune run --watch
--   nc 127.0.0.1 9000

---@class Echo: perilune.agent
local Echo = {}

-- Called once, before anything was received: the place for what belongs to this connection.
function Echo:opened()
  self.lines = 0
end

-- Called for each line, without its end. What it returns is sent as a line.
function Echo:proceed(line)
  if line == "quit" then return ("bye, after %d lines"):format(self.lines), "close" end
  self.lines = self.lines + 1
  return line
end

-- Called when a deadline has passed; then the connection ends, unless this returns true.
function Echo:timeout(kind)
  if kind == "idle" then return "are you still there? goodbye" end
end

---@type perilune.app
return {
  listen = "tcp://127.0.0.1:9000",
  frame = "line",
  agent = Echo,
  limits = { connections = 1000, per_ip = 100, frame = "4k" },
  timeout = { idle = "5m" },
}
