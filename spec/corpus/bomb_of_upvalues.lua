-- expect: memory
local Agent = {}

function Agent:proceed()
  local list
  while true do list = { list } end
end

return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent, limits = { proceed = "20s" } }
