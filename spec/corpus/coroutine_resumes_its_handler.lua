-- expect: error
local Agent = {}

function Agent:proceed()
  local handler = coroutine.running()
  assert(coroutine.resume(coroutine.create(function() assert(coroutine.resume(handler)) end)))
end

return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent }
