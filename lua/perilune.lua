--- The module that handlers require.
---
---     local perilune = require "perilune"
---     perilune.sleep("250ms")
local M = {}

local core = package.loaded["perilune.core"]

--- While a script is only being checked there is no server behind these.
local function outside(name)
  local why = core and core.is_job and "not in a job, which has no agent" or "only inside a running server"
  return function() error(("perilune.%s: %s"):format(name, why), 2) end
end

local function pick(name) return core and core[name] or outside(name) end

local require = require
local waiting -- lua/perilune/waiting.lua: who uses none of it does not pay for it

local function lazily(name)
  if not (core and core.spawn) then return outside(name) end
  return function(...)
    waiting = waiting or require "perilune.waiting"
    return waiting[name](...)
  end
end

--- Suspends the running handler; frames that arrive meanwhile wait, other connections go on.
--- A disconnect cancels the wait, and the handler with it.
---@param duration number|string seconds, or "250ms", "5m"
---@type fun(duration: number|string)
M.sleep = pick "sleep"

--- The worker's monotonic clock. It stands still while a callback computes.
---@type fun(): number seconds
M.now = pick "now"

--- What a file may make at its top level: while it is only being checked, something that is used later, if ever.
local function made_lazily(name)
  if core and core.spawn then return lazily(name) end
  local made = core and core.is_job and "%s: a %s is for handlers, and this is a job, which has no agent"
    or "%s: this %s was made where no server runs, in a specification perhaps: make it in the app's script"
  local function index(_, key)
    return function() error(made:format(name .. ":" .. tostring(key), name), 2) end
  end
  local object = { __index = index, __metatable = name }
  return function() return setmetatable({}, object) end
end

--- The time of day. In a server it is read as perilune.now() is.
---@type fun(): number seconds since 1970
M.time = pick "time"

--- What the process has counted since it began, all workers together.
---@type fun(): table<string, number|table>
M.stats = pick "stats"

--- Calls a function later, as a callback of the agent's: never beside another, and not after its end.
---@type fun(duration: number|string, fn: function, ...: any): table timer, with cancel()
M.after = lazily "after"

--- The same again and again, in step with the first time.
---@type fun(duration: number|string, fn: function, ...: any): table timer, with cancel()
M.every = lazily "every"

--- Runs a function beside the agent's callbacks, whenever they wait or have returned; it ends with the agent.
---@type fun(fn: function, ...: any): table task, with join([timeout]), cancel(), status()
M.spawn = lazily "spawn"

--- In a task: a function that runs when the task has ended, however.
---@type fun(fn: function)
M.defer = lazily "defer"

--- Runs functions beside each other and waits for all: the first result of each.
---@type fun(functions: function[]): any
M.all = lazily "all"

--- Runs functions beside each other and waits for the first result, then cancels the others.
---@type fun(functions: function[]): any
M.any = lazily "any"

--- Runs a function for that long at most: its results, or nil, "timeout", "ETIMEDOUT".
---@type fun(duration: number|string, fn: function, ...: any): any
M.timeout = lazily "timeout"

--- A channel: values from call to call, in order; so many wait without a sender that waits.
---@type fun(capacity: integer?): table
M.channel = made_lazily "channel"

--- A semaphore with so many permits.
---@type fun(permits: integer?): table
M.semaphore = made_lazily "semaphore"

local connecting -- lua/perilune/connecting.lua: the same

local function when_connecting(name)
  if core and core.is_job then return outside(name) end
  if not (core and core.connect) then
    return function()
      error(("perilune.%s: only inside a running server, in a handler; what belongs to no connection does so in "
        .. "setup(app), in a task of app:spawn(…)"):format(name), 2)
    end
  end
  return function(...)
    connecting = connecting or require "perilune.connecting"
    return connecting[name](...)
  end
end

--- Connects to an address, and waits until that is done. What comes back is as the `conn` of an agent, and ends with
--- the agent that has made it.
---@type fun(address: string, options: table?): table?, string?, string? conn, or nil, message, code
M.connect = when_connecting "connect"

--- A pool of connections to an address, of this worker.
---@type fun(address: string, options: table?): table with request(data), with(fn, …), status(), close()
function M.pool(...)
  if core and core.connect then require "perilune.waiting" end
  return require("perilune.pooling").pool(...)
end

--- A dictionary that all workers share, and generations of the script: one of those that `shared` declares.
---@type fun(name: string): table with get, set, add, replace, incr, update, delete, expire, ttl, keys, clear, status
function M.shared(...) return require("perilune.dictionary").shared(...) end

--- Gives the agent a name, by which others can send to it: its method message takes what is sent. It has that until it
--- ends, or unregisters it.
---@type fun(name: string, options: { replace: boolean? }?): boolean?, string?, string? true, or nil, message, code
M.register = pick "register"

--- Gives a name up.
---@type fun(name: string): boolean had it that name?
M.unregister = pick "unregister"

--- Sends to whoever has the name, on whatever worker: its message(topic, data, from) is called.
---@type fun(name: string, data: any): boolean?, string?, string? true, or nil, message, code
M.send = pick "send"

local unpack_reply -- of lua/perilune/plain.lua

local function reply_of(is_packed, reply, code)
  if is_packed == nil then return nil, reply, code end
  if not is_packed then return reply end
  unpack_reply = unpack_reply or require("perilune.plain").unpack
  return unpack_reply(reply)
end

--- Sends, and waits for what its message() returns.
---@type fun(name: string, data: any, timeout: number|string|nil): any, string?, string? reply, or nil, message, code
M.call = core and core.call and function(...) return reply_of(core.call(...)) end or outside "call"

--- The addresses of a name.
---@type fun(name: string, timeout: number|string|nil): string[]?, string?, string? addresses, or nil, message, code
M.resolve = when_connecting "resolve"

local jobs -- lua/perilune/jobs.lua: the same

--- Calls a function of one of the app's modules in a thread for jobs, and waits for its results.
---@type fun(options: table?, module: string, name: string, ...: any): any results; or nil, message, code
M.job = core and core.job and function(...)
  jobs = jobs or require "perilune.jobs"
  return jobs.job(...)
end or outside "job"

--- Writes a log line that names the connection it is about.
---@type fun(level: "debug"|"info"|"warn"|"error", message: string, fields: table<string, string|number|boolean>?)
M.log = pick "log"

-- What protocols need at hand: made when it is first asked for, since many scripts never do.
local AT_HAND = {
  crc = "perilune.crc_core", crypto = "perilune.crypto", encoding = "perilune.encoding_core",
  hub = "perilune.hub", json = "perilune.json_core",
}
local FUNCTIONS_AT_HAND = { deflate = "perilune.deflate_core", inflate = "perilune.deflate_core" }
local at_hand = { late = { AT_HAND, FUNCTIONS_AT_HAND } }
-- at_hand.protect, set by perilune.app, makes a library read-only for scripts.

function at_hand.__index(_, name)
  if FUNCTIONS_AT_HAND[name] then
    M[name] = require(FUNCTIONS_AT_HAND[name])[name]
  elseif AT_HAND[name] then
    local library = require(AT_HAND[name])
    M[name] = at_hand.protect and at_hand.protect("perilune." .. name, library) or library
  end
  return rawget(M, name)
end

return setmetatable(M, at_hand)
