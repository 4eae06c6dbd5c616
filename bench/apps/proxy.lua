-- A proxy of bytes before BACKEND, an address: each connection has one of its own there, and C passes the bytes.
local perilune = require "perilune"

local BACKEND = os.getenv "BACKEND"
local Proxy = {}

local function pipe_of(conn) return conn.pipe end

function Proxy:opened()
  if not pcall(pipe_of, self.conn) then error("needs conn:pipe", 0) end
  local backend, message = perilune.connect(BACKEND, { frame = "raw" })
  if not backend then error(message, 0) end
  self.conn:pipe(backend)
end

-- What an agent must have. No frame comes to it.
function Proxy:proceed() error("a frame has come to the handler", 0) end

return {
  listen = "tcp://127.0.0.1:0",
  frame = "raw",
  limits = { connections = 20000 },
  agent = Proxy,
}
