-- expect: error
local Agent = {}

function Agent:proceed()
  local t = {}
  for i = 1, 1000 do t[i] = "x" end
  return table.concat(t, ("x"):rep(1e6))
end

return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent, limits = { proceed = "20s" } }
