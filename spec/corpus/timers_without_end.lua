-- expect: error|memory|proceed_timeout
local perilune = require "perilune"
local Agent = {}

function Agent:proceed()
  while true do perilune.every("1ms", function() end) end
end

return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent }
