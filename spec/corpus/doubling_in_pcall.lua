-- expect: memory|proceed_timeout
local Agent = {}

function Agent:proceed()
  while true do
    pcall(function()
      local s = "x"
      while true do s = s .. s end
    end)
  end
end

return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent, limits = { proceed = "500ms" } }
