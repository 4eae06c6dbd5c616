-- expect: proceed_timeout
local Agent = {}

function Agent:proceed()
  while true do load("return 1")() end
end

return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent }
