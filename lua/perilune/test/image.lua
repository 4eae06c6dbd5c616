--- A table with functions, as bytes: how an app that a specification writes down reaches its own VM. Internal.
---
--- What goes along is a copy: plain values, tables with their metatables, functions with what they refer to (shared
--- among them as before). Globals and the libraries are those of the app; so are `perilune`, `perilune.http` and
--- `perilune.test`.
local M = {}

local buffer = require "string.buffer"

-- Compiled by LuaJIT 2.1 of March 2022, freezing leaves out an entry of a table once in some thousand times.
require("jit").off(true, true)

-- ---- values that the other side has as well ----

local LIBRARIES = { "string", "table", "math", "bit", "coroutine", "io", "os" }
local GLOBALS = {
  "assert", "error", "ipairs", "next", "pairs", "pcall", "print", "rawequal", "rawget", "rawset", "require", "select",
  "setmetatable", "getmetatable", "tonumber", "tostring", "type", "unpack", "xpcall", "load", "loadstring",
}

local function add_table(known, path, t)
  known[t] = { path }
  for key, value in pairs(t) do
    if type(value) == "function" then known[value] = { path, key } end
  end
end

local function known_values()
  local known = {}
  for _, name in ipairs(GLOBALS) do known[_G[name]] = { name } end
  for _, name in ipairs(LIBRARIES) do add_table(known, name, _G[name]) end
  for _, name in ipairs { "perilune", "perilune.http", "perilune.test" } do
    if package.loaded[name] then add_table(known, name, package.loaded[name]) end
  end
  known[_G] = { "_G" }
  return known
end

local OURS = { perilune = true, ["perilune.http"] = true }

local function resolve(path, env)
  local value = path[1] == "perilune.test" and require "perilune.test.spending"
    or OURS[path[1]] and env.require(path[1]) or env[path[1]]
  for i = 2, #path do value = value[path[i]] end
  return value
end

-- ---- there ----

local freeze

local function cannot(state, what)
  error(("app: %s is %s, and cannot go to the app's own VM; make it in a method, or write the app in a file"):format(
    table.concat(state.path, "."), what), 0)
end

local function freeze_at(state, name, value)
  state.path[#state.path + 1] = name
  local frozen = freeze(state, value)
  state.path[#state.path] = nil
  return frozen
end

local function freeze_table(state, t, node)
  node.kind, node.keys, node.values = "table", {}, {}
  for key, value in next, t do
    local n = #node.keys + 1
    node.keys[n] = freeze_at(state, "(a key)", key)
    node.values[n] = freeze_at(state, tostring(key), value)
  end
  local metatable = debug.getmetatable(t)
  if metatable then node.metatable = freeze_at(state, "(its metatable)", metatable) end
end

-- An upvalue is a cell that several functions may share.
local function freeze_cell(state, fn, i, name, value)
  local id = debug.upvalueid(fn, i)
  local cell = state.cells[id]
  if not cell then
    cell = #state.image.cells + 1
    state.cells[id], state.image.cells[cell] = cell, false
    state.image.cells[cell] = freeze_at(state, ("(upvalue '%s')"):format(name), value)
  end
  return cell
end

local function freeze_function(state, fn, node)
  if debug.getinfo(fn, "S").what == "C" then cannot(state, "a function in C") end
  node.kind, node.code, node.cells = "function", string.dump(fn), {}
  for i = 1, debug.getinfo(fn, "u").nups do
    local name, value = debug.getupvalue(fn, i)
    node.cells[i] = freeze_cell(state, fn, i, name, value)
  end
end

local function freeze_node(state, value, node)
  if type(value) == "table" then return freeze_table(state, value, node) end
  if type(value) == "function" then return freeze_function(state, value, node) end
  cannot(state, "a " .. type(value))
end

local PLAIN = { ["nil"] = true, boolean = true, number = true, string = true }

-- A plain value is { value }, any other one the number of its node.
function freeze(state, value)
  if PLAIN[type(value)] then return { value } end
  local number = state.numbers[value]
  if number then return number end
  local node = {}
  number = #state.image.nodes + 1
  state.numbers[value], state.image.nodes[number] = number, node
  local path = state.known[value]
  if path then
    node.kind, node.path = "known", path
  else
    freeze_node(state, value, node)
  end
  return number
end

--- What a table and the functions in it are made of.
---@param value table
---@return string image
function M.freeze(value)
  local state = { image = { nodes = {}, cells = {} }, numbers = {}, cells = {}, known = known_values(), path = {} }
  state.path[1] = "the table"
  state.image.root = freeze(state, value)
  return buffer.encode(state.image)
end

-- ---- and back ----

local function make(node, env)
  if node.kind == "table" then return {} end
  if node.kind == "known" then return resolve(node.path, env) end
  local fn = assert(load(node.code, "=(app)", "b"))
  return setfenv(fn, require("perilune.sandbox").env_for(env, fn))
end

local function fill_cells(fn, node, cells, first, value_of)
  for i, cell in ipairs(node.cells) do
    local before = first[cell]
    if before then
      debug.upvaluejoin(fn, i, before.fn, before.i)
    else
      first[cell] = { fn = fn, i = i }
      debug.setupvalue(fn, i, (value_of(cells[cell])))
    end
  end
end

local function thaw(image, env)
  local values, first = {}, {}
  for i, node in ipairs(image.nodes) do values[i] = make(node, env) end
  local function value_of(frozen)
    if type(frozen) == "number" then return values[frozen] end
    return frozen[1]
  end
  for i, node in ipairs(image.nodes) do
    if node.kind == "table" then
      for k, key in ipairs(node.keys) do rawset(values[i], value_of(key), value_of(node.values[k])) end
    elseif node.kind == "function" then
      fill_cells(values[i], node, image.cells, first, value_of)
    end
  end
  -- Last, since it may make a table refuse what it is filled with.
  for i, node in ipairs(image.nodes) do
    if node.metatable then debug.setmetatable(values[i], value_of(node.metatable)) end
  end
  return values[image.root]
end

--- A chunk that returns the table, in the VM of the app.
---@param image string
---@param env table the app's globals
---@return function chunk
function M.thaw(image, env)
  return function() return thaw(buffer.decode(image), env) end
end

return M
