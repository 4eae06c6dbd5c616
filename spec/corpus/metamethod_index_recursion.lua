-- expect: error
local Agent = {}

function Agent:proceed()
  local meta = {}
  function meta.__index(t) return t[{}] end
  return setmetatable({}, meta).field
end

-- Time enough to fill the stack, under a sanitizer as well.
return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent, limits = { proceed = "2s" } }
