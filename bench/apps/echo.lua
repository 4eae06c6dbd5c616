-- The program of the benchmark: every frame comes back. 20,000 leaves room for the cell with 10,000 idle connections.
local Echo = {}

function Echo:proceed(frame)
  return frame
end

return {
  listen = "tcp://127.0.0.1:0",
  frame = "u32be",
  limits = { connections = 20000 },
  agent = Echo,
}
