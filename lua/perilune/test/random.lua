--- Random numbers of our own, the same for the same seed: math.random() may be anybody's. Internal.
local M = {}

local MODULUS = 2147483647 -- Park and Miller's

local random = {}
random.__index = random

---@param seed integer
function M.new(seed)
  local state = math.floor(seed) % MODULUS
  local self = setmetatable({ state = state == 0 and 1 or state }, random)
  for _ = 1, 4 do self:next(2) end -- small seeds begin alike
  return self
end

--- 1 … n
---@param n integer
---@return integer
function random:next(n)
  self.state = self.state * 16807 % MODULUS
  return self.state % n + 1
end

function random:pick(list) return list[self:next(#list)] end

--- A seed that nobody had before.
---@return integer
function M.seed() return math.floor(os.time() * 1000 + os.clock() * 1e6) % MODULUS end

return M
