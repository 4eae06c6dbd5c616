-- expect: oversize|proceed_timeout
-- send: a line that is longer than the limit\n
local Agent = {}

function Agent:proceed() end

function Agent:oversize()
  while true do end
end

return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent, limits = { frame = 16 } }
