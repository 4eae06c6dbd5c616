--- perilune.job(), in memory: what is given, what comes back, what becomes of jobs when there are too many, and when
--- nobody waits for them any more. In threads: spec/server/jobs_spec.lua.
local has = require "spec.support.has"
local memory = require "spec.support.memory"

-- What jobs call.
local WORK = [[
  local perilune = require "perilune"
  local M = { shelf = {} }
  local calls = 0
  function M.echo(...) return ... end
  function M.count(...) return select("#", ...) end
  function M.calls() calls = calls + 1 return calls end
  function M.boom(text) error(text) end
  function M.raise(value) error(value) end
  function M.double(t) local d = {} for k, v in pairs(t) do d[k] = v * 2 end return d end
  function M.rep(n) return ("x"):rep(n) end
  function M.note(text) perilune.log("info", text) return text end
  function M.fn() return print end
  function M.loop() while true do end end
  function M.fill() local t = {} for i = 1, 1e9 do t[i] = { i } end end
  function M.caught() while true do pcall(function() while true do end end) end end
  function M.yield() coroutine.yield() end
  function M.wrapped() return coroutine.wrap(function() coroutine.yield "yielded" end)() end
  function M.global() surprise = 1 end
  function M.shared(n) return perilune.shared "counts":incr("n", n) end
  function M.clock() return perilune.now(), perilune.time() end
  function M.call(name) return perilune[name](1) end
  M.number = 5
  return M]]

-- A handler that runs the line as Lua, with `job` at hand, and replies with what that returns.
local RUN = [[
  local perilune = require "perilune"
  local function show(...)
    local texts = {}
    for i = 1, select("#", ...) do
      local value = select(i, ...)
      if type(value) == "table" then
        local keys = {}
        for key, item in pairs(value) do keys[#keys + 1] = tostring(key) .. "=" .. tostring(item) end
        table.sort(keys)
        value = "{" .. table.concat(keys, " ") .. "}"
      end
      texts[i] = tostring(value)
    end
    return table.concat(texts, ", ")
  end
  local function job(...) return perilune.job("work", ...) end
  local Agent = {}
  function Agent:proceed(line)
    local run = assert(load("local perilune, job, show, conn = ... " .. line))
    return show(run(perilune, job, show, self.conn))
  end
  return { listen = "tcp://127.0.0.1:0", frame = "line", agent = Agent, shared = { counts = "64k" },
    limits = { proceed = "30s" }, timeout = { idle = false, read = false, drain = "50s" }, %s }]]

local function start(jobs, modules)
  local all = { work = WORK }
  for name, text in pairs(modules or {}) do all[name] = text end
  return assert(memory.script(RUN:format(jobs == false and "" or ("jobs = { %s }"):format(jobs or "")), all))
end

-- In one line.
local function lua(text) return (text:gsub("\n%s*", " ")) end

local function ask(app, text) return app:connect():send(lua(text)):receive() end

local function counts(app, ...)
  local found = {}
  local all = app:counters()
  for i, name in ipairs { ... } do found[i] = all["jobs_" .. name] end
  return found
end

local function assert_add_up(app)
  local c = app:counters()
  assert.equal(c.jobs, c.jobs_done + c.jobs_failed + c.jobs_shed + c.jobs_cancelled + c.jobs_waiting + c.jobs_running)
end

-- One whose files stay, for a reload.
local folder

local function kept_app()
  folder = os.tmpname()
  os.remove(folder)
  assert(require("lfs").mkdir(folder))
  for name, text in pairs { app = RUN:format "jobs = { workers = 1 }", work = WORK } do
    local file = assert(io.open(("%s/%s.lua"):format(folder, name), "w"))
    assert(file:write(text) and file:close())
  end
  return memory.open(folder .. "/app.lua")
end

local function finish()
  memory.finish()
  for _, name in ipairs(folder and { "/app.lua", "/work.lua", "" } or {}) do os.remove(folder .. name) end
  folder = nil
end

describe("perilune.job", function()
  after_each(finish)

  it("returns what the function has returned", function()
    assert.equal("1, two, nil, true, false, nil", ask(start(), "return job('echo', 1, 'two', nil, true, false, nil)"))
  end)

  it("returns nothing where the function does not", function()
    assert.equal("", ask(start(), "return job('echo')"))
  end)

  it("copies tables both ways", function()
    local app = start()
    assert.equal("{a=2 b=4}, {1=x}", ask(app, "return job('double', { a = 1, b = 2 }), job('echo', { 'x' })"))
    assert.equal("false", ask(app, "local t = {} return job('echo', t) == t"))
  end)

  it("takes bytes of any kind, and 64-bit numbers", function()
    local app = start()
    assert.equal("true", ask(app, [[local s = "\0\255\n" .. ("y"):rep(70000) return job("echo", s) == s]]))
    assert.equal("9007199254740993LL", ask(app, "return job('echo', 9007199254740993LL)"))
  end)

  it("takes 255 values, and no more", function()
    local app = start()
    assert.equal("255", ask(app, "local t = {} for i = 1, 255 do t[i] = i end return job('count', unpack(t))"))
    assert.equal("255", ask(app, "return select('#', job('echo', unpack({}, 1, 255)))"))
    has("more than 255 arguments", ask(app, "return pcall(job, 'echo', unpack({}, 1, 256))"))
  end)

  it("refuses what is no plain data, and says where it is", function()
    local app = start()
    has("perilune.job: only plain data can be given to a job: the value[\"f\"] is a function",
      ask(app, "return pcall(job, 'echo', { f = print })"))
    has("has a metatable", ask(app, "return pcall(job, 'echo', setmetatable({}, {}))"))
    has("only plain data can be returned by a job: the value is a function", ask(app, "return job('fn')"))
  end)

  it("keeps modules between jobs, in each thread", function()
    local app = start "workers = 2"
    assert.equal("1, 1, 2, 2", ask(app, "return job('calls'), job('calls'), job('calls'), job('calls')"))
  end)

  it("loads a module when it is first needed, and never the script", function()
    local app = start("workers = 1", { late = "require('perilune').log('info', 'late') return { f = function() end }" })
    assert.equal(0, memory.count(app, "late"))
    for _ = 1, 2 do app:connect():send "perilune.job('late', 'f')":expect "" end
    assert.equal(1, memory.count(app, "late"))
  end)

  it("says on whose behalf it logs", function()
    local app = start()
    local client = app:connect()
    client:send "return job('note', 'hello')":expect "hello"
    local entry = app:log "hello"[1]
    assert.same({ "work.note", 1, 0, 1 }, { entry.job, entry.conn, entry.worker, entry.generation })
  end)

  it("has dictionaries and the app's clock", function()
    local app = start()
    assert.equal("5", ask(app, "return job('shared', 5)"))
    assert.equal("6", ask(app, "return perilune.shared 'counts':incr('n')"))
    app:advance(10)
    assert.equal("true, true", ask(app, [[local now, time = job "clock"
      return now == perilune.now(), time == perilune.time()]]))
  end)

  it("lets nothing in a job wait, or begin anything", function()
    local app = start()
    for _, name in ipairs { "sleep", "connect", "resolve", "spawn", "after", "every", "all", "job" } do
      local reply = ask(app, ("return job('call', %q)"):format(name))
      has(("perilune.%s: not in a job, which has no agent"):format(name), reply)
    end
  end)

  it("can be given by a task, by several at once, and by the app", function()
    local app = start("workers = 2")
    assert.equal("a, b, c", ask(app, [[local function give(value) return function() return job("echo", value) end end
      return perilune.spawn(give "a"):join(), perilune.all { give "b", give "c" }]]))
    local other = assert(memory.script([[
      local perilune = require "perilune"
      return { listen = "tcp://127.0.0.1:0", frame = "line", agent = { proceed = function() end }, jobs = {},
        setup = function(app) app:spawn(function() perilune.job("work", "note", "from the app") end) end }]],
      { work = WORK }))
    other:settle()
    assert.equal(1, memory.count(other, "from the app"))
    assert.is_nil(other:log "from the app"[1].conn)
  end)

  describe("raises", function()
    it("where there are no jobs", function()
      for _, settings in ipairs { false, "workers = false" } do
        has("perilune.job: there are no jobs: in the script's settings, jobs = { workers = 2 }",
          ask(start(settings), "return pcall(job, 'echo')"))
      end
    end)

    it("in setup(), where nothing can wait", function()
      local app, message = memory.script([[
        return { listen = "tcp://127.0.0.1:0", frame = "line", agent = { proceed = function() end }, jobs = true,
          setup = function() require("perilune").job("work", "note", "x") end }]], { work = WORK })
      assert.is_nil(app)
      has("perilune.job: only a running handler can", message)
    end)

    it("where there is no such module, or it is none", function()
      local app = start(nil, { five = "return 5" })
      has("perilune.job: there is no module 'nowhere' for f(): it is no file of the app",
        ask(app, "return pcall(perilune.job, 'nowhere', 'f')"))
      has("perilune.job: module 'five' returns 5, and not a table with a function f()",
        ask(app, "return pcall(perilune.job, 'five', 'f')"))
      has("perilune.job: there is no module '../x' for f()", ask(app, "return pcall(perilune.job, '../x', 'f')"))
    end)

    it("where there is no such function, and what was meant", function()
      local app = start()
      has("perilune.job: module 'work' has no function 'ehco' (did you mean \"echo\"?)",
        ask(app, "return pcall(job, 'ehco')"))
      has("perilune.job: module 'work' has no function 'number'", ask(app, "return pcall(job, 'number')"))
    end)

    it("of names that are none", function()
      local app = start()
      has("a job runs in another VM", ask(app, "return pcall(perilune.job, print)"))
      has("expects the name of a function", ask(app, "return pcall(perilune.job, 'work')"))
      has("expects the name of a module", ask(app, "return pcall(perilune.job)"))
    end)

    it("of options that there are not", function()
      local app = start "lanes = { 'fast', 'slow' }"
      has('perilune.job: there is no lane "fats" (did you mean "fast"?)',
        ask(app, "return pcall(perilune.job, { lane = 'fats' }, 'work', 'echo')"))
      has('unknown option lanes (did you mean "lane"?)',
        ask(app, "return pcall(perilune.job, { lanes = 'fast' }, 'work', 'echo')"))
      has("timeout: a job has one", ask(app, "return pcall(perilune.job, { timeout = 0 }, 'work', 'echo')"))
      has("expects a duration", ask(app, "return pcall(perilune.job, { timeout = 'x' }, 'work', 'echo')"))
    end)

    it("where nothing can wait", function()
      local app = start()
      has("cannot wait inside a coroutine",
        ask(app, "return coroutine.wrap(function() return pcall(job, 'echo') end)()"))
    end)
  end)

  describe("that fails", function()
    it("tells its caller where, and the log both lines", function()
      local app = start()
      assert.equal("nil, work.lua:7: no luck, EFAULT", ask(app, "return job('boom', 'no luck')"))
      local entry = app:log "job failed"[1]
      assert.same({ "no luck", "work.lua:7", "work.boom", 1 }, { entry.error, entry.place, entry.job, entry.conn })
      has("work.lua:7: in boom\napp.lua:20: gives the job", entry.traceback)
      has("function M.boom(text) error(text) end", entry.excerpt)
      has("\n    app.lua:20: gives the job\n", entry.excerpt)
      assert.equal(0, #app:faults())
    end)

    it("is logged with the agent without a socket that has given it, which has no peer", function()
      local app = start [[workers = 1 }, agents = { user = { agent = {
        message = function() return (job("boom", "no luck")) end } }]]
      assert.equal("nil", ask(app, "return (perilune.call('user:1', 'x'))"))
      local entry = app:log "job failed"[1]
      assert.same({ "work.boom", "user:1" }, { entry.job, entry.agent, entry.peer, entry.listener })
    end)

    it("is logged once, and counted, where it fails again and again", function()
      local app = start()
      local client = app:connect()
      for _ = 1, 20 do client:send "return (job('boom', 'again'))":expect "nil" end
      assert.equal(1, memory.count(app, "job failed"))
      assert.same({ 20, 0 }, counts(app, "failed", "done"))
    end)

    it("may raise any value", function()
      local app = start()
      has("nil, work.lua:8: ", ask(app, "return job('raise', nil)"))
      has("{ code = 5 }", ask(app, "return job('raise', { code = 5 })"))
    end)

    it("does not spoil the next one", function()
      local app = start "workers = 1"
      ask(app, "job('calls') job('boom', 'x')")
      assert.equal("2", ask(app, "return job('calls')"))
    end)

    it("is what a module is that cannot be loaded", function()
      local app = start("workers = 1", { broken = "local x = = 5", raises = "error 'at the top'" })
      has("broken.lua:1: unexpected symbol near '='", ask(app, "return perilune.job('broken', 'f')"))
      has("at the top", ask(app, "return perilune.job('raises', 'f')"))
      has("EFAULT", ask(app, "return perilune.job('raises', 'f')"))
    end)

    it("is one that writes a global, or yields to nobody", function()
      local app = start()
      has("assignment to global 'surprise'", ask(app, "return job('global')"))
      has("coroutine.yield() outside of a coroutine of the job's own", ask(app, "return job('yield')"))
      assert.equal("yielded", ask(app, "return job('wrapped')"))
    end)

    it("is one that loops for ever, whatever it catches; and its VM is made anew", function()
      local app = start "workers = 1, proceed = '50ms'"
      for _, name in ipairs { "loop", "caught" } do
        ask(app, "job('calls')")
        local reply = ask(app, ("return job('%s')"):format(name))
        has("it ran for over 50 ms of CPU time without waiting (jobs.proceed)", reply)
        has("ETIME", reply)
        assert.equal("1", ask(app, "return job('calls')"))
      end
    end)

    it("is one that fills the memory", function()
      local app = start "workers = 1, memory = '8m', proceed = '60s'"
      ask(app, "job('calls')")
      local reply = ask(app, "return job('fill')")
      has("(jobs.memory is 8m)", reply)
      has("ENOMEM", reply)
      assert.equal("1", ask(app, "return job('calls')"))
    end)

    it("is one whose results or arguments are too large", function()
      local app = start "message = '1k'"
      has("nil, the results are larger than jobs.message, EMSGSIZE", ask(app, "return job('rep', 1025)"))
      has("nil, the arguments are larger than jobs.message, EMSGSIZE", ask(app, "return job('echo', ('x'):rep(1025))"))
      has("EMSGSIZE", ask(app, "local t = {} for i = 1, 1000 do t[i] = i end return job('echo', t)"))
      assert.equal("900", ask(app, "return #job('rep', 900)"))
    end)
  end)

  describe("when there are too many", function()
    local function fill(app, n, line)
      local clients = {}
      for i = 1, n do clients[i] = app:connect():send(line or ("return job('note', '%d')"):format(i)) end
      return clients
    end

    it("is refused at once, where they are to be shed", function()
      local app = start "workers = 1, queue = 2, when_full = 'shed'"
      app:hold_jobs()
      local clients = fill(app, 5)
      for i = 4, 5 do clients[i]:expect "nil, busy: too many jobs wait, EBUSY" end
      assert.same({ 2, 3 }, counts(app, "shed", "waiting"))
      assert_add_up(app)
      assert.equal(3, app:run_jobs(10))
      for i = 1, 3 do clients[i]:expect(tostring(i)) end
      assert_add_up(app)
    end)

    it("raises, where it is to", function()
      local app = start "workers = 1, queue = 1, when_full = 'error'"
      app:hold_jobs()
      local clients = fill(app, 3)
      clients[3]:expect_closed "error"
      has("perilune.job: too many jobs wait (jobs.queue is 1)", memory.error_of(app))
      app:hold_jobs(false)
    end)

    it("waits in its order, and reads no more of its client, where it is to block", function()
      local app = start "workers = 1, queue = 1"
      app:hold_jobs()
      local clients = fill(app, 6)
      clients[6]:send "return 'next'"
      assert.same({ 0, 6 }, counts(app, "shed", "waiting"))
      for i = 1, 6 do
        assert.equal(1, app:run_jobs())
        clients[i]:expect(tostring(i))
      end
      clients[6]:expect "next"
    end)

    it("goes by its lane", function()
      local app = start "workers = 1, queue = 1, when_full = 'shed', lanes = { 'fast', 'slow' }"
      local slow = "return perilune.job({ lane = 'slow' }, 'work', 'note', 'slow')"
      app:hold_jobs()
      local clients = fill(app, 3, slow)
      clients[3]:expect "nil, busy: too many jobs wait, EBUSY"
      local quick = app:connect():send "return job('note', 'fast')"
      app:run_jobs(1)
      quick:expect "fast"
      app:run_jobs(1)
      clients[1]:expect "slow"
      app:hold_jobs(false)
      clients[2]:expect "slow"
    end)
  end)

  describe("whose caller", function()
    it("has waited for long enough is taken out", function()
      local app = start "workers = 1, timeout = '7s'"
      app:hold_jobs()
      local client = app:connect():send "return job('note', 'late')"
      app:advance "6999ms"
      assert.same({ 1 }, counts(app, "waiting"))
      app:advance "1ms"
      client:expect "nil, timeout: work.note() has not come to its end, ETIMEDOUT"
      assert.same({ 0, 1 }, counts(app, "waiting", "cancelled"))
      assert.equal(0, app:run_jobs(5))
      assert.equal(0, memory.count(app, "late"))
      assert_add_up(app)
    end)

    it("says how long", function()
      local app = start "workers = 1"
      app:hold_jobs()
      local client = app:connect():send "return perilune.job({ timeout = '2s' }, 'work', 'echo', 1)"
      app:advance(2)
      has("ETIMEDOUT", client:receive())
    end)

    it("has gone is taken out", function()
      local app = start "workers = 1"
      app:hold_jobs()
      local first, second = app:connect(), app:connect()
      first:send "return job('note', 'first')"
      second:send "return job('note', 'second')"
      first:close()
      assert.same({ 1, 1 }, counts(app, "waiting", "cancelled"))
      app:hold_jobs(false)
      second:expect "second"
      assert.equal(0, memory.count(app, "first"))
      assert_add_up(app)
    end)

    it("is a task that is cancelled is taken out", function()
      local app = start "workers = 1"
      local client = app:connect()
      app:hold_jobs()
      client:send(lua [[local t = perilune.spawn(function() job("note", "x") end)
        perilune.sleep(1) t:cancel() return "cancelled"]])
      assert.same({ 1 }, counts(app, "waiting"))
      app:advance(1)
      client:expect "cancelled"
      assert.same({ 0, 1 }, counts(app, "waiting", "cancelled"))
      assert_add_up(app)
    end)
  end)

  describe("over a reload", function()
    it("stays with its generation, and comes back", function()
      local app = kept_app()
      local old = app:connect()
      old:send "return job('calls')":expect "1"
      app:hold_jobs()
      old:send "return job('calls')"
      app:reload()
      local new = app:connect():send "return job('calls')"
      app:hold_jobs(false)
      old:expect "2"
      new:expect "1"
      assert_add_up(app)
    end)
  end)

  it("is finished by a drain", function()
    local app = start "workers = 1"
    app:hold_jobs()
    local client = app:connect():send "return job('echo', 'done')"
    app:begin_drain()
    app:hold_jobs(false)
    client:expect("done"):expect_closed "drain"
  end)

  it("tells a test what it waits for", function()
    local app = start "workers = 1"
    app:hold_jobs()
    app:connect():send "return job('echo', 1)"
    has("its proceed() waits in perilune.job: work.echo() has not come to its end", app:about())
    app:hold_jobs(false)
  end)
end)
