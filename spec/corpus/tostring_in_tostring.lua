-- expect: error
local Agent = {}

function Agent:proceed()
  local meta = {}
  function meta.__tostring(t) return tostring(t) .. "x" end
  return tostring(setmetatable({}, meta))
end

return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent }
