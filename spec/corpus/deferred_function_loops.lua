-- expect: agent
local Agent = {}

function Agent:proceed()
  self.conn:defer(function()
    while true do end
  end)
  return nil, "close"
end

return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent }
