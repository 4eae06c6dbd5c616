--- What OpenResty's sockets have in common: `ngx.socket.tcp` and `ngx.socket.udp`. `what` is a method, for messages
--- ("tcpsock:connect"); what is wrong is raised where that was called.
local M = {}

M.TIMEOUT_MS = 60000

--- The address of a host and a port, for perilune.connect. nil, message: the port is none.
---@param what string
---@param scheme string "tcp://"
---@param host string
---@param port any
---@return string? address
---@return string? message
function M.address_of(what, scheme, host, port)
  local number = tonumber(port)
  if not number then error(("%s expects a port, got %s"):format(what, type(port)), 3) end
  if number < 1 or number > 65535 or number % 1 ~= 0 then return nil, "bad port number: " .. tostring(port) end
  local bare = host:match "^%[(.*)%]$" or host
  return ("%s%s:%d"):format(scheme, bare:find(":", 1, true) and "[" .. bare .. "]" or bare, number)
end

--- Why there is no connection, in OpenResty's words.
---@param message string
---@param code string
---@return string
function M.why_not(message, code)
  if code == "ETIMEDOUT" then return "timeout" end
  if code == "ECONNREFUSED" then return "connection refused" end
  return message
end

--- Milliseconds; nil: as it was.
---@param what string
---@param ms any
---@return number?
function M.check_ms(what, ms)
  if ms ~= nil and (type(ms) ~= "number" or ms < 0 or ms ~= ms) then
    error(("%s expects milliseconds, got %s"):format(what, tostring(ms)), 3)
  end
  return ms
end

--- Seconds. What is 0, or was never set, is as by default.
---@param ms number?
---@return number
function M.seconds_of(ms) return (ms and ms > 0 and ms or M.TIMEOUT_MS) / 1000 end

local function flatten(what, value, out)
  local kind = type(value)
  if kind == "table" then
    for i = 1, #value do flatten(what, value[i], out) end
  elseif kind == "string" or kind == "number" or kind == "boolean" or kind == "nil" then
    out[#out + 1] = tostring(value)
  else
    error(("%s cannot send a %s"):format(what, kind), 0)
  end
end

--- What is to be sent, as one text: of strings, numbers, nested tables of them.
---@param what string
---@param value any
---@return string
function M.text_of(what, value)
  if type(value) == "string" then return value end
  local out = {}
  local ok, message = pcall(flatten, what, value, out)
  if not ok then error(message, 3) end
  return table.concat(out)
end

return M
