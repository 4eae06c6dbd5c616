--- OpenResty's `ngx`, as far as drivers need it. docs/compat.md has the list.
local perilune = require "perilune"
local re = require "perilune.compat.re"
local shared = require "perilune.compat.shared"
local suggest = require "perilune.suggest"
local tcp = require "perilune.compat.tcp"
local text = require "perilune.compat.text"
local thread = require "perilune.compat.thread"
local udp = require "perilune.compat.udp"

local M = {}

-- What is not there, and what to use.
local INSTEAD = {
  ctx = "self of the agent", var = "self.conn, or the settings",
  req = "self.conn", resp = "self.conn", header = "self.conn:send", status = "self.conn:send", arg = "self.conn",
  say = "self.conn:send", print = "self.conn:send", flush = "self.conn:flush", eof = "self.conn:close",
  exit = "self.conn:close", exec = "a function", redirect = "a function", send_headers = "self.conn:send",
  headers_sent = "self.conn", on_abort = "closed(reason) of the agent", run_worker_thread = "perilune.spawn",
  process = "app.worker in setup(app)",
  is_subrequest = "false", balancer = "perilune.connect",
  ssl = "tls:// and conn.tls", ocsp = "tls = { ocsp = … }", encode_base64url = "ngx.encode_base64",
}

local function absent(path, instead)
  error(("%s is not there: use %s"):format(path, instead), 3)
end

local function hint(key, fields)
  local names = {}
  for known in pairs(fields) do names[#names + 1] = known end
  table.sort(names)
  return suggest.hint(key, names)
end

-- Has these fields, and says of others what to use. It is for all connections, and not to be written to.
local function make_library(read_only, name, fields, instead)
  setmetatable(fields, {
    __index = function(_, key)
      local path = name .. "." .. tostring(key)
      if instead[key] then absent(path, instead[key]) end
      error(("%s is not there%s: docs/compat.md has the list"):format(path, hint(key, fields)), 2)
    end,
  })
  return read_only(name, fields)
end

local LEVELS = {
  STDERR = 0, EMERG = 1, ALERT = 2, CRIT = 3, ERR = 4, WARN = 5, NOTICE = 6, INFO = 7, DEBUG = 8,
}
local LEVEL_NAMES = {
  [0] = "error", "error", "error", "error", "error", "warn", "info", "info", "debug",
}
local CODES = { OK = 0, ERROR = -1, AGAIN = -2, DONE = -4, DECLINED = -5 }

local function log(level, ...)
  local name = LEVEL_NAMES[level]
  if not name then error("ngx.log: bad log level: " .. tostring(level), 2) end
  local parts = { ... }
  for i = 1, select("#", ...) do parts[i] = tostring(parts[i]) end
  perilune.log(name, table.concat(parts))
end

-- What runs is the app's, and outlives the agent that has asked for it.
local function timers(call_pending)
  local function seconds_of(delay, name)
    if type(delay) ~= "number" or delay < 0 then error(("ngx.timer.%s expects seconds"):format(name), 3) end
    return delay
  end
  local function begin(name, delay, fn, ...)
    local methods = require "perilune.waiting".app_methods -- is not there while a script is only being checked
    local ok, message = pcall(methods[name], {}, delay, call_pending, fn, ...)
    if ok then return true end
    return nil, (tostring(message):gsub("^.-:%d+: ", "", 1))
  end
  return {
    at = function(delay, fn, ...)
      if type(fn) ~= "function" then error("ngx.timer.at expects a function, got " .. type(fn), 2) end
      return begin("after", seconds_of(delay, "at"), fn, ...)
    end,
    every = function(delay, fn, ...)
      if type(fn) ~= "function" then error("ngx.timer.every expects a function, got " .. type(fn), 2) end
      if seconds_of(delay, "every") == 0 then return nil, "delay cannot be zero" end
      return begin("every", delay, fn, ...)
    end,
  }
end

-- Of the process. An OpenResty worker is a process of its own; ours are its threads.
local function pid()
  local file = io.open "/proc/self/stat"
  local number = file and file:read "*n" or 0
  if file then file:close() end
  return number
end

---@param host { coroutines: perilune.compat.coroutines, read_only: fun(name: string, fields: table): table }
---@return table ngx
function M.new(host)
  local call = host.coroutines.call
  local function library(name, fields, instead) return make_library(host.read_only, name, fields, instead) end
  local with_log = {
    coroutines = host.coroutines, log_error = function(message) perilune.log("error", message) end,
  }
  -- The first argument of a timer's function tells whether it comes before its time.
  local function call_pending(fn, ...) return fn(false, ...) end

  local new_socket = tcp.new(host)
  local function connect(...)
    local sock = new_socket()
    local ok, message = sock:connect(...)
    if ok then return sock end
    return nil, message
  end

  local fields = {
    socket = library("ngx.socket", { tcp = new_socket, connect = connect, udp = udp.new(host) }, {
      stream = "ngx.socket.tcp",
    }),
    thread = library("ngx.thread", thread.new(with_log), {}),
    timer = library("ngx.timer", timers(call_pending), {
      running_count = "perilune status", pending_count = "perilune status",
    }),
    location = library("ngx.location", {}, { capture = "perilune.connect", capture_multi = "perilune.all" }),
    get_phase = function() return "content" end,
    shared = shared.new(library),
    re = library("ngx.re", re, { opt = "nothing: what can be set there has no effect here" }),
    worker = library("ngx.worker", { pid = pid, exiting = function() return false end }, {
      id = "app.worker in setup(app)", count = "app.workers in setup(app)",
    }),
    config = host.read_only("ngx.config", {
      debug = false, ngx_lua_version = 10026, nginx_version = 1025003, subsystem = "stream",
      prefix = function() return "./" end, nginx_configure = function() return "" end,
    }),
    log = log,
    sleep = function(seconds) call(perilune.sleep, seconds) end,
    update_time = function() end,
  }
  for _, list in ipairs { text, LEVELS, CODES } do
    for name, value in pairs(list) do fields[name] = value end
  end
  return library("ngx", fields, INSTEAD)
end

return M
