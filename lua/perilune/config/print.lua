--- Shows a normalised configuration: for people (`check --print`) and as JSON (`check --json`).
local agents = require "perilune.config.agents"
local datagrams = require "perilune.config.datagrams"
local frame = require "perilune.config.frame"
local http = require "perilune.config.http"
local json = require "perilune.json"
local printable = require "perilune.printable"
local schema = require "perilune.config.schema"

local M = {}

-- Longer values do not push the origins of all others to the right.
local VALUE_WIDTH_MAX = 40

local function get(t, path)
  for name in path:gmatch("[^.]+") do t = t[name] end
  return t
end

local function show(key, value)
  if key.type == "frame" then return frame.describe(value) end
  return schema.show(key, value)
end

-- Appends rows { name, value, origin } as aligned lines.
local function add_rows(lines, rows, indent)
  local name_width, value_width = 0, 0
  for _, row in ipairs(rows) do
    name_width = math.max(name_width, #row[1])
    if #row[2] <= VALUE_WIDTH_MAX then value_width = math.max(value_width, #row[2]) end
  end
  local format = ("%s%%-%ds = %%-%ds   (%%s)"):format(indent, name_width, value_width)
  for _, row in ipairs(rows) do lines[#lines + 1] = format:format(row[1], row[2], row[3]) end
end

local function process_rows(conf)
  local limits = { buffers = conf.buffers, garbage = conf.garbage, memory = conf.memory, handshakes = conf.handshakes,
    outgoing = conf.outgoing, deflate = conf.deflate, snapshot = conf.snapshot_bytes }
  local timeout = { drain = conf.drain_ms, upgrade = conf.upgrade_ms }
  local rows, top = {}, { limits = limits, timeout = timeout }
  setmetatable(top, { __index = conf })
  for _, key in ipairs(schema.KEYS) do
    if key.scope == "process" and key.path ~= "listen" then
      rows[#rows + 1] = { key.path, show(key, get(top, key.path)), conf.origins[key.path] }
    end
  end
  return rows
end

-- A default name is the address, which stands above it already.
local function listener_rows(conf, index)
  local listener, prefix = conf.listeners[index], ("listen[%d]."):format(index)
  local rows = { { "address", printable.escape(listener.address, 256), conf.origins[prefix .. "address"] } }
  for _, key in ipairs(schema.KEYS) do
    local is_of_unix = key.path == "mode" and listener.kind ~= "unix"
    local concerns = datagrams.concerns(key.path, listener) and http.concerns(key.path, listener)
    if key.scope == "listener" and not is_of_unix and concerns then
      rows[#rows + 1] = { key.path, show(key, get(listener, key.path)), conf.origins[prefix .. key.path] }
    end
  end
  return rows
end

-- The routes of a listener whose agent is a router, in columns.
local function add_routes(lines, agent)
  local router = package.loaded["perilune.http.router"]
  local routes = router and router.list(agent)
  if not routes or not routes[1] then return end
  local widths = { 0, 0 }
  for _, route in ipairs(routes) do
    route.shown = (route.host or "") .. route.path
    widths[1], widths[2] = math.max(widths[1], #route.method), math.max(widths[2], math.min(#route.shown, 60))
  end
  local format = ("    %%-%ds  %%-%ds  %%s"):format(widths[1], widths[2])
  lines[#lines + 1] = "  routes:"
  for _, route in ipairs(routes) do
    lines[#lines + 1] = format:format(route.method, printable.escape(route.shown, 256), route.place)
  end
end

local function kind_rows(conf, kind)
  local rows, prefix = {}, ("agents.%s."):format(kind.name)
  for _, key in ipairs(agents.keys()) do
    rows[#rows + 1] = { key.path, agents.show(key, get(kind, key.path)), conf.origins[prefix .. key.path] }
  end
  return rows
end

--- Every value with its origin, aligned: `limits.connections = 10000   (default)`.
---@param conf perilune.conf
---@return string text ends in a newline
function M.text(conf)
  local lines = {}
  add_rows(lines, process_rows(conf), "")
  for i, listener in ipairs(conf.listeners) do
    lines[#lines + 1] = ""
    lines[#lines + 1] = ("listener %d: %s"):format(i, printable.escape(listener.name, 256))
    add_rows(lines, listener_rows(conf, i), "  ")
    add_routes(lines, listener.agent)
  end
  for _, kind in ipairs(conf.agents) do
    lines[#lines + 1] = ""
    lines[#lines + 1] = ("agents without a socket: %s"):format(kind.name)
    add_rows(lines, kind_rows(conf, kind), "  ")
  end
  return table.concat(lines, "\n") .. "\n"
end

-- A copy in which a function stands as the word "function"; `special` replaces fields by name.
local function plain(t, special)
  local out = {}
  for key, value in pairs(t) do
    if type(value) == "function" then value = "function" end
    if type(value) == "table" and not special[key] then value = plain(value, {}) end
    out[key] = special[key] and special[key](value) or value
  end
  return out
end

local function plain_list(list) return json.array(plain(list, {})) end

-- What is made of other settings is left out.
local function plain_jobs(jobs)
  local shown = {}
  for name, value in pairs(jobs) do
    if not name:find "^all_" then shown[name] = value end
  end
  return plain(shown, { unsafe = plain_list, lanes = plain_list })
end

local function plain_agent(agent) return type(agent) == "table" and "table" or agent end

local function plain_listener(listener)
  return plain(listener, { agent = plain_agent, trust = plain_list })
end

local function plain_listeners(listeners)
  local out = {}
  for i, listener in ipairs(listeners) do out[i] = plain_listener(listener) end
  return json.array(out)
end

local function plain_kinds(kinds)
  local out = {}
  for i, kind in ipairs(kinds) do out[i] = plain(kind, { agent = plain_agent }) end
  return json.array(out)
end

--- The configuration as JSON, in canonical units (bytes, milliseconds). Functions are the text "function",
--- an agent prototype is "table".
---@param conf perilune.conf
---@return string
function M.json(conf)
  return assert(json.encode(plain(conf, { listeners = plain_listeners, agents = plain_kinds, modules = plain_list,
    unsafe = plain_list, compat = plain_list, jobs = plain_jobs })))
end

return M
