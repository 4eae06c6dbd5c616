-- A TCP load balancer: the bytes of a client go to the backend that has the fewest clients, and the answers come back,
-- all without Lua. A backend that refuses is left out until a check, every two seconds, finds it again.
--
--   for port in 9101 9102; do build/perilune run examples/echo.lua --listen tcp://127.0.0.1:$port & done
--   scripts/run examples/balancer.lua
--   nc 127.0.0.1 9039
--
-- Each worker counts its own clients and checks for itself.
local perilune = require "perilune"

local BACKENDS = { "tcp://127.0.0.1:9101", "tcp://127.0.0.1:9102" }
local OPTIONS = { frame = "raw", timeout = { connect = "1s" } }

local backends = {}
for i, address in ipairs(BACKENDS) do backends[i] = { address = address, is_up = true, clients = 0 } end

local function note(backend, is_up, why)
  if backend.is_up == is_up then return end
  backend.is_up = is_up
  perilune.log(is_up and "info" or "warn", is_up and "backend is up" or "backend is down",
    { backend = backend.address, error = why })
end

local function pick()
  local best
  for _, one in ipairs(backends) do
    if one.is_up and (not best or one.clients < best.clients) then best = one end
  end
  return best
end

local function check(backend)
  local conn, why = perilune.connect(backend.address, OPTIONS)
  if conn then conn:close() end
  note(backend, conn ~= nil, why)
end

local Balancer = { proceed = function() end } -- required, and not called: what is piped does not come by here

-- A client that ends its side early, as nc -N does, still gets its answer.
function Balancer.eof() return true end

-- Counted before it is connected to: clients that come meanwhile go elsewhere.
function Balancer:take(backend)
  if self.backend then self.backend.clients = self.backend.clients - 1 end
  if backend then backend.clients = backend.clients + 1 end
  self.backend = backend
  return backend
end

function Balancer:opened()
  while self:take(pick()) do
    local conn, why = perilune.connect(self.backend.address, OPTIONS)
    if conn then
      self.conn:pipe(conn)
      return
    end
    note(self.backend, false, why)
  end
  return nil, "close"
end

function Balancer:closed() self:take(nil) end

local function setup(app)
  app:every("2s", function()
    for _, backend in ipairs(backends) do app:spawn(check, backend) end
  end)
end

return { listen = "tcp://127.0.0.1:9039", frame = "raw", agent = Balancer, setup = setup }
