--- perilune.job() in threads: several workers, jobs that are cut, reloads, stops. What is given and comes back:
--- spec/behaviour/jobs_spec.lua.
local command = require "spec.support.command"
local has = require "spec.support.has"
local operator = require "spec.support.operator"
local reloading = require "spec.support.reload"
local server = require "spec.support.server"
local wait = require "spec.support.wait"

-- A job of gate() runs until somebody opens its gate; `began` counts them.
local WORK = [[
  local perilune = require "perilune"
  local gates = perilune.shared "gates"
  local M = {}
  local calls = 0
  function M.echo(...) return ... end
  function M.calls() calls = calls + 1 return calls end
  function M.gate(name)
    gates:incr "began"
    while not gates:get(name) do end
    return name .. " is open"
  end
  function M.loop() while true do end end
  function M.fill() local t = {} for i = 1, 1e9 do t[i] = { i } end end
  function M.boom() error "no luck" end
  function M.file(path)
    gates:incr "began"
    while not io.open(path) do end
    return "there it is"
  end
  function M.popen(text) return io.popen(text):read "*l" end
  return M]]

-- "gate a": the job gate("a"). "open a" opens a gate, in the handler; "began": how many have begun.
local SCRIPT = [[
  local perilune = require "perilune"
  local gates = perilune.shared "gates"
  local Agent = {}
  function Agent:proceed(line)
    local what, name = line:match "^(%%S+) ?(.*)$"
    if what == "open" then return tostring(gates:set(name, true)) end
    if what == "began" then return tostring(gates:get "began" or 0) end
    local lane = what:match "^slow%%.(.*)$"
    local result, message, code
    if lane then
      result, message, code = perilune.job({ lane = "slow" }, "work", lane, name)
    else
      result, message, code = perilune.job("work", what, name)
    end
    return %q .. tostring(result == nil and (code .. ": " .. message) or result)
  end
  return { listen = "tcp://127.0.0.1:0", frame = "line", agent = Agent, shared = { gates = "64k" },
    timeout = { idle = false, read = false, drain = "20s" }, limits = { proceed = "20s" },
    jobs = { proceed = false, %s } }]]

local function script(jobs, version) return SCRIPT:format(version or "", jobs or "") end

local function start(jobs, options)
  local all = { script = script(jobs), modules = { work = WORK }, control = "control.sock" }
  for key, value in pairs(options or {}) do all[key] = value end
  return server.start(all)
end

local function ask(app, line)
  local client = app:connect():send(line .. "\n")
  local reply = client:recv_line()
  client:close()
  return reply
end

local function jobs_of(app) return operator.status(app).jobs end

-- Waits until so many jobs have begun that wait for their gate.
local function wait_began(app, n)
  wait.until_true(function() return ("%d jobs to begin"):format(n) end, function()
    return tonumber(ask(app, "began")) == n
  end)
end

-- Waits until the figures are so; they add up whenever they are read.
local function wait_jobs(app, expected)
  local jobs
  wait.until_true(function() return "figures of jobs" end, function()
    jobs = jobs_of(app)
    assert.equal(jobs.submitted, jobs.done + jobs.failed + jobs.shed + jobs.cancelled + jobs.waiting + jobs.running)
    for name, value in pairs(expected) do
      if jobs[name] ~= value then return false end
    end
    return true
  end)
  return jobs
end

describe("jobs of a server", function()
  after_each(server.finish)

  it("run beside their worker, in as many threads as there are", function()
    local app = start "workers = 2"
    local a, b = app:connect():send "gate a\n", app:connect():send "gate b\n"
    wait_began(app, 2)
    assert.equal("true", ask(app, "open b"))
    assert.equal("b is open", b:recv_line())
    ask(app, "open a")
    assert.equal("a is open", a:recv_line())
    wait_jobs(app, { workers = 2, threads = 2, submitted = 2, done = 2 })
  end)

  it("are given by all workers, and each is told its own", function()
    local app = start("workers = 2", { workers = 3 })
    local clients = {}
    for i = 1, 12 do clients[i] = app:connect() end
    for round = 1, server.scaled(50, 10) do
      for i, one in ipairs(clients) do one:send(("echo %d.%d\n"):format(i, round)) end
      for i, one in ipairs(clients) do assert.equal(("%d.%d"):format(i, round), one:recv_line()) end
    end
    wait_jobs(app, { done = 12 * server.scaled(50, 10), waiting = 0, running = 0 })
  end)

  it("have no thread before there is one", function()
    local app = start "workers = 2"
    assert.same({ 0, 0 }, { jobs_of(app).threads, jobs_of(app).submitted })
    ask(app, "echo x")
    assert.equal(1, jobs_of(app).threads)
    local without = server.start { script = reloading.script "x", control = "control.sock" }
    assert.is_nil(jobs_of(without))
  end)

  it("are ended that loop for ever, and their thread goes on", function()
    local app = start "workers = 1, proceed = '100ms'"
    assert.equal("1", ask(app, "calls"))
    has("ETIME: work.lua:12: it ran for over 100 ms", ask(app, "loop"))
    assert.equal("1", ask(app, "calls"))
    has("work.lua:12: in loop\napp.lua:", app:wait_log("job failed").traceback)
  end)

  it("are ended that fill the memory", function()
    local app = start "workers = 1, memory = '8m'"
    has("ENOMEM: work.lua:13: the worker's memory is used up (jobs.memory is 8m)", ask(app, "fill"))
    assert.equal("x", ask(app, "echo x"))
  end)

  it("are taken out where their time is over, and ended where they run", function()
    local app = start "workers = 1, timeout = '1s'"
    local running, waiting = app:connect():send "gate never\n", app:connect()
    wait_began(app, 1)
    waiting:send "gate neither\n"
    has("ETIMEDOUT: timeout: work.gate() has not come to its end", running:recv_line())
    has("ETIMEDOUT", waiting:recv_line())
    wait_jobs(app, { cancelled = 2, waiting = 0, running = 0 })
    assert.equal("x", ask(app, "echo x"))
  end)

  it("load a module anew that was being loaded when its job was ended", function()
    local app = start("workers = 1, timeout = '1s'", { modules = { work = WORK, late = [[
      local gates = require "perilune".shared "gates"
      gates:incr "began"
      while not gates:get "late" do end
      return { f = function() return "loaded" end }]] } })
    reloading.reload_to(app, (script("workers = 1, timeout = '1s'"):gsub('perilune.job%("work", what', [[perilune.job(
      what == "late" and "late" or "work", what == "late" and "f" or what]])))
    assert.equal("1", ask(app, "calls"))
    has("ETIMEDOUT", ask(app, "late"))
    ask(app, "open late")
    assert.equal("loaded", ask(app, "late"))
    assert.equal("2", ask(app, "calls"))
  end)

  it("are ended in a thread that has not loaded the VM for the one before", function()
    for ms = 1, server.scaled(6, 2) do -- some are over meanwhile
      local app = start "workers = 1, timeout = '1s'"
      reloading.reload_to(app, (script("workers = 1, timeout = '1s'"):gsub('perilune.job%("work"',
        ('perilune.job({ timeout = what == "echo" and "%dms" or "1s" }, "work"'):format(ms))))
      ask(app, "echo x")
      has("ETIMEDOUT", ask(app, "loop"))
      wait_jobs(app, { waiting = 0, running = 0 })
      server.finish()
    end
  end)

  it("wait no longer where a reload brings threads for them, or lets their lane run more", function()
    for _, change in ipairs {
      { "workers = 1", "workers = 2" },
      { "workers = 2, lanes = { { 'slow', workers = 1 } }", "workers = 2, lanes = { { 'slow', workers = 2 } }" },
    } do
      local app = start(change[1])
      local first = app:connect():send "gate a\n"
      wait_began(app, 1)
      local second = app:connect():send "gate b\n"
      wait_jobs(app, { waiting = 1, running = 1 })
      reloading.reload_to(app, script(change[2]))
      wait_began(app, 2)
      ask(app, "open a")
      ask(app, "open b")
      assert.same({ "a is open", "b is open" }, { first:recv_line(), second:recv_line() })
      server.finish()
    end
  end)

  it("end with their connection, waiting or running", function()
    local app = start "workers = 1"
    local running = app:connect():send "gate never\n"
    wait_began(app, 1)
    local waiting = app:connect():send "gate neither\n"
    wait_jobs(app, { waiting = 1, running = 1 })
    waiting:close()
    wait_jobs(app, { cancelled = 1, waiting = 0, running = 1 })
    running:close()
    wait_jobs(app, { cancelled = 2, waiting = 0, running = 0 })
    assert.equal("x", ask(app, "echo x"))
    assert.equal("1", ask(app, "began"))
  end)

  it("are shed where there is no room", function()
    local app = start "workers = 1, queue = 1, when_full = 'shed'"
    local first = app:connect():send "gate a\n"
    wait_began(app, 1)
    local second = app:connect():send "echo second\n"
    wait_jobs(app, { waiting = 1, running = 1 })
    assert.equal("EBUSY: busy: too many jobs wait", ask(app, "echo third"))
    ask(app, "open a")
    assert.equal("a is open", first:recv_line())
    assert.equal("second", second:recv_line())
    wait_jobs(app, { shed = 1, done = 2 })
  end)

  it("raise where there is no room and they are to", function()
    local app = start "workers = 1, queue = 1, when_full = 'error'"
    local first, second = app:connect():send "gate a\n", app:connect()
    wait_began(app, 1)
    second:send "echo second\n"
    wait_jobs(app, { waiting = 1, running = 1 })
    assert.equal("", (app:connect():send("echo third\n"):recv_all()))
    has("perilune.job: too many jobs wait (jobs.queue is 1)", app:wait_log("handler failed").error)
    ask(app, "open a")
    first:recv_line()
    assert.equal("second", second:recv_line())
  end)

  it("wait for room where they are to block", function()
    local app = start "workers = 1, queue = 1"
    local clients = { app:connect():send "gate a\n" }
    wait_began(app, 1)
    for i = 2, 8 do clients[i] = app:connect():send(("echo %d\n"):format(i)) end
    wait_jobs(app, { waiting = 7, shed = 0 })
    ask(app, "open a")
    for i = 2, 8 do assert.equal(tostring(i), clients[i]:recv_line()) end
  end)

  it("of a lane with a bound leave threads to the others", function()
    local app = start "workers = 2, lanes = { 'fast', { 'slow', workers = 1 } }"
    local slow = { app:connect():send "slow.gate a\n", app:connect():send "slow.gate a\n" }
    wait_began(app, 1)
    wait_jobs(app, { running = 1, waiting = 1 })
    assert.equal("x", ask(app, "echo x"))
    local lanes = jobs_of(app).lanes
    assert.same({ "fast", 0, "slow", 1, 1 },
      { lanes[1].name, lanes[1].waiting, lanes[2].name, lanes[2].waiting, lanes[2].running })
    ask(app, "open a")
    for _, one in ipairs(slow) do assert.equal("a is open", one:recv_line()) end
  end)

  it("may block where they are let, and nobody else may", function()
    local app = start "workers = 1, unsafe = { 'io.popen' }"
    assert.equal("blocked", ask(app, "popen echo blocked"))
    local shut = start "workers = 1"
    has("EFAULT: work.lua:20: ", ask(shut, "popen echo blocked"))
  end)

  describe("over a reload", function()
    it("stay with their generation, whose VMs go with it", function()
      local app = start "workers = 1"
      local old = app:connect():send "gate a\n"
      wait_began(app, 1)
      reloading.reload_to(app, script("workers = 1", "new: "))
      local new = app:connect():send "calls\n"
      ask(app, "open a")
      assert.equal("a is open", old:recv_line())
      assert.equal("new: 1", new:recv_line())
      assert.equal("1", old:send("calls\n"):recv_line())
      assert.equal("new: 2", new:send("calls\n"):recv_line())
      old:close()
      wait.until_true(function() return "the old generation to go" end, function()
        return #operator.status(app).generations == 1
      end)
      assert.equal("new: 3", new:send("calls\n"):recv_line())
    end)

    it("come back while it goes on, all of them", function()
      local app = start("workers = 2", { workers = 2 })
      local clients, sent = {}, {}
      for i = 1, 8 do clients[i], sent[i] = app:connect(), 0 end
      for round = 1, server.scaled(6, 3) do
        reloading.rewrite(app, script("workers = " .. (round % 3 + 1), "v" .. round .. " "))
        app:signal "HUP"
        for _ = 1, server.scaled(30, 10) do
          for i, one in ipairs(clients) do
            sent[i] = sent[i] + 1
            one:send(("echo %d\n"):format(sent[i]))
          end
          for i, one in ipairs(clients) do has(tostring(sent[i]), one:recv_line()) end
        end
        reloading.outcome(app, round)
        clients[1]:close()
        table.remove(clients, 1)
        table.remove(sent, 1)
        clients[#clients + 1], sent[#sent + 1] = app:connect(), 0
      end
      wait_jobs(app, { cancelled = 0, failed = 0, waiting = 0, running = 0 })
    end)

    it("may be off from then on, and on again", function()
      local app = start "workers = 1"
      local old = app:connect()
      assert.equal("1", old:send("calls\n"):recv_line())
      reloading.reload_to(app, (script("", "off ")):gsub("jobs = %b{}", "jobs = false"))
      assert.equal("", (app:connect():send("calls\n"):recv_all()))
      assert.equal("2", old:send("calls\n"):recv_line())
      reloading.reload_to(app, script("workers = 2", "on "))
      assert.equal("on 1", ask(app, "calls"))
    end)
  end)

  -- Whatever becomes of whom, all are accounted for, and who is answered gets its own answer.
  it("add up, in any order of everything", function()
    local JOBS = "workers = 2, queue = 3, when_full = 'shed', timeout = '10s', "
      .. "lanes = { 'fast', { 'slow', workers = 1 } }"
    local app = start(JOBS, { workers = 2 })
    local draw = math.random
    math.randomseed(tonumber(os.getenv "PERILUNE_SEED") or 7)
    local clients, owed, sent = {}, {}, 0
    for i = 1, 6 do clients[i], owed[i] = app:connect(), {} end
    local function settle(i)
      for _, expected in ipairs(owed[i]) do
        local reply = clients[i]:recv_line()
        assert.is_true(reply:find(expected, 1, true) ~= nil or reply:find("EBUSY", 1, true) ~= nil, reply)
      end
      owed[i] = {}
    end
    local function leave(i)
      clients[i]:send((draw(2) == 1 and "gate" or "slow.gate") .. " never\n")
      if draw(2) == 1 then clients[i]:reset() end
      clients[i]:close()
      clients[i], owed[i] = app:connect(), {}
    end
    local reloads = 0
    for _ = 1, server.scaled(1500, 300) do
      local i, what = draw(#clients), draw(100)
      if what <= 80 then
        sent = sent + 1
        clients[i]:send(("%s %d.\n"):format(draw(3) == 1 and "slow.echo" or "echo", sent))
        owed[i][#owed[i] + 1] = sent .. "."
      elseif what <= 90 then settle(i)
      elseif what <= 97 then
        settle(i)
        leave(i)
      elseif what <= 98 then
        local reply = ask(app, "boom")
        assert.is_true(reply:find "EFAULT.*no luck" ~= nil or reply:find "EBUSY" ~= nil, reply)
      elseif reloads < 6 then
        reloads = reloads + 1
        reloading.rewrite(app, script(JOBS, "v" .. reloads .. " "))
        app:signal "HUP"
        reloading.outcome(app, reloads)
      end
    end
    for i = 1, #clients do settle(i) end
    wait_jobs(app, { waiting = 0, running = 0 })
  end)

  describe("at a stop", function()
    it("are finished, those that wait too", function()
      local app = start "workers = 1"
      local path = app.folder .. "/there"
      local running, waiting = app:connect():send("file " .. path .. "\n"), app:connect()
      wait_began(app, 1)
      waiting:send "echo waited\n"
      wait_jobs(app, { waiting = 1, running = 1 })
      app:signal "TERM"
      app:wait_log "draining"
      command.write(path, "")
      assert.equal("there it is", running:recv_line())
      assert.equal("waited", waiting:recv_line())
      assert.equal(0, app:wait_end().code)
      local summary = app:wait_log "stopped"
      assert.same({ 2, 2, 0 }, { summary.jobs, summary.jobs_done, summary.jobs_cancelled })
    end)

    it("are cut with their connections when its time is over", function()
      local app = start("workers = 1", { args = { "--set", "timeout.drain=1s" } })
      app:connect():send "gate never\n"
      wait_began(app, 1)
      app:connect():send "echo x\n"
      wait_jobs(app, { waiting = 1, running = 1 })
      app:signal "TERM"
      assert.equal(1, app:wait_end().code)
      local summary = app:wait_log "stopped"
      assert.same({ 2, 2, 2 }, { summary.cut, summary.jobs, summary.jobs_cancelled })
    end)

    it("are left behind where they do not return from the system", function()
      local app = start("workers = 1, unsafe = { 'io.popen' }", { args = { "--set", "timeout.drain=1s" } })
      app:connect():send "popen echo $$ > pid; exec sleep 1000\n"
      wait.until_true(function() return "the program to begin" end, function()
        return io.open(app.folder .. "/pid")
      end)
      app:signal "TERM"
      assert.equal(1, app:wait_end().code)
      app:wait_log "a job does not return: it is left behind"
      os.execute(("kill $(cat %s/pid)"):format(app.folder))
    end)
  end)
end)
