-- Derives keys from passwords: PBKDF2, which is made to take long. It runs as jobs, in threads of their own, so that
-- clients who ask for something short do not wait for it. When too many keys are asked for, it says so at once.
--
--   scripts/run examples/hash_service.lua
--   printf 'key salt 100000 secret\ntime\n' | nc -q 5 127.0.0.1 9046
--   for i in $(seq 20); do echo "key salt 1000000 secret" | nc -q 60 127.0.0.1 9046 & done; wait
local perilune = require "perilune"

local ROUNDS_MAX = 10000000

local Hasher = {}

-- What a client is told when there is no key.
local WORDS = {
  EBUSY = "busy: ask again later",
  ETIME = "refused: so many rounds take too long",
  ETIMEDOUT = "busy: it took too long",
}

function Hasher:key(rest)
  local salt, rounds, password = rest:match "^(%S+) (%d+) (.+)$"
  rounds = tonumber(rounds)
  if not rounds or rounds < 1 or rounds > ROUNDS_MAX then return "usage: key SALT ROUNDS PASSWORD" end
  local key, message, code = perilune.job("hash_service.pbkdf2", "derive", password, salt, rounds)
  return key or WORDS[code] or "failed: " .. message
end

function Hasher:proceed(line)
  local command, rest = line:match "^(%a+) ?(.*)$"
  if command == "key" then return self:key(rest) end
  if command == "time" then return ("%.0f"):format(perilune.time()) end
  return "usage: key SALT ROUNDS PASSWORD, or time"
end

-- Who ends its side, as nc does here, still gets its keys. Without this method it would be taken to have left, and its
-- jobs be cancelled.
function Hasher.eof() return nil, "close" end

return {
  listen = "tcp://127.0.0.1:9046",
  frame = "line",
  agent = Hasher,
  -- Two are derived at a time, and eight may wait; a client waits ten seconds at most, of which one key may take five.
  jobs = { workers = 2, queue = 8, when_full = "shed", timeout = "10s", proceed = "5s" },
}
