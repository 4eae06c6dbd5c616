-- expect: proceed_timeout
local perilune = require "perilune"
local Agent = {}

function Agent:proceed()
  perilune.spawn(function()
    for _ = 1, 100 do perilune.defer(function() while true do end end) end
  end)
end

return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent }
