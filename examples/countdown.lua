-- Waiting in straight-line code: perilune.sleep() suspends this agent, and nobody else. Lines that arrive
-- meanwhile are kept until it is done; if the client leaves, the countdown ends where it stands.
--
--   scripts/run examples/countdown.lua
--   nc 127.0.0.1 9000
--   3                            (three seconds; or 10 0.2: ten steps of 0.2 s)
local perilune = require "perilune"

local Countdown = {}

function Countdown:proceed(line)
  local from, step = line:match("^(%d+)%s*([%d.]*)$")
  if not from then return "say a number, as in: 3" end
  for i = tonumber(from), 1, -1 do
    self.conn:send(tostring(i))
    perilune.sleep(tonumber(step) or 1)
  end
  return "lift-off"
end

return {
  listen = "tcp://127.0.0.1:9000",
  frame = { "line", max = 64 },
  agent = Countdown,
  limits = { inbox = 16 }, -- with more lines than that waiting, the socket is no longer read
}
