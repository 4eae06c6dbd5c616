--- perilune upgrade: the same as USR2, through the control socket, which goes on to the new process.
local command = require "spec.support.command"
local has = require "spec.support.has"
local json_decode = require "spec.support.json_decode"
local operator = require "spec.support.operator"
local posix_signal = require "posix.signal"
local posix_wait = require "posix.sys.wait"
local server = require "spec.support.server"
local unistd = require "posix.unistd"
local wait = require "spec.support.wait"

local function script(version, settings)
  return server.NOTE .. ([[
    local Agent = {}
    function Agent:proceed(line)
      if line == "sleep" then note "asleep" perilune.sleep "500ms" end
      if line == "sleep on" then note "asleep" perilune.sleep "10m" end
      return %q .. " " .. line
    end
    return { listen = "tcp://127.0.0.1:0", frame = "line", agent = Agent, %s }]]):format(version, settings or "")
end

local function start(options)
  local copy = { script = script "one", control = "control.sock" }
  for key, value in pairs(options or {}) do copy[key] = value end
  return server.start(copy)
end

local function rewrite(app, text) command.write(app.folder .. "/app.lua", text) end

local path_of, run, client_of, status = operator.path, operator.run, operator.client, operator.status

-- A server whose binary is its own, to be replaced by one that never gets ready.
local function start_with_slow_successor()
  local folder = command.folder()
  local binary = folder .. "/perilune"
  assert(os.execute(("cp %s %s"):format(command.binary, binary)))
  local app = start { folder = folder, binary = binary,
    env = { PERILUNE_LUA_PATH = os.getenv("PERILUNE_LUA_PATH") or unistd.getcwd() .. "/lua" } }
  app.own_folder = true
  command.write(binary .. ".new", "#!/bin/sh\nexec sleep 60\n")
  assert(os.execute(("chmod 755 %s.new && mv %s.new %s"):format(binary, binary, binary)))
  return app
end

describe("perilune upgrade", function()
  after_each(server.finish)

  it("with --wait ends when the new process serves, and the control socket is that one's", function()
    local app = start()
    local old = app:connect():echo_line("a", "one a")
    local before = client_of(app)
    rewrite(app, script "two")
    local result
    local successor = app:upgrade(10, function() result = run(app, "upgrade", "--wait") end)
    assert.same({ 0, ("upgraded: process %d serves\n"):format(successor.pid) }, { result.code, result.out })
    assert.same({ successor.pid, "serving" }, { status(app).pid, status(app).stage })
    successor:connect():echo_line("b", "two b")
    -- Who was connected to the old process still is.
    local left = json_decode(before:send('{"command":"status"}\n'):recv_line())
    assert.same({ app.pid, "leaving", 1 }, { left.pid, left.stage, left.counters.open })
    old:echo_line("c", "one c"):close()
    before:close()
    assert.equal(0, app:wait_end().code)
    assert.equal(0, run(successor, "stop", "--wait").code)
    assert.equal(0, successor:wait_end().code)
    assert.is_nil(unistd.access(path_of(app)))
  end)

  it("can be repeated, and says the same in JSON", function()
    local app = start()
    for i = 1, 3 do
      rewrite(app, script(tostring(i)))
      local answer
      local successor = app:upgrade(10,
        function() answer = json_decode(run(app, "upgrade", "--wait", "--json").out) end)
      assert.same({ ok = true, upgrade = { outcome = "upgraded", pid = successor.pid } }, answer)
      assert.equal(0, app:wait_end().code)
      successor:connect():echo_line("x", i .. " x"):close()
      app = successor
    end
  end)

  it("without --wait answers when it has begun", function()
    local app = start()
    local result
    local successor = app:upgrade(10, function() result = run(app, "upgrade") end)
    assert.same({ 0, "upgrade begun; the server's log tells the outcome\n" }, { result.code, result.out })
    wait.until_true("the new process at the socket", function() return status(app).pid == successor.pid end)
  end)

  it("leaves one server to be found where each has a socket of its own", function()
    local folder = command.folder()
    finally(function() command.remove(folder) end)
    local env = { XDG_RUNTIME_DIR = folder }
    local app = start { control = "auto", env = env }
    local old = app:connect():echo_line("a", "one a")
    local successor = app:upgrade(10, function()
      assert.equal(0, command.run({ "upgrade", "--wait", env = env }).code)
    end)
    assert.equal(successor.pid, json_decode(command.run({ "status", "--json", env = env }).out).pid)
    old:echo_line("b", "one b")
  end)
end)

describe("perilune upgrade fails, and the old process serves on, when", function()
  after_each(server.finish)

  local function assert_serves_on(app)
    assert.same({ app.pid, "serving" }, { status(app).pid, status(app).stage })
    app:connect():echo_line("x", "one x"):close()
  end

  it("the script is broken: --wait tells where", function()
    local app = start()
    rewrite(app, script "two" .. "\nlocal x = = 1")
    local result
    app:try_upgrade(nil, function() result = run(app, "upgrade", "--wait") end)
    assert.equal(1, result.code)
    has("perilune upgrade: the new process ended with exit code 78: ", result.err)
    has("app.lua:", result.err)
    assert_serves_on(app)
  end)

  it("setup() fails", function()
    local app = start()
    rewrite(app, script("two", [[setup = function() error "no database" end]]))
    local answer
    app:try_upgrade(nil, function() answer = json_decode(run(app, "upgrade", "--wait", "--json").out) end)
    assert.same({ false, "upgrade_failed" }, { answer.ok, answer.code })
    has("no database", answer.error)
    assert_serves_on(app)
  end)

  it("another is under way; and a reload is refused meanwhile", function()
    local app = start_with_slow_successor()
    local first = client_of(app):send '{"command":"upgrade","wait":true}\n'
    local pid = app:wait_log("upgrading").pid
    local result = run(app, "upgrade", "--wait")
    assert.equal(1, result.code)
    has("upgrade refused: one is under way", result.err)
    result = run(app, "reload", "--wait")
    assert.equal(1, result.code)
    has("reload refused: an upgrade is under way", result.err)
    assert_serves_on(app)
    posix_signal.kill(pid, posix_signal.SIGKILL)
    local answer = json_decode(first:recv_line())
    assert.same({ false, "upgrade_failed" }, { answer.ok, answer.code })
    has("ended by signal 9", answer.error)
    assert_serves_on(app)
  end)

  it("the server stops meanwhile: who waits is told", function()
    local app = start_with_slow_successor()
    local first = client_of(app):send '{"command":"upgrade","wait":true}\n'
    local pid = app:wait_log("upgrading").pid
    app:signal "TERM"
    local answer = json_decode(first:recv_line())
    assert.same({ false, "upgrade_failed", "the server stops" }, { answer.ok, answer.code, answer.error })
    assert.equal(0, app:wait_end().code)
    wait.until_true("the end of the new process", function()
      posix_wait.wait(pid, posix_wait.WNOHANG)
      return not posix_signal.kill(pid, 0)
    end)
  end)

  it("the server drains", function()
    local app = start { script = script("one", "timeout = { drain = '10m' }") }
    local client = app:connect():send "sleep on\n"
    app:wait_log "asleep"
    assert.equal(0, run(app, "stop").code)
    local result = run(app, "upgrade", "--wait")
    assert.equal(1, result.code)
    has("upgrade refused: the server is not serving", result.err)
    client:close()
    assert.equal(0, app:wait_end().code)
  end)
end)
