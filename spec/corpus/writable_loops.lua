-- expect: proceed_timeout
-- drive: receive
local Agent = {}

function Agent:proceed() self.conn:send(("x"):rep(16e6)) end

function Agent:writable()
  while true do end
end

return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent }
