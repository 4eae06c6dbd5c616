--- Random programs of messages, for agents of several workers that run them and hold what happens against what should.
---
--- A program is a list of steps, drawn from its number alone: names are taken and given up, messages sent and asked
--- for, to agents with and without a socket, jobs given, agents and tasks ended in the middle of it. What is true for
--- all workers is in a shared dictionary: which messages were sent, and which have come.
---
---     -- app.lua, beside a copy of this file and of doubling.lua
---     return require("messages").app "pin"
---
---     app:connect():send("7")              -- runs program 7; "fine 7" comes when it is over
---
--- What is not as it should be is logged as messages.WRONG, and ends the agent.
local core = require "perilune"

local M = {}

M.WRONG = "the model says otherwise"

local STEPS_MAX, NAMES, USERS, WAIT_MS = 6, 5, 4, 6

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
  "sleep", "register", "register", "replace", "unregister", "send", "send", "send", "send", "call", "call", "call",
  "abandon", "job", "job", "burst",
}

local function next_step(random) return STEPS[draw(random, #STEPS)], draw(random, WAIT_MS), draw(random, 12) end

local function random_of(seed)
  local random = generator(seed)
  return random, draw(random, STEPS_MAX)
end

--- The steps of a program, for people.
---@param seed integer
---@return string
function M.describe(seed)
  local random, count = random_of(seed)
  local steps = {}
  for i = 1, count do steps[i] = ("%s(%d, %d)"):format(next_step(random)) end
  return ("program %d: %s"):format(seed, table.concat(steps, " "))
end

-- ---- what is wrong ----

local function wrong(seed, what, ...)
  local text = what:format(...)
  core.log("error", M.WRONG, { seed = seed, what = text })
  error(text, 0)
end

local function check(ok, seed, what, ...)
  if not ok then wrong(seed, what, ...) end
end

local function truth() return core.shared "truth" end

-- ---- who gets messages ----

local Receiver = {}

-- Each message comes once, by the name that it was sent to, and those of one sender to one name in their order.
function Receiver:message(topic, data, from)
  local seed = data.seed
  check(topic == data.to, seed, "a message to %s came by %s", data.to, tostring(topic))
  check(type(from) == "string", seed, "a message of %s came from %s", data.by, tostring(from))
  check(truth():delete(data.id), seed, "%s was not sent, or came before", data.id)
  local key = data.by .. ">" .. topic
  self.heard = self.heard or {}
  check(data.number > (self.heard[key] or 0), seed, "%s came after one that was sent later", data.id)
  self.heard[key] = data.number
  truth():incr "came"
  if data.takes then core.sleep(data.takes / 1000) end
  truth():incr "taken"
  return data.id, data.ends and self.key and "close" or nil
end

local User = { message = Receiver.message }

function User.snapshot(self) return self.heard or {} end
function User.upgrade(self, heard) self.heard = heard end

-- ---- the steps: each is given the program and two numbers ----

local steps = {}

function steps.sleep(_, x) core.sleep(x / 1000) end

local function name_of(y) return "name " .. y % NAMES end

-- Some keys are of agents without a socket.
local function key_of(y)
  if y % 3 == 0 then return "user:" .. y % USERS end
  return name_of(y)
end

-- What it has is nobody else's: but what somebody has who is about to end.
function steps.register(program, _, y)
  local agent, name = program.agent, name_of(y)
  local ok, _, code = core.register(name)
  if agent.names[name] and not ok then
    return check(code == "EEXIST", program.seed, "register(): %s", tostring(code))
  end
  check(ok or code == "EEXIST", program.seed, "register(): %s", tostring(code))
  agent.names[name] = ok or nil
end

function steps.replace(program, _, y)
  local name = name_of(y)
  local ok, _, code = core.register(name, { replace = true })
  check(ok, program.seed, "register(%s) with replace: %s", name, tostring(code))
  program.agent.names[name] = true
end

function steps.unregister(program, _, y)
  local name = name_of(y)
  local had = core.unregister(name)
  check(program.agent.names[name] or not had, program.seed, "it had the name %s, and never took it", name)
  program.agent.names[name] = nil
end

-- A message to somebody, and what it is to be known by.
local function new_message(program, x, y)
  local agent = program.agent
  agent.count = agent.count + 1
  return {
    seed = program.seed, id = agent.id .. "/" .. agent.count, number = agent.count, to = key_of(y), by = agent.id,
    takes = x > 3 and x - 3 or nil, ends = y == 9,
  }
end

-- It is in the dictionary before it can come.
local function announce(message)
  truth():set(message.id, true)
  truth():incr "announced"
end

local function withdraw(message)
  truth():delete(message.id)
  truth():incr("announced", -1)
end

local function note(program, message, ok, code)
  if ok then return truth():incr "sent" end
  withdraw(message)
  local may_be = code == "ENOENT" and not message.to:find "^user:" or code == "EBUSY"
  check(may_be, program.seed, "send(%s): %s", message.to, tostring(code))
end

function steps.send(program, x, y)
  local message = new_message(program, x, y)
  announce(message)
  local ok, _, code = core.send(message.to, message)
  note(program, message, ok, code)
end

-- More than may wait for one agent.
function steps.burst(program, _, y)
  for _ = 1, 12 do steps.send(program, 1, y) end
end

local MAY_FAIL = { ENOENT = true, EBUSY = true, ECANCELED = true, EDEADLK = true, ETIMEDOUT = true }

local function check_call(program, message, at, x, reply, code)
  local own = program.agent.names[message.to]
  if reply then return check(reply == message.id, program.seed, "call(): the reply to %s", tostring(reply)) end
  check(MAY_FAIL[code], program.seed, "call(%s): %s", message.to, tostring(code))
  check(code ~= "ENOENT" or not message.to:find "^user:", program.seed, "call(%s): ENOENT", message.to)
  check(code ~= "EDEADLK" or own, program.seed, "call(%s): EDEADLK", message.to)
  if code == "ETIMEDOUT" then
    -- Its worker may have stood still, and looked at the clock later.
    check(now() >= at + x, program.seed, "call(): it took %d ms, not %d", now() - at, x)
  end
end

-- It comes, or does not; that is not known before somebody has waited for it.
function steps.call(program, x, y)
  local message, at = new_message(program, x, y), now()
  announce(message)
  local reply, _, code = core.call(message.to, message, x / 1000)
  check_call(program, message, at, x, reply, code)
  if code == "ENOENT" or code == "EBUSY" or code == "EDEADLK" then withdraw(message) else truth():incr "sent" end
end

-- A call that nobody waits for any more.
function steps.abandon(program, x, y)
  local message, has_begun, is_over = new_message(program, x, y), false, false
  announce(message)
  local task = core.spawn(function()
    has_begun = true
    core.defer(function() is_over = true end)
    core.call(message.to, message, "1s")
  end)
  core.sleep((x % 3) / 1000)
  task:cancel()
  task:join()
  check(is_over == has_begun, program.seed, "a task that was cancelled is not over")
end

function steps.job(program, x, y)
  local what = y == 1 and "fails" or y == 2 and "missing" or "doubles"
  local number = program.seed * 10 + x
  local ok, result, message, code = pcall(core.job, "doubling", what, number)
  if code == "EBUSY" then return end
  if what == "missing" then
    check(not ok and tostring(result):find "no function 'missing'", program.seed, "job(): %s", tostring(result))
  elseif what == "fails" then
    check(ok and code == "EFAULT", program.seed, "job() of one that fails: %s, %s", tostring(message), tostring(code))
  else
    check(ok and result == 2 * number, program.seed, "job(): %s, %s", tostring(result), tostring(code))
  end
end

-- ---- agents ----

local Runner = { message = Receiver.message }
Runner.__index = Runner

local function run_program(program)
  local random, count = random_of(program.seed)
  for _ = 1, count do
    local step, x, y = next_step(random)
    steps[step](program, x, y)
  end
end

local function counts()
  local texts = {}
  for i, name in ipairs { "announced", "sent", "came", "taken" } do texts[i] = truth():get(name) or 0 end
  return table.concat(texts, " ")
end

-- "7": runs program 7. "counts": how many messages may have been sent, how many were, for sure, how many have come, and
-- in how many calls that came to its end.
function Runner:proceed(line)
  if line == "counts" then return counts() end
  local program = { seed = tonumber(line), agent = self }
  run_program(program)
  return "fine " .. line
end

function Runner.snapshot(self) return { count = self.count, names = self.names, heard = self.heard } end
function Runner.upgrade(self, state) self.count, self.names, self.heard = state.count, state.names, state.heard end

local function new_runner(conn)
  return setmetatable({ id = ("%.0f"):format(conn.id), count = 0, names = {} }, Runner)
end

--- What the script of an app returns that runs programs for its clients.
---@param policy "pin"|"migrate"
---@return table
function M.app(policy)
  return {
    listen = "tcp://127.0.0.1:9000", frame = "line", reload = policy, agent = new_runner,
    limits = { mailbox = 8 }, shared = { truth = "8m" },
    agents = { user = { agent = User, idle = "20ms", reload = policy, limits = { mailbox = 8 } } },
    jobs = { workers = 2, queue = 4, when_full = "shed" },
  }
end

return M
