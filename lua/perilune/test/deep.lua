--- Compares values by what is in them. Internal.
local M = {}

local function same_fields(a, b)
  for key, value in pairs(a) do
    if not M.equal(value, b[key]) then return false end
  end
  for key in pairs(b) do
    if a[key] == nil then return false end
  end
  return true
end

---@return boolean
function M.equal(a, b)
  if rawequal(a, b) then return true end
  if type(a) ~= "table" or type(b) ~= "table" then return a == b end
  return same_fields(a, b)
end

return M
