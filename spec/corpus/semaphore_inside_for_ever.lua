-- expect: proceed_timeout
local perilune = require "perilune"
local Agent = {}

function Agent:proceed()
  local semaphore = perilune.semaphore(1)
  for _ = 1, 10 do perilune.spawn(function() semaphore:with(perilune.sleep, 3600) end) end
  semaphore:with(function() while true do end end)
end

return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent }
