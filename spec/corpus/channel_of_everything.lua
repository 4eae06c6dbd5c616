-- expect: memory|proceed_timeout
local perilune = require "perilune"
local Agent = {}

function Agent:proceed()
  local n = 0
  local mine = perilune.channel(1000000000)
  while true do
    n = n + 1
    mine:send(("x"):rep(1000) .. n)
  end
end

return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent }
