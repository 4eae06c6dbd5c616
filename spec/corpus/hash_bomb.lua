-- expect: memory
local Agent = {}

function Agent:proceed()
  local t, n = {}, 0
  while true do
    n = n + 1
    t["key " .. n] = n
  end
end

return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent, limits = { proceed = "20s" } }
