-- Pinned (the default): whoever is connected finishes with the code it began with, and sees no difference between two
-- lines of one conversation. Only new connections get the new code.
--
--   scripts/run examples/reload_pin.lua
--   nc 127.0.0.1 9000, then change PRICE, kill -HUP, and see what this nc and another one answer
local PRICE = 3

local Till = {}

function Till:opened()
  self.sum = 0
  self.conn:send(("a coffee is %d; say how many"):format(PRICE))
end

function Till:proceed(line)
  local cups = tonumber(line:match "^%d%d?$")
  if not cups then return ("that makes %d"):format(self.sum), "close" end
  self.sum = self.sum + cups * PRICE
  return ("%d so far"):format(self.sum)
end

return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Till, reload = "pin" }
