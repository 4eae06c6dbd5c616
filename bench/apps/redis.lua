-- Asks redis, at the address BACKEND, for each frame, by a pool whose requests are pipelined. The frame comes back once
-- redis has answered.
local perilune = require "perilune"

if not perilune.pool then error("needs perilune.pool", 0) end

local pool = perilune.pool(os.getenv "BACKEND", { frame = "line", size = 4, pipeline = true })
local Asker = {}

function Asker:proceed(frame)
  local reply, message = pool:request("PING")
  if reply ~= "+PONG" then error(message or reply, 0) end
  return frame
end

return {
  listen = "tcp://127.0.0.1:0",
  frame = "u32be",
  limits = { connections = 20000 },
  agent = Asker,
}
