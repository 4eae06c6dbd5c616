--- Misuse of an app or a client says so: a misspelt method, and which one may have been meant; a dot for a colon.
--- Internal.
local failing = require "perilune.test.fail"
local suggest = require "perilune.suggest"

local M = {}

local function names_of(methods)
  local names = {}
  for name, value in pairs(methods) do
    if type(value) == "function" then names[#names + 1] = name end
  end
  table.sort(names)
  return names
end

local COLON = "%s: call it with a colon, as in %s:%s(…)"

--- To be called once all methods are there: of objects, they are then called with a colon, or say so.
---@param what string "a client"
---@param methods table the metatable of the objects, too
function M.lock_objects(what, methods)
  local object = what:match "%a+$"
  for _, name in ipairs(names_of(methods)) do
    local method = methods[name]
    methods[name] = function(self, ...)
      if type(self) ~= "table" or getmetatable(self) ~= methods then
        failing.misuse(COLON:format(name, object, name))
      end
      return method(self, ...)
    end
  end
  M.lock(what, methods)
end

--- To be called once all functions are there. What is near to none of them stays nil.
---@param what string "a client"
---@param methods table
function M.lock(what, methods)
  local names = names_of(methods)
  local absent = {} -- fields that are not set yet are asked for all the time
  setmetatable(methods, { __index = function(_, name)
    if absent[name] then return nil end
    local near = suggest.suggest(name, names)
    if near then failing.misuse(("%s has no '%s': did you mean '%s'?"):format(what, name, near)) end
    absent[name] = true
  end })
end

return M
