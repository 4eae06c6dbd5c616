-- expect: proceed_timeout
local Agent = {}

function Agent:proceed()
  local function again() return pcall(again) end
  while true do pcall(pcall, pcall, again) end
end

return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent }
