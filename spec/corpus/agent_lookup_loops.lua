-- expect: proceed_timeout
-- drive: none
local function open()
  return setmetatable({ proceed = function() return nil, "close" end, closed = function() end }, {
    __index = function(_, key)
      while key == "opened" do end
    end,
  })
end

return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = open }
