-- What ../hash_service.lua gives as jobs. Nothing in here knows of connections.
local bit = require "bit"
local perilune = require "perilune"

local crypto = perilune.crypto

local M = {}

-- Eight numbers of 32 bits, and what unpack() says behind them.
local function words_of(digest) return { string.unpack(">I4I4I4I4I4I4I4I4", digest) } end

--- The first block of PBKDF2 with HMAC-SHA-256 (RFC 8018): 32 bytes, as hexadecimal digits.
function M.derive(password, salt, rounds)
  local block = crypto.hmac("sha256", password, salt .. "\0\0\0\1")
  local key = words_of(block)
  for _ = 2, rounds do
    block = crypto.hmac("sha256", password, block)
    local words = words_of(block)
    for i = 1, 8 do key[i] = bit.bxor(key[i], words[i]) end
  end
  for i = 1, 8 do key[i] = bit.tohex(key[i]) end
  return table.concat(key, "", 1, 8)
end

return M
