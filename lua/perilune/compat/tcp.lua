--- `ngx.socket.tcp`: OpenResty's cosockets on connections out.
local cosocket = require "perilune.compat.cosocket"
local perilune = require "perilune"
local pool = require "perilune.compat.pool"
local stream = require "perilune.compat.stream"

local M = {}

local check_ms, seconds_of, why_not = cosocket.check_ms, cosocket.seconds_of, cosocket.why_not
local TIMEOUT_MS, IDLE_MS, POOL_SIZE = cosocket.TIMEOUT_MS, 60000, 30

-- What must not be written beside the wait that it is for.
local NOT_HERE = {
  setclientcert = "perilune.connect with tls = { certificate = …, key = … }",
  getfd = "conn.id of perilune.connect", receivefrom = "ngx.socket.udp",
}

-- ---- options -----------------------------------------------------------------------

local function read_options(options, at)
  if options == nil then return {} end
  if type(options) ~= "table" then error(("tcpsock:connect expects a table as argument %d"):format(at), 3) end
  if options.backlog ~= nil then
    error("tcpsock:connect: backlog is not there: bound how many are open at once with perilune.semaphore", 3)
  end
  return options
end

---@param host { coroutines: perilune.compat.coroutines }
---@return fun(): table tcp
function M.new(host)
  local call = host.coroutines.call
  local kept = pool.new()
  -- Where a handshake followed: connect() waits for the next one there, to find it a connection that has TLS already.
  local speaks_tls, speaks_count = {}, 0

  local methods = {}
  local Socket = {
    __index = function(_, name)
      local method = methods[name]
      if method then return method end
      if NOT_HERE[name] then
        error(("tcpsock:%s is not there: use %s"):format(name, NOT_HERE[name]), 2)
      end
    end,
  }

  -- All that a connection must have in common with who takes it from a pool.
  local function key_of(self)
    return table.concat({ self.address, self.pool or "", self.identity or "", self.from or "" }, "\0")
  end

  local function detach(self)
    self.stream, self.is_promised, self.identity = false, false, false
  end

  local function options_for(self, tls)
    return {
      frame = "raw", from = self.from or nil, tls = tls,
      limits = { frame = "64k" },
      timeout = { connect = seconds_of(self.connect_ms), read = 0, write = seconds_of(self.send_ms), idle = 0 },
    }
  end

  local function attach(self, conn, reused)
    self.stream = stream.new(conn, host.coroutines)
    self.reused, self.is_promised, self.is_used = reused, false, reused > 0
    if reused > 0 then conn:set_timeout("write", seconds_of(self.send_ms)) end
    return 1
  end

  local function dial(self, address, tls)
    local conn, message, code = call(perilune.connect, address, options_for(self, tls))
    if not conn then
      detach(self)
      return nil, why_not(message, code)
    end
    return attach(self, conn, 0)
  end

  local function take_kept(self)
    local found = kept:take(key_of(self))
    return found and attach(self, found.conn, found.reused + 1)
  end

  -- The stream, connected by now; or nil, message.
  local function opened(self)
    if self.is_promised then
      local ok, message = dial(self, self.address)
      if not ok then return nil, message end
    end
    if not self.stream then return nil, "closed" end
    self.is_used = true
    return self.stream
  end

  local function ends(self, message)
    if message ~= "timeout" and self.stream then
      self.stream.conn:close()
      detach(self)
    end
  end

  -- What a read has returned; after a failure other than a time-out the connection is closed.
  local function read_result(self, data, message, partial)
    if data then return data end
    ends(self, message)
    return nil, message, partial
  end

  local function reading(self)
    local from, message = opened(self)
    if from then from.wait = seconds_of(self.read_ms) end
    return from, message
  end

  function methods:connect(to, port, options)
    if type(to) ~= "string" then error("tcpsock:connect expects a host, got " .. type(to), 2) end
    if self.stream or self.is_promised then self:close() end
    local path = to:match "^unix:(.*)$"
    local address, message
    if path then
      address, options = "unix://" .. path, port
    else
      address, message = cosocket.address_of("tcpsock:connect", "tcp://", to, port)
      if not address then return nil, message end
    end
    options = read_options(options, path and 2 or 3)
    self.address, self.pool, self.pool_size = address, options.pool, options.pool_size
    self.host, self.identity = to, false
    if take_kept(self) then return 1 end
    if speaks_tls[key_of(self)] then
      self.is_promised, self.reused, self.is_used = true, 0, false
      return 1
    end
    return dial(self, address)
  end

  local function note_tls(key)
    if speaks_tls[key] then return end
    if speaks_count >= 1000 then speaks_tls, speaks_count = {}, 0 end
    speaks_tls[key], speaks_count = true, speaks_count + 1
  end

  --- TLS begins with the connection, so this one is replaced by one that has it.
  function methods:sslhandshake(session, server_name, verify, ocsp)
    if self.identity then return session == false or session or true end -- of a pool: it has been done
    if not self.stream and not self.is_promised then return nil, "closed" end
    if ocsp then error("tcpsock:sslhandshake: a stapled OCSP response cannot be asked for", 2) end
    if self.is_used then
      return nil, "TLS cannot begin after something was sent or read: connect with perilune.connect \"tls://…\""
    end
    if self.address:find "^unix:" then return nil, "there is no TLS over a Unix socket" end
    note_tls(key_of(self))
    if self.stream then self.stream.conn:close() end
    local name = server_name or self.host
    detach(self)
    local identity = ("tls %s %s"):format(verify and "verified" or "unverified", name)
    self.identity = identity
    if take_kept(self) then return session == false or true end
    local tls = { server_name = name, verify = verify and true or false }
    local ok, message = dial(self, (self.address:gsub("^tcp:", "tls:")), tls)
    if not ok then return nil, message end
    self.identity = identity
    return session == false or true
  end

  function methods:send(data)
    local to, message = opened(self)
    if not to then return nil, message end
    local text = cosocket.text_of("tcpsock:send", data)
    local ok, why = to:send(text)
    if ok then return #text end
    ends(self, why)
    return nil, why
  end

  function methods:receive(what)
    local from, message = reading(self)
    if not from then return nil, message end
    if what == nil or what == "*l" or what == "l" then return read_result(self, from:line()) end
    if what == "*a" or what == "a" then
      local data, why, partial = from:all()
      if data then ends(self) end
      return read_result(self, data, why, partial)
    end
    local n = tonumber(what)
    if not n or n < 0 or n % 1 ~= 0 then
      error(("tcpsock:receive: bad pattern argument: %s"):format(tostring(what)), 2)
    end
    if n == 0 then return "" end
    return read_result(self, from:bytes(n))
  end

  function methods:receiveany(max)
    if type(max) ~= "number" or max < 1 then error("tcpsock:receiveany expects a number of bytes above 0", 2) end
    local from, message = reading(self)
    if not from then return nil, message end
    return read_result(self, from:any(max))
  end

  function methods:receiveuntil(text, options)
    if type(text) ~= "string" then error("tcpsock:receiveuntil expects a text, got " .. type(text), 2) end
    if text == "" then return nil, "pattern is empty" end
    local inclusive = options and options.inclusive or false
    local of, piece
    return function(size)
      local from, message = reading(self)
      if not from then return nil, message end
      if from ~= of then of, piece = from, from:up_to(text, inclusive) end
      local data, why, partial = piece(size)
      if not data and not why then return nil, nil, nil end
      return read_result(self, data, why, partial)
    end
  end

  function methods:close()
    local is_open = self.stream or self.is_promised
    if self.stream then self.stream.conn:close() end
    detach(self)
    if is_open then return 1 end
    return nil, "closed"
  end

  --- Keeps the connection for another connect() to the same place, with the same pool, name and verification.
  function methods:setkeepalive(idle_ms, size)
    check_ms("tcpsock:setkeepalive", idle_ms)
    if self.is_promised then return self:close() end
    if not self.stream then return nil, "closed" end
    local from, key = self.stream, key_of(self)
    detach(self)
    if from:is_readable() then
      from.conn:close()
      return nil, "connection in dubious state"
    end
    local idle = idle_ms ~= 0 and (idle_ms or IDLE_MS) / 1000 or nil -- 0: for ever
    if call(from.conn.flush, from.conn) ~= true then return nil, "closed" end
    local ok, message = kept:keep(key, from.conn, self.reused, idle, size or self.pool_size or POOL_SIZE)
    if ok == nil then return nil, message or "connection in dubious state" end
    return 1
  end

  function methods:getreusedtimes()
    if not self.stream and not self.is_promised then return nil, "closed" end
    return self.reused
  end

  function methods:settimeout(ms)
    return self:settimeouts(ms, ms, ms)
  end

  function methods:settimeouts(connect_ms, send_ms, read_ms)
    self.connect_ms = check_ms("tcpsock:settimeouts", connect_ms) or self.connect_ms
    self.send_ms = check_ms("tcpsock:settimeouts", send_ms) or self.send_ms
    self.read_ms = check_ms("tcpsock:settimeouts", read_ms) or self.read_ms
    if self.stream and send_ms then self.stream.conn:set_timeout("write", seconds_of(self.send_ms)) end
    return 1
  end

  function methods:setoption(name)
    if name == "tcp-nodelay" or name == "keepalive" or name == "reuseaddr" then return 1 end -- as it is anyway
    return nil, "unsupported option " .. tostring(name)
  end

  function methods:bind(from)
    self.from = from
    return 1
  end

  return function()
    return setmetatable({
      stream = false, is_promised = false, identity = false, from = false, pool = false, pool_size = false,
      reused = 0, is_used = false, connect_ms = TIMEOUT_MS, send_ms = TIMEOUT_MS, read_ms = TIMEOUT_MS,
    }, Socket)
  end
end

return M
