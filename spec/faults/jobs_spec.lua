--- Each allocation fails once while jobs are given, run and come back, and each start of a thread: callers are told, or
--- their connection ends; nobody waits for ever, and the counts add up.
local command = require "spec.support.command"
local faults = require "spec.support.faults"
local server = require "spec.support.server"

local WORK = [[
  local M = {}
  function M.echo(...) return ... end
  function M.boom(text) error(text) end
  return M]]

-- A string, a table, a fault; then one that nobody waits for.
local SCRIPT = [[
  local perilune = require "perilune"
  local Agent = {}
  local function told(value, message, code)
    if value == nil then return code or message or "nothing" end
    return type(value) == "table" and value.text or value
  end
  function Agent:proceed(line)
    if line == "table" then return told(perilune.job("work", "echo", { text = line })) end
    if line == "large" then return tostring(#told(perilune.job("work", "echo", ("x"):rep(100000)))) end
    if line == "left" then
      perilune.spawn(function() perilune.job("work", "echo", line) end):cancel()
      return line
    end
    return told(perilune.job("work", line == "boom" and "boom" or "echo", line))
  end
  return { frame = "line", agent = Agent, timeout = { drain = "3s" }, listen = "tcp://127.0.0.1:0",
    jobs = { workers = 1, timeout = "20s" } }]]

local TALK = { "text", "table", "large", "boom", "left", "text" }
local REPLIES = { text = "text", table = "table", large = "100000", boom = "EFAULT", left = "left" }
local EXCUSES = { ENOMEM = true, EFAULT = true, EAGAIN = true, ["6"] = true } -- "6": the length of "ENOMEM", "EFAULT"

-- How many replies were as without a fault; the connection may end, and never be silent.
local function talk(app)
  local client, right = app:connect(), 0
  for _, line in ipairs(TALK) do
    local sent, reply = pcall(function() return client:send(line .. "\n"):recv_line() end)
    if not sent or reply == "" then
      assert(not tostring(reply):find "timeout", reply)
      break
    end
    assert.is_true(reply == REPLIES[line] or EXCUSES[reply] == true, line .. ": " .. reply)
    right = right + (reply == REPLIES[line] and 1 or 0)
  end
  client:close()
  return right
end

local function check_counts(app, fault)
  local jobs = faults.status(app).jobs
  assert.equal(jobs.submitted,
    jobs.done + jobs.failed + jobs.shed + jobs.cancelled + jobs.waiting + jobs.running, fault)
  return jobs
end

-- Until there is no call more.
local function each(kind)
  local number, hit = 0, 0
  repeat
    number = number + 1
    local fault = kind .. ":" .. number
    local app = faults.start(fault, { script = SCRIPT, modules = { work = WORK }, workers = 1,
      control = "control.sock" })
    faults.arm(app)
    local right = talk(app)
    local fired = faults.fired(app)
    if right < #TALK then hit = hit + 1 end
    if fired then assert.equal(#TALK, talk(app), fault) end
    local jobs = check_counts(app, fault)
    assert.same({ 0, 0 }, { jobs.waiting, jobs.running }, fault)
    assert.equal(0, app:stop().code, fault)
    command.remove(app.folder)
  until not fired
  return number - 1, hit
end

describe("jobs", function()
  after_each(server.finish)

  it("are told of, or their connection ends, where there is no memory", function()
    local calls, hit = each "memory"
    assert.is_true(calls > 10 and hit > 3, calls .. " calls, " .. hit .. " of them met")
  end)

  it("are told of where there is no memory for Lua", function()
    assert.is_true((each "lua_memory") > 10)
  end)

  it("are told of where no thread can be started", function()
    local calls, hit = each "pthread_create"
    assert.is_true(calls >= 1 and hit >= 1, calls .. " calls, " .. hit .. " of them met")
  end)
end)
