-- A part of memcached's text protocol: lines ended by "\r\n", some followed by a block of data.
-- Real memcached clients can talk to it.
--
--   scripts/run examples/kv.lua
--   printf 'set moon 0 0 4\r\nluna\r\nget moon\r\nquit\r\n' | nc -N 127.0.0.1 9000
local KEY_MAX, VALUE_MAX, ITEMS_MAX = 250, 1024 * 1024, 10000

-- A cache: a reload begins with an empty one, and takes the connections that are there along to it.
local items, count = {}, 0 -- key → { flags = …, data = … }

local function put(key, item)
  if not items[key] and count >= ITEMS_MAX then return "SERVER_ERROR out of memory storing object" end
  if not items[key] then count = count + 1 end
  items[key] = item
  return "STORED"
end

local commands = {}

function commands.set(agent, args)
  local key, flags, size = args:match("^(%S+) (%d+) %-?%d+ (%d+)$")
  if not key or #key > KEY_MAX then return "CLIENT_ERROR bad command line format", "close" end
  size = tonumber(size)
  if size > VALUE_MAX then return "SERVER_ERROR object too large for cache", "close" end
  -- The data and the "\r\n" behind it, in one piece.
  local block = agent.conn:read { "fixed", size + 2 }
  if not block then return nil, "close" end
  if block:sub(-2) ~= "\r\n" then return "CLIENT_ERROR bad data chunk", "close" end
  return put(key, { flags = flags, data = block:sub(1, -3) })
end

-- A list of replies is a list of frames: here, of lines.
function commands.get(_, args)
  local replies = {}
  for key in args:gmatch("%S+") do
    local item = items[key]
    if item then
      replies[#replies + 1] = ("VALUE %s %s %d"):format(key, item.flags, #item.data)
      replies[#replies + 1] = item.data
    end
  end
  replies[#replies + 1] = "END"
  return replies
end

function commands.delete(_, args)
  if not items[args] then return "NOT_FOUND" end
  items[args], count = nil, count - 1
  return "DELETED"
end

function commands.quit()
  return nil, "close"
end

local Cache = {}

function Cache:proceed(line)
  local name, args = line:match("^(%l+) ?(.*)$")
  local command = commands[name]
  if not command then return "ERROR" end
  return command(self, args)
end

-- There is nothing to take along of a connection.
function Cache:snapshot() end
function Cache:upgrade() end

return {
  listen = "tcp://127.0.0.1:9000",
  workers = 1, -- each worker would have its own items
  frame = { "delimiter", "\r\n", max = "2k" },
  agent = Cache,
  reload = "migrate",
  limits = { send_buffer = "4m" },
  timeout = { idle = "10m" },
}
