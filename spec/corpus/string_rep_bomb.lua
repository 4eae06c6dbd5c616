-- expect: memory|error
local Agent = {}

function Agent:proceed()
  return ("x"):rep(1e9)
end

return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent, limits = { proceed = "20s" } }
