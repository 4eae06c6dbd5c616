-- expect: peer|proceed_timeout
-- drive: leave
local perilune = require "perilune"
local Agent = {}

function Agent:opened()
  local a, b = perilune.channel(), perilune.channel()
  for _ = 1, 10 do
    perilune.spawn(function() while true do a:send(1) b:receive() end end)
    perilune.spawn(function() while true do a:receive() b:send(1) end end)
  end
end

function Agent:proceed() end

return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent }
