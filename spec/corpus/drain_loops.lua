-- expect: drain|proceed_timeout
-- drive: drain
local Agent = {}

function Agent:proceed() end

function Agent:drain()
  while true do end
end

return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent }
