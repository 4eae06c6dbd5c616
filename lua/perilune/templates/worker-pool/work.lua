-- What the pool does. Each function is a job: it gets a copy of its argument, has a thread to itself, and may compute
-- for as long as `jobs.proceed` says. It returns the result, or nil and what is wrong with the request.
local perilune = require "perilune"

local M = {}

local ROUNDS, MOST = 1000, 1e6

--- A text that is costly to guess from.
function M.digest(text)
  if text == "" then return nil, "there is nothing to digest" end
  for _ = 1, ROUNDS do text = perilune.crypto.digest("sha256", text) end
  return text
end

--- How many primes there are up to a number.
function M.primes(text)
  local most = tonumber(text:match "^%d+$")
  if not most or most > MOST then return nil, ("a number up to %d, please"):format(MOST) end
  local is_composite, count = {}, 0
  for n = 2, most do
    if not is_composite[n] then
      count = count + 1
      for multiple = n * n, most, n do is_composite[multiple] = true end
    end
  end
  return ("%d"):format(count)
end

return M
