-- expect: proceed_timeout
local Agent = {}

function Agent:proceed()
  while true do
    coroutine.resume(coroutine.create(function() coroutine.yield() end))
  end
end

return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent }
