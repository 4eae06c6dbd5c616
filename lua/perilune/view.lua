--- Views: a frame's bytes where they were received, without a string.
---
--- A view is lent: it dies when proceed() returns or waits. Handlers ask for it with
--- `frame = { "u32be", view = true }`. The methods check every access; only compiled code is
--- fast with them.
local ffi = require "ffi"

-- The first two layouts are shared with src/agent/agent.h and src/frame/codec.h. The third is what
-- handlers hold: it has no field worth touching, for a cdata's fields cannot be protected.
ffi.cdef [[
struct perilune_lent { const uint8_t *data; uint32_t len; };
struct perilune_frame { const uint8_t *data; uint32_t len; uint32_t end; };
struct perilune_view { uint8_t opaque; };
]]

local M = {}

local lent = ffi.new("struct perilune_lent")
local string_of = ffi.string
local DEAD = "this view is dead: it lives until proceed returns or waits"

local methods = {}

--- How many bytes there are; `#view` says the same.
---@return integer
function methods.len()
  if lent.data == nil then error(DEAD, 2) end
  return tonumber(lent.len)
end

--- The byte at `i` (from 1, default 1), or nothing past the end.
---@return integer?
function methods.byte(_, i)
  if lent.data == nil then error(DEAD, 2) end
  i = i or 1
  if not (i >= 1 and i <= lent.len) then return nil end
  return lent.data[i - 1]
end

--- A string of the bytes from i to j, as string.sub does it.
---@return string
function methods.sub(_, i, j)
  if lent.data == nil then error(DEAD, 2) end
  local len = tonumber(lent.len)
  j = j or -1
  if i < 0 then i = math.max(len + i + 1, 1) elseif i < 1 then i = 1 end
  if j < 0 then j = len + j + 1 elseif j > len then j = len end
  if i > j or i ~= i or j ~= j then return "" end -- NaN is no position
  return string_of(lent.data + (i - 1), j - i + 1)
end

--- All of it as a string, which may be kept.
---@return string
function methods.string()
  if lent.data == nil then error(DEAD, 2) end
  return string_of(lent.data, lent.len)
end

-- Where the n bytes at `i` begin.
local function at(i, n)
  if lent.data == nil then error(DEAD, 3) end
  if not (i >= 1 and i + n - 1 <= lent.len) then
    error(("view: bytes %s to %s are outside of it"):format(tostring(i), tostring(i + n - 1)), 3)
  end
  return lent.data + (i - 1)
end

--- Unsigned integers at byte `i` (from 1).
---@return integer
function methods.u16be(_, i)
  local p = at(i, 2)
  return p[0] * 256 + p[1]
end

---@return integer
function methods.u16le(_, i)
  local p = at(i, 2)
  return p[1] * 256 + p[0]
end

---@return integer
function methods.u32be(_, i)
  local p = at(i, 4)
  return ((p[0] * 256 + p[1]) * 256 + p[2]) * 256 + p[3]
end

---@return integer
function methods.u32le(_, i)
  local p = at(i, 4)
  return ((p[3] * 256 + p[2]) * 256 + p[1]) * 256 + p[0]
end

local view_type = ffi.metatype("struct perilune_view", {
  __index = methods,
  __len = methods.len,
  __tostring = methods.string,
})

--- The one view object of this VM, and what it stands for at the moment.
M.object = ffi.new(view_type)
M.lent = lent

--- Typed access to the core's arrays.
---@param batch lightuserdata the core's array of frames
---@param echoed lightuserdata a byte a frame
function M.core_arrays(batch, echoed)
  return ffi.cast("struct perilune_frame *", batch), ffi.cast("uint8_t *", echoed)
end

return M
