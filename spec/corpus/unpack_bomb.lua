-- expect: error
local Agent = {}

function Agent:proceed()
  return tostring(select("#", unpack({}, 1, 1e8)))
end

return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent }
