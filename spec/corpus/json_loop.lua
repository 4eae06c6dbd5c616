-- expect: proceed_timeout
local json = require("perilune").json
local Agent = {}

function Agent:proceed()
  local loop = {}
  loop.loop = loop
  while true do pcall(json.encode, json.decode '{"a":[1,2.5,"\\u00e9",9007199254740993]}') pcall(json.encode, loop) end
end

return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent }
