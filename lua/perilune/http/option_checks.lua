--- What the functions of perilune.http that take a table of options check. Internal.
local require = require -- while handlers run, the global one is the script's
local printable = require "perilune.printable"
local units = require "perilune.units"

local M = {}

--- Raises: "http.cors: max_age: expects …, got …".
---@param what string "http.cors"
---@param key string
---@param expected string
---@param value any
---@param level integer whose line the error names: 2 is that of who calls the caller
function M.wrong(what, key, expected, value, level)
  error(("%s: %s: %s, got %s"):format(what, key, expected, printable.value(value)), level + 1)
end

local function is_type(name)
  return function(value) return type(value) == name end
end

local KINDS = {
  string = { is_type "string", "expects a string" }, table = { is_type "table", "expects a table" },
  boolean = { is_type "boolean", "expects true or false" }, ["function"] = { is_type "function", "expects a function" },
  shared = { function(value) return getmetatable(value) == "shared dictionary" end,
    'expects a dictionary, such as perilune.shared "counts"' },
  count = { function(value) return type(value) == "number" and value >= 1 and value % 1 == 0 end,
    "expects a whole number" },
}

local function names_of(known)
  local names = {}
  for name in pairs(known) do names[#names + 1] = name end
  table.sort(names)
  return names
end

local function refuse(what, key, known, meant, level)
  local names = names_of(known)
  if type(key) == "number" then
    error(("%s: an option has a name, as in { %s = … }; it has %s"):format(what, names[1], table.concat(names, ", ")),
      level + 1)
  end
  local hint = meant and meant[key] and (" (it is called %s)"):format(meant[key])
    or require("perilune.suggest").hint(key, names)
  if hint == "" then hint = "; it has " .. table.concat(names, ", ") end
  error(("%s: unknown option %s%s"):format(what, printable.key(key), hint), level + 1)
end

--- Raises for what is no table, for unknown options, and for those that are of another kind.
---@param what string "http.cors"
---@param options any
---@param known table<string, string|true> their kinds, by name: of KINDS, or a type of Lua's; true: who calls looks
---@param level integer whose line the error names: 2 is that of who calls the caller
---@param meant table<string, string>? options by names that others have for them
---@return table options empty where there are none
function M.check(what, options, known, level, meant)
  if options == nil then return {} end
  if type(options) ~= "table" then
    error(("%s: options: expects a table such as { %s = … }, got %s"):format(what, names_of(known)[1],
      printable.value(options)), level + 1)
  end
  for key, value in next, options do
    local kind = known[key]
    if not kind then refuse(what, key, known, meant, level + 1) end
    local test = KINDS[kind]
    if test and not test[1](value) then M.wrong(what, key, test[2], value, level + 1) end
  end
  return options
end

--- Milliseconds; nil: it is none.
---@param value any
---@return number?
function M.duration(value)
  local ms = units.duration(value)
  return ms
end

return M
