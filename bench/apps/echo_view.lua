-- echo.lua with views: the handler is lent the bytes of the frame, and no Lua string is made of them.
local Echo = {}

function Echo:proceed(frame)
  return frame
end

return {
  listen = "tcp://127.0.0.1:0",
  frame = { "u32be", view = true },
  limits = { connections = 20000 },
  agent = Echo,
}
