--- Coroutines of drivers, in which may be waited.
---
--- The core can suspend only the coroutine that a call runs in. So one of a driver that is about to wait hands the
--- function to whoever has resumed it, and is resumed again with its results.
local M = {}

-- What stands before such a function where a coroutine yields.
local WAIT = {}

local function finish(ok, ...)
  if not ok then error((...), 0) end
  return ...
end

---@class perilune.compat.coroutines
---@field library table what drivers have as `coroutine`
---@field call fun(fn: function, ...: any): any calls a function that waits

---@param safe table the script's coroutine library
---@return perilune.compat.coroutines
function M.new(safe)
  local own = setmetatable({}, { __mode = "k" })
  local self = { library = setmetatable({}, { __index = safe }) }
  local library, running, yield, resume = self.library, coroutine.running, coroutine.yield, safe.resume

  function self.call(fn, ...)
    local co = running()
    if co and own[co] then return finish(yield(WAIT, fn, ...)) end
    return fn(...)
  end

  local go_on
  local function resumed(co, ok, mark, ...)
    if ok and rawequal(mark, WAIT) then return go_on(co, ...) end
    return ok, mark, ...
  end

  function go_on(co, fn, ...) return resumed(co, resume(co, pcall(self.call, fn, ...))) end

  function library.create(fn)
    local co = safe.create(fn)
    own[co] = true
    return co
  end

  function library.resume(co, ...)
    if not own[co] then return resume(co, ...) end
    return resumed(co, resume(co, ...))
  end

  function library.wrap(fn)
    local co = library.create(fn)
    return function(...) return finish(library.resume(co, ...)) end
  end

  return self
end

return M
