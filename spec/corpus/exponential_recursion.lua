-- expect: proceed_timeout
local Agent = {}

function Agent:proceed()
  local function fib(n) return n < 2 and n or fib(n - 1) + fib(n - 2) end
  return tostring(fib(90))
end

return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent }
