-- Every message comes back, as what it came.
local Echo = {}

function Echo:proceed(message, meta)
  if not meta.binary then return message end
  self.conn:send(message, "binary")
end

return {
  listen = "ws://127.0.0.1:0/",
  limits = { connections = 20000 },
  agent = Echo,
}
