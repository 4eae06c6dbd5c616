-- The same echo behind TLS: CERTIFICATE and KEY are PEM files, which scripts/bench makes.
local Echo = {}

function Echo:proceed(frame)
  return frame
end

return {
  listen = "tls://127.0.0.1:0",
  frame = "u32be",
  limits = { connections = 20000 },
  tls = { certificate = os.getenv "CERTIFICATE", key = os.getenv "KEY" },
  agent = Echo,
}
