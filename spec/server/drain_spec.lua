--- How a server stops: signals, exit codes, ports, workers, and clients that go on while it does. What connections are
--- promised: spec/behaviour/drain_spec.lua.
local command = require "spec.support.command"
local errno = require "posix.errno"
local fcntl = require "posix.fcntl"
local posix_signal = require "posix.signal"
local posix_stat = require "posix.sys.stat"
local reloading = require "spec.support.reload"
local server = require "spec.support.server"
local unistd = require "posix.unistd"
local wait = require "spec.support.wait"

local start_lines = server.start_lines

local SLEEPER = [[
  function Agent:closed(reason) note("closed " .. reason) end
  function Agent:proceed(line)
    local duration = line:match("^sleep (.*)$")
    if duration then
      note("asleep")
      perilune.sleep(duration)
    end
    return line
  end ]]

-- Far beyond the patience of a specification: who waits for it fails.
local LONG = [[timeout = { drain = "1h" }]]

describe("a drain", function()
  after_each(server.finish)

  for _, name in ipairs { "TERM", "INT", "QUIT" } do
    it("by " .. name .. " with idle clients ends at once, with 0", function()
      local app = start_lines(SLEEPER, nil, LONG)
      local clients = app:connect_many(10)
      for _, client in ipairs(clients) do client:echo_line("x") end
      local result = app:stop(name)
      assert.equal(0, result.code)
      assert.equal("drain=10", result.summary.reasons)
      for _, client in ipairs(clients) do client:expect_closed() end
    end)
  end

  it("with no client at all ends at once, with 0", function()
    local app = start_lines(SLEEPER, nil, LONG)
    assert.equal(0, app:stop().code)
  end)

  it("over several workers ends at once", function()
    local app = start_lines(SLEEPER, { workers = 4 }, LONG)
    for _, client in ipairs(app:connect_many(20)) do client:echo_line("x") end
    local result = app:stop()
    assert.same({ 0, "drain=20" }, { result.code, result.summary.reasons })
  end)

  it("frees the port at once, while requests are still being answered", function()
    local app = start_lines(SLEEPER)
    local client = app:connect():send("sleep 700ms\n")
    app:wait_log "asleep"
    app:signal("TERM")
    app:wait_log "draining"
    local code
    wait.until_true("the port is free", function()
      local late, _, why = app:try_connect()
      if late then late:close() end
      code = why
      return not late
    end)
    assert.equal(errno.ECONNREFUSED, code)
    local second = start_lines(SLEEPER, { listen = "tcp://127.0.0.1:" .. app.port })
    second:connect():echo_line("served by the next one")
    assert.equal("sleep 700ms\n", (client:recv_all()))
    assert.equal(0, app:wait_end().code)
  end)

  it("answers what is in flight, and everything that was sent before", function()
    local app = start_lines(SLEEPER)
    local client, idle = app:connect():send("sleep 300ms\na\nb\n"), app:connect()
    app:wait_log "asleep"
    app:signal("TERM")
    idle:expect_closed()
    assert.equal("sleep 300ms\na\nb\n", (client:recv_all()))
    local result = app:wait_end()
    assert.equal(0, result.code)
    assert.equal(0, result.summary.cut)
    assert.is_true(result.summary.drained_ms >= 200)
  end)

  it("answers what had arrived and was not yet read", function()
    local app = start_lines([[
      function Agent:proceed(line)
        if line == "block" then
          note("blocking")
          local began = os.clock()
          repeat until os.clock() - began > 0.3
        end
        return line
      end]], nil, "limits = { proceed = false }")
    local blocker, client = app:connect(), app:connect()
    client:echo_line("x")
    blocker:send("block\n")
    app:wait_log "blocking"
    client:send("one\ntwo\n")
    app:signal("TERM")
    assert.equal("one\ntwo\n", (client:recv_all()))
    assert.equal("block\n", (blocker:recv_all()))
    assert.equal(0, app:wait_end().code)
  end)

  describe("takes who waits in the backlog:", function()
    local function expect_answers(app, clients)
      for _, client in ipairs(clients) do assert.same({ "x\n", "closed" }, { client:recv_all() }) end
      local result = app:wait_end()
      assert.same({ 0, #clients, 0 }, { result.code, result.summary.accepted, result.summary.cut })
    end

    for workers = 1, 2 do
      it("everyone that came while the process stood still, with workers: " .. workers, function()
        local app = start_lines(SLEEPER, { workers = workers })
        posix_signal.kill(app.pid, posix_signal.SIGSTOP)
        local clients = app:connect_many(300)
        for _, client in ipairs(clients) do client:send("x\n") end
        app:signal("TERM")
        posix_signal.kill(app.pid, posix_signal.SIGCONT)
        expect_answers(app, clients)
      end)
    end

    it("everyone whom accept_rate kept waiting", function()
      local app = start_lines(SLEEPER, nil, "limits = { accept_rate = 1 }")
      local clients = app:connect_many(5)
      for _, client in ipairs(clients) do client:send("x\n") end
      app:signal("TERM")
      expect_answers(app, clients)
    end)
  end)

  it("delivers output that is pending", function()
    local app = start_lines [[function Agent:proceed(line) note("replied") return line:rep(8e6) end]]
    local client = app:connect { receive_buffer = 4096 }
    client:send("x\n")
    app:wait_log "replied"
    app:signal("TERM")
    app:wait_log "draining"
    local bytes, how = client:recv_all()
    assert.same({ 8e6 + 1, "closed" }, { #bytes, how })
    assert.equal(0, app:wait_end().code)
  end)

  it("waits for a frame that has begun", function()
    local app = start_lines(SLEEPER)
    local client = app:connect():echo_line("x")
    client:send("hel")
    app:connect():echo_line("the server has read it")
    wait.pause(0.05)
    app:signal("TERM")
    app:wait_log "draining"
    client:send("lo\n")
    assert.equal("hello\n", (client:recv_all()))
    assert.equal(0, app:wait_end().code)
  end)

  describe("asks drain(deadline)", function()
    it("and leaves the end to an agent that says true", function()
      local app = start_lines [[
        function Agent:drain() self.conn:send("finish, please") return true end
        function Agent:closed(reason) note("closed " .. reason) end
        function Agent:proceed(line)
          if line == "done" then return "bye", "close" end
          return line
        end]]
      local client = app:connect():echo_line("x")
      app:signal("TERM")
      assert.equal("finish, please", client:recv_line())
      client:echo_line("one more"):send("done\n")
      assert.equal("bye\n", (client:recv_all()))
      assert.equal(0, app:wait_end().code)
      assert.same({ "closed agent" }, app:notes(1))
    end)
  end)

  describe("past its deadline", function()
    it("cuts what is left, says how many, and ends with 1", function()
      local app = start_lines(SLEEPER, nil, [[timeout = { drain = "300ms" }]])
      local clients = app:connect_many(3)
      for _, client in ipairs(clients) do client:send("sleep 1h\n") end
      app:connect():echo_line("idle")
      app:wait_log("asleep", nil, 3)
      local began = wait.now()
      local result = app:stop()
      assert.is_true(wait.now() - began >= 0.29)
      assert.same({ 1, 3 }, { result.code, result.summary.cut })
      assert.equal(3, app:wait_log("connections were cut at the deadline of the drain").cut)
      assert.equal(4, #app:find_log "closed drain")
    end)
  end)

  it("is forced by a second signal", function()
    local app = start_lines(SLEEPER, nil, LONG)
    app:connect():send("sleep 1h\n")
    app:wait_log "asleep"
    app:signal("TERM")
    app:wait_log "draining"
    wait.while_true("it waits for the handler", function() return not app:has_ended() end, 0.2)
    local result = app:stop("INT")
    assert.same({ 1, 1 }, { result.code, result.summary.cut })
    app:wait_log "second signal: connections are cut"
  end)

  -- The old generation's teardown() runs in a thread of its own, which the end waits for.
  local function start_teardown(loop, options)
    local function script(version, teardown)
      return reloading.script(version, ([[timeout = { drain = "1h" }, unsafe = { "io.popen" },
        teardown = function() %s end]]):format(teardown))
    end
    options.script = script("one", ("note 'tearing down' %s note 'torn down'"):format(loop))
    local app = server.start(options)
    reloading.reload_to(app, script("two", ""))
    app:wait_log "tearing down"
    return app
  end

  it("leaves a summary and a code when signals come while it ends", function()
    local app = start_teardown("local from = os.clock() while os.clock() - from < 0.5 do end", {})
    app:signal "TERM"
    app:wait_log "draining"
    for _, name in ipairs { "INT", "TERM", "QUIT" } do app:signal(name) end
    wait.until_true("the end", function()
      for _, name in ipairs { "TERM", "INT", "QUIT" } do
        if not app:has_ended() then app:signal(name) end
      end
      return app:has_ended()
    end)
    assert.equal(0, app:wait_end().code)
    app:wait_log "torn down"
  end)

  -- A process that is stopped for nine tenths of the time is one on a busy machine.
  local function let_run_a_little(app)
    wait.until_true("the end", function()
      posix_signal.kill(app.pid, posix_signal.SIGSTOP)
      wait.pause(0.09)
      posix_signal.kill(app.pid, posix_signal.SIGCONT)
      wait.pause(0.01)
      return app:has_ended()
    end)
  end

  it("waits for a teardown() that a busy machine does not let run, for seconds after a second signal", function()
    local app = start_teardown("local from = os.clock() while os.clock() - from < 0.4 do end", {})
    app:signal "TERM"
    app:wait_log "draining"
    app:signal "TERM"
    let_run_a_little(app)
    assert.equal(0, app:wait_end().code)
    app:wait_log "torn down"
  end)

  it("waits for a handler that a busy machine does not let run, for seconds after the deadline", function()
    local app = start_lines([[
      function Agent:proceed(line)
        note "computes"
        local from = os.clock()
        while os.clock() - from < 0.4 do end
        note "has computed"
      end]], nil, [[timeout = { drain = "10ms" }, limits = { proceed = "1h" }]])
    app:connect():send "x\n"
    app:wait_log "computes"
    app:signal "TERM"
    app:wait_log "draining"
    let_run_a_little(app)
    app:wait_end()
    app:wait_log "has computed"
    assert.same({}, app:find_log { level = "error" })
  end)

  it("does not wait for a teardown() that never returns, after a second signal", function()
    -- Its budget is one of CPU time: that ends no call of the system.
    local app = start_teardown("io.popen('exec sleep 100'):read()", { asan = "detect_leaks=0" })
    app:signal "TERM"
    app:wait_log "draining"
    assert.equal(1, app:stop("TERM").code)
    app:wait_log "teardown() of an old generation does not return: it is left behind"
  end)

  it("ends when a handler waits in the system and never returns, with 1, and says so", function()
    local app = start_lines([[
      function Agent:proceed() note("waiting") io.popen('exec sleep 100'):read() end]], { asan = "detect_leaks=0" },
      [[timeout = { drain = "100ms" }, unsafe = { "io.popen" }]])
    app:connect():send("x\n")
    app:wait_log "waiting"
    app:signal("TERM")
    wait.until_true("the server's end", function() return app:has_ended() end)
    app.stopped = true
    app:wait_log "a worker does not stop: its handler never returns"
    app:wait_log "worker 0 is held up by proceed of conn 1"
    assert.same({ "exited", 1 }, { app.ended.how, app.ended.code })
  end)

  it("ends when a handler never returns, with 1, and says so", function()
    local app = start_lines([[
      function Agent:proceed() note("spinning") while true do end end]], { asan = "detect_leaks=0" },
      [[timeout = { drain = "100ms" }, limits = { proceed = false }]])
    app:connect():send("x\n")
    app:wait_log "spinning"
    app:signal("TERM")
    wait.until_true("the server's end", function() return app:has_ended() end)
    app.stopped = true
    app:wait_log "a worker does not stop: its handler never returns"
    assert.same({ "exited", 1 }, { app.ended.how, app.ended.code })
  end)

  it("ends when a handler prints to whom nobody reads", function()
    local fifo = command.folder() .. "/out"
    assert(posix_stat.mkfifo(fifo, 384))
    local reader = assert(fcntl.open(fifo, fcntl.O_RDONLY + fcntl.O_NONBLOCK)) -- and never reads
    local app = start_lines([[function Agent:proceed() note "printing" print(("x"):rep(1e6)) end]],
      { asan = "detect_leaks=0", stdout = { fifo, fcntl.O_WRONLY } }, [[timeout = { drain = "100ms" }]])
    app:connect():send "x\n"
    app:wait_log "printing"
    app:signal "TERM"
    wait.until_true("the server's end", function() return app:has_ended() end)
    unistd.close(reader)
    app.stopped = true
    assert.same({ "exited", 1 }, { app.ended.how, app.ended.code })
  end)
end)

describe("USR1 without a log file", function()
  after_each(server.finish)

  it("is ignored, said, and nobody notices", function()
    local app = start_lines(SLEEPER)
    local client = app:connect():echo_line("x")
    app:signal "USR1"
    app:wait_log(function(entry) return entry.message:find("^there is no log file to reopen") end)
    client:echo_line("still served")
  end)
end)
