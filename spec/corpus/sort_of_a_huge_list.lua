-- expect: proceed_timeout
local Agent = {}

function Agent:proceed()
  local list = {}
  for i = 1, 400000 do list[i] = i * 7919 % 400009 end
  while true do table.sort(list) end
end

return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent }
