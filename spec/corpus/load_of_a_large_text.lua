-- expect: proceed_timeout
local text = ("x = 1 "):rep(2e5)

local Agent = {}

function Agent:proceed()
  while true do load(text) end
end

return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent }
