--- Waiting for conditions, with a bound. Nothing sleeps for a guess.
local posix_time = require "posix.time"

local M = {}

--- Seconds until a wait has been in vain. It is not a promise of how soon anything happens: a machine that is busy
--- with other things may take long, and only what has failed ever waits for so long.
M.SECONDS = 120

local POLL_NS = 2e6

--- Seconds on the monotonic clock.
---@return number
function M.now()
  local t = posix_time.clock_gettime(posix_time.CLOCK_MONOTONIC)
  return t.tv_sec + t.tv_nsec / 1e9
end

--- When something that may take `seconds` must be over.
---@param seconds number?
---@return number
function M.deadline(seconds) return M.now() + (seconds or M.SECONDS) end

--- The pace of a peer that takes its time. Not for waiting until something has happened.
---@param seconds number
function M.pause(seconds)
  posix_time.nanosleep { tv_sec = math.floor(seconds), tv_nsec = math.floor(seconds % 1 * 1e9) }
end

--- Waits until condition() is neither nil nor false, and returns it. Raises when it takes too long.
---@generic T
---@param what string|fun(): string
---@param condition fun(): T
---@param seconds number?
---@return T
function M.until_true(what, condition, seconds)
  local deadline = M.deadline(seconds)
  while true do
    local value = condition()
    if value then return value end
    if M.now() > deadline then
      error("waited in vain for " .. (type(what) == "function" and what() or what), 2)
    end
    posix_time.nanosleep { tv_sec = 0, tv_nsec = POLL_NS }
  end
end

--- For as long as `seconds`, checks that condition() stays true: that something does not happen.
---@param what string
---@param condition fun(): any
---@param seconds number
function M.while_true(what, condition, seconds)
  local deadline = M.now() + seconds
  repeat
    if not condition() then error("did not last: " .. what, 2) end
    posix_time.nanosleep { tv_sec = 0, tv_nsec = POLL_NS }
  until M.now() > deadline
end

return M
