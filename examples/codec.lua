-- A framing of one's own: Redis's protocol. decode() makes a table of each request, so proceed() never sees
-- bytes; encode() makes bytes of what it returns.
--
--   scripts/run examples/codec.lua
--   redis-cli -p 9000 incr visits
--   printf '*2\r\n$4\r\nINCR\r\n$6\r\nvisits\r\n' | nc -N 127.0.0.1 9000
local ARGS_MAX = 64

-- decode(bytes, position) returns: a frame and the position after it; nothing, to be called again with more
-- bytes, or nil, nil, need, not to be called before there are so many; or false and what is wrong, which ends
-- the connection.
local function decode(bytes, position)
  local count, at = bytes:match("^%*(%d+)\r\n()", position)
  if not count then
    if bytes:find("^%*?%d*\r?\n?$", position) and #bytes - position < 12 then return nil end
    return false, "a request is an array, as in *1\\r\\n$4\\r\\nPING\\r\\n"
  end
  if tonumber(count) > ARGS_MAX then return false, "too many arguments" end
  local args = {}
  for i = 1, tonumber(count) do
    local size, start = bytes:match("^%$(%d+)\r\n()", at)
    if not size then
      if #bytes - at < 12 then return nil end
      return false, "an argument is a bulk string"
    end
    local stop = start + tonumber(size)
    if #bytes < stop + 1 then return nil, nil, stop + 2 - position end
    args[i], at = bytes:sub(start, stop - 1), stop + 2
  end
  return args, at
end

local NULL = {}

local function encode(reply)
  if reply == NULL then return "$-1\r\n" end
  if type(reply) == "number" then return (":%d\r\n"):format(reply) end
  if type(reply) == "table" then return ("-ERR %s\r\n"):format(reply.err) end
  return ("$%d\r\n%s\r\n"):format(#reply, reply)
end

local values = {} -- a reload begins with an empty one, and takes connections along to it

local commands = {
  PING = function(text) return text or "PONG" end,
  ECHO = function(text) return text end,
  SET = function(key, value) values[key] = value return "OK" end,
  GET = function(key) return values[key] or NULL end,
  INCR = function(key)
    local n = tonumber(values[key] or 0)
    if not n then return { err = "value is not an integer" } end
    values[key] = tostring(n + 1)
    return n + 1
  end,
}
local needs = { ECHO = 1, SET = 2, GET = 1, INCR = 1 }

local Redis = {}

function Redis:proceed(args)
  local name = (args[1] or ""):upper()
  local command = commands[name]
  if not command then return { err = "unknown command" } end
  if #args - 1 < (needs[name] or 0) then return { err = "wrong number of arguments" } end
  return command(args[2], args[3])
end

-- There is nothing to take along of a connection.
function Redis:snapshot() end
function Redis:upgrade() end

return {
  listen = "tcp://127.0.0.1:9000",
  workers = 1, -- each worker would have its own values
  frame = { decode = decode, encode = encode, max = "1m" },
  agent = Redis,
  reload = "migrate",
}
