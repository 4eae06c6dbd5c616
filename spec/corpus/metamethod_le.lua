-- expect: proceed_timeout
local Agent = {}

function Agent:proceed()
  local meta = {}
  function meta.__le()
    while true do end
  end
  return tostring(setmetatable({}, meta) <= setmetatable({}, meta))
end

return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent }
