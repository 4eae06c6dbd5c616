-- expect: error
-- drive: none
-- closed: 0
local function open() error("no agent today") end

return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = open }
