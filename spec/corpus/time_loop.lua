-- expect: proceed_timeout
local Agent = {}

function Agent:proceed()
  local start = os.time()
  while os.time() - start < 60 do end
end

return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent }
