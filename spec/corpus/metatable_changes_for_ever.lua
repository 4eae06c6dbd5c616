-- expect: proceed_timeout
local Agent = {}

function Agent:proceed()
  local t = {}
  while true do setmetatable(t, { __index = { n = t.n } }) end
end

return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent }
