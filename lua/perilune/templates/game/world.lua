-- The rules, in whole ticks. Knows no clock and no connection: the same turns from the same beginning give the same
-- world.
local M = {}

M.SIZE = 16 -- places from 0 to SIZE - 1 in both directions; who walks off one side comes back on the other

local HEADINGS = { n = { 0, -1 }, e = { 1, 0 }, s = { 0, 1 }, w = { -1, 0 }, stop = { 0, 0 } }

---@class World
---@field tick integer
---@field seed integer of the coins' places
---@field coin { x: integer, y: integer }
---@field players table<string, Walker> by name

---@class Walker what belongs to one player: plain data
---@field name string
---@field x integer
---@field y integer
---@field dx integer
---@field dy integer
---@field points integer

-- A linear congruential generator: enough for coins, and the same everywhere.
local function random(world, n)
  world.seed = (world.seed * 1103515245 + 12345) % 2 ^ 31
  return math.floor(world.seed / 2 ^ 16) % n
end

local function place_coin(world)
  world.coin = { x = random(world, M.SIZE), y = random(world, M.SIZE) }
end

---@param seed integer
---@return World
function M.new(seed)
  local world = { tick = 0, seed = seed, players = {} }
  place_coin(world)
  return world
end

---@param world World
---@param name string
---@return Walker
function M.enter(world, name)
  local walker = { name = name, x = 0, y = 0, dx = 0, dy = 0, points = 0 }
  world.players[name] = walker
  return walker
end

--- False: there is no such heading.
---@param walker Walker
---@param heading string
---@return boolean
function M.turn(walker, heading)
  local step = HEADINGS[heading]
  if not step then return false end
  walker.dx, walker.dy = step[1], step[2]
  return true
end

local function by_name(world)
  local walkers = {}
  for _, walker in pairs(world.players) do walkers[#walkers + 1] = walker end
  table.sort(walkers, function(a, b) return a.name < b.name end)
  return walkers
end

--- One tick: everybody makes a step, in the order of their names.
---@param world World
function M.step(world)
  world.tick = world.tick + 1
  for _, walker in ipairs(by_name(world)) do
    walker.x, walker.y = (walker.x + walker.dx) % M.SIZE, (walker.y + walker.dy) % M.SIZE
    if walker.x == world.coin.x and walker.y == world.coin.y then
      walker.points = walker.points + 1
      place_coin(world)
    end
  end
end

--- The world in a line: "tick 12 coin 3,4 ann 5,6 2".
---@param world World
---@return string
function M.show(world)
  local parts = { ("tick %d coin %d,%d"):format(world.tick, world.coin.x, world.coin.y) }
  for _, walker in ipairs(by_name(world)) do
    parts[#parts + 1] = ("%s %d,%d %d"):format(walker.name, walker.x, walker.y, walker.points)
  end
  return table.concat(parts, " ")
end

return M
