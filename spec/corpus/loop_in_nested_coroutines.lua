-- expect: proceed_timeout
local Agent = {}

function Agent:proceed()
  local function nest(n)
    if n == 0 then while true do end end
    while true do coroutine.wrap(nest)(n - 1) end
  end
  nest(100)
end

return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent }
