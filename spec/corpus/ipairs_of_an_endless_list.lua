-- expect: proceed_timeout
local Agent = {}

function Agent:proceed()
  local t = setmetatable({}, { __index = function(_, i) return i end })
  local i = 1
  while t[i] do i = i + 1 end
end

return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent }
