-- expect: error
local Agent = {}

function Agent:proceed()
  error(setmetatable({}, { __tostring = function() return ("x"):rep(3e7) end }))
end

return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent }
