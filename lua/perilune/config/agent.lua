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

local OF_NAMES = "message" -- it is called with what is sent to a name
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

local function check_prototype(agent, needed)
  local ok, method = pcall(function() return agent[needed] end)
  if not ok then return nil, ("looking up its method %s failed: %s"):format(needed, printable.value(method)) end
  if type(method) == "function" then return agent end
  if method ~= nil then
    return nil, ("its method %s must be a function, got %s"):format(needed, printable.value(method))
  end
  local hints = misspelt(agent)
  return nil, ("no %s: the table has no function %s"):format(needed, needed) ..
    (hints ~= "" and "; it has " .. hints or "")
end

--- Methods that are nearly the core's, and that nobody calls: the core neither. They were meant to be something else.
---@param agent any
---@param is_called fun(name: string, method: function): boolean by the script itself
---@param is_kind boolean? it has no connection: messages come to it, and no frames
---@return string[] as '"close" (did you mean "closed"?)'
function M.strays(agent, is_called, is_kind)
  local found, prototype = {}, agent
  for _ = 1, CHAIN_MAX do
    if type(agent) ~= "table" then break end
    for key, value in next, agent do
      local near = type(value) == "function" and not is_method[key] and meant_by(key)
      local is_free = near and near ~= OF_NAMES and not (is_kind and near == "proceed")
        and not is_inherited(prototype, near)
      local is_reached = is_kind or key ~= OF_NAMES or type(value) ~= "function" or is_called(key, value)
        or is_called("register", value) or is_called("deliver", value)
      if not is_reached then
        found[#found + 1] = printable.quote(key) .. " (it takes what is sent to a name, and nothing calls"
          .. " perilune.register: frames come to proceed)"
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
---@param needed "proceed"|"message" the method that it must have: of a connection's, of one without a socket
---@return function|table|nil
---@return string? message
function M.check(agent, needed)
  if type(agent) == "function" then return agent end
  if type(agent) == "table" then return check_prototype(agent, needed) end
  local expected = "expects a function(%s), or a table with a %s method, got "
  return nil, expected:format(needed == "message" and "key" or "conn", needed) .. printable.value(agent)
end

return M
