--- Every key of a configuration: its type, bounds and default, in one list.
local address = require "perilune.config.address"
local agent = require "perilune.config.agent"
local frame = require "perilune.config.frame"
local handshake = require "perilune.config.handshake"
local printable = require "perilune.printable"
local sandbox = require "perilune.sandbox"
local suggest = require "perilune.suggest"
local tls = require "perilune.config.tls"
local units = require "perilune.units"

local M = {}

M.WORKERS_MAX = 256
--- What drivers are written for, and `compat` gives them.
M.COMPAT = { "ngx", "socket" }
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

local function parse_compress(value)
  if type(value) == "boolean" or value == "alone" then return value end
  return got('expects true, false or "alone"', value)
end

local function parse_enum(value, key)
  for _, allowed in ipairs(key.values) do
    if value == allowed then return value end
  end
  local last = #key.values
  return got(('expects "%s" or "%s"'):format(table.concat(key.values, '", "', 1, last - 1), key.values[last]), value)
end

local function parse_protocol(value)
  if value == false or value == "http" or value == "ws" then return value end
  return got('expects "http", "ws", or false for frames', value)
end

-- A list of texts, each of which `is_item` takes; `expected` says in words what it is.
local function parse_texts(value, is_item, expected)
  local list, wrong = handshake.list(value, is_item)
  if not list then return got("expects " .. expected, wrong) end
  return list
end

local function parse_origins(value)
  if value == false then return false end
  return parse_texts(value, handshake.is_origin, handshake.ORIGINS .. ", or false for any")
end

local function parse_subprotocols(value)
  return parse_texts(value, handshake.is_subprotocol, handshake.SUBPROTOCOLS)
end

local function text_to_origins(text)
  if text == "false" or text == "off" then return false end
  return text_to_list(text)
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

local COMPAT_EXPECTED = 'expects a list of names such as { "ngx", "socket" }'

-- Names out of a list of those that there are.
local function parse_choices(value, choices, expected)
  local names, message = parse_modules(value)
  if not names then return nil, (message:gsub("^expects.-}", expected, 1)) end
  for _, name in ipairs(names) do
    local known = false
    for _, choice in ipairs(choices) do known = known or choice == name end
    if not known then
      local near = suggest.suggest(name, choices)
      return nil, "knows no " .. printable.quote(name)
        .. (near and ' (did you mean "' .. near .. '"?)' or "; it knows " .. table.concat(choices, ", "))
    end
  end
  return names
end

local function parse_unsafe(value) return parse_choices(value, sandbox.UNSAFE, UNSAFE_EXPECTED) end
local function parse_compat(value) return parse_choices(value, M.COMPAT, COMPAT_EXPECTED) end

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

local SHARED_EXPECTED = 'expects dictionaries and their sizes such as { sessions = "16m" }'
local DICT_LEAST, DICT_MOST = 65536, 64 * GIB

local function parse_dict(name, value)
  if type(name) ~= "string" or not name:find "^[%w_.-]+$" or #name > NAME_MAX then
    return nil, ("%s: a name has at most %d letters, digits, \"_\", \".\" or \"-\", got %s"):format(SHARED_EXPECTED,
      NAME_MAX, printable.value(name))
  end
  local bytes, message = parse_size(value, { min = DICT_LEAST, max = DICT_MOST })
  if not bytes then return nil, name .. ": " .. message end
  return { name = name, bytes = bytes }
end

-- A list in the order of the names: it is printed, and made, in the same order each time.
local function parse_shared(value)
  if type(value) ~= "table" then return got(SHARED_EXPECTED, value) end
  local list = {}
  for name, size in next, value do
    local dict, message = parse_dict(name, size)
    if not dict then return nil, message end
    list[#list + 1] = dict
  end
  table.sort(list, function(a, b) return a.name < b.name end)
  return list
end

-- "sessions=16m,rates=1m"
local function text_to_shared(text)
  local sizes = {}
  for item in text:gmatch "[^,]+" do
    local name, size = item:match "^%s*(%S-)%s*=%s*(%S+)%s*$"
    if not name then return text end
    sizes[name] = size
  end
  return sizes
end

local function show_shared(list)
  local texts = {}
  for i, one in ipairs(list) do texts[i] = ("%s=%s"):format(one.name, units.format_size(one.bytes)) end
  return #texts > 0 and table.concat(texts, ", ") or "none"
end

-- A duration that cannot be off.
local function parse_wait(value, key)
  local ms, message = parse_duration(value, key)
  if ms ~= 0 then return ms, message end
  return got("expects a duration above 0: a wait has an end", value)
end

local LANES_EXPECTED = 'expects lanes, the first ones first, such as { "interactive", { "batch", workers = 1 } }'
local LANES_MAX = 8

local function parse_lane(value)
  local name, workers = value, 0
  if type(value) == "table" then
    name = rawget(value, 1)
    for key, item in next, value do
      if key == "workers" then workers = item elseif key ~= 1 then
        return nil, ("a lane has no %s%s"):format(printable.key(key), suggest.hint(key, { "workers" }))
      end
    end
  end
  if type(name) ~= "string" or not name:find "^[%w_.-]+$" or #name > NAME_MAX then return got(LANES_EXPECTED, value) end
  local is_whole = type(workers) == "number" and workers % 1 == 0 and workers >= 0 and workers <= M.WORKERS_MAX
  if is_whole then return { name = name, workers = workers } end
  return got(("%s: workers: expects a whole number from 0 (any) to %d"):format(name, M.WORKERS_MAX), workers)
end

local function parse_lanes(value)
  if type(value) ~= "table" then return got(LANES_EXPECTED, value) end
  local lanes, taken = {}, {}
  if #value < 1 or #value > LANES_MAX then
    return nil, ("%s: from 1 to %d, got %d"):format(LANES_EXPECTED, LANES_MAX, #value)
  end
  for i = 1, #value do
    local lane, message = parse_lane(value[i])
    if not lane then return nil, message end
    if taken[lane.name] then return nil, ("has two lanes %s"):format(printable.quote(lane.name)) end
    lanes[i], taken[lane.name] = lane, true
  end
  return lanes
end

-- "interactive,batch=1"
local function text_to_lanes(text)
  local lanes = {}
  for item in text:gmatch "[^,%s]+" do
    local name, workers = item:match "^(.-)=(%d+)$"
    lanes[#lanes + 1] = name and { name, workers = tonumber(workers) } or item
  end
  return lanes
end

local function show_lanes(lanes)
  local texts = {}
  for i, lane in ipairs(lanes) do
    texts[i] = lane.workers > 0 and ("%s=%d"):format(lane.name, lane.workers) or lane.name
  end
  return table.concat(texts, ", ")
end

local function show_kinds(kinds)
  local names = {}
  for i, kind in ipairs(kinds) do names[i] = kind.name end
  return #names > 0 and table.concat(names, ", ") or "none"
end

local function show_protocol(name) return name or "off" end
local function show_mode(mode) return ("%04o"):format(mode) end
local function show_reject(text) return text and printable.quote(text) or "false" end
local function show_file(path) return path and printable.escape(path) or "none" end
local function show_count(n) return n == 0 and "off" or ("%d"):format(n) end
local function show_share(share, key) return share == 0 and key.off and "off" or ("%.9g"):format(share) end
local function show_size_or_off(n) return n == 0 and "off" or units.format_size(n) end
local function show_origins(list) return list and (#list > 0 and table.concat(list, ", ") or "none") or "any" end
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
  compress = { parse = parse_compress, from_text = text_to_boolean, show = tostring },
  enum = { parse = parse_enum, from_text = same },
  origins = { parse = parse_origins, from_text = text_to_origins, show = show_origins },
  subprotocols = { parse = parse_subprotocols, from_text = text_to_list, show = show_modules },
  protocol = { parse = parse_protocol, from_text = text_or_off, show = show_protocol },
  reject = { parse = parse_reject, from_text = text_or_off, show = show_reject },
  name = { parse = parse_name, from_text = same },
  mode = { parse = parse_mode, from_text = same, show = show_mode },
  control = { parse = parse_control, from_text = text_or_off },
  file = { parse = parse_file, from_text = text_or_off, show = show_file },
  modules = { parse = parse_modules, from_text = text_to_list, show = show_modules },
  unsafe = { parse = parse_unsafe, from_text = text_to_list, show = show_modules },
  compat = { parse = parse_compat, from_text = text_to_list, show = show_modules },
  shared = { parse = parse_shared, from_text = text_to_shared, show = show_shared },
  wait = { parse = parse_wait, from_text = text_or_off, show = units.format_duration },
  lanes = { parse = parse_lanes, from_text = text_to_lanes, show = show_lanes },
  frame = { parse = parse_frame, from_text = same, show = frame.describe },
  tls = { parse = tls.parse, show = tls.describe },
  agent = { parse = function(value) return agent.check(value, "proceed") end },
  agents = { parse = same, show = show_kinds }, -- config/agents.lua reads them
  callback = { parse = parse_function },
  listen = { parse = same, from_text = same },
}

local FORMATS = { "auto", "text", "json" }
local LEVELS = { "debug", "info", "warn", "error" }
local POLICIES = { "pin", "migrate", "drain" }
local WHEN_FULL = { "refuse", "drain" }
local JOBS_WHEN_FULL = { "block", "shed", "error" }
local HUB_POLICIES = { "disconnect", "drop_newest", "drop_oldest", "latest" }
local SLOW_CONSUMER = { "pause", "close", "drop" }

---@type perilune.key[] in the order of `check --print`
M.KEYS = {
  { path = "listen", scope = "process", type = "listen" },
  { path = "workers", scope = "process", type = "whole", min = 1, max = M.WORKERS_MAX },
  { path = "modules", scope = "process", type = "modules", default = {} },
  { path = "unsafe", scope = "process", type = "unsafe", default = {} },
  { path = "compat", scope = "process", type = "compat", default = {} },
  { path = "shared", scope = "process", type = "shared", default = {} },
  { path = "jobs.workers", scope = "process", type = "count_or_off", min = 0, max = M.WORKERS_MAX, default = 0 },
  { path = "jobs.queue", scope = "process", type = "whole", min = 1, max = 1e6, default = 1024 },
  { path = "jobs.when_full", scope = "process", type = "enum", values = JOBS_WHEN_FULL, default = "block" },
  { path = "jobs.lanes", scope = "process", type = "lanes", default = {} },
  { path = "jobs.timeout", scope = "process", type = "wait", default = 30e3 },
  { path = "jobs.proceed", scope = "process", type = "duration", min = 5, max = 3600e3, default = 10e3 },
  { path = "jobs.memory", scope = "process", type = "size", min = 4 * MIB, max = 1024 * GIB, default = 256 * MIB },
  { path = "jobs.message", scope = "process", type = "size", min = 1024, max = GIB, default = 16 * MIB },
  { path = "jobs.buffers", scope = "process", type = "size", min = 65536, max = 1024 * GIB, default = 256 * MIB },
  { path = "jobs.unsafe", scope = "process", type = "unsafe", default = {} },
  { path = "hub.policy", scope = "process", type = "enum", values = HUB_POLICIES, default = "disconnect" },
  { path = "hub.messages", scope = "process", type = "whole", min = 1, max = 1e6, default = 256 },
  { path = "hub.bytes", scope = "process", type = "size", min = 1024, max = GIB, default = MIB },
  { path = "hub.inbox", scope = "process", type = "whole", min = 1, max = 1e6, default = 8192 },
  { path = "agents", scope = "process", type = "agents", default = {} },
  { path = "setup", scope = "process", type = "callback" },
  { path = "snapshot", scope = "process", type = "callback" },
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
  { path = "limits.outgoing", scope = "process", type = "whole", min = 1, max = 1e6, default = 10000 },
  { path = "limits.buffers", scope = "process", type = "size", min = 65536, max = 1024 * GIB, default = 256 * MIB },
  { path = "limits.deflate", scope = "process", type = "size", min = 0, max = 1024 * GIB, default = 64 * MIB },
  { path = "limits.snapshot", scope = "process", type = "size", min = 1024, max = 16 * MIB, default = 16 * MIB },

  { path = "name", scope = "listener", type = "name" },
  { path = "mode", scope = "listener", type = "mode" },
  { path = "backlog", scope = "listener", type = "whole", min = 1, max = 65535, default = 1024 },
  { path = "keepalive", scope = "listener", type = "duration", min = 1000, default = 30e3 },
  { path = "nodelay", scope = "listener", type = "boolean", default = true },
  { path = "reuse_port", scope = "listener", type = "boolean", default = false },
  { path = "protocol", scope = "listener", type = "protocol", default = false },
  { path = "frame", scope = "listener", type = "frame", default = "u32be" },
  { path = "agent", scope = "listener", type = "agent" },
  { path = "tls", scope = "listener", type = "tls", default = false },
  { path = "proxy", scope = "listener", type = "proxy", default = false },
  { path = "trust", scope = "listener", type = "trust", default = {} },
  { path = "amplification", scope = "listener", type = "count_or_off", min = 1, max = 1000, default = 3 },
  { path = "origins", scope = "listener", type = "origins", default = false },
  { path = "subprotocols", scope = "listener", type = "subprotocols", default = {} },
  { path = "compress", scope = "listener", type = "compress", default = true },
  { path = "ping", scope = "listener", type = "duration", default = 54e3 },
  { path = "pong", scope = "listener", type = "duration", default = 60e3 },
  { path = "reload.policy", scope = "listener", type = "enum", values = POLICIES, default = "pin" },
  { path = "limits.connections", scope = "listener", type = "whole", min = 1, max = 10e6, default = 10000 },
  { path = "limits.per_ip", scope = "listener", type = "count_or_off", min = 0, max = 10e6, default = 0 },
  { path = "limits.accept_rate", scope = "listener", type = "count_or_off", min = 0, max = 10e6, default = 0 },
  { path = "limits.frame", scope = "listener", type = "size", min = 1, max = GIB, default = MIB },
  { path = "limits.uri", scope = "listener", type = "size", min = 64, max = MIB, default = 8192 },
  { path = "limits.headers", scope = "listener", type = "size", min = 64, max = MIB, default = 16384 },
  { path = "limits.fields", scope = "listener", type = "whole", min = 1, max = 10000, default = 100 },
  { path = "limits.body", scope = "listener", type = "size", min = 0, max = GIB, default = MIB },
  { path = "limits.requests", scope = "listener", type = "count_or_off", min = 0, max = 1e9, default = 0 },
  { path = "limits.upload", scope = "listener", type = "size_or_off", min = 1, max = 1024 * GIB, default = 0 },
  { path = "limits.message", scope = "listener", type = "size", min = 1, max = GIB, default = 65536 },
  { path = "limits.inbox", scope = "listener", type = "whole", min = 1, max = 1e6, default = 1024 },
  { path = "limits.mailbox", scope = "listener", type = "whole", min = 1, max = 1e6, default = 1000 },
  { path = "limits.send_buffer", scope = "listener", type = "size", min = 1, max = GIB, default = MIB },
  { path = "limits.proceed", scope = "listener", type = "duration", min = 5, max = 3600e3, default = 1e3 },
  { path = "limits.allocation", scope = "listener", type = "size_or_off", min = 65536, max = 1024 * GIB, default = 0 },
  { path = "limits.slow_consumer", scope = "listener", type = "enum", values = SLOW_CONSUMER, default = "pause" },
  { path = "limits.reject", scope = "listener", type = "reject", default = false },
  { path = "timeout.read", scope = "listener", type = "duration", default = 10e3 },
  { path = "timeout.write", scope = "listener", type = "duration", default = 10e3 },
  { path = "timeout.idle", scope = "listener", type = "duration", default = 60e3 },
  { path = "timeout.first_frame", scope = "listener", type = "duration", default = 0 },
  { path = "timeout.proceed", scope = "listener", type = "duration", default = 0 },
  { path = "timeout.handshake", scope = "listener", type = "duration", default = 10e3 },
  { path = "timeout.header", scope = "listener", type = "duration", default = 10e3 },
  { path = "timeout.body", scope = "listener", type = "duration", default = 10e3 },
  { path = "timeout.drain", scope = "process", type = "duration", default = 10e3 },
  { path = "timeout.upgrade", scope = "process", type = "duration", default = 30e3 },
}

M.GROUPS = { limits = true, timeout = true, log = true, record = true, reload = true, jobs = true, hub = true }
--- Those that have no place in an entry of `listen`.
M.PROCESS_GROUPS = { log = true, record = true, jobs = true, hub = true }
--- What is off unless it is there: what `true` stands for, and a table that does not say it; false is 0.
M.SWITCHES = { jobs = { key = "workers", value = 2 } }
--- A process has so many lanes of jobs where it says nothing.
M.LANES = { { name = "main", workers = 0 } }
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
