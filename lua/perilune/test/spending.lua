--- `require "perilune.test"` for what runs in an app in memory: handlers say how long they take. Internal.
local units = require "perilune.units"

local M = {}

local registry = debug.getregistry()

--- Lets the app's clock go on, as a handler does that computes for so long.
---@param time number|string seconds, or "250ms", "5m"
function M.spend(time)
  local ms, message = units.duration(time)
  if not ms then error("spend: " .. message, 2) end
  local spend = registry["perilune.spend"] -- C: src/workbench/clock.c; it comes when the script has been loaded
  if not spend then error("spend: only while a callback of an app in memory runs", 2) end
  spend(ms)
end

return setmetatable(M, {
  __index = function(_, name)
    error(("perilune.test.%s: an app in memory has nothing of perilune.test but spend()"):format(tostring(name)), 2)
  end,
})
