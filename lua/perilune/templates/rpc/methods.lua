-- What can be called, by name: fn(params, call) → result. An error({ code, message }) is the caller's fault and is told
-- to it; any other error is ours: the caller hears "internal error", the log has the place.
local perilune = require "perilune"

local M = {}

local function invalid(message) error { code = -32602, message = message } end

local function number(params, i)
  if type(params[i]) ~= "number" then invalid(("params[%d] must be a number"):format(i - 1)) end
  return params[i]
end

function M.add(params) return number(params, 1) + number(params, 2) end

function M.echo(params) return params end

-- A method may wait. This caller's next calls wait behind it, nobody else's.
function M.sleep(params)
  local seconds = number(params, 1)
  if not (seconds >= 0 and seconds <= 10) then invalid "params[0] must be from 0 to 10" end
  perilune.sleep(seconds)
  return seconds
end

return M
