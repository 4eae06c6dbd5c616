-- expect: proceed_timeout
local Agent = {}

function Agent:proceed()
  local odd
  local function even(n) return odd(n + 1) end
  function odd(n) return even(n + 1) end
  return odd(1)
end

return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent }
