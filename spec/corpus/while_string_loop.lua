-- expect: proceed_timeout
local Agent = {}

function Agent:proceed()
  local n = 0
  while true do n = n + #tostring(n) end
end

return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent }
