--- `require "ngx.semaphore"`: perilune.semaphore in OpenResty's words.
local perilune = require "perilune"

local M = {}

---@param host { coroutines: perilune.compat.coroutines }
function M.new(host)
  local call = host.coroutines.call
  local methods = {}
  local Semaphore = { __index = methods }

  --- Waits for this many seconds at most; for 0, not at all.
  function methods:wait(seconds)
    if not self.inner:try_acquire() then
      if type(seconds) ~= "number" then error("semaphore:wait expects seconds", 2) end
      if seconds <= 0 or not call(self.inner.acquire, self.inner, seconds) then return nil, "timeout" end
    end
    return true
  end

  function methods:post(n)
    for _ = 1, n or 1 do self.inner:release() end
    return true
  end

  function methods:count() return self.inner:count() end

  local function new(n)
    if n ~= nil and (type(n) ~= "number" or n < 0) then return nil, "the number of permits must be 0 or more" end
    return setmetatable({ inner = perilune.semaphore(n or 0) }, Semaphore)
  end

  return { new = new, version = "perilune" }
end

return M
