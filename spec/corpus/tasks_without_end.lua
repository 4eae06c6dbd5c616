-- expect: error|memory|proceed_timeout
local perilune = require "perilune"
local Agent = {}

function Agent:proceed()
  local function again()
    perilune.spawn(again)
    perilune.spawn(again)
  end
  again()
end

return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent }
