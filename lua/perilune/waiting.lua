--- Timers, tasks, channels and semaphores: what of them is Lua. perilune.lua loads it when a script first uses one.
--- Their state is in C (src/agent/task.h, timer.h, sync.h): a call may be ended between any two lines of this file.
local core = require "perilune.core"
local ffi = require "ffi"

local M = {}

-- A name that they do not have is an error: it was misspelled.
local function indexer(name, methods)
  return function(_, key)
    local method = methods[key]
    if method then return method end
    local names = {}
    for known in pairs(methods) do names[#names + 1] = known end
    table.sort(names)
    error(("a %s has no %q%s"):format(name, tostring(key), require("perilune.suggest").hint(key, names)), 2)
  end
end

--- A metatable for objects with these methods.
local function class(name, methods)
  return {
    __index = indexer(name, methods), __metatable = name,
    __newindex = function() error(("a %s cannot be written to"):format(name), 2) end,
    __tostring = function() return name end,
  }
end

-- ---- timers ------------------------------------------------------------------

-- It holds nothing but the number that names it, in as little memory as can be: see src/agent/timer.h. The type has no
-- name, since the file may have to begin anew, after a call that was ended while it was loaded for that.
local timer_type = ffi.typeof "struct { const double opaque; }"

local timer_methods = {}

--- It is not called again.
---@return boolean was it still to be called?
function timer_methods.cancel(timer)
  if not ffi.istype(timer_type, timer) then error("timer:cancel: write it with a colon, as in timer:cancel()", 2) end
  return core.cancel_timer(timer.opaque)
end

local Timer = ffi.metatype(timer_type, {
  __index = indexer("timer", timer_methods), __tostring = function() return "timer" end,
})

M.after, M.every = core.after, core.every

-- ---- tasks -------------------------------------------------------------------

-- What a handle has once its task has ended: see src/agent/task.h.
local STATE, COUNT, FIRST, THREAD, ORIGIN = 1, 2, 3, 4, 5

-- The last fault that somebody has joined, for its report: the stack of the task tells where it was.
local joined = {}

--- What is known of a fault that was a task's before it was that of who has joined it.
---@param err any
---@param serial integer of the call whose fault it is now
---@return thread? where it was raised
---@return string? origin where the task was begun, a line for each task above it
function M.joined_fault(err, serial)
  local is_it, co, origin = joined.by == serial and rawequal(joined.err, err), joined.co, joined.origin
  joined = {}
  if is_it then return co, origin end
end

local function results_of(task)
  local state = rawget(task, STATE)
  if state == "done" then return unpack(task, FIRST, FIRST - 1 + task[COUNT]) end
  if state == "cancelled" then return nil, "cancelled", "ECANCELED" end
  if state ~= "failed" then error("not enough memory to keep what a task returned", 0) end
  local err = rawget(task, FIRST) -- `nil` may have been raised
  joined = { by = core.take_fault(task), err = err, co = task[THREAD], origin = task[ORIGIN] }
  error(err, 0)
end

local task_methods = {}
local Task = class("task", task_methods)

local function check_task(task, method)
  if getmetatable(task) == "task" then return end
  error(("task:%s: write it with a colon, as in task:%s(…)"):format(method, method), 3)
end

--- Waits for its end.
---@param timeout number|string|nil
---@return any ... what it returned, or nil, message, code; raises what it raised
function task_methods.join(task, timeout)
  check_task(task, "join")
  core.check_join(task)
  if not rawget(task, STATE) then
    local ok, message, code = core.wait(task, timeout)
    if not ok then return nil, message, code end
  end
  return results_of(task)
end

--- Ends it: it never goes on from where it waits, and what it has deferred runs.
---@return boolean was it still at work?
function task_methods.cancel(task)
  check_task(task, "cancel")
  return core.cancel_task(task)
end

--- "running", "done", "failed" or "cancelled"
function task_methods.status(task)
  check_task(task, "status")
  return rawget(task, STATE) or core.is_cancelled(task) and "cancelled" or "running"
end

function M.spawn(fn, ...) return core.spawn(nil, fn, ...) end
M.defer = core.defer

-- ---- several at once -----------------------------------------------------------

local AT_ONCE_MAX = 1000

local function check_list(functions, name)
  if type(functions) ~= "table" then error(name .. " expects a list of functions, got " .. type(functions), 3) end
  local n, keys = #functions, 0
  for _ in next, functions do keys = keys + 1 end
  if keys ~= n then error(name .. " expects a list of functions, without holes and names", 3) end
  if n > AT_ONCE_MAX then error(("%s takes at most %d functions, got %d"):format(name, AT_ONCE_MAX, n), 3) end
  for i = 1, n do
    if type(functions[i]) ~= "function" then
      error(("%s expects a list of functions; its item %d is a %s"):format(name, i, type(functions[i])), 3)
    end
  end
  return n
end

local function begin_all(functions, n, group)
  local tasks = {}
  for i = 1, n do tasks[i] = core.spawn(group, functions[i]) end
  return tasks
end

local function dismiss_all(tasks)
  for i = 1, #tasks do core.dismiss_task(tasks[i]) end
end

-- The next that has ended; the group is the list to which C adds them.
local function next_ended(group, taken)
  while not group[taken] do core.wait(group) end
  return group[taken]
end

-- A fault of one is that of who waits for all; those of others that have failed as well are logged.
local function check_ended(task, tasks)
  if task[STATE] ~= "failed" then return end
  local ok, err = pcall(results_of, task)
  dismiss_all(tasks)
  if not ok then error(err, 0) end
end

--- Runs the functions beside each other, and waits for all.
---@return any ... the first result of each, in their order
function M.all(functions)
  local n = check_list(functions, "perilune.all")
  core.check_group("perilune.all", n)
  local group, results = {}, {}
  local tasks = begin_all(functions, n, group)
  for i = 1, n do check_ended(next_ended(group, i), tasks) end
  for i = 1, n do results[i] = (results_of(tasks[i])) end
  return unpack(results, 1, n)
end

--- Runs the functions beside each other until one has a result, and cancels the others.
---@return any ... what it returned; where none has a result, what the last one to end returned
function M.any(functions)
  local n = check_list(functions, "perilune.any")
  core.check_group("perilune.any", n)
  local group, last = {}, nil
  local tasks = begin_all(functions, n, group)
  for i = 1, n do
    last = next_ended(group, i)
    check_ended(last, tasks)
    if last[STATE] == "done" and rawget(last, FIRST) then
      dismiss_all(tasks)
      break
    end
  end
  if last then return results_of(last) end
end

--- Runs a function for that long at most.
---@return any ... what it returned, or nil, "timeout", "ETIMEDOUT"
function M.timeout(duration, fn, ...)
  if type(fn) ~= "function" then
    error("perilune.timeout expects a duration, and then a function, got " .. type(fn), 2)
  end
  core.check_group("perilune.timeout", 1, duration)
  local task = core.spawn(nil, fn, ...)
  local ok, message, code = core.wait(task, duration)
  if ok then return results_of(task) end
  core.dismiss_task(task)
  return nil, message, code
end

-- ---- channels, semaphores --------------------------------------------------------

M.channel = core.channel
M.semaphore = core.semaphore

local semaphore_methods = core.semaphore_methods

local function release(semaphore, ok, ...)
  core.unhold(semaphore)
  if not ok then error((...), 0) end
  return ...
end

--- Calls a function with a permit, which goes back when that is over, however.
---@return any ... what it returned
function semaphore_methods.with(semaphore, fn, ...)
  if getmetatable(semaphore) ~= "semaphore" then
    error("semaphore:with: write it with a colon, as in semaphore:with(…)", 2)
  end
  if type(fn) ~= "function" then error("semaphore:with expects a function, got " .. type(fn), 2) end
  core.hold(semaphore)
  return release(semaphore, pcall(fn, ...))
end

-- ---- the app -----------------------------------------------------------------------

M.app_methods = { after = core.app_after, every = core.app_every, spawn = core.app_spawn }

core.install("timer", function(name) return Timer(name) end)
core.install("task", Task)
core.install("channel", class("channel", core.channel_methods))
core.install("semaphore", class("semaphore", semaphore_methods))

return M
