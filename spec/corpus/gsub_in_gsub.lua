-- expect: error|proceed_timeout
local Agent = {}

function Agent:proceed()
  local function again() return (("x"):gsub("x", again)) end
  return again()
end

return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent }
