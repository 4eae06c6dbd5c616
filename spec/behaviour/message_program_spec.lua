--- Random programs of messages, calls, names, jobs and agents without a socket, on several workers, which may stand
--- still, of an app that is reloaded and whose clients may leave at any time, against a model of what they lead to:
--- spec/support/messages.lua.
--- PERILUNE_MESSAGES=FROM-TO: these batches, and not those of every day. The clients of a batch run its 400 programs at
--- the same time.
local lfs = require "lfs"
local memory = require "spec.support.memory"
local messages = require "spec.support.messages"

local WORKERS, CLIENTS, EACH, BATCHES_PER_APP = 3, 10, 40, 5
local PROGRAMS = CLIENTS * EACH

local draw = messages.draw

local function fail_with(world, what, ...) error(("batch %d: "):format(world.batch) .. what:format(...), 0) end

local function check_faults(world)
  local app = world.app
  if app:counters().faults == 0 then return end
  local entry = app:log(messages.WRONG)[1]
  if entry then fail_with(world, "%s\n%s", entry.what, messages.describe(entry.seed)) end
  fail_with(world, "%s", app:faults()[1].error)
end

local function begin_client(world, n)
  local client = { wire = world.app:connect(), seeds = {} }
  for k = 1, EACH do client.seeds[k] = tostring((world.batch - 1) * PROGRAMS + (n - 1) * EACH + k) end
  client.wire:send(unpack(client.seeds))
  world.clients[n] = client
end

-- Some go before their programs have come to an end.
local function leave_some(world, random)
  for n = 1, CLIENTS do
    local client = world.clients[n]
    if client and draw(random, 12) == 1 then
      world.clients[n] = nil
      if draw(random, 2) == 1 then client.wire:reset() else client.wire:close() end
    end
  end
end

-- One in three workers stands still meanwhile, and no thread takes jobs in one of three.
local function let_time_pass(world, random)
  local worker = draw(random, 3 * WORKERS) - 1
  if worker < WORKERS then world.app:stall(worker) end
  world.app:hold_jobs(draw(random, 3) == 1)
  world.app:advance(draw(random, 6) / 1000)
  if worker < WORKERS then world.app:resume(worker) end
end

-- All that it has sent was answered, in its order.
local function end_client(world, client)
  local frames = client.wire:frames()
  if #frames ~= EACH then fail_with(world, "%d of a client's programs have ended, not %d", #frames, EACH) end
  for k, frame in ipairs(frames) do
    if frame ~= "fine " .. client.seeds[k] then fail_with(world, "%q came for program %s", frame, client.seeds[k]) end
  end
  client.wire:close()
end

local function run_batch(world, batch)
  local random = messages.generator(batch)
  local reloads_at = draw(random, 8) -- above 4: not at all
  world.batch, world.clients = batch, {}
  for n = 1, CLIENTS / 2 do begin_client(world, n) end
  for moment = 1, 4 do
    let_time_pass(world, random)
    leave_some(world, random)
    if moment == reloads_at then world.app:reload() end
    if moment == 2 then
      for n = CLIENTS / 2 + 1, CLIENTS do begin_client(world, n) end
    end
  end
  world.app:hold_jobs(false)
  world.app:advance "5s"
  check_faults(world)
  for n = 1, CLIENTS do
    if world.clients[n] then end_client(world, world.clients[n]) end
  end
end

-- All have left: nothing is under way, and what was sent has come or was dropped.
local function check_counts(world)
  world.app:advance "10s"
  local counts, probe = world.app:counters(), world.app:connect()
  local announced, sent, came, taken = probe:send("counts"):frames()[1]:match "^(%d+) (%d+) (%d+) (%d+)$"
  probe:close()
  local function check(ok, what, ...) if not ok then fail_with(world, what, ...) end end
  local delivered, dropped = counts.messages_delivered, counts.messages_dropped
  check(counts.messages_sent == delivered + dropped, "sent %d, delivered %d, dropped %d", counts.messages_sent,
    delivered, dropped)
  check(counts.messages_delivered == tonumber(came), "%d messages have come, and %d were delivered", came,
    counts.messages_delivered)
  local is_right = counts.messages_sent >= tonumber(sent) and counts.messages_sent <= tonumber(announced)
  check(is_right, "%d to %d were sent, and %d are counted", sent, announced, counts.messages_sent)
  check(tonumber(taken) <= tonumber(came), "more were taken than came")
  check(counts.residents_begun == counts.residents_ended, "%d agents without a socket were made, and %d have ended",
    counts.residents_begun, counts.residents_ended)
  local jobs = counts.jobs_done + counts.jobs_failed + counts.jobs_shed + counts.jobs_cancelled
  check(counts.jobs == jobs and counts.jobs_waiting == 0 and counts.jobs_running == 0, "%d jobs, and %d are over",
    counts.jobs, jobs)
  check(counts.accepted == counts.closed, "a connection is left")
end

local function read(path)
  local file = assert(io.open(path))
  local text = file:read "*a"
  file:close()
  return text
end

-- Jobs call modules of the app's, which are files; so is what is reloaded.
local folder
local MODULES = { "messages", "doubling" }

local function write(name, text)
  local file = assert(io.open(("%s/%s.lua"):format(folder, name), "w"))
  assert(file:write(text) and file:close())
end

local function make_folder()
  folder = os.tmpname()
  os.remove(folder)
  assert(lfs.mkdir(folder))
  for _, name in ipairs(MODULES) do write(name, read(("spec/support/%s.lua"):format(name))) end
end

local function remove_folder()
  for _, name in ipairs { "/messages.lua", "/doubling.lua", "/app.lua", "" } do os.remove(folder .. name) end
end

local function open_app(policy)
  write("app", ('return require("messages").app(%q)'):format(policy))
  return memory.open(folder .. "/app.lua", nil, { workers = WORKERS })
end

local function run_app(first, last)
  local world = { policy = first % (2 * BATCHES_PER_APP) < BATCHES_PER_APP and "pin" or "migrate" }
  world.app = open_app(world.policy)
  for batch = first, last do run_batch(world, batch) end
  check_counts(world)
  memory.finish()
end

describe("random programs of messages", function()
  setup(make_folder)
  after_each(memory.finish)
  teardown(remove_folder)

  it("lead to what they should", function()
    local from, to = (os.getenv "PERILUNE_MESSAGES" or ""):match "^(%d+)-(%d+)$"
    from, to = tonumber(from) or 1, tonumber(to) or memory.scaled(100, 25)
    for first = from, to, BATCHES_PER_APP do run_app(first, math.min(to, first + BATCHES_PER_APP - 1)) end
  end)
end)
