-- expect: proceed_timeout
-- drive: none
local perilune = require "perilune"
local Agent = {}

function Agent:proceed() end

function Agent:opened()
  perilune.sleep("1ms")
  while true do end
end

return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent }
