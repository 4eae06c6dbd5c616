-- expect: memory
local Agent = {}

function Agent:proceed()
  local kept = {}
  while true do
    local n = #kept
    kept[n + 1] = function() return n end
  end
end

return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent, limits = { proceed = "20s" } }
