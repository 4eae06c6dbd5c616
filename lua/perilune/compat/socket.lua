--- `require "socket"`: LuaSocket on connections out. It never is the system's, which would wait in C.
local perilune = require "perilune"
local stream = require "perilune.compat.stream"
local udp = require "perilune.compat.socket_udp"

local M = {}

local SERVER = "%s is not there: a script listens with listen = \"tcp://…\", and has an agent for each connection"
local BLOCKSIZE = 2048

-- ---- functions that need no connection ---------------------------------------------

local function skip(n, ...) return select(n + 1, ...) end

-- What LuaSocket's functions raise among themselves.
local Raised = { __tostring = function(raised) return tostring(raised[1]) end }

local function newtry(finalizer)
  return function(...)
    if ... then return ... end
    if finalizer then pcall(finalizer) end
    error(setmetatable({ (select(2, ...)) }, Raised), 0)
  end
end

local function protected(ok, ...)
  if ok then return ... end
  local raised = ...
  if getmetatable(raised) == Raised then return nil, raised[1] end
  error(raised, 0)
end

local function protect(fn)
  return function(...) return protected(pcall(fn, ...)) end
end

local function choose(makers)
  return function(name, one, two)
    if type(name) ~= "string" then name, one, two = "default", name, one end
    local maker = makers[name or "nil"]
    if not maker then error(("unknown key (%s)"):format(tostring(name)), 3) end
    return maker(one, two)
  end
end

local sinks, sources = {}, {}

sinks["close-when-done"] = function(sock)
  return setmetatable({}, { __call = function(_, chunk, message)
    if chunk then return sock:send(chunk) end
    sock:close()
    return message == nil and 1 or nil, message
  end })
end

sinks["keep-open"] = function(sock)
  return setmetatable({}, { __call = function(_, chunk)
    if chunk then return sock:send(chunk) end
    return 1
  end })
end
sinks.default = sinks["keep-open"]

sources["by-length"] = function(sock, length)
  return setmetatable({}, { __call = function()
    if length <= 0 then return nil end
    local chunk, message = sock:receive(math.min(BLOCKSIZE, length))
    if not chunk then return nil, message end
    length = length - #chunk
    return chunk
  end })
end

sources["until-closed"] = function(sock)
  local is_over = false
  return setmetatable({}, { __call = function()
    if is_over then return nil end
    local chunk, message, partial = sock:receive(BLOCKSIZE)
    if chunk then return chunk end
    if message ~= "closed" then return nil, message end
    sock:close()
    is_over = true
    return partial
  end })
end
sources.default = sources["until-closed"]

-- ---- connections ----------------------------------------------------------------------

-- "127.0.0.1", "80" of "127.0.0.1:80" or "[::1]:80".
local function split(text)
  local host, port = tostring(text):match "^%[?(.-)%]?:(%d+)$"
  return host, tonumber(port)
end

local function why_not(message, code)
  if code == "ETIMEDOUT" then return "timeout" end
  if code == "ECONNREFUSED" then return "connection refused" end
  if code == "ENOTFOUND" then return "host not found" end
  return message
end

local USUAL_OPTIONS = { ["tcp-nodelay"] = true, keepalive = true, reuseaddr = true, linger = true }

-- The methods of sockets; `name` is that of their class.
local function methods_of(call, coroutines)
  local methods = {}

  -- The stream with the time that a call has; or nil, message.
  local function begin(self)
    local from = self.stream
    if not from then return nil, "closed" end
    from.wait = self.block
    from.deadline = self.total and perilune.now() + self.total
    return from
  end

  -- Seconds that the peer may take nothing of what is sent; 0: for ever.
  local function patience(self)
    local least = self.block and self.total and math.min(self.block, self.total) or self.block or self.total
    return least and math.max(least, 0.001) or 0
  end

  local function dial(self, address)
    if self.stream then return nil, "already connected" end
    local conn, message, code = call(perilune.connect, address, {
      frame = "raw", from = self.from, limits = { frame = "64k" },
      timeout = { connect = patience(self), read = 0, write = patience(self), idle = 0 },
    })
    if not conn then return nil, why_not(message, code) end
    self.stream = stream.new(conn, coroutines)
    return 1
  end

  function methods:connect(host, port)
    if self.family == "unix" then return dial(self, "unix://" .. tostring(host)) end
    local number = tonumber(port)
    if not number or number < 1 or number > 65535 then return nil, "invalid port" end
    host = tostring(host)
    return dial(self, ("tcp://%s:%d"):format(host:find(":", 1, true) and "[" .. host .. "]" or host, number))
  end

  --- "b": how long each wait may last; "t": how long a call may.
  function methods:settimeout(seconds, mode)
    if seconds ~= nil and (type(seconds) ~= "number") then
      error("settimeout expects seconds or nil, got " .. type(seconds), 2)
    end
    local value = seconds and seconds >= 0 and seconds or nil
    if mode == "t" or mode == "r" then self.total = value else self.block = value end
    if self.stream then self.stream.conn:set_timeout("write", patience(self)) end
    return 1
  end

  function methods:gettimeout() return self.block or -1, self.total or -1 end

  local function count_received(self, data, prefix, message, partial)
    local text = data or partial or ""
    self.received = self.received + #text
    if prefix ~= "" then
      data, partial = data and prefix .. data, partial and prefix .. partial
    end
    if data then return data end
    return nil, message, partial or prefix
  end

  function methods:receive(what, prefix)
    local from, why = begin(self)
    prefix = prefix and tostring(prefix) or ""
    if not from then return nil, why, prefix end
    local data, message, partial
    if what == nil or what == "*l" or what == "l" then
      data, message, partial = from:line()
    elseif what == "*a" or what == "a" then
      data, message, partial = from:all()
      if data == "" then data, message, partial = nil, "closed", "" end
    else
      local n = tonumber(what)
      if not n or n < 0 then error("receive: invalid receive pattern: " .. tostring(what), 2) end
      n = n - #prefix
      if n <= 0 then return prefix end
      data, message, partial = from:bytes(n)
    end
    return count_received(self, data, prefix, message, partial)
  end

  --- Returns the index of the last byte sent.
  function methods:send(data, first, last)
    local to, message = begin(self)
    if type(data) ~= "string" and type(data) ~= "number" then error("send expects a text, got " .. type(data), 2) end
    data = tostring(data)
    first, last = first or 1, last or -1
    if first < 0 then first = math.max(1, #data + first + 1) end
    if last < 0 then last = #data + last + 1 end
    last = math.min(last, #data)
    if not to then return nil, message, first - 1 end
    local part = data:sub(first, last)
    local ok, why = to:send(part)
    if not ok then return nil, why, first - 1 end
    self.sent = self.sent + #part
    return last
  end

  function methods:close()
    if self.stream then self.stream.conn:close() end
    self.stream = nil
    return 1
  end

  function methods:shutdown(how)
    if self.stream and how ~= "receive" then self.stream.conn:shutdown() end
    return 1
  end

  function methods:setoption(name)
    if USUAL_OPTIONS[name] then return 1 end -- as it is anyway
    return nil, "unsupported option " .. tostring(name)
  end

  function methods:getpeername()
    if not self.stream then return nil, "closed" end
    local text = self.stream.conn.peer
    if not text then return nil, "closed" end
    local host, port = split(text)
    return host or text, port, host and (host:find(":", 1, true) and "inet6" or "inet")
  end

  function methods:getsockname()
    if not self.stream then return nil, "closed" end
    local text = self.stream.conn.local_addr
    if not text then return nil, "closed" end
    local host, port = split(text)
    return host or text, port, host and (host:find(":", 1, true) and "inet6" or "inet")
  end

  function methods:dirty() return self.stream ~= nil and self.stream:is_readable() end
  function methods:getstats() return self.received, self.sent, perilune.now() - self.made end

  --- Of this end of the connection.
  function methods:bind(host)
    if self.family == "unix" then error(SERVER:format "bind", 2) end
    self.from = host ~= "*" and host or nil
    return 1
  end

  for _, name in ipairs { "listen", "accept" } do
    methods[name] = function() error(SERVER:format(name), 2) end
  end
  for _, name in ipairs { "getfd", "setfd", "setstats", "getoption" } do
    methods[name] = function() error(("%s is not there: scripts have no descriptors"):format(name), 2) end
  end
  return methods
end

---@param host { coroutines: perilune.compat.coroutines }
---@return table socket
function M.new(host)
  local call = host.coroutines.call
  local Socket = { __index = methods_of(call, host.coroutines), __name = "socket" }
  Socket.__tostring = function() return "tcp{client}" end

  local function new(family)
    return setmetatable({ family = family, received = 0, sent = 0, made = perilune.now() }, Socket)
  end

  local library = {
    _VERSION = "LuaSocket 3.1.0", _SETSIZE = 1e9, BLOCKSIZE = BLOCKSIZE,
    newtry = newtry, try = newtry(), protect = protect, skip = skip, choose = choose,
    sinkt = sinks, sourcet = sources, sink = choose(sinks), source = choose(sources),
  }

  function library.tcp() return new "inet" end
  library.tcp4, library.tcp6 = library.tcp, library.tcp
  function library.unix() return new "unix" end

  function library.connect(address, port, from)
    local sock = new "inet"
    if from then sock:bind(from) end
    local ok, message = sock:connect(address, port)
    if not ok then return nil, message end
    return sock
  end
  library.connect4, library.connect6 = library.connect, library.connect

  function library.bind() error(SERVER:format "socket.bind", 2) end

  local new_udp = udp.new(host, split, why_not)
  for name, family in pairs { udp = "inet", udp4 = "inet4", udp6 = "inet6" } do
    library[name] = function() return new_udp(family) end
  end

  function library.gettime() return perilune.time() end

  function library.sleep(seconds)
    call(perilune.sleep, math.max(0, seconds))
    return true
  end

  local function ready_of(list)
    local ready = {}
    for _, sock in ipairs(list or {}) do
      if not sock.stream or sock.stream:is_readable() then
        ready[#ready + 1], ready[sock] = sock, true
      end
    end
    return ready
  end

  local function wait_for(list, seconds)
    local semaphore = perilune.semaphore(0)
    for _, sock in ipairs(list) do sock.stream:watch(function() semaphore:release() end) end
    if seconds == nil or seconds < 0 then return semaphore:acquire() end
    return semaphore:acquire(math.max(seconds, 0.001))
  end

  --- What can be sent to always is ready: more than the system takes waits here.
  function library.select(readers, writers, seconds)
    local readable, writable = ready_of(readers), {}
    for _, sock in ipairs(writers or {}) do
      writable[#writable + 1], writable[sock] = sock, true
    end
    if #readable > 0 or #writable > 0 then return readable, writable end
    if not readers or #readers == 0 then
      if seconds and seconds >= 0 then call(perilune.sleep, seconds) end
      return readable, writable, "timeout"
    end
    call(wait_for, readers, seconds)
    readable = ready_of(readers)
    return readable, writable, #readable == 0 and "timeout" or nil
  end

  -- ---- names ----

  local function addresses_of(name)
    local list, message, code = call(perilune.resolve, name)
    if not list then return nil, why_not(message, code) end
    return list
  end

  library.dns = {
    toip = function(name)
      local list, message = addresses_of(name)
      if not list then return nil, message end
      return list[1], { name = name, alias = {}, ip = list }
    end,
    getaddrinfo = function(name)
      local list, message = addresses_of(name)
      if not list then return nil, message end
      local found = {}
      for i, address in ipairs(list) do
        found[i] = { family = address:find(":", 1, true) and "inet6" or "inet", addr = address }
      end
      return found
    end,
  }
  for _, name in ipairs { "tohostname", "getnameinfo", "gethostname" } do
    library.dns[name] = function()
      error(("socket.dns.%s is not there: addresses are not turned into names"):format(name), 2)
    end
  end

  return library
end

return M
