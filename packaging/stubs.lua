--- What the stubs in lua/perilune/library/ declare: functions, classes with their fields, aliases with their values,
--- each with what its comments say. For the reference that is made of them, and for the tests that hold them and the
--- program together.
---@class perilune.stubs
---@field functions table<string, perilune.stub> "conn:send" → …
---@field classes table<string, perilune.stub_class>
---@field aliases table<string, string[]> those that list their values
---@field order table<string, string[]> "conn" → the names of its functions, as they stand in the file
---@field kinds table<string, perilune.stub_alias> the aliases, in full
local M = {}

---@class perilune.stub
---@field params { name: string, optional: boolean, type: string, text: string }[]
---@field returns { name: string?, type: string, text: string }[]
---@field arguments string[] as the function itself names them
---@field text string

---@class perilune.stub_alias
---@field type string
---@field text string
---@field values { value: string, text: string }[]

---@class perilune.stub_class
---@field parent string?
---@field text string
---@field fields table<string, { optional: boolean, text: string }> type and explanation
---@field order { name: string, type: string, text: string }[] the same in the file's order

-- The texts in quotes before anything is explained.
local function quoted(text)
  local values = {}
  for value in text:gsub("[#;].*", ""):gmatch '"([%w_.]+)"' do values[#values + 1] = value end
  return values
end

M.quoted = quoted

local CLOSING = { ["("] = ")", ["<"] = ">", ["{"] = "}", ["["] = "]" }

-- Where a type ends: it has blanks only within brackets, and after the colon of a function's result.
local function end_of_type(text)
  local at = 1
  while at <= #text do
    local char = text:sub(at, at)
    if CLOSING[char] then
      at = select(2, text:find("%b" .. char .. CLOSING[char], at)) or #text
    elseif char == " " and text:sub(at - 1, at - 1) ~= ":" then
      return at - 1
    end
    at = at + 1
  end
  return #text
end

local function split_type(text)
  local stop = end_of_type(text)
  return text:sub(1, stop), (text:sub(stop + 1):gsub("^%s+", ""))
end

local readers = {}

-- What the comments before a declaration say.
local function take_text(state)
  local text = table.concat(state.comments, " ")
  state.comments = {}
  return text
end

function readers.class(state, text)
  local name, parent = text:match "^([%w_.]+):?%s*([%w_.]*)"
  state.class = { parent = parent ~= "" and parent or nil, fields = {}, order = {}, text = take_text(state) }
  state.out.classes[name] = state.class
end

function readers.field(state, text)
  local name, mark, rest = text:match "^%[?([%w_]+)%]?(%??)%s+(.*)$"
  local kind, explained = split_type(rest)
  state.class.fields[name] = { optional = mark == "?" or rest:find "^[^ ]+%?" ~= nil, text = rest }
  table.insert(state.class.order, { name = name, type = kind, text = explained })
end

function readers.alias(state, text)
  local name, rest = text:match "^([%w_.]+)%s*(.*)$"
  local kind, explained = split_type(rest)
  state.alias = quoted(rest)
  state.out.aliases[name] = state.alias
  state.kind = { type = kind, text = explained ~= "" and explained or take_text(state), values = {} }
  state.out.kinds[name] = state.kind
  state.comments = {}
end

function readers.param(state, text)
  local name, mark, rest = text:match "^([%w_.]+)(%??)%s*(.*)$"
  local kind, explained = split_type(rest)
  state.params[#state.params + 1] = { name = name, optional = mark == "?", type = kind, text = explained }
end

readers["return"] = function(state, text)
  local kind, rest = split_type(text)
  local name, explained = rest:match "^([%l_]+)%s*(.*)$"
  state.returns[#state.returns + 1] = { type = kind, name = name, text = explained or "" }
end

local function read_function(state, line)
  local name, arguments = line:match "^function ([%w_.:]+)(%b())"
  if not name then return end
  local described = {}
  for argument in arguments:gmatch "[%w_.]+" do described[#described + 1] = argument end
  state.out.functions[name] = {
    params = state.params, returns = state.returns, arguments = described, text = take_text(state),
  }
  state.params, state.returns = {}, {}
  local owner, own = name:match "^(%w+)[.:](.*)$"
  state.out.order[owner] = state.out.order[owner] or {}
  table.insert(state.out.order[owner], own)
end

local function read_value(state, line)
  local value, explained = line:match '^%-%-%-| "([^"]+)"%s*#?%s*(.*)$'
  if not value then return false end
  state.alias[#state.alias + 1] = value
  table.insert(state.kind.values, { value = value, text = explained })
  return true
end

local function read_line(state, line)
  local kind, text = line:match "^%-%-%-@(%w+)%s*(.*)$"
  if kind then
    if readers[kind] then readers[kind](state, text) end
  elseif line:find "^%-%-%- " then
    table.insert(state.comments, line:sub(5))
  elseif not read_value(state, line) then
    read_function(state, line)
    state.comments = {}
  end
end

--- All of the stubs below a folder.
---@param folder string
---@return perilune.stubs
function M.read(folder)
  local out = { functions = {}, classes = {}, aliases = {}, order = {}, kinds = {} }
  local list = assert(io.popen(("ls '%s'/*.lua"):format(folder)))
  for path in list:lines() do
    local state = { out = out, params = {}, returns = {}, comments = {} }
    for line in io.lines(path) do read_line(state, line) end
  end
  list:close()
  return out
end

--- The names of the functions whose owner is `owner`, sorted: "conn" → { "abort", … }.
---@param stubs perilune.stubs
---@param owner string
---@return string[]
function M.names_of(stubs, owner)
  local names = {}
  for i, name in ipairs(stubs.order[owner] or {}) do names[i] = name end
  table.sort(names)
  return names
end

--- As the reference writes it: "conn:read([framing], [timeout])".
---@param name string
---@param stub perilune.stub
---@return string
function M.signature(name, stub)
  local parts = {}
  for i, param in ipairs(stub.params) do parts[i] = param.optional and "[" .. param.name .. "]" or param.name end
  return ("%s(%s)"):format(name, table.concat(parts, ", "))
end

return M
