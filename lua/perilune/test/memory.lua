--- Apps in memory. Internal; perilune.test is the door.
local buffer = require "string.buffer"
local core = require "perilune.workbench.app" -- in C: src/workbench/app.c

local clients = require "perilune.test.client"
local codec = require "perilune.test.codec"
local coverage = require "perilune.test.coverage"
local failing = require "perilune.test.fail"
local image = require "perilune.test.image"
local leftovers = require "perilune.test.leftovers"
local methods = require "perilune.test.methods"
local proxied = require "perilune.test.proxied"
local settings = require "perilune.test.settings"
local transcript = require "perilune.test.transcript"
local units = require "perilune.units"

local M = {}

-- ---- a client's wire ----

local wire = {}
wire.__index = wire

local RESTLESS = "the app does not come to rest: a handler waits for no time (perilune.sleep(0)) again and again"
local STOPPED = "the test's time is over"

local function check_quiet(app, quiet, why)
  if not quiet then failing.fail(why == "restless" and RESTLESS .. app:about() or STOPPED) end
end

function wire:now_ms() return self.app.is_closed and self.app.closed_at or core.now(self.app.core) end

function wire:act(name, ...)
  if self.app.is_closed then failing.misuse("the app is closed") end
  core[name](self.app.core, self.number, ...)
  check_quiet(self.app, core.settle(self.app.core))
end

function wire:put(bytes) self:act("put", bytes) end
function wire:tls() return core.tls(self.app.core, self.number) end
function wire:stall(bytes) self:act("stall", bytes) end
function wire:unstall() self:act("stall") end
function wire:half_close() self:act("half_close") end
function wire:reset() self:act("reset") end
function wire:close() self:act("hang_up") end

function wire:set_frame(framing) self.is_stream = codec.set_frame(self.app.core, self.number, framing) end

function wire:encode(frame) return codec.encode(self.app.core, self.number, frame) end

function wire:next()
  if self.app.is_closed then return nil end
  return codec.next(self.app.core, self.number)
end

function wire:ended()
  if self.app.is_closed then return self.reason, self.ended_ms end
  return core.ended(self.app.core, self.number)
end

function wire:was_reset()
  if self.app.is_closed then return self.saw_reset end
  return select(4, core.ended(self.app.core, self.number))
end

-- What else there is to know when a client does not get what it should.
function wire:about()
  return self.app:about()
end

-- ---- an app ----

---@class perilune.test.app
---@field name string
local app = {}
app.__index = app

local function overrides_of(overrides)
  local list = settings.list(overrides)
  -- There is one, whatever the script says.
  table.insert(list, 1, { path = "workers", value = "1", origin = "in memory" })
  if coverage.is_on then list[#list + 1] = { path = "jit", value = "false", origin = "--coverage" } end
  return list
end

local function duration(what, value)
  local ms, message = units.duration(value)
  if not ms then failing.misuse(what .. ": " .. message) end
  return ms
end

local function freeze(what)
  local ok, bytes = pcall(image.freeze, what)
  if not ok then failing.misuse(tostring(bytes)) end
  return bytes
end

local CALLBACKS = {
  opened = true, proceed = true, eof = true, closed = true, timeout = true, failed = true, oversize = true,
  malformed = true, writable = true, drain = true,
}

-- Option `takes`: how long callbacks take on the clock, all of them or each.
local function set_costs(self, takes)
  local by_name = takes
  if type(takes) ~= "table" then
    by_name = {}
    for callback in pairs(CALLBACKS) do by_name[callback] = takes end
  end
  for callback, time in pairs(by_name) do
    if not CALLBACKS[callback] then failing.misuse("takes: there is no callback " .. transcript.show(callback)) end
    core.take(self.core, callback, duration("takes", time) / 1000)
  end
end

local APP_OPTIONS = { takes = true }

---@param what string|table
---@param overrides table?
---@param options { takes: number|string|table<string, number|string>|nil }?
---@return perilune.test.app
function M.open(what, overrides, options)
  if options ~= nil then settings.check_options("app", options, APP_OPTIONS) end
  if type(what) ~= "string" and type(what) ~= "table" then
    failing.misuse("app: the file of a script is expected, or the table that one returns; got a " .. type(what))
  end
  local is_file = type(what) == "string"
  local name = is_file and what or "the app"
  local opened, message = core.open(is_file and what or "app", not is_file and freeze(what) or nil,
    overrides_of(overrides), coverage.is_on and "perilune.test.covered" or nil)
  if not opened then failing.cannot_load(name, message) end
  local self = setmetatable({ core = opened, name = name, clients = {}, is_file = is_file }, app)
  leftovers.add(self)
  if options and options.takes ~= nil then set_costs(self, options.takes) end
  return self
end

local function check_open(self)
  if self.is_closed then failing.misuse("the app is closed") end
end

local OPTIONS = {
  listener = true, from = true, proxy = true, read_max = true, write_max = true, frame = true, name = true, tls = true,
}
local TLS_OPTIONS = {
  server_name = true, alpn = true, version = true, certificate = true, key = true, authority = true,
}

local function read_pem(path, option)
  local file, message = io.open(path, "rb")
  if not file then failing.misuse(("connect: tls.%s: %s"):format(option, message)) end
  local text = file:read("*a")
  file:close()
  return text
end

-- What the client's TLS is made with: files are read here, and names of protocols are as on the wire.
local function tls_of(options)
  if options == nil or options == false or options == true then return options end
  settings.check_options("connect: tls", options, TLS_OPTIONS)
  local tls = { server_name = options.server_name, version = options.version }
  if tls.version and tls.version ~= "1.2" and tls.version ~= "1.3" then
    failing.misuse('connect: tls.version is "1.2" or "1.3"')
  end
  for _, option in ipairs { "certificate", "key", "authority" } do
    tls[option] = options[option] and read_pem(options[option], option)
  end
  for _, protocol in ipairs(type(options.alpn) == "table" and options.alpn or { options.alpn }) do
    tls.alpn = (tls.alpn or "") .. string.char(#protocol) .. protocol
  end
  return tls
end

---@class perilune.test.connect_options
---@field listener integer|string|nil its number, or its name; default: the first
---@field from string? the client's address: "10.0.0.7:5060"; with `proxy`: the proxy's; default: one that is trusted
---@field proxy string|{ client: string, server: string? }|nil the PROXY header that comes first, or what it is to say
---@field read_max integer? the app's reads bring so many bytes at most
---@field write_max integer? ... and its writes take so many
---@field frame any a framing of the client's own
---@field name string? for messages
---@field tls perilune.test.tls_options|boolean|nil where the listener is tls://; false: it speaks plainly all the same

--- A client connects. Where a limit refuses it, closed() tells "limit".
---@param options perilune.test.connect_options?
---@return perilune.test.client
function app:connect(options)
  check_open(self)
  if self.is_stopping then failing.misuse("connect: the app stops, and accepts nobody any more") end
  options = options or {}
  settings.check_options("connect", options, OPTIONS)
  local listener = settings.listener(core.listeners(self.core), options.listener)
  local header = options.proxy and proxied.header(options.proxy)
  local number, id = core.connect(self.core, listener, options.from, options.read_max or 0, options.write_max or 0,
    header, tls_of(options.tls))
  local one = setmetatable({ app = self, number = number }, wire)
  one.is_stream = core.framing(self.core, number) == "raw"
  if options.frame then one:set_frame(options.frame) end
  local name = options.name or "client " .. number
  local made = clients.new(("%s of %s (%s)"):format(name, self.name, id and "conn " .. id or "refused"), one)
  self.clients[number] = { client = made, wire = one, name = name }
  check_quiet(self, core.settle(self.core))
  return made
end

--- Lets time pass: whatever becomes due happens, in order, at its own time.
---@param time number|string seconds, or "250ms", "5m"
---@return perilune.test.app
function app:advance(time)
  check_open(self)
  check_quiet(self, core.advance(self.core, duration("advance", time)))
  return self
end

--- Lets everything happen that can without time passing. All other methods do so by themselves.
---@return perilune.test.app
function app:settle()
  check_open(self)
  check_quiet(self, core.settle(self.core))
  return self
end

--- The clock: seconds since the app was opened.
---@return number
function app:now() return core.now(self.core) / 1000 end

--- What the app has logged.
---@param message string? only entries that say this
---@return table[] entries { level, message, at_ms, … }
function app:log(message)
  local entries = self.is_closed and self.kept_log or core.log(self.core)
  if not message then return entries end
  local found = {}
  for _, entry in ipairs(entries) do
    if entry.message == message then found[#found + 1] = entry end
  end
  return found
end

--- Errors of handlers: { error, place, callback, excerpt, … }. The same one within ten seconds is there once.
---@return table[]
function app:faults() return self:log "handler failed" end

--- What a server counts.
---@return table<string, integer>
function app:counters() return core.counters(self.core) end

--- Injects a fault: the n-th call of this callback from now on, of whichever agent, raises.
---@param callback string
---@param n integer? default 1: the next one
---@return perilune.test.app
function app:fail(callback, n)
  check_open(self)
  if not CALLBACKS[callback] then failing.misuse("fail: there is no callback " .. transcript.show(callback)) end
  if n ~= nil and (type(n) ~= "number" or n < 1) then failing.misuse("fail: which call is a number from 1 on") end
  core.fail(self.core, callback, n or 1)
  return self
end

--- Injects a fault: there is no memory for bytes that have to wait, as if limits.buffers were used up; false: there is
--- again.
---@param on boolean? default true
---@return perilune.test.app
function app:no_memory(on)
  check_open(self)
  core.starve(self.core, on ~= false)
  return self
end

--- The app begins to stop, as a server does that is told to: handlers are asked. Clients may go on, and time passes by
--- advance(); what is left at timeout.drain is cut.
---@return perilune.test.app
function app:begin_drain()
  check_open(self)
  self.is_stopping = true
  check_quiet(self, core.begin_drain(self.core))
  return self
end

--- The app stops as a server does that is told to: handlers are asked, what is left at timeout.drain is cut.
---@return perilune.test.app
function app:drain()
  check_open(self)
  self.is_stopping = true
  check_quiet(self, core.drain(self.core))
  return self
end

-- ---- the end ----

local function describe_live(self, live)
  local one = self.clients[live.client]
  local text = ("  %s (conn %d): %s"):format(one.name, live.conn, live.state)
  if not live.waits then return text end
  text = ("%s; its %s() waits in %s"):format(text, live.callback, live.waits)
  if not live.until_ms then return text end
  return ("%s, with a timer at %s (it is %s)"):format(text, transcript.time(live.until_ms),
    transcript.time(core.now(self.core)))
end

local function list_live(self)
  local lines = {}
  for i, live in ipairs(core.live(self.core)) do lines[i] = describe_live(self, live) end
  return lines
end

--- What there still is, and what the app has logged, for failures.
function app:about()
  if self.is_closed then return "" end
  local parts = {}
  local log = transcript.log(core.log(self.core))
  if log then parts[1] = log end
  local waiting = {}
  for _, live in ipairs(core.live(self.core)) do
    if live.until_ms then waiting[#waiting + 1] = describe_live(self, live) end
  end
  if #waiting > 0 then
    parts[#parts + 1] = "handlers that wait (app:advance lets time pass)\n" .. table.concat(waiting, "\n")
  end
  return #parts > 0 and "\n" .. table.concat(parts, "\n") or ""
end

-- Clients can be asked afterwards.
local function keep_answers(self)
  for _, one in ipairs(self.clients) do
    one.client:transcript()
    one.wire.reason, one.wire.ended_ms = one.wire:ended()
    one.wire.saw_reset = one.wire:was_reset()
  end
  self.kept_log, self.closed_at = core.log(self.core), core.now(self.core)
end

local function finish(self)
  if coverage.is_on and self.is_file then
    coverage.add(self.name:match("^(.*)/[^/]*$") or ".", buffer.decode(core.coverage(self.core)))
  end
  self.is_closed = true
  core.close(self.core)
end

local function shut(self)
  keep_answers(self)
  finish(self)
end

--- Ends the app: clients hang up, and the app stops. Handlers that do not end by themselves until timeout.drain fail
--- the test.
function app:close()
  if self.is_closed then return end
  for _, one in ipairs(self.clients) do
    if not one.wire:ended() then one.client:close() end
  end
  local lines = list_live(self)
  local cut = core.counters(self.core).cut
  check_quiet(self, core.drain(self.core))
  local has_cut = core.counters(self.core).cut > cut
  shut(self)
  if has_cut then
    failing.fail(("%s had to be cut at the end of timeout.drain, since after its clients had gone it still had\n%s")
      :format(self.name, table.concat(lines, "\n")))
  end
end

-- For perilune.test.leftovers.
function app:left()
  if self.is_closed then return nil end
  local lines = list_live(self)
  if #lines == 0 then return nil end
  return ("%s was left behind with %d connection%s\n%s\nend them with client:close(), or all of them with app:close()")
    :format(self.name, #lines, #lines == 1 and "" or "s", table.concat(lines, "\n"))
end

function app:dispose()
  if not self.is_closed then finish(self) end
end

methods.lock("an app", app)

return M
