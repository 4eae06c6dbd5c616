--- Pools of connections out: perilune.pool(). perilune.lua loads it when a script first makes one.
---
--- A pool is of one worker and one generation of the script. Its connections belong to the app while nobody uses them
--- (src/agent/request.h). Where they are used by one at a time, a semaphore has a permit for each; what a call has
--- taken goes back with the call, however that ends. Where they are shared (`pipeline`), a request is sent behind those
--- that are under way, and the replies come in that order.
local connecting = require "perilune.connecting"
local core = package.loaded["perilune.core"] -- not where a script is only being checked
local printable = require "perilune.printable"
local suggest = require "perilune.suggest"
local units = require "perilune.units"

local M = {}

-- ---- options -----------------------------------------------------------------

local whole = units.whole

local function duration(value)
  local ms, message = units.duration(value)
  if not ms then return nil, message end
  return ms / 1000
end

-- What a pool takes, beside the options of perilune.connect(): how it is read, and what it is by default.
local OPTIONS = {
  size = { whole(1, 10000), 8 },        -- connections at most, of a worker
  total = { whole(0, 1e6), 0 },         -- the same of the process; 0: any number
  queue = { whole(0, 1e6), 1000 },      -- calls that may wait for one
  wait = { duration, 5 },               -- how long they do, in seconds
  idle = { duration, 30 },              -- how long a connection may idle; 0: any time
  lifetime = { duration, 0 },           -- how old one may become; 0: any age
  pipeline = { units.flag, false },
  depth = { whole(1, 1e6), 1000 },      -- replies that a shared connection may owe
}

M.OPTIONS = OPTIONS -- for the specification of the types

local NAMES = {}
for name in pairs(OPTIONS) do NAMES[#NAMES + 1] = name end

local function split_options(options)
  local own, others = {}, {}
  if options ~= nil and type(options) ~= "table" then
    error("perilune.pool: the options are a table, got " .. printable.value(options), 0)
  end
  for name, value in next, options or {} do
    local option = OPTIONS[name]
    if option then
      local read, message = option[1](value)
      if read == nil then error(("perilune.pool: %s: %s"):format(name, message), 0) end
      own[name] = read
    else
      others[name] = value
    end
  end
  for name, option in pairs(OPTIONS) do
    if own[name] == nil then own[name] = option[2] end
  end
  return own, others
end

-- Each worker has its share of the process's, and the first ones what is left over: nobody has to ask another.
local function share_of(total)
  local worker, workers = core.place()
  local share = math.floor(total / workers)
  if share == 0 then
    error(("perilune.pool: total: %d for %d workers: each needs a connection at least"):format(total, workers), 0)
  end
  return worker < total % workers and share + 1 or share
end

-- ---- connections that fail -----------------------------------------------------

local BACK_OFF, BACK_OFF_MOST = 0.05, 1

-- Nobody tries again for a while that doubles, and differs from pool to pool: together they would be a flood.
local function note_failure(pool, message, code)
  pool.counts.failures = pool.counts.failures + 1
  if not pool.back_off then -- once, until it is back
    core.log("warn", "a pool cannot connect", { address = pool.spec.address, error = message, code = code })
  end
  pool.back_off = math.min(BACK_OFF_MOST, pool.back_off and pool.back_off * 2 or BACK_OFF)
  pool.down_until = core.now() + pool.back_off * (0.5 + math.random() / 2)
  pool.message, pool.code = message, code
end

local function note_success(pool)
  pool.counts.connects = pool.counts.connects + 1
  if pool.back_off then core.log("info", "a pool connects again", { address = pool.spec.address }) end
  pool.back_off, pool.down_until = nil, nil
end

local function is_down(pool) return pool.down_until and core.now() < pool.down_until end

local function fail_as_before(pool) return nil, pool.message or "there is no connection", pool.code or "ECANCELED" end

-- ---- those that idle -------------------------------------------------------------

-- A call may be ended between any two lines. So a connection is in the list before it belongs to the app, and leaves it
-- after it belongs to a call: what is in the list and belongs to neither is refused by core.acquire, and dropped.

local function remove_entry(list, entry)
  for i = #list, 1, -1 do
    if list[i] == entry then return table.remove(list, i) end
  end
end

local function is_over(pool, entry, now)
  local owed, quiet = core.owed(entry.conn)
  if not owed then return true end
  local idle = pool.pipeline and quiet or now - entry.since
  return (pool.idle > 0 and idle >= pool.idle) or (pool.lifetime > 0 and now - entry.made >= pool.lifetime)
end

-- Seconds for which a shared connection may owe replies and say nothing; 0: any time.
local function patience_of(pool) return pool.pipeline and pool.spec.timeout.read / 1000 or 0 end

local function is_silent(pool, entry)
  local owed, _, silence_ms = core.owed(entry.conn)
  local patience_ms = pool.spec.timeout.read
  return owed and owed > 0 and patience_ms > 0 and silence_ms >= patience_ms
end

local sweep

-- Of a generation that is no longer the newest there are no timers: those who use its pools sweep.
local function plan_sweep(pool)
  if pool.sweeps then return end
  local least = math.huge
  for _, time in ipairs { pool.idle, pool.lifetime, patience_of(pool) } do
    if time > 0 then least = math.min(least, time) end
  end
  if least == math.huge then return end
  pool.sweeps = pcall(core.app_after, {}, math.max(least / 2, 0.001), sweep, pool)
  if not pool.sweeps and core.now() - (pool.swept or 0) >= least / 2 then sweep(pool) end
end

function sweep(pool)
  local now = core.now()
  pool.sweeps, pool.swept = false, now
  for i = #pool.free, 1, -1 do
    local entry = pool.free[i]
    local owed = core.owed(entry.conn)
    local ends = not owed or (owed == 0 and is_over(pool, entry, now))
    if ends or (owed > 0 and is_silent(pool, entry)) then -- who asked it may have gone, or have waited for less
      entry.conn:close()
      remove_entry(pool.free, entry)
    end
  end
  if #pool.free > 0 then plan_sweep(pool) end
end

-- ---- one at a time ---------------------------------------------------------------

-- The one that was used last: the others come to their idle time.
local function take_free(pool)
  local now = core.now()
  while #pool.free > 0 do
    local entry = pool.free[#pool.free]
    local is_ours = not is_over(pool, entry, now) and core.acquire(entry.conn)
    if not is_ours then entry.conn:close() end
    remove_entry(pool.free, entry)
    if is_ours then return entry end
  end
end

-- `most`: seconds that it may take to connect, where that is less than timeout.connect.
local function take(pool, most)
  local entry = take_free(pool)
  if entry then
    entry.is_reused = true
    return entry
  end
  if is_down(pool) then return fail_as_before(pool) end
  local conn, message, code = core.connect(pool.key, pool.spec, true, most)
  if not conn then
    if not (most and code == "ETIMEDOUT") then note_failure(pool, message, code) end -- else it was hardly asked
    return nil, message, code
  end
  note_success(pool)
  return { conn = conn, made = core.now() }
end

-- Between replies it may serve others; anything else would be given to who has not asked for it.
local function give_back(pool, entry, ok)
  entry.since, entry.is_reused = core.now(), nil
  table.insert(pool.free, entry)
  if ok and not pool.is_closed and core.release(entry) then return plan_sweep(pool) end
  entry.conn:close()
  remove_entry(pool.free, entry)
end

local function refuse(pool)
  pool.counts.refused = pool.counts.refused + 1
  return nil, ("%d calls wait for this pool already (queue)"):format(pool.queue), "EBUSY"
end

local function hold(pool, what, most)
  if pool.is_closed then return nil, "the pool is closed", "ECANCELED" end
  if pool.slots:count() == 0 and core.waiting(pool.slots) >= pool.queue then return refuse(pool) end
  return core.hold(pool.slots, most and (pool.wait == 0 or most < pool.wait) and most or pool.wait, what)
end

local function returned(pool, entry, ok, ...)
  give_back(pool, entry, ok)
  if not ok then error((...), 0) end
  return ...
end

local function lend(pool, fn, ...)
  local entry, message, code = take(pool)
  if not entry then return nil, message, code end
  pool.counts.uses = pool.counts.uses + 1
  return returned(pool, entry, pcall(fn, entry.conn, ...))
end

local function unheld(pool, ok, ...)
  core.unhold(pool.slots)
  if not ok then error((...), 0) end
  return ...
end

local function run_with(pool, fn, ...)
  local held, why, how = hold(pool, "pool:with")
  if not held then return nil, why, how end
  return unheld(pool, pcall(lend, pool, fn, ...))
end

-- What a connection may say that had ended, unnoticed, before it was used again.
local STALE = { EOF = true, ECONNRESET = true, EPIPE = true, ECANCELED = true }

-- The reply; or nil, message, code, and whether the connection had been used before.
local function ask_one(pool, data, timeout)
  local entry, why, how = take(pool)
  if not entry then return nil, why, how end
  pool.counts.uses = pool.counts.uses + 1
  local conn, was_reused = entry.conn, entry.is_reused
  local reply, message, code
  local ok, sent = pcall(conn.send, conn, data)
  if ok and sent == nil then message, code = "closed", "EPIPE" end
  if ok and sent ~= nil then reply, message, code = conn:read(nil, timeout) end
  give_back(pool, entry, reply ~= nil)
  if not ok then error(sent, 0) end
  return reply, message, code, was_reused
end

local function request_alone(pool, data, options, is_second)
  local held, why, how = hold(pool, "pool:request")
  if not held then return nil, why, how end
  local reply, message, code, was_reused = unheld(pool, pcall(ask_one, pool, data, options.timeout))
  if reply == nil and was_reused and options.idempotent and not is_second and STALE[code] then
    pool.counts.retries = pool.counts.retries + 1
    return request_alone(pool, data, options, true)
  end
  return reply, message, code
end

-- ---- by lua/perilune/http/ ---------------------------------------------------------

local function borrowed(pool, ok, entry, ...)
  if ok and entry then
    pool.counts.uses = pool.counts.uses + 1
    return entry
  end
  core.unhold(pool.slots)
  if not ok then error(entry, 0) end
  return nil, ...
end

--- Takes a connection that nobody else has until M.give(), or until the call is over: an entry, whose `conn` it is;
--- `is_reused`: it has idled before.
---@param pool table
---@param what string who asks, for messages
---@param most number? seconds that waiting may take, and then connecting
---@return table? entry or nil, message, code
function M.borrow(pool, what, most)
  local self = rawget(pool, 1)
  local held, message, code = hold(self, what, most)
  if not held then return nil, message, code end
  return borrowed(self, pcall(take, self, most and most < self.spec.timeout.connect / 1000 and most or nil))
end

--- Gives it back. `keeps`: another may have it.
function M.give(pool, entry, keeps)
  local self = rawget(pool, 1)
  give_back(self, entry, keeps)
  core.unhold(self.slots)
end

--- Does it have no connection, and does nobody wait for one?
function M.is_unused(pool)
  local self = rawget(pool, 1)
  return #self.free == 0 and self.slots:count() == self.size and core.waiting(self.slots) == 0
end

--- What was asked is asked once more, by who has borrowed connections.
function M.count_retry(pool)
  local counts = rawget(pool, 1).counts
  counts.retries = counts.retries + 1
end

--- Does nobody use it, and nobody wait for it?
function M.is_idle(pool)
  local self = rawget(pool, 1)
  return self.slots:count() == self.size and core.waiting(self.slots) == 0
end

-- ---- shared ------------------------------------------------------------------------

local SPEAKS_FIRST = "it has said something before it was asked: that is nothing for a pool that shares connections"

local function connect_shared(pool)
  local ok, conn, message, code = pcall(core.connect, pool.key, pool.spec, true)
  if not ok then return note_failure(pool, tostring(conn), "EINVAL") end
  if not conn then return note_failure(pool, message, code) end
  local now = core.now()
  local entry = { conn = conn, made = now }
  table.insert(pool.free, entry)
  if not pool.is_closed and core.share(entry) then
    note_success(pool)
    return plan_sweep(pool)
  end
  entry.conn:close()
  remove_entry(pool.free, entry)
  note_failure(pool, SPEAKS_FIRST, "EPROTO")
end

local function connector_of(pool)
  local connector = pool.connector
  return connector and connector:status() == "running" and connector or nil
end

-- It is the app's: who asks for it may end meanwhile, and others wait for it as well.
local function begin_connecting(pool)
  if connector_of(pool) or is_down(pool) or #pool.free >= pool.size then return end
  pool.connector = core.app_spawn({}, connect_shared, pool)
end

-- Who owes least, and how much.
local function choose(pool)
  local best, least = nil, math.huge
  for i = #pool.free, 1, -1 do
    local entry = pool.free[i]
    local owed = core.owed(entry.conn)
    if not owed then
      table.remove(pool.free, i)
    elseif owed < least then
      best, least = entry, owed
    end
  end
  return best, least
end

local function wait_for_connection(pool)
  local connector = connector_of(pool)
  if not connector then return fail_as_before(pool) end
  if core.waiting(connector) >= pool.queue then return refuse(pool) end
  local ok, message, code = core.wait(connector, pool.wait, "pool:request")
  if not ok then return nil, message, code end
  local entry = choose(pool)
  if entry then return entry end
  return fail_as_before(pool)
end

-- One that has said nothing for as long as a reply may take does not answer: those who wait for it are told, and the
-- next ones get another. A caller that is less patient than that says nothing about the connection.
local function end_if_silent(pool, entry)
  if is_silent(pool, entry) then
    entry.conn:close()
    remove_entry(pool.free, entry)
  end
end

local function send_shared(entry, data, options)
  if options.timeout == nil then return core.request(entry.conn, data) end
  return core.request(entry.conn, data, options.timeout)
end

local function request_shared(pool, data, options, is_second)
  if pool.is_closed then return nil, "the pool is closed", "ECANCELED" end
  local entry, owed = choose(pool)
  if not entry or owed > 0 then begin_connecting(pool) end
  if not entry then
    local message, code
    entry, message, code = wait_for_connection(pool)
    if not entry then return nil, message, code end
  elseif owed >= pool.depth then
    pool.counts.refused = pool.counts.refused + 1
    return nil, ("each connection owes %d replies already (depth)"):format(pool.depth), "EBUSY"
  end
  pool.counts.uses = pool.counts.uses + 1
  local reply, message, code = send_shared(entry, data, options)
  if reply ~= nil then return reply end
  if code == "ETIMEDOUT" then end_if_silent(pool, entry) end
  if options.idempotent and not is_second and STALE[code] then
    pool.counts.retries = pool.counts.retries + 1
    return request_shared(pool, data, options, true)
  end
  return nil, message, code
end

-- ---- replies that are the handler's own ------------------------------------------

local CHOSEN_FOR = 32 -- replies more that a connection may owe before one is chosen anew

-- forward_bytes() of src/agent/forward.h, without its first argument. A call of it is compiled with the handler that
-- makes it: a function of Lua's C API would end the compiled code at each frame.
local function forwarder()
  local ffi = require "ffi"
  local address, agents = core.forwarder()
  local fn = ffi.cast("bool (*)(void *, double, uint32_t, uint32_t, const char *, size_t)", address)
  agents = ffi.cast("void *", agents)
  return function(id, first, depth, data) return fn(agents, id, first, depth, data, #data) end
end

local forward_bytes

-- What came of a request that was waited for, as a handler returns it.
local function reply_or(otherwise, reply)
  if reply ~= nil then return reply end
  if otherwise ~= nil then return otherwise end
  return nil, "close"
end

-- Chooses a connection for this request and the next ones; waits for one where there is none. Where a reply cannot be
-- passed on, the call waits for it as well.
local function forward_anew(pool, data, options)
  if pool.is_closed then return reply_or(options.otherwise) end
  local conn = pool.chosen_conn
  if conn and core.forward(conn, pool.chosen_depth, data, options.timeout, options.otherwise) then
    pool.counts.uses = pool.counts.uses + 1
    return true
  end
  local entry, owed = choose(pool)
  pool.chosen, pool.chosen_conn = nil, nil
  if not entry or owed > 0 then begin_connecting(pool) end
  if not entry then entry, owed = wait_for_connection(pool), 0 end
  if not entry then return reply_or(options.otherwise) end
  pool.chosen_conn = entry.conn
  pool.chosen, pool.chosen_depth = entry.conn.id, math.min(pool.depth, owed + CHOSEN_FOR)
  if core.forward(entry.conn, pool.depth, data, options.timeout, options.otherwise) then
    pool.counts.uses = pool.counts.uses + 1
    return true
  end
  return reply_or(options.otherwise, request_shared(pool, data, options))
end

-- ---- pools --------------------------------------------------------------------------

local pool_methods = {}

local function indexer(_, key)
  local method = pool_methods[key]
  if method then return method end
  local names = {}
  for name in pairs(pool_methods) do names[#names + 1] = name end
  table.sort(names)
  error(("a pool has no %q%s"):format(tostring(key), suggest.hint(key, names)), 2)
end

local Pool = {
  __index = indexer, __metatable = "pool",
  __newindex = function() error("a pool cannot be written to", 2) end,
  __tostring = function(pool) return ("pool of %s"):format(rawget(pool, 1).spec.address) end,
}

local function check(pool, method)
  if getmetatable(pool) ~= "pool" then
    error(("pool:%s: write it with a colon, as in pool:%s(…)"):format(method, method), 3)
  end
  return rawget(pool, 1)
end

local function time_out(value)
  if units.duration(value) then return true end
  return false, "a duration such as \"500ms\""
end

local function flag(value) return type(value) == "boolean", "true or false" end

local REPLIES = { string = true, number = true, table = true }
local function reply(value) return REPLIES[type(value)], "a reply" end

-- Each tells whether a value is one, and what would be.
local REQUEST_OPTIONS = { timeout = time_out, idempotent = flag }
local FORWARD_OPTIONS = { timeout = time_out, otherwise = reply }
local NO_OPTIONS = {}

-- A codec in Lua makes a frame of any value, but for nothing.
local function check_data(pool, method, data)
  local kind = type(data)
  if kind == "string" or kind == "number" or (pool.spec.frame.kind == "lua" and data ~= nil) then return end
  error(("pool:%s expects the frame that is to be sent, got %s"):format(method, printable.value(data)), 3)
end

local function check_options(method, options, known)
  if options == nil then return NO_OPTIONS end
  if type(options) ~= "table" then
    error(("pool:%s: the options are a table, got %s"):format(method, type(options)), 3)
  end
  for name, value in next, options do
    local is_one, expected = true, nil
    if known[name] then is_one, expected = known[name](value) end
    if not is_one then
      error(("pool:%s: %s: expects %s, got %s"):format(method, name, expected, printable.value(value)), 3)
    end
    if not known[name] then
      local names = {}
      for one in pairs(known) do names[#names + 1] = one end
      table.sort(names)
      local those = table.concat(names, " and ")
      error(("pool:%s: unknown option %q (there are %s)"):format(method, tostring(name), those), 3)
    end
  end
  return options
end

--- Sends a frame, and waits for the next one that comes: the reply. `idempotent`: where a connection that had idled
--- turns out to have ended, it is sent once more.
---@param data any
---@param options { timeout: number|string|nil, idempotent: boolean? }?
---@return any reply or nil, message, code
function pool_methods.request(pool, data, options)
  local self = check(pool, "request")
  check_data(self, "request", data)
  local checked = check_options("request", options, REQUEST_OPTIONS)
  if self.pipeline then return request_shared(self, data, checked) end
  return request_alone(self, data, checked)
end

--- In a handler's return: sends a frame, and the reply is the handler's own. As return pool:request(frame), without a
--- call that waits. `otherwise`: the reply if none comes; without it the client's connection ends.
---@param data any
---@param options { timeout: number|string|nil, otherwise: any }?
---@return any reply what the handler is to return
---@return string? action
function pool_methods.forward(pool, data, options)
  local self = check(pool, "forward")
  local chosen = self.chosen
  local may_be_bytes = chosen and options == nil and type(data) == "string"
  if may_be_bytes and forward_bytes(chosen, self.chosen_depth, self.depth, data) then
    self.counts.uses = self.counts.uses + 1
    return true
  end
  if not self.pipeline then
    error("pool:forward: connections of this pool are used by one at a time: pipeline = true, or pool:request", 2)
  end
  check_data(self, "forward", data)
  return forward_anew(self, data, check_options("forward", options, FORWARD_OPTIONS))
end

--- Calls a function with a connection that nobody else has meanwhile.
---@param fn fun(conn: table, ...: any): any
---@return any ... what it returned; or nil, message, code: there was no connection
function pool_methods.with(pool, fn, ...)
  local self = check(pool, "with")
  if type(fn) ~= "function" then error("pool:with expects a function, got " .. type(fn), 2) end
  if self.pipeline then error("pool:with: this pool shares its connections (pipeline = true): use pool:request", 2) end
  return run_with(self, fn, ...)
end

--- What there is, and what has happened.
function pool_methods.status(pool)
  local self = check(pool, "status")
  local owed, open = 0, 0
  for _, entry in ipairs(self.free) do
    local its = core.owed(entry.conn)
    open, owed = open + (its and 1 or 0), owed + (its or 0)
  end
  local used = self.pipeline and 0 or self.size - self.slots:count()
  local status = {
    address = self.spec.address, size = self.size, idle = open, used = used, owed = owed,
    waiting = core.waiting(self.slots) + (connector_of(self) and core.waiting(self.connector) or 0),
    is_down = is_down(self) and true or false, error = self.message,
  }
  for name, count in pairs(self.counts) do status[name] = count end
  return status
end

--- Its connections end, those that are used when they come back. It has none any more.
function pool_methods.close(pool)
  local self = check(pool, "close")
  self.is_closed = true
  for _, entry in ipairs(self.free) do entry.conn:close() end
  self.free, self.chosen, self.chosen_conn = {}, nil, nil
end

-- What a file may make at its top level while it is only being checked: something that is used later, if ever.
local Absent = {
  __index = function(_, key)
    error(("pool:%s: only a running handler can; what belongs to no connection does so in setup(app), in a task of "
      .. "app:spawn(…) (in a specification: in the app's script)"):format(tostring(key)), 2)
  end,
  __metatable = "pool",
}

--- A pool of connections to an address.
---@param text string an address
---@param options table? those of perilune.connect(), and size, queue, wait, idle, lifetime, pipeline, depth
function M.pool(text, options)
  local ok, own, others = pcall(split_options, options)
  if not ok then error(own, 2) end
  local fine, key, spec = pcall(connecting.specify, "perilune.pool", text, others, NAMES)
  if not fine then error(key, 2) end
  if spec.datagrams then
    error("perilune.pool: udp:// has no connections that a pool could keep, and replies come as they like: use "
      .. "perilune.connect, and tell replies apart by what is in them", 2)
  end
  if spec.websocket then
    error("perilune.pool: messages of a WebSocket come as they like, and a pool could not tell replies apart: use "
      .. "perilune.connect", 2)
  end
  if spec.limits.slow_consumer == "drop" then
    error('perilune.pool: limits.slow_consumer: a request that is dropped has no reply: "pause" or "close"', 2)
  end
  if spec.agent then error("perilune.pool: agent: connections of a pool have no agent of their own", 2) end
  if not (core and core.connect) then return setmetatable({}, Absent) end
  if own.pipeline then forward_bytes = forward_bytes or forwarder() end
  if own.total > 0 then
    local has_share, share = pcall(share_of, own.total)
    if not has_share then error(share, 2) end
    own.size = math.min(own.size, share)
  end
  own.key, own.spec, own.free = key, spec, {}
  own.slots = core.semaphore(own.size)
  own.counts = { uses = 0, connects = 0, failures = 0, retries = 0, refused = 0 }
  return setmetatable({ own }, Pool)
end

return M
