-- expect: proceed_timeout
local tower = {}
for i = 1, 7000 do tower[i] = xpcall end

local Agent = {}
function Agent:proceed()
  while true do
    xpcall(unpack(tower))
    setmetatable({}, { __call = xpcall })(xpcall, xpcall)
  end
end
return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent }
