-- expect: proceed_timeout|memory
local list = {}
for i = 1, 5e5 do list[i] = "" end

local Agent = {}

function Agent:proceed()
  while true do self.conn:send(list) end
end

return { listen = "tcp://127.0.0.1:9000", frame = "raw", agent = Agent, limits = { proceed = "5ms" } }
