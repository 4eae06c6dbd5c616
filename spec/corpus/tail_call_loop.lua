-- expect: proceed_timeout
local Agent = {}

function Agent:proceed()
  local function again(n) return again(n + 1) end
  return again(1)
end

return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent }
