-- Views: with `view = true` the handler is lent the bytes where they were received; no string is made of
-- them. Worth it for big frames that are looked at or passed on, not kept: the view dies with proceed().
-- Answers each frame with its CRC-32, as eight hex digits.
--
--   scripts/run examples/checksum_view.lua
--   python3 -c '
--   import socket, struct, zlib
--   s = socket.create_connection(("127.0.0.1", 9000))
--   data = bytes(1000000)
--   s.sendall(struct.pack(">I", len(data)) + data)
--   print(s.recv(100)[4:].decode(), "%08x" % zlib.crc32(data))'
local band, bnot, bxor, rshift = bit.band, bit.bnot, bit.bxor, bit.rshift

local POLYNOMIAL = 0xEDB88320

local step = {}
for i = 0, 255 do
  local crc = i
  for _ = 1, 8 do
    crc = band(crc, 1) == 1 and bxor(rshift(crc, 1), POLYNOMIAL) or rshift(crc, 1)
  end
  step[i] = crc
end

local Checksum = {}

function Checksum:proceed(view)
  local crc = -1
  for i = 1, #view do
    crc = bxor(step[band(bxor(crc, view:byte(i)), 255)], rshift(crc, 8))
  end
  return bit.tohex(bnot(crc))
end

return {
  listen = "tcp://127.0.0.1:9000",
  frame = { "u32be", max = "16m", view = true },
  agent = Checksum,
}
