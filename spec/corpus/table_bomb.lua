-- expect: memory
local Agent = {}

function Agent:proceed()
  local t = {}
  while true do t[#t + 1] = {} end
end

return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent, limits = { proceed = "20s" } }
