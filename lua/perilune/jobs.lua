--- Jobs: what of perilune.job() is Lua. perilune.lua loads it when a script first gives one.
local core = require "perilune.core"
local plain = require "perilune.plain"
local printable = require "perilune.printable"
local suggest = require "perilune.suggest"
local units = require "perilune.units"

local M = {}

-- What core.job() returns: which of the results are packed, or true: what follows is for the caller to raise; or nil,
-- message and code, where the time was over.
local function finish(kinds, ...)
  if kinds == false then return ... end
  if kinds == nil then return nil, ... end
  if kinds == true then error((...), 2) end
  return plain.open(kinds, ...)
end

-- Arguments that are no plain strings, numbers or booleans.
local function pack(value, most) return plain.pack(value, most, "perilune.job", "given to a job", 3) end

local OPTIONS = { "lane", "timeout" }

local function lane_of(name)
  local lanes = core.job_lanes()
  for i, one in ipairs(lanes) do
    if one == name then return i - 1 end
  end
  error(("perilune.job: there is no lane %s%s: in the script's settings, jobs = { lanes = { … } }"):format(
    printable.value(name), suggest.hint(name, lanes)), 4)
end

local function timeout_of(value)
  local ms, message = units.duration(value)
  if not ms then error("perilune.job: timeout: " .. message, 4) end
  if ms == 0 then error("perilune.job: timeout: a job has one: expects a duration above 0", 4) end
  return ms
end

local function read_options(options)
  local lane, ms = 0, false
  for key, value in next, options do
    if key == "lane" then
      lane = lane_of(value)
    elseif key == "timeout" then
      ms = timeout_of(value)
    else
      error(("perilune.job: unknown option %s%s"):format(printable.key(key), suggest.hint(key, OPTIONS)), 3)
    end
  end
  return lane, ms
end

local function with_options(options, ...)
  local lane, ms = read_options(options)
  return finish(core.job(lane, ms, pack, ...))
end

--- Calls a function of a module of the app in a thread for jobs, and waits for its results.
---@param options table? { lane, timeout }
---@return any ... its results; or nil, message, code
function M.job(options, ...)
  if type(options) == "table" then return with_options(options, ...) end
  return finish(core.job(0, false, pack, options, ...))
end

return M
