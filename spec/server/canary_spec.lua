--- reload.canary: a new generation is tried on a share of the new connections before it serves all.
local command = require "spec.support.command"
local has = require "spec.support.has"
local json_decode = require "spec.support.json_decode"
local operator = require "spec.support.operator"
local server = require "spec.support.server"
local support = require "spec.support.reload"
local wait = require "spec.support.wait"

-- Says its version at once, counts its lines; "fail" and "spin" end a connection by a fault, "leave" does not.
local function script(version, reload)
  return support.HEAD .. ([[
    function Agent:opened() self.n = 0 self.conn:send %q end
    function Agent:proceed(line)
      self.n = self.n + 1
      if line == "fail" then error "no luck" end
      if line == "spin" then while true do end end
      if line == "leave" then return nil, "close" end
      return ("%s %%s %%d"):format(line, self.n)
    end
    function Agent:snapshot() return self.n end
    function Agent:upgrade(n) self.n = n end
    function Agent:drain() self.conn:send "bye" end
    return { listen = "tcp://127.0.0.1:0", frame = "line", agent = Agent, reload = { %s },
      timeout = { drain = "200ms" }, limits = { proceed = "100ms" } }]]):format(version, version, reload or "")
end

local function slow_to_drain(text) return (text:gsub('drain = "200ms"', 'drain = "20s"')) end

local function start(options, reload)
  local copy = { script = script("one", reload), control = "control.sock" }
  for key, value in pairs(options or {}) do copy[key] = value end
  return server.start(copy)
end

local control, run = operator.client, operator.run

local function ask(app, request)
  local client = control(app)
  local answer = json_decode(client:send(request .. "\n"):recv_line())
  client:close()
  return answer
end

local function status(app) return ask(app, [[{"command":"status"}]]) end

-- Asks for a reload to another script, and waits until its canary has begun: a client that will hear of the outcome.
local function try(app, text, more)
  support.rewrite(app, text)
  local n = #app:find_log "canary begins"
  local waiting = control(app):send(([[{"command":"reload","wait":true%s}]]):format(more or "") .. "\n")
  wait.until_true(function() return "the canary to begin; it said:\n" .. app:text() end, function()
    return #app:find_log "canary begins" > n
  end)
  return waiting
end

local function outcome_of(waiting) return json_decode(waiting:recv_line()) end

-- Connections, by the version that each has.
local function connect_some(app, n, listener)
  local all, of = {}, { one = {}, two = {}, three = {} }
  for i = 1, n do
    all[i] = app:connect { listener = listener }
    all[i].version = all[i]:recv_line()
    table.insert(of[all[i].version], all[i])
  end
  return of, all
end

local LONG = 'canary = 0.5, window = "60s", max_errors = 0.4'

describe("a canary", function()
  after_each(server.finish)

  for _, workers in ipairs { 1, 2 } do
    it(("gets exactly its share of the new connections, evenly (%d workers)"):format(workers), function()
      local app = start { workers = workers }
      local before = app:connect()
      assert.equal("one", before:recv_line())
      try(app, script("two", 'canary = 0.1, window = "60s"'))
      local of, all = connect_some(app, 200)
      assert.same({ 180, 20 }, { #of.one, #of.two })
      for i, client in ipairs(all) do assert.equal(i % 10 == 0 and "two" or "one", client.version) end
      before:echo_line("a", "one a 1")
      local canary = status(app).canary
      assert.same({ 2, 20, 0 }, { canary.generation, canary.connections, canary.errors })
    end)
  end

  it("gets its share of each listener", function()
    local function both(version, reload)
      return (script(version, reload):gsub([[listen = "tcp://127.0.0.1:0"]], [[listen = {
        { "tcp://127.0.0.1:0", name = "a" }, { "tcp://127.0.0.1:0", name = "b" } }]]))
    end
    local app = start { script = both "one" }
    try(app, both("two", 'canary = 0.25, window = "60s"'))
    local a, b = connect_some(app, 8, 1), connect_some(app, 12, 2)
    assert.same({ 2, 3 }, { #a.two, #b.two })
  end)

  it("is not for a reload that adds or removes listeners", function()
    local app = start()
    local early = app:connect()
    assert.equal("one", early:recv_line())
    local both = script("two", LONG):gsub([[listen = "tcp://127.0.0.1:0"]],
      [[listen = { "tcp://127.0.0.1:0", "unix://more.sock" }]])
    support.reload_to(app, both)
    app:wait_log { message = "no canary: listeners come or go", generation = 2 }
    assert.same({ 0, 2 }, { #app:find_log "canary begins", #connect_some(app, 2).two })
    local more = app:connect { path = app.folder .. "/more.sock" }
    assert.equal("two", more:recv_line())
    early:echo_line("a", "one a 1")
    -- The canary's script has both, and the same in another order.
    local first = try(app, (both:gsub('"two', '"three'):gsub("{ (\"tcp[^,]+), ([^ ]+) }", "{ %2, %1 }")))
    local unix = {}
    for i = 1, 4 do unix[i] = app:connect({ path = app.folder .. "/more.sock" }) end
    local said = {}
    for i = 1, 4 do said[i] = unix[i]:recv_line() end
    assert.same({ "two", "three", "two", "three" }, said)
    unix[2]:send("fail\n"):expect_closed()
    assert.equal("withdrawn", outcome_of(first).reload.outcome)
    unix[4]:echo_line("a", "three a 1")
    unix[1]:echo_line("a", "two a 1")
  end)

  it("is promoted at the end of its window, and then has all", function()
    local app = start { workers = 2 }
    local old = app:connect()
    assert.equal("one", old:recv_line())
    local waiting = try(app, script("two", 'canary = 0.5, window = "500ms", policy = "migrate"'))
    local of = connect_some(app, 4)
    assert.same({ 2, 2 }, { #of.one, #of.two })
    local outcome = outcome_of(waiting)
    assert.same({ true, "reloaded", 2, 1 },
      { outcome.ok, outcome.reload.outcome, outcome.reload.generation, outcome.reload.number })
    local promoted = app:wait_log "canary promoted"
    assert.same({ 2, 2, 0 }, { promoted.generation, promoted.connections, promoted.errors })
    assert.equal(2, app:wait_log("reloaded").generation)
    assert.equal(4, #connect_some(app, 4).two)
    old:echo_line("a", "two a 1")
    of.one[1]:echo_line("a", "two a 1")
    of.two[1]:echo_line("a", "two a 1")
    local now = status(app)
    assert.is_nil(now.canary)
    assert.same({ 2, "serving" }, { now.generation, now.generations[1].state })
  end)

  it("to which no connection has come is promoted, too, and the log says that", function()
    local app = start()
    local waiting = try(app, script("two", 'canary = 0.05, window = "50ms"'))
    assert.equal("reloaded", outcome_of(waiting).reload.outcome)
    app:wait_log "canary promoted: no connection has come to it"
  end)

  it("leaves the server's own limits as they are until it is promoted", function()
    local app = start({ script = (script "one":gsub('proceed = "100ms"', "connections = 4")) })
    local waiting = try(app,
      (script("two", 'canary = 0.5, window = "700ms"'):gsub('proceed = "100ms"', "connections = 6")))
    assert.equal(4, status(app).listeners[1].limit)
    assert.is_true(outcome_of(waiting).ok)
    assert.equal(6, status(app).listeners[1].limit)
  end)

  it("bears as many faults as it is allowed to", function()
    local app = start({ workers = 2 })
    local waiting = try(app, script("two", 'canary = 0.5, window = "1500ms", max_errors = 0.5'))
    local of = connect_some(app, 8)
    of.two[1]:send("fail\n"):expect_closed()
    of.two[2]:send("spin\n"):expect_closed()
    of.two[3]:send("leave\n"):expect_closed()
    wait.until_true("the faults to be counted", function()
      local canary = status(app).canary
      return not canary or canary.errors == 2
    end)
    assert.is_true(outcome_of(waiting).ok)
    assert.same({ 4, 2 }, { app:wait_log("canary promoted").connections, app:wait_log("canary promoted").errors })
  end)

  it("does not answer for the faults of others", function()
    local app = start()
    local waiting = try(app, script("two", 'canary = 0.5, window = "1s", max_errors = 0'))
    local of = connect_some(app, 4)
    of.one[1]:send("fail\n"):expect_closed()
    of.two[1]:send(("x"):rep(10)):close()
    assert.is_true(outcome_of(waiting).ok)
  end)

  describe("that fails too often is withdrawn:", function()
    -- Four connections of it: one that fails is not too many, two are.
    local function fail(policy, workers)
      local app = start({ workers = workers }, 'policy = "pin"')
      local waiting = try(app, script("two", LONG .. (", policy = %q"):format(policy)))
      local of = connect_some(app, 8)
      of.two[3]:echo_line("a", "two a 1")
      of.two[4]:echo_line("a", "two a 1")
      of.two[1]:send("fail\n"):expect_closed()
      of.two[2]:send("fail\n"):expect_closed()
      local answer = outcome_of(waiting)
      assert.same({ false, "reload_withdrawn", "withdrawn", 1 },
        { answer.ok, answer.code, answer.reload.outcome, answer.reload.generation })
      has("too many of its connections failed (2 of 4)", answer.error)
      has("app.lua#g2:", answer.error)
      has("no luck", answer.error)
      local entry = app:wait_log "canary withdrawn: too many of its connections failed"
      assert.same({ 2, 4, 2 }, { entry.generation, entry.connections, entry.errors })
      has("no luck", entry.error)
      assert.equal(6, #connect_some(app, 6).one)
      assert.is_nil(status(app).canary)
      of.one[1]:echo_line("b", "one b 1")
      return app, of
    end

    for _, workers in ipairs { 1, 2 } do
      it(("its connections stay with pin (%d workers)"):format(workers), function()
        local app, of = fail("pin", workers)
        of.two[3]:echo_line("b", "two b 2")
        of.two[4]:echo_line("b", "two b 2")
        assert.equal("withdrawn", status(app).generations[1].state)
        of.two[3]:close()
        of.two[4]:close()
        wait.until_true("it to go", function()
          return #app:find_log { message = "generation retired", generation = 2 } == workers
        end)
        of.one[2]:echo_line("b", "one b 1")
      end)

      it(("they go back with migrate (%d workers)"):format(workers), function()
        local app, of = fail("migrate", workers)
        wait.until_true("it to go", function()
          return #app:find_log { message = "generation retired", generation = 2 } == workers
        end)
        of.two[3]:echo_line("b", "one b 2")
        of.two[4]:echo_line("b", "one b 2")
      end)

      it(("they end with drain (%d workers)"):format(workers), function()
        local app, of = fail("drain", workers)
        assert.equal("bye\n", (of.two[3]:recv_all()))
        assert.equal("bye\n", (of.two[4]:recv_all()))
        wait.until_true("it to go", function()
          return #app:find_log { message = "generation retired", generation = 2 } == workers
        end)
      end)
    end

    it("the next reload goes on from there", function()
      local app, of = fail "pin"
      support.reload_to(app, script("three", 'policy = "migrate"'))
      assert.equal(3, status(app).generation)
      of.two[3]:echo_line("b", "three b 2")
      of.one[2]:echo_line("b", "three b 1")
      assert.equal(3, #connect_some(app, 3).three)
    end)

    it("a policy that is asked for later holds for them, too", function()
      local app, of = fail "pin"
      support.rewrite(app, script("one", 'policy = "pin"'))
      assert.equal(0, run(app, "reload", "--wait", "--policy", "drain").code)
      assert.equal("bye\n", (of.two[3]:recv_all()))
      of.one[2]:echo_line("b", "one b 1")
    end)
  end)

  it("and `perilune reload --wait` fails and says why", function()
    local app = start()
    support.rewrite(app, script("two", LONG))
    -- The command has to wait while we are clients of the canary.
    local pipe = io.popen(("%s reload --wait --control=%s/control.sock 2>&1; echo code $?")
      :format(command.binary, app.folder))
    app:wait_log "canary begins"
    local of = connect_some(app, 2)
    of.two[1]:send("fail\n"):expect_closed()
    local said = pipe:read "*a"
    pipe:close()
    has("perilune reload: canary withdrawn: too many of its connections failed (1 of 1): app.lua#g2:", said)
    has("code 1", said)
  end)

  it("is shown by status and generations", function()
    local app = start()
    local waiting = try(app, script("two", 'canary = 0.5, window = "60s", max_errors = 0.5'))
    local of = connect_some(app, 4)
    of.two[1]:send("fail\n"):expect_closed()
    local canary
    wait.until_true("the fault to be counted", function()
      canary = status(app).canary
      return canary.errors == 1
    end)
    assert.same({ 2, 1, 0.5, 0.5, 60000, 2 }, { canary.generation, canary.reload, canary.share, canary.max_errors,
      canary.window_ms, canary.connections })
    assert.is_true(canary.left_ms > 0 and canary.left_ms <= 60000)
    has("no luck", canary.error)
    local all
    wait.until_true("the one that failed to be gone", function()
      all = ask(app, [[{"command":"generations"}]])
      return all.generations[1].connections == 1
    end)
    assert.same({ 2, "canary", false, 1 }, { all.generations[1].generation, all.generations[1].state,
      all.generations[1].newest, all.generations[1].connections })
    assert.same({ 1, "serving", true }, { all.generations[2].generation, all.generations[2].state,
      all.generations[2].newest })
    assert.equal(2, all.canary.generation)
    has("canary: takes a share of 0.5, 1 of 2 connections failed", run(app, "generations").out)
    has("canary: takes a share of 0.5, 1 of 2 connections failed", run(app, "status").out)
    assert.is_nil(status(app).last_reload)
    app:stop()
    assert.equal("withdrawn", outcome_of(waiting).reload.outcome)
  end)

  describe("and another reload:", function()
    it("a changed script supersedes it", function()
      local app = start({ workers = 2 })
      local first = try(app, script("two", LONG))
      local of = connect_some(app, 4)
      local second = try(app, script("three", LONG))
      local outcome = outcome_of(first)
      assert.same({ "reload_withdrawn", 1 }, { outcome.code, outcome.reload.number })
      has("a later reload supersedes it", outcome.error)
      local now = connect_some(app, 4)
      assert.same({ 2, 0, 2 }, { #now.one, #now.two, #now.three })
      of.two[1]:echo_line("b", "two b 1")
      assert.equal(3, status(app).canary.generation)
      now.three[1]:send("fail\n"):expect_closed()
      assert.equal("withdrawn", outcome_of(second).reload.outcome)
      assert.equal(4, #connect_some(app, 4).one)
    end)

    it("one without a canary serves all at once", function()
      local app = start()
      local first = try(app, script("two", LONG .. ', policy = "migrate"'))
      local of = connect_some(app, 2)
      of.two[1]:echo_line("a", "two a 1")
      support.reload_to(app, script("three", 'policy = "migrate"'))
      assert.equal("withdrawn", outcome_of(first).reload.outcome)
      assert.equal(3, #connect_some(app, 3).three)
      of.two[1]:echo_line("b", "three b 2")
      of.one[1]:echo_line("b", "three b 1")
    end)

    it("the script that is being served withdraws it", function()
      local app = start()
      local first = try(app, script("two", LONG))
      local of = connect_some(app, 2)
      support.rewrite(app, script "one")
      local second = ask(app, [[{"command":"reload","wait":true}]])
      assert.same({ true, "nothing has changed; the canary was withdrawn", 1 },
        { second.ok, second.reload.message, second.reload.generation })
      has("the script is again the one that is being served", outcome_of(first).error)
      assert.equal(4, #connect_some(app, 4).one)
      of.two[1]:echo_line("b", "two b 1")
    end)

    it("the canary's own script changes nothing", function()
      local app = start()
      local first = try(app, script("two", LONG))
      local second = control(app):send([[{"command":"reload","wait":true}]] .. "\n")
      assert.equal(2, app:wait_log("reload: nothing has changed").generation)
      local of = connect_some(app, 4)
      assert.same({ 2, 2 }, { #of.one, #of.two })
      of.two[1]:send("fail\n"):expect_closed()
      of.two[2]:send("fail\n"):expect_closed()
      assert.equal("withdrawn", outcome_of(first).reload.outcome)
      local answer = outcome_of(second) -- asked for in vain as well
      assert.same({ false, "reload_withdrawn", "withdrawn", 1 },
        { answer.ok, answer.code, answer.reload.outcome, answer.reload.number })
    end)

    it("the canary's own script is told of its promotion", function()
      local app = start()
      local first = try(app, script("two", 'canary = 0.5, window = "300ms"'))
      local second = control(app):send([[{"command":"reload","wait":true}]] .. "\n")
      for _, waiting in ipairs { first, second } do
        local answer = outcome_of(waiting)
        assert.same({ true, "reloaded", 2 }, { answer.ok, answer.reload.outcome, answer.reload.generation })
      end
    end)

    it("the same with a policy gives it that", function()
      local app = start()
      local first = try(app, script("two", 'canary = 0.5, window = "60s", max_errors = 0.3'))
      local of = connect_some(app, 8)
      assert.is_true(ask(app, [[{"command":"reload","policy":"migrate"}]]).ok)
      app:wait_log { message = "reload: nothing has changed", policy = "migrate" }
      of.two[3]:echo_line("a", "two a 1")
      of.two[1]:send("fail\n"):expect_closed()
      of.two[2]:send("fail\n"):expect_closed()
      local outcome = outcome_of(first).reload
      assert.same({ "withdrawn", "migrate" }, { outcome.outcome, outcome.policy })
      app:wait_log { message = "generation retired", generation = 2 }
      of.two[3]:echo_line("b", "one b 2")
    end)

    it("one that fails leaves it alone", function()
      local app = start()
      try(app, script("two", LONG))
      support.rewrite(app, "return = 1")
      assert.equal("reload_failed", ask(app, [[{"command":"reload","wait":true}]]).code)
      local of = connect_some(app, 4)
      assert.same({ 2, 2 }, { #of.one, #of.two })
      assert.equal(2, status(app).canary.generation)
    end)

    it("can call it off, and mend it, where no more generations are kept", function()
      local app = start({}, "keep = 1")
      local busy = app:connect()
      local first = try(app, script("two", LONG .. ", keep = 1"))
      support.rewrite(app, script("one", "keep = 1"))
      busy:send "spin\n" -- the worker comes to retire nothing for a while
      assert.is_true(ask(app, [[{"command":"reload","wait":true}]]).ok)
      assert.equal("withdrawn", outcome_of(first).reload.outcome)
      try(app, script("two", LONG .. ", keep = 1"))
      local of = connect_some(app, 2)
      try(app, script("three", LONG .. ", keep = 1"))
      of.two[1]:echo_line("a", "two a 1")
    end)

    it("is refused where the one that was withdrawn is all that may be kept", function()
      local app = start({}, "keep = 1")
      try(app, script("two", LONG .. ", keep = 1"))
      local of = connect_some(app, 2)
      local third = try(app, script("three", LONG .. ", keep = 1"))
      support.rewrite(app, script("four", LONG))
      local answer = ask(app, [[{"command":"reload","wait":true}]])
      assert.same({ "reload_refused", "refused" }, { answer.code, answer.reload.outcome })
      has("reload.keep", answer.error)
      assert.equal(3, status(app).canary.generation)
      of.two[1]:echo_line("a", "two a 1")
      support.rewrite(app, script("one", "keep = 1"))
      assert.is_true(ask(app, [[{"command":"reload","wait":true}]]).ok)
      assert.equal("withdrawn", outcome_of(third).reload.outcome)
    end)

    it("with --policy is the canary's, when it is promoted", function()
      local app = start()
      local old = app:connect()
      assert.equal("one", old:recv_line())
      local waiting = try(app, script("two", 'canary = 0.5, window = "100ms"'), [[,"policy":"drain"]])
      local outcome = outcome_of(waiting).reload
      assert.same({ "reloaded", "drain" }, { outcome.outcome, outcome.policy })
      assert.equal("bye\n", (old:recv_all()))
    end)
  end)

  describe("ends with the server:", function()
    it("at a stop", function()
      local app = start({ workers = 2 })
      local waiting = try(app, script("two", LONG))
      local of = connect_some(app, 4)
      local result = app:stop()
      assert.equal(0, result.code)
      local answer = outcome_of(waiting)
      assert.equal("reload_withdrawn", answer.code)
      has("the server is stopping", answer.error)
      assert.equal("bye\n", (of.two[1]:recv_all()))
    end)

    it("at once, when it is forced", function()
      local app = start()
      try(app, script("two", LONG))
      local of = connect_some(app, 2)
      run(app, "stop", "--now")
      app:wait_end() -- whether an idle connection is drained or cut is a matter of chance
      of.two[1]:recv_all()
    end)

    it("while it is being loaded", function()
      local app = start({ script = slow_to_drain(script "one") })
      support.rewrite(app, "local t = os.clock() + 0.2 while os.clock() < t do end " .. script("two", LONG))
      app:signal "HUP"
      assert.equal(0, app:stop().code)
    end)

    it("when another process takes over, which serves its script to all", function()
      local app = start { script = slow_to_drain(script "one") }
      try(app, slow_to_drain(script("two", LONG)))
      local of = connect_some(app, 2)
      local successor = app:upgrade()
      app:wait_log "canary withdrawn: another process has taken over"
      of.two[1]:echo_line("a", "two a 1")
      assert.equal(2, #connect_some(successor, 2).two)
      of.one[1]:close()
      of.two[1]:close()
      assert.equal(0, app:wait_end().code)
    end)
  end)

  it("under load loses no connection and no reply", function()
    local rounds, bunch = server.scaled(30, 8), 20
    local app = start({ workers = 2 }, "keep = 1000")
    local function round(version, window, fails)
      local waiting = try(app,
        script(version, ('canary = 0.3, keep = 1000, window = %q'):format(window)) .. " -- " .. fails)
      local of, all = connect_some(app, bunch)
      for _, client in ipairs(all) do client:send "a\nb\n" end
      for _, client in ipairs(all) do
        assert.equal(client.version .. " a 1", client:recv_line())
        assert.equal(client.version .. " b 2", client:recv_line())
      end
      for i = 1, fails > 0 and 1 or 0 do of[version][i]:send("fail\n"):expect_closed() end
      for _, client in ipairs(all) do client:close() end
      return waiting, of
    end
    for i = 1, rounds do -- every second one fails, the others are superseded
      local waiting, of = round("two", "60s", i % 2 == 0 and i or -i)
      assert.equal(6, #of.two)
      if i % 2 == 0 then assert.equal("withdrawn", outcome_of(waiting).reload.outcome) end
    end
    assert.equal("reloaded", outcome_of((round("three", "500ms", 0))).reload.outcome)
    assert.equal(3, #connect_some(app, 3).three)
  end)
end)
