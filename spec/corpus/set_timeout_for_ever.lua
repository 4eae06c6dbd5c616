-- expect: proceed_timeout
local Agent = {}

function Agent:proceed()
  while true do self.conn:set_timeout("idle", 60) end
end

return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent }
