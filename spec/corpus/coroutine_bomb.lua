-- expect: memory
local Agent = {}

function Agent:proceed()
  local kept = {}
  while true do
    local co = coroutine.create(function() coroutine.yield() end)
    coroutine.resume(co)
    kept[#kept + 1] = co
  end
end

return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent, limits = { proceed = "20s" } }
