--- What a process begins with: descriptors, streams, signals. Whoever starts the server may have left them in any
--- state.
local command = require "spec.support.command"
local descriptors = require "spec.support.descriptors"
local fcntl = require "posix.fcntl"
local posix_socket = require "posix.sys.socket"
local server = require "spec.support.server"
local unistd = require "posix.unistd"
local wait = require "spec.support.wait"

local AGENT = "local Agent = {}; function Agent:proceed(line) return line end; "

local function script(listen)
  return ("%sreturn { listen = %s, frame = 'line', agent = Agent }"):format(AGENT, listen or [["tcp://127.0.0.1:0"]])
end

-- What a service manager, or a shell that has lost its way, may hand over: not one of it is a socket that anybody
-- could accept from, and the server serves all the same.
describe("what is handed over and is no listening socket", function()
  after_each(function()
    server.finish()
    descriptors.close_all()
  end)

  local CLOSED = "an inherited descriptor is closed: it is no listening stream socket"
  local ABSENT = "an inherited descriptor is not open: it is left out"

  -- The warning, of a server that serves.
  local function start(fds, message, options)
    options = options or {}
    options.script, options.fds = options.script or script(), fds
    local app = server.start(options)
    local entry = app:wait_log(message)
    app:connect():echo_line("x"):close()
    return entry, app
  end

  local function pair()
    local one, other = posix_socket.socketpair(posix_socket.AF_UNIX, posix_socket.SOCK_STREAM, 0)
    descriptors.keep(other)
    return descriptors.keep(one)
  end

  local function path_socket(kind, listens)
    local path = command.folder() .. "/socket"
    local fd = descriptors.bound(posix_socket.AF_UNIX, kind, { family = posix_socket.AF_UNIX, path = path })
    if listens then assert(posix_socket.listen(fd, 8)) end
    command.remove(path:match "^(.*)/")
    return fd
  end

  local KINDS = {
    ["a file"] = function() return descriptors.keep(fcntl.open("/etc/passwd", fcntl.O_RDONLY)) end,
    ["a folder"] = function() return descriptors.keep(fcntl.open("/", fcntl.O_RDONLY)) end,
    ["a device"] = function() return descriptors.keep(fcntl.open("/dev/null", fcntl.O_RDWR)) end,
    ["a pipe"] = function()
      local reads, writes = unistd.pipe()
      descriptors.keep(writes)
      return descriptors.keep(reads)
    end,
    ["a datagram socket"] = function() return path_socket(posix_socket.SOCK_DGRAM) end,
    ["a socket that does not listen"] = function() return path_socket(posix_socket.SOCK_STREAM) end,
    ["a connection"] = pair,
    ["a socket of packets"] = function() return path_socket(5, true) end, -- SOCK_SEQPACKET
  }

  for kind, make in pairs(KINDS) do
    it("is closed, and named: " .. kind, function()
      local entry = start({ make(), names = "stray" }, CLOSED)
      assert.same({ kind, "stray", 3 }, { entry.kind, entry.name, entry.descriptor })
    end)
  end

  it("is left out where there is no such descriptor", function()
    local entry = start({ count = 1, names = "ghost" }, ABSENT)
    assert.same({ "ghost", 3 }, { entry.name, entry.descriptor })
  end)

  it("is told of four times, and counted then", function()
    local entry, app = start({ count = 1000 }, "more inherited descriptors are not open: they are left out")
    assert.same({ 996, 1000 }, { entry.count, entry.promised })
    assert.equal(4, #app:find_log(ABSENT))
  end)

  it("is not taken for what was opened since, such as the log file", function()
    local _, app = start({ count = 4 }, ABSENT, { log_file = "app.log" })
    assert.equal(4, #app:find_log(ABSENT))
    assert.equal(0, #app:find_log(CLOSED))
  end)

  it("is left out beside a socket that is wanted", function()
    local fd = descriptors.on_tcp()
    local port = descriptors.port_of(fd)
    local reads, writes = unistd.pipe()
    descriptors.keep(writes)
    local _, app = start({ descriptors.keep(reads), fd, count = 3, names = "a:b:c" }, ABSENT,
      { script = script(([["tcp://127.0.0.1:%d"]]):format(port)) })
    assert.equal(port, app.port)
    assert.equal(1, #app:find_log(CLOSED))
  end)

  it("leaves a pipe that others share as it was", function()
    local reads, writes = unistd.pipe()
    descriptors.keep(reads)
    start({ descriptors.keep(writes) }, CLOSED)
    assert.equal(0, math.floor(fcntl.fcntl(writes, fcntl.F_GETFL) / fcntl.O_NONBLOCK) % 2)
  end)

  for _, count in ipairs { "abc", "-1", "1x", "", "99999999999999999999", "2147483648", " 1" } do
    it(("is nothing where LISTEN_FDS is %q"):format(count), function()
      start({ count = count }, "inherited sockets are ignored: LISTEN_FDS is no number of descriptors")
    end)
  end

  it("is nothing where LISTEN_PID is no number", function()
    start({ descriptors.on_tcp(), pid = "me" }, "inherited sockets are ignored: LISTEN_PID is no process id")
  end)

  it("is not seen by what a script starts while it is loaded", function()
    local text = [[
      local perilune = require "perilune"
      local pipe = io.popen "env; ls -l /proc/self/fd"
      local said = pipe:read "*a"
      pipe:close()
      return { listen = "tcp://127.0.0.1:0", agent = { proceed = function() end }, unsafe = { "io.popen" },
        setup = function()
          perilune.log("info", "seen: " .. (said:match "LISTEN_[^\n]*" or said:match "NOTIFY_[^\n]*"
            or said:match "3 %-> socket[^\n]*" or "nothing"))
        end }]]
    local app = server.start {
      script = text, fds = { descriptors.on_tcp() }, env = { NOTIFY_SOCKET = "@perilune-spec-nobody" },
    }
    app:wait_log "seen: nothing"
  end)
end)

describe("standard streams that are not there", function()
  after_each(server.finish)

  -- The n-th bit: is descriptor n closed?
  for closed = 1, 7 do
    local names = {}
    for fd = 0, 2 do
      if math.floor(closed / 2 ^ fd) % 2 == 1 then names[#names + 1] = fd end
    end
    it("are nobody's socket: " .. table.concat(names, ", "), function()
      local app = server.start {
        script = script(), log_file = "app.log", control = "control.sock", closed = names, workers = 2,
      }
      app:connect():echo_line("x"):close()
      for _, fd in ipairs(names) do assert.equal("/dev/null", app:descriptors()[tostring(fd)]) end
      assert.equal(0, command.run({ "status", "--control=" .. app.folder .. "/control.sock" }).code)
      app:signal "HUP"
      app:wait_log "reload: nothing has changed"
    end)
  end
end)

describe("standard error that takes nothing", function()
  after_each(server.finish)

  for place, flags in pairs {
    ["/dev/full"] = fcntl.O_WRONLY, ["/"] = fcntl.O_RDONLY, ["/etc/passwd"] = fcntl.O_RDONLY,
  } do
    it("costs the log, and nothing else: " .. place, function()
      local listen = ('"unix://%s/socket"'):format("FOLDER")
      local folder = command.folder()
      local app = server.launch {
        script = script(listen:gsub("FOLDER", folder)), folder = folder, stderr = { place, flags },
      }
      app.listeners = { { path = folder .. "/socket" } }
      -- The file is there before anybody listens.
      local one = wait.until_true("the server to listen", function() return (app:try_connect()) end)
      one:echo_line("x"):close()
      app:signal "TERM"
      wait.until_true("the end", function() return app:has_ended() end)
      app.stopped = true
      assert.same({ "exited", 0 }, { app.ended.how, app.ended.code })
      command.remove(folder)
    end)
  end
end)

describe("signals that the parent", function()
  after_each(server.finish)

  local NAMES = { "HUP", "INT", "QUIT", "TERM", "USR1", "USR2", "CHLD" }

  for how, settings in pairs { blocks = { blocked = true }, ignores = { ignored = NAMES } } do
    local function start(options)
      options = options or {}
      options.script = options.script or script()
      for name, value in pairs(settings) do options[name] = value end
      return server.start(options)
    end

    for _, name in ipairs { "TERM", "INT", "QUIT" } do
      it(("%s are heard: %s stops"):format(how, name), function()
        local app = start()
        app:connect():echo_line("x"):close()
        assert.equal(0, app:stop(name).code)
      end)
    end

    it(how .. " are heard: HUP reloads, USR1 reopens, USR2 upgrades", function()
      local app = start { log_file = "app.log" }
      app:signal "HUP"
      app:wait_log "reload: nothing has changed"
      app:signal "USR1"
      app:wait_log "log reopened"
      local successor = app:upgrade()
      successor:connect():echo_line("x"):close()
      successor:signal "HUP"
      successor:wait_log "reload: nothing has changed"
      assert.equal(0, successor:stop().code)
    end)

    -- It is waited for, so SIGCHLD must not be ignored.
    it(how .. " are heard: an upgrade that fails is noticed", function()
      local app = start()
      command.write(app.folder .. "/app.lua", "broken")
      assert.equal("upgrade failed: this process serves on", app:try_upgrade().message)
    end)

    it(how .. " are heard: a call that does not return ends", function()
      local app = start { script = [[
        local Agent = { proceed = function() while true do end end }
        return { listen = "tcp://127.0.0.1:0", frame = "line", agent = Agent }]] }
      app:connect():send("x\n"):expect_closed()
    end)

    it(how .. " are no affair of processes that a script starts", function()
      local app = start { script = [[
        local perilune = require "perilune"
        local pipe = io.popen "grep SigBlk /proc/self/status"
        local mask = pipe:read "*a"
        local closed, why = pipe:close()
        return { listen = "tcp://127.0.0.1:0", agent = { proceed = function() end }, unsafe = { "io.popen" },
          setup = function()
            perilune.log("info", ("mask %s, %s %s"):format(mask:match "(%x+)%s*$", tostring(closed), tostring(why)))
          end }]] }
      app:wait_log "mask 0000000000000000, true nil"
    end)
  end
end)
