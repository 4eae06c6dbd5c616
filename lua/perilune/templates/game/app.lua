-- @NAME@: everybody walks over one board, ten steps a second, and collects coins. The rules are in world.lua.
--
-- The world has no thread of its own. It is moved on, by as many whole ticks as the clock says, whenever something
-- comes: a line of a player's, or the player's idle deadline, which is one tick long and begins anew. So it costs
-- nothing while nobody plays, and misses no tick while somebody does. But ticks are not even: the deadline of a player
-- who acts begins anew with each line, so that they come up to some tenths of a second late, and then several at once.
-- Until Perilune has timers, a game that needs them even has no better way.
local perilune = require "perilune"
local rules = require "world"

local TICK = 0.1 -- seconds
local CATCH_UP_MAX = 50 -- ticks at once: after a long pause the world goes on where it was
local SILENCE_MAX = 120 -- seconds without a line; then the player has to leave
local HELP = "n, e, s, w turn; stop stops; quit leaves"

local world = rules.new(1)
local players = {} ---@type table<Player, true>
local due -- when the next tick is, by perilune.now(); nil: nobody plays

---@class Player: perilune.agent
---@field walker Walker? once the name is known
---@field heard number when there was a line last, by perilune.now()
local Player = {}

local function show_all()
  local text = rules.show(world)
  for player in pairs(players) do player.conn:send(text) end
end

-- Makes the ticks that are due, and shows everybody the outcome, once.
local function move_on()
  local now, moved = perilune.now(), false
  if not due or now - due > CATCH_UP_MAX * TICK then due = now end
  while due <= now do
    rules.step(world)
    due, moved = due + TICK, true
  end
  if moved then show_all() end
end

function Player:opened()
  self.heard = perilune.now()
  return "your name?"
end

function Player:introduce(name)
  if not name:find("^%w+$") or #name > 12 then return "a name has 1 to 12 letters and digits" end
  if world.players[name] then return "that name is taken" end
  self.walker = rules.enter(world, name)
  players[self] = true
  return ("welcome, %s: %s"):format(name, HELP)
end

function Player:proceed(line)
  self.heard = perilune.now()
  if not self.walker then return self:introduce(line) end
  if line == "quit" then return ("you have %d points"):format(self.walker.points), "close" end
  local known = rules.turn(self.walker, line)
  move_on()
  if not known then return HELP end
end

function Player:timeout(kind)
  if kind ~= "idle" then return end
  if perilune.now() - self.heard >= SILENCE_MAX then return "you have been silent for too long" end
  if next(players) then move_on() end
  return true
end

function Player:closed()
  players[self] = nil
  if not self.walker then return end
  -- After a reload this world may have the same name for somebody else.
  if world.players[self.walker.name] == self.walker then world.players[self.walker.name] = nil end
  if not next(players) then due = nil end
end

function Player:drain() return "the server is going down; do come back" end

-- A reload takes every player along, between two lines: what is returned here is copied, and given to upgrade() of the
-- new code, whose world is a new one. The first to arrive brings the time and the coin.
function Player:snapshot()
  return {
    shape = 1, walker = self.walker, silent = perilune.now() - self.heard,
    tick = world.tick, seed = world.seed, coin = world.coin,
  }
end

-- In place of opened(). An error leaves the player with the old code: a state that is not understood does no harm.
function Player:upgrade(data)
  assert(data.shape == 1, "a state of another shape")
  self.heard = perilune.now() - data.silent
  if data.tick > world.tick then world.tick, world.seed, world.coin = data.tick, data.seed, data.coin end
  if not data.walker then return end
  if world.players[data.walker.name] then return end -- came in by that name meanwhile: this one is asked again
  self.walker = data.walker
  world.players[self.walker.name], players[self] = self.walker, true
end

---@type perilune.app
return {
  listen = "tcp://127.0.0.1:9000",
  workers = 1, -- one world for all
  frame = { "line", max = 64, empty = "ignore" },
  agent = Player,
  reload = "migrate",
  -- Who cannot keep up misses ticks, and sees the next one.
  limits = { connections = 500, per_ip = 20, send_buffer = "16k", slow_consumer = "drop" },
  timeout = { idle = TICK, read = "5s" },
}
