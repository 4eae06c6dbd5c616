--- A text that comes in pieces. Internal. Small ones are joined, so that a drip does not become a long list.
local M = {}

local SMALL = 256 -- pieces that are joined into a larger one

function M.new() return { small = {} } end

---@param pieces table
---@param data string
function M.add(pieces, data)
  local small = pieces.small
  small[#small + 1] = data
  if #small == SMALL then pieces[#pieces + 1], pieces.small = table.concat(small), {} end
end

--- All of it. Nothing is added any more.
---@param pieces table
---@return string
function M.joined(pieces)
  pieces[#pieces + 1] = table.concat(pieces.small)
  return #pieces == 1 and pieces[1] or table.concat(pieces)
end

return M
