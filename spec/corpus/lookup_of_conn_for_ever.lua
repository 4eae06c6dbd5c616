-- expect: proceed_timeout
local Agent = {}

function Agent:proceed()
  while true do local _ = self.conn.peer end
end

return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent }
