-- expect: proceed_timeout
local Agent = {}

function Agent:proceed()
  local next_number = coroutine.wrap(function()
    while true do coroutine.yield(1) end
  end)
  while true do next_number() end
end

return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent }
