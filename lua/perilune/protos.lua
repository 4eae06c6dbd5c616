--- The functions within a compiled function, called or not, as LuaJIT keeps them. Internal.
local jit_util = require "jit.util"

local M = {}

--- Visits the function and all within it. What it is given is for jit.util: a function, or a prototype of one.
---@param fn function
---@param visit fun(fn: any)
function M.each(fn, visit)
  visit(fn)
  for at = -1, -jit_util.funcinfo(fn).gcconsts, -1 do
    local constant = jit_util.funck(fn, at)
    if type(constant) == "proto" then M.each(constant, visit) end
  end
end

return M
