--- Apps in memory. Internal; perilune.test is the door.
local buffer = require "string.buffer"
local core = require "perilune.workbench.app" -- in C: src/workbench/app.c

local beside = require "perilune.test.beside"
local clients = require "perilune.test.client"
local coverage = require "perilune.test.coverage"
local failing = require "perilune.test.fail"
local image = require "perilune.test.image"
local leftovers = require "perilune.test.leftovers"
local methods = require "perilune.test.methods"
local proxied = require "perilune.test.proxied"
local schema = require "perilune.config.schema"
local settings = require "perilune.test.settings"
local transcript = require "perilune.test.transcript"
local units = require "perilune.units"
local wires = require "perilune.test.wire"

local M = {}

local check_quiet = wires.check_quiet

-- ---- an app ----

---@class perilune.test.app
---@field name string
local app = {}
app.__index = app

-- However many workers the script wants, there is one, unless the specification asks for more.
local function overrides_of(overrides, workers)
  local list = settings.list(overrides)
  table.insert(list, 1, { path = "workers", value = tostring(workers), origin = "in memory" })
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
  malformed = true, writable = true, drain = true, message = true,
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

local APP_OPTIONS = { takes = true, workers = true }
local NET_APP_OPTIONS = { takes = true, workers = true, name = true }
local WORKERS_MAX = schema.WORKERS_MAX

-- Option `workers`.
local function workers_of(options, overrides)
  local workers = options.workers
  if workers == nil then return 1 end
  if type(workers) ~= "number" or workers % 1 ~= 0 or workers < 1 or workers > WORKERS_MAX then
    failing.misuse(("app: workers: a whole number from 1 to %d is expected, got %s"):format(WORKERS_MAX,
      transcript.show(workers)))
  end
  if overrides and overrides.workers ~= nil then
    failing.misuse("app: workers: it is both an option and among the overrides: one of them says it")
  end
  return workers
end

-- Where an app comes from: a file, or what a script returns, as bytes.
local function origin(self, what, overrides, takes)
  local is_file = type(what) == "string"
  return { path = is_file and what or "app", is_file = is_file, image = not is_file and freeze(what) or nil,
    listen = not is_file and what.listen or nil, takes = takes,
    overrides = overrides_of(overrides, self.workers),
    inside = coverage.is_on and "perilune.test.covered" or self.net and "perilune.test.seeded" or nil }
end

-- The app's VM: the same script each time. It reads a file anew.
local function load_app(self)
  local from = self.from
  local opened, message = core.open(from.path, from.image, from.overrides, from.inside)
  if not opened then failing.cannot_load(from.is_file and from.path or self.name, message) end
  self.core, self.clients, self.stalled, self.ended_by = opened, {}, {}, false
  self.workers = core.workers(opened)
  self.is_closed, self.is_stopping = false, false
  if self.net then self.net:enter(self) end
  if from.takes ~= nil then set_costs(self, from.takes) end
end

---@param what string|table
---@param overrides table?
---@param options { takes: number|string|table<string, number|string>|nil, workers: integer?, name: string? }?
---@param net perilune.test.net? that it is in
---@return perilune.test.app
function M.open(what, overrides, options, net)
  options = options or {}
  settings.check_options("app", options, net and NET_APP_OPTIONS or APP_OPTIONS)
  if options.name ~= nil and type(options.name) ~= "string" then failing.misuse("app: name: a string is expected") end
  if type(what) ~= "string" and type(what) ~= "table" then
    failing.misuse("app: the file of a script is expected, or the table that one returns; got a " .. type(what))
  end
  local is_file = type(what) == "string"
  local self = setmetatable({ name = options.name or is_file and what or "the app", net = net or false,
    wanted_name = options.name or false, is_closed = true, is_stalled = false,
    workers = workers_of(options, overrides) }, app)
  self.from = origin(self, what, overrides, options.takes)
  leftovers.add(self)
  load_app(self)
  return self
end

-- How an app has ended, for whoever uses it all the same.
local ENDS = {
  killed = ": net:kill has ended it, net:restart(app) brings it back",
  net = ": net:close() has ended it",
  test = ": it has ended with the test that opened it",
  test_of_net = ": it has ended with the test that opened it, as its net was not closed there: open both in "
    .. "before_each, and call net:close() in after_each",
}

local function check_open(self)
  if self.is_closed then failing.misuse("the app is closed" .. (ENDS[self.ended_by] or "")) end
end

-- What the app itself has to do something for.
local function check_running(self, what)
  check_open(self)
  if self.is_stalled then failing.misuse(what .. ": the app is stalled: net:resume(app) lets it go on") end
end

-- What all of its workers have to do something for.
local function check_workers_run(self, what)
  check_running(self, what)
  local worker = next(self.stalled)
  if not worker then return end
  failing.misuse(("%s: worker %d is stalled: app:resume(%d) lets it go on"):format(what, worker, worker))
end

-- The number of a worker; nil where that may be.
local function check_worker(self, what, worker, is_needed)
  if worker == nil and not is_needed then return nil end
  if type(worker) == "number" and worker % 1 == 0 and worker >= 0 and worker < self.workers then return worker end
  local has = self.workers == 1 and "the app has one, worker 0: the option `workers` of perilune.app gives it more"
    or ("the app has %d, from 0 on"):format(self.workers)
  failing.misuse(("%s: there is no worker %s: %s"):format(what, transcript.show(worker), has))
end

local OPTIONS = {
  worker = true, listener = true, from = true, proxy = true, read_max = true, write_max = true, frame = true,
  name = true, tls = true,
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
---@field worker integer? whose client it is, from 0 on; default: as a server deals clients out
---@field tls perilune.test.tls_options|boolean|nil where the listener is tls://; false: it speaks plainly all the same

-- A datagram comes whole, and nothing comes before it.
local function refuse_options(self, listener, options)
  local _, schemes = core.listeners(self.core)
  for _, option in ipairs { "tls", "proxy", "read_max", "write_max", "frame" } do
    if schemes[listener] == "udp" and options[option] then
      failing.misuse(("connect: %s: a client of udp:// sends datagrams, and has no connection"):format(option))
    end
  end
end

-- "conn 7", "conn 7, worker 1".
local function conn_text(self, id, worker)
  return self.workers == 1 and "conn " .. id or ("conn %d, worker %d"):format(id, worker)
end

--- A client connects. Where a limit refuses it, closed() tells "limit".
---@param options perilune.test.connect_options?
---@return perilune.test.client
function app:connect(options)
  check_running(self, "connect")
  if self.is_stopping then failing.misuse("connect: the app stops, and accepts nobody any more") end
  options = options or {}
  settings.check_options("connect", options, OPTIONS)
  local listener = settings.listener(core.listeners(self.core), options.listener)
  local header = options.proxy and proxied.header(options.proxy)
  refuse_options(self, listener, options)
  local number, id = core.connect(self.core, listener, options.from, options.read_max or 0, options.write_max or 0,
    header, tls_of(options.tls), check_worker(self, "connect: worker", options.worker))
  local one = wires.new(self, number)
  if options.frame then one:set_frame(options.frame) end
  local name = options.name or "client " .. number
  local what = id and conn_text(self, id, one:worker()) or one.is_datagram and "datagrams" or "refused"
  local made = clients.new(("%s of %s (%s)"):format(name, self.name, what), one)
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

local function add_coverage(self)
  if coverage.is_on and self.from.is_file then
    local folder = self.from.path:match("^(.*)/[^/]*$") or "."
    for worker = 0, self.workers - 1 do
      coverage.add(folder, buffer.decode(core.coverage(self.core, worker)))
    end
  end
end

-- What is loaded next: the same once more, or something else at the same addresses.
local function next_origin(self, what, overrides)
  local from = self.from
  if what == nil then what = from.is_file and from.path or nil end
  if what == nil then
    local same = {}
    for key, value in pairs(from) do same[key] = value end
    same.overrides = overrides and overrides_of(overrides, self.workers) or from.overrides
    return same
  end
  if type(what) == "table" and what.listen == nil then
    local with_address = { listen = from.listen }
    for key, value in pairs(what) do with_address[key] = value end
    what = with_address
  end
  local new = origin(self, what, overrides, from.takes)
  if not overrides then new.overrides = from.overrides end
  return new
end

--- As a server that is told to reload: the next generation takes new connections, and those that there are stay,
--- migrate or are drained, as `reload` of the new script says; in all workers. What cannot be loaded fails the test;
--- nothing changes.
---@param what string|table|nil another script, at the same addresses; default: the same, and a file is read anew
---@param overrides table? default: those that it was opened with
---@return perilune.test.app
function app:reload(what, overrides)
  check_workers_run(self, "reload")
  if what ~= nil and type(what) ~= "string" and type(what) ~= "table" then
    failing.misuse("reload: the file of a script is expected, or the table that one returns; got a " .. type(what))
  end
  local from = next_origin(self, beside.find(what), overrides)
  add_coverage(self)
  local ok, message = core.reload(self.core, from.path, from.image, from.overrides, from.inside)
  if not ok then failing.cannot_load(from.is_file and from.path or self.name, message) end
  self.from = from
  if self.net then self.net:reloaded(self) end
  if from.takes ~= nil then set_costs(self, from.takes) end
  check_quiet(self, core.settle(self.core))
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
function app:now() return (self.is_closed and self.closed_at or core.now(self.core)) / 1000 end

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

--- What a server counts; or one of its workers, which does not count whom limits refuse at the door.
---@param worker integer? default: all of them
---@return table<string, integer>
function app:counters(worker)
  if worker == nil and self.is_closed then return self.kept_counters end
  check_open(self)
  return core.counters(self.core, check_worker(self, "counters", worker))
end

--- What it has at this moment: bytes of Lua values that are in use, and of buffers for bytes that wait; tasks, and
--- generations of the script, each worker's.
---@param worker integer? default: all of them
---@return { vm: integer, buffers: integer, tasks: integer, generations: integer }
function app:memory(worker)
  check_open(self)
  return core.memory(self.core, check_worker(self, "memory", worker))
end

--- Injects a fault: the n-th call of this callback from now on, of whichever agent, raises.
---@param callback string
---@param n integer? default 1: the next one
---@param worker integer? only calls of that worker count; default: those of all
---@return perilune.test.app
function app:fail(callback, n, worker)
  check_open(self)
  if not CALLBACKS[callback] then failing.misuse("fail: there is no callback " .. transcript.show(callback)) end
  if n ~= nil and (type(n) ~= "number" or n < 1) then failing.misuse("fail: which call is a number from 1 on") end
  core.fail(self.core, callback, n or 1, check_worker(self, "fail", worker))
  return self
end

--- Injects a fault: a worker does nothing any more, as one whose handler waits in the system. The others go on, and new
--- clients are theirs; what is given to it all the same waits.
---@param worker integer
---@return perilune.test.app
function app:stall(worker)
  check_running(self, "stall")
  check_worker(self, "stall", worker, true)
  core.stall_worker(self.core, worker, true)
  self.stalled[worker] = true
  return self
end

--- It goes on. What had become due is so now.
---@param worker integer
---@return perilune.test.app
function app:resume(worker)
  check_open(self)
  check_worker(self, "resume", worker, true)
  core.stall_worker(self.core, worker, false)
  self.stalled[worker] = nil
  check_quiet(self, core.settle(self.core))
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

--- Jobs wait from now on, as if all threads for them were busy: run_jobs() runs some. false: they run by themselves
--- again.
---@param on boolean? default true
---@return perilune.test.app
function app:hold_jobs(on)
  check_open(self)
  core.hold_jobs(self.core, on ~= false)
  if on == false then check_quiet(self, core.settle(self.core)) end
  return self
end

--- Runs jobs that wait, the next ones first, and lets everything happen that comes of it.
---@param most integer? default 1
---@return integer count how many there were
function app:run_jobs(most)
  check_running(self, "run_jobs")
  if most ~= nil and (type(most) ~= "number" or most < 1) then
    failing.misuse("run_jobs: how many is a number from 1 on")
  end
  local count = core.run_jobs(self.core, most or 1)
  check_quiet(self, core.settle(self.core))
  return count
end

--- The app begins to stop, as a server does that is told to: handlers are asked. Clients may go on, and time passes by
--- advance(); what is left at timeout.drain is cut.
---@return perilune.test.app
function app:begin_drain()
  check_workers_run(self, "begin_drain")
  self.is_stopping = true
  check_quiet(self, core.begin_drain(self.core))
  return self
end

--- The app stops as a server does that is told to: handlers are asked, what is left at timeout.drain is cut.
---@return perilune.test.app
function app:drain()
  check_workers_run(self, "drain")
  self.is_stopping = true
  check_quiet(self, core.drain(self.core))
  return self
end

-- ---- the end ----

-- Its clients, in the order in which they came. Connections of other apps of the same net are among their numbers.
local function clients_of(self)
  local numbers, found = {}, {}
  for number in pairs(self.clients) do numbers[#numbers + 1] = number end
  table.sort(numbers)
  for i, number in ipairs(numbers) do found[i] = self.clients[number] end
  return found
end

-- What it waits in, for how long so far, and until when.
local function describe_wait(self, wait)
  local now = core.now(self.core)
  local text = wait.waits
  if now > wait.since_ms then text = ("%s, for %s so far"):format(text, transcript.time(now - wait.since_ms)) end
  if not wait.until_ms then return text end
  return ("%s, with a timer at %s (it is %s)"):format(text, transcript.time(wait.until_ms), transcript.time(now))
end

local function describe_live(self, live)
  local one = self.clients[live.client]
  local conn = conn_text(self, live.conn, live.worker)
  local text = ("  %s (%s): %s"):format(one and one.name or "another app's", conn, live.state)
  if live.waits then text = ("%s; its %s() waits in %s"):format(text, live.callback, describe_wait(self, live)) end
  for _, task in ipairs(live.tasks) do
    text = ("%s\n    a task of it waits in %s"):format(text, describe_wait(self, task))
  end
  return text
end

local function list_live(self)
  local lines = {}
  for i, live in ipairs(core.live(self.core)) do lines[i] = describe_live(self, live) end
  return lines
end

-- The same without flows whose clients have fallen silent: nobody could end them.
local function list_left(self)
  local lines = {}
  for _, live in ipairs(core.live(self.core)) do
    if not live.is_silent then lines[#lines + 1] = describe_live(self, live) end
  end
  return lines
end

--- What there still is, and what the app has logged, for failures.
function app:about()
  local history = self.net and "\n" .. self.net:about() or ""
  if self.is_closed then return history end
  local parts = {}
  local log = transcript.log(core.log(self.core))
  if log then parts[1] = log end
  local waiting = {}
  for _, live in ipairs(core.live(self.core)) do
    if live.waits or #live.tasks > 0 then waiting[#waiting + 1] = describe_live(self, live) end
  end
  if #waiting > 0 then
    parts[#parts + 1] = "handlers that wait (app:advance lets time pass)\n" .. table.concat(waiting, "\n")
  end
  return (#parts > 0 and "\n" .. table.concat(parts, "\n") or "") .. history
end

-- Clients can be asked afterwards.
local function keep_answers(self)
  for _, one in ipairs(clients_of(self)) do
    one.client:transcript()
    one.wire:finish()
  end
  self.kept_log, self.kept_counters, self.closed_at = core.log(self.core), core.counters(self.core), core.now(self.core)
end

local function finish(self)
  add_coverage(self)
  self.is_closed = true
  core.close(self.core)
  leftovers.forget(self)
end

local function shut(self)
  keep_answers(self)
  finish(self)
end

--- Ends the app: clients hang up, and the app stops. Handlers that do not end by themselves until timeout.drain fail
--- the test.
function app:close()
  if self.is_closed then return end
  if self.is_stalled then self.net:resume(self) end
  for worker = 0, self.workers - 1 do
    if self.stalled[worker] then self:resume(worker) end
  end
  for _, one in ipairs(clients_of(self)) do
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

--- It dies, in the midst of whatever it does. For perilune.test.net.
---@param is_silent boolean its clients see nothing, and else a reset
function app:die(is_silent)
  keep_answers(self)
  for _, one in ipairs(clients_of(self)) do one.wire:die(is_silent) end
  self.ended_by = "killed"
  finish(self)
end

--- The same script once more, after its end. For perilune.test.net.
function app:open_again()
  leftovers.add(self)
  load_app(self)
end

-- For perilune.test.leftovers.
function app:logged() return self.core and self:log() or {} end

function app:left()
  if self.is_closed then return nil end
  local lines = list_left(self)
  if #lines == 0 then return nil end
  local more = self.net and ", or all of the net's with net:close()" or ""
  local ways = "client:close(), or all of them with app:close()" .. more
  return ("%s was left behind with %d connection%s\n%s\nend them with %s"):format(self.name, #lines,
    #lines == 1 and "" or "s", table.concat(lines, "\n"), ways)
end

function app:dispose()
  if self.is_closed then return end
  self.ended_by = self.net and "test_of_net" or "test"
  finish(self)
end

methods.lock_objects("an app", app)

return M
