--- The client: http.get(), http.post(), http.request(), http.client(). lua/perilune/http.lua loads it when a script
--- first asks for one of them.
---
--- A client is of one worker and one generation of the script, and has a pool of connections for each server it asks
--- (lua/perilune/pooling.lua). What a network can do is nil, message, code; what is wrong with an address, a header or
--- an option raises at the line that says so.
local require = require -- while handlers run, the global one is the script's
local core = package.loaded["perilune.core"] -- not where a script is only being checked
local exchange = require "perilune.http.exchange"
local options_of = require "perilune.http.client_options"
local outgoing = require "perilune.http.outgoing"
local pooling = require "perilune.pooling"
local printable = require "perilune.printable"
local proxies = require "perilune.http.proxies"
local redirects = require "perilune.http.redirects"
local suggest = require "perilune.suggest"
local urls = require "perilune.http.url"

local M = {}

local POOLS_MAX = 100          -- servers whose connections are kept
local PIECE_MAX = 64 * 1024    -- bytes that are read at once, and so wait where nobody reads

local IDEMPOTENT = { GET = true, HEAD = true, OPTIONS = true, TRACE = true, PUT = true, DELETE = true }

-- ---- clients -----------------------------------------------------------------------

local function check_base(base)
  if base == nil then return nil end
  local url, message = urls.parse(base)
  if not url then error("base: " .. message, 0) end
  if url.target:find("?", 1, true) then error("base: it has no query: give that with each request", 0) end
  url.target = url.target:gsub("/$", "")
  return url
end

local function pool_options(client, is_secure)
  local options = {
    frame = "raw", limits = { frame = PIECE_MAX },
    timeout = { connect = client.times.connect, read = client.times.read, write = client.times.read },
  }
  for name, value in pairs(client.of_pool) do options[name] = value end
  if is_secure then options.tls = client.tls end
  return options
end

-- All that a pool will look at is looked at now.
local function check_pool(client)
  local is_secure = client.tls ~= nil
  local address = client.base and urls.address(client.base) or is_secure and "tls://localhost:443"
    or "tcp://localhost:80"
  if client.base and client.base.scheme == "http" and is_secure then
    error("tls: the base is an http:// address, which has no TLS: write it as https://…", 0)
  end
  local ok, message = pcall(pooling.pool, address, pool_options(client, address:find "^tls:"))
  if not ok then error((tostring(message):gsub("^perilune%.pool: ", "")), 0) end
end

local function with_defaults(values, defaults)
  for name, default in pairs(defaults) do
    if values[name] == nil then values[name] = default end
  end
  return values
end

local function fields_of(values, base)
  if values.headers == nil and values.auth == nil then return base end
  local fields = outgoing.fields(values.headers, base)
  if values.auth ~= nil then fields.authorization = outgoing.authorization(values.auth) end
  return fields
end

local function new_client(what, options)
  local values, of_pool = options_of.read(what, options, options_of.SHARED, options_of.OF_CLIENT,
    options_of.OF_POOL)
  local client = with_defaults(values, options_of.DEFAULTS)
  client.times = with_defaults(values.timeout or {}, options_of.DEFAULT_TIMES)
  client.of_pool, client.pools, client.pool_count, client.count = of_pool, {}, 0, 0
  local ok, message = pcall(function()
    client.base = check_base(values.base)
    client.fields = fields_of(values, { ["user-agent"] = "User-Agent: perilune\r\n" })
    client.proxy = proxies.rules(values.proxy)
    check_pool(client)
  end)
  if not ok then error(("%s: %s"):format(what, message), 0) end
  return client
end

-- Pools that have nothing make room for others.
local function drop_unused(client, is_so)
  for key, pool in pairs(client.pools) do
    if is_so(pool) then
      pool:close()
      client.pools[key] = nil
      client.pool_count = client.pool_count - 1
    end
  end
end

-- The pool for a request; or nil, message, code.
local function pool_for(client, request)
  if client.is_closed then return nil, "the client is closed", "ECANCELED" end
  local proxy, message, code = proxies.choose(client.proxy, request.url)
  if message then return nil, message, code end
  local address = urls.address(proxy or request.url)
  request.through = proxy ~= nil
  local pool = client.pools[address]
  if pool then return pool end
  if client.pool_count >= POOLS_MAX then drop_unused(client, pooling.is_unused) end
  if client.pool_count >= POOLS_MAX then drop_unused(client, pooling.is_idle) end
  if client.pool_count >= POOLS_MAX then
    return nil, ("this client asks %d servers already"):format(POOLS_MAX), "EBUSY"
  end
  require "perilune.waiting"
  pool = pooling.pool(address, pool_options(client, request.url.scheme == "https"))
  client.pools[address], client.pool_count = pool, client.pool_count + 1
  return pool
end

-- ---- requests ------------------------------------------------------------------------

---@class perilune.http.outgoing
---@field what string "http.get", for messages
---@field method string
---@field url perilune.http.url
---@field shown string the address as text
---@field fields perilune.http.fields
---@field body perilune.http.body?
---@field head string? as it is sent, but to a proxy
---@field deadline number? when all of it has to be over
---@field patience number seconds without progress; 0: any
---@field max_body integer
---@field compress boolean
---@field idempotent boolean
---@field retries integer
---@field redirects integer
---@field through boolean? to a proxy
---@field wants_rest (fun(head: string, status: integer): boolean)? is the body to be read in pieces?

-- A client with a base asks that server, and below that path, alone.
local function url_of(client, text)
  local base = client.base
  if not base then
    local url, message = urls.parse(text)
    return url or error("url: " .. message, 0)
  end
  if text == nil then text = "" end
  if type(text) ~= "string" then error("url: expects a path such as \"/users\", got " .. printable.value(text), 0) end
  if not text:find "^%a[%w+.-]*://" then
    local path = text:find "^[/?]" and text or text ~= "" and "/" .. text or ""
    text = ("%s://%s%s%s"):format(base.scheme, base.authority, base.target, path)
  end
  local url, message = urls.parse(text)
  if not url then error("url: " .. message, 0) end
  local path = url.target:match "^[^?]*"
  local plain = path:gsub("%%2[eE]", "."):gsub("%%2[fF]", "/") .. "/"
  if plain:find("/../", 1, true) or plain:find("/./", 1, true) then
    error("url: a path below the base has no `.` and `..` in it", 0)
  end
  if not urls.same_origin(url, base) then
    error(("url: this client asks %s alone (base), not %s: make another one"):format(base.authority, url.authority), 0)
  end
  if base.target ~= "" and path ~= base.target and path:find(base.target .. "/", 1, true) ~= 1 then
    error(("url: this client asks below %s alone (base), not %s: make another one"):format(urls.text(base),
      urls.text(url)), 0)
  end
  return url
end

local function prepare(client, values)
  local request = { method = outgoing.method(values.method or "GET") }
  request.url = url_of(client, values.url)
  if values.query ~= nil then request.url = urls.with_query(request.url, urls.pairs("query", values.query)) end
  request.shown = urls.text(request.url)
  request.fields = fields_of(values, client.fields)
  request.body = outgoing.body(values.body, values.form)
  if request.body and (request.method == "HEAD" or request.method == "TRACE") then
    error(("body: a request by %s has none"):format(request.method), 0)
  end
  for name in pairs(options_of.DEFAULTS) do
    request[name] = values[name]
    if request[name] == nil then request[name] = client[name] end
  end
  request.idempotent = values.idempotent
  if request.idempotent == nil then request.idempotent = IDEMPOTENT[request.method] or false end
  if values.stream then
    request.compress = false -- what is read in pieces is given as it comes
    local follows = request.redirects > 0
    request.wants_rest = function(head, status) return not (follows and redirects.is_one(head, status)) end
  end
  request.head = outgoing.head(request)
  if values.timeout and values.timeout.connect then
    error("timeout: connect: it is of a client, as connections are shared: http.client { timeout = … }", 0)
  end
  local time = with_defaults(values.timeout or {}, client.times)
  request.patience, request.total = time.read, time.total
  return request
end

local function check_request(client, what, options)
  local ok, request = pcall(options_of.read, what, options, options_of.SHARED, options_of.OF_REQUEST)
  if not ok then error(request, 3) end
  ok, request = pcall(prepare, client, request)
  if not ok then error(("%s: %s"):format(what, request), 3) end
  if not (core and core.connect) then
    local why = core and core.is_job and "not in a job, which has no agent"
      or "only inside a running server, in a handler; what belongs to no connection does so in setup(app), in a task "
      .. "of app:spawn(…)"
    error(("%s: %s"):format(what, why), 3)
  end
  request.what = what
  request.deadline = request.total > 0 and core.now() + request.total or nil
  return request
end

-- ---- asking --------------------------------------------------------------------------

-- What a connection may say that had ended, unnoticed, before it was used again.
local STALE = { EOF = true, ECONNRESET = true, EPIPE = true, ECANCELED = true }

-- What another attempt may be better at.
local PASSING = {
  EOF = true, ECONNRESET = true, EPIPE = true, ECANCELED = true, ECONNREFUSED = true, ETIMEDOUT = true,
  EHOSTUNREACH = true, ENETUNREACH = true, EAI_AGAIN = true, EBUSY = true,
}

-- Seconds until it has to be over; nil: it has to be over now. Without a time-out that is any number.
local function left_of(request)
  local left = request.deadline and request.deadline - core.now() or math.huge
  if left > 0 then return left end
end

local LATE = "timeout: the request has taken too long"

local function may_send_again(request, stage)
  if stage == "nothing" then return true end
  return stage == "sent" and request.idempotent and not (request.body and request.body.pieces)
end

-- What is wrong, and with whom. Who cannot be connected to is named already.
local function named(request, message)
  local address = urls.address(request.url):gsub("^tcp://", "") .. ": "
  if message:sub(1, #address) == address then return message end
  return ("%s: %s"):format(request.url.authority, message)
end

-- One exchange. A kept connection that turns out to have ended is nobody's fault: the next one is taken, if what was
-- asked may be asked again.
local function ask_once(client, request, is_again)
  local pool, why, kind = pool_for(client, request)
  if not pool then return nil, named(request, why), kind, "nothing" end
  while true do
    if is_again then pooling.count_retry(pool) end
    is_again = true
    local left = left_of(request)
    if not left then return nil, named(request, LATE), "ETIMEDOUT", "nothing" end
    local entry, refusal, reason = pooling.borrow(pool, request.what, left < math.huge and left or nil)
    if not entry then return nil, named(request, refusal), reason, "nothing" end
    local was_reused = entry.is_reused
    local response, message, code, stage = exchange.run(pool, entry, request)
    if response then return response end
    if not (was_reused and STALE[code] and may_send_again(request, stage)) then
      return nil, named(request, message), code, stage
    end
  end
end

local PAUSE, PAUSE_MOST = 0.1, 5

-- With as many retries as are wanted; they come later and later, and not all at the same time.
local function ask_again(client, request)
  local pause, retries = PAUSE, request.retries
  while true do
    local response, message, code, stage = ask_once(client, request, retries < request.retries)
    if response then return response end
    local may_retry = retries > 0 and PASSING[code] and request.idempotent and not (stage ~= "nothing" and request.body
      and request.body.pieces)
    local time = pause * (0.5 + math.random() / 2)
    local left = left_of(request)
    if not may_retry or not left or time >= left then return nil, message, code end
    core.sleep(time)
    pause, retries = math.min(pause * 2, PAUSE_MOST), retries - 1
  end
end

local function ask(client, request)
  client.count = client.count + 1
  local most = request.redirects
  for _ = 0, most do
    local response, message, code = ask_again(client, request)
    if not response then return nil, message, code end
    if most == 0 or response[3] or not redirects.is_one(response[1], response.status) then return response end
    local following
    following, message, code = redirects.follow(request, response)
    if not following then
      if message then return nil, message, code end
      return response
    end
    request = following
  end
  return nil, ("more than %d redirects, the last one to %s"):format(most, request.shown), "ELOOP"
end

-- ---- what scripts have -----------------------------------------------------------------

local methods = {}

local function indexer(_, key)
  local method = methods[key]
  if method then return method end
  local names = {}
  for name in pairs(methods) do names[#names + 1] = name end
  table.sort(names)
  error(("a client has no %s%s"):format(printable.key(key), suggest.hint(key, names)), 2)
end

local Client = {
  __index = indexer, __metatable = "http.client",
  __newindex = function() error("a client cannot be written to", 2) end,
  __tostring = function(client)
    local base = rawget(client, 1).base
    return base and ("HTTP client of %s://%s%s"):format(base.scheme, base.authority, base.target) or "HTTP client"
  end,
}

local function check_client(client, name)
  if getmetatable(client) ~= "http.client" then
    error(("client:%s: write it with a colon, as in client:%s(…)"):format(name, name), 3)
  end
  return rawget(client, 1)
end

-- The options of a call that has an address and perhaps a body of its own.
local function call_options(what, method, url, body, options)
  if type(url) == "table" then
    error(("%s: the address comes first, and then the options; all in one table is http.request { … }"):format(what), 3)
  end
  if options ~= nil and type(options) ~= "table" then
    error(("%s: the options are a table, got %s"):format(what, printable.value(options)), 3)
  end
  local all = {}
  for name, value in next, options or {} do
    if name == "url" or name == "method" or (name == "body" and body ~= nil) then
      error(("%s: %s: it is said by the call itself"):format(what, name), 3)
    end
    all[name] = value
  end
  all.url, all.method = url, method
  if body ~= nil then all.body = body end
  return all
end

local METHODS = { get = "GET", head = "HEAD", delete = "DELETE", options = "OPTIONS", post = "POST", put = "PUT",
  patch = "PATCH" }
local WITH_BODY = { post = true, put = true, patch = true }

for name, method in pairs(METHODS) do
  local has_body, what = WITH_BODY[name], "client:" .. name
  methods[name] = function(client, url, body, options)
    local self = check_client(client, name)
    if not has_body then body, options = nil, body end
    local all = call_options(what, method, url, body, options)
    return ask(self, check_request(self, what, all))
  end
end

--- Any request: { url =, method =, headers =, body =, … }.
function methods.request(client, options)
  local self = check_client(client, "request")
  return ask(self, check_request(self, "client:request", options))
end

--- What there is, and what has happened: by server, as pool:status() has it.
function methods.status(client)
  local self = check_client(client, "status")
  local servers = {}
  for address, pool in pairs(self.pools) do servers[address] = pool:status() end
  return { requests = self.count, servers = servers }
end

--- Its connections end, those that are used when they come back. It makes no others.
function methods.close(client)
  local self = check_client(client, "close")
  self.is_closed = true
  for _, pool in pairs(self.pools) do pool:close() end
  self.pools, self.pool_count = {}, 0
end

--- A client: what requests have in common, and the connections that they use.
---@param options table?
function M.client(options)
  local ok, client = pcall(new_client, "http.client", options)
  if not ok then error(client, 2) end
  return setmetatable({ client }, Client)
end

local default

-- That of http.get() and so on, made when it is first used.
local function default_client()
  default = default or new_client("http.client")
  return default
end

--- Asks for what is at an address.
function M.get(url, options)
  local client, all = default_client(), call_options("http.get", "GET", url, nil, options)
  return ask(client, check_request(client, "http.get", all))
end

--- Sends a body to an address.
function M.post(url, body, options)
  local client, all = default_client(), call_options("http.post", "POST", url, body, options)
  return ask(client, check_request(client, "http.post", all))
end

--- Any request: { url =, method =, headers =, body =, … }.
function M.request(options)
  local client = default_client()
  return ask(client, check_request(client, "http.request", options))
end

return M
