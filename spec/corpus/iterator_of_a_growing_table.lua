-- expect: proceed_timeout
local Agent = {}

function Agent:proceed()
  local t = { 1 }
  for i in ipairs(t) do t[i + 1] = nil t[1] = i + 1 end
  for _ in next, { 1 } do
    repeat until false
  end
end

return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent }
