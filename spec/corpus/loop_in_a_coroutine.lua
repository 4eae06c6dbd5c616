-- expect: proceed_timeout
local Agent = {}

function Agent:proceed()
  local co = coroutine.create(function()
    while true do end
  end)
  while true do
    coroutine.resume(co)
    co = coroutine.create(function()
      while true do end
    end)
  end
end

return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent }
