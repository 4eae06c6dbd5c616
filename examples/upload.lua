-- Reading a body after a header: proceed() is given the line, and takes the bytes that follow from
-- conn:read() in pieces, so that an upload of any size needs the memory of one piece.
--
--   scripts/run examples/upload.lua
--   (echo PUT logo 5; printf hello) | nc -N 127.0.0.1 9000
local PIECE = 64 * 1024

local Upload = {}

-- Adler-32, for something to show.
local function checksum(piece, a, b)
  for i = 1, #piece do
    a = (a + piece:byte(i)) % 65521
    b = (b + a) % 65521
  end
  return a, b
end

function Upload:proceed(line)
  local name, size = line:match("^PUT (%S+) (%d+)$")
  if not name or #size > 12 then return "ERROR expected: PUT name size", "close" end
  local left, a, b = tonumber(size), 1, 0
  while left > 0 do
    local piece, message = self.conn:read({ "fixed", math.min(left, PIECE) }, "30s")
    if not piece then return ("ERROR %s with %d bytes to go"):format(message, left), "close" end
    a, b = checksum(piece, a, b)
    left = left - #piece
  end
  return ("OK %s %s %s"):format(name, size, bit.tohex(b * 65536 + a))
end

-- The client may end its side after the last byte and still read the answer.
function Upload:eof()
  return nil, "close"
end

return {
  listen = "tcp://127.0.0.1:9000", frame = { "line", max = "1k" }, agent = Upload,
  timeout = { read = "1m" }, -- of a begun frame, and so of a begun piece: conn:read gives up before, and says so
}
