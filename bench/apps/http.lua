-- 13 bytes for every request.
local Hello = {}

function Hello:proceed() return "Hello, world!" end

return {
  listen = "http://127.0.0.1:0",
  limits = { connections = 20000 },
  agent = Hello,
}
