--- What Lua 5.2 to 5.4 have and LuaJIT has not: hints where a script uses it. Internal.
---
--- Of syntax, given the compiler's message; of library functions, found in what was compiled, called or not. What the
--- LuaJIT at hand has after all is not told of.
local culprit = require "perilune.culprit"
local jit_util = require "jit.util"
local protos = require "perilune.protos"

local M = {}

-- ---- syntax ------------------------------------------------------------------

-- What the compiler stumbles over, the pattern that has to be in the line, and the way out. The first that fits.
local SYNTAX = {
  { "/", "//", "// is of Lua 5.3: math.floor(a / b)" },
  { "<", "<%s*const%s*>", "<const> is of Lua 5.4: local %s = …" },
  { "<", "<%s*close%s*>", "<close> is of Lua 5.4: close it where it ends, or in conn:defer(fn)" },
  { "<", "<<", "<< is of Lua 5.3: bit.lshift(a, n)" },
  { ">", ">>", ">> is of Lua 5.3: bit.rshift(a, n)" },
  { "&", "%f[&]&%f[^&]", "& is of Lua 5.3: bit.band(a, b)" },
  { "|", "%f[|]|%f[^|]", "| is of Lua 5.3: bit.bor(a, b)" },
  { "~", "[%w_%)%]]%s*~%f[^~=]", "~ between two values is of Lua 5.3: bit.bxor(a, b)" },
  { "~", "~%f[^~=]", "~ before a value is of Lua 5.3: bit.bnot(a)" },
}

-- A line may end with a name or a keyword: "return ~x" has no value before it.
local KEYWORDS = { ["return"] = true, ["and"] = true, ["or"] = true, ["not"] = true, ["in"] = true, ["then"] = true }

local function fits(line, pattern)
  local at = line:find(pattern)
  if not at then return false end
  return not (pattern:find "%[%%w_" and KEYWORDS[line:sub(1, at):match "([%a_]+)$" or ""])
end

--- The way out of syntax that LuaJIT does not know; nil: it is something else.
---@param text string the compiler's message, without its place
---@param line string? the source line that it names
---@return string?
function M.of_syntax(text, line)
  local token = text:match " near '([/<>&|~])'$"
  if not token or not line then return nil end
  local masked = culprit.mask(line)
  for _, one in ipairs(SYNTAX) do
    if one[1] == token and fits(masked, one[2]) then
      return (one[3]:gsub("%%s", masked:match "local%s+([%a_][%w_]*)%s*<" or "name"))
    end
  end
end

-- ---- libraries ---------------------------------------------------------------

local FIELDS = {
  ["table.unpack"] = { "5.2", "in LuaJIT it is a global: unpack(…)" },
  ["table.pack"] = { "5.2", 'LuaJIT has { n = select("#", …), … } in its place' },
  ["math.type"] = { "5.3", "LuaJIT's numbers are doubles: n == math.floor(n) is true of whole ones" },
  ["math.tointeger"] = { "5.3", "LuaJIT's numbers are doubles: math.floor(…)" },
  ["math.ult"] = { "5.3", "LuaJIT compares numbers of 64 bits without a sign as 1ULL does" },
  ["math.maxinteger"] = { "5.3", "LuaJIT's numbers are doubles: each whole one up to 2^53" },
  ["math.mininteger"] = { "5.3", "LuaJIT's numbers are doubles: each whole one down to -2^53" },
  ["coroutine.close"] = { "5.4", "a coroutine that is not resumed goes by itself" },
}

local GLOBALS = {
  rawlen = "#t is that here: LuaJIT asks no __len of a table",
  warn = 'perilune.log("warn", text)',
}

--- The way out where a field of a library is not there; nil: none is known.
---@param path string "table.unpack"
---@return string?
function M.of_field(path) return FIELDS[path] and FIELDS[path][2] end

--- The same of a global.
---@param name string
---@return string?
function M.of_global(name) return GLOBALS[name] end

-- The instructions are told by what they are in a chunk that has just that: numbers differ between versions of LuaJIT.
local function opcode_of(instruction) return bit.band(instruction, 0xff) end

local function opcode(text, at) return opcode_of(jit_util.funcbc(loadstring(text), at)) end

local READ_GLOBAL, READ_FIELD, JUMP = opcode("return x", 1), opcode("return x.y", 2), opcode("return x or y", 3)

-- Those that look whether there is something: `x or y`, `if x then`, `z = x or y`, `x == nil` …
local TESTS, OR = {}, {}
for _, text in ipairs { "return x or y", "local z = x or y return z" } do
  OR[opcode(text, 2)], TESTS[opcode(text, 2)] = true, true
end
for _, text in ipairs { "return x and y", "local z = x and y return z", "if x then f() end", "if not x then f() end",
  "return x == nil", "if x ~= nil then f() end" } do
  TESTS[opcode(text, 2)] = true
end

local function name_at(fn, index) return jit_util.funck(fn, -index - 1) end

-- Uses of `library.field` in one function, not of those within it: { path, line, is_looked_for }.
local function add_own(found, fn)
  local function code(at) return opcode_of(jit_util.funcbc(fn, at) or 0) end
  local at, instruction = 1, jit_util.funcbc(fn, 1)
  while instruction do
    local next_one = jit_util.funcbc(fn, at + 1)
    local register = bit.band(bit.rshift(instruction, 8), 0xff)
    if opcode_of(instruction) == READ_GLOBAL and next_one and opcode_of(next_one) == READ_FIELD
      and bit.rshift(next_one, 24) == register then
      local field = name_at(fn, bit.band(bit.rshift(next_one, 16), 0xff))
      found[#found + 1] = {
        path = name_at(fn, bit.rshift(instruction, 16)) .. "." .. tostring(field),
        line = jit_util.funcinfo(fn, at + 1).currentline,
        is_looked_for = TESTS[code(at + 2)] or at > 2 and code(at - 1) == JUMP and OR[code(at - 2)],
      }
    end
    at, instruction = at + 1, next_one
  end
end

local function by_line(one, other)
  if one.line ~= other.line then return one.line < other.line end
  return one.path < other.path
end

--- What the chunk takes from a library of a newer Lua, a text for each name. Who looks for it himself, as in
--- `table.unpack or unpack`, knows.
---@param path string the file's, for the texts
---@param chunk function that has been compiled from text
---@param is_there fun(library: string, field: string): boolean
---@return string[]
function M.faults(path, chunk, is_there)
  local uses, known, texts = {}, {}, {}
  protos.each(chunk, function(fn) add_own(uses, fn) end)
  for _, use in ipairs(uses) do known[use.path] = known[use.path] or use.is_looked_for end
  table.sort(uses, by_line)
  for _, use in ipairs(uses) do
    local field = FIELDS[use.path]
    if field and not known[use.path] and not is_there(use.path:match "^(%w+)%.(%w+)$") then
      known[use.path] = true
      texts[#texts + 1] = ("%s:%d: %s is of Lua %s: %s"):format(path, use.line, use.path, field[1], field[2])
    end
  end
  return texts
end

return M
