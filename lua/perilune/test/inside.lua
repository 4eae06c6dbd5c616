--- What `perilune test` adds to the VM of an app in memory, before the script is loaded: it makes callbacks fail on
--- purpose, or take their time, and passes values in and out as bytes. Internal.
local runtime = require "perilune.runtime"
local spend = require("perilune.test.spending").spend
local buffer = require "string.buffer"

local M = {}

local registry = debug.getregistry()

local armed = {}                                   -- callback → true: some call of it is to fail, here or elsewhere
local takes = {}                                   -- callback → seconds that each call of it takes
local instances = setmetatable({}, { __mode = "k" }) -- agents that there are → which of their callbacks count

-- Calls are counted in C, in src/workbench/faults.c: the app may have other VMs.
local function is_due(callback) return armed[callback] and registry["perilune.is_due"](callback) end

-- The agent's own method, or nil: what it inherits is left as it is.
local function arm(agent, callback)
  local counts, method = instances[agent], agent[callback]
  if counts[callback] or type(method) ~= "function" then return end
  counts[callback] = true
  rawset(agent, callback, function(...)
    if takes[callback] then spend(takes[callback]) end
    if is_due(callback) then error(("injected by app:fail(%q)"):format(callback), 0) end
    return method(...)
  end)
end

--- A call of this callback is to raise, which is counted elsewhere.
---@param callback string
function M.fail(callback)
  armed[callback] = true
  for agent in pairs(instances) do arm(agent, callback) end
end

--- Each call of this callback, whichever agent's it is, takes so long on the app's clock.
---@param callback string
---@param seconds number
function M.take(callback, seconds)
  takes[callback] = seconds
  for agent in pairs(instances) do arm(agent, callback) end
end

-- Agents are met where the core is told to keep them: opened() comes after that.
local function watch(anchor)
  return function(agent)
    if type(agent) == "table" then
      instances[agent] = {}
      for _, callbacks in ipairs { armed, takes } do
        for callback in pairs(callbacks) do arm(agent, callback) end
      end
    end
    return anchor(agent)
  end
end

for _, name in ipairs { "opener", "upgrader" } do
  local make = runtime[name]
  runtime[name] = function(agent, anchor, ...) return make(agent, watch(anchor), ...) end
end

local seed_numbers = math.randomseed -- the sandbox has another

--- What math.random() draws from now on.
---@param seed integer
function M.seed(seed) seed_numbers(seed) end

--- A value that a codec in Lua has made, for the specification.
---@return string
function M.pack(value) return buffer.encode(value) end

--- What a codec in Lua makes of a value of the specification's.
---@param encode fun(value: any): string
---@param packed string
---@return string
function M.encode(encode, packed)
  local bytes = encode(buffer.decode(packed))
  if type(bytes) ~= "string" then error("the codec's encode returned a " .. type(bytes) .. ", not a string", 0) end
  return bytes
end

return M
