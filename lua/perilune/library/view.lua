---@meta

--- A frame's bytes where they were received: what proceed() gets with `view = true`; no string is made. There is one
--- view object, moved from frame to frame: it is good until proceed() returns or waits; after that its methods raise.
--- The methods are fast in compiled code only. `#view` is how many bytes there are, `tostring(view)` the same as
--- string(). A view may be returned or sent: its bytes are copied once, into the output.
---@class perilune.view
---@operator len: integer
local view = {}

--- How many bytes there are.
---@return integer
function view:len() end

--- The byte at i, from 1, which is the default; nil outside.
---@param i? integer
---@return integer?
function view:byte(i) end

--- A string, as string.sub.
---@param i integer
---@param j? integer
---@return string
function view:sub(i, j) end

--- All of it as a string, which may be kept.
---@return string
function view:string() end

--- An unsigned integer of one byte; raises outside, as all of these do.
---@param i integer
---@return integer
function view:u8(i) end

--- A signed one, in two's complement.
---@param i integer
---@return integer
function view:i8(i) end

--- An unsigned integer of two bytes, big-endian.
---@param i integer
---@return integer
function view:u16be(i) end

--- The same, little-endian.
---@param i integer
---@return integer
function view:u16le(i) end

--- A signed integer of two bytes, big-endian.
---@param i integer
---@return integer
function view:i16be(i) end

--- The same, little-endian.
---@param i integer
---@return integer
function view:i16le(i) end

--- An unsigned integer of three bytes, big-endian.
---@param i integer
---@return integer
function view:u24be(i) end

--- The same, little-endian.
---@param i integer
---@return integer
function view:u24le(i) end

--- A signed integer of three bytes, big-endian.
---@param i integer
---@return integer
function view:i24be(i) end

--- The same, little-endian.
---@param i integer
---@return integer
function view:i24le(i) end

--- An unsigned integer of four bytes, big-endian.
---@param i integer
---@return integer
function view:u32be(i) end

--- The same, little-endian.
---@param i integer
---@return integer
function view:u32le(i) end

--- A signed integer of four bytes, big-endian.
---@param i integer
---@return integer
function view:i32be(i) end

--- The same, little-endian.
---@param i integer
---@return integer
function view:i32le(i) end

--- An unsigned integer of eight bytes, big-endian: a number below 2^53, and an uint64_t beyond (`…ULL`).
---@param i integer
---@return integer|ffi.cdata*
function view:u64be(i) end

--- The same, little-endian.
---@param i integer
---@return integer|ffi.cdata*
function view:u64le(i) end

--- A signed integer of eight bytes, big-endian: a number below 2^53 either way, and an int64_t beyond (`…LL`).
---@param i integer
---@return integer|ffi.cdata*
function view:i64be(i) end

--- The same, little-endian.
---@param i integer
---@return integer|ffi.cdata*
function view:i64le(i) end

--- A float of four bytes, big-endian.
---@param i integer
---@return number
function view:f32be(i) end

--- The same, little-endian.
---@param i integer
---@return number
function view:f32le(i) end

--- A double of eight bytes, big-endian.
---@param i integer
---@return number
function view:f64be(i) end

--- The same, little-endian.
---@param i integer
---@return number
function view:f64le(i) end
