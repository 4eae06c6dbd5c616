--- Views: a frame's bytes where they were received, without a string.
---
--- A view is lent: it dies when proceed() returns or waits. Handlers ask for it with
--- `frame = { "u32be", view = true }`. The methods check every access; only compiled code is
--- fast with them. The only ffi.cdef of our Lua is here.
local ffi = require "ffi"
local int64 = require "perilune.int64"

-- The first two layouts are shared with src/agent/agent.h and src/frame/codec.h. The third is what
-- handlers hold: it has no field worth touching, for a cdata's fields cannot be protected.
ffi.cdef [[
struct perilune_lent { const uint8_t *data; uint32_t len; };
struct perilune_frame { const uint8_t *data; uint32_t len; uint32_t end; };
struct perilune_view { uint8_t opaque; };
]]

local M = {}

local band = bit.band

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

-- Numbers of so many bytes: `a` is the most significant one.
local function two(a, b) return a * 256 + b end
local function three(a, b, c) return (a * 256 + b) * 256 + c end
local function four(a, b, c, d) return ((a * 256 + b) * 256 + c) * 256 + d end

-- The same bits with a sign; `half` is the first number that has none.
local function signed(n, half)
  if n >= half then return n - 2 * half end
  return n
end

-- The words of eight bytes. A double holds each integer below 2^53; what is beyond is as string.unpack() gives it.
local function unsigned_of(high, low)
  if high < 0x200000 then return high * 2 ^ 32 + low end
  return int64.unsigned(high, low)
end

local function signed_of(high, low)
  high = signed(high, 2 ^ 31)
  if high < 0x200000 and (high > -0x200000 or high == -0x200000 and low > 0) then return high * 2 ^ 32 + low end
  return int64.signed(high, low)
end

local scratch = ffi.new "union { uint32_t words[2]; float four; double eight; }"
local LOW, HIGH = ffi.abi "le" and 0 or 1, ffi.abi "le" and 1 or 0
local NAN, HUGE = 0 / 0, math.huge

-- What is no number, or without end, is never read as a double: LuaJIT takes the bits of a strange NaN for a value of
-- another type, such as a pointer of the sender's choice.
local function special(is_nan, is_negative)
  if is_nan then return NAN end
  return is_negative and -HUGE or HUGE
end

local function single_of(word)
  if band(word, 0x7f800000) == 0x7f800000 then return special(band(word, 0x7fffff) ~= 0, word >= 2 ^ 31) end
  scratch.words[0] = word
  return scratch.four
end

local function double_of(high, low)
  if band(high, 0x7ff00000) == 0x7ff00000 then
    return special(band(high, 0xfffff) ~= 0 or low ~= 0, high >= 2 ^ 31)
  end
  scratch.words[LOW], scratch.words[HIGH] = low, high
  return scratch.eight
end

-- Each at byte `i` (from 1). They raise where it is not all there.

function methods.u8(_, i) return at(i, 1)[0] end

function methods.i8(_, i) return signed(at(i, 1)[0], 0x80) end

function methods.u16be(_, i)
  local p = at(i, 2)
  return two(p[0], p[1])
end

function methods.u16le(_, i)
  local p = at(i, 2)
  return two(p[1], p[0])
end

function methods.i16be(_, i)
  local p = at(i, 2)
  return signed(two(p[0], p[1]), 0x8000)
end

function methods.i16le(_, i)
  local p = at(i, 2)
  return signed(two(p[1], p[0]), 0x8000)
end

function methods.u24be(_, i)
  local p = at(i, 3)
  return three(p[0], p[1], p[2])
end

function methods.u24le(_, i)
  local p = at(i, 3)
  return three(p[2], p[1], p[0])
end

function methods.i24be(_, i)
  local p = at(i, 3)
  return signed(three(p[0], p[1], p[2]), 0x800000)
end

function methods.i24le(_, i)
  local p = at(i, 3)
  return signed(three(p[2], p[1], p[0]), 0x800000)
end

function methods.u32be(_, i)
  local p = at(i, 4)
  return four(p[0], p[1], p[2], p[3])
end

function methods.u32le(_, i)
  local p = at(i, 4)
  return four(p[3], p[2], p[1], p[0])
end

function methods.i32be(_, i)
  local p = at(i, 4)
  return signed(four(p[0], p[1], p[2], p[3]), 2 ^ 31)
end

function methods.i32le(_, i)
  local p = at(i, 4)
  return signed(four(p[3], p[2], p[1], p[0]), 2 ^ 31)
end

function methods.u64be(_, i)
  local p = at(i, 8)
  return unsigned_of(four(p[0], p[1], p[2], p[3]), four(p[4], p[5], p[6], p[7]))
end

function methods.u64le(_, i)
  local p = at(i, 8)
  return unsigned_of(four(p[7], p[6], p[5], p[4]), four(p[3], p[2], p[1], p[0]))
end

function methods.i64be(_, i)
  local p = at(i, 8)
  return signed_of(four(p[0], p[1], p[2], p[3]), four(p[4], p[5], p[6], p[7]))
end

function methods.i64le(_, i)
  local p = at(i, 8)
  return signed_of(four(p[7], p[6], p[5], p[4]), four(p[3], p[2], p[1], p[0]))
end

function methods.f32be(_, i)
  local p = at(i, 4)
  return single_of(four(p[0], p[1], p[2], p[3]))
end

function methods.f32le(_, i)
  local p = at(i, 4)
  return single_of(four(p[3], p[2], p[1], p[0]))
end

function methods.f64be(_, i)
  local p = at(i, 8)
  return double_of(four(p[0], p[1], p[2], p[3]), four(p[4], p[5], p[6], p[7]))
end

function methods.f64le(_, i)
  local p = at(i, 8)
  return double_of(four(p[7], p[6], p[5], p[4]), four(p[3], p[2], p[1], p[0]))
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
