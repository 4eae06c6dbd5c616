-- expect: proceed_timeout
local Agent = {}

function Agent:proceed()
  local function handler(err) error(err) end
  while true do xpcall(error, handler, "again") end
end

return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent }
