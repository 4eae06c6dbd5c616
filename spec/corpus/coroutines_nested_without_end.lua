-- expect: error
local Agent = {}

function Agent:proceed()
  local function deep() return coroutine.wrap(deep)() end
  deep()
end

return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent }
