-- A proxy of frames before BACKEND, an address: all connections share a pool, whose requests are pipelined.
local perilune = require "perilune"

if not perilune.pool then error("needs perilune.pool", 0) end

local pool = perilune.pool(os.getenv "BACKEND", { frame = "u32be", size = 4, pipeline = true })
local Proxy = {}

function Proxy:proceed(frame) return pool:forward(frame) end

return {
  listen = "tcp://127.0.0.1:0",
  frame = "u32be",
  limits = { connections = 20000 },
  agent = Proxy,
}
