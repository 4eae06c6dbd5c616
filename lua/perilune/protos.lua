--- The functions within a compiled function, called or not, as LuaJIT keeps them. Internal.
local jit_util = require "jit.util"

local M = {}

--- The number of the instruction that such a chunk has there: numbers differ between versions of LuaJIT.
---@param text string
---@param at integer from 1
---@return integer
function M.opcode(text, at) return bit.band(jit_util.funcbc(loadstring(text), at), 0xff) end

local WRITE = M.opcode("x = 1", 2)

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

-- Of one function, not of those within it.
local function writes(fn, is_meant)
  local at, instruction = 1, jit_util.funcbc(fn, 1)
  while instruction do
    if bit.band(instruction, 0xff) == WRITE and is_meant(jit_util.funck(fn, -bit.rshift(instruction, 16) - 1)) then
      return true
    end
    at = at + 1
    instruction = jit_util.funcbc(fn, at)
  end
  return false
end

--- Does it, or a function within it, assign to such a global?
---@param fn function
---@param is_meant fun(name: string): boolean
---@return boolean
function M.writes_global(fn, is_meant)
  local found = false
  M.each(fn, function(one) found = found or writes(one, is_meant) end)
  return found
end

return M
