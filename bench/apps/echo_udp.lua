-- The same echo over UDP: a datagram is a frame.
local Echo = {}

function Echo:proceed(frame)
  return frame
end

return {
  listen = "udp://127.0.0.1:0",
  frame = "datagram",
  agent = Echo,
}
