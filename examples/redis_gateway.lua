-- A gateway to Redis for clients that speak lines: GET, SET, INCR and PING, and nothing else, over a few connections
-- that all clients share. A reply is one line.
--
--   redis-server --port 6379 &
--   scripts/run examples/redis_gateway.lua
--   printf 'SET name Ann\nGET name\nFLUSHALL\n' | nc -q 1 127.0.0.1 9040
--
-- The protocol of Redis (RESP): a command is a list of strings, each behind its length. A reply begins with a line, and
-- its first byte says what it is; after "$" follow that many bytes.
local perilune = require "perilune"

local ALLOWED = { GET = 1, SET = 2, INCR = 1, PING = 0 } -- how many arguments each takes

local VALUE_MAX = 64 * 1024
local redis = perilune.pool("tcp://127.0.0.1:6379", { frame = "raw", size = 4, timeout = { read = "2s" } })

local function encode(words)
  local parts = { ("*%d\r\n"):format(#words) }
  for _, word in ipairs(words) do parts[#parts + 1] = ("$%d\r\n%s\r\n"):format(#word, word) end
  return table.concat(parts)
end

-- A reply, or nil and why. What is no reply of ours, or only half of one, ends the connection: it would be the next
-- caller's else.
local function ask(db, words)
  db:send(encode(words))
  local line, why = db:read { "delimiter", "\r\n" }
  local kind, rest = (line or ""):match "^(.)(.*)$"
  if kind == "+" or kind == ":" then return rest end
  if kind == "-" then return "error: " .. rest end
  if kind == "$" and rest == "-1" then return "(none)" end
  local length = kind == "$" and tonumber(rest) or math.huge
  local bytes = length <= VALUE_MAX and db:read { "fixed", length + 2 }
  if bytes then return bytes:sub(1, -3) end
  db:close()
  return nil, why or "a reply that is too large, or of a kind that is not known here"
end

local Gateway = {}

function Gateway.proceed(_, line)
  local words = {}
  for word in line:gmatch "%S+" do words[#words + 1] = word end
  local command = (words[1] or ""):upper()
  if ALLOWED[command] ~= #words - 1 then return "error: there are GET key, SET key value, INCR key, PING" end
  local reply, why = redis:with(ask, words)
  return ((reply or "error: " .. why):gsub("%c", "?")) -- one line, whatever is in the value
end

-- Who ends its side (nc -q 1) still gets its replies.
function Gateway.eof() return nil, "close" end

return { listen = "tcp://127.0.0.1:9040", frame = { "line", max = "4k" }, agent = Gateway }
