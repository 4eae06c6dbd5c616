-- expect: peer|proceed_timeout
-- drive: leave
local perilune = require "perilune"
local Agent = {}

function Agent:opened()
  local function again() perilune.spawn(again) end
  again()
end

function Agent:proceed() end

return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent }
