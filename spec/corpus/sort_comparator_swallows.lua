-- expect: proceed_timeout
local Agent = {}

function Agent:proceed()
  table.sort({ 3, 2, 1 }, function()
    while true do
      pcall(function()
        while true do end
      end)
    end
  end)
end

return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent }
