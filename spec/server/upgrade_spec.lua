--- USR2 starts the binary anew on the same sockets. Nobody is refused and nobody goes unanswered, and what does not
--- come up changes nothing.
local client = require "spec.support.client"
local command = require "spec.support.command"
local dirent = require "posix.dirent"
local has = require "spec.support.has"
local posix_signal = require "posix.signal"
local posix_wait = require "posix.sys.wait"
local server = require "spec.support.server"
local unistd = require "posix.unistd"
local wait = require "spec.support.wait"

local FAILED = "upgrade failed: this process serves on"

-- A script whose agents answer with `version` and the line.
local function script(version, settings, listen)
  return server.NOTE .. ([[
    local Agent = {}
    function Agent:closed(reason) note("closed " .. reason) end
    function Agent:proceed(line)
      local duration = line:match("^sleep (.*)$")
      if duration then perilune.sleep(duration) end
      return %q .. " " .. line
    end
    return { listen = %s, frame = "line", agent = Agent, %s }]]):format(version, listen or [["tcp://127.0.0.1:0"]],
    settings or "")
end

local function rewrite(app, text) command.write(app.folder .. "/app.lua", text) end

-- A binary of one's own, to be replaced by others. It finds our Lua modules where the real one does.
local function own_binary(folder)
  local path = folder .. "/perilune"
  assert(os.execute(("cp %s %s"):format(command.binary, path)))
  return path
end

local LUA_PATH = os.getenv("PERILUNE_LUA_PATH") or unistd.getcwd() .. "/lua"

-- Replaces a program as a package manager does: the one that runs keeps its file.
local function replace(path, text)
  command.write(path .. ".new", text)
  assert(os.execute(("chmod 755 %s.new && mv %s.new %s"):format(path, path, path)))
end

local function restore(path)
  assert(os.execute(("cp %s %s.new && mv %s.new %s"):format(command.binary, path, path, path)))
end

local function start_own(text, options)
  options = options or {}
  options.folder = command.folder()
  options.binary = own_binary(options.folder)
  options.env = { PERILUNE_LUA_PATH = LUA_PATH }
  options.script = text
  local app = server.start(options)
  app.own_folder = true
  return app
end

-- Processes of this parent that have ended and were not waited for.
local function zombies_of(pid)
  local found = 0
  for name in dirent.files("/proc") do
    local file = name:match("^%d+$") and io.open("/proc/" .. name .. "/stat")
    if file then
      local text = file:read("*a") or "" -- it may have gone by now
      local state, parent = text:match("%) (%S) (%d+)")
      file:close()
      if state == "Z" and tonumber(parent) == pid then found = found + 1 end
    end
  end
  return found
end

local function assert_serves_on(app, version)
  for i = 1, 3 do app:connect():echo_line("still " .. i, version .. " still " .. i):close() end
  assert.equal(0, zombies_of(app.pid))
end

describe("an upgrade", function()
  after_each(server.finish)

  it("gives new connections to a new process, and announces it", function()
    local app = server.start { script = script "one" }
    rewrite(app, script "two")
    local successor = app:upgrade()
    assert.is_true(successor.pid ~= app.pid)
    assert.equal(successor.pid, app:wait_log({ message = "serving", pid = successor.pid }).pid)
    assert.equal(0, app:wait_end().code)
    successor:connect():echo_line("a", "two a")
  end)

  it("leaves old connections with the old process until they end", function()
    local app = server.start { script = script "one", workers = 2 }
    local old = app:connect_many(4)
    for _, one in ipairs(old) do one:echo_line("a", "one a") end
    local silent = app:connect()
    app:wait_log(function() return true end)
    rewrite(app, script "two")
    local successor = app:upgrade()
    successor:connect():echo_line("b", "two b")
    for _, one in ipairs(old) do one:echo_line("c", "one c") end
    silent:echo_line("the first word", "one the first word")
    silent:close()
    for _, one in ipairs(old) do one:close() end
    local result = app:wait_end()
    assert.same({ 0, 0, "peer=5" }, { result.code, result.summary.cut, result.summary.reasons })
  end)

  it("drains what is left in the old process once timeout.drain has passed", function()
    local app = server.start { script = script("one", [[timeout = { drain = "400ms" }]]) }
    local idle, busy = app:connect():echo_line("a", "one a"), app:connect()
    local began = wait.now()
    app:upgrade()
    busy:send("sleep 600ms\n")
    idle:expect_closed()
    assert.is_true(wait.now() - began >= 0.39)
    assert.equal("one sleep 600ms\n", (busy:recv_all()))
    local result = app:wait_end()
    assert.same({ 0, "drain=2" }, { result.code, result.summary.reasons })
  end)

  it("lets TERM drain the old process at once", function()
    local app = server.start { script = script "one" }
    local idle = app:connect():echo_line("a", "one a")
    app:upgrade()
    app:signal "TERM"
    idle:expect_closed()
    assert.equal(0, app:wait_end().code)
  end)

  it("can be followed by another, and another", function()
    local app = server.start { script = script "0" }
    for i = 1, 5 do
      rewrite(app, script(tostring(i)))
      local successor = app:upgrade()
      assert.equal(0, app:wait_end().code)
      successor:connect():echo_line("x", i .. " x"):close()
      app = successor
    end
  end)

  it("leaks no descriptor into the new process", function()
    local app = server.start { script = script "one" }
    local before = app:fds()
    app:connect():echo_line("a", "one a")
    local successor = app:upgrade()
    -- The first may have more: what the runner of the specifications has open. That goes, too.
    wait.until_true("no more descriptors than the first", function() return successor:fds() <= before end)
    local after = successor:fds()
    local third = successor:upgrade()
    wait.until_true("as many descriptors as before", function() return third:fds() <= after end)
  end)

  it("keeps the file of a Unix socket, and the last process removes it", function()
    local path = command.folder()
    local listen = ([[{ "unix://%s/a", "tcp://127.0.0.1:0", "tcp://127.0.0.1:0" }]]):format(path)
    local app = server.start { script = script("one", nil, listen) }
    local ports = { app.listeners[2].port, app.listeners[3].port }
    local successor = app:upgrade()
    app:wait_end()
    for i = 1, 3 do successor:connect({ listener = i }):echo_line("x", "one x") end
    local found = {}
    for _, entry in ipairs(successor:find_log "listening") do
      found[#found + 1] = tonumber(entry.address:match(":(%d+)$"))
    end
    assert.same({ ports[1], ports[2], ports[1], ports[2] }, found)
    assert.is_truthy(unistd.access(path .. "/a"))
    successor:stop()
    assert.is_nil((unistd.access(path .. "/a")))
    command.remove(path)
  end)

  it("binds what the new script adds, and lets go of what it drops", function()
    local path = command.folder()
    local app = server.start { script = script("one", nil, ([["unix://%s/old"]]):format(path)) }
    rewrite(app, script("two", nil, ([["unix://%s/new"]]):format(path)))
    local successor = app:upgrade()
    app:wait_end()
    client.connect({ path = path .. "/new" }):echo_line("x", "two x"):close()
    assert.is_nil((client.try_connect({ path = path .. "/old" })))
    assert.is_nil((unistd.access(path .. "/old")))
    assert.equal(path .. "/old",
      successor:wait_log("an inherited socket is closed: no listener has its address").address)
    successor:stop()
    command.remove(path)
  end)

  it("takes the binary that has the name now", function()
    local app = start_own(script "one")
    restore(app.binary)
    has("(deleted)", unistd.readlink("/proc/" .. app.pid .. "/exe"))
    local successor = app:upgrade()
    assert.equal(app.binary, unistd.readlink("/proc/" .. successor.pid .. "/exe"))
    app:wait_end()
    successor:connect():echo_line("x", "one x")
    successor:stop()
  end)
end)

describe("an upgrade that fails changes nothing, when", function()
  after_each(server.finish)

  it("the script is broken", function()
    local app = server.start { script = script "one" }
    local old = app:connect():echo_line("a", "one a")
    rewrite(app, "return { listen = 7 }")
    local entry = app:try_upgrade()
    assert.equal(FAILED, entry.message)
    has("exit code 78", entry.error)
    old:echo_line("b", "one b")
    assert_serves_on(app, "one")
  end)

  it("setup() fails in a worker, after the sockets were inherited", function()
    local path = command.folder()
    local listen = ([["unix://%s/a"]]):format(path)
    local app = server.start { script = script("one", nil, listen) }
    rewrite(app, script("two", [[setup = function() error "no" end]], listen))
    assert.equal(FAILED, app:try_upgrade().message)
    assert.is_truthy(unistd.access(path .. "/a"))
    assert_serves_on(app, "one")
    app:stop()
    command.remove(path)
  end)

  for name, case in pairs {
    ["a program that exits with 1"] = { "#!/bin/sh\nexit 1\n", "exit code 1" },
    ["a program that dies of a signal"] = { "#!/bin/sh\nkill -9 $$\n", "signal 9" },
    ["no program"] = { "\1\2\3 garbage", "cannot be started: Exec format error" },
  } do
    it("the binary is " .. name, function()
      local app = start_own(script "one")
      replace(app.binary, case[1])
      local entry = app:try_upgrade()
      assert.equal(FAILED, entry.message)
      has(case[2], entry.error)
      assert_serves_on(app, "one")
      restore(app.binary)
      local successor = app:upgrade()
      successor:connect():echo_line("x", "one x")
      app:wait_end()
      successor:stop()
    end)
  end

  it("there is no binary any more", function()
    local app = start_own(script "one")
    os.remove(app.binary)
    has("No such file", app:try_upgrade().error)
    assert_serves_on(app, "one")
  end)

  it("the new process is not ready in time: then it is ended", function()
    local app = start_own(script("one", [[timeout = { upgrade = "300ms" }]]))
    replace(app.binary, "#!/bin/sh\necho $$ > pid\nexec sleep 60\n")
    local began = wait.now()
    local entry = app:try_upgrade()
    assert.equal(FAILED, entry.message)
    has("not ready within 300 ms", entry.error)
    assert.is_true(wait.now() - began >= 0.29)
    assert.is_nil((posix_signal.kill(entry.pid, 0)))
    assert_serves_on(app, "one")
  end)

  it("readiness is said by somebody else", function()
    local app = start_own(script("one", [[timeout = { upgrade = "500ms" }]]))
    -- A child of the new process is not the new process.
    replace(app.binary, [[#!/bin/sh
python3 - <<'END'
import os, socket
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.sendto(b"READY=1", "\0" + os.environ["NOTIFY_SOCKET"][1:])
END
exec sleep 60
]])
    has("not ready within", app:try_upgrade().error)
    assert_serves_on(app, "one")
  end)
end)

describe("an upgrade is refused", function()
  after_each(server.finish)

  local SLOW = "#!/bin/sh\nexec sleep 60\n"

  it("while another is under way, as is a reload; TERM ends it", function()
    local app = start_own(script "one")
    replace(app.binary, SLOW)
    app:signal "USR2"
    local pid = app:wait_log("upgrading").pid
    app:signal "USR2"
    assert.equal(pid, app:wait_log("upgrade refused: one is under way").pid)
    app:signal "HUP"
    app:wait_log "reload refused: an upgrade is under way"
    app:connect():echo_line("x", "one x")
    assert.equal(0, app:stop().code)
    app:wait_log "upgrade cancelled: the server stops"
    wait.until_true("the end of the new process", function()
      posix_wait.wait(pid, posix_wait.WNOHANG)
      return not posix_signal.kill(pid, 0)
    end)
  end)

  it("not for a reload that a worker has yet to adopt", function()
    local function gated(version, folder)
      return (script(version, [[limits = { proceed = "30s" }]]):gsub("function Agent:proceed%(line%)", [[%0
        if line == "spin" then note "spins" repeat local gate = io.open("]] .. folder .. [[/gate") until gate end]]))
    end
    local options = { workers = 2 }
    local folder = command.folder()
    options.folder, options.script = folder, gated("one", folder)
    local app = server.start(options)
    app.own_folder = true
    local spinner = app:connect():send("spin\n")
    app:wait_log "spins"
    rewrite(app, gated("two", folder))
    app:signal "HUP"
    app:wait_log { message = "generation retired", generation = 1 } -- by the other worker
    local successor = app:upgrade()
    command.write(folder .. "/gate", "")
    assert.equal("one spin", spinner:recv_line())
    successor:connect():echo_line("y", "two y")
  end)

  it("while the server drains", function()
    local app = server.start { script = script "one" }
    app:connect():send("sleep 500ms\n")
    app:connect():echo_line("x", "one x")
    app:signal "TERM"
    app:wait_log "draining"
    app:signal "USR2"
    app:wait_log "upgrade refused: the server is not serving"
    app:wait_end()
  end)

  it("once it has been done", function()
    local app = server.start { script = script "one" }
    app:connect():echo_line("x", "one x")
    app:upgrade()
    app:signal "USR2"
    app:wait_log "upgrade refused: the server is not serving"
  end)
end)

-- A container in small: a namespace of processes, whose first is the server, or an init that is called like Docker's.
describe("an upgrade in a container", function()
  local OPERATE = [[
    until grep -q '"serving"' log; do sleep 0.01; done
    kill -USR2 $pid
    until grep -q '"upgrad' log; do sleep 0.01; done
    kill -TERM $pid]]
  local INITS = {
    ["process 1"] = "#!/bin/sh\npid=1; { " .. OPERATE .. "\n} & exec \"$@\" 2>log",
    ["the only child of an init"] = "#!/bin/sh\n\"$@\" 2>log & pid=$!; " .. OPERATE .. "\nwait $pid",
  }

  for where, init in pairs(INITS) do
    it("is refused: the server is " .. where, function()
      if not command.shell("unshare --pid --fork echo yes 2>&1"):find "yes" then
        return pending "needs CAP_SYS_ADMIN"
      end
      local folder = command.folder()
      finally(function() command.remove(folder) end)
      command.write(folder .. "/app.lua", script "one")
      command.write(folder .. "/tini", init)
      command.shell(("cd '%s' && chmod +x tini && timeout 60 unshare --pid --fork --kill-child --mount-proc " ..
        "./tini '%s' run app.lua --listen tcp://127.0.0.1:0 --workers 1 --control off --log-format json 2>&1")
        :format(folder, command.binary))
      local log = command.read(folder .. "/log")
      has('"upgrade refused: ', log)
      has(" container\"", log)
      has('"stopped"', log)
    end)
  end
end)

describe("under load", function()
  after_each(server.finish)

  -- Connects, asks, is answered and closes, over and over until the file `stop` is there; then writes what it has seen.
  local function ask_until_stopped(app, name, pause, parent)
    local asked, failures, listener = 0, {}, app.listeners[1]
    while not unistd.access(app.folder .. "/stop") and unistd.getppid() == parent and #failures < 10 do
      local ok, message = pcall(function()
        local one = client.connect { port = listener.port, path = listener.path }
        if pause > 0 then wait.pause(pause) end
        one:send("q" .. asked .. "\n")
        local got = one:recv_line()
        one:close()
        assert(got:find(" q" .. asked, 1, true), got)
      end)
      asked = asked + 1
      if not ok then failures[#failures + 1] = message end
    end
    command.write(app.folder .. "/" .. name, asked .. " " .. #failures .. " " .. (failures[1] or "-"))
  end

  local function start_clients(app, count)
    local pids, parent = {}, unistd.getpid()
    for i = 1, count do
      pids[i] = assert(unistd.fork())
      if pids[i] == 0 then
        pcall(ask_until_stopped, app, "client" .. i, i % 2 == 0 and 0.02 or 0, parent)
        unistd._exit(0)
      end
    end
    return pids
  end

  local function stop_clients(app, pids)
    command.write(app.folder .. "/stop", "")
    local total = 0
    for i, pid in ipairs(pids) do
      posix_wait.wait(pid)
      local file = assert(io.open(app.folder .. "/client" .. i), "a client did not finish")
      local asked, failed, first = file:read("*a"):match("^(%d+) (%d+) (.*)$")
      file:close()
      assert.same({ "0", "-" }, { failed, first })
      total = total + tonumber(asked)
    end
    return total
  end

  -- Every fifth upgrade is a broken one, a script or a binary in turn.
  local function upgrade_many(app, count, text)
    for i = 1, count do
      local broken = i % 5 == 0
      if broken and i % 2 == 0 then replace(app.binary, i % 4 == 0 and "#!/bin/sh\nexit 1\n" or "\0garbage") end
      if broken and i % 2 == 1 then rewrite(app, "error 'broken'") end
      if broken then
        assert.equal(FAILED, app:try_upgrade().message)
        assert.equal(0, zombies_of(app.pid))
        restore(app.binary)
        rewrite(app, text)
      else
        local successor = app:upgrade()
        assert.equal(0, app:wait_end().code)
        app = successor
      end
    end
    return app
  end

  for name, listen in pairs { TCP = "tcp://127.0.0.1:0", Unix = "unix://%s/app.sock" } do
    it(server.scaled("fifteen", "five") .. " upgrades refuse nobody and leave nobody unanswered: " .. name, function()
      local folder = command.folder()
      local text = ([[local Agent = {}
        function Agent:proceed(line) return "v " .. line end
        return { listen = %q, frame = "line", agent = Agent,
          timeout = { drain = "5s" } }]]):format(listen:format(folder))
      local first = start_own(text, { workers = 2 })
      local clients = start_clients(first, 4)
      local last = upgrade_many(first, server.scaled(15, 5), text)
      local asked = stop_clients(first, clients)
      assert.is_true(asked > 50, asked .. " requests")
      last:connect():echo_line("x", "v x"):close()
      assert.equal(0, last:stop().code)
      command.remove(folder)
    end)
  end
end)
