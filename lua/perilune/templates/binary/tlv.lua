-- Fields of a tag (one byte), a length (two bytes, big-endian) and a value.
local M = {}

local HEADER = 3

--- Walks the fields of a message: for tag, from, to in tlv.fields(view) do … end. `from` and `to` are where the value
--- is; an empty one has to = from - 1. Raises where a field does not end within the message.
---@param view perilune.view
---@return fun(): integer?, integer?, integer?
function M.fields(view)
  local at, size = 1, #view
  return function()
    if at > size then return nil end
    if at + HEADER - 1 > size then error { "a field is cut" } end
    local tag, length = view:byte(at), view:u16be(at + 1)
    local from = at + HEADER
    at = from + length
    if at - 1 > size then error { "a field is cut" } end
    return tag, from, at - 1
  end
end

---@param n integer 0 to 2^32 - 1
---@return string
function M.u32(n)
  return string.char(math.floor(n / 2 ^ 24) % 256, math.floor(n / 2 ^ 16) % 256, math.floor(n / 2 ^ 8) % 256, n % 256)
end

---@param tag integer
---@param value string at most 65535 bytes
---@return string
function M.field(tag, value)
  return string.char(tag, math.floor(#value / 256), #value % 256) .. value
end

return M
