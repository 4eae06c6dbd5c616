--- What the stubs in lua/perilune/library/ declare: functions, classes with their fields, aliases with their values.
local command = require "spec.support.command"

---@class perilune.stubs
---@field functions table<string, { params: { name: string, optional: boolean }[], described: string[] }> "conn:send" → …
---@field classes table<string, { parent: string?, fields: table<string, { optional: boolean, text: string }> }>
---@field aliases table<string, string[]> those that list their values
local M = {}

-- The texts in quotes before anything is explained.
local function quoted(text)
  local values = {}
  for value in text:gsub("[#;].*", ""):gmatch '"([%w_.]+)"' do values[#values + 1] = value end
  return values
end

local readers = {}

function readers.class(state, text)
  local name, parent = text:match "^([%w_.]+):?%s*([%w_.]*)"
  state.class = { parent = parent ~= "" and parent or nil, fields = {} }
  state.out.classes[name] = state.class
end

function readers.field(state, text)
  local name, mark, rest = text:match "^%[?([%w_]+)%]?(%??)%s+(.*)$"
  state.class.fields[name] = { optional = mark == "?" or rest:find "^[^ ]+%?" ~= nil, text = rest }
end

function readers.alias(state, text)
  local name, rest = text:match "^([%w_.]+)%s*(.*)$"
  state.alias = quoted(rest)
  state.out.aliases[name] = state.alias
end

function readers.param(state, text)
  local name, mark = text:match "^([%w_.]+)(%??)"
  state.params[#state.params + 1] = { name = name, optional = mark == "?" }
end

local function read_function(state, line)
  local name, arguments = line:match "^function ([%w_.:]+)(%b())"
  if not name then return end
  local described = {}
  for argument in arguments:gmatch "[%w_.]+" do described[#described + 1] = argument end
  state.out.functions[name] = { params = state.params, arguments = described }
  state.params = {}
end

local function read_line(state, line)
  local kind, text = line:match "^%-%-%-@(%w+)%s*(.*)$"
  if kind then
    if readers[kind] then readers[kind](state, text) end
    return
  end
  local value = line:match '^%-%-%-| "([^"]+)"'
  if value then state.alias[#state.alias + 1] = value end
  read_function(state, line)
end

--- All of the stubs below a folder.
---@param folder string
---@return perilune.stubs
function M.read(folder)
  local state = { out = { functions = {}, classes = {}, aliases = {} }, params = {} }
  for path in command.shell(("ls '%s'/*.lua"):format(folder)):gmatch "[^\n]+" do
    for line in command.read(path):gmatch "[^\n]+" do read_line(state, line) end
  end
  return state.out
end

--- The names of the functions whose owner is `owner`: "conn" → { "abort", … }.
function M.names_of(stubs, owner)
  local names = {}
  for name in pairs(stubs.functions) do
    local own = name:match("^" .. owner .. "[.:](.*)$")
    if own then names[#names + 1] = own end
  end
  table.sort(names)
  return names
end

--- As the reference writes it: "conn:read([framing], [timeout])"; without the owner where that is nil.
function M.signature(name, stub)
  local parts = {}
  for i, param in ipairs(stub.params) do parts[i] = param.optional and "[" .. param.name .. "]" or param.name end
  return ("%s(%s)"):format(name, table.concat(parts, ", "))
end

M.quoted = quoted

return M
