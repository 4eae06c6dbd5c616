-- expect: memory|proceed_timeout
local json = require("perilune").json
local text = "[" .. ("[],"):rep(1e6) .. "[]]" -- some 100 MB of tables
local Agent = {}

function Agent:proceed()
  return #json.decode(text)
end

return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent }
