--- What requests and clients of HTTP may say, and how it is read. Internal. What is wrong raises, without a position.
local printable = require "perilune.printable"
local suggest = require "perilune.suggest"
local units = require "perilune.units"

local M = {}

-- How often something may happen; false: never.
local function count(most)
  local whole = units.whole(0, most)
  return function(value) return whole(value == false and 0 or value) end
end

local function size(value)
  local bytes, message = units.size(value)
  if not bytes then return nil, message end
  return bytes
end

local TIMES = { connect = true, read = true, total = true }

-- Seconds, by name; a duration alone is the total.
local function times(value)
  if type(value) ~= "table" then value = { total = value } end
  local read = {}
  for name, item in next, value do
    local near = type(name) == "string" and suggest.hint(name, { "connect", "read", "total" }) or ""
    if not TIMES[name] then
      return nil, ("there are connect, read and total, not %s%s"):format(printable.key(name), near)
    end
    local ms, message = units.duration(item)
    if not ms then return nil, name .. ": " .. message end
    read[name] = ms / 1000
  end
  return read
end

local function any(value) return value end

-- Of requests and of clients.
M.SHARED = {
  auth = any, compress = units.flag, headers = any, max_body = size, redirects = count(100), retries = count(100),
  timeout = times,
}
M.OF_REQUEST = {
  body = any, form = any, idempotent = units.flag, method = any, query = any, stream = units.flag, url = any,
}
M.OF_CLIENT = { base = any, proxy = any, tls = any }

-- Those of perilune.pool(), which checks them.
M.OF_POOL = { size = true, total = true, queue = true, wait = true, idle = true, lifetime = true, from = true }

M.DEFAULTS = { compress = false, max_body = 8 * 1024 * 1024, redirects = 5, retries = 0 }
M.DEFAULT_TIMES = { connect = 5, read = 10, total = 30 }

-- What others call it.
local MEANT = {
  args = "query", basic_auth = "auth", base_url = "base", baseURL = "base", ca = "tls = { authority = … }",
  ca_file = "tls = { authority = … }", content = "body", data = "body", follow_redirects = "redirects",
  gzip = "compress", json = "body = { … }, a table is sent as JSON", max_redirects = "redirects",
  max_size = "max_body", params = "query", pool = "size, idle and so on", pool_size = "size", retry = "retries",
  search = "query", ssl = "tls", verify = "tls", max_connections = "size",
}

local function refuse_option(what, name, groups)
  local names = {}
  for _, group in ipairs(groups) do
    for known in pairs(group) do names[#names + 1] = known end
  end
  table.sort(names)
  if type(name) ~= "string" then error(("%s: unknown option %s"):format(what, printable.key(name)), 0) end
  local hint = MEANT[name] and (" (that is: %s)"):format(MEANT[name]) or suggest.hint(name, names)
  if hint == "" and (M.OF_CLIENT[name] or M.OF_POOL[name]) then
    hint = (": it is of a client: http.client { %s = … }"):format(name)
  end
  error(("%s: unknown option %s%s"):format(what, printable.quote(name), hint), 0)
end

local function read_option(what, values, name, value, read)
  local canonical, message = read(value)
  if message then error(("%s: %s: %s"):format(what, name, message), 0) end
  values[name] = canonical
end

--- What options say; those of a pool apart.
---@param what string whose they are, for messages
---@param options any
---@param ... table<string, function|true> which there are, and how one is read; true: by the pool
---@return table values
---@return table of_pool
function M.read(what, options, ...)
  local groups, values, of_pool = { ... }, {}, {}
  if options ~= nil and type(options) ~= "table" then
    error(("%s: the options are a table, got %s"):format(what, printable.value(options)), 0)
  end
  for name, value in next, options or {} do
    local read
    for _, group in ipairs(groups) do read = read or group[name] end
    if not read then refuse_option(what, name, groups) end
    if read == true then of_pool[name] = value else read_option(what, values, name, value, read) end
  end
  return values, of_pool
end

return M
