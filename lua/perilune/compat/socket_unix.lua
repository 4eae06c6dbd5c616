--- `require "socket.unix"`: what it returns can be called, as older LuaSocket's, and has the functions of newer ones.
local socket = require "perilune.compat.socket"

local M = {}

---@param host { coroutines: perilune.compat.coroutines }
function M.new(host)
  local made = socket.new(host).unix
  return setmetatable({
    stream = made, tcp = made,
    dgram = function() error("socket.unix.dgram is not there: datagrams go out over UDP, by socket.udp()", 2) end,
  }, { __call = function() return made() end })
end

return M
