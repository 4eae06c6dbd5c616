-- expect: memory|proceed_timeout
local perilune = require "perilune"
local Agent = {}

function Agent:proceed()
  perilune.spawn(function()
    local t = {}
    while true do t[#t + 1] = ("x"):rep(10000) .. #t end
  end):join()
end

return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent }
