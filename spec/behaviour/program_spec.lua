--- Random programs of tasks, connections and pools, whose agents may leave and whose app may be reloaded at any time,
--- against a model of what they lead to: spec/support/programs.lua.
--- PERILUNE_PROGRAMS=FROM-TO: these batches, and not those of every day. The clients of a batch run its 400 programs at
--- the same time.
local memory = require "spec.support.memory"
local perilune = require "perilune.test"
local programs = require "spec.support.programs"

local CLIENTS, EACH, BATCHES_PER_APP = 10, 40, 10
local PROGRAMS = CLIENTS * EACH

local draw = programs.draw

local function fail_with(world, what, ...) error(("batch %d: "):format(world.batch) .. what:format(...), 0) end

local function check_faults(world)
  local app = world.app
  if app:counters().faults == 0 then return end
  local entry = app:log(programs.WRONG)[1]
  if entry then fail_with(world, "%s\n%s", entry.what, programs.describe(entry.seed)) end
  fail_with(world, "%s", app:faults()[1].error)
end

local function ask(world, client, question)
  local answer = client.client:send(question):frames()
  check_faults(world)
  return answer[#answer]
end

-- The programs of the n-th client, which belongs to the newest generation.
local function begin_client(world, n)
  local client, seeds = { client = world.app:connect(), generation = world.generation }, {}
  local said = ask(world, client, "generation " .. world.generation)
  if said ~= tostring(world.generation) then fail_with(world, "a new client is of generation %s", said) end
  for k = 1, EACH do seeds[k] = tostring((world.batch - 1) * PROGRAMS + (n - 1) * EACH + k) end
  client.client:send(unpack(seeds))
  world.clients[n] = client
end

-- Some go before their programs have come to an end.
local function leave_some(world, random)
  for n = 1, CLIENTS do
    local client = world.clients[n]
    if client and draw(random, 10) == 1 then
      world.clients[n] = nil
      if draw(random, 2) == 1 then client.client:reset() else client.client:close() end
    end
  end
end

local function reload(world)
  world.app:reload()
  world.generation = world.generation + 1
end

-- The timers of the app are the newest generation's alone; its tasks go on while there are connections.
local function check_app(world, client)
  local ticks, rounds = ask(world, client, "app"):match "^(%d+) (%d+)$"
  world.app:advance "50ms"
  local later_ticks, later_rounds = ask(world, client, "app"):match "^(%d+) (%d+)$"
  local count = later_rounds - rounds
  if count ~= 5 then fail_with(world, "the app's task has come round %d times", count) end
  local wanted = client.generation == world.generation and 5 or 0
  if later_ticks - ticks ~= wanted then
    fail_with(world, "the timer of generation %d, of %d, has fired %d times", client.generation, world.generation,
      later_ticks - ticks)
  end
end

local function end_client(world, client)
  local count = #client.client:frames()
  if count ~= EACH then fail_with(world, "%d of a client's programs have ended, not %d", count, EACH) end
  if world.policy == "migrate" then client.generation = world.generation end
  local said = ask(world, client, "generation " .. client.generation)
  if said ~= tostring(client.generation) then
    fail_with(world, "a client of generation %d is now of %s", client.generation, said)
  end
  if not world.has_looked then check_app(world, client) end
  world.has_looked = true
  client.client:close()
end

-- Nobody runs anything, and no pool has kept anything: what is there still is the connection of the newest generation's
-- app.
local function check_outgoing(world)
  local count = world.app:counters().outgoing
  if count ~= 1 then fail_with(world, "%d connections out are left, not 1", count) end
end

local function run_batch(world, batch)
  local random = programs.generator(batch)
  local reloads_at = draw(random, 10) -- above 4: not at all
  world.batch, world.clients, world.has_looked = batch, {}, false
  for n = 1, CLIENTS / 2 do begin_client(world, n) end
  for moment = 1, 4 do
    world.app:advance(draw(random, 6) / 1000)
    leave_some(world, random)
    if moment == reloads_at then reload(world) end
    if moment == 2 then
      for n = CLIENTS / 2 + 1, CLIENTS do begin_client(world, n) end
    end
  end
  world.app:advance "1s"
  check_faults(world)
  if reloads_at > 4 then check_outgoing(world) end -- pools of older generations keep theirs
  for n = 1, CLIENTS do
    if world.clients[n] then end_client(world, world.clients[n]) end
  end
  world.app:connect():send("audit"):expect("fine"):close()
end

-- All have left.
local function check_counters(world)
  world.app:advance "1s"
  check_outgoing(world)
  local ours, theirs = world.app:counters(), world.db:counters()
  if ours.accepted ~= ours.closed then fail_with(world, "a connection is left") end
  if theirs.accepted - theirs.closed ~= 1 then
    fail_with(world, "the backend has %d connections, not 1", theirs.accepted - theirs.closed)
  end
  if ours.connected > theirs.accepted then fail_with(world, "more were made than accepted") end
end

local function run_app(first, last)
  local net = perilune.net()
  local world = { generation = 1, policy = first % (2 * BATCHES_PER_APP) < BATCHES_PER_APP and "pin" or "migrate" }
  world.db = net:serve(programs.ADDRESS, programs.backend())
  world.app = net:app(programs.app(world.policy))
  for batch = first, last do run_batch(world, batch) end
  check_faults(world)
  check_counters(world)
  net:close()
end

describe("random programs of tasks and connections", function()
  it("lead to what they should", function()
    local from, to = (os.getenv "PERILUNE_PROGRAMS" or ""):match "^(%d+)-(%d+)$"
    from, to = tonumber(from) or 1, tonumber(to) or memory.scaled(100, 25)
    for first = from, to, BATCHES_PER_APP do run_app(first, math.min(to, first + BATCHES_PER_APP - 1)) end
  end)
end)
