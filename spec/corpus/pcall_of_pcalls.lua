-- expect: proceed_timeout
-- LuaJIT's own pcall writes past the end of the stack here.
local tower = {}
for i = 1, 7000 do tower[i] = pcall end

local Agent = {}
function Agent:proceed()
  while true do pcall(unpack(tower)) end
end
return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent }
