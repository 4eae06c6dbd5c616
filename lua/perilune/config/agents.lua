--- Reads `agents = { user = { agent = User, … }, … }`: kinds of agents without a socket, by name.
---
--- Some of a kind's settings are a listener's as well. They come from the strongest that has one, as a listener's do:
--- an override, the kind itself, the top level, the default.
local agent = require "perilune.config.agent"
local printable = require "perilune.printable"
local schema = require "perilune.config.schema"
local suggest = require "perilune.suggest"
local units = require "perilune.units"

local M = {}

local KINDS_MAX = 64
local NAME_MAX = 32

local EXPECTED = 'expects kinds of agents by name such as { user = { agent = User, idle = "10m" } }'
local EXPECTED_KIND = 'expects a kind\'s settings such as { agent = User, idle = "10m" }'
local EXPECTED_NAME = ('a kind\'s name has at most %d of a-z, 0-9 and "_", and begins with a letter'):format(NAME_MAX)
local GIVEN_BARE = "expects a kind's settings: write it as { agent = … }"

--- What only a kind has.
---@type perilune.key[]
M.OWN = {
  { path = "agent", scope = "kind", type = "resident" },
  { path = "idle", scope = "kind", type = "duration", min = 10, default = 600e3 },
  { path = "most", scope = "kind", type = "whole", min = 1, max = 10e6, default = 1e5 },
}

-- What it has as a listener does.
local INHERITED = { "reload.policy", "limits.proceed", "limits.allocation", "limits.mailbox", "timeout.proceed" }

---@return perilune.key[] those that there are, in the order in which they are printed
function M.keys()
  local keys = {}
  for _, key in ipairs(M.OWN) do keys[#keys + 1] = key end
  for _, path in ipairs(INHERITED) do keys[#keys + 1] = schema.BY_PATH[path] end
  return keys
end

local function key_of(path)
  for _, key in ipairs(M.keys()) do
    if key.path == path then return key end
  end
end

local function paths()
  local list = {}
  for _, key in ipairs(M.keys()) do list[#list + 1] = key.path end
  return list
end

local OF_CONNECTIONS = "is of connections, and an agent without a socket has none"

-- The whole path of what was written without its group: "mailbox", for "limits.mailbox".
local function in_group(name)
  for _, path in ipairs(INHERITED) do
    if path:match "%.([%w_]+)$" == name and name ~= "policy" then return path end
  end
end

-- What is wrong with a key that a kind does not have.
local function unknown(path)
  if path == "timeout.idle" then return 'has its own name: write idle = "10m"' end
  if schema.BY_PATH[path] and schema.BY_PATH[path].scope == "listener" then return OF_CONNECTIONS end
  local near = in_group(path) or suggest.suggest(path, paths())
  return "unknown key " .. printable.quote(path) .. (near and ' (did you mean "' .. near .. '"?)' or "")
end

local function parse(key, value)
  if key.type == "resident" then return agent.check(value, "message") end
  return schema.parse(key, value)
end

local function read_value(state, report, kind, path, value)
  local key = key_of(path)
  if not key then return report(state, kind.place .. path, unknown(path)) end
  local canonical, message = parse(key, value)
  if message then return report(state, kind.place .. path, message) end
  kind.values[path] = canonical
end

-- In the same order each time, which is that of the errors.
local function sorted(t)
  local keys = {}
  for key in next, t do keys[#keys + 1] = key end
  table.sort(keys, function(a, b) return printable.key(a) < printable.key(b) end)
  return keys
end

local GROUPS = { reload = true, limits = true, timeout = true }

local function read_settings(state, report, kind, settings)
  for _, name in ipairs(sorted(settings)) do
    local shown, value = printable.key(name), rawget(settings, name)
    if GROUPS[name] and type(value) == "table" then
      for _, sub in ipairs(sorted(value)) do
        read_value(state, report, kind, name .. "." .. printable.key(sub), rawget(value, sub))
      end
    elseif name == "reload" then
      read_value(state, report, kind, "reload.policy", value)
    elseif GROUPS[name] then
      report(state, kind.place .. name, "expects a table, got " .. printable.value(value))
    else
      read_value(state, report, kind, shown, value)
    end
  end
  if rawget(settings, "agent") == nil then
    report(state, "agents." .. kind.name, "no agent: set agent = function(key) … end, or a table with a message method")
  end
end

-- A prototype, or a factory, in place of settings that have it.
local function is_bare(settings)
  if type(settings) == "function" then return true end
  if type(settings) ~= "table" or rawget(settings, "agent") ~= nil then return false end
  for _, value in next, settings do
    if type(value) == "function" then return true end
  end
  return false
end

local function read_kind(state, report, name, settings)
  local kind = { name = name, place = ("agents.%s."):format(printable.key(name)), values = {} }
  local is_name = type(name) == "string" and #name <= NAME_MAX and name:find "^%l[%l%d_]*$"
  if not is_name then
    report(state, "agents", EXPECTED_NAME .. ", got " .. printable.value(name))
  elseif is_bare(settings) then
    report(state, "agents." .. name, GIVEN_BARE)
  elseif type(settings) ~= "table" then
    report(state, "agents." .. name, EXPECTED_KIND .. ", got " .. printable.value(settings))
  else
    read_settings(state, report, kind, settings)
    return kind
  end
end

--- The kinds, in the order of their names; what is wrong is reported.
---@param state perilune.config_state
---@param report fun(state: perilune.config_state, path: string, message: string)
---@param value any
---@return table[] { name, place, values }
function M.read(state, report, value)
  local kinds = {}
  if value == nil then return kinds end
  if type(value) ~= "table" then
    report(state, "agents", EXPECTED .. ", got " .. printable.value(value))
    return kinds
  end
  for _, name in ipairs(sorted(value)) do
    kinds[#kinds + 1] = read_kind(state, report, name, rawget(value, name))
  end
  if #kinds > KINDS_MAX then
    report(state, "agents", ("has %d kinds, at most %d are possible"):format(#kinds, KINDS_MAX))
  end
  return kinds
end

--- Completes them.
---@param state perilune.config_state
---@param kinds table[] as read
---@param resolve fun(state: perilune.config_state, layer: table, key: perilune.key): any, string
---@param put fun(out: table, path: string, value: any)
---@return perilune.kind[]
function M.build(state, kinds, resolve, put)
  local built = {}
  for i, kind in ipairs(kinds) do
    local out = { name = kind.name }
    for _, key in ipairs(M.keys()) do
      local value, origin = resolve(state, kind, key)
      put(out, key.path, value)
      state.origins[kind.place .. key.path] = origin
    end
    built[i] = out
  end
  return built
end

--- A kind's value as text.
---@param key perilune.key
---@param value any
---@return string
function M.show(key, value)
  if key.path == "idle" and value == 0 then return "never" end
  if key.path == "idle" then return units.format_duration(value) end
  if key.type == "resident" then return type(value) == "function" and "function" or "table" end
  return schema.show(key, value)
end

return M
