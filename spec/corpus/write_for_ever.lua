-- expect: proceed_timeout
local Agent = {}

function Agent:proceed()
  local file = assert(io.open("/dev/null", "w"))
  while true do file:write("x") end
end

return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent }
