--- Connections out: what of them is Lua. perilune.lua loads it when a script first makes one.
---
--- An address and its options become a plain description, and that a key: connections that have the same key share what
--- is made of them in C (src/agent/client.h).
local agent = require "perilune.config.agent"
local address = require "perilune.config.address"
local core = package.loaded["perilune.core"] -- not where a script is only being checked
local frame = require "perilune.config.frame"
local opening = require "perilune.http.opening"
local printable = require "perilune.printable"
local schema = require "perilune.config.schema"
local suggest = require "perilune.suggest"

local M = {}

-- ---- options -----------------------------------------------------------------

-- Those that listeners have as well; what is not said is as it is there, but for these.
local SHARED = {
  "frame", "keepalive", "limits.frame", "limits.inbox", "limits.send_buffer", "limits.slow_consumer",
  "timeout.read", "timeout.write", "timeout.idle", "timeout.first_frame",
}
local DEFAULTS = { ["timeout.idle"] = 0 }
for path, value in pairs(opening.DEFAULTS) do DEFAULTS[path] = value end

-- Of calls of an agent of its own; what is not said is as the script's first listener has it.
local OF_AGENT = { "limits.proceed", "limits.allocation", "timeout.proceed" }

local KEYS = { ["timeout.connect"] = { path = "timeout.connect", type = "duration", default = 5e3 } }
for _, path in ipairs(SHARED) do KEYS[path] = schema.BY_PATH[path] end
for _, path in ipairs(OF_AGENT) do KEYS[path] = schema.BY_PATH[path] end
for _, path in ipairs(opening.OPTIONS) do KEYS[path] = schema.BY_PATH[path] end

M.KEYS, M.DEFAULTS, M.OF_AGENT = KEYS, DEFAULTS, OF_AGENT -- for the specification of the types

local GROUPS = { limits = true, timeout = true }
local OTHERS = { "agent", "from", "tls", unpack(opening.OTHERS) }
local IS_OTHER = {}
for _, name in ipairs(OTHERS) do IS_OTHER[name] = true end

local function names(prefix, more)
  local found, seen = {}, {}
  for path in pairs(KEYS) do
    local name = path:sub(1, #prefix) == prefix and path:sub(#prefix + 1):match "^[^.]+"
    if name and not seen[name] then found[#found + 1] = name end
    if name then seen[name] = true end
  end
  if prefix == "" then
    for _, name in ipairs(OTHERS) do found[#found + 1] = name end
    for _, name in ipairs(more or {}) do found[#found + 1] = name end
  end
  table.sort(found)
  return found
end

local function refuse(what, place, message)
  error(("%s: %s%s%s"):format(what, place, place == "" and "" or ": ", message), 0)
end

local function refuse_key(what, prefix, name, more)
  local shown = type(name) == "string" and printable.quote(name) or printable.key(name)
  local near = suggest.suggest(name, names(prefix, more))
  local hint = near and ('unknown option %s (did you mean "%s"?)'):format(shown, near)
  refuse(what, prefix:gsub("%.$", ""), hint or "unknown option " .. shown)
end

local function read_group(what, values, group, value)
  if type(value) ~= "table" then
    refuse(what, group, ("expects a table such as { %s = … }, got %s"):format(names(group .. ".")[1],
      printable.value(value)))
  end
  for name, item in next, value do
    local key = type(name) == "string" and KEYS[group .. "." .. name]
    if not key then refuse_key(what, group .. ".", name) end
    local canonical, message = schema.parse(key, item)
    if message then refuse(what, key.path, message) end
    values[key.path] = canonical
  end
end

local function check_from(what, value)
  if value == nil then return nil end
  local host = type(value) == "string" and (value:find ":" and "[" .. value .. "]" or value)
  local parsed = host and address.parse("tcp://" .. host .. ":0")
  if not parsed or not parsed.host:find "^[%x:.%%%w]+$" or parsed.host:find "^%a+$" then
    refuse(what, "from", 'expects an address of this machine, such as "10.0.0.7", got ' .. printable.value(value))
  end
  return value
end

local function check_agent(what, value)
  if value == nil or value == false then return nil end
  local checked, message = agent.check(value, "proceed")
  if not checked then refuse(what, "agent", message) end
  return checked
end

-- What options say, by path.
local function read_options(what, options, more)
  local values, others = {}, {}
  if options ~= nil and type(options) ~= "table" then
    refuse(what, "", "the options are a table, got " .. printable.value(options))
  end
  for name, value in next, options or {} do
    if GROUPS[name] then
      read_group(what, values, name, value)
    elseif KEYS[name] then
      local canonical, message = schema.parse(KEYS[name], value)
      if message then refuse(what, name, message) end
      values[name] = canonical
    elseif IS_OTHER[name] then
      others[name] = value
    else
      refuse_key(what, "", name, more)
    end
  end
  return values, others
end

-- Who reads in straight lines is in a call of its own agent, which has its limits.
local function check_calls(what, values, agent_of_its_own)
  for _, path in ipairs(OF_AGENT) do
    if values[path] ~= nil and not agent_of_its_own then
      refuse(what, path, "is for calls of an agent of its own, and there is no `agent`")
    end
  end
end

local function value_of(values, path)
  local value = values[path]
  if value ~= nil then return value end
  if DEFAULTS[path] ~= nil then return DEFAULTS[path] end
  return KEYS[path].default
end

-- ---- addresses ---------------------------------------------------------------

local IS_ASKED = "%s:// is asked by http.get(…) and the like of require \"perilune.http\": for bytes write %s://"

-- An address of HTTP, with or without what has a place only there.
local function refuse_http(what, text)
  local scheme = type(text) == "string" and text:match "^(https?)://"
  if scheme then refuse(what, "", IS_ASKED:format(scheme, scheme == "https" and "tls" or "tcp")) end
end

local function parse_address(what, text)
  local parsed, message
  refuse_http(what, text)
  if type(text) == "table" then
    refuse(what, "", ("write it with a dot, as in %s(…), and the address first"):format(what))
  elseif opening.is_address(text) then
    parsed, message = opening.parse(text)
  elseif type(text) == "string" then
    parsed, message = address.parse(text)
  else
    message = 'expects an address such as "tcp://127.0.0.1:6379", got ' .. printable.value(text)
  end
  if not parsed then refuse(what, "", message) end
  if parsed.port == 0 or parsed.host == "" then
    refuse(what, "", "expects a host and a port to connect to, got " .. printable.quote(text))
  end
  return parsed
end

-- The framing: each datagram of UDP is a frame, and so is the answer to a handshake.
local function read_frame(what, values, parsed, frame_limit)
  if parsed.url then return (frame.parse(opening.FRAME, opening.FRAME_MAX)) end
  local is_udp = parsed.kind == "udp"
  local given = value_of(values, "frame")
  if is_udp and values.frame == nil then given = "datagram" end
  local read = frame.parse(given, frame_limit)
  if (read.kind == "datagram") ~= is_udp then
    refuse(what, "frame", is_udp and frame.ONLY_DATAGRAMS or frame.NO_DATAGRAMS)
  end
  return read
end

local function check_datagrams(what, values)
  if values.keepalive ~= nil then
    refuse(what, "keepalive", "a udp:// address has no TCP keep-alive: timeout.idle ends a connection that is silent")
  end
end

local function read_tls(what, options, host)
  local rules, message = require("perilune.config.tls").outgoing(options, host)
  if not rules then refuse(what, "tls", message) end
  return rules
end

-- What only WebSockets have, and what they do not have.
local function check_websockets(what, values, others, parsed)
  for path, why in pairs(opening.UNFIT) do
    if parsed.url and values[path] ~= nil then refuse(what, path, why) end
  end
  for _, path in ipairs(parsed.url and {} or opening.OPTIONS) do
    if values[path] ~= nil then refuse(what, path, "only a ws:// or wss:// address has it") end
  end
  for _, name in ipairs(parsed.url and {} or opening.OTHERS) do
    if others[name] ~= nil then refuse(what, name, "only a ws:// or wss:// address has it") end
  end
end

local function read_websocket(what, values, others, parsed)
  local options = { origin = others.origin, headers = others.headers }
  for _, path in ipairs(opening.OPTIONS) do options[path] = value_of(values, path) end
  local ok, websocket = pcall(opening.specify, parsed.url, options)
  if not ok then refuse(what, "", websocket) end
  return websocket
end

-- ---- keys ----------------------------------------------------------------------

local numbers, last_number = setmetatable({}, { __mode = "k" }), 0

-- Functions, agents: which one it is.
local function number_of(object)
  local number = numbers[object]
  if not number then
    last_number = last_number + 1
    number = last_number
    numbers[object] = number
  end
  return number
end

local function describe(value, out)
  local kind = type(value)
  if kind == "function" or kind == "table" and getmetatable(value) ~= nil then
    out[#out + 1] = "#" .. number_of(value)
  elseif kind == "table" then
    local keys = {}
    for key in next, value do keys[#keys + 1] = key end
    table.sort(keys, function(a, b) return tostring(a) < tostring(b) end)
    out[#out + 1] = "{"
    for _, key in ipairs(keys) do
      describe(key, out)
      describe(value[key], out)
    end
    out[#out + 1] = "}"
  else
    local text = tostring(value)
    out[#out + 1] = ("%s%d:%s"):format(kind:sub(1, 1), #text, text)
  end
end

-- An agent is what it is, whatever is in it.
local function key_of(spec)
  local out, plain = {}, {}
  for name, value in pairs(spec) do plain[name] = value end
  plain.agent = spec.agent and number_of(spec.agent)
  describe(plain, out)
  return table.concat(out, " ")
end

-- ---- what is made of both --------------------------------------------------------

--- The description of a connection: plain data, and what it is known by.
---@param what string who asks, for messages
---@param text any an address
---@param options any
---@param more string[]? names of options that are the caller's own, to be suggested
---@return string key
---@return table specification
function M.specify(what, text, options, more)
  local parsed = parse_address(what, text)
  local values, others = read_options(what, options, more)
  local spec = {
    address = text, host = parsed.host, port = parsed.port, path = parsed.path,
    from = check_from(what, others.from), agent = check_agent(what, others.agent),
    limits = {}, timeout = {},
  }
  check_calls(what, values, spec.agent)
  check_websockets(what, values, others, parsed)
  for path in pairs(KEYS) do
    local group, name = path:match "^(%w+)%.(.+)$"
    if group then spec[group][name] = value_of(values, path) end
  end
  for _, path in ipairs(OF_AGENT) do
    local group, name = path:match "^(%w+)%.(.+)$"
    spec[group][name] = values[path]
  end
  spec.datagrams = parsed.kind == "udp" or nil
  if spec.datagrams then check_datagrams(what, values) end
  spec.keepalive = value_of(values, "keepalive")
  spec.frame = read_frame(what, values, parsed, spec.limits.frame)
  if others.tls ~= nil and parsed.url and parsed.kind == "unix" then refuse(what, "tls", "a Unix socket has no TLS") end
  if others.tls ~= nil and not parsed.secure then
    refuse(what, "tls", ("only a %s:// address has TLS: write the address as %s://…"):format(
      parsed.url and "wss" or "tls", parsed.url and "wss" or "tls"))
  end
  spec.tls = parsed.secure and read_tls(what, others.tls, parsed.host) or nil
  spec.websocket = parsed.url and read_websocket(what, values, others, parsed) or nil
  local key = key_of(spec)
  if spec.websocket then spec.websocket.metas = require("perilune.http.websocket").metas end
  return key, spec
end

--- The addresses of a name, as text.
function M.resolve(name, timeout)
  if type(name) ~= "string" then
    error("perilune.resolve expects a name, such as \"example.org\", got " .. printable.value(name), 2)
  end
  if name:find "%z" then error("perilune.resolve: a name has no zero byte", 2) end
  return core.resolve(name, timeout)
end

--- Connects to an address: a conn, or nil, message, code.
function M.connect(text, options)
  local ok, key, spec = pcall(M.specify, "perilune.connect", text, options)
  if not ok then error(key, 2) end
  return core.connect(key, spec)
end

return M
