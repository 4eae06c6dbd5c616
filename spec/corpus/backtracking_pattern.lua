-- expect: error|proceed_timeout
local Agent = {}

function Agent:proceed()
  return tostring(("x"):rep(1e5):find(".-.-.-b"))
end

return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent }
