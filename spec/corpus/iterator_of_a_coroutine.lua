-- expect: proceed_timeout
local Agent = {}

function Agent:proceed()
  for _ in coroutine.wrap(function()
    while true do coroutine.yield(1) end
  end) do end
end

return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent }
