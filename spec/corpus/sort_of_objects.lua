-- expect: proceed_timeout
local Agent = {}

function Agent:proceed()
  local meta = {}
  function meta.__lt()
    while true do end
  end
  local list = {}
  for i = 1, 10 do list[i] = setmetatable({}, meta) end
  table.sort(list)
end

return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent }
