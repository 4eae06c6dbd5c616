--- What the functions of perilune.http that take a table of options check. Internal.
local printable = require "perilune.printable"
local suggest = require "perilune.suggest"
local units = require "perilune.units"

local M = {}

--- Raises: "http.cors: max_age: expects …, got …".
function M.wrong(name, key, expected, value, level)
  error(("http.%s: %s: %s, got %s"):format(name, key, expected, printable.value(value)), level + 1)
end

--- Raises for what is no table, and for unknown keys.
---@param name string
---@param options any
---@param keys string[]
---@param level integer whose line the error names: 2 is that of who calls the caller
function M.check(name, options, keys, level)
  if type(options) ~= "table" then
    error(("http.%s: expects a table of options, got %s"):format(name, printable.value(options)), level + 1)
  end
  local known = {}
  for _, key in ipairs(keys) do known[key] = true end
  for key in next, options do
    if not known[key] then
      error(("http.%s: unknown option %s%s"):format(name, printable.key(key), suggest.hint(tostring(key), keys)),
        level + 1)
    end
  end
end

--- Milliseconds; nil: it is none.
---@param value any
---@return number?
function M.duration(value)
  local ms = units.duration(value)
  return ms
end

return M
