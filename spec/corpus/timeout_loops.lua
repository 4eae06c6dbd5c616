-- expect: proceed_timeout
-- drive: none
local Agent = {}

function Agent:proceed() end

function Agent:timeout()
  while true do end
end

return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent, timeout = { idle = "30ms" } }
