-- expect: proceed_timeout
-- drive: none
-- closed: 0
local function open()
  while true do end
end

return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = open }
