-- expect: error|proceed_timeout
local Agent = {}

function Agent:proceed()
  local meta = {}
  function meta.__index(t) return t[{}] end
  return setmetatable({}, meta).field
end

return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent }
