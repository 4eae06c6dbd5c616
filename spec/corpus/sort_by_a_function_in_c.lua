-- expect: proceed_timeout
local list = {}
for i = 1, 100000 do list[i] = i end

local Agent = {}

function Agent:proceed()
  while true do table.sort(list, rawequal) end
end

return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent }
