-- expect: proceed_timeout
local subject, text = ("a"):rep(2e6), ("a"):rep(62) .. "b"

local Agent = {}

function Agent:proceed()
  while true do subject:find(text, 1, true) end
end

return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent }
