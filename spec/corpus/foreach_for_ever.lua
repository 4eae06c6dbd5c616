-- expect: proceed_timeout
local Agent = {}

function Agent:proceed()
  table.foreach({ 1 }, function()
    while true do end
  end)
end

return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent }
