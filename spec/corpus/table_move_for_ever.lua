-- expect: proceed_timeout
local Agent = {}

function Agent:proceed()
  table.move({}, 1, 2 ^ 53, 2)
end

return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent }
