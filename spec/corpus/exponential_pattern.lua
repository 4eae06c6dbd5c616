-- expect: proceed_timeout
local Agent = {}

function Agent:proceed()
  return tostring((("a"):rep(30) .. "b"):find(("a?"):rep(30) .. ("a"):rep(31)))
end

return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent }
