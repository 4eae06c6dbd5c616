-- @NAME@: work that takes long, done by a pool of threads while connections are served. Each message is behind its
-- length in four bytes; the README has the table.
local perilune = require "perilune"

-- What can be asked for: functions of work.lua.
local OPERATIONS = { [1] = "digest", [2] = "primes" }

local DONE, REFUSED, FAILED, BUSY = "\0", "\1", "\2", "\3"

---@class Front: perilune.agent
local Front = {}

-- What a job can come to that is no result. What is ours is in the log already, with its place.
local function explain(code)
  if code == "EBUSY" then return BUSY .. "busy" end
  if code == "ETIME" or code == "ETIMEDOUT" then return FAILED .. "it took too long" end
  return FAILED .. "it failed"
end

function Front:proceed(request)
  local operation = OPERATIONS[request:byte()]
  if not operation then return REFUSED .. "there is no such operation" end
  local result, why, code = perilune.job("work", operation, request:sub(2))
  if not result then return code and explain(code) or REFUSED .. why end
  return DONE .. result
end

-- A client that ends its side has asked its last question; it still gets the answers.
function Front:eof() return nil, "close" end

---@type perilune.app
return {
  listen = "tcp://127.0.0.1:9000",
  frame = { "u32be", max = "1m" },
  agent = Front,
  -- With "shed" who comes when `queue` jobs wait is told so at once, rather than late.
  jobs = { workers = 4, queue = 64, when_full = "shed", timeout = "10s", proceed = "5s" },
  limits = { connections = 5000, inbox = 16 },
  timeout = { read = "5s", idle = "10m" },
}
