-- expect: proceed_timeout
local Agent = {}

function Agent:proceed()
  repeat until false
end

return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent }
