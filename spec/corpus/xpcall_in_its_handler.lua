-- expect: proceed_timeout
local Agent = {}

function Agent:proceed()
  local handler
  function handler(err) return select(2, xpcall(error, handler, err)) end
  while true do xpcall(error, handler, "again") end
end

return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent }
