-- expect: peer|proceed_timeout
-- drive: leave
local perilune = require "perilune"
local Agent = {}

function Agent:opened()
  for _ = 1, 1000 do perilune.every("1ms", function() for _ = 1, 1e4 do end end) end
end

function Agent:proceed() end

return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent }
