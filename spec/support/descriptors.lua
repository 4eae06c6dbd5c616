--- Descriptors that a server is handed over, as a service manager or a shell does.
local fcntl = require "posix.fcntl"
local posix_socket = require "posix.sys.socket"
local unistd = require "posix.unistd"
local wait = require "spec.support.wait"

local M = {}

local open = {}

--- It is for the server alone, and ends with close_all().
---@param fd integer
---@return integer fd
function M.keep(fd)
  fcntl.fcntl(fd, fcntl.F_SETFD, fcntl.FD_CLOEXEC)
  open[#open + 1] = fd
  return fd
end

--- After each specification.
function M.close_all()
  for _, fd in ipairs(open) do unistd.close(fd) end
  open = {}
end

--- A socket of this kind that has an address, and does not listen.
---@return integer fd
function M.bound(family, kind, address)
  local fd = M.keep(assert(posix_socket.socket(family, kind, 0)))
  assert(posix_socket.bind(fd, address))
  return fd
end

local function listening(family, address)
  local fd = M.bound(family, posix_socket.SOCK_STREAM, address)
  assert(posix_socket.listen(fd, 8))
  return fd
end

--- One that listens, on any port.
---@return integer fd
function M.on_tcp()
  return listening(posix_socket.AF_INET, { family = posix_socket.AF_INET, addr = "127.0.0.1", port = 0 })
end

--- One that listens on a path.
---@return integer fd
function M.on_unix(path) return listening(posix_socket.AF_UNIX, { family = posix_socket.AF_UNIX, path = path }) end

--- Where it listens: luaposix forgets now and then how long an address is.
---@return integer
function M.port_of(fd)
  return wait.until_true("the port of a socket", function()
    local name = posix_socket.getsockname(fd)
    return name and name.port
  end)
end

return M
