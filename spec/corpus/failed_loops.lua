-- expect: error
local Agent = {}

function Agent:proceed() error("first") end

function Agent:failed()
  while true do end
end

return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent }
