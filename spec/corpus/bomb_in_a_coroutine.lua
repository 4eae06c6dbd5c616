-- expect: memory
local Agent = {}

function Agent:proceed()
  local kept = {}
  local co = coroutine.wrap(function()
    while true do kept[#kept + 1] = { coroutine.running() } end
  end)
  co()
end

return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent, limits = { proceed = "20s" } }
