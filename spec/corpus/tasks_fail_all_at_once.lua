-- expect: error|proceed_timeout
local perilune = require "perilune"
local Agent = {}

function Agent:proceed()
  for i = 1, 1000 do perilune.spawn(function() error("task " .. i) end) end
end

return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent }
