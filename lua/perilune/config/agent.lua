--- Checks `agent = …`: a factory function, or a prototype table that leads to `proceed`.
local meant = require "perilune.config.meant"
local printable = require "perilune.printable"
local suggest = require "perilune.suggest"

local M = {}

--- The methods that the core calls.
M.METHODS = {
  "proceed", "opened", "eof", "closed", "timeout", "failed", "oversize",
  "malformed", "writable", "drain", "message", "snapshot", "upgrade",
}

M.MISSING = "no agent: set agent = function(conn) … end, or a table with a proceed method"

local RESERVED = "message" -- nothing calls it yet
local CHAIN_MAX = 8

local is_method = {}
for _, name in ipairs(M.METHODS) do is_method[name] = true end

-- The table that `t` inherits from, when that is one.
local function parent(t)
  local meta = debug.getmetatable(t)
  local index = meta and rawget(meta, "__index")
  return type(index) == "table" and index or nil
end

local function is_inherited(agent, name)
  for _ = 1, CHAIN_MAX do
    if rawget(agent, name) ~= nil then return true end
    agent = parent(agent)
    if not agent then return false end
  end
end

-- The method that was meant: nearly written so, or called so elsewhere.
local function meant_by(key) return meant.method(key) or suggest.suggest(key, M.METHODS) end

-- `"procede" (did you mean "proceed"?)` for every function whose name is nearly a method's.
local function misspelt(agent)
  local found = {}
  for _ = 1, CHAIN_MAX do
    for key, value in next, agent do
      local near = type(value) == "function" and not is_method[key] and meant_by(key)
      if near then found[#found + 1] = printable.quote(key) .. ' (did you mean "' .. near .. '"?)' end
    end
    agent = parent(agent)
    if not agent then break end
  end
  table.sort(found)
  return table.concat(found, ", ")
end

local function check_prototype(agent)
  local ok, proceed = pcall(function() return agent.proceed end)
  if not ok then return nil, "looking up its method proceed failed: " .. printable.value(proceed) end
  if type(proceed) == "function" then return agent end
  if proceed ~= nil then return nil, "its method proceed must be a function, got " .. printable.value(proceed) end
  local hints = misspelt(agent)
  return nil, "no proceed: the table has no function proceed" .. (hints ~= "" and "; it has " .. hints or "")
end

--- Methods that are nearly the core's, and that nobody calls: the core neither. They were meant to be something else.
---@param agent any
---@param is_called fun(name: string, method: function): boolean by the script itself
---@return string[] as '"close" (did you mean "closed"?)'
function M.strays(agent, is_called)
  local found, prototype = {}, agent
  for _ = 1, CHAIN_MAX do
    if type(agent) ~= "table" then break end
    for key, value in next, agent do
      local near = type(value) == "function" and not is_method[key] and meant_by(key)
      local is_free = near and near ~= RESERVED and not is_inherited(prototype, near)
      if type(value) == "function" and key == RESERVED and not is_called(key, value) then
        found[#found + 1] = printable.quote(key) .. " (nothing calls it in this version: frames come to proceed)"
      end
      if is_free and not is_called(key, value) then
        found[#found + 1] = printable.quote(key) .. ' (did you mean "' .. near .. '"?)'
      end
    end
    agent = parent(agent)
  end
  table.sort(found)
  return found
end

--- A usable agent, or nil and what is wrong. May run an __index function of the script, protected.
---@param agent any
---@return function|table|nil
---@return string? message
function M.check(agent)
  if type(agent) == "function" then return agent end
  if type(agent) == "table" then return check_prototype(agent) end
  return nil, "expects a function(conn), or a table with a proceed method, got " .. printable.value(agent)
end

return M
