-- An echo that each address may use ten times a minute, whichever worker its connections come to: the counts are in a
-- dictionary that all workers share.
--
--   scripts/run examples/rate_limiter.lua
--   for i in $(seq 12); do echo hello; done | nc -q 1 127.0.0.1 9045
local perilune = require "perilune"

local LIMIT, WINDOW = 10, "1m"

local counts = perilune.shared "counts"

local Limited = {}

function Limited:opened()
  self.address = self.conn.peer:gsub(":%d+$", "")
end

-- The first one of a window begins it; those behind it add up until its time has come.
function Limited:proceed(line)
  local n, message = counts:incr(self.address, 1, 0, WINDOW)
  if not n then return "cannot count: " .. message end
  if n > LIMIT then return ("slow down: again in %.0f s"):format(counts:ttl(self.address) or 0) end
  return line
end

return {
  listen = "tcp://127.0.0.1:9045",
  frame = "line",
  agent = Limited,
  shared = { counts = "1m" }, -- enough for some 8,000 addresses; more, and who was here longest ago is forgotten
}
