-- expect: proceed_timeout|peer|reset
-- drive: leave
local Agent = {}

function Agent:proceed()
  return tostring(("a"):rep(2e6):find(("a"):rep(1e6) .. "b", 1, true))
end

return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent }
