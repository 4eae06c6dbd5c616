-- expect: memory
local Agent = {}

function Agent:proceed()
  local file = assert(io.open("/dev/zero"))
  local text = file:read("*a")
  file:close()
  return text
end

return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent, limits = { proceed = "20s" } }
