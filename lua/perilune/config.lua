--- Turns what a script returns, and what the command line and the environment
--- override, into one plain description of the server. All errors are collected.
--- Runs no code of the script but the __index of an agent.
---
--- Every key may be given in three layers: an entry of `listen`, the top level, an
--- override. A listener's value comes from the strongest that has one:
--- override, then its own entry, then the top level, then the default.
local address = require "perilune.config.address"
local agents = require "perilune.config.agents"
local check = require "perilune.config.check"
local frame = require "perilune.config.frame"
local http = require "perilune.config.http"
local print_conf = require "perilune.config.print"
local printable = require "perilune.printable"
local read = require "perilune.config.read"
local schema = require "perilune.config.schema"

local M = {}

local report = read.report

local EXPECTED_SCRIPT = "the script must end in return { listen = …, agent = … }; it returned "

---@class perilune.config_error
---@field path string where: "limits.connections", "listen[2].frame", or "" for the script as a whole
---@field message string
---@field origin string? of the override that is at fault; nil: the script
---@field line integer? of the script, where the key is set nowhere else

---@class perilune.override
---@field path string "limits.connections"
---@field value string as typed
---@field origin string "flag --set limits.connections", "env PERILUNE_LIMITS_CONNECTIONS"

---@class perilune.config_options
---@field overrides perilune.override[]? weakest first
---@field cpus integer? the default of `workers`
---@field memory integer? bytes that the machine has: what the default of `limits.memory` comes from
---@field file string? of the script, for messages

---@class perilune.listener: perilune.address
---@field name string
---@field backlog integer
---@field keepalive integer milliseconds, 0: off
---@field nodelay boolean
---@field reuse_port boolean
---@field mode integer? permissions of a Unix socket; nil: as the umask says
---@field frame perilune.frame
---@field agent function|table
---@field proxy boolean|"optional"
---@field trust string[]
---@field amplification integer of udp://; 0: off
---@field limits table<string, any> connections, per_ip, accept_rate, frame, inbox, send_buffer, slow_consumer, reject,
---  uri, headers, fields, body
---@field timeout table<string, integer> milliseconds, 0: off; read, write, idle, first_frame, proceed, handshake,
---  header, body

---@class perilune.kind of agents without a socket
---@field name string
---@field agent function|table
---@field idle integer milliseconds, 0: never
---@field most integer at once, of each worker
---@field reload { policy: string }
---@field limits table<string, integer> proceed, allocation, mailbox
---@field timeout { proceed: integer }

---@class perilune.conf
---@field workers integer
---@field modules string[]
---@field compat string[]
---@field log { file: string|false, format: string, level: string, frame_bytes: integer }
---@field record { redact: function? }
---@field control string "auto", "off" or a path
---@field jit boolean
---@field reload table<string, any> keep, when_full, canary, window, max_errors; policy: of removed listeners
---@field memory integer bytes for the VM of each worker
---@field buffers integer bytes for all buffers of the process
---@field handshakes integer of TLS at once, for each worker
---@field outgoing integer connections out at once, for each worker
---@field shared { name: string, bytes: integer }[] dictionaries that all workers share, by name
---@field jobs table<string, any> workers (0: there are none), queue, when_full, lanes, timeout, proceed, memory,
---  message, unsafe; all_modules, all_unsafe, all_compat: texts of what they may require and open
---@field hub { policy: string, messages: integer, bytes: integer, inbox: integer }
---@field drain_ms integer
---@field upgrade_ms integer
---@field listeners perilune.listener[]
---@field agents perilune.kind[] of agents without a socket, by name
---@field setup function?
---@field snapshot function?
---@field snapshot_bytes integer the most that a worker is given of a snapshot()
---@field takes_snapshot boolean setup() is given it
---@field teardown function?
---@field strays string? methods of agents that nobody calls, and what they may have been meant to be
---@field warnings string? what is allowed and hardly meant, a line each
---@field globals string? a line for each place where the app uses a global that is not defined
---@field origins table<string, string> "limits.connections" or "listen[1].limits.connections" → "default", "script", …

local resolve

-- Half of the machine's, in equal parts.
local function default_memory(state)
  local workers = resolve(state, nil, schema.BY_PATH.workers)
  local least = schema.BY_PATH["limits.memory"].min
  return math.max(least, math.floor(state.memory / 2 / (tonumber(workers) or 1)))
end

local function default_of(state, key)
  if key.path == "limits.memory" then return default_memory(state) end
  if key.path == "workers" then return math.max(1, math.min(schema.WORKERS_MAX, math.floor(state.cpus))) end
  if key.type == "lanes" then return schema.LANES end
  if type(key.default) == "table" then return {} end
  return key.default
end

-- A key's value and where it comes from; layer is a listener's own, or nil for the top level.
function resolve(state, layer, key)
  local path = key.path
  local forced = state.forced[path]
  if forced then return forced.value, forced.origin end
  for _, source in ipairs { layer or state.top, state.top } do
    if source.values[path] ~= nil then return source.values[path], "script" end
  end
  return default_of(state, key), "default"
end

local function put(out, path, value)
  local group, name = path:match("^(%w+)%.(.+)$")
  if not group then
    out[path] = value
    return
  end
  out[group] = out[group] or {}
  out[group][name] = value
end

local function parse_address(state, entry)
  if type(entry.text) ~= "string" then
    local message = entry.text == nil and 'has no address: write it first, as in { "tcp://127.0.0.1:9000", … }'
      or read.EXPECTED_LISTEN .. printable.value(entry.text)
    report(state, entry.place, message)
    return {}
  end
  local parsed, message = address.parse(entry.text)
  if not parsed then report(state, entry.place, message, entry.origin) end
  return parsed or {}
end

-- What is otherwise by default where datagrams come.
local UDP_DEFAULTS = { frame = "datagram", ["timeout.idle"] = 30e3 }

-- The setting, where its default depends on what is listened to.
local function default_by_kind(listener, path)
  if listener.kind == "udp" then return UDP_DEFAULTS[path] end
  local defaults = http.DEFAULTS[listener.protocol]
  if defaults then return defaults[path] end
end

-- What it speaks is known before its other settings: some of their defaults depend on it.
local function set_protocol(state, entry, listener)
  local scheme = listener.protocol
  listener.protocol = resolve(state, entry.layer, schema.BY_PATH.protocol)
  listener.protocol = http.protocol(state, entry, listener, scheme)
end

local function build_listener(state, entry, index)
  local listener = parse_address(state, entry)
  set_protocol(state, entry, listener)
  for _, key in ipairs(schema.KEYS) do
    if key.scope == "listener" then
      local value, origin = resolve(state, entry.layer, key)
      local own
      if origin == "default" then own = default_by_kind(listener, key.path) end
      if own ~= nil then value = own end
      if key.path ~= "protocol" then put(listener, key.path, value) end
      state.origins[("listen[%d].%s"):format(index, key.path)] = origin
    end
  end
  state.origins[("listen[%d].address"):format(index)] = entry.origin or "script"
  listener.frame = frame.parse(listener.frame, listener.limits.frame)
  return listener
end

-- Does setup() take what a generation before keeps? One that has no parameter for it begins anew.
local function takes_data(setup)
  local info = setup and debug.getinfo(setup, "u")
  return info ~= nil and (info.nparams >= 2 or info.isvararg)
end

-- What the VM of a job may require and open: all that the script may, and what is for jobs alone.
local function add_open_to_jobs(conf)
  local unsafe, more, seen = {}, {}, {}
  for _, name in ipairs(conf.unsafe or {}) do unsafe[#unsafe + 1], seen[name] = name, true end
  for _, name in ipairs(conf.jobs.unsafe or {}) do
    if not seen[name] then unsafe[#unsafe + 1], more[#more + 1], seen[name] = name, name, true end
  end
  conf.jobs.all_modules = table.concat(conf.modules or {}, ",")
  conf.jobs.all_unsafe = table.concat(unsafe, ",")
  conf.jobs.all_more = #more > 0 and table.concat(more, ", ") or nil
  conf.jobs.all_compat = table.concat(conf.compat or {}, ",")
end

local function build_process(state)
  local conf = {}
  for _, key in ipairs(schema.KEYS) do
    local value, origin = resolve(state, nil, key)
    state.origins[key.path] = origin
    if key.scope == "process" and key.path ~= "listen" then put(conf, key.path, value) end
  end
  conf.buffers, conf.memory, conf.garbage = conf.limits.buffers, conf.limits.memory, conf.limits.garbage
  conf.handshakes, conf.outgoing, conf.deflate = conf.limits.handshakes, conf.limits.outgoing, conf.limits.deflate
  conf.snapshot_bytes, conf.takes_snapshot = conf.limits.snapshot, takes_data(conf.setup)
  conf.limits = nil
  conf.drain_ms, conf.upgrade_ms, conf.timeout = conf.timeout.drain, conf.timeout.upgrade, nil
  add_open_to_jobs(conf)
  -- For connections whose listener is no more.
  conf.reload.policy = resolve(state, nil, schema.BY_PATH["reload.policy"])
  conf.origins = state.origins
  return conf
end

local function build(state, entries)
  local conf = build_process(state)
  conf.agents = agents.build(state, state.kinds, resolve, put)
  conf.listeners = {}
  for i, entry in ipairs(entries) do conf.listeners[i] = build_listener(state, entry, i) end
  check.run(state, entries, conf)
  return conf
end

local function require_listen(state, script)
  if rawget(script, "listen") == nil and not state.top.given.listen and not state.forced.listen then
    report(state, "listen", 'no address to listen on: set listen = "tcp://127.0.0.1:9000"')
  end
end

--- Validates and completes what a script returned.
---@param script any
---@param opts? perilune.config_options
---@return perilune.conf?
---@return perilune.config_error[]? errors
function M.normalise(script, opts)
  opts = opts or {}
  local state = read.new_state(opts.cpus or 1, opts.memory or 2 ^ 32)
  if type(script) ~= "table" then
    report(state, "", EXPECTED_SCRIPT .. printable.value(script))
    return nil, state.errors
  end
  if getmetatable(script) == "http.router" then
    report(state, "", 'this is a router: return { listen = "http://127.0.0.1:8080", agent = api }')
    return nil, state.errors
  end
  local entries = read.read_script(state, script)
  for _, override in ipairs(opts.overrides or {}) do read.apply_override(state, override) end
  require_listen(state, script)
  local conf = build(state, read.override_listen(state, entries))
  if #state.errors > 0 then return nil, state.errors end
  return conf
end

--- Is one of them of the command line? Then that is used wrongly, whatever else there is.
---@param errors perilune.config_error[]
---@return boolean
function M.is_usage(errors)
  for _, err in ipairs(errors) do
    if err.origin and err.origin:find "^flag " then return true end
  end
  return false
end

--- The errors as text, a line each: "app.lua: limits.conections: unknown key …".
--- One that an override caused is named after it: "env PERILUNE_WORKERS: expects …".
---@param errors perilune.config_error[]
---@param file string?
---@return string
function M.format_errors(errors, file)
  local lines = {}
  for i, err in ipairs(errors) do
    local place = err.origin or file or "script"
    if err.line and not err.origin then place = place .. ":" .. err.line end
    if err.path ~= "" and not err.origin then place = place .. ": " .. err.path end
    lines[i] = printable.escape(place, 512) .. ": " .. err.message
  end
  return table.concat(lines, "\n")
end

--- A framing's canonical form; see perilune.config.frame.
M.frame = frame.parse

--- It in one line; see perilune.config.frame.
M.describe_frame = frame.describe

--- The keys that overrides may set, in the order of the manual: "workers", "limits.connections", …
---@return string[]
M.paths = read.paths

M.print = print_conf.text
M.to_json = print_conf.json

return M
