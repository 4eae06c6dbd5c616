--- Tables of a file that handlers fill: what connections share by them ends at the borders of a worker and of a
--- generation, which nobody sees who tries a script with one worker and no reload.
---
--- Found in the bytecode of the agent's methods, and of what these call, run or not. It follows registers in a straight
--- line, so some that are filled are missed.
local jit_util = require "jit.util"
local protos = require "perilune.protos"

local M = {}

local FUNCTIONS_MAX, DEPTH_MAX = 2000, 2 -- `rooms[room][name] = x` fills rooms

local function op_of(instruction) return bit.band(instruction, 0xff) end
local function a_of(instruction) return bit.band(bit.rshift(instruction, 8), 0xff) end
local function c_of(instruction) return bit.band(bit.rshift(instruction, 16), 0xff) end
local function b_of(instruction) return bit.rshift(instruction, 24) end
local function d_of(instruction) return bit.rshift(instruction, 16) end

-- ---- instructions: told by what they are in a chunk that has just that, since their numbers differ ----

local function nth(text, n) return op_of(jit_util.funcbc(loadstring(text), n)) end

-- In a function within the chunk: of an upvalue.
local function nth_within(text, n) return op_of(jit_util.funcbc(loadstring(text)(), n)) end

local UGET = nth_within("local u return function() return u end", 1)
local TGETV = nth("local t, k = ... return t[k]", 2)
local TGETS = nth("local t = ... return t.x", 2)
local TGETB = nth("local t = ... return t[1]", 2)
local TSETV = nth("local t, k, v = ... t[k] = v", 2)
local KPRI = nth("local x = true", 1)
local KNIL = nth("local x, y", 1)
local MOV = nth("local x = ... local y = x", 2)

-- Calls, with a fixed number of arguments and with what the last one gives.
local CALL, CALLM = nth("local f = ... f(1)", 4), nth("local f = ... f(f())", 4)

-- Where the first argument lies behind the function: one slot in some builds of LuaJIT, two in others.
local SAMPLE = loadstring "local f = ... f(1)"
local ARGUMENT = a_of(jit_util.funcbc(SAMPLE, 3)) - a_of(jit_util.funcbc(SAMPLE, 2))

-- Those that change no register, or not the one in A: the others make it something new.
local KEEPS = {}
for _, sample in ipairs {
  { "local t, k, v = ... t[k] = v", 2 }, { "local t, v = ... t.x = v", 2 }, { "local t, v = ... t[1] = v", 2 },
  { "local a, b = ... if a < b then return 1 end", 2 }, { "local a, b = ... if a <= b then return 1 end", 2 },
  { "local a, b = ... if a == b then return 1 end", 2 }, { "local a, b = ... if a ~= b then return 1 end", 2 },
  { "local a = ... if a == 'x' then return 1 end", 2 }, { "local a = ... if a == 1 then return 1 end", 2 },
  { "local a = ... if a == nil then return 1 end", 2 }, { "local a = ... if a then return 1 end", 2 },
  { "local a = ... if not a then return 1 end", 2 }, { "local a = ... if a then return 1 end", 3 },
  { "x = 1", 2 },
} do KEEPS[nth(sample[1], sample[2])] = true end

-- ---- one function ----

local function is_insert(fn, at, register)
  local before = jit_util.funcbc(fn, at)
  if not before or op_of(before) ~= TGETS or a_of(before) ~= register then return false end
  return jit_util.funck(fn, -c_of(before) - 1) == "insert"
end

-- Where `table.insert` was fetched for the call at `at`: a few instructions before.
local function calls_insert(fn, at, register)
  for back = at - 1, math.max(1, at - 8), -1 do
    if is_insert(fn, back, register) then return true end
  end
  return false
end

---@class perilune.shared_use
---@field name string the upvalue's
---@field line integer

-- Those filled by this very function, of the upvalues in `names`.
local function uses_of(fn, names)
  local found, from, nils = {}, {}, {} -- register → { name, depth }; register → true
  local function fill(register, at)
    local source = from[register]
    if source then found[#found + 1] = { name = source.name, line = jit_util.funcinfo(fn, at).currentline } end
  end
  local function derive(to, register)
    local source = from[register]
    from[to] = source and source.depth < DEPTH_MAX and { name = source.name, depth = source.depth + 1 } or nil
  end
  local at, instruction = 1, jit_util.funcbc(fn, 1)
  while instruction do
    local op, a = op_of(instruction), a_of(instruction)
    local is_nil = op == KPRI and d_of(instruction) == 0
    if op == TSETV then
      if not nils[a] then fill(b_of(instruction), at) end
    elseif op == UGET then
      local name = jit_util.funcuvname(fn, d_of(instruction))
      from[a] = names[name] and { name = name, depth = 0 } or nil
    elseif op == TGETV or op == TGETS or op == TGETB then
      derive(a, b_of(instruction))
    elseif op == MOV then
      from[a] = from[d_of(instruction)]
    elseif op == CALL or op == CALLM then
      if calls_insert(fn, at, a) then fill(a + ARGUMENT, at) end
      from[a] = nil
    elseif op == KNIL then
      for register = a, d_of(instruction) do from[register], nils[register] = nil, true end
    elseif not KEEPS[op] then
      from[a] = nil
    end
    if op ~= TSETV and op ~= KNIL and not KEEPS[op] then nils[a] = is_nil or nil end
    at = at + 1
    instruction = jit_util.funcbc(fn, at)
  end
  return found
end

-- ---- all functions that may run on behalf of an agent ----

local function upvalues_of(fn)
  local all = {}
  for i = 1, debug.getinfo(fn, "u").nups do
    local name, value = debug.getupvalue(fn, i)
    all[name] = value
  end
  return all
end

local function is_lua(fn) return debug.getinfo(fn, "S").what ~= "C" end

local function add_uses(found, fn, is_users)
  local source = debug.getinfo(fn, "S").source
  if not is_users(source) then return end
  local names = {}
  for name, value in pairs(upvalues_of(fn)) do
    names[name] = type(value) == "table" and getmetatable(value) ~= "shared dictionary"
  end
  -- Functions that are made within it see the same upvalues by the same names.
  protos.each(fn, function(part)
    for _, use in ipairs(uses_of(part, names)) do
      local key = source .. "\0" .. use.name
      local first = found[key]
      if not first or use.line < first.line then
        found[key] = { name = use.name, line = use.line, source = source }
      end
    end
  end)
end

local function is_own(name) return type(name) == "string" and name ~= "_G" end

-- What an agent's methods call: functions they refer to, and those of tables they refer to.
local function collect(list, seen, value, depth)
  if #list >= FUNCTIONS_MAX or seen[value] then return end
  if type(value) == "function" then
    seen[value] = true
    if not is_lua(value) then return end
    list[#list + 1] = value
    for _, upvalue in pairs(upvalues_of(value)) do collect(list, seen, upvalue, 0) end
  elseif type(value) == "table" and depth < 2 then
    seen[value] = true
    for key, field in next, value do
      if is_own(key) then collect(list, seen, field, depth + 1) end
    end
    local metatable = debug.getmetatable(value)
    if type(metatable) == "table" then collect(list, seen, rawget(metatable, "__index"), depth) end
  end
end

---@class perilune.shared_table
---@field name string as the file calls it
---@field line integer the first place where it is filled
---@field source string the chunk's name

--- The tables that an agent's functions fill and that outlive a connection, by file and line.
---@param agent table|function a prototype, or a factory
---@param is_users fun(source: string): boolean is that chunk the user's?
---@return perilune.shared_table[]
function M.tables(agent, is_users)
  local functions, by_key, found = {}, {}, {}
  collect(functions, {}, agent, 0)
  for _, fn in ipairs(functions) do add_uses(by_key, fn, is_users) end
  for _, one in pairs(by_key) do found[#found + 1] = one end
  table.sort(found, function(x, y)
    if x.source ~= y.source then return x.source < y.source end
    return x.line < y.line
  end)
  return found
end

-- ---- what is said of them ----

local PIN = "%s: handlers fill '%s', and each generation of the script has its own: after a reload under "
  .. 'reload.policy = "pin" new connections do not see what those have there that are older. To take agents along: '
  .. 'reload = "migrate", with snapshot() and upgrade()'
local WORKERS = "%s: handlers fill '%s', and each worker has its own; `workers` is not set, which makes one for each "
  .. "processor. If connections are to see each other by it: workers = 1"

--- What `perilune check` warns of, a line each; nil: nothing.
---@param conf perilune.conf
---@param place_of fun(one: perilune.shared_table): string? "app.lua:12"; nil: it is not the user's
---@return string?
function M.warnings(conf, place_of)
  local texts, seen = {}, {}
  local function add(text)
    if not seen[text] then texts[#texts + 1] = text end
    seen[text] = true
  end
  local is_default = conf.origins.workers == "default"
  for _, listener in ipairs(conf.listeners) do
    local is_pinned = listener.reload.policy == "pin"
    local function is_users(source) return place_of { source = source, line = 0, name = "" } ~= nil end
    for _, one in ipairs((is_pinned or is_default) and M.tables(listener.agent, is_users) or {}) do
      if is_pinned then add(PIN:format(place_of(one), one.name)) end
      if is_default then add(WORKERS:format(place_of(one), one.name)) end
    end
  end
  return texts[1] and table.concat(texts, "\n") or nil
end

return M
