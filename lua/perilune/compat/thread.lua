--- `ngx.thread`: tasks of the agent, or of the app, in OpenResty's words.
local perilune = require "perilune"

local M = {}

local function pack(...) return { n = select("#", ...), ... } end

---@param host { coroutines: perilune.compat.coroutines, log_error: fun(message: string) }
function M.new(host)
  local call = host.coroutines.call
  local Thread = { __metatable = "ngx.thread", __tostring = function() return "thread" end }
  local threads = setmetatable({}, { __mode = "k" })
  local library = {}

  local function ended(thread, results)
    thread.results = results
    local waiting = thread.waiting
    thread.waiting = {}
    for semaphore in pairs(waiting) do semaphore:release() end
  end

  local function run(thread, fn, ...)
    local results = pack(pcall(fn, ...))
    if not results[1] then host.log_error("lua user thread aborted: " .. tostring(results[2])) end
    ended(thread, results)
  end

  --- Begins when the caller waits or returns.
  function library.spawn(fn, ...)
    if type(fn) ~= "function" then error("ngx.thread.spawn expects a function, got " .. type(fn), 2) end
    local thread = setmetatable({ waiting = {} }, Thread)
    threads[thread] = true
    thread.task = perilune.spawn(run, thread, fn, ...)
    return thread
  end

  local function check(thread, name)
    if threads[thread] then return end
    error(("ngx.thread.%s expects what ngx.thread.spawn has returned, got a %s"):format(name, type(thread)), 3)
  end

  -- The first of them that has ended, and whose results nobody had.
  local function find_ended(list)
    local is_left = false
    for i = 1, list.n do
      local thread = list[i]
      if not thread.is_reaped then
        is_left = true
        if thread.results then return thread end
      end
    end
    return nil, is_left
  end

  local function wait(list)
    local found, is_left = find_ended(list)
    if found or not is_left then return found end
    local semaphore = perilune.semaphore(0)
    for i = 1, list.n do list[i].waiting[semaphore] = true end
    semaphore:acquire()
    for i = 1, list.n do list[i].waiting[semaphore] = nil end
    return (find_ended(list))
  end

  --- Waits for the first of them that ends.
  function library.wait(...)
    local list = pack(...)
    for i = 1, list.n do check(list[i], "wait") end
    local thread = call(wait, list)
    if not thread then return nil, "already waited or killed" end
    thread.is_reaped = true
    return unpack(thread.results, 1, thread.results.n)
  end

  function library.kill(thread)
    check(thread, "kill")
    if thread.results or thread.is_reaped then return nil, "already terminated" end
    thread.task:cancel()
    thread.is_reaped = true
    ended(thread, nil)
    return 1
  end

  return library
end

return M
