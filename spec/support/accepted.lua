--- Looks at a server's own end of a connection: pidfd_getfd(2) gives us a copy of its descriptor.
local dirent = require "posix.dirent"
local ffi = require "ffi"
local posix_socket = require "posix.sys.socket"
local unistd = require "posix.unistd"

ffi.cdef [[
  long syscall(long number, ...);
  int getsockopt(int fd, int level, int option, void *value, unsigned *bytes);
  int getpeername(int fd, void *address, unsigned *bytes);
]]

-- The same on every architecture; the C library here has no names for them.
local PIDFD_OPEN, PIDFD_GETFD = 434, 438
local IDLE, INTERVAL = 4, 5 -- TCP_KEEPIDLE, TCP_KEEPINTVL

local function call(number, ...)
  local arguments = { ... }
  for i = 1, 3 do arguments[i] = ffi.cast("long", arguments[i] or 0) end
  return tonumber(ffi.C.syscall(number, unpack(arguments, 1, 3)))
end

local function option(fd, level, name)
  local value, bytes = ffi.new("int[1]"), ffi.new("unsigned[1]", 4)
  assert(ffi.C.getsockopt(fd, level, name, value, bytes) == 0, "getsockopt")
  return value[0]
end

-- Of an IPv4 socket that is connected; else nil.
local function peer_port(fd)
  local address, bytes = ffi.new("uint8_t[128]"), ffi.new("unsigned[1]", 128)
  if ffi.C.getpeername(fd, address, bytes) ~= 0 then return nil end
  return ffi.cast("uint16_t *", address)[0] == posix_socket.AF_INET and address[2] * 256 + address[3] or nil
end

local M = {}

--- Socket options of the server's end, or nil where the system does not let us look.
---@param app perilune.server
---@param client perilune.client
---@return { nodelay: boolean, keepalive: boolean, idle_s: integer, interval_s: integer }?
function M.options(app, client)
  local pidfd = call(PIDFD_OPEN, app.pid)
  if pidfd < 0 then return nil end
  local found
  for name in dirent.files("/proc/" .. app.pid .. "/fd") do
    local copy = tonumber(name) and call(PIDFD_GETFD, pidfd, tonumber(name)) or -1
    if copy >= 0 and peer_port(copy) == client.port then
      found = {
        nodelay = option(copy, posix_socket.IPPROTO_TCP, posix_socket.TCP_NODELAY) ~= 0,
        keepalive = option(copy, posix_socket.SOL_SOCKET, posix_socket.SO_KEEPALIVE) ~= 0,
        idle_s = option(copy, posix_socket.IPPROTO_TCP, IDLE),
        interval_s = option(copy, posix_socket.IPPROTO_TCP, INTERVAL),
      }
    end
    if copy >= 0 then unistd.close(copy) end
  end
  unistd.close(pidfd)
  return found
end

return M
