--- Integers that a double does not hold: LuaJIT's int64_t and uint64_t, made of halves and taken apart. For
--- src/bind/pack.c and views. Internal.
---
--- Scripts can write them, too (`1LL`, `1ULL`), so they open no door.
local ffi = require "ffi"

local M = {}

local int64, uint64 = ffi.typeof "int64_t", ffi.typeof "uint64_t"
local band, rshift = bit.band, bit.rshift

---@param high integer -2^31 to 2^31 - 1
---@param low integer 0 to 2^32 - 1
function M.signed(high, low) return int64(high) * 0x100000000LL + int64(low) end

---@param high integer 0 to 2^32 - 1
---@param low integer 0 to 2^32 - 1
function M.unsigned(high, low) return uint64(high) * 0x100000000ULL + uint64(low) end

--- Nothing for what is neither.
---@return integer? high 0 to 2^32 - 1
---@return integer? low
---@return boolean? is_signed
function M.split(value)
  local is_signed = ffi.istype(int64, value)
  if not is_signed and not ffi.istype(uint64, value) then return nil end
  return tonumber(band(rshift(value, 32), 0xffffffffULL)), tonumber(band(value, 0xffffffffULL)), is_signed
end

return M
