-- expect: memory
local Agent = {}

function Agent:proceed()
  for line in io.lines("/dev/zero") do return line end
end

return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent, limits = { proceed = "20s" } }
