-- Lines over TLS, sent back; "tls" is answered with what the handshake has settled. First a certificate that is good
-- for trying, then the server, then a client that trusts it:
--
--   openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=localhost \
--     -addext subjectAltName=DNS:localhost -keyout examples/key.pem -out examples/cert.pem
--   scripts/run examples/tls_echo.lua
--   openssl s_client -quiet -connect localhost:9443 -CAfile examples/cert.pem -verify_return_error
local Echo = {}

function Echo:proceed(line)
  if line == "quit" then return "bye", "close" end
  if line == "tls" then
    local tls = self.conn.tls
    return ("%s %s, asked for %s"):format(tls.version, tls.cipher, tls.server_name or "no name")
  end
  return line
end

return {
  listen = "tls://127.0.0.1:9443", frame = "line", agent = Echo,
  tls = { certificate = "cert.pem", key = "key.pem" }, -- beside this file
}
