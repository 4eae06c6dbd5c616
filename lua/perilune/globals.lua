--- Which globals a compiled chunk reads and writes, in all of its functions, run or not: a misspelt name deep in a
--- handler is found before a client comes there.
local hints = require "perilune.hints"
local jit_util = require "jit.util"
local protos = require "perilune.protos"

local M = {}

local SHOWN_MAX = 10

local READ, WRITE = protos.opcode("return x", 1), protos.opcode("x = 1", 2)

-- Of one function, not of those within it.
local function add_own(found, fn)
  local at = 1
  local instruction = jit_util.funcbc(fn, at)
  while instruction do
    local code = bit.band(instruction, 0xff)
    if code == READ or code == WRITE then
      found[#found + 1] = {
        name = jit_util.funck(fn, -bit.rshift(instruction, 16) - 1), is_write = code == WRITE,
        line = jit_util.funcinfo(fn, at).currentline,
      }
    end
    at = at + 1
    instruction = jit_util.funcbc(fn, at)
  end
end

---@class perilune.global_use
---@field name string
---@field is_write boolean
---@field line integer

--- By line.
---@param chunk function that has been compiled from text
---@return perilune.global_use[]
function M.used_by(chunk)
  local found = {}
  protos.each(chunk, function(fn) add_own(found, fn) end)
  table.sort(found, function(a, b)
    if a.line ~= b.line then return a.line < b.line end
    return a.name < b.name
  end)
  return found
end

local function message_of(use, source)
  local text = (use.is_write and "assignment to global '%s'" or "undefined global '%s'"):format(use.name)
  local hint = hints.find(text, { source = source, number = use.line })
  return hint and ("%s: %s"):format(text, hint) or text
end

--- What would raise when it is come to, a text for each place; a name only once in each file.
---@param path string the file's, for the texts
---@param chunk function
---@param source string? the file's text
---@param is_defined fun(name: string): boolean
---@return string[]
function M.faults(path, chunk, source, is_defined)
  local texts, seen = {}, {}
  for _, use in ipairs(M.used_by(chunk)) do
    local key = (use.is_write and "=" or "") .. use.name
    if not seen[key] and (use.is_write or not is_defined(use.name)) then
      seen[key] = true
      texts[#texts + 1] = ("%s:%d: %s"):format(path, use.line, message_of(use, source))
    end
  end
  return texts
end

--- The first of them, as one text; nil: there are none.
---@param texts string[]
---@return string?
function M.summary(texts)
  if #texts == 0 then return nil end
  local shown = {}
  for i = 1, math.min(#texts, SHOWN_MAX) do shown[i] = texts[i] end
  if #texts > SHOWN_MAX then shown[#shown + 1] = ("and %d more"):format(#texts - SHOWN_MAX) end
  return table.concat(shown, "\n")
end

return M
