-- echo_tls.lua with views, as echo_view.lua is echo.lua with them.
local Echo = {}

function Echo:proceed(frame)
  return frame
end

return {
  listen = "tls://127.0.0.1:0",
  frame = { "u32be", view = true },
  limits = { connections = 20000 },
  tls = { certificate = os.getenv "CERTIFICATE", key = os.getenv "KEY" },
  agent = Echo,
}
