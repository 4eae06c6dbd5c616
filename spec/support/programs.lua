--- Random programs of tasks, for agents that run them and hold what happens against what should: a model.
---
--- A program is some tasks of one agent. Each draws its steps from a generator of its own, so what a task does depends
--- on the program's number alone, and not on when the others do what they do. Every step knows what it has to lead to,
--- and when: the clock is an app's in memory, and stands still while handlers compute. The rest is checked when a
--- program ends, or its agent does: nothing goes on after it was cancelled, what was deferred has run once, what was
--- sent was received once, nobody has a permit, and a connection that the agent has made is closed.
---
---     net:serve(programs.ADDRESS, programs.backend())
---     local app = net:app(programs.app "pin")
---     app:connect():send("7")              -- runs program 7; "fine 7" comes when it is over
---
--- What is not as it should be is logged as programs.WRONG, and ends the agent.
local core = require "perilune"

local M = {}

M.ADDRESS = "tcp://db:1"
M.WRONG = "the model says otherwise"

local TASKS_MAX, STEPS_MAX, SLOTS, WAIT_MS = 7, 4, 2, 6

-- ---- numbers ----

-- The same everywhere: Lehmer's.
local function generator(seed)
  local self = { state = (seed * 69621 + 12345) % 2147483646 + 1 }
  for _ = 1, 3 do self.state = self.state * 16807 % 2147483647 end
  return self
end

local function draw(random, n)
  random.state = random.state * 16807 % 2147483647
  return math.floor(random.state / 2147483647 * n) + 1
end

M.generator, M.draw = generator, draw

-- Milliseconds on the app's clock.
local function now() return math.floor(core.now() * 1000 + 0.5) end

-- ---- what a program is ----

-- The steps, each as often as it is to come.
local STEPS = {
  "sleep", "sleep", "spawn", "spawn", "cancel", "join", "send", "send", "receive", "receive", "with", "defer", "after",
  "any", "all", "limit", "connect", "connect", "ask", "ask", "ask", "read", "read", "read", "close", "request",
}

-- What a backend is asked for, and how many replies that leads to: one, three, one that is late, none, one and the end,
-- a reset.
local REPLIES = { one = 1, three = 3, late = 1, none = 0, last = 1, reset = 0 }
local KINDS = { "one", "one", "three", "late", "none", "last", "reset" }
local KINDS_OF_POOL = {
  { "one", "one", "one", "late", "none", "last", "reset" },
  { "one", "one", "one", "late", "late", "last", "reset" }, -- shared: what leaves a reply out is not for it
}

-- What the n-th task of a program does next: a step, and two small numbers.
local function next_step(random) return STEPS[draw(random, #STEPS)], draw(random, WAIT_MS), draw(random, 7) end

local function random_of(seed, number)
  local random = generator(seed * 16 + number)
  return random, draw(random, STEPS_MAX)
end

--- The steps of all tasks that a program may come to have, for people.
---@param seed integer
---@return string
function M.describe(seed)
  local lines = {}
  for number = 1, TASKS_MAX do
    local random, count = random_of(seed, number)
    local steps = {}
    for i = 1, count do steps[i] = ("%s(%d, %d)"):format(next_step(random)) end
    lines[number] = ("  task %d: %s"):format(number, table.concat(steps, " "))
  end
  return ("program %d\n%s"):format(seed, table.concat(lines, "\n"))
end

-- ---- what is wrong ----

local function wrong(program, task, what, ...)
  local text = what:format(...)
  local place = task and (" (task %d, %s)"):format(task.number, tostring(task.at)) or ""
  core.log("error", M.WRONG, { seed = program.seed, what = text .. place })
  error(text, 0)
end

local function check(ok, program, task, what, ...)
  if not ok then wrong(program, task, what, ...) end
end

local function check_time(program, task, wanted_ms)
  local at = now()
  check(at == wanted_ms, program, task, "it is %d ms, and should be %d", at, wanted_ms)
end

-- ---- channels and semaphores that know what was done with them ----

local function new_shared()
  return { channel = core.channel(1), semaphore = core.semaphore(2), owed = 0, inside = 0 }
end

-- A value has come. One that was given to somebody who was cancelled at that moment comes again, and another receiver
-- may have got the next one meanwhile.
local function take(program, task, shared, value)
  check(not value.received, program, task, "a value was received twice")
  check(value.state ~= "unsent", program, task, "a value came that was not sent")
  local from = value.from
  local is_in_order = value.number > (from[shared] or 0) or value.at == from.taken_at
  check(is_in_order, program, task, "a value came after one that was sent later")
  from[shared], from.taken_at = value.number, now()
  value.received = true
  if value.state == "sent" then shared.owed = shared.owed - 1 end
end

-- Nobody uses it any more: all that was sent is there.
local function check_shared(program, shared)
  while true do
    local value = shared.channel:try_receive()
    if not value then break end
    take(program, nil, shared, value)
  end
  check(shared.owed == 0, program, nil, "%d values were lost", shared.owed)
  check(shared.semaphore:count() == 2, program, nil, "%d permits are left, not 2", shared.semaphore:count())
  check(shared.inside == 0, program, nil, "%d are inside", shared.inside)
end

-- ---- tasks ----

local function is_below(task, other)
  while task and task ~= other do task = task.parent end
  return task ~= nil
end

-- What it was about to do is done: may it go on?
local function check_goes_on(program, task)
  check(not task.cancelled, program, task, "it goes on, though it was cancelled")
  check(not task.over, program, task, "it goes on, though it is over")
  check(not program.agent.has_closed, program, task, "it goes on, though its agent has closed")
end

local function each_below(program, task, fn)
  for _, other in ipairs(program.tasks) do
    if is_below(other, task) then fn(other) end
  end
end

-- The function that runs last of a task: those that it has begun are now its parent's.
local function finish_task(program, task)
  check(not task.over, program, task, "it ends twice")
  check(task.ran == #task.deferred, program, task, "%d of %d deferred functions have run", task.ran, #task.deferred)
  task.over = true
  for _, other in ipairs(program.tasks) do
    if other.parent == task then other.parent = task.parent end
  end
end

local function begin_task(program, parent, body)
  local task = { number = #program.tasks + 1, parent = parent, deferred = {}, ran = 0, sent = 0 }
  program.tasks[task.number] = task
  task.handle = core.spawn(function()
    check(not task.cancelled, program, task, "it begins, though it was cancelled")
    task.begun = true
    core.defer(function() finish_task(program, task) end)
    body(program, task)
    check_goes_on(program, task)
    task.done = true
    return task.number
  end)
  return task
end

-- ---- the steps: each is given the program, the task and two numbers ----

local steps = {}

local function run_steps(program, task)
  local random, count = random_of(program.seed, task.number)
  for _ = 1, count do
    local step, x, y = next_step(random)
    task.at = step
    steps[step](program, task, x, y)
    check_goes_on(program, task)
  end
end

local function sleep(ms) core.sleep(ms / 1000) end

function steps.sleep(program, task, x)
  local at = now()
  sleep(x)
  check_time(program, task, at + x)
end

function steps.spawn(program, task)
  if #program.tasks < TASKS_MAX then begin_task(program, task, run_steps) end
end

local function cancel(program, task, victim)
  local was_at_work = not victim.cancelled and not victim.done
  if was_at_work then each_below(program, victim, function(other) other.cancelled = not other.done end) end
  local said = victim.handle:cancel()
  check(said == was_at_work, program, task, "cancel() of task %d said %s", victim.number, tostring(said))
end

-- One that cancels what has begun it ends itself when it waits.
function steps.cancel(program, task, _, y)
  local victim = program.tasks[y]
  if not victim or victim == task then return end
  cancel(program, task, victim)
  if task.cancelled then
    sleep(1)
    wrong(program, task, "it waits, and goes on, though it was cancelled")
  end
end

local function check_joined(program, task, victim, value, code)
  if value ~= nil then
    check(victim.done and value == victim.number, program, task, "join() of %d: %s", victim.number, tostring(value))
  else
    check(code == "ECANCELED" and victim.cancelled, program, task, "join() of %d: %s", victim.number, tostring(code))
  end
  check(victim.over or not victim.begun, program, task, "join() of %d, and it is not over", victim.number)
end

function steps.join(program, task, x, y)
  local victim, at = program.tasks[y], now()
  if not victim or victim == task then return end
  local value, _, code = victim.handle:join(x / 1000)
  if code == "ETIMEDOUT" then return check_time(program, task, at + x) end
  check_joined(program, task, victim, value, code)
end

-- The program's own, or the one of all.
local function shared_of(program, y) return y <= 4 and program.own or program.shared end

function steps.send(program, task, x, y)
  local shared, at = shared_of(program, y), now()
  task.sent = task.sent + 1
  local value = { from = task, number = task.sent, at = at } -- one who is cancelled may have sent it
  local ok, _, code = shared.channel:send(value, x / 1000)
  if ok then
    value.state = "sent"
    if not value.received then shared.owed = shared.owed + 1 end
    return
  end
  value.state = "unsent"
  check(not value.received, program, task, "send() has failed, and the value came")
  check(code == "ETIMEDOUT", program, task, "send(): %s", tostring(code))
  check_time(program, task, at + x)
end

function steps.receive(program, task, x, y)
  local shared, at = shared_of(program, y), now()
  local value, _, code = shared.channel:receive(x / 1000)
  if value then return take(program, task, shared, value) end
  check(code == "ETIMEDOUT", program, task, "receive(): %s", tostring(code))
  check_time(program, task, at + x)
end

steps["with"] = function(program, task, x, y)
  local shared = shared_of(program, y)
  shared.semaphore:with(function()
    local is_inside = true
    local function leave()
      if is_inside then shared.inside = shared.inside - 1 end
      is_inside = false
    end
    shared.inside = shared.inside + 1
    core.defer(leave)
    check(shared.inside <= 2, program, task, "%d are inside", shared.inside)
    steps.sleep(program, task, x)
    leave()
  end)
end

function steps.defer(program, task)
  local number = #task.deferred + 1
  task.deferred[number] = true
  core.defer(function()
    check(task.ran == #task.deferred - number, program, task, "a deferred function runs again, or too early")
    task.ran = task.ran + 1
  end)
end

function steps.after(program, task, x, y)
  local timer = { due = now() + x }
  timer.handle = core.after(x / 1000, function()
    check(not timer.fired and not timer.cancelled, program, task, "a timer fires that should not")
    check(not program.agent.has_closed, program, task, "a timer fires after closed()")
    timer.fired = true
    check_time(program, task, timer.due)
  end)
  program.timers[#program.timers + 1] = timer
  local other = program.timers[y]
  if not other or other.fired then return end
  local said = other.handle:cancel()
  check(said == not other.cancelled, program, task, "cancel() of a timer said %s", tostring(said))
  other.cancelled = true
end

local function sleeper(ms)
  return function()
    sleep(ms)
    return ms
  end
end

function steps.any(program, task, x, y)
  local at = now()
  local first = core.any { sleeper(x), sleeper(y) }
  check(first == math.min(x, y), program, task, "any(): %s", tostring(first))
  check_time(program, task, at + first)
end

function steps.all(program, task, x, y)
  local at = now()
  local one, other = core.all { sleeper(x), sleeper(y) }
  check(one == x and other == y, program, task, "all(): %s, %s", tostring(one), tostring(other))
  check_time(program, task, at + math.max(x, y))
end

function steps.limit(program, task, x, y)
  local at = now()
  local value, _, code = core.timeout(x / 1000, sleeper(y))
  local may_be_over, may_be_done = y >= x, y <= x
  check(value == y and may_be_done or code == "ETIMEDOUT" and may_be_over, program, task, "timeout(): %s, %s",
    tostring(value), tostring(code))
  check_time(program, task, at + math.min(x, y))
end

-- ---- connections out ----

-- When each reply comes that was asked for; `ends` is what the backend does then. Of one that is being made: `maker`.
local function slot_of(program, y)
  local slot = program.slots[y % SLOTS + 1]
  return slot and slot.conn and slot or nil
end

local OPTIONS = { frame = "line" }

local function connect() return core.connect(M.ADDRESS, OPTIONS) end

-- Every other time a second task connects as well, and is cancelled when it has been given its connection, and has not
-- gone on.
function steps.connect(program, task, x, y)
  local index, at = y % SLOTS + 1, now()
  local before = program.slots[index]
  if before and (before.conn or not before.maker.over) then return end
  local slot = { maker = task, got = 0, due = {}, free_at = 0 }
  program.slots[index] = slot
  local other = x % 2 == 0 and core.spawn(connect)
  local conn, message = connect()
  if other then check(other:cancel(), program, task, "the second task has connected first") end
  check(conn, program, task, "connect(): %s", tostring(message))
  check_time(program, task, at)
  slot.conn = conn
  program.conns[#program.conns + 1] = conn
end

-- It answers one after the other.
function steps.ask(program, task, x, y)
  local slot = slot_of(program, x)
  if not slot or slot.ends then return end
  local kind = KINDS[y]
  check(slot.conn:send(("%s %d"):format(kind, x)), program, task, "send() says that the connection has closed")
  slot.free_at = math.max(slot.free_at, now()) + (kind == "late" and x or 0)
  for _ = 1, REPLIES[kind] do slot.due[#slot.due + 1] = slot.free_at end
  if kind == "last" or kind == "reset" then slot.ends = kind end
end

-- What read() has to say, and when; false where more than one thing may be.
local function foresee(slot, at, x)
  local until_ms, due = at + x, slot.due[slot.got + 1]
  if slot.ends == "reset" and slot.free_at <= until_ms then return false end
  if not due and slot.ends == "last" then due = slot.free_at end
  if due == until_ms then return false end
  if due and due < until_ms then return slot.due[slot.got + 1] and "line" or "EOF", math.max(at, due) end
  return "ETIMEDOUT", until_ms
end

local function check_line(program, task, slot, line)
  slot.got = slot.got + 1
  check(tonumber(line:match "^%d+") == slot.got, program, task, "read() %d: %q", slot.got, line)
  check(slot.due[slot.got], program, task, "read() %d: nobody has asked for that", slot.got)
  check(slot.due[slot.got] <= now(), program, task, "read() %d: it comes too early", slot.got)
end

-- Others may ask for more, or close it, while it waits.
function steps.read(program, task, x, y)
  local slot, at = slot_of(program, y), now()
  if not slot or (slot.reader and not slot.reader.over) then return end
  slot.reader = task
  local line, _, code = slot.conn:read(nil, x / 1000)
  slot.reader = nil
  local got = line and "line" or code
  if slot.is_closed then return check(got == "ECANCELED", program, task, "read() of a closed one: %s", got) end
  local wanted, wanted_at = foresee(slot, at, x)
  if line then check_line(program, task, slot, line) end
  if not wanted then
    local is_right = got == "line" or got == "ETIMEDOUT" or (got == "EOF" and slot.ends == "last")
      or (slot.ends == "reset" and (got == "ECONNRESET" or got == "ECANCELED"))
    return check(is_right, program, task, "read(): %s", tostring(got))
  end
  check(got == wanted, program, task, "read(): %s, not %s", tostring(got), wanted)
  check_time(program, task, wanted_at)
end

function steps.close(program, _, _, y)
  local slot = slot_of(program, y)
  if not slot then return end
  slot.conn:close()
  slot.is_closed = true
  program.slots[y % SLOTS + 1] = nil
end

-- Whatever happens to the others' requests, a reply is one's own.
function steps.request(program, task, x, y)
  local pools, which = program.pools, x % 2 + 1
  local kind = KINDS_OF_POOL[which][y]
  pools.serial = pools.serial + 1
  local name = ("%d/%d"):format(program.seed, pools.serial)
  local reply, message, code = pools[which]:request(("%s %d %s"):format(kind, x, name), { timeout = (x + 1) / 1000 })
  if reply then
    return check(reply:match "^%d+ (.*)$" == name, program, task, "request(%s): %q", name, reply)
  end
  check(message and code, program, task, "request(): %s, %s", tostring(message), tostring(code))
end

-- ---- programs ----

-- However it comes to its end: all of its tasks are over.
local function check_tasks(program)
  for _, task in ipairs(program.tasks) do
    check(task.over or not task.begun, program, task, "it is not over")
    local may_be_over = task.done or task.cancelled or program.agent.has_closed
    check(may_be_over, program, task, "it has neither returned nor been cancelled")
  end
end

local function check_conns(program)
  for _, conn in ipairs(program.conns) do
    local sent, message = conn:send "one 0"
    check(sent == nil and message == "closed", program, nil, "a connection outlives its agent")
  end
end

local function join_all(program)
  local i = 0
  while i < #program.tasks do
    i = i + 1
    local value, _, code = program.tasks[i].handle:join()
    check_joined(program, nil, program.tasks[i], value, code)
  end
end

local function run_program(program)
  local random = generator(program.seed)
  for _ = 1, 1 + draw(random, 2) do begin_task(program, nil, run_steps) end
  core.sleep(draw(random, 3 * WAIT_MS) / 1000)
  if draw(random, 2) == 1 then
    for _, task in ipairs(program.tasks) do cancel(program, nil, task) end
  end
  join_all(program)
  check_tasks(program)
  check_shared(program, program.own)
  for i = 1, SLOTS do
    local slot = program.slots[i]
    if slot and slot.conn then slot.conn:close() end
  end
  check_conns(program)
  core.sleep((WAIT_MS + 1) / 1000) -- for timers
  for _, timer in ipairs(program.timers) do
    check(timer.fired or timer.cancelled, program, nil, "a timer has not fired")
  end
end

-- ---- apps ----

local Runner = {}
Runner.__index = Runner

local function new_runner(conn, common) return setmetatable({ conn = conn, common = common, programs = {} }, Runner) end

-- "7": runs program 7. "generation 3": tells which one this is; the first who asks says so. "app": tells how often the
-- app's timer and its task have come round. "audit": nobody runs anything, so nothing is left.
function Runner:proceed(line)
  local common = self.common
  if line == "app" then return common.ticks .. " " .. common.rounds end
  if line == "audit" then
    check_shared({ seed = 0, agent = self }, common.shared)
    return "fine"
  end
  local generation = line:match "^generation (%d+)$"
  if generation then
    common.generation = common.generation or generation
    return common.generation
  end
  local program = { seed = tonumber(line), agent = self, shared = common.shared, pools = common.pools,
    own = new_shared(), tasks = {}, slots = {}, conns = {}, timers = {} }
  self.programs[program] = true
  core.spawn(function()
    run_program(program)
    self.programs[program] = nil
    self.conn:send("fine " .. line)
  end)
end

function Runner:closed()
  self.has_closed = true
  for program in pairs(self.programs) do
    check_tasks(program)
    check_conns(program)
  end
end

-- It goes to another generation only when it runs nothing.
function Runner:snapshot()
  local program = next(self.programs)
  if program then wrong(program, nil, "its agent migrates") end
  return true
end

function Runner.upgrade() end

local function new_common()
  local function pool(size, is_shared)
    return core.pool(M.ADDRESS, { frame = "line", size = size, wait = "20ms", idle = "50ms", pipeline = is_shared })
  end
  return { shared = new_shared(), pools = { serial = 0, pool(3, false), pool(2, true) }, ticks = 0, rounds = 0 }
end

-- The app has a timer, and a task with a connection out.
local function begin_app(common, app)
  app:every("10ms", function() common.ticks = common.ticks + 1 end)
  app:spawn(function()
    local conn = assert(core.connect(M.ADDRESS, OPTIONS))
    while true do
      conn:send "one 0"
      local line = conn:read()
      common.rounds = common.rounds + 1
      assert(tonumber(line:match "^%d+") == common.rounds)
      core.sleep "10ms"
    end
  end)
end

--- What the script of an app returns that runs programs for its clients.
---@param policy "pin"|"migrate"
---@return table
function M.app(policy)
  local common
  return {
    listen = "tcp://127.0.0.1:9000", frame = "line", limits = { outgoing = 100000 }, reload = policy,
    setup = function(app)
      common = new_common()
      begin_app(common, app)
    end,
    agent = function(conn) return new_runner(conn, common) end,
  }
end

-- ---- the backend ----

local Backend = {}
Backend.__index = Backend

function Backend:reply(text)
  self.count = self.count + 1
  return ("%d %s"):format(self.count, text)
end

function Backend:proceed(line)
  local kind, ms, text = line:match "^(%a+) (%d+) ?(.*)$"
  if kind == "none" then return end
  if kind == "reset" then return self.conn:abort() end
  if kind == "late" then sleep(tonumber(ms)) end
  if kind == "three" then return { self:reply(text), self:reply(text), self:reply(text) } end
  return self:reply(text), kind == "last" and "close" or nil
end

--- What they connect to: it numbers its replies.
---@return table
function M.backend()
  return { frame = "line",
    agent = function(conn) return setmetatable({ conn = conn, count = 0 }, Backend) end }
end

return M
