-- expect: proceed_timeout|error
local Agent = {}

function Agent:proceed()
  while true do self.conn:defer(function() end) end
end

return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent }
