--- A client over a real socket that can do what networks do: split, stall, reset, half-close.
--- What should not happen raises, so a spec reads as what was sent and what came back.
local errno = require "posix.errno"
local fcntl = require "posix.fcntl"
local poll = require "posix.poll"
local posix_socket = require "posix.sys.socket"
local unistd = require "posix.unistd"
local wait = require "spec.support.wait"

local M = {}

local CHUNK = 262144
local TCP_MAXSEG = 2 -- luaposix has no name for it
local INPUT, OUTPUT = { IN = true }, { OUT = true }

---@class perilune.client
---@field fd integer? nil: closed
---@field port integer? the client's own
local client = {}
client.__index = client

local function shown(bytes)
  return ("%q%s"):format(bytes:sub(1, 60), #bytes > 60 and (" and %d bytes more"):format(#bytes - 60) or "")
end

-- Until the descriptor is ready, or the deadline.
local function ready(fd, events, deadline)
  local left_ms = math.max(0, math.ceil((deadline - wait.now()) * 1000))
  local n = poll.poll({ [fd] = { events = events } }, left_ms)
  return n == 1
end

---@param bytes string
---@return perilune.client
function client:send(bytes)
  local deadline, at = wait.deadline(self.seconds), 1
  while at <= #bytes do
    local n, message, code = posix_socket.send(self.fd, at == 1 and bytes or bytes:sub(at, at + CHUNK - 1))
    if n then
      at = at + n
    elseif code ~= errno.EAGAIN then
      error("send: " .. message, 2)
    elseif not ready(self.fd, OUTPUT, deadline) then
      error(("send: blocked after %d of %d bytes"):format(at - 1, #bytes), 2)
    end
  end
  return self
end

--- Sends as much as is taken at once: never waits, never raises.
---@param bytes string
---@return integer sent 0: it would block, or nobody listens
function client:send_some(bytes)
  return posix_socket.send(self.fd, bytes) or 0
end

--- Sends one byte at a time, each in a segment of its own.
---@param bytes string
---@return perilune.client
function client:trickle(bytes)
  for i = 1, #bytes do self:send(bytes:sub(i, i)) end
  return self
end

--- Big-endian length in four bytes, then the payload.
---@param payload string
---@return string
function M.frame(payload)
  local n = #payload
  return string.char(math.floor(n / 2 ^ 24), math.floor(n / 2 ^ 16) % 256, math.floor(n / 256) % 256, n % 256)
    .. payload
end

---@param payload string
---@return perilune.client
function client:send_frame(payload) return self:send(M.frame(payload)) end

-- One more piece in self.pieces. False and "closed", "reset" or "timeout".
local function receive(self, deadline)
  if self.ended then return false, self.ended end
  if not ready(self.fd, INPUT, deadline) then return false, "timeout" end
  local bytes, message, code = posix_socket.recv(self.fd, CHUNK)
  if bytes and #bytes > 0 then
    self.pieces[#self.pieces + 1] = bytes
    self.buffered = self.buffered + #bytes
    return true
  end
  if not bytes and code ~= errno.ECONNRESET and code ~= errno.EPIPE then error("recv: " .. message, 3) end
  self.ended = bytes and "closed" or "reset"
  return false, self.ended
end

-- What was received, from byte self.at on; it is put together only when it is looked at.
local function received(self)
  if #self.pieces > 0 then
    self.buffer, self.at = self.buffer:sub(self.at) .. table.concat(self.pieces), 1
    self.pieces = {}
  end
  return self.buffer
end

local function take(self, n)
  local bytes = received(self):sub(self.at, self.at + n - 1)
  self.at, self.buffered = self.at + n, self.buffered - n
  return bytes
end

---@param n integer
---@return string
function client:recv_exact(n)
  local deadline = wait.deadline(self.seconds)
  while self.buffered < n do
    local ok, why = receive(self, deadline)
    if not ok then
      error(("recv: %s after %d of %d bytes: %s"):format(why, self.buffered, n, shown(take(self, self.buffered))), 2)
    end
  end
  return take(self, n)
end

--- Without its "\n".
---@return string
function client:recv_line()
  local deadline = wait.deadline(self.seconds)
  while true do
    local stop = received(self):find("\n", self.at, true)
    if stop then return take(self, stop - self.at + 1):sub(1, -2) end
    local ok, why = receive(self, deadline)
    if not ok then error(("recv: %s before the end of a line: %s"):format(why, shown(take(self, self.buffered))), 2) end
  end
end

---@return string payload
function client:recv_frame()
  local a, b, c, d = self:recv_exact(4):byte(1, 4)
  return self:recv_exact(((a * 256 + b) * 256 + c) * 256 + d)
end

--- What comes next, all of it that has come; or nil and how the stream has ended.
---@return string? bytes
---@return "closed"|"reset"|nil how
function client:recv_some()
  local ok, why = self.buffered > 0, nil
  if not ok then ok, why = receive(self, wait.deadline(self.seconds)) end
  if why == "timeout" then error("recv: nothing came", 2) end
  if not ok then return nil, why end
  return take(self, self.buffered)
end

--- Everything up to the end.
---@return string bytes
---@return "closed"|"reset" how
function client:recv_all()
  local deadline = wait.deadline(self.seconds)
  repeat
    local ok, why = receive(self, deadline)
    if why == "timeout" then
      error("recv: no end of the stream after " .. shown(take(self, self.buffered)), 2)
    end
  until not ok
  return take(self, self.buffered), self.ended
end

local function expect_end(self, how)
  local bytes, ended = self:recv_all()
  if bytes ~= "" then error("expected the end of the stream, got " .. shown(bytes), 3) end
  if ended ~= how then error(("the stream ended %s, not %s"):format(ended, how), 3) end
end

--- The server's end-of-stream is next.
function client:expect_closed() expect_end(self, "closed") end

--- The server's reset is next.
function client:expect_reset() expect_end(self, "reset") end

--- Nothing more arrives for so long.
---@param seconds number
function client:expect_silence(seconds)
  local ok, why = receive(self, wait.now() + seconds)
  if ok or why ~= "timeout" then
    error("expected silence, got " .. (ok and shown(take(self, self.buffered)) or why), 2)
  end
end

--- Sends a line and checks the line that comes back.
---@param line string
---@param answer string? default: the same
---@return perilune.client
function client:echo_line(line, answer)
  local got = self:send(line .. "\n"):recv_line()
  if got ~= (answer or line) then error(("sent line %s, got back %s"):format(shown(line), shown(got)), 2) end
  return self
end

--- Sends a u32be frame and checks the one that comes back.
---@param payload string
---@return perilune.client
function client:echo_frame(payload)
  local got = self:send_frame(payload):recv_frame()
  if got ~= payload then error(("sent frame %s, got back %s"):format(shown(payload), shown(got)), 2) end
  return self
end

--- Half-close.
---@param side "send"
---@return perilune.client
function client:shutdown(side)
  assert(side == "send")
  assert(posix_socket.shutdown(self.fd, posix_socket.SHUT_WR))
  return self
end

---@return perilune.client
function client:close()
  if self.fd then unistd.close(self.fd) end
  self.fd = nil
  return self
end

--- Closes so that the server sees a reset.
---@return perilune.client
function client:reset()
  if self.fd then assert(posix_socket.setsockopt(self.fd, posix_socket.SOL_SOCKET, posix_socket.SO_LINGER, 1, 0)) end
  return self:close()
end

local function family_of(to)
  if to.path then return posix_socket.AF_UNIX end
  return to.host and to.host:find(":", 1, true) and posix_socket.AF_INET6 or posix_socket.AF_INET
end

-- The server must never inherit what belongs to clients.
local function set_flags(fd)
  fcntl.fcntl(fd, fcntl.F_SETFD, fcntl.FD_CLOEXEC)
  fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.O_NONBLOCK)
end

local function address_of(to, family)
  if to.path then return { family = family, path = to.path } end
  return { family = family, addr = to.host or "127.0.0.1", port = to.port }
end

local function prepare(fd, to, family)
  set_flags(fd)
  if to.receive_buffer then
    assert(posix_socket.setsockopt(fd, posix_socket.SOL_SOCKET, posix_socket.SO_RCVBUF, to.receive_buffer))
  end
  if to.send_buffer then
    assert(posix_socket.setsockopt(fd, posix_socket.SOL_SOCKET, posix_socket.SO_SNDBUF, to.send_buffer))
  end
  if family ~= posix_socket.AF_UNIX then
    assert(posix_socket.setsockopt(fd, posix_socket.IPPROTO_TCP, posix_socket.TCP_NODELAY, 1))
    if to.segment then assert(posix_socket.setsockopt(fd, posix_socket.IPPROTO_TCP, TCP_MAXSEG, to.segment)) end
  end
  if to.source then assert(posix_socket.bind(fd, { family = family, addr = to.source, port = 0 })) end
end

-- A connect that is under way is over when the socket is writable; what became of it, the next call tells.
local function established(fd, address, seconds)
  local ok, message, code = posix_socket.connect(fd, address)
  if ok or code == errno.EINPROGRESS and ready(fd, OUTPUT, wait.deadline(seconds)) then
    ok, message, code = posix_socket.connect(fd, address)
    if ok or code == errno.EISCONN then return true end
  end
  return nil, message, code
end

-- luaposix passes getsockname(2) a length that it has not set, so now and then an address comes back
-- cut off, without a port; and none for a Unix socket.
local function own_port(fd)
  for _ = 1, 50 do
    local name = posix_socket.getsockname(fd)
    if name and (name.port or name.family == posix_socket.AF_UNIX) then return name.port end
  end
end

--- Connects, or gives nil, message, code.
---@param to { port: integer?, host: string?, path: string?, source: string?, receive_buffer: integer?,
---  send_buffer: integer?, segment: integer?, seconds: number? } `source` is the address to connect from; `segment`: of
---  TCP, so many bytes at most; with little, both sides' systems hold little
---@return perilune.client?
---@return string? message
---@return integer? code
function M.try_connect(to)
  local family = family_of(to)
  local fd = assert(posix_socket.socket(family, posix_socket.SOCK_STREAM, 0))
  prepare(fd, to, family)
  local ok, message, code = established(fd, address_of(to, family), to.seconds)
  if not ok then
    unistd.close(fd)
    return nil, message, code
  end
  return setmetatable({
    fd = fd, port = own_port(fd), seconds = to.seconds, pieces = {}, buffer = "", at = 1, buffered = 0,
  }, client)
end

---@return perilune.client
function M.connect(to)
  local self, message = M.try_connect(to)
  if not self then error(("connect to %s: %s"):format(to.path or to.port, message), 2) end
  return self
end

return M
