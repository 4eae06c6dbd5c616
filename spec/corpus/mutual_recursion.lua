-- expect: error
local Agent = {}

function Agent:proceed()
  local odd
  local function even(n) return 1 + odd(n + 1) end
  function odd(n) return 1 + even(n + 1) end
  return tostring(odd(1))
end

return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent }
