---@meta

-- Lua 5.3's functions that LuaJIT lacks, in handlers, specifications and `perilune exec`.

--- Makes bytes of values, as the format says.
---@param format string
---@param ... string|number|ffi.cdata*
---@return string bytes
function string.pack(format, ...) end

--- Makes values of bytes. Raises where these are too few, as for a frame that is cut short.
---@param format string
---@param bytes string
---@param position? integer default: 1
---@return any ... the values, and then the position behind them
function string.unpack(format, bytes, position) end

--- How many bytes pack() makes, where that does not depend on the values.
---@param format string
---@return integer
function string.packsize(format) end
