--- A Lua pattern, as something that frames are compared with. Internal.
local M = {}

---@class perilune.test.pattern
---@field text string

local pattern = {}
pattern.__index = pattern

function pattern:__tostring() return "pattern " .. ("%q"):format(self.text) end

---@param text string
---@return perilune.test.pattern
function M.new(text)
  if type(text) ~= "string" then error("perilune.pattern expects a Lua pattern, got a " .. type(text), 2) end
  string.find("", text) -- raises where it is none
  return setmetatable({ text = text }, pattern)
end

function M.is(value) return getmetatable(value) == pattern end

return M
