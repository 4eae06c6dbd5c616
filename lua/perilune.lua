--- The module that handlers require.
---
---     local perilune = require "perilune"
---     perilune.sleep("250ms")
local M = {}

local core = package.loaded["perilune.core"]

--- While a script is only being checked there is no server behind these.
local function outside(name)
  return function() error("perilune." .. name .. ": only inside a running server", 2) end
end

local function pick(name) return core and core[name] or outside(name) end

--- Suspends the running handler; frames that arrive meanwhile wait, other connections go on.
--- A disconnect cancels the wait, and the handler with it.
---@param duration number|string seconds, or "250ms", "5m"
---@type fun(duration: number|string)
M.sleep = pick "sleep"

--- The worker's monotonic clock. It stands still while a callback computes.
---@type fun(): number seconds
M.now = pick "now"

--- Writes a log line that names the connection it is about.
---@type fun(level: "debug"|"info"|"warn"|"error", message: string, fields: table<string, string|number|boolean>?)
M.log = pick "log"

return M
