-- expect: proceed_timeout
-- send: go\nmore\n
local Agent = {}

function Agent:proceed()
  self.conn:read()
  while true do end
end

return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent }
