-- expect: peer
-- drive: leave
local perilune = require "perilune"
local Agent = {}

function Agent:proceed()
  while true do perilune.sleep(0) end
end

return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent }
