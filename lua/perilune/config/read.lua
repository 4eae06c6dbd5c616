--- Reads the layers of a configuration: the script's top level, the entries of its
--- `listen`, and the overrides. Values are parsed one by one here; what they mean
--- together is for perilune.config. An unknown key is an error, never ignored.
local agents = require "perilune.config.agents"
local meant = require "perilune.config.meant"
local printable = require "perilune.printable"
local schema = require "perilune.config.schema"
local suggest = require "perilune.suggest"

local M = {}

local LISTENERS_MAX = 256
local ERRORS_MAX = 200

---@class perilune.config_layer what one table of the script says
---@field place string "" or "listen[1]."
---@field scope "process"|"listener"
---@field values table<string, any> path → canonical value
---@field given table<string, true> path → present, even when its value was refused

---@class perilune.config_state
---@field errors perilune.config_error[]
---@field reported table<string, true>
---@field top perilune.config_layer
---@field forced table<string, { value: any, origin: string }> the overrides
---@field origins table<string, string>
---@field cpus integer
---@field kinds table[] of `agents`: see perilune.config.agents

---@class perilune.config_entry of `listen`
---@field text any the address as written
---@field place string "listen[1]"
---@field layer perilune.config_layer its own settings
---@field plain boolean? an address without settings
---@field origin string? of the override that set the address

local function new_layer(place, scope) return { place = place, scope = scope, values = {}, given = {} } end

---@param cpus integer
---@return perilune.config_state
function M.new_state(cpus, memory)
  return { errors = {}, reported = {}, origins = {}, forced = {}, top = new_layer("", "process"), cpus = cpus,
    memory = memory }
end

--- Notes an error; the same one only once.
---@param state perilune.config_state
---@param path string
---@param message string
---@param origin string? of the override at fault
function M.report(state, path, message, origin)
  local id = path .. "\0" .. message
  if state.reported[id] or #state.errors >= ERRORS_MAX then return end
  state.reported[id] = true
  state.errors[#state.errors + 1] = { path = path, message = message, origin = origin }
end

local report = M.report

local function sorted_keys(t)
  local keys = {}
  for key in next, t do keys[#keys + 1] = key end
  table.sort(keys, function(a, b) return printable.key(a) < printable.key(b) end)
  return keys
end

--- The paths of keys that a table of this scope may have.
---@param scope "process"|"listener"
---@return string[]
function M.scripted(scope)
  local paths = {}
  for _, key in ipairs(schema.KEYS) do
    if scope == "process" or key.scope == "listener" then paths[#paths + 1] = key.path end
  end
  return paths
end

-- Parts of an address, which is one text.
local IN_ADDRESS = { host = true, port = true, path = true, socket = true, bind = true }

local function unknown_key(name, prefix, scope)
  if IN_ADDRESS[name] and prefix == "" then
    local text = 'unknown key "%s": an address is one text, as in "tcp://127.0.0.1:9000" or "unix:///run/app.sock"'
    return text:format(name)
  end
  local shown = type(name) == "string" and printable.quote(name) or printable.key(name)
  local near = schema.elsewhere(name) or meant.key(name, M.scripted(scope)) or
    suggest.suggest(name, schema.names(prefix, scope))
  return near and ('unknown key %s (did you mean "%s"?)'):format(shown, near) or "unknown key " .. shown, near
end

local function read_value(state, layer, key, value)
  local canonical, message = schema.parse(key, value)
  layer.given[key.path] = true
  if message then return report(state, layer.place .. key.path, message) end
  layer.values[key.path] = canonical
end

local read_table

-- jobs = true, jobs = {}: what is needed for it to be on.
local function switched(switch, value)
  if type(value) == "boolean" then return { [switch.key] = value and switch.value or 0 } end
  if type(value) ~= "table" or rawget(value, switch.key) ~= nil then return value end
  local whole = { [switch.key] = switch.value }
  for key, item in next, value do whole[key] = item end
  return whole
end

local function read_group(state, layer, name, value)
  if schema.SWITCHES[name] then value = switched(schema.SWITCHES[name], value) end
  local short = schema.SHORT[name]
  if short and type(value) == "string" then value = { [short] = value } end
  if type(value) == "table" then return read_table(state, layer, value, name .. ".") end
  report(state, layer.place .. name, "expects a table such as { " .. schema.names(name .. ".", "process")[1]
    .. " = … }, got " .. printable.value(value))
end

local function read_key(state, layer, prefix, name, value)
  local path = prefix .. printable.key(name)
  local key = type(name) == "string" and schema.BY_PATH[path]
  local is_group = prefix == "" and schema.GROUPS[name]
    and not (schema.PROCESS_GROUPS[name] and layer.scope == "listener")
  if is_group then
    read_group(state, layer, name, value)
  elseif key and (layer.scope == "process" or key.scope == "listener") then
    read_value(state, layer, key, value)
  elseif key or schema.PROCESS_GROUPS[name] then
    report(state, layer.place .. path, "applies to the whole process: set it at the top level")
  else
    local message, near = unknown_key(name, prefix, layer.scope)
    report(state, layer.place .. path, message)
    -- It is misspelt: that it is missing as well would be a second error for one mistake.
    if near then
      layer.given[schema.BY_PATH[near] and near or prefix .. near] = true
    end
  end
end

function read_table(state, layer, t, prefix)
  for _, name in ipairs(sorted_keys(t)) do read_key(state, layer, prefix, name, rawget(t, name)) end
end

--- Begins the message about an address of another type.
M.EXPECTED_LISTEN = 'expects an address such as "tcp://127.0.0.1:9000", or a list of them, got '
local WRAP = "one listener with its own settings is written listen = { { \"tcp://…\", frame = … } }"

local function read_entry_table(state, item, place)
  local layer, rest = new_layer(place .. ".", "listener"), {}
  for key, value in next, item do
    if key ~= 1 and key ~= "address" then rest[key] = value end
  end
  local first, named = rawget(item, 1), rawget(item, "address")
  if first ~= nil and named ~= nil then report(state, place, "has two addresses: at [1] and at the key address") end
  read_table(state, layer, rest, "")
  return { text = first == nil and named or first, place = place, layer = layer }
end

local function read_entry(state, item, place)
  if type(item) == "table" then return read_entry_table(state, item, place) end
  return { text = item, place = place, layer = new_layer(place .. ".", "listener"), plain = true }
end

local function read_list(state, list)
  local entries = {}
  if #list == 0 then report(state, "listen", M.EXPECTED_LISTEN .. "a table without one") end
  if #list > LISTENERS_MAX then
    report(state, "listen", ("has %d listeners, at most %d are possible"):format(#list, LISTENERS_MAX))
  end
  for i = 1, math.min(#list, LISTENERS_MAX) do
    entries[i] = read_entry(state, rawget(list, i), ("listen[%d]"):format(i))
  end
  for _, key in ipairs(sorted_keys(list)) do
    if type(key) ~= "number" or key < 1 or key > #list or key ~= math.floor(key) then
      report(state, "listen", ("unknown key %s; %s"):format(printable.key(key), WRAP))
    end
  end
  return entries
end

local function read_listen(state, value)
  if value == nil then return {} end
  if type(value) == "table" then return read_list(state, value) end
  if type(value) == "string" then return { read_entry(state, value, "listen") } end
  report(state, "listen", M.EXPECTED_LISTEN .. printable.value(value))
  return {}
end

--- The paths that overrides may set.
---@return string[]
function M.paths()
  local paths = {}
  for _, key in ipairs(schema.KEYS) do
    if schema.TYPES[key.type].from_text then paths[#paths + 1] = key.path end
  end
  return paths
end

-- What is wrong with setting `path` from outside; nil when it can be.
local function refuse_override(path)
  local key = schema.BY_PATH[path]
  local dictionary = path:match "^shared%.(.+)$"
  if path:find "^agents%." then return "can only be set in the script" end
  if dictionary then return ("all of them are one text: shared=%s=1m,other=64k"):format(dictionary) end
  if not key then
    local near = schema.elsewhere(path) or meant.key(path, M.paths()) or suggest.suggest(path, M.paths())
    return "unknown key " .. printable.quote(path) .. (near and ' (did you mean "' .. near .. '"?)' or "")
  end
  if not schema.TYPES[key.type].from_text then return "can only be set in the script" end
end

--- Parses one override by its key's type; a later one of the same path wins.
---@param state perilune.config_state
---@param override perilune.override
function M.apply_override(state, override)
  local path, origin = override.path, override.origin
  local refusal = refuse_override(path)
  if refusal then return report(state, path, refusal, origin) end
  local value, message = schema.parse_text(schema.BY_PATH[path], tostring(override.value))
  if message then return report(state, path, message, origin) end
  state.forced[path] = { value = value, origin = origin }
end

-- Adds the addresses of a text in which at most the first has a scheme. A path may have commas and blanks in it,
-- and what has no scheme may be meant to be one.
local function add_addresses(found, text)
  local bare = text:match "^[,%s]*(.-)[,%s]*$"
  local is_path = not bare:find "^%a+://" or bare:find "^unix://"
  for item in bare:gmatch(is_path and ".+" or "[^,%s]+") do found[#found + 1] = item end
end

-- The addresses of a text, which commas or blanks are between; one too many does no harm, as in other lists.
local function split_addresses(text)
  local found, from = {}, 1
  for before, at in text:gmatch "()[,%s]+()%a+://" do
    add_addresses(found, text:sub(from, before - 1))
    from = at
  end
  add_addresses(found, text:sub(from))
  return #found > 0 and found or { text }
end

local SPEAKS = { http = "HTTP", https = "HTTP", ws = "WebSocket", wss = "WebSocket", tcp = "frames", tls = "frames",
  udp = "frames" }
local SPOKEN_AT = { HTTP = "http", WebSocket = "ws" }

-- What is spoken at an address. nil: its text does not say so.
local function speaks(text) return type(text) == "string" and SPEAKS[text:match "^(%a+)://"] or nil end

-- An agent that is for requests understands no frames.
local function check_speech(state, entries, texts)
  local spoken = entries[1] and speaks(entries[1].text)
  if not SPOKEN_AT[spoken] then return end
  for _, text in ipairs(texts) do
    if speaks(text) == "frames" then
      report(state, "listen", ("%s is for frames, and the script speaks %s there: %s"):format(printable.value(text),
        spoken, text:gsub("^%a+", SPOKEN_AT[spoken])), state.forced.listen.origin)
    end
  end
end

--- The entries with an overridden `listen` in their place.
---@param state perilune.config_state
---@param entries perilune.config_entry[]
---@return perilune.config_entry[]
function M.override_listen(state, entries)
  local forced = state.forced.listen
  if not forced then return entries end
  for _, other in ipairs(#entries > 1 and entries or {}) do
    if not other.plain then
      report(state, "listen", ("is ambiguous: the script has %d listeners with their own settings"):format(#entries),
        forced.origin)
      return entries
    end
  end
  local texts, taken = split_addresses(forced.value), {}
  check_speech(state, entries, texts)
  for i = 1, math.min(#texts, LISTENERS_MAX) do
    local place = #texts > 1 and ("listen[%d]"):format(i) or "listen"
    local layer = #entries == 1 and entries[1].layer or new_layer("listen.", "listener")
    taken[i] = { text = texts[i], place = place, layer = layer, origin = forced.origin }
  end
  return taken
end

--- Reads what the script returned into state.top.
---@param state perilune.config_state
---@param script table
---@return perilune.config_entry[]
function M.read_script(state, script)
  local rest = {}
  for key, value in next, script do rest[key] = value end
  rest.listen, rest.agents = nil, nil
  read_table(state, state.top, rest, "")
  state.kinds = agents.read(state, report, rawget(script, "agents"))
  if #state.kinds > 0 then state.top.values.agents = true end
  local listen = rawget(script, "listen")
  local entries = read_listen(state, listen)
  if listen ~= nil then state.top.values.listen = true end
  return entries
end

return M
