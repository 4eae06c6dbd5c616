--- Every key of a configuration: its type, bounds and default, in one list.
local address = require "perilune.config.address"
local agent = require "perilune.config.agent"
local frame = require "perilune.config.frame"
local printable = require "perilune.printable"
local sandbox = require "perilune.sandbox"
local suggest = require "perilune.suggest"
local tls = require "perilune.config.tls"
local units = require "perilune.units"

local M = {}

M.WORKERS_MAX = 256
local MIB, GIB = 2 ^ 20, 2 ^ 30
-- Milliseconds in the core fit 31 bits with room for adding two.
local DURATION_MAX = 20 * 86400e3
local REJECT_MAX = 1024
local NAME_MAX = 64
local SOCKET_PATH_MAX = 107
local PATH_MAX = 4095

---@class perilune.key
---@field path string "limits.connections"
---@field scope "process"|"listener" a listener key may be set at the top level and in each entry of `listen`
---@field type string a key of M.TYPES
---@field default any canonical, as after parsing
---@field min number?
---@field max number?
---@field values string[]? of an enum
---@field off boolean? of a share: 0 turns it off

---@class perilune.key_type
---@field parse fun(value: any, key: perilune.key): any, string? canonical value, or nil and a message
---@field from_text (fun(text: string): any)? what a text from the command line stands for; nil: not settable there
---@field show (fun(value: any, key: perilune.key): string)? how the canonical value is printed

local function got(expected, value) return nil, expected .. ", got " .. printable.value(value) end

local function same(text) return text end

local BOOLEANS = {
  ["true"] = true, yes = true, on = true, ["1"] = true,
  ["false"] = false, no = false, off = false, ["0"] = false,
}

-- What is no boolean is handed on as it is, to be refused with its own text.
local function text_to_boolean(text)
  local value = BOOLEANS[text:lower()]
  if value == nil then return text end
  return value
end

local function text_to_number(text)
  if text == "false" or text == "off" then return false end
  return text:find("^%-?%d+$") and #text < 16 and tonumber(text) or text
end

local function text_to_share(text)
  if text == "false" or text == "off" then return false end
  return text:find("^%d*%.?%d+$") and #text < 16 and tonumber(text) or text
end

local function text_or_off(text)
  if text == "false" or text == "off" then return false end
  return text
end

local function text_to_list(text)
  local list = {}
  for item in text:gmatch("[^,%s]+") do list[#list + 1] = item end
  return list
end

local function within(n, key) return n >= (key.min or 0) and n <= (key.max or math.huge) end

local function parse_whole(value, key)
  if type(value) == "number" and value == math.floor(value) and within(value, key) then return value end
  return got(("expects a whole number from %d to %d"):format(key.min, key.max), value)
end

-- A count that 0 and false turn off.
local function parse_count_or_off(value, key)
  if value == false then return 0 end
  return parse_whole(value, key)
end

-- A part of a whole; one that may be turned off cannot be all of it.
local function parse_share(value, key)
  if value == false and key.off then return 0 end
  local least = key.min or 0
  if type(value) == "number" and value >= least and (value < 1 or value == 1 and not key.off) then return value end
  return got(key.off and "expects a share from 0 to less than 1 such as 0.05, or false"
    or ("expects a share from %.9g to 1 such as %.9g"):format(least, key.default), value)
end

local function parse_size(value, key)
  local bytes, message = units.size(value)
  if not bytes then return nil, message end
  if within(bytes, key) then return bytes end
  return got(("expects a size from %s to %s"):format(units.format_size(key.min), units.format_size(key.max)), value)
end

local function parse_size_or_off(value, key)
  if value == false or value == 0 then return 0 end
  return parse_size(value, key)
end

local function parse_duration(value, key)
  local ms, message = units.duration(value)
  if not ms then return nil, message end
  local least, most = key.min or 1, key.max or DURATION_MAX
  if ms == 0 or (ms >= least and ms <= most) then return ms end
  return got(("expects a duration from %s to %s, or 0 for off")
    :format(units.format_duration(least), units.format_duration(most)), value)
end

local PROXY_USES = { [true] = true, [false] = false, optional = "optional" }

local function parse_proxy(value)
  if value ~= nil and PROXY_USES[value] ~= nil then return PROXY_USES[value] end
  return got('expects true, false or "optional"', value)
end

local TRUST_EXPECTED = 'expects a list of addresses such as { "10.0.0.0/8", "2001:db8::1", "unix" }'

-- What was typed is shown as it is, and what is wrong with it is wrong with an item.
local function refuse_text(text)
  for _, item in ipairs(text_to_list(text)) do
    local message = address.check_network(item)
    if message then return nil, message end
  end
  return got(TRUST_EXPECTED, text)
end

local function parse_trust(value)
  if type(value) == "string" then return refuse_text(value) end
  if type(value) ~= "table" then return got(TRUST_EXPECTED, value) end
  local list = {}
  for key in next, value do
    local item = value[key]
    local is_item = type(key) == "number" and key >= 1 and key <= #value
    if not is_item then return got(TRUST_EXPECTED, item) end
    local message = address.check_network(item)
    if message then return nil, message end
    list[key] = item
  end
  return list
end

local function parse_boolean(value)
  if type(value) == "boolean" then return value end
  return got("expects true or false", value)
end

local function parse_enum(value, key)
  for _, allowed in ipairs(key.values) do
    if value == allowed then return value end
  end
  local last = #key.values
  return got(('expects "%s" or "%s"'):format(table.concat(key.values, '", "', 1, last - 1), key.values[last]), value)
end

local function parse_reject(value)
  if value == false or value == "" then return false end
  if type(value) == "string" and #value <= REJECT_MAX then return value end
  return got(('expects a text of at most %d bytes such as "busy\\n", or false'):format(REJECT_MAX), value)
end

local function parse_name(value)
  if type(value) == "string" and #value <= NAME_MAX and value:find("^[%w_.-]+$") then return value end
  return got(("expects a name of at most %d letters, digits, \"_\", \".\" or \"-\""):format(NAME_MAX), value)
end

local function parse_mode(value)
  if type(value) == "string" and value:find("^0?[0-7][0-7][0-7]$") then return tonumber(value, 8) end
  return got('expects permissions as an octal text such as "0660"', value)
end

-- "off", "auto" or the path of a Unix socket.
local function parse_control(value)
  if value == false then return "off" end
  if type(value) == "string" and #value > 0 and #value <= SOCKET_PATH_MAX and not value:find("%z") then return value end
  return got(('expects the path of a Unix socket (at most %d bytes), "auto" or "off"'):format(SOCKET_PATH_MAX), value)
end

-- A path, or false for none.
local function parse_file(value)
  if value == false or value == "" then return false end
  if type(value) == "string" and #value <= PATH_MAX and not value:find("%z") then return value end
  return got('expects the path of a file such as "/var/log/perilune.log", or false', value)
end

local function parse_modules(value)
  if type(value) ~= "table" then return got('expects a list of module names such as { "app.rooms" }', value) end
  local names = {}
  for key in next, value do
    local name = value[key]
    if type(key) ~= "number" or key < 1 or key > #value or type(name) ~= "string" or name == "" then
      return got('expects a list of module names such as { "app.rooms" }', name)
    end
    names[key] = name
  end
  return names
end

local UNSAFE_EXPECTED = 'expects a list of names such as { "ffi", "io.popen" }'

local function parse_unsafe(value)
  local names, message = parse_modules(value)
  if not names then return nil, (message:gsub("^expects.-}", UNSAFE_EXPECTED, 1)) end
  for _, name in ipairs(names) do
    local known = false
    for _, door in ipairs(sandbox.UNSAFE) do known = known or door == name end
    if not known then
      local near = suggest.suggest(name, sandbox.UNSAFE)
      return nil, "knows no " .. printable.quote(name)
        .. (near and ' (did you mean "' .. near .. '"?)' or "; it knows " .. table.concat(sandbox.UNSAFE, ", "))
    end
  end
  return names
end

local function parse_function(value)
  if type(value) == "function" then return value end
  return got("expects a function", value)
end

-- The spec stays as it is: its canonical form depends on each listener's limits.frame.
local function parse_frame(value)
  local canonical, message = frame.parse(value, frame.MAX_BYTES)
  if not canonical then return nil, message end
  return value
end

local function show_mode(mode) return ("%04o"):format(mode) end
local function show_reject(text) return text and printable.quote(text) or "false" end
local function show_file(path) return path and printable.escape(path) or "none" end
local function show_count(n) return n == 0 and "off" or ("%d"):format(n) end
local function show_share(share, key) return share == 0 and key.off and "off" or ("%.9g"):format(share) end
local function show_size_or_off(n) return n == 0 and "off" or units.format_size(n) end
local function show_modules(names) return #names > 0 and table.concat(names, ", ") or "none" end

---@type table<string, perilune.key_type>
M.TYPES = {
  whole = { parse = parse_whole, from_text = text_to_number },
  count_or_off = { parse = parse_count_or_off, from_text = text_to_number, show = show_count },
  share = { parse = parse_share, from_text = text_to_share, show = show_share },
  size = { parse = parse_size, from_text = same, show = units.format_size },
  size_or_off = { parse = parse_size_or_off, from_text = text_or_off, show = show_size_or_off },
  duration = { parse = parse_duration, from_text = text_or_off, show = units.format_duration },
  proxy = { parse = parse_proxy, from_text = text_to_boolean, show = tostring },
  trust = { parse = parse_trust, from_text = text_to_list, show = show_modules },
  boolean = { parse = parse_boolean, from_text = text_to_boolean },
  enum = { parse = parse_enum, from_text = same },
  reject = { parse = parse_reject, from_text = text_or_off, show = show_reject },
  name = { parse = parse_name, from_text = same },
  mode = { parse = parse_mode, from_text = same, show = show_mode },
  control = { parse = parse_control, from_text = text_or_off },
  file = { parse = parse_file, from_text = text_or_off, show = show_file },
  modules = { parse = parse_modules, from_text = text_to_list, show = show_modules },
  unsafe = { parse = parse_unsafe, from_text = text_to_list, show = show_modules },
  frame = { parse = parse_frame, from_text = same, show = frame.describe },
  tls = { parse = tls.parse, show = tls.describe },
  agent = { parse = agent.check },
  callback = { parse = parse_function },
  listen = { parse = same, from_text = same },
}

local FORMATS = { "auto", "text", "json" }
local LEVELS = { "debug", "info", "warn", "error" }
local POLICIES = { "pin", "migrate", "drain" }
local WHEN_FULL = { "refuse", "drain" }
local SLOW_CONSUMER = { "pause", "close", "drop" }

---@type perilune.key[] in the order of `check --print`
M.KEYS = {
  { path = "listen", scope = "process", type = "listen" },
  { path = "workers", scope = "process", type = "whole", min = 1, max = M.WORKERS_MAX },
  { path = "modules", scope = "process", type = "modules", default = {} },
  { path = "unsafe", scope = "process", type = "unsafe", default = {} },
  { path = "setup", scope = "process", type = "callback" },
  { path = "teardown", scope = "process", type = "callback" },
  { path = "control", scope = "process", type = "control", default = "auto" },
  { path = "log.format", scope = "process", type = "enum", values = FORMATS, default = "auto" },
  { path = "log.level", scope = "process", type = "enum", values = LEVELS, default = "info" },
  { path = "log.file", scope = "process", type = "file", default = false },
  { path = "log.frame_bytes", scope = "process", type = "size", min = 0, max = 256, default = 0 },
  { path = "jit", scope = "process", type = "boolean", default = true },
  { path = "record.redact", scope = "process", type = "callback" },
  { path = "reload.keep", scope = "process", type = "whole", min = 1, max = 1000, default = 3 },
  { path = "reload.when_full", scope = "process", type = "enum", values = WHEN_FULL, default = "refuse" },
  { path = "reload.canary", scope = "process", type = "share", off = true, default = 0 },
  { path = "reload.window", scope = "process", type = "duration", default = 30e3 },
  { path = "reload.max_errors", scope = "process", type = "share", default = 0.01 },
  { path = "limits.memory", scope = "process", type = "size", min = 4 * MIB, max = 1024 * GIB },
  { path = "limits.garbage", scope = "process", type = "share", min = 0.04, default = 0.28 },
  { path = "limits.handshakes", scope = "process", type = "whole", min = 1, max = 1e6, default = 1000 },
  { path = "limits.buffers", scope = "process", type = "size", min = 65536, max = 1024 * GIB, default = 256 * MIB },

  { path = "name", scope = "listener", type = "name" },
  { path = "mode", scope = "listener", type = "mode" },
  { path = "backlog", scope = "listener", type = "whole", min = 1, max = 65535, default = 1024 },
  { path = "keepalive", scope = "listener", type = "duration", min = 1000, default = 30e3 },
  { path = "nodelay", scope = "listener", type = "boolean", default = true },
  { path = "reuse_port", scope = "listener", type = "boolean", default = false },
  { path = "frame", scope = "listener", type = "frame", default = "u32be" },
  { path = "agent", scope = "listener", type = "agent" },
  { path = "tls", scope = "listener", type = "tls", default = false },
  { path = "proxy", scope = "listener", type = "proxy", default = false },
  { path = "trust", scope = "listener", type = "trust", default = {} },
  { path = "reload.policy", scope = "listener", type = "enum", values = POLICIES, default = "pin" },
  { path = "limits.connections", scope = "listener", type = "whole", min = 1, max = 10e6, default = 10000 },
  { path = "limits.per_ip", scope = "listener", type = "count_or_off", min = 0, max = 10e6, default = 0 },
  { path = "limits.accept_rate", scope = "listener", type = "count_or_off", min = 0, max = 10e6, default = 0 },
  { path = "limits.frame", scope = "listener", type = "size", min = 1, max = GIB, default = MIB },
  { path = "limits.inbox", scope = "listener", type = "whole", min = 1, max = 1e6, default = 1024 },
  { path = "limits.send_buffer", scope = "listener", type = "size", min = 1, max = GIB, default = MIB },
  { path = "limits.proceed", scope = "listener", type = "duration", min = 5, max = 3600e3, default = 1e3 },
  { path = "limits.allocation", scope = "listener", type = "size_or_off", min = 65536, max = 1024 * GIB, default = 0 },
  { path = "limits.slow_consumer", scope = "listener", type = "enum", values = SLOW_CONSUMER, default = "pause" },
  { path = "limits.reject", scope = "listener", type = "reject", default = false },
  { path = "timeout.read", scope = "listener", type = "duration", default = 10e3 },
  { path = "timeout.write", scope = "listener", type = "duration", default = 10e3 },
  { path = "timeout.idle", scope = "listener", type = "duration", default = 60e3 },
  { path = "timeout.first_frame", scope = "listener", type = "duration", default = 0 },
  { path = "timeout.handshake", scope = "listener", type = "duration", default = 10e3 },
  { path = "timeout.drain", scope = "process", type = "duration", default = 10e3 },
  { path = "timeout.upgrade", scope = "process", type = "duration", default = 30e3 },
}

--- Keys of the contract that are yet to come: refused, never ignored.
M.UNAVAILABLE = {
  ["timeout.proceed"] = true,
}

M.GROUPS = { limits = true, timeout = true, log = true, record = true, reload = true }
--- Those that have no place in an entry of `listen`.
M.PROCESS_GROUPS = { log = true, record = true }
--- What a text in place of a group's table stands for: reload = "migrate".
M.SHORT = { reload = "policy" }

---@type table<string, perilune.key>
M.BY_PATH = {}
for _, key in ipairs(M.KEYS) do M.BY_PATH[key.path] = key end

--- The names one may write right after `prefix` ("" or "limits."), for suggestions.
---@param prefix string
---@param scope "process"|"listener" of the table: an entry of `listen` takes listener keys only
---@return string[]
function M.names(prefix, scope)
  local names, seen = {}, {}
  for _, key in ipairs(M.KEYS) do
    local name = key.path:sub(1, #prefix) == prefix and key.path:sub(#prefix + 1):match("^[^.]+")
    if name and not seen[name] and (scope == "process" or key.scope == "listener") then
      seen[name] = true
      names[#names + 1] = name
    end
  end
  return names
end

--- Where else a key of this name lives: "connections" → "limits.connections".
---@param name any
---@return string?
function M.elsewhere(name)
  if type(name) ~= "string" then return nil end
  for group in pairs(M.GROUPS) do
    if M.BY_PATH[group .. "." .. name] then return group .. "." .. name end
  end
  local short = name:match("^limits?[._](.*)$") or name:match("^timeouts?[._](.*)$")
  return short and short ~= name and M.elsewhere(short) or nil
end

--- A key's canonical value, or nil and a message. `false` is a value.
---@param key perilune.key
---@param value any
---@return any
---@return string? message
function M.parse(key, value)
  return M.TYPES[key.type].parse(value, key)
end

--- The same for a text from outside. The message shows it as it was typed, not what it stands for.
---@param key perilune.key
---@param text string
---@return any
---@return string? message
function M.parse_text(key, text)
  local value = M.TYPES[key.type].from_text(text)
  local canonical, message = M.parse(key, value)
  if not message or value == text or printable.value(value) == text then return canonical, message end
  local _, typed = M.parse(key, text)
  return nil, typed or message
end

--- A canonical value as text.
---@param key perilune.key
---@param value any
---@return string
function M.show(key, value)
  if value == nil then return "none" end
  local show = M.TYPES[key.type].show
  if show then return show(value, key) end
  return type(value) == "function" and "function" or type(value) == "table" and "table"
    or type(value) == "number" and ("%d"):format(value) or printable.escape(tostring(value))
end

return M
