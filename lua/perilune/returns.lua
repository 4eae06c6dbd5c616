--- Where a function returns: what has left the stack by then, as a tail call does, is to be found nowhere else.
local jit_util = require "jit.util"

local M = {}

-- The instructions are told by what they are in a chunk that has just that: numbers differ between versions of LuaJIT.
local function opcode(text, at) return bit.band(jit_util.funcbc(loadstring(text), at), 0xff) end

local TAIL = { [opcode("return x()", 2)] = true, [opcode("return x(...)", 3)] = true }
local RETURN = { [opcode("return x", 2)] = true, [opcode("return x, x", 3)] = true, [opcode("return ...", 2)] = true }

local function add(lines, fn, at)
  local line = jit_util.funcinfo(fn, at).currentline
  if lines[#lines] ~= line then lines[#lines + 1] = line end
end

---@class perilune.returns
---@field tail integer[] lines of its tail calls, ascending
---@field values integer[] lines where it returns something, these included

--- Of the function itself, not of those within it. Of a function in C: none.
---@param fn function
---@return perilune.returns
function M.of(fn)
  local found, at = { tail = {}, values = {} }, 1
  local ok, instruction = pcall(jit_util.funcbc, fn, at)
  while ok and instruction do
    local code = bit.band(instruction, 0xff)
    if TAIL[code] then add(found.tail, fn, at) end
    if TAIL[code] or RETURN[code] then add(found.values, fn, at) end
    at = at + 1
    instruction = jit_util.funcbc(fn, at)
  end
  return found
end

return M
