-- expect: proceed_timeout
local Agent = {}

function Agent:proceed()
  local function again(n)
    pcall(again, n + 1)
    pcall(again, n + 1)
  end
  again(1)
end

return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent }
