-- expect: memory
local Agent = {}

function Agent:proceed()
  local kept = {}
  while true do kept[#kept + 1] = ("x"):rep(1e6) .. #kept end
end

return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent, limits = { proceed = "20s" } }
