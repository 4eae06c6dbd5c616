-- expect: proceed_timeout
-- drive: finish
local Agent = {}

function Agent:proceed() end

function Agent:eof()
  while true do end
end

return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent }
