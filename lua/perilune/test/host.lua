--- `require "perilune"` for what runs in the workbench: waiting is for the real time. Internal.
local task = require "perilune.workbench.task" -- in C: src/workbench/task.c
local logging = require "perilune.logging" -- in C: src/bind/logging.c
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

function M.time() return require("system").gettime() end

function M.log(...)
  logging.check(...)
  local level, message, fields = ...
  local parts, names = { level, printable.escape(tostring(message)) }, {}
  for name in next, fields or {} do names[#names + 1] = name end
  table.sort(names)
  for _, name in ipairs(names) do
    parts[#parts + 1] = name .. "=" .. printable.escape(tostring(fields[name]))
  end
  io.stderr:write(table.concat(parts, "  "), "\n")
end

return M
