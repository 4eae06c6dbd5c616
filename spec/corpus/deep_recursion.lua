-- expect: error
local Agent = {}

function Agent:proceed()
  local function deep(n) return 1 + deep(n + 1) end
  return tostring(deep(1))
end

return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent }
