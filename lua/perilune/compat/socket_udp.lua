--- `socket.udp`: LuaSocket's UDP sockets, on connections out over UDP.
---
--- One that has a peer is a connection to it. One that has none is a connection to each place that it sends to, and
--- hears those: nobody else can answer it.
local perilune = require "perilune"
local stream = require "perilune.compat.stream"

local M = {}

local SIZE = 8192       -- of a datagram that is read, unless receive() is told another
local PLACES_MAX = 100  -- of a socket without a peer: the one that was sent to first is forgotten

local LISTEN = "%s is not there: datagrams of whoever sends some come to listen = \"udp://…\""

-- ---- the places of a socket without a peer ------------------------------------------

---@class perilune.compat.places
---@field list { key: string, stream: perilune.compat.stream, host: string, port: integer }[] the latest last
local Places = {}
Places.__index = Places

function Places:find(key)
  for _, place in ipairs(self.list) do
    if place.key == key then return place end
  end
end

function Places:add(place)
  if #self.list >= PLACES_MAX then table.remove(self.list, 1).stream.conn:close() end
  table.insert(self.list, place)
end

-- One that has something to say, or has ended.
function Places:ready()
  for _, place in ipairs(self.list) do
    if place.stream:is_readable() then return place end
  end
end

function Places:is_readable() return self:ready() ~= nil end

function Places:watch(tell)
  for _, place in ipairs(self.list) do place.stream:watch(tell) end
end

function Places:close()
  for _, place in ipairs(self.list) do place.stream.conn:close() end
  self.list = {}
end

-- ---- sockets ---------------------------------------------------------------------------

local function address_of(host, port)
  local number = tonumber(port)
  if not number or number < 1 or number > 65535 then return nil, "invalid port" end
  host = tostring(host)
  return ("udp://%s:%d"):format(host:find(":", 1, true) and "[" .. host .. "]" or host, number)
end

local function family_of(host) return host:find(":", 1, true) and "inet6" or "inet" end

local function check_text(what, data)
  if type(data) ~= "string" and type(data) ~= "number" then
    error(("%s expects a text, got %s"):format(what, type(data)), 3)
  end
  return tostring(data)
end

local function check_size(what, size)
  local number = size == nil and SIZE or tonumber(size)
  if not number or number < 0 then error(("%s expects a size, got %s"):format(what, tostring(size)), 3) end
  return number
end

local ANY = { inet4 = "0.0.0.0", inet6 = "::" } -- only addresses of this family, then

local OPTIONS = { reuseaddr = true, reuseport = true } -- have no effect on who only sends and is answered

---@param host { coroutines: perilune.compat.coroutines }
---@param split fun(text: string): string?, integer? host and port of an address
---@param why_not fun(message: string, code: string): string
---@return fun(family: "inet"|"inet4"|"inet6"): table
function M.new(host, split, why_not)
  local call = host.coroutines.call
  local methods = {}

  local function dial(self, to, port)
    local address, message = address_of(to, port)
    if not address then return nil, message end
    local conn, why, code = call(perilune.connect, address, {
      from = self.from or self.any_from, timeout = { read = 0, idle = 0 },
    })
    if conn then return stream.new(conn, host.coroutines) end
    return nil, why_not(why, code)
  end

  local function send(to, text)
    local ok, message, code = to.conn:send(text)
    if ok ~= nil then return #text end
    return nil, stream.short(message, code)
  end

  -- A text instead of it: why it is of no use.
  local function check_open(self, method, wants_peer)
    if self.is_closed then return "closed" end
    if wants_peer and not self.has_peer then
      error(("%s: it has no peer: setpeername() gives it one"):format(method), 3)
    end
    if wants_peer == false and self.has_peer then
      error(("%s: it has a peer; setpeername(\"*\") takes that away"):format(method), 3)
    end
  end

  local function without_peer(self)
    self.has_peer, self.stream = false, setmetatable({ list = {} }, Places)
  end

  local function drop_streams(self)
    if self.has_peer then self.stream.conn:close() else self.stream:close() end
    without_peer(self)
  end

  --- Sends to this peer from now on, and hears nobody else; "*": there is no peer any more.
  function methods:setpeername(to, port)
    local closed = check_open(self)
    if closed then return nil, closed end
    drop_streams(self)
    if to == "*" then return 1 end
    local found, message = dial(self, to, port)
    if not found then return nil, message end
    self.has_peer, self.stream = true, found
    return 1
  end

  function methods:send(data)
    local text = check_text("send", data)
    local closed = check_open(self, "send", true)
    if closed then return nil, closed end
    return send(self.stream, text)
  end

  function methods:sendto(data, to, port)
    local text = check_text("sendto", data)
    local closed = check_open(self, "sendto", false)
    if closed then return nil, closed end
    local key = ("%s %s"):format(tostring(to), tostring(port))
    local place = self.stream:find(key)
    if not place then
      local found, message = dial(self, to, port)
      if not found then return nil, message end
      place = { key = key, stream = found, host = tostring(to), port = tonumber(port) }
      self.stream:add(place)
    end
    local sent, message = send(place.stream, text)
    if sent then return sent end
    if message ~= "connection refused" then return nil, message end
    return send(place.stream, text) -- an earlier one was, which is no news of a socket without a peer
  end

  -- Seconds that a wait may last; nil: for ever.
  local function left_until(deadline) return deadline and math.max(deadline - perilune.now(), 0.001) end

  local function wait_for(places, seconds)
    local semaphore = perilune.semaphore(0)
    places:watch(function() semaphore:release() end)
    if seconds then return semaphore:acquire(seconds) end
    return semaphore:acquire()
  end

  -- The next datagram of any place, and which.
  local function next_of_places(self)
    local places, deadline = self.stream, self.timeout and perilune.now() + self.timeout
    if #places.list == 0 then
      error("receive: nothing was sent by it, and so nobody can answer: " .. LISTEN:format "a server", 3)
    end
    while true do
      local place = places:ready()
      if not place and #places.list == 1 then
        place = places.list[1]
        place.stream.wait = left_until(deadline)
      elseif not place then
        if not call(wait_for, places, left_until(deadline)) then return nil, "timeout" end
        place = places:ready()
      end
      local data, message = place.stream:datagram()
      if data then return data, place end
      if message ~= "connection refused" then return nil, message end
      if deadline and perilune.now() >= deadline then return nil, "timeout" end
    end
  end

  -- The next datagram, and whose it is.
  local function receive(self)
    if not self.has_peer then return next_of_places(self) end
    self.stream.wait = self.timeout
    return self.stream:datagram()
  end

  function methods:receive(size)
    local most = check_size("receive", size)
    local closed = check_open(self)
    if closed then return nil, closed end
    local data, message = receive(self)
    if data then return data:sub(1, most) end
    return nil, message
  end

  --- ... and the address and the port of who has sent it.
  function methods:receivefrom(size)
    local most = check_size("receivefrom", size)
    local closed = check_open(self)
    if closed then return nil, closed end
    local data, place = receive(self)
    if not data then return nil, place end
    local from = (place and place.stream or self.stream).conn.peer
    return data:sub(1, most), split(from)
  end

  function methods:settimeout(seconds)
    if seconds ~= nil and type(seconds) ~= "number" then
      error("settimeout expects seconds or nil, got " .. type(seconds), 2)
    end
    self.timeout = seconds and seconds >= 0 and seconds or nil
    return 1
  end

  function methods:gettimeout() return self.timeout or -1, -1 end

  --- This end's address, for what is sent next. A port of one's choice is a server's.
  function methods:setsockname(from, port)
    if port ~= nil and tonumber(port) ~= 0 then
      error("setsockname: the port of a client is the system's choice: 0. " .. LISTEN:format "a server", 2)
    end
    self.from = from ~= "*" and from or nil
    return 1
  end

  function methods:getpeername()
    if not self.has_peer then return nil, "closed" end
    local to, port = split(self.stream.conn.peer)
    return to, port, family_of(to)
  end

  function methods:getsockname()
    local place = self.has_peer and self.stream or self.stream.list[1] and self.stream.list[1].stream
    if place then
      local from, port = split(place.conn.local_addr)
      return from, port, family_of(from)
    end
    local from = self.from or self.any_from or "0.0.0.0"
    return from, 0, family_of(from)
  end

  function methods:dirty() return self.stream:is_readable() end

  function methods:setoption(name)
    if OPTIONS[name] then return 1 end
    return nil, "unsupported option " .. tostring(name)
  end

  function methods:close()
    drop_streams(self)
    self.is_closed = true
    return 1
  end

  for _, name in ipairs { "getfd", "setfd", "getoption" } do
    methods[name] = function() error(("%s is not there: scripts have no descriptors"):format(name), 2) end
  end
  for _, name in ipairs { "connect", "bind", "listen", "accept" } do
    methods[name] = function() error(("%s is not there: setpeername() gives a peer"):format(name), 2) end
  end

  local Socket = { __index = methods, __name = "socket" }
  Socket.__tostring = function(self) return self.has_peer and "udp{connected}" or "udp{unconnected}" end

  return function(family)
    local made = setmetatable({ is_closed = false, any_from = ANY[family] }, Socket)
    without_peer(made)
    return made
  end
end

return M
