--- PROXY headers as they are on the wire, for specifications.
local bit = require "bit"

local M = {}

local SIGNATURE = "\r\n\r\n\0\r\nQUIT\n"

local function u16(n) return string.char(math.floor(n / 256), n % 256) end

-- CRC-32C, bit by bit.
local function crc(bytes)
  local value = bit.bnot(0)
  for i = 1, #bytes do
    value = bit.bxor(value, bytes:byte(i))
    for _ = 1, 8 do
      value = bit.bxor(bit.rshift(value, 1), bit.band(value, 1) == 1 and bit.tobit(0x82f63b78) or 0)
    end
  end
  value = bit.bnot(value)
  return u16(bit.rshift(value, 16)) .. u16(bit.band(value, 0xffff))
end

--- A field of version 2.
function M.field(kind, value) return string.char(kind) .. u16(#value) .. value end

--- A header of version 2.
---@param command integer 0x20: LOCAL, 0x21: PROXY
---@param family integer
---@param body string addresses and fields
---@return string
function M.v2(command, family, body) return SIGNATURE .. string.char(command, family) .. u16(#body) .. body end

-- 203.0.113.7:5060 for 192.0.2.1:9000, and their like.
local IPV4 = string.char(203, 0, 113, 7, 192, 0, 2, 1) .. u16(5060) .. u16(9000)
local IPV6 = "\32\1\13\184" .. ("\0"):rep(11) .. "\7" .. ("\0"):rep(15) .. "\1" .. u16(5060) .. u16(9000)

local function sealed()
  local blank = M.v2(0x21, 0x11, IPV4 .. M.field(4, "pad") .. M.field(3, "\0\0\0\0"))
  return blank:sub(1, -5) .. crc(blank)
end

M.IPV4, M.IPV6 = IPV4, IPV6

--- Headers by what they are, and whom they name; "": nobody.
---@type table<string, { bytes: string, client: string }>
M.GOOD = {
  ["v1, IPv4"] = { bytes = "PROXY TCP4 203.0.113.7 192.0.2.1 5060 9000\r\n", client = "203.0.113.7:5060" },
  ["v1, IPv6"] = { bytes = "PROXY TCP6 2001:db8::7 ::1 5060 9000\r\n", client = "[2001:db8::7]:5060" },
  ["v1, unknown"] = { bytes = "PROXY UNKNOWN\r\n", client = "" },
  ["v1, unknown, with more"] = { bytes = "PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", client = "" },
  ["v2, IPv4"] = { bytes = M.v2(0x21, 0x11, IPV4), client = "203.0.113.7:5060" },
  ["v2, a datagram's"] = { bytes = M.v2(0x21, 0x12, IPV4), client = "203.0.113.7:5060" },
  ["v2, IPv6, with fields"] = {
    bytes = M.v2(0x21, 0x21, IPV6 .. M.field(1, "h2") .. M.field(0xee, "unknown") .. M.field(4, "")),
    client = "[2001:db8::7]:5060",
  },
  ["v2, with a checksum"] = { bytes = sealed(), client = "203.0.113.7:5060" },
  ["v2, a Unix socket's"] = { bytes = M.v2(0x21, 0x31, "/a.sock" .. ("\0"):rep(209)), client = "unix" },
  ["v2, unspecified"] = { bytes = M.v2(0x21, 0x00, ""), client = "" },
  ["v2, local"] = { bytes = M.v2(0x20, 0x00, ""), client = "" },
  ["v2, local, with addresses and fields"] = {
    bytes = M.v2(0x20, 0x11, IPV4 .. M.field(4, "pad")), client = "",
  },
  ["v2, as long as it may be"] = {
    bytes = M.v2(0x21, 0x11, IPV4 .. M.field(4, ("x"):rep(4096 - 31))), client = "203.0.113.7:5060",
  },
}

--- Headers that are none, and what the log says of them.
---@type table<string, { bytes: string, error: string }>
M.BAD = {
  ["another protocol"] = { bytes = "GET / HTTP/1.1\r\n", error = "no PROXY header" },
  ["a line without CR"] = { bytes = "PROXY UNKNOWN\n", error = "CR LF" },
  ["a line that is too long"] = { bytes = "PROXY UNKNOWN " .. ("x"):rep(100), error = "at most 107 bytes" },
  ["a line of no family"] = { bytes = "PROXY TCP5 1.1.1.1 2.2.2.2 1 2\r\n", error = "neither TCP4 nor" },
  ["a line with a wrong port"] = { bytes = "PROXY TCP4 1.1.1.1 2.2.2.2 1 65536\r\n", error = "two IPv4 addresses" },
  ["version 3"] = { bytes = M.v2(0x31, 0x11, IPV4), error = "neither 1 nor 2" },
  ["no command"] = { bytes = M.v2(0x22, 0x11, IPV4), error = "neither LOCAL nor PROXY" },
  ["no family"] = { bytes = M.v2(0x21, 0x41, IPV4), error = "a family" },
  ["too few addresses"] = { bytes = M.v2(0x21, 0x21, IPV4), error = "too short" },
  ["a field that is too long"] = { bytes = M.v2(0x21, 0x11, IPV4 .. "\4\0\5pad"), error = "last field" },
  ["a wrong checksum"] = { bytes = M.v2(0x21, 0x11, IPV4 .. M.field(3, "none")), error = "checksum" },
  ["a longer one than is taken"] = { bytes = SIGNATURE .. "\x21\x11\xff\xff", error = "at most 4096 bytes" },
}

return M
