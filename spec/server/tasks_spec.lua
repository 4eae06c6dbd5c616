--- Tasks and timers in a server: across reloads, migration, canaries, upgrades, a stop; under load, and when they fail.
local server = require "spec.support.server"
local support = require "spec.support.reload"
local wait = require "spec.support.wait"

local reload_to = support.reload_to

describe("tasks and timers", function()
  after_each(server.finish)

  -- An app that does something again and again, and a task that waits for ever, beside agents that do so.
  local function script(version, settings, more)
    return support.HEAD .. ([[
      local VERSION = %q
      function Agent:opened()
        self.n = 0
        perilune.every("10ms", function() self.n = self.n + 1 end)
      end
      function Agent:proceed(line)
        if line == "task" then
          perilune.spawn(function() perilune.sleep "200ms" self.conn:send(VERSION .. " task") end)
          return VERSION .. " begun"
        end
        if line == "n" then
          local before = self.n
          perilune.sleep "300ms"
          return tostring(self.n - before)
        end
        return VERSION .. " " .. line
      end
      function Agent:snapshot() return {} end
      function Agent:upgrade() self:opened() note(VERSION .. " upgraded") end
      local function setup(app)
        app:every("20ms", function() note(VERSION .. " tick") end)
        app:spawn(function()
          perilune.defer(function() note(VERSION .. " app ends") end)
          perilune.sleep "1h"
        end)
      end
      local function teardown() note(VERSION .. " teardown") end
      %s
      return { listen = "tcp://127.0.0.1:0", frame = "line", agent = Agent, setup = setup, teardown = teardown, %s }]])
      :format(version, more or "", settings or "")
  end

  local function ticks(app, version) return #app:find_log(version .. " tick") end

  it("of the app: timers end when a newer generation serves, tasks with the connections that may need them", function()
    local app = server.start { script = script "one" }
    local client = app:connect():echo_line("x", "one x")
    app:wait_log("one tick", nil, 2)
    reload_to(app, script "two")
    app:wait_log "two tick"
    local n = ticks(app, "one")
    app:wait_log("two tick", nil, 3)
    assert.equal(n, ticks(app, "one"))
    client:echo_line("still", "one still")
    assert.equal(0, #app:find_log "one app ends")
    client:close()
    app:wait_log "one teardown"
    app:stop()
    local said = {}
    for _, entry in ipairs(app:log()) do
      if entry.message:find "ends$" or entry.message:find "teardown$" then said[#said + 1] = entry.message end
    end
    assert.same({ "one app ends", "one teardown", "two app ends", "two teardown" }, said)
  end)

  it("of the app run in each worker, beside its connections", function()
    local app = server.start { script = script "one", workers = 2 }
    for worker = 0, 1 do app:wait_log({ message = "one tick", worker = worker }, nil, 3) end
    assert.equal(0, app:stop().code)
    assert.equal(2, #app:find_log "one app ends")
  end)

  it("of a canary run beside those that serve, and end with it", function()
    local canary = "reload = { canary = 0.5, window = '400ms' }"
    local app = server.start { script = script("one", canary) }
    app:wait_log "one tick"
    support.rewrite(app, script("two", canary))
    app:signal "HUP"
    app:wait_log "two tick"
    assert.equal(0, #app:find_log "one app ends")
    app:wait_log "one app ends"
    local n = ticks(app, "one")
    app:wait_log("two tick", nil, ticks(app, "two") + 3)
    assert.equal(n, ticks(app, "one"))
  end)

  it("of an agent: timers begin anew with migration, which waits for tasks", function()
    local app = server.start { script = script("one", "reload = 'migrate'") }
    local idle, at_work = app:connect():echo_line("x", "one x"), app:connect():echo_line("task", "one begun")
    reload_to(app, script("two", "reload = 'migrate'"))
    app:wait_log { message = "two upgraded", conn = 1 }
    idle:echo_line("y", "two y")
    assert.equal("one task", at_work:recv_line())
    app:wait_log { message = "two upgraded", conn = 2 }
    at_work:echo_line("y", "two y")
    idle:send "n\n"
    -- One timer: both would have called it twice as often. While proceed() waits it is owed, once.
    local n = tonumber(idle:recv_line())
    assert.is_true(n <= 1, n)
    app:wait_log { message = "generation retired", generation = 1 }
  end)

  it("of an agent that a task keeps, and whose peer ends its side, leave the end to the next generation", function()
    local function reader(version)
      return script(version, "reload = 'migrate'", [[
        function Agent:opened()
          perilune.spawn(function() while self.conn:read() do end note(VERSION .. " read the end") end)
        end
        function Agent:upgrade() note(VERSION .. " upgraded") end
        function Agent:eof() note(VERSION .. " eof of " .. self.conn.id) return VERSION .. " bye" end]])
    end
    local app = server.start { script = reader "one" }
    local stays, goes = app:connect(), app:connect()
    goes:send "x\n"
    reload_to(app, reader "two")
    app:wait_log "two tick"
    goes:shutdown "send"
    assert.equal("two bye", goes:recv_line())
    goes:expect_closed()
    app:wait_log { message = "two eof of 2", conn = 2 }
    assert.equal(0, #app:find_log { level = "error" })
    stays:shutdown "send"
    assert.equal("two bye", stays:recv_line())
    app:wait_log { message = "two eof of 1", conn = 1 }
  end)

  it("that upgrade() has begun are gone where it fails", function()
    local app = server.start { script = script("one", "reload = 'migrate'") }
    local client = app:connect():echo_line("x", "one x")
    reload_to(app, script("two", "reload = 'migrate'", [[
      function Agent:upgrade()
        perilune.every("5ms", function() note "of the failed" end)
        perilune.spawn(function() note "of the failed" end)
        error "cannot"
      end]]))
    app:wait_log { message = "handler failed", callback = "upgrade" }
    client:echo_line("y", "one y")
    app:wait_log("two tick", nil, 3)
    assert.equal(0, #app:find_log "of the failed")
  end)

  it("go on in the old process of an upgrade", function()
    local app = server.start { script = script "one", scripts_own = true, args = {},
      env = { PERILUNE_LOG_FORMAT = "json" } }
    local client = app:connect():echo_line("task", "one begun")
    support.rewrite(app, script "two")
    local successor = app:upgrade()
    assert.equal("one task", client:recv_line())
    successor:connect():echo_line("x", "two x")
    client:close()
    assert.equal(0, app:wait_end().code)
    app:wait_log "one app ends"
  end)

  it("are cut by a stop, and what they have deferred runs", function()
    local app = server.start_lines [[
      function Agent:proceed()
        local n = 0
        for _ = 1, 50 do
          perilune.spawn(function()
            perilune.defer(function() note "deferred" end)
            n = n + 1
            if n == 50 then self.conn:send "all have begun" end
            perilune.sleep "1h"
          end)
        end
      end]]
    app:connect():echo_line("x", "all have begun")
    assert.equal(0, app:stop().code)
    assert.equal(50, #app:find_log "deferred")
  end)

  it("of one agent leave the others their turn", function()
    local app = server.start_lines([[
      function Agent:proceed(line)
        if line ~= "spin" then return line end
        for _ = 1, 200 do
          perilune.spawn(function()
            while true do
              for _ = 1, 1e5 do end
              perilune.sleep(0)
            end
          end)
        end
        local a, b = perilune.channel(), perilune.channel()
        perilune.spawn(function() while true do a:send(1) b:receive() end end)
        perilune.spawn(function() while true do a:receive() b:send(1) end end)
        return "spinning"
      end]], { workers = 1 })
    app:connect():echo_line("spin", "spinning")
    local client = app:connect()
    for i = 1, 50 do client:echo_line("line " .. i, "line " .. i) end
  end)

  it("are served beside an agent that sleeps for no time and computes for long, each kind in its turn", function()
    local app = server.start_lines([[
      function Agent:proceed(line)
        if line == "burn" then
          self.conn:send "burning"
          while true do
            for _ = 1, 3e7 do end
            perilune.sleep(0)
          end
        end
        perilune.after(0, function() return "timer" end)
        perilune.spawn(function() self.conn:send "task" end)
      end]], { workers = 1 }, "limits = { proceed = '30s' }")
    app:connect():echo_line("burn", "burning")
    local client = app:connect()
    for _ = 1, 3 do
      client:send "x\n"
      local said = { client:recv_line(), client:recv_line() }
      table.sort(said)
      assert.same({ "task", "timer" }, said)
    end
  end)

  it("wait by the thousand in one worker, for each other and for the clock", function()
    local n = server.scaled(2000, 300)
    local app = server.start_lines(([[
      local channel = perilune.channel(0)
      function Agent:proceed(line)
        if line == "all" then
          for i = 1, %d do channel:send(i) end
          return "sent"
        end
        local a, b = perilune.all {
          function() return channel:receive() end,
          function() perilune.sleep "1ms" return "slept" end,
        }
        return a > 0 and b
      end]]):format(n), { workers = 1 }, "limits = { connections = 5000 }")
    local clients = app:connect_many(n)
    for _, client in ipairs(clients) do client:send "x\n" end
    app:connect():echo_line("all", "sent")
    for _, client in ipairs(clients) do assert.equal("slept", client:recv_line()) end
  end)

  it("end with connections that come and go, and leave nothing behind", function()
    local app = server.start_lines([[
      local begun, ended = 0, 0
      function Agent:opened()
        perilune.every("1ms", function() end)
        perilune.spawn(function()
          begun = begun + 1
          perilune.defer(function() ended = ended + 1 end)
          perilune.channel():receive()
        end)
      end
      function Agent:proceed() return tostring(begun - ended) end]], { workers = 1 }, "limits = { connections = 5000 }")
    local rounds = server.scaled(10, 3)
    for _ = 1, rounds do
      for _, client in ipairs(app:connect_many(100)) do client:close() end
    end
    local client = app:connect()
    wait.until_true("all tasks but its own to end", function() return client:send("x\n"):recv_line() == "1" end)
  end)

  it("read the time of day", function()
    local app = server.start_lines "function Agent:proceed() return ('%d'):format(perilune.time()) end"
    local before = os.time()
    local said = tonumber(app:connect():send("x\n"):recv_line())
    assert.is_true(said >= before and said <= os.time(), said)
  end)
end)
