-- expect: peer|proceed_timeout
-- drive: leave
local perilune = require "perilune"
local Agent = {}

function Agent:opened()
  local tasks = {}
  for i = 1, 100 do tasks[i] = perilune.spawn(function() return tasks[i % 100 + 1]:join() end) end
end

function Agent:proceed() end

return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent }
