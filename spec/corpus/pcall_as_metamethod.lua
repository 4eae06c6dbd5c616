-- expect: proceed_timeout|memory|error
-- It calls itself without end.
local Agent = {}
function Agent:proceed()
  local called = setmetatable({}, { __call = pcall })
  while true do called() end
end
return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent }
