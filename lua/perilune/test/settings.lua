--- Overrides of an app's settings, from a table. Internal.
local failing = require "perilune.test.fail"

local M = {}

-- The one setting whose own value is a table of names.
local function text_of_shared(sizes)
  local items = {}
  for name, size in pairs(sizes) do items[#items + 1] = ("%s=%s"):format(tostring(name), tostring(size)) end
  table.sort(items)
  return table.concat(items, ",")
end

local function flatten(list, prefix, t)
  for key, value in pairs(t) do
    local path = prefix .. tostring(key)
    if path == "shared" and type(value) == "table" then value = text_of_shared(value) end
    if type(value) == "table" then
      if #value > 0 then failing.misuse(("app: %s can only be set in the script"):format(path)) end
      flatten(list, path .. ".", value)
    else
      list[#list + 1] = { path = path, value = tostring(value), origin = "override " .. path }
    end
  end
  return list
end

--- { limits = { inbox = 4 } } → { { path = "limits.inbox", value = "4", origin = "override limits.inbox" } }, by path.
---@param overrides table?
---@return perilune.override[]
function M.list(overrides)
  if overrides ~= nil and type(overrides) ~= "table" then
    failing.misuse('app: overrides are a table such as { timeout = { idle = "1s" } }, got a ' .. type(overrides))
  end
  local list = flatten({}, "", overrides or {})
  table.sort(list, function(a, b) return a.path < b.path end)
  return list
end

--- The number of a listener that is meant by its number or its name; nil: the first.
---@param names string[]
---@param wanted integer|string|nil
---@return integer
function M.listener(names, wanted)
  if wanted == nil then return 1 end
  for i, name in ipairs(names) do
    if wanted == i or wanted == name then return i end
  end
  failing.misuse(("connect: no listener %s; there are: %s"):format(tostring(wanted), table.concat(names, ", ")))
end

--- Refuses options that nobody knows.
---@param of string the function that takes them
---@param options table
---@param known table<string, true>
function M.check_options(of, options, known)
  if type(options) ~= "table" then failing.misuse(of .. " expects a table, got a " .. type(options)) end
  local names = {}
  for name in pairs(known) do names[#names + 1] = name end
  table.sort(names)
  for key in pairs(options) do
    if not known[key] then
      failing.misuse(("%s: unknown option %s (there are: %s)"):format(of, tostring(key), table.concat(names, ", ")))
    end
  end
end

return M
