--- Under a service manager: sockets that it opened, and what it is told.
local client = require "spec.support.client"
local command = require "spec.support.command"
local descriptors = require "spec.support.descriptors"
local poll = require "posix.poll"
local posix_socket = require "posix.sys.socket"
local posix_time = require "posix.time"
local has = require "spec.support.has"
local server = require "spec.support.server"
local unistd = require "posix.unistd"
local wait = require "spec.support.wait"

local SCRIPT = [[
  local perilune = require "perilune"
  local Agent = {}
  function Agent:proceed(line)
    if line == "spin" then while true do end end
    return line
  end
  return { listen = %s, frame = "line", agent = Agent, %s }]]

local function script(listen, settings) return SCRIPT:format(listen or [["tcp://127.0.0.1:0"]], settings or "") end

describe("the units in packaging/", function()
  it("are what systemd understands", function()
    if not command.has "systemd-analyze" then return pending "systemd-analyze is not installed" end
    local folder = command.folder()
    -- It looks for the program as well.
    local copy = "cp packaging/perilune.s* %s && sed -i 's#/usr/local/bin/perilune#%s#' %s/perilune.service"
    assert(os.execute(copy:format(folder, command.binary, folder)))
    local verify = "systemd-analyze verify %s/perilune.service %s/perilune.socket 2>&1"
    local pipe = assert(io.popen(verify:format(folder, folder)))
    local said = pipe:read("*a")
    pipe:close()
    command.remove(folder)
    assert.equal("", said)
  end)
end)

describe("socket activation", function()
  after_each(function()
    server.finish()
    descriptors.close_all()
  end)

  it("serves on the sockets that were handed over, and leaves the Unix socket's file to who made it", function()
    local folder = command.folder()
    local tcp, unix = descriptors.on_tcp(), descriptors.on_unix(folder .. "/a")
    local port = descriptors.port_of(tcp)
    -- Whoever connects before there is a server waits for it.
    local early = client.connect { port = port }
    local listen = ([[{ "unix://%s/a", "tcp://127.0.0.1:0", "tcp://127.0.0.1:%d" }]]):format(folder, port)
    local app = server.start { script = script(listen), fds = { tcp, unix, names = "web:local" } }
    assert.equal(port, app.listeners[3].port)
    assert.is_true(app.listeners[2].port ~= port)
    early:echo_line("early"):close()
    for i = 1, 3 do app:connect({ listener = i }):echo_line("x"):close() end
    local successor = app:upgrade()
    for i = 1, 3 do successor:connect({ listener = i }):echo_line("y"):close() end
    os.remove(folder .. "/a")
    successor:signal "HUP"
    has("whoever started this server has made the socket",
      successor:wait_log("the file of a Unix socket is gone or replaced: no client finds it").error)
    command.write(folder .. "/a", "")
    successor:stop()
    assert.is_truthy(unistd.access(folder .. "/a"))
    command.remove(folder)
  end)

  for _, files in ipairs { "", ":", "x", "1", "1.", ".1", "1.x", "-:1.1" } do
    it(("finds the file by its path where LISTEN_FDFILES is %q"):format(files), function()
      local folder = command.folder()
      local app = server.start {
        script = script(([["unix://%s/a"]]):format(folder)), fds = { descriptors.on_unix(folder .. "/a") },
        env = { LISTEN_FDFILES = files },
      }
      app:signal "HUP"
      app:wait_log "reload: nothing has changed"
      assert.equal(0, #app:find_log { level = "warn" })
      app:stop()
      command.remove(folder)
    end)
  end

  it("closes what no listener wants, with a warning", function()
    local fd = descriptors.on_tcp()
    local app = server.start { script = script [["tcp://[::1]:0"]], fds = { fd, names = "stray" } }
    local entry = app:wait_log "an inherited socket is closed: no listener has its address"
    assert.same({ "127.0.0.1:" .. descriptors.port_of(fd), "stray" }, { entry.address, entry.name })
    app:connect():echo_line("x")
  end)

  it("is not for a process of another id", function()
    local fd = descriptors.on_tcp()
    local port = descriptors.port_of(fd)
    local result = server.start_failing {
      script = script(([["tcp://127.0.0.1:%d"]]):format(port)), fds = { fd, pid = 1 },
    }
    assert.equal(1, result.code)
  end)

  it("is nothing that children of a script inherit", function()
    local text = [[
      local perilune = require "perilune"
      local Agent = { proceed = function() end }
      return { listen = "tcp://127.0.0.1:0", agent = Agent, unsafe = { "io.popen" }, setup = function()
        local pipe = io.popen "env"
        local names = {}
        for line in pipe:lines() do names[#names + 1] = line:match "^LISTEN_[^=]*" or line:match "^NOTIFY_[^=]*"
          or line:match "^WATCHDOG_[^=]*" end
        pipe:close()
        perilune.log("info", "left: " .. table.concat(names, " "))
      end }]]
    local app = server.start {
      script = text, fds = { descriptors.on_tcp(), names = "web" },
      env = { NOTIFY_SOCKET = "@perilune-spec-nobody", WATCHDOG_USEC = "1000000" },
    }
    app:wait_log "left: "
  end)
end)

-- ---- notifications ----

local function hear(fd)
  local ready = poll.rpoll(fd, wait.SECONDS * 1000)
  return ready == 1 and posix_socket.recv(fd, 4096) or nil
end

-- What is there already, without waiting: it was sent before what the specification has seen last.
local function hear_now(fd)
  return poll.rpoll(fd, 0) == 1 and posix_socket.recv(fd, 4096) or nil
end

-- The microseconds since the machine was started vary: expect_reload() looks at them.
local function expect(fd, ...)
  for _, wanted in ipairs { ... } do
    local got
    local deadline = wait.deadline()
    repeat got = hear(fd) until got ~= "WATCHDOG=1" or wanted == "WATCHDOG=1" or wait.now() > deadline
    assert.equal(wanted, got)
  end
end

local function monotonic_us()
  local now = posix_time.clock_gettime(posix_time.CLOCK_MONOTONIC)
  return now.tv_sec * 1e6 + math.floor(now.tv_nsec / 1e3)
end

-- What Type=notify-reload waits for: a reload that began after it was asked for, and its end.
local function expect_reload(fd, app, ask)
  local before = monotonic_us()
  if ask then ask() else app:signal "HUP" end
  local us = tonumber((hear(fd) or ""):match "^RELOADING=1\nMONOTONIC_USEC=(%d+)$")
  assert.is_true(us ~= nil and us >= before and us <= monotonic_us())
  expect(fd, "READY=1")
end

describe("a service manager", function()
  local folder, path, fd

  before_each(function()
    folder = command.folder()
    path = folder .. "/notify"
    fd = descriptors.bound(posix_socket.AF_UNIX, posix_socket.SOCK_DGRAM,
      { family = posix_socket.AF_UNIX, path = path })
  end)

  after_each(function()
    server.finish()
    descriptors.close_all()
    command.remove(folder)
  end)

  local function start(text, env)
    env = env or {}
    env.NOTIFY_SOCKET = path
    return server.start { script = text or script(), env = env }
  end

  it("is told of readiness, of reloads and of the end", function()
    local app = start()
    expect(fd, "READY=1")
    command.write(app.folder .. "/app.lua", script() .. "\n")
    expect_reload(fd, app)
    command.write(app.folder .. "/app.lua", "broken")
    expect_reload(fd, app)
    app:signal "TERM"
    expect(fd, "STOPPING=1")
    app:wait_end()
    assert.is_nil(hear_now(fd))
  end)

  it("is told of reloads that change nothing, that are refused, and that somebody else asks for", function()
    local app = server.start { script = script(nil, "reload = { keep = 1 }"), control = "control.sock",
      env = { NOTIFY_SOCKET = path } }
    expect(fd, "READY=1")
    expect_reload(fd, app)
    app:wait_log "reload: nothing has changed"
    local one = app:connect():echo_line("x")
    command.write(app.folder .. "/app.lua", script(nil, "reload = { keep = 1 }") .. "\n")
    expect_reload(fd, app, function()
      assert.equal(0, command.run({ "reload", "--wait", "--control", app.folder .. "/control.sock" }).code)
    end)
    expect_reload(fd, app)
    app:wait_log(function(entry) return entry.message:find "^reload refused: too many" ~= nil end)
    one:echo_line("y")
  end)

  it("is told who has taken over, and the new process speaks from then on", function()
    local app = start(nil, { WATCHDOG_USEC = "100000" })
    expect(fd, "READY=1", "WATCHDOG=1")
    app:connect():echo_line("x")
    local successor = app:upgrade()
    expect(fd, ("MAINPID=%d\nREADY=1"):format(successor.pid), "WATCHDOG=1", "WATCHDOG=1")
    local third = successor:upgrade()
    expect(fd, ("MAINPID=%d\nREADY=1"):format(third.pid), "WATCHDOG=1")
    third:signal "TERM"
    expect(fd, "STOPPING=1")
    third:wait_end()
  end)

  it("that is held up hears what matters, and the watchdog's word once", function()
    local app = start(nil, { WATCHDOG_USEC = "10000" })
    expect(fd, "READY=1")
    local began = wait.now()
    wait.until_true("time for a hundred words", function() return wait.now() - began > 0.5 end)
    app:signal "TERM"
    app:wait_end()
    local heard = {}
    for state in function() return hear_now(fd) end do heard[#heard + 1] = state end
    assert.same({ "WATCHDOG=1", "STOPPING=1" }, heard)
  end)

  it("is told why a start fails", function()
    local env = { NOTIFY_SOCKET = path }
    for reason, options in pairs {
      ["/nowhere/control.sock: No such file or directory"] = { control = "/nowhere/control.sock" },
      ["the limit of open files is too low: 20 (ulimit -n)"] = { nofile = 20, workers = 2 },
      ["unix:///nowhere/app.sock: No such file or directory"] = { args = { "--listen=unix:///nowhere/app.sock" } },
    } do
      options.script, options.env = script(), env
      assert.equal(1, server.start_failing(options).code)
      local told = hear(fd)
      while told and not told:find "^STATUS=" do told = hear(fd) end
      assert.truthy(told and told:find(reason, 1, true), told)
    end
  end)

  it("hears nothing of an upgrade that fails", function()
    local app = start()
    expect(fd, "READY=1")
    command.write(app.folder .. "/app.lua", "broken")
    app:try_upgrade()
    assert.is_nil(hear_now(fd))
    app:signal "TERM"
    expect(fd, "STOPPING=1")
    app:wait_end()
  end)

  it("hears the pulse only while the workers answer", function()
    local app = start(script(nil, "limits = { proceed = '400ms' }"), { WATCHDOG_USEC = "100000" })
    expect(fd, "READY=1", "WATCHDOG=1", "WATCHDOG=1")
    app:connect():send("spin\n")
    app:wait_log "a worker does not answer: the service manager's watchdog is not told that we live"
    while hear_now(fd) do end
    app:wait_log("handler failed")
    expect(fd, "WATCHDOG=1")
  end)

  it("gets no pulse that is meant from another process", function()
    local app = start(nil, { WATCHDOG_USEC = "20000", WATCHDOG_PID = "1" })
    expect(fd, "READY=1")
    app:connect():echo_line("x")
    app:signal "TERM"
    assert.equal("STOPPING=1", hear(fd)) -- expect() would pass over a pulse
    app:wait_end()
  end)

  for name, values in pairs {
    WATCHDOG_USEC = { "abc", "-1", "10x", "99999999999999999999999", "0.5" },
    WATCHDOG_PID = { "me", "-1", "1x" },
  } do
    for _, value in ipairs(values) do
      it(("gets no pulse, and a warning says why, where %s is %q"):format(name, value), function()
        local app = start(nil, { WATCHDOG_USEC = "20000", [name] = value })
        local entry = app:wait_log "the service manager gets no pulse: a variable is no number"
        assert.same({ name, value }, { entry.name, entry.value })
        expect(fd, "READY=1")
        app:connect():echo_line("x")
        app:signal "TERM"
        assert.equal("STOPPING=1", hear(fd))
        app:wait_end()
      end)
    end
  end

  it("that has gone is missed once, not at each pulse", function()
    local app = start(nil, { WATCHDOG_USEC = "20000" })
    expect(fd, "READY=1", "WATCHDOG=1")
    os.remove(path)
    app:wait_log "cannot notify who started this process"
    -- A reload is told of in two words more, and by then there have been pulses in between.
    for _ = 1, 3 do
      local n = #app:find_log "reload: nothing has changed"
      app:signal "HUP"
      app:wait_log("reload: nothing has changed", nil, n + 1)
      app:connect():echo_line("x"):close()
      wait.pause(0.05)
    end
    assert.equal(1, #app:find_log "cannot notify who started this process")
  end)

  for _, place in ipairs { "nonsense", "@" .. ("x"):rep(107), "/" .. ("x"):rep(300), "vsock:2:1234",
    "/nowhere/notify" } do
    it(("that cannot be reached is warned of, and the server serves: %.20s"):format(place), function()
      local app = server.start { script = script(), env = { NOTIFY_SOCKET = place } }
      app:wait_log "cannot notify who started this process"
      app:connect():echo_line("x")
    end)
  end

  it("that does not listen is warned of, and the server serves", function()
    local app = server.start { script = script(), env = { NOTIFY_SOCKET = "@perilune-spec-nobody" } }
    app:wait_log "cannot notify who started this process"
    app:connect():echo_line("x")
  end)
end)
