--- Clients of udp:// over real sockets.
---
---     local one = udp.connect(app)
---     one:send "hello"
---     assert.equal("hello", one:receive())
local poll = require "posix.poll"
local posix_socket = require "posix.sys.socket"
local unistd = require "posix.unistd"
local wait = require "spec.support.wait"

local M = {}

local LARGEST = 65536
local INPUT = { IN = true }

---@class perilune.spec.udp
---@field fd integer? nil: closed
---@field host string its own address
---@field port integer
local client = {}
client.__index = client

local open = {}

--- A client of the first listener, or of number `listener`; from an address of its own, where one is named.
---@param app perilune.server
---@param options { listener: integer?, host: string?, port: integer?, from: string?, queue: integer? }?
---@return perilune.spec.udp
function M.connect(app, options)
  options = options or {}
  local to = app.listeners[options.listener or 1]
  local host = options.host or to.host
  local family = host:find ":" and posix_socket.AF_INET6 or posix_socket.AF_INET
  local fd = assert(posix_socket.socket(family, posix_socket.SOCK_DGRAM, 0))
  if options.queue then
    assert(posix_socket.setsockopt(fd, posix_socket.SOL_SOCKET, posix_socket.SO_RCVBUF, options.queue))
  end
  if options.from then assert(posix_socket.bind(fd, { family = family, addr = options.from, port = 0 })) end
  assert(posix_socket.connect(fd, { family = family, addr = host, port = options.port or to.port }))
  local own = posix_socket.getsockname(fd)
  local self = setmetatable({ fd = fd, host = own.addr, port = own.port }, client)
  open[#open + 1] = self
  return self
end

--- Many of them.
---@return perilune.spec.udp[]
function M.connect_all(app, n, options)
  local all = {}
  for i = 1, n do all[i] = M.connect(app, options) end
  return all
end

--- A datagram; several, one after the other.
---@param ... string
---@return perilune.spec.udp
function client:send(...)
  for i = 1, select("#", ...) do assert(posix_socket.send(self.fd, (select(i, ...)))) end
  return self
end

--- The next datagram; waits for it.
---@return string
function client:receive()
  if poll.poll({ [self.fd] = { events = INPUT } }, math.ceil(wait.SECONDS * 1000)) ~= 1 then
    error("no datagram came", 2)
  end
  return assert(posix_socket.recv(self.fd, LARGEST))
end

--- What has come by now: nil, nothing.
---@return string?
function client:try_receive()
  if poll.poll({ [self.fd] = { events = INPUT } }, 0) ~= 1 then return nil end
  return posix_socket.recv(self.fd, LARGEST)
end

--- Sends a datagram, and the next one that comes must be this one.
---@param bytes string
---@param expected string? the same, unless it says otherwise
---@return perilune.spec.udp
function client:echo(bytes, expected)
  self:send(bytes)
  local got = self:receive()
  if got ~= (expected or bytes) then
    error(("expected %q, got %q"):format((expected or bytes):sub(1, 80), got:sub(1, 80)), 2)
  end
  return self
end

function client:close()
  if self.fd then unistd.close(self.fd) end
  self.fd = nil
end

-- ---- records: datagrams as the stream of bytes that the server has of them ----

--- A datagram with the header that UDP gives it, as src/net/datagram.h has it.
---@param payload string
---@return string
function M.record(payload)
  local total = #payload + 8
  return "\0\0\0\0" .. string.char(math.floor(total / 256), total % 256) .. "\0\0" .. payload
end

--- The payloads of a stream of records.
---@param bytes string
---@return string[]
function M.payloads(bytes)
  local list, at = {}, 1
  while at <= #bytes do
    local high, low = bytes:byte(at + 4, at + 5)
    local total = high * 256 + low
    list[#list + 1] = bytes:sub(at + 8, at + total - 1)
    at = at + total
  end
  return list
end

--- A client that takes records and gives them, as those of streams do with bytes.
---@return table
function M.connect_records(app, options)
  local one = M.connect(app, options)
  return {
    send = function(_, bytes) one:send(unpack(M.payloads(bytes))) end,
    recv_some = function() return M.record(one:receive()) end,
    close = function() one:close() end,
  }
end

--- Closes all that are open.
function M.close_all()
  for _, one in ipairs(open) do one:close() end
  open = {}
end

return M
