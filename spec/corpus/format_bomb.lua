-- expect: memory|error
local Agent = {}

function Agent:proceed()
  local s = "%s%s"
  while true do s = s:format(s, s) end
end

return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent, limits = { proceed = "20s" } }
