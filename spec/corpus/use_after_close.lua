-- expect: agent
local Agent = {}

function Agent:proceed()
  self.conn:close()
  for _ = 1, 100 do assert(not self.conn:send("x")) end
end

return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent }
