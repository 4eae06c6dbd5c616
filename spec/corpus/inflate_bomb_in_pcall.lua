-- expect: proceed_timeout
local perilune = require "perilune"
local bomb = perilune.deflate(("\0"):rep(4e6))
local Agent = {}

function Agent:proceed()
  while true do pcall(perilune.inflate, bomb, { max = "1g" }) pcall(perilune.inflate, bomb, { max = "1k" }) end
end

return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent }
