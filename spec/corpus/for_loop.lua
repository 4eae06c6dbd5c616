-- expect: proceed_timeout
local Agent = {}

function Agent:proceed()
  local n = 0
  for i = 1, math.huge do n = n + i % 3 end
  return tostring(n)
end

return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent }
