-- expect: error
local Agent = {}

function Agent:proceed()
  error(("x"):rep(1e7))
end

return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent, limits = { proceed = "2s" } }
