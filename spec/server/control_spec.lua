--- The control socket: what an operator can ask of a running server, and what no client of it can do.
local command = require "spec.support.command"
local has = require "spec.support.has"
local json_decode = require "spec.support.json_decode"
local operator = require "spec.support.operator"
local server = require "spec.support.server"
local unistd = require "posix.unistd"
local wait = require "spec.support.wait"

local HEAD = server.NOTE .. [[local Agent = {}
  function Agent:closed(reason) note("closed " .. reason) end
]]

-- A script whose agents answer with `version` and the line, and tell their id.
local function script(version, settings)
  return HEAD .. ([[
    local perilune = require "perilune"
    function Agent:proceed(line)
      if line == "id" then return tostring(self.conn.id) end
      if line == "sleep" then note "asleep" perilune.sleep(60) end
      if line == "fail" then error "oh" end
      return %q .. " " .. line
    end
    return { listen = "tcp://127.0.0.1:0", frame = "line", agent = Agent, %s }]]):format(version, settings or "")
end

local function start(options, settings)
  local copy = { script = script("one", settings), control = "control.sock" }
  for key, value in pairs(options or {}) do copy[key] = value end
  return server.start(copy)
end

local function rewrite(app, text) command.write(app.folder .. "/app.lua", text) end

local path_of, run, client_of = operator.path, operator.run, operator.client

-- The answer to a request: a line of JSON, or a table of fields that are put together.
local function ask(client, request)
  return json_decode(client:send(request .. "\n"):recv_line())
end

local function run_json(app, ...)
  local call = { ... }
  call[#call + 1] = "--json"
  local result = run(app, unpack(call))
  return json_decode(result.out), result
end

local function mode_of(path)
  local pipe = io.popen("stat -c %a " .. path)
  local mode = pipe:read("*l")
  pipe:close()
  return mode
end

local function ok(result, part)
  if result.code ~= 0 then error(("exit code %d: %s%s"):format(result.code, result.out, result.err), 2) end
  if part then has(part, result.out) end
end

local function failed(code, part, result)
  assert.equal(code, result.code)
  has(part, result.err)
end

-- A server and the number of its descriptors, with the one that libuv opens at the first client.
local function start_counted()
  local app = start { asan = server.SMALL_QUARANTINE }
  client_of(app):close()
  ok(run(app, "reload", "--wait"))
  local before
  wait.until_true("a quiet moment", function()
    local last = before
    before = app:fds()
    return last == before
  end)
  return app, before
end

-- Handlers hold all descriptors that there are.
local function start_starved()
  local app = server.start { nofile = 100, control = "control.sock", script = HEAD .. [[
    local held = {}
    function Agent:proceed(line)
      if line == "free" then
        for _, file in ipairs(held) do file:close() end
        held = {}
      end
      repeat
        local file = line == "hold" and io.open "/dev/null"
        held[#held + 1] = file or nil
      until not file
      return line
    end
    return { listen = "tcp://127.0.0.1:0", frame = "line", agent = Agent }]] }
  ok(run(app, "status"))
  return app, app:connect():echo_line("hold", "hold")
end

describe("the control socket", function()
  after_each(server.finish)

  describe("of a server whose handlers use up all descriptors", function()
    local STARVED = "no descriptors are left: control clients get those that are kept for them"

    it("answers, again and again, and says so once", function()
      local app, client = start_starved()
      for _ = 1, 6 do ok(run(app, "status")) end
      assert.equal(1, #app:find_log(STARVED))
      client:echo_line("free", "free")
      ok(run(app, "status"))
      client:echo_line("hold", "hold")
      ok(run(app, "status"))
      assert.equal(2, #app:find_log(STARVED))
    end)

    it("is not kept by clients that say nothing", function()
      local app = start_starved()
      for _ = 1, 6 do client_of(app) end
      ok(run(app, "status"))
    end)

    it("stops it", function()
      local app = start_starved()
      ok(run(app, "stop"), "draining")
      assert.equal(0, app:wait_end().code)
    end)

    it("stops it at once", function()
      local app = start_starved()
      ok(run(app, "stop", "--now"))
      assert.equal(1, app:wait_end().code)
    end)
  end)

  describe("status", function()
    it("tells what a server is doing", function()
      local app = start({ workers = 2 }, [[name = "front"]])
      local one, two = app:connect(), app:connect()
      one:echo_line("a", "one a")
      two:echo_line("b", "one b")
      app:connect():send("fail\n"):expect_closed()
      app:wait_log "handler failed"
      app:wait_log "closed error"
      local status = run_json(app, "status")
      assert.same({ true, app.pid, "serving", 1 }, { status.ok, status.pid, status.stage, status.generation })
      has("app.lua", status.script)
      assert.truthy(status.version:find("^%d+%.%d+"))
      assert.is_true(status.uptime_ms >= 0 and status.uptime_ms < 60000)
      local listener = status.listeners[1]
      assert.same({ 1, "front", app.listeners[1].address, 10000, 0 },
        { #status.listeners, listener.listener, listener.address, listener.limit, listener.refused })
      assert.equal(2, listener.open)
      assert.same({ 2, 0, 1 }, { #status.workers, status.workers[1].worker, status.workers[2].worker })
      assert.equal(2, status.workers[1].connections + status.workers[2].connections)
      assert.same({ 3, 1, 1, 1, 3 }, { status.counters.accepted, status.counters.closed,
        status.counters.reasons.error, status.counters.faults, status.counters.frames_in })
      assert.same({ 1, 1, true, 2 }, { #status.generations, status.generations[1].generation,
        status.generations[1].newest, status.generations[1].connections })
      assert.is_nil(status.last_reload)
    end)

    it("is a page for people", function()
      local app = start()
      app:connect():echo_line("a", "one a")
      local result = run(app, "status")
      ok(result)
      for _, part in ipairs { "app.lua: serving, generation 1, pid " .. app.pid, "listeners", app.listeners[1].address,
        "1 open of 10000, 0 refused", "workers", "1 connection, 1 generation, frames: 1 in, 1 out", "generations",
        "connections  1 now (open 1)", "1 accepted, 0 closed", "last reload  none" } do
        has(part, result.out)
      end
    end)

    it("shows the generations that have connections, and their ages", function()
      local app = start { workers = 2 }
      local old = app:connect():echo_line("a", "one a")
      rewrite(app, script "two")
      ok(run(app, "reload", "--wait"), "reloaded: generation 2")
      ok(run(app, "reload", "--wait"), "nothing has changed; generation 2 serves on")
      local new = app:connect():echo_line("a", "two a")
      local answer = run_json(app, "generations")
      assert.same({ 2, 2, true, 1 }, { #answer.generations, answer.generations[1].generation,
        answer.generations[1].newest, answer.generations[1].connections })
      assert.same({ 1, false, 1 }, { answer.generations[2].generation, answer.generations[2].newest,
        answer.generations[2].connections })
      assert.is_true(answer.generations[2].age_ms >= answer.generations[1].age_ms)
      ok(run(app, "generations"), "takes new ones")
      old:close()
      wait.until_true("the old generation gone", function() return #run_json(app, "generations").generations == 1 end)
      new:echo_line("b", "two b")
    end)

    it("goes on when some of the workers have ended", function()
      local app = start({ workers = 2 }, [[timeout = { drain = "60s" }]])
      local one, two = app:connect():echo_line("a", "one a"), app:connect():echo_line("a", "one a")
      ok(run(app, "reload", "--wait"))
      one:send "sleep\n"
      app:wait_log "asleep"
      ok(run(app, "stop"))
      two:expect_closed()
      wait.until_true("the other one alone", function() return run_json(app, "status").counters.closed == 1 end)
      local generations = run_json(app, "generations").generations
      assert.equal(1, generations[#generations].connections)
      assert.equal(1, generations[#generations].generation)
      ok(run(app, "stop", "--now"))
      assert.equal(1, app:wait_end().code)
    end)

    it("waits no longer than --timeout says, and what was asked for goes on", function()
      local app = start({}, [[timeout = { drain = "1h" }]])
      ok(run(app, "reload", "--timeout", "1h"), "nothing has changed")
      app:connect():send "sleep\n"
      app:wait_log "asleep"
      failed(1, "stop: not done within --timeout; it goes on", run(app, "stop", "--timeout", "50ms"))
      for _, name in ipairs { "stop", "drain" } do
        local answer, result = run_json(app, name, "--timeout", "50ms")
        assert.same({ false, "timeout", 1, "" }, { answer.ok, answer.code, result.code, result.err })
        has("not done within --timeout; it goes on", answer.error)
      end
      assert.equal("draining", run_json(app, "status").stage)
      failed(2, "--timeout expects a time such as 10, 500ms or 5m", run(app, "stop", "--timeout", "soon"))
      ok(run(app, "stop", "--now"))
      assert.equal(1, app:wait_end().code)
    end)

    it("answers while a handler does not return", function()
      local app = server.start_lines([[
        function Agent:proceed() note("spinning") local t = os.time() + 1 while os.time() <= t do end return "x" end]],
        { control = "control.sock" }, [[limits = { proceed = "20s" }]])
      local one = app:connect():send("x\n")
      app:wait_log "spinning"
      assert.equal(1, run_json(app, "status").workers[1].connections)
      assert.equal("x", one:recv_line())
    end)
  end)

  describe("reload", function()
    it("with --wait tells the outcome", function()
      local app = start()
      rewrite(app, script "two")
      ok(run(app, "reload", "--wait"), "reloaded: generation 2")
      app:connect():echo_line("a", "two a")
      local last = run_json(app, "status").last_reload
      assert.same({ 1, "reloaded", 2 }, { last.number, last.outcome, last.generation })
      assert.truthy(last.time:find("^%d%d%d%d%-%d%d%-%d%dT%d%d:%d%d:%d%d%.%d%d%dZ$"))
    end)

    it("with --wait fails with the excerpt, and the old generation serves on", function()
      local app = start()
      rewrite(app, script "two" .. "\nlocal x = = 1")
      local result = run(app, "reload", "--wait")
      failed(1, "app.lua", result)
      has("local x = = 1", result.err)
      assert.equal("", result.out)
      app:connect():echo_line("a", "one a")
      local answer, as_json = run_json(app, "reload", "--wait")
      assert.same({ 1, false, "reload_failed", "failed", 1 },
        { as_json.code, answer.ok, answer.code, answer.reload.outcome, answer.reload.generation })
      has("local x = = 1", run(app, "status").out)
    end)

    it("with --wait fails when it is refused", function()
      local app = start({}, "reload = { keep = 1 }")
      local old = app:connect():echo_line("a", "one a")
      rewrite(app, script("two", "reload = { keep = 1 }"))
      ok(run(app, "reload", "--wait"))
      failed(1, "reload.keep", run(app, "reload", "--wait"))
      failed(1, "reload.keep", run(app, "reload"))
      assert.equal("refused", run_json(app, "status").last_reload.outcome)
      old:echo_line("b", "one b")
    end)

    it("without --wait answers at once", function()
      local app = start()
      rewrite(app, script "two")
      ok(run(app, "reload"), "reload begun")
      app:wait_log "reloaded"
      app:connect():echo_line("a", "two a")
    end)

    it("asked for by many at once tells each of the reload that began after it asked", function()
      local app = start()
      local clients = {}
      for i = 1, 10 do clients[i] = client_of(app):send [[{"command":"reload","wait":true}]] end
      rewrite(app, script "two")
      for _, one in ipairs(clients) do one:send "\n" end
      for _, one in ipairs(clients) do
        local answer = json_decode(one:recv_line())
        assert.is_true(answer.ok)
        assert.equal("reloaded", answer.reload.outcome)
      end
      app:connect():echo_line("a", "two a")
      assert.is_true(run_json(app, "status").last_reload.number <= 10)
    end)

    it("keeps the outcome of a signal's reload as well", function()
      local app = start()
      rewrite(app, script "two")
      app:signal "HUP"
      app:wait_log "reloaded"
      assert.equal("reloaded", run_json(app, "status").last_reload.outcome)
    end)
  end)

  describe("stop", function()
    it("drains, and with --wait says when that is done", function()
      local app = start()
      local one = app:connect():echo_line("a", "one a")
      ok(run(app, "stop", "--wait"), "stopped")
      one:expect_closed()
      local result = app:wait_end()
      assert.same({ 0, 0 }, { result.code, result.summary.cut })
      assert.is_nil(unistd.access(path_of(app)))
      assert.equal("the control socket", app:wait_log("draining").by)
    end)

    it("with --wait answers when the log has its last entry", function()
      local app = start({}, [[teardown = function() local t = os.clock() + 0.5 while os.clock() < t do end end]])
      rewrite(app, script "two")
      ok(run(app, "reload", "--wait"))
      ok(run(app, "stop", "--wait"), "stopped")
      assert.equal(1, #app:find_log("stopped"))
      assert.equal(0, app:wait_end().code)
    end)

    it("with --wait does so where a handler never returns", function()
      local app = server.start_lines([[function Agent:proceed() note "spinning" while true do end end]],
        { asan = "detect_leaks=0", control = "control.sock" }, [[limits = { proceed = false }]])
      app:connect():send "x\n"
      app:wait_log "spinning"
      run(app, "stop", "--now", "--wait")
      assert.equal(1, #app:find_log("stopped"))
      wait.until_true("the server's end", function() return app:has_ended() end)
      app.stopped = true
    end)

    it("is also called drain", function()
      local app = start()
      ok(run(app, "drain", "--wait"), "stopped")
      assert.equal(0, app:wait_end().code)
    end)

    it("answers at once without --wait", function()
      local app = start({}, [[timeout = { drain = "60s" }]])
      app:connect():send "sleep\n"
      app:wait_log "asleep"
      ok(run(app, "stop"), "draining")
      ok(run(app, "stop"), "draining")
      assert.equal("draining", run_json(app, "status").stage)
      failed(1, "not serving", run(app, "reload", "--wait"))
      ok(run(app, "stop", "--now"))
      assert.same({ 1, 1 }, { app:wait_end().code, app:wait_log("stopped").cut })
    end)

    it("with --now and --wait cuts what is left, and fails if that was anything", function()
      local app = start({}, [[timeout = { drain = "60s" }]])
      app:connect():send "sleep\n"
      app:wait_log "asleep"
      local result = run(app, "stop", "--now", "--wait")
      assert.equal(1, result.code)
      has("connections cut: 1", result.out)
      assert.equal(1, app:wait_end().code)
      app:wait_log "connections were cut by the control socket"
    end)
  end)

  describe("kick", function()
    it("ends that connection and no other", function()
      local app = start { workers = 2 }
      local one, two = app:connect(), app:connect()
      local id = one:send("id\n"):recv_line()
      two:echo_line("a", "one a")
      ok(run(app, "kick", id, "--reason", "too loud\27"), "connection " .. id .. " is being closed")
      one:expect_closed()
      app:wait_log { message = "closed kick", conn = tonumber(id) }
      local entry = app:wait_log "connection kicked"
      assert.same({ tonumber(id), "too loud\27" }, { entry.conn, entry.why })
      two:echo_line("b", "one b")
      assert.equal(1, run_json(app, "status").counters.reasons.kick)
      failed(1, "no connection with that id", run(app, "kick", id))
    end)

    it("ends one whose agent is suspended", function()
      local app = start()
      local one = app:connect()
      local id = one:send("id\n"):recv_line()
      one:send "sleep\n"
      app:wait_log "asleep"
      ok(run(app, "kick", id))
      one:expect_closed()
      app:wait_log "closed kick"
    end)

    it("the second time does not wait for a peer that does not read", function()
      local app = server.start_lines([[
        function Agent:opened() note("id " .. self.conn.id) end
        function Agent:proceed() note "asked" return ("x"):rep(8e6) end]], { control = "control.sock" },
        [[timeout = { write = "60s" }, limits = { send_buffer = "16m" }]])
      local one = app:connect { receive_buffer = 4096 }
      one:send "x\n"
      app:wait_log "asked"
      ok(run(app, "kick", "1"))
      wait.while_true("it waits for the peer", function()
        return not run_json(app, "status").counters.reasons.kick
      end, 0.2)
      ok(run(app, "kick", "1"))
      wait.until_true("the end", function() return run_json(app, "status").counters.reasons.kick == 1 end)
    end)

    it("of an unknown id is an error", function()
      local app = start { workers = 2 }
      failed(1, "no connection with that id", run(app, "kick", "4711"))
    end)

    for _, bad in ipairs { "x", "0", "-1", "1.5", "99999999999999999999", "" } do
      it(("of %q is wrong usage"):format(bad), function()
        failed(2, bad == "-1" and "unknown option" or "id of a connection", command.run { "kick", bad })
      end)
    end
  end)

  describe("lets in", function()
    it("nobody else: its mode is 0600, whatever the umask", function()
      local app = start()
      assert.equal("600", mode_of(path_of(app)))
    end)

    it("no other user, even when the mode allows it", function()
      if unistd.geteuid() ~= 0 or not command.has "setpriv" then pending "needs root and setpriv" end
      local app = start()
      os.execute(("chmod 755 %s && chmod 666 %s && cp %s %s/client"):format(app.folder, path_of(app), command.binary,
        app.folder))
      local pipe = io.popen(("cd %s && setpriv --reuid=65534 --regid=65534 --clear-groups "
        .. "./client stop --control %s 2>&1")
        :format(app.folder, path_of(app)))
      local text = pipe:read("*a")
      pipe:close()
      has("only the server's own user and root", text)
      assert.equal(65534, app:wait_log("control client refused: neither of this server's user nor root").uid)
      assert.equal("serving", run_json(app, "status").stage)
    end)
  end)

  describe("refuses", function()
    local BAD = {
      { "what is no JSON", "status", "bad_request" },
      { "an empty line", "", "bad_request" },
      { "half of an object", [[{"command":"status"]], "bad_request" },
      { "something after the object", [[{"command":"status"} x]], "bad_request" },
      { "two in a line", [[{"command":"status"}{"command":"stop"}]], "bad_request" },
      { "what is no object", '["status"]', "bad_request" },
      { "a number for a command", [[{"command":1}]], "bad_request" },
      { "no command", "{}", "bad_request" },
      { "a command twice", [[{"command":"status","command":"stop"}]], "bad_request" },
      { "an unknown command", [[{"command":"reboot"}]], "unknown_command" },
      { "an unknown field", [[{"command":"stop","why":"x"}]], "bad_request" },
      { "a field of another type", [[{"command":"stop","now":1}]], "bad_request" },
      { "a nested field", [[{"command":"kick","conn":[1]}]], "bad_request" },
      { "a number that is no id", [[{"command":"kick","conn":-1}]], "bad_request" },
      { "a missing field", [[{"command":"kick"}]], "bad_request" },
      { "bytes that are no UTF-8", "{\"command\":\"\255\"}", "bad_request" },
      { "a NUL", "{\"command\":\"status\0\"}", "bad_request" },
      { "deep nesting", ("["):rep(4000), "bad_request" },
    }
    for _, case in ipairs(BAD) do
      it(case[1] .. ", and goes on", function()
        local app = start()
        local one = client_of(app)
        local answer = ask(one, case[2])
        assert.same({ false, case[3] }, { answer.ok, answer.code })
        assert.is_true(#answer.error > 0)
        assert.is_true(ask(one, [[{"command":"status"}]]).ok)
        assert.equal("serving", run_json(app, "status").stage)
      end)
    end

    it("a line that is too long, and closes", function()
      local app = start()
      local one = client_of(app)
      one:send_some(("x"):rep(100000))
      assert.equal("too_long", json_decode(one:recv_line()).code)
      assert.equal("", (one:recv_all()))
      local other = client_of(app):send((" "):rep(4096 - 20) .. [[{"command":"status"}]] .. "\n")
      assert.is_true(json_decode(other:recv_line()).ok)
    end)
  end)

  describe("is not harmed by", function()
    it("requests in pieces, and many in one piece", function()
      local app = start()
      local one = client_of(app)
      one:trickle([[{"command":"generations"}]] .. "\n")
      assert.is_true(json_decode(one:recv_line()).ok)
      one:send(([[{"command":"generations"}]] .. "\n"):rep(500))
      for _ = 1, 500 do assert.is_true(json_decode(one:recv_line()).ok) end
      one:send([[{"command":"generations"}]] .. "\n"):shutdown "send"
      assert.is_true(json_decode(one:recv_line()).ok)
      one:expect_closed()
    end)

    it("a last request that the end of the stream ends, and no line feed", function()
      local app = start()
      for text, is_good in pairs { [ [[{"command":"status"}]] ] = true, [ [[{"command":"sta]] ] = false } do
        local one = client_of(app):send(text):shutdown "send"
        assert.equal(is_good, json_decode(one:recv_line()).ok)
        one:expect_closed()
      end
      local silent = client_of(app):shutdown "send"
      silent:expect_closed()
      assert.equal("serving", run_json(app, "status").stage)
    end)

    -- Its handler returns when somebody opens the other end of the FIFO.
    local function start_blocked()
      local app = server.start { control = "control.sock", asan = server.SMALL_QUARANTINE, script = HEAD .. [[
        function Agent:proceed(line)
          note "blocked"
          os.execute("read line < gate")
          return line
        end
        return { listen = "tcp://127.0.0.1:0", frame = "line", agent = Agent, unsafe = { "os.execute" },
          limits = { proceed = 0 }, timeout = { drain = "60s" } }]] }
      assert(os.execute(("mkfifo %s/gate"):format(app.folder)) == 0)
      app:connect():send "x\n"
      app:wait_log "blocked"
      -- A reload has to be adopted by the worker.
      rewrite(app, command.read(app.folder .. "/app.lua") .. "\n")
      return app
    end

    -- The shell waits as well, until the handler's has opened it.
    local function open_gate(app) os.execute(("echo > %s/gate"):format(app.folder)) end

    local KICK, RELOAD = [[{"command":"kick","conn":4711}]], [[{"command":"reload","wait":true}]]

    it("clients that have left while their answers are not there", function()
      local app = start_blocked()
      client_of(app):close()
      ok(run(app, "generations"))
      local before = app:fds()
      for i = 1, 100 do
        local one = client_of(app):send((i % 2 == 0 and KICK or RELOAD) .. "\n")
        if i % 3 == 0 then one:shutdown "send" end
        one:close()
        -- Its backlog is not without end.
        if i % 25 == 0 then ok(run(app, "status"), "serving") end
      end
      ok(run(app, "status"), "serving")
      wait.until_true("their descriptors back", function() return app:fds() <= before end)
      open_gate(app)
      ok(run(app, "stop", "--wait"))
      assert.equal(0, app:wait_end().code)
    end)

    it("as many clients as may wait: others may still look, and stop it", function()
      local app = start_blocked()
      local waiting = {}
      for i = 1, 32 do waiting[i] = client_of(app):send((i % 2 == 0 and KICK or RELOAD) .. "\n") end
      ok(run(app, "status"), "serving")
      ok(run(app, "generations"))
      failed(1, "too many control clients wait", run(app, "kick", "1"))
      failed(1, "too many control clients wait", run(app, "reload", "--wait"))
      ok(run(app, "reload"))
      local silent = {}
      for i = 1, 20 do silent[i] = client_of(app) end
      ok(run(app, "status"), "serving")
      silent[1]:expect_closed()
      -- One that leaves makes room for one that waits.
      waiting[32]:close()
      local kick = client_of(app):send(KICK .. "\n")
      failed(1, "the server stops; but too many control clients wait", run(app, "stop", "--wait"))
      app:wait_log "draining"
      ok(run(app, "stop"))
      ok(run(app, "status"), "draining")
      assert.equal("no_answer", json_decode(kick:recv_line()).code)
      assert.equal("no_answer", json_decode(waiting[2]:recv_line()).code)
      open_gate(app)
      assert.equal(0, app:wait_end().code)
    end)

    it("a request whose client does not wait for the answer", function()
      local app = start()
      client_of(app):send([[{"command":"reload"}]] .. "\n"):close()
      app:wait_log "reload: nothing has changed"
      local one = app:connect():send "id\n"
      local id = one:recv_line()
      client_of(app):send(([[{"command":"kick","conn":%s}]]):format(id) .. "\n"):close()
      one:expect_closed()
      app:wait_log "connection kicked"
      client_of(app):send([[{"command":"stop"}]] .. "\n"):close()
      assert.equal(0, app:wait_end().code)
    end)

    it("more clients at once than may wait", function()
      local app, before = start_counted()
      local clients = {}
      for i = 1, 100 do
        clients[i] = client_of(app)
        if i % 25 == 0 then ok(run(app, "status")) end
      end
      assert.is_true(ask(clients[32], [[{"command":"status"}]]).ok)
      assert.is_true(ask(clients[100], [[{"command":"status"}]]).ok)
      ok(run(app, "status"))
      for _, one in ipairs(clients) do one:close() end
      wait.until_true("their descriptors back", function() return app:fds() == before end)
      ok(run(app, "status"))
    end)

    it("clients that leave in the middle of all kinds of things", function()
      local app, before = start_counted()
      for _, request in ipairs { "", "{", [[{"command":"status"}]], [[{"command":"status"}]] .. "\n",
        [[{"command":"kick","conn":7}]] .. "\n", [[{"command":"reload","wait":true}]] .. "\n",
        ([[{"command":"status"}]] .. "\n"):rep(50) } do
        for _ = 1, 5 do client_of(app):send(request):close() end
      end
      wait.until_true("their descriptors back", function() return app:fds() == before end)
      ok(run(app, "status"))
    end)

    it("clients that never read, nor those that never send", function()
      local app, before = start_counted()
      local mute, deaf = client_of(app), client_of(app)
      mute:send "{"
      for _ = 1, 10000 do
        if deaf:send_some(([[{"command":"status"}]] .. "\n"):rep(20)) == 0 then break end
      end
      local rss = app:rss()
      ok(run(app, "status"))
      app:connect():echo_line("a", "one a"):close()
      wait.until_true("both gone after the time-out", function() return app:fds() == before end)
      if server.measures_memory then assert.is_true(app:rss() - rss < 4e6) end
      assert.equal("", (mute:recv_all()))
    end)

    it("a stop with clients that wait", function()
      local app = start()
      local one, two, three = client_of(app), client_of(app), client_of(app)
      two:send "{"
      one:send([[{"command":"stop","wait":true}]] .. "\n")
      assert.equal("stopped", json_decode(one:recv_line()).stage)
      assert.equal(0, app:wait_end().code)
      two:recv_all()
      three:recv_all()
    end)
  end)

  describe("is where it is wanted:", function()
    it("a stale socket is replaced", function()
      local folder = command.folder()
      local path = folder .. "/here.sock"
      local app = start { control = path }
      os.execute(("ln %s %s/kept"):format(path, folder))
      app:stop()
      os.execute(("mv %s/kept %s"):format(folder, path))
      local again = start { control = path }
      ok(command.run { "status", "--control", path }, "pid " .. again.pid)
      again:stop()
      command.remove(folder)
    end)

    it("a live one is left alone, and the start fails", function()
      local app = start()
      local failing = server.start_failing { script = script "two", control = path_of(app) }
      assert.equal(1, failing.code)
      has("a running server answers there", failing.log[1].error)
      assert.equal("cannot open the control socket", failing.log[1].message)
      assert.equal(app.pid, run_json(app, "status").pid)
    end)

    it("what is no socket is left alone, and the start fails", function()
      local folder = command.folder()
      command.write(folder .. "/file", "precious")
      for _, path in ipairs { folder .. "/file", folder .. "/no/such.sock" } do
        local failing = server.start_failing { script = script "two", control = path }
        assert.equal(1, failing.code)
        assert.equal("cannot open the control socket", failing.log[1].message)
      end
      local file = io.open(folder .. "/file")
      assert.equal("precious", file:read("*a"))
      file:close()
      command.remove(folder)
    end)

    it("a setting of the script, which the environment and the flag override", function()
      local folder = command.folder()
      command.write(folder .. "/app.lua", script("one", [[control = "in-script.sock"]]))
      local function printed(env, flag)
        local result = command.run { "check", "app.lua", "--print", flag, env = env, dir = folder }
        return result.out:match("control%s+= ([^\n]-)%s*%(")
      end
      assert.equal("in-script.sock", printed())
      assert.equal("in-env.sock", printed { PERILUNE_CONTROL = "in-env.sock" })
      assert.equal("off", printed({ PERILUNE_CONTROL = "in-env.sock" }, "--control=off"))
      command.remove(folder)
    end)

    it("a reload makes it anew where its file was removed, for who waits as well", function()
      local app = start()
      local before = client_of(app)
      os.remove(path_of(app))
      app:signal "HUP"
      app:wait_log { message = "the file of a Unix socket was gone or replaced: it was made anew",
        listener = "control socket" }
      ok(run(app, "status"), "serving")
      assert.is_true(ask(before, [[{"command":"status"}]]).ok)
      assert.equal("600", mode_of(path_of(app)))
      app:stop()
      assert.is_nil(unistd.access(path_of(app)))
    end)

    it("a reload does not move it", function()
      local app = start()
      rewrite(app, script("two", [[control = "elsewhere.sock"]]))
      ok(run(app, "reload", "--wait"))
      assert.equal(app.pid, run_json(app, "status").pid)
    end)

    it("off is off", function()
      local app = start { control = "off" }
      assert.is_nil(app:find_log("control socket")[1])
      assert.is_nil(unistd.access(app.folder .. "/off"))
    end)
  end)

  describe("by default", function()
    local function start_default(folder, name)
      local file = command.write(folder .. "/" .. name, script "one")
      return server.start { file = file, control = "auto", env = { XDG_RUNTIME_DIR = folder } }
    end

    local folder
    before_each(function() folder = command.folder() end)
    after_each(function() command.remove(folder) end)

    it("is named after the script and the process, and found by clients", function()
      local app = start_default(folder, "chat room.lua")
      local path = ("%s/perilune/chat_room-%d.sock"):format(folder, app.pid)
      assert.equal("600", mode_of(path))
      assert.equal("700", mode_of(folder .. "/perilune"))
      assert.equal(path, app:wait_log("control socket").path)
      ok(command.run { "status", env = { XDG_RUNTIME_DIR = folder } }, "pid " .. app.pid)
      ok(command.run { "status", env = { PERILUNE_CONTROL = path } }, "pid " .. app.pid)
      failed(1, "is off", command.run { "status", env = { PERILUNE_CONTROL = "off" } })
      app:stop()
      assert.is_nil(unistd.access(path))
    end)

    it("does not collide, and clients list the servers when there are several", function()
      local one, two = start_default(folder, "a.lua"), start_default(folder, "a.lua")
      local result = command.run { "status", env = { XDG_RUNTIME_DIR = folder } }
      failed(1, "2 servers are running; name the one that is meant with --control NAME, NAME-PID or PATH:", result)
      has(("/perilune/a-%d.sock"):format(one.pid), result.err)
      has(("/perilune/a-%d.sock"):format(two.pid), result.err)
      local answer = json_decode(command.run({ "stop", "--json", env = { XDG_RUNTIME_DIR = folder } }).out)
      assert.same({ false, "several_servers" }, { answer.ok, answer.code })
      has(("/perilune/a-%d.sock"):format(two.pid), answer.error)
      ok(command.run { "stop", "--wait", "--control", ("%s/perilune/a-%d.sock"):format(folder, one.pid) })
      one:wait_end()
      ok(command.run { "status", env = { XDG_RUNTIME_DIR = folder } }, "pid " .. two.pid)
    end)

    it("is found by the server's name, its process, and its script", function()
      local env = { XDG_RUNTIME_DIR = folder }
      local one, two, chat = start_default(folder, "a.lua"), start_default(folder, "a.lua"),
        start_default(folder, "chat.lua")
      for _, given in ipairs { "chat", "chat.lua", folder .. "/chat.lua", tostring(chat.pid), "chat-" .. chat.pid,
        "chat-" .. chat.pid .. ".sock" } do
        ok(command.run { "status", given, env = env, dir = folder }, "pid " .. chat.pid)
        ok(command.run { "status", "--control", given, env = env, dir = folder }, "pid " .. chat.pid)
      end
      ok(command.run { "generations", "chat", env = { XDG_RUNTIME_DIR = folder, PERILUNE_CONTROL = "a" } },
        "takes new ones")
      ok(command.run { "status", env = { XDG_RUNTIME_DIR = folder, PERILUNE_CONTROL = "chat" } }, "pid " .. chat.pid)
      ok(command.run { "status", tostring(two.pid), env = env }, "pid " .. two.pid)
      failed(1, "2 servers are called 'a'; name the one that is meant with --control NAME, NAME-PID or PATH:",
        command.run { "status", "a", env = env })
      local result = command.run { "status", "caht", env = env }
      failed(1, "no running server is called 'caht'; there are:", result)
      has(("/perilune/chat-%d.sock"):format(chat.pid), result.err)
      failed(1, "no connection", command.run { "kick", "4711", "--control=chat", env = env })
      ok(command.run { "stop", "chat", "--wait", env = env })
      chat:wait_end()
      assert.is_false(one:has_ended())
    end)

    it("is found by the script that it runs, whatever it is called and wherever one is", function()
      local env, elsewhere = { XDG_RUNTIME_DIR = folder }, command.folder()
      finally(function() command.remove(elsewhere) end)
      os.execute(("mkdir -p '%s/z' '%s/z'"):format(folder, elsewhere))
      local z, a = start_default(folder, "z/app.lua"), start_default(folder, "a.lua")
      command.write(elsewhere .. "/z/app.lua", script "other")
      os.execute(("ln -s '%s/a.lua' '%s/b.lua'"):format(folder, elsewhere))
      for given, dir in pairs { ["app.lua"] = folder .. "/z", ["./app.lua"] = folder .. "/z",
        ["z/app.lua"] = folder } do
        ok(command.run { "status", given, env = env, dir = dir }, "pid " .. z.pid)
      end
      ok(command.run { "status", "b.lua", env = env, dir = elsewhere }, "pid " .. a.pid)
      assert.equal(folder .. "/a.lua", json_decode(command.run({ "status", "a", "--json", env = env }).out).script_path)
      -- Another one of that name is not meant.
      local result = command.run { "stop", "app.lua", env = env, dir = elsewhere .. "/z" }
      failed(1, ("no running server runs '%s/z/app.lua'; there are:"):format(elsewhere), result)
      has(("/perilune/z-%d.sock: %s/z/app.lua\n"):format(z.pid, folder), result.err)
      has(("/perilune/a-%d.sock: %s/a.lua\n"):format(a.pid, folder), result.err)
      -- Without such a file it is a name, and that is said.
      ok(command.run { "status", "z/app.lua", env = env, dir = "/" }, "pid " .. z.pid)
      failed(1, "talk/app.lua is no file here, and no running server is called 'talk'; there are:",
        command.run { "status", "talk/app.lua", env = env, dir = folder })
      local again = start_default(folder, "z/app.lua")
      result = command.run { "status", "app.lua", env = env, dir = folder .. "/z" }
      failed(1, ("2 servers run '%s/z/app.lua'; name the one that is meant"):format(folder), result)
      has(("/perilune/z-%d.sock"):format(again.pid), result.err)
    end)

    it("is found by the name of its script where the path cannot be told", function()
      local env, latin = { XDG_RUNTIME_DIR = folder }, folder .. "/caf\xe9"
      os.execute(("mkdir '%s'"):format(latin))
      local chat = start_default(folder, "caf\xe9/chat.lua")
      ok(command.run { "status", "chat.lua", env = env, dir = latin }, "pid " .. chat.pid)
      failed(1, "no running server runs", command.run { "status", command.write(latin .. "/talk.lua", ""), env = env })
    end)

    it("is not found by the name of its script where that is gone", function()
      local env, elsewhere = { XDG_RUNTIME_DIR = folder }, command.folder()
      finally(function() command.remove(elsewhere) end)
      start_default(folder, "chat.lua")
      os.remove(folder .. "/chat.lua")
      command.write(elsewhere .. "/chat.lua", script "other")
      local result = command.run { "stop", "chat.lua", env = env, dir = elsewhere }
      failed(1, ("no running server runs '%s/chat.lua'; there "):format(elsewhere), result)
    end)

    it("is found by its name beside a folder, or a file, of that name", function()
      local env, apps = { XDG_RUNTIME_DIR = folder }, command.folder()
      local chat = start_default(folder, "chat.lua")
      finally(function() command.remove(apps) end)
      os.execute(("mkdir '%s/chat'"):format(apps))
      command.write(apps .. "/" .. chat.pid, "")
      for _, given in ipairs { "chat", tostring(chat.pid) } do
        ok(command.run { "status", given, env = env, dir = apps }, "pid " .. chat.pid)
        ok(command.run { "status", "--control", given, env = env, dir = apps }, "pid " .. chat.pid)
      end
      failed(1, "no running server is called 'talk'; there ",
        command.run { "status", "talk", env = env, dir = command.write(apps .. "/talk", "") and apps })
    end)

    it("is asked again and again with status --watch, until the server ends", function()
      local app = start_default(folder, "chat.lua")
      for i, option in ipairs { "", "--json" } do
        local out = command.write(folder .. "/out" .. i, "")
        local code = command.write(folder .. "/code" .. i, "")
        os.execute(("(XDG_RUNTIME_DIR='%s' '%s' status chat --watch %s >'%s' 2>&1; echo $? >'%s') &"):format(folder,
          command.binary, option, out, code))
      end
      local function count(path, part) return select(2, command.read(path):gsub(part, "")) end
      wait.until_true("two reports each", function()
        return count(folder .. "/out1", "chat%.lua: serving") >= 2 and count(folder .. "/out2", '"ok":true') >= 2
      end)
      app:stop()
      for i = 1, 2 do
        wait.until_true("the end of a watch", function() return command.read(folder .. "/code" .. i) == "1\n" end)
        has(i == 1 and "perilune status: " or '{"ok":false,"code":"no_', command.read(folder .. "/out" .. i))
        assert.is_nil(command.read(folder .. "/out" .. i):find("\27", 1, true))
      end
    end)

    it("is cleared of what servers that died have left", function()
      local dead = start_default(folder, "a.lua")
      local path = ("%s/perilune/a-%d.sock"):format(folder, dead.pid)
      os.execute(("ln %s %s/kept"):format(path, folder))
      dead:stop()
      os.execute(("mv %s/kept %s"):format(folder, path))
      local app = start_default(folder, "b.lua")
      assert.is_nil(unistd.access(path))
      ok(command.run { "status", env = { XDG_RUNTIME_DIR = folder } }, "pid " .. app.pid)
    end)

    it("may be impossible: that is a warning", function()
      for _, unusable in ipairs { "/nowhere", folder .. ("/x"):rep(40) } do
        os.execute("mkdir -p " .. folder .. ("/x"):rep(40))
        local app = server.start { script = script "one", control = "auto", env = { XDG_RUNTIME_DIR = unusable } }
        app:connect():echo_line("a", "one a")
        app:wait_log { message = "no control socket: name a place with --control, or turn it off", level = "warn" }
      end
    end)

    it("finds no server where there is none", function()
      if unistd.access("/run/perilune") then pending "there is /run/perilune on this machine" end
      failed(1, "found no running server", command.run { "status", env = { XDG_RUNTIME_DIR = folder } })
    end)
  end)

  describe("clients", function()
    local NAMES = { "status", "generations", "reload", "upgrade", "reopen", "stop", "drain", "kick" }

    it("have help, with their exit codes and an example", function()
      for _, name in ipairs(NAMES) do
        local result = command.run { name, "--help", env = { PERILUNE_LUA_PATH = "/nowhere" } }
        ok(result)
        for _, part in ipairs { "usage: perilune " .. name, "--control SERVER", "--json", "PERILUNE_CONTROL",
          "Exit codes:", "Example:" } do
          has(part, result.out)
        end
        for line in result.out:gmatch("[^\n]+") do assert.is_true(#line <= 110, line) end
      end
    end)

    it("need no Lua modules", function()
      local app = start()
      ok(command.run { "status", "--control", path_of(app), env = { PERILUNE_LUA_PATH = "/nowhere" } })
    end)

    it("say what nobody answers", function()
      for _, name in ipairs(NAMES) do
        local call = { name, "--control", "/nowhere.sock", name == "kick" and "1" or nil }
        failed(1, "no server answers at /nowhere.sock", command.run(call))
      end
    end)

    it("with --json say it as an answer, on standard output", function()
      local folder = command.folder()
      finally(function() command.remove(folder) end)
      for _, name in ipairs(NAMES) do
        for given, code in pairs { ["/nowhere.sock"] = "no_server", off = "no_server", nobody = "no_server" } do
          local result = command.run { name, "--json", "--control", given, name == "kick" and "1" or nil,
            env = { XDG_RUNTIME_DIR = folder } }
          local answer = json_decode(result.out)
          assert.same({ 1, "", false, code }, { result.code, result.err, answer.ok, answer.code })
        end
      end
    end)

    it("refuse what they do not know, with a suggestion", function()
      failed(2, "(did you mean 'status'?)", command.run { "statsu" })
      failed(2, "(did you mean --json?)", command.run { "status", "--jsno" })
      failed(2, "unknown option --now", command.run { "drain", "--now" })
      failed(2, "unknown option --workers", command.run { "status", "--workers", "1" })
      failed(2, "takes one server, got 'a' and 'b'", command.run { "reload", "a", "b" })
      failed(2, "takes one server, got 'a' and 'b'", command.run { "reload", "a", "--control=b" })
      failed(2, "takes one id", command.run { "kick", "1", "2" })
    end)
  end)
end)
