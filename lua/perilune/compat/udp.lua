--- `ngx.socket.udp`: OpenResty's sockets for datagrams, on connections out over UDP.
local cosocket = require "perilune.compat.cosocket"
local perilune = require "perilune"
local stream = require "perilune.compat.stream"

local M = {}

local SIZE_MAX = 8192 -- of a datagram that is read: what is beyond it is lost

local NOT_HERE = {
  setkeepalive = "the same socket again: it goes on until it is closed", connect = "setpeername",
  settimeouts = "settimeout", sendto = "setpeername and send", receivefrom = "listen = \"udp://…\"",
}

---@param host { coroutines: perilune.compat.coroutines }
---@return fun(): table udp
function M.new(host)
  local call = host.coroutines.call

  local methods = {}
  local Socket = {
    __index = function(_, name)
      local method = methods[name]
      if method then return method end
      if NOT_HERE[name] then error(("udpsock:%s is not there: use %s"):format(name, NOT_HERE[name]), 2) end
    end,
  }

  --- Sends to this peer from now on, and hears nobody else.
  function methods:setpeername(to, port)
    if type(to) ~= "string" then error("udpsock:setpeername expects a host, got " .. type(to), 2) end
    if to:find "^unix:" then
      error("udpsock:setpeername: datagrams over Unix sockets are not there: use ngx.socket.tcp with unix:, or UDP", 2)
    end
    if self.stream then self:close() end
    local address, message = cosocket.address_of("udpsock:setpeername", "udp://", to, port)
    if not address then return nil, message end
    local seconds = cosocket.seconds_of(self.ms)
    local conn, why, code = call(perilune.connect, address, {
      from = self.from or nil, timeout = { connect = seconds, read = 0, idle = 0 },
    })
    if not conn then return nil, cosocket.why_not(why, code) end
    self.stream = stream.new(conn, host.coroutines)
    return 1
  end

  function methods:send(data)
    local text = cosocket.text_of("udpsock:send", data)
    if not self.stream then return nil, "closed" end
    local ok, message, code = self.stream.conn:send(text)
    if ok ~= nil then return 1 end
    return nil, stream.short(message, code)
  end

  --- The next datagram, or as much of it as is asked for.
  function methods:receive(size)
    local most = size == nil and SIZE_MAX or tonumber(size)
    if not most or most < 1 then error("udpsock:receive expects a size, got " .. tostring(size), 2) end
    if not self.stream then return nil, "closed" end
    self.stream.wait = cosocket.seconds_of(self.ms)
    local data, message = self.stream:datagram()
    if data then return data:sub(1, math.min(most, SIZE_MAX)) end
    return nil, message
  end

  function methods:settimeout(ms)
    self.ms = cosocket.check_ms("udpsock:settimeout", ms) or self.ms
    return 1
  end

  --- Of this end; for the next setpeername().
  function methods:bind(from)
    self.from = from
    return 1
  end

  function methods:close()
    if not self.stream then return nil, "closed" end
    self.stream.conn:close()
    self.stream = false
    return 1
  end

  return function() return setmetatable({ stream = false, from = false, ms = cosocket.TIMEOUT_MS }, Socket) end
end

return M
