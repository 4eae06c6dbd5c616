-- expect: proceed_timeout
local Agent = {}

function Agent:proceed()
  local t = setmetatable({}, {
    __add = function()
      while true do end
    end,
  })
  return t + 1
end

return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent }
