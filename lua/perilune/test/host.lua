--- `require "perilune"` for what runs in the workbench: waiting is for the real time. Internal.
local task = require "perilune.workbench.task" -- in C: src/workbench/task.c
local printable = require "perilune.printable"
local units = require "perilune.units"

local M = {}

local started, clock = nil, nil

-- Busted's clock is C, and there whenever specifications run.
local function monotonic()
  clock = clock or require("system").monotime
  return clock()
end

local FOR_EVER_MS = 1e12

--- Waits until `done()` gives something, for so long at most; looks whenever something happened.
---@param ms number? default: without end
---@param done fun(): any
---@return any
function M.wait_until(ms, done)
  local until_s = monotonic() + (ms or FOR_EVER_MS) / 1000
  while true do
    local value = done()
    if value then return value end
    local left_ms = (until_s - monotonic()) * 1000
    if left_ms <= 0 then return nil end
    task.wait(math.ceil(left_ms))
  end
end

function M.sleep(duration)
  local ms, message = units.duration(duration)
  if not ms then error("perilune.sleep: " .. message, 2) end
  M.wait_until(ms, function() end)
end

function M.now()
  started = started or monotonic()
  return monotonic() - started
end

local LEVELS = { debug = true, info = true, warn = true, error = true }

function M.log(level, message)
  if not LEVELS[level] then error("perilune.log: the level is debug, info, warn or error", 2) end
  io.stderr:write(level, "  ", printable.escape(tostring(message)), "\n")
end

return M
