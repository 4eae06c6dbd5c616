---@meta

--- How bytes become frames.
---@alias perilune.framing perilune.framing_name|perilune.framing_table|perilune.codec

---@alias perilune.framing_name
---| "u8" # what follows a length of one byte
---| "u16be" # … of two bytes, big-endian
---| "u16le" # … of two bytes, little-endian
---| "u24be" # … of three bytes, big-endian
---| "u32be" # … of four bytes, big-endian: the default
---| "u32le" # … of four bytes, little-endian
---| "u64be" # … of eight bytes, big-endian
---| "varint" # … of a base-128 number, as Protocol Buffers have it
---| "line" # up to "\n"; a "\r" before it is dropped
---| "netstring" # 5:hello,
---| "raw" # whatever has arrived
---| "datagram" # a datagram, of udp:// alone

--- A name at [1], its parameter at [2] where it has one, and options: { "line", max = "4k" }.
---@class perilune.framing_table
---@field [1] perilune.framing_name|"delimiter"|"fixed"|"length"
---@field [2]? string|integer of "delimiter": 1 to 32 bytes; of "fixed": how many bytes
---@field max? perilune.size largest frame; default: limits.frame. Not for "fixed"
---@field empty? "error"|"deliver"|"ignore" a frame of no bytes
---@field offset? integer lengths: bytes before the length
---@field adjust? integer lengths: added to the length's value
---@field bytes? 1|2|3|4|8|"varint" of "length"
---@field endian? "big"|"little" of "length"
---@field view? boolean the agent gets a view instead of a string

--- Gives frame, next [, meta], where `next` is the position after the frame; nil: more bytes are needed; nil, nil,
--- need: so many of them, counted from `position`; nil, next: bytes to skip; false, why: this is not the protocol.
---@alias perilune.decode fun(bytes: string, position: integer): any, any, any

--- A framing in Lua. Neither function may wait.
---@class perilune.codec
---@field decode perilune.decode
---@field encode fun(reply: any): string
---@field max? perilune.size
