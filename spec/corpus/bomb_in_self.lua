-- expect: memory
local Agent = {}

function Agent:proceed()
  while true do self[#self + 1] = {} end
end

return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent, limits = { proceed = "20s" } }
