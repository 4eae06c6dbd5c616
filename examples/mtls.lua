-- Clients show a certificate of our own authority, and so we know who they are before their first line. Everybody may
-- read the board, and only some may write. The authority, the server and two clients:
--
--   openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj "/CN=our authority" \
--     -keyout examples/ca.key -out examples/ca.pem
--   openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=localhost \
--     -CA examples/ca.pem -CAkey examples/ca.key -addext subjectAltName=DNS:localhost \
--     -keyout examples/key.pem -out examples/cert.pem
--   openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=alice \
--     -CA examples/ca.pem -CAkey examples/ca.key -addext subjectAltName=email:alice@example.org \
--     -keyout examples/alice.key -out examples/alice.pem
--   openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=bob \
--     -CA examples/ca.pem -CAkey examples/ca.key -addext subjectAltName=email:bob@example.org \
--     -keyout examples/bob.key -out examples/bob.pem
--   scripts/run examples/mtls.lua
--   openssl s_client -quiet -connect localhost:9443 -CAfile examples/ca.pem -cert examples/alice.pem \
--     -key examples/alice.key
local MAY_WRITE = { ["alice@example.org"] = true }

local board = "nothing is written here yet"

local Reader = {}

-- What is in a certificate that the authority has signed is as true as the authority is careful.
function Reader:opened()
  self.name = self.conn.tls.peer_certificate.emails[1] or "you without a name"
  return "hello " .. self.name
end

function Reader:proceed(line)
  if line == "quit" then return "bye", "close" end
  local text = line:match "^write (.+)$"
  if not text then return board end
  if not MAY_WRITE[self.name] then return "that is not for " .. self.name end
  board = text
  return "written"
end

return {
  listen = "tls://127.0.0.1:9443", frame = "line", agent = Reader,
  tls = { certificate = "cert.pem", key = "key.pem", client = "ca.pem" },
  workers = 1, -- each worker would have a board of its own
}
