--- snapshot(app) and setup(app, data): what a script keeps over reloads and upgrades of a running server.
local command = require "spec.support.command"
local has = require "spec.support.has"
local json_decode = require "spec.support.json_decode"
local operator = require "spec.support.operator"
local server = require "spec.support.server"
local support = require "spec.support.reload"
local wait = require "spec.support.wait"

local FAILED = "reload failed: the old generation serves on"
local UPGRADE_FAILED = "upgrade failed: this process serves on"

-- Each worker counts its lines, and says with which version: "two 1.5" is the fifth of worker 1. "spin" takes long,
-- and a file `spinning` says that it has begun.
local function script(version, settings, snapshot)
  return server.NOTE .. ([[
    local state, me = { n = 0 }, nil
    local Agent = {}
    function Agent:proceed(line)
      if line == "spin" then
        note "spinning"
        while true do end
      end
      state.n = state.n + 1
      return ("%s %%d.%%d"):format(me, state.n)
    end
    return { listen = "tcp://127.0.0.1:0", frame = "line", agent = Agent,
      setup = function(app, data)
        me = app.worker
        if data then state = data end
      end,
      snapshot = function() %s return state end, %s }]]):format(version, snapshot or "", settings or "")
end

local function start(options)
  local copy = { script = script "one", control = "control.sock" }
  for key, value in pairs(options or {}) do copy[key] = value end
  return server.start(copy)
end

local function lines(client, n)
  local last
  for _ = 1, n do last = client:send("x\n"):recv_line() end
  return last
end

local function reload(app, text, more)
  support.rewrite(app, text)
  return operator.client(app):send(([[{"command":"reload","wait":true%s}]]):format(more or "") .. "\n")
end

local function outcome(client) return json_decode(client:recv_line(20)) end

describe("what a script keeps", function()
  after_each(server.finish)

  it("goes on in the next generation, and in the one after that", function()
    local app = start()
    assert.equal("one 0.3", lines(app:connect(), 3))
    support.reload_to(app, script "two")
    assert.equal("two 0.5", lines(app:connect(), 2))
    support.reload_to(app, script "three")
    assert.equal("three 0.6", lines(app:connect(), 1))
  end)

  it("is each worker's own", function()
    local app = start { workers = 3 }
    local last = {}
    for i, client in ipairs(app:connect_many(3)) do
      local worker, n = lines(client, 10 * i):match "^one (%d)%.(%d+)$"
      last[worker] = tonumber(n)
    end
    support.reload_to(app, script "two")
    for _, client in ipairs(app:connect_many(3)) do
      local worker, n = lines(client, 1):match "^two (%d)%.(%d+)$"
      assert.equal(last[worker] + 1, tonumber(n))
    end
  end)

  -- What is counted after the snapshot is the old generation's alone: so whoever stops in time loses nothing.
  it("has all that was done before, while connections come and go", function()
    local app = start { workers = 2 }
    local asked = 0
    for version = 1, 20 do
      for _ = 1, 5 do
        local client = app:connect()
        client:send "a\nb\n"
        for _ = 1, 2 do asked = asked + (client:recv_line():find "^%w+ %d%.%d+$" and 1 or 0) end
        client:close()
      end
      support.reload_to(app, script(("v%d"):format(version)))
    end
    local sum, seen = 0, {}
    repeat
      local worker, n = lines(app:connect(), 1):match "^v20 (%d)%.(%d+)$"
      if not seen[worker] then sum = sum + tonumber(n) - 1 end
      seen[worker] = true
    until seen["0"] and seen["1"]
    assert.same({ 200, 200 }, { asked, sum })
  end)

  it("has all that was answered before it was asked for, under load, and goes on from there", function()
    local LINES = 2000
    local app = start { workers = 2 }
    local clients, known = app:connect_many(6), {}
    for _, client in ipairs(clients) do
      local worker, n = lines(client, 10):match "^one (%d)%.(%d+)$"
      known[worker] = tonumber(n)
    end
    for _, client in ipairs(clients) do client:send(("x\n"):rep(LINES)) end
    support.reload_to(app, script "two")
    local late = {}
    for i, client in ipairs(app:connect_many(4)) do
      local worker, n = lines(client, 1):match "^two (%d)%.(%d+)$"
      late[i] = { worker = worker, n = tonumber(n) }
    end
    -- All old connections are answered, by the old code, each in order.
    local most = { ["0"] = 0, ["1"] = 0 }
    for _, client in ipairs(clients) do
      local before, worker, n = 0
      for _ = 1, LINES do
        worker, n = client:recv_line():match "^one (%d)%.(%d+)$"
        assert.is_true(tonumber(n) > before)
        before = tonumber(n)
      end
      most[worker] = math.max(most[worker], before)
    end
    for _, one in ipairs(late) do
      local at_least, at_most = known[one.worker] + 1, most[one.worker] + #late
      assert.is_true(one.n >= at_least and one.n <= at_most, ("%d of %d to %d"):format(one.n, at_least, at_most))
    end
  end)

  it("is asked for once in each worker, and not where nothing has changed", function()
    local app = start { workers = 2, script = script("one", "", 'perilune.log("info", "asked")') }
    support.reload(app)
    assert.equal(0, #app:find_log "asked")
    support.reload_to(app, script "two")
    assert.equal(2, #app:find_log "asked")
  end)

  it("is given to a canary, which gives nothing back", function()
    local app = start { script = script "one" }
    assert.equal("one 0.2", lines(app:connect(), 2))
    local waiting = reload(app, script("two", 'reload = { canary = 0.5, window = "60s" }'))
    app:wait_log "canary begins"
    local first, second = lines(app:connect(), 1), lines(app:connect(), 1)
    assert.same({ "one 0.3", "two 0.3" }, { first, second })
    -- Another reload supersedes it, and is given what the one that serves has.
    assert.equal("reloaded", support.reload_to(app, script "three").message)
    assert.equal("withdrawn", outcome(waiting).reload.outcome)
    assert.equal("three 0.4", lines(app:connect(), 1))
  end)

  for name, case in pairs {
    ["raises"] = { 'error "not today"', "error: not today\n  %-%-> .-app.lua:%d+ in snapshot" },
    ["has what is no plain data"] = { "state.f = print",
      "only plain data can be kept: the value%[\"f\"%] is a function" },
    ["is too large"] = { 'state.text = ("x"):rep(70000)', "more than 64k packed %(limits.snapshot%)" },
    ["does not return"] = { "while true do end", "it ran for over 1 s of CPU time %(snapshot may take 1 s%)" },
    ["begins something"] = { "app:after(1, print)", "app:after: snapshot%(%) must not begin anything" },
    ["waits"] = { "perilune.sleep(1)", "sleep: only a running handler can" },
  } do
    it("keeps the old generation where snapshot() " .. name, function()
      local text = script("one", 'limits = { snapshot = "64k" }', case[1]):gsub("snapshot = function%(%)",
        "snapshot = function(app)")
      local app = start { workers = 2, script = text }
      local client = app:connect()
      assert.equal("one 0.2", lines(client, 2))
      local answer = outcome(reload(app, script("two", 'limits = { snapshot = "64k" }')))
      assert.equal("reload_failed", answer.code)
      assert.is_truthy(answer.error:find(case[2]), answer.error)
      has("hint: this is the snapshot of the script that serves", answer.error)
      assert.equal(0, app:wait_log(FAILED).worker)
      assert.equal("one 0.3", lines(client, 1))
      -- The same of an upgrade: there is no other process.
      local entry = app:try_upgrade()
      assert.equal(UPGRADE_FAILED, entry.message)
      assert.is_truthy(entry.excerpt:find(case[2]), entry.excerpt)
      assert.same({}, app:find_log "upgrading")
      assert.equal("one 0.4", lines(client, 1))
    end)
  end

  it("tells at which place of the generation that serves it has failed", function()
    local app = start()
    support.reload_to(app, script("two", "", 'error "not today"'))
    has("generation 2", outcome(reload(app, script "three")).error)
  end)

  it("is not lost by a setup() that fails", function()
    local app = start()
    local client = app:connect()
    assert.equal("one 0.2", lines(client, 2))
    local answer = outcome(reload(app, (script("two"):gsub("if data then", 'error "cannot" if data then'))))
    has("error: cannot", answer.error)
    assert.equal("one 0.3", lines(client, 1))
    support.reload_to(app, script "three")
    assert.equal("three 0.4", lines(app:connect(), 1))
  end)

  -- The worker that is to be asked is in a call that has no end of its own.
  local function start_waiting(settings)
    local app = start { script = script("one", settings) }
    local busy = app:connect()
    busy:send "spin\n"
    app:wait_log "spinning"
    local waiting = reload(app, script "two")
    return app, waiting
  end

  it("is waited for where the worker is in a call", function()
    local app, waiting = start_waiting 'limits = { proceed = "300ms" }'
    assert.equal("reloaded", outcome(waiting).reload.outcome)
    assert.equal("two 0.1", lines(app:connect(), 1))
  end)

  it("is not waited for by a stop", function()
    local app, waiting = start_waiting 'limits = { proceed = "5s" }, timeout = { drain = "60s" }'
    app:signal "TERM"
    assert.equal("the server is stopping", app:wait_log("reload called off").reason)
    assert.equal("reload_refused", outcome(waiting).code)
    assert.equal(0, app:wait_end().code)
  end)

  it("goes on in another process", function()
    local app = start { workers = 2 }
    local last = {}
    for i, client in ipairs(app:connect_many(2)) do
      local worker, n = lines(client, 10 * i):match "^one (%d)%.(%d+)$"
      last[worker] = tonumber(n)
      client:close()
    end
    support.rewrite(app, script "two")
    local successor = app:upgrade()
    for _, client in ipairs(successor:connect_many(2)) do
      local worker, n = lines(client, 1):match "^two (%d)%.(%d+)$"
      assert.equal(last[worker] + 1, tonumber(n))
      client:close()
    end
    assert.equal(0, app:wait_end().code)
    -- And from there in the next one, with as many descriptors as before.
    local descriptors = successor:fds()
    local third = successor:upgrade()
    assert.equal(0, successor:wait_end().code)
    wait.until_true("as many descriptors", function() return third:fds() <= descriptors end)
    local worker, n = lines(third:connect(), 1):match "^two (%d)%.(%d+)$"
    assert.equal(last[worker] + 2, tonumber(n))
  end)

  it("is dropped where another process has fewer workers, which is said", function()
    local settings = { workers = 3, scripts_own = true, args = {},
      script = script("one", 'workers = 3, control = "control.sock", log = { format = "json" }') }
    local app = start(settings)
    local seen = {}
    for _, client in ipairs(app:connect_many(3)) do
      seen[#seen + 1] = lines(client, 1)
      client:close()
    end
    table.sort(seen)
    assert.same({ "one 0.1", "one 1.1", "one 2.1" }, seen)
    support.rewrite(app, script("two", 'workers = 1, control = "control.sock", log = { format = "json" }'))
    local successor = app:upgrade()
    assert.equal("two 0.2", lines(successor:connect(), 1))
    local entry = app:wait_log "what some workers of the old process keep is dropped: there are fewer now"
    assert.same({ "1, 2", 1 }, { entry.dropped, entry.workers })
    assert.equal(0, app:wait_end().code)
  end)

  it("is nothing at the start of a process, and where the script before has no snapshot()", function()
    local app = start { script = (script("one"):gsub("snapshot = ", "teardown = ")) }
    assert.equal("one 0.2", lines(app:connect(), 2))
    support.reload_to(app, script "two")
    assert.equal("two 0.1", lines(app:connect(), 1))
    support.rewrite(app, script "three")
    local successor = app:upgrade()
    assert.equal("three 0.2", lines(successor:connect(), 1))
  end)

  it("keeps the old process where another cannot take it", function()
    local app = start { script = script "one" }
    assert.equal("one 0.2", lines(app:connect(), 2))
    support.rewrite(app, (script("two"):gsub("if data then", 'error "cannot" if data then')))
    local entry = app:try_upgrade()
    assert.equal(UPGRADE_FAILED, entry.message)
    has("78", entry.error)
    assert.equal("one 0.3", lines(app:connect(), 1))
    support.rewrite(app, script "three")
    local successor = app:upgrade()
    assert.equal("three 0.4", lines(successor:connect(), 1))
  end)

  it("is told by perilune upgrade when it fails", function()
    local app = start { script = script("one", "", 'error "not today"') }
    local result
    app:try_upgrade(nil, function() result = operator.run(app, "upgrade", "--wait") end)
    assert.equal(1, result.code)
    has("error: not today", result.err)
    has("in snapshot", result.err)
  end)

  it("of a worker that does not answer is not waited for longer than timeout.upgrade", function()
    local app = start { script = script("one", 'limits = { proceed = "5s" }, timeout = { upgrade = "300ms" }') }
    local busy = app:connect()
    busy:send "spin\n"
    app:wait_log "spinning"
    local entry = app:try_upgrade()
    assert.equal(UPGRADE_FAILED, entry.message)
    has("worker 0 did not take its snapshot within 300 ms (timeout.upgrade)", entry.excerpt)
    app:wait_log "handler failed"
    assert.equal("one 0.1", lines(app:connect(), 1))
  end)

  it("that is being asked for keeps reloads and other upgrades out, and a stop ends it", function()
    local app = start { script = script("one", 'limits = { proceed = "5s" }, timeout = { drain = "60s" }') }
    local busy = app:connect()
    busy:send "spin\n"
    app:wait_log "spinning"
    local waiting = operator.client(app):send '{"command":"upgrade","wait":true}\n'
    local others = operator.client(app)
    local function ask(name)
      return json_decode(others:send(([[{"command":"%s"}]]):format(name) .. "\n"):recv_line())
    end
    assert.equal("upgrade refused: one is under way", ask("upgrade").error)
    assert.equal("reload refused: an upgrade is under way", ask("reload").error)
    app:signal "TERM"
    assert.equal("the server stops", outcome(waiting).error)
    app:wait_log "upgrade cancelled: the server stops"
    assert.equal(0, app:wait_end().code)
  end)
end)

-- A process that is handed a descriptor with that name, whatever is in it.
describe("a process that is given what another keeps", function()
  after_each(server.finish)

  local function given(bytes)
    local folder = command.folder()
    command.write(folder .. "/kept", bytes)
    local fcntl = require "posix.fcntl"
    local fd = assert(fcntl.open(folder .. "/kept", fcntl.O_RDONLY))
    local result = server.start_failing { script = script "one", fds = { fd, names = "perilune-snapshots" } }
    require("posix.unistd").close(fd)
    command.remove(folder)
    for _, entry in ipairs(result.log) do
      if entry.message == "cannot start" then return result.code, entry end
    end
    error(result.text)
  end

  local function header(version, count) return require("ffi").string(
    require("ffi").new("uint32_t[2]", version, count), 8) end
  local function length(n) return require("ffi").string(require("ffi").new("uint64_t[1]", n), 8) end

  for name, case in pairs {
    ["is empty"] = { "", "it ends too early" },
    ["is something else"] = { ("x"):rep(100), "it is something else" },
    ["has another form"] = { "prlnkept" .. header(2, 1), "it has the form 2, and this version knows 1" },
    ["has too many"] = { "prlnkept" .. header(1, 2 ^ 31), "there are too many" },
    ["is cut off in its lengths"] = { "prlnkept" .. header(1, 3) .. length(0), "it ends too early" },
    ["has one that is too large"] = { "prlnkept" .. header(1, 1) .. length(2 ^ 40), "one is too large" },
    ["is cut off in its bytes"] = { "prlnkept" .. header(1, 1) .. length(100) .. "abc", "it ends too early" },
  } do
    it("does not start where that " .. name, function()
      local code, entry = given(case[1])
      has("what the old process keeps cannot be read: " .. case[2], entry.error)
      assert.equal(1, code)
    end)
  end

  it("does not start where a script cannot have got it", function()
    local code, entry = given("prlnkept" .. header(1, 1) .. length(3) .. "\255\255\255")
    assert.is_string(entry.excerpt)
    assert.equal(78, code)
  end)
end)
