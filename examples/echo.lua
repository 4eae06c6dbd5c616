-- Sends every line back. The smallest server there is:
--
--   scripts/run examples/echo.lua
--   nc 127.0.0.1 9000
local Echo = {}

function Echo:proceed(line)
  if line == "quit" then return "bye", "close" end
  return line
end

return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Echo }
