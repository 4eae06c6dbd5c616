-- To whom clients are passed on: in turn, and to those alone that are there.
local perilune = require "perilune"

local M = {}

-- tls:// and unix:// work as well, and names instead of addresses.
M.ADDRESSES = { "tcp://127.0.0.1:9001", "tcp://127.0.0.1:9002" }

local OPTIONS = { frame = "raw", timeout = { connect = "1s" } }

local backends, last = {}, 0
for i, address in ipairs(M.ADDRESSES) do backends[i] = { address = address, is_down = false } end

local function note(backend, is_down, why)
  if backend.is_down == is_down then return end
  backend.is_down = is_down
  perilune.log(is_down and "warn" or "info", is_down and "backend is down" or "backend is up",
    { backend = backend.address, error = why })
end

local function try(backend)
  local conn, why = perilune.connect(backend.address, OPTIONS)
  note(backend, conn == nil, why)
  return conn, why
end

--- Connects to the next one that is not known to be down.
---@return perilune.conn? conn
---@return string? address of the backend
---@return string? why there is none
function M.connect()
  local why = "all backends are down"
  for _ = 1, #backends do
    last = last % #backends + 1
    local backend, conn = backends[last], nil
    if not backend.is_down then conn, why = try(backend) end
    if conn then return conn, backend.address end
  end
  return nil, nil, why
end

--- Looks again at all of them. In a task of the app: app:every("2s", backends.check).
function M.check()
  local tries = {}
  for i, backend in ipairs(backends) do
    tries[i] = function()
      local conn = try(backend)
      if conn then conn:close() end
      return true
    end
  end
  perilune.all(tries)
end

return M
