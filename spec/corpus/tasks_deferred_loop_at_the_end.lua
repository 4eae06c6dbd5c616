-- expect: peer|proceed_timeout
-- drive: leave
local perilune = require "perilune"
local Agent = {}

function Agent:opened()
  for _ = 1, 5 do
    perilune.spawn(function()
      perilune.defer(function() while true do end end)
      perilune.sleep(3600)
    end)
  end
end

function Agent:proceed() end

return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent }
