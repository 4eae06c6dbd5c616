---@meta

-- Types of perilune.encoding: see perilune.lua.

--- Bytes as text, and back. What decodes is strict: where the text is not what an encoder writes it returns nil and a
--- message that names the byte.
---@class perilune.encoding
local encoding = {}

--- Base64 as in RFC 4648.
---@param bytes string
---@param padded? boolean default: true
---@return string text
function encoding.encode_base64(bytes, padded) end

--- Padding may be missing, as a whole.
---@param text string
---@return string? bytes nil: the text is at fault
---@return string? message "misplaced padding at byte 5"
function encoding.decode_base64(text) end

--- Base64 with `-` and `_`, for URLs, names of files and tokens.
---@param bytes string
---@param padded? boolean default: false
---@return string text
function encoding.encode_base64url(bytes, padded) end

--- Padding may be missing, as a whole.
---@param text string
---@return string? bytes nil: the text is at fault
---@return string? message
function encoding.decode_base64url(text) end

--- Two hexadecimal digits for each byte, in small letters.
---@param bytes string
---@return string text
function encoding.encode_hex(bytes) end

--- Digits in small letters or capitals.
---@param text string
---@return string? bytes nil: the text is at fault
---@return string? message
function encoding.decode_hex(text) end

--- `%20` and so on for all bytes but letters, digits and `-._~`: for a part of a URL.
---@param bytes string
---@return string text
function encoding.encode_url(bytes) end

--- All other bytes stay as they are, `+` too.
---@param text string
---@return string? bytes nil: the text is at fault
---@return string? message
function encoding.decode_url(text) end
