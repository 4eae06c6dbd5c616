-- Binary frames: each has its length in front, four bytes, big-endian. This is the default framing, so
-- `frame` could be left out. A frame over the limit, or an empty one, ends its connection.
--
--   scripts/run examples/u32_echo.lua
--   python3 -c '
--   import socket, struct
--   s = socket.create_connection(("127.0.0.1", 9000))
--   s.sendall(struct.pack(">I", 5) + b"hello")
--   print(s.recv(100))'
local Echo = {}

function Echo:proceed(frame)
  return frame
end

return {
  listen = "tcp://127.0.0.1:9000",
  frame = { "u32be", max = "64k" },
  agent = Echo,
}
