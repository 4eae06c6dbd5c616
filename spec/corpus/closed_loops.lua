-- expect: agent
local Agent = {}

function Agent:proceed() return nil, "close" end

function Agent:closed()
  while true do end
end

return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent }
