-- expect: proceed_timeout
local Agent = {}

function Agent:proceed()
  local t = {}
  while true do t.n = (t.n or 0) + 1 end
end

return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent }
