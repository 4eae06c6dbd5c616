-- expect: proceed_timeout
local Agent = {}

function Agent:proceed()
  local handler = coroutine.wrap(function()
    while true do coroutine.yield() end
  end)
  while true do
    xpcall(function()
      while true do end
    end, handler)
  end
end

return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent }
