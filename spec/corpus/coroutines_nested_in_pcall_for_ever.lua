-- expect: proceed_timeout
local Agent = {}

function Agent:proceed()
  local function deep() return pcall(coroutine.wrap(deep)) end
  while true do deep() end
end

return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent }
