-- @NAME@: passes what clients send to a backend, and what it answers back to them.
--
--   perilune run --watch
--   nc 127.0.0.1 9000
local backends = require "backends"
local perilune = require "perilune"

---@class Proxy: perilune.agent
---@field backend string?
local Proxy = {}

-- Called once for each client. Once two connections are piped, bytes go both ways without Lua: a side that is slow
-- slows the other one down, and an end of stream is passed on.
function Proxy:opened()
  local conn, backend, why = backends.connect()
  if not conn then
    perilune.log("warn", "no backend for a client", { error = why })
    return nil, "close"
  end
  self.backend = backend
  self.conn:pipe(conn)
end

-- Every agent has one. What is piped does not come by here.
function Proxy.proceed() end

-- A client that ends its side early (nc -N) still gets its answer.
function Proxy.eof() return true end

function Proxy:closed(reason)
  perilune.log("info", "client served", { backend = self.backend, reason = reason })
end

---@type perilune.app
return {
  listen = "tcp://127.0.0.1:9000",
  frame = "raw",
  agent = Proxy,
  setup = function(app) app:every("2s", backends.check) end,
  limits = { connections = 5000, per_ip = 100, send_buffer = "256k" },
}
