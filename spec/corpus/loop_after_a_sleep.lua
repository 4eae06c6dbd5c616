-- expect: proceed_timeout
local perilune = require "perilune"
local Agent = {}

function Agent:proceed()
  perilune.sleep("1ms")
  while true do end
end

return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent }
