-- expect: frame_error|proceed_timeout
-- send: this is no netstring
local Agent = {}

function Agent:proceed() end

function Agent:malformed()
  while true do end
end

return { listen = "tcp://127.0.0.1:9000", frame = "netstring", agent = Agent }
