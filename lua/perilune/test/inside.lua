--- What `perilune test` adds to the VM of an app in memory, before the script is loaded: it makes callbacks fail on
--- purpose, or take their time, and passes values in and out as bytes. Internal.
local runtime = require "perilune.runtime"
local spend = require("perilune.test.spending").spend
local buffer = require "string.buffer"

local M = {}

local armed = {}                                   -- callback → calls until it fails
local takes = {}                                   -- callback → seconds that each call of it takes
local instances = setmetatable({}, { __mode = "k" }) -- agents that there are → which of their callbacks count

local function fail(callback)
  armed[callback] = nil
  error(("injected by app:fail(%q)"):format(callback), 0)
end

-- The agent's own method, or nil: what it inherits is left as it is.
local function arm(agent, callback)
  local counts, method = instances[agent], agent[callback]
  if counts[callback] or type(method) ~= "function" then return end
  counts[callback] = true
  rawset(agent, callback, function(...)
    if takes[callback] then spend(takes[callback]) end
    local left = armed[callback]
    if left == 1 then fail(callback) end
    if left then armed[callback] = left - 1 end
    return method(...)
  end)
end

--- The n-th call of this callback from now on, whichever agent's it is, raises.
---@param callback string
---@param n integer
function M.fail(callback, n)
  armed[callback] = n
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
  runtime[name] = function(agent, anchor) return make(agent, watch(anchor)) end
end

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
