-- expect: proceed_timeout
local Agent = {}

function Agent:proceed()
  local function tower(n)
    if n == 0 then while true do end end
    while true do pcall(tower, n - 1) end
  end
  tower(50)
end

return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent }
