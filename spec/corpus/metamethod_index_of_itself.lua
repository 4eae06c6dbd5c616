-- expect: error
local Agent = {}

function Agent:proceed()
  local t = {}
  setmetatable(t, { __index = t })
  return t.field
end

return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent }
