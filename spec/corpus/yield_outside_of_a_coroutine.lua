-- expect: error
local Agent = {}

function Agent:proceed()
  coroutine.yield()
end

return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent }
