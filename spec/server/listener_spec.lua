local accepted = require "spec.support.accepted"
local client = require "spec.support.client"
local command = require "spec.support.command"
local has = require "spec.support.has"
local posix_signal = require "posix.signal"
local posix_socket = require "posix.sys.socket"
local posix_wait = require "posix.sys.wait"
local server = require "spec.support.server"
local stat = require "posix.sys.stat"
local unistd = require "posix.unistd"
local wait = require "spec.support.wait"

local ECHO = [[
  local Agent = { proceed = function(_, frame) return frame end }
  return { agent = Agent, %s }]]

local function start(settings, options)
  options = options or {}
  options.script = ECHO:format(settings)
  return server.start(options)
end

local function start_failing(settings, options)
  options = options or {}
  options.script = ECHO:format(settings)
  return server.start_failing(options)
end

-- All that could not be bound, in one text.
local function complaints(result)
  local texts = {}
  for _, entry in ipairs(result.log) do
    if entry.message == "cannot bind" then texts[#texts + 1] = entry.error end
  end
  return table.concat(texts, "\n"), #texts
end

local function assert_nothing_served(result)
  assert.equal(1, result.code)
  for _, entry in ipairs(result.log) do
    assert.is_true(entry.message ~= "listening" and entry.message ~= "serving", entry.message)
  end
end

describe("listeners", function()
  after_each(server.finish)

  it("have each their own framing, agent, limits and time-outs", function()
    local app = server.start { script = [[
      local Upper = { proceed = function(_, line) return line:upper() end }
      local Echo = { proceed = function(_, frame) return frame end }
      return {
        agent = Echo, frame = "line",
        listen = {
          "tcp://127.0.0.1:0",
          { "tcp://127.0.0.1:0", frame = "u32be", name = "binary", limits = { frame = 10 } },
          { "tcp://127.0.0.1:0", agent = Upper, timeout = { idle = "100ms" } },
          { "unix://here.sock", frame = "netstring" },
        },
      }]] }
    assert.equal(4, #app.listeners)
    assert.equal("binary", app.listeners[2].name)
    app:connect({ listener = 1 }):echo_line("hello")
    app:connect({ listener = 2 }):echo_frame("hello"):send_frame(("x"):rep(11)):expect_closed()
    app:connect({ listener = 3 }):echo_line("hello", "HELLO"):expect_closed()
    local socket = app:connect({ path = app.folder .. "/here.sock" }):send("5:hello,")
    assert.equal("5:hello,", socket:recv_exact(8))
    assert.equal("idle_timeout=1 oversize=1",
      table.concat({ app:stop().summary.reasons:match("(idle_timeout=1) .*(oversize=1)") }, " "))
  end)

  it("are told the port that they got", function()
    local app = start [[listen = "tcp://127.0.0.1:0", frame = "line"]]
    assert.is_true(app.port > 0)
    assert.equal("tcp://127.0.0.1:" .. app.port, app.listeners[1].address)
  end)

  it("give what they accept TCP_NODELAY and keep-alive, as configured", function()
    local app = start [[frame = "line", listen = { "tcp://127.0.0.1:0",
      { "tcp://127.0.0.1:0", keepalive = "40s", nodelay = false }, { "tcp://127.0.0.1:0", keepalive = false } }]]
    local found = {}
    for i = 1, 3 do
      local one = app:connect({ listener = i }):echo_line("hello")
      found[i] = accepted.options(app, one)
    end
    if not found[1] then pending "pidfd_getfd(2) is not to be had" end
    assert.same({ nodelay = true, keepalive = true, idle_s = 30, interval_s = 30 }, found[1])
    assert.same({ nodelay = false, keepalive = true, idle_s = 40, interval_s = 40 }, found[2])
    assert.same({ true, false }, { found[3].nodelay, found[3].keepalive })
  end)

  it("share an address with other processes, where each asks for reuse_port", function()
    local function start_named(name, port)
      return server.start { script = ([[
        local Agent = {}
        function Agent:proceed() return %q end
        return { listen = "tcp://127.0.0.1:%d", reuse_port = true,
          frame = "line", agent = Agent }]]):format(name, port) }
    end
    local one = start_named("one", 0)
    local two = start_named("two", one.port)
    -- The system deals them out: all to the same one happens once in 2^63 times.
    local function served(n)
      local by = { one = 0, two = 0 }
      for _ = 1, n do
        local name = one:connect():send("who?\n"):recv_line()
        by[name] = by[name] + 1
      end
      return by
    end
    local by = served(64)
    assert.is_true(by.one > 0 and by.two > 0)
    has(("tcp://127.0.0.1:%d: Address already in use"):format(one.port),
      (complaints(start_failing(([[listen = "tcp://127.0.0.1:%d"]]):format(one.port)))))
    assert.equal(0, one:stop().code)
    assert.same({ one = 0, two = 20 }, served(20))
    assert.equal(0, two:stop().code)
  end)

  it("with a zone say what is wrong with it", function()
    for host, said in pairs {
      ["[fe80::1%nosuch0]"] = "there is no network interface of that name",
      ["[::1%nosuch0]"] = "there is no network interface of that name",
      ["[::1%lo]"] = "only a link-local address (fe80::) has a network interface",
    } do
      has(said, (complaints(start_failing(([[listen = "tcp://%s:0"]]):format(host)))))
    end
  end)

  it("take a name for an address", function()
    start([[listen = "tcp://localhost:0", frame = "line"]]):connect():echo_line("hello")
  end)

  describe("for IPv6", function()
    it("serve it, and name peers in brackets", function()
      local app = server.start { script = server.NOTE .. [[
        local Agent = {}
        function Agent:proceed() return self.conn.peer end
        return { listen = "tcp://[::1]:0", frame = "line", agent = Agent }]] }
      local one = app:connect({ host = "::1" })
      one:echo_line("x", ("[::1]:%d"):format(one.port))
    end)

    it("and IPv4 alike where no host is named", function()
      local app = start [[listen = "tcp://:0", frame = "line"]]
      app:connect({ host = "127.0.0.1" }):echo_line("four")
      app:connect({ host = "::1" }):echo_line("six")
    end)
  end)
end)

describe("a Unix socket", function()
  local folder

  before_each(function() folder = command.folder() end)
  after_each(function()
    server.finish()
    command.remove(folder)
  end)

  local function path() return folder .. "/app.sock" end
  local function settings(more) return ('listen = "unix://%s", frame = "line", %s'):format(path(), more or "") end

  it("serves, tells the agent so, and its file is gone at the end", function()
    local app = server.start { script = ([[
      local Agent = {}
      function Agent:proceed() return self.conn.peer .. " " .. self.conn.local_addr end
      return { listen = "unix://%s", frame = "line", agent = Agent }]]):format(path()) }
    assert.equal("unix unix:" .. path(), app:connect():send("x\n"):recv_line())
    app:stop()
    assert.is_nil(stat.lstat(path()))
  end)

  -- A socket file that nobody listens on: what a crash leaves behind.
  local function leave_stale()
    local fd = posix_socket.socket(posix_socket.AF_UNIX, posix_socket.SOCK_STREAM, 0)
    assert(posix_socket.bind(fd, { family = posix_socket.AF_UNIX, path = path() }))
    unistd.close(fd)
  end

  it("that is stale is replaced", function()
    leave_stale()
    start(settings()):connect():echo_line("hello")
  end)

  it("left by a server that was killed is replaced", function()
    local first = start(settings())
    posix_signal.kill(first.pid, posix_signal.SIGKILL)
    posix_wait.wait(first.pid)
    first.ended, first.stopped = { how = "killed", code = 9 }, true
    assert.truthy(stat.lstat(path()))
    start(settings()):connect():echo_line("hello")
  end)

  it("that is live is not touched", function()
    local first = start(settings())
    local result = start_failing(settings())
    assert_nothing_served(result)
    has(path() .. ": in use: a running server answers there", (complaints(result)))
    first:connect():echo_line("still served")
  end)

  for what, spelling in pairs {
    ["a slash too many"] = "%s//app.sock", ["a link to the folder"] = "%s/link/app.sock",
    ["its folder"] = "%s/./app.sock",
  } do
    it("is not taken for a stale one by its own server, with " .. what .. " in the path", function()
      unistd.link(folder, folder .. "/link", true)
      local result = start_failing(([[frame = "line", listen = {
        { "unix://%s", name = "one" }, { "unix://%s", name = "two" } }]]):format(path(), spelling:format(folder)))
      assert_nothing_served(result)
      has(("unix://%s: the same socket as unix://%s"):format(spelling:format(folder), path()), (complaints(result)))
      assert.is_nil(stat.lstat(path()))
    end)
  end

  it("whose path is something else is left alone", function()
    command.write(path(), "precious")
    local result = start_failing(settings())
    assert_nothing_served(result)
    has("exists and is not a socket; it is left alone", (complaints(result)))
    local file = io.open(path())
    assert.equal("precious", file:read("*a"))
    file:close()
  end)

  it("whose folder does not exist is reported", function()
    local result = start_failing(([[listen = "unix://%s/no/app.sock"]]):format(folder))
    assert_nothing_served(result)
    has("No such file or directory", (complaints(result)))
  end)

  it("gets the mode that was asked for", function()
    start(settings [[mode = "0600"]])
    assert.equal(tonumber("600", 8), stat.lstat(path()).st_mode % 512)
  end)

  it("that another server has put in its place meanwhile is not removed at the end", function()
    local first = start(settings())
    os.remove(path())
    local second = start(settings())
    first:stop()
    assert.truthy(stat.lstat(path()))
    second:connect():echo_line("hello")
  end)

  local ANEW = "the file of a Unix socket was gone or replaced: it was made anew"
  local LOST = "the file of a Unix socket is gone or replaced: no client finds it"

  describe("whose file is removed", function()
    it("is made anew by a reload, which loses no client and tells of it", function()
      local app = start(settings [[mode = "0600", limits = { accept_rate = 1 }]])
      local before = app:connect():echo_line "hello"
      local waits = app:connect()
      os.remove(path())
      app:signal "HUP"
      local entry = app:wait_log { message = ANEW, level = "warn" }
      assert.equal("unix://" .. path(), entry.address)
      assert.equal(tonumber("600", 8), stat.lstat(path()).st_mode % 512)
      local after = app:connect()
      for _, each in ipairs { before, waits, after } do each:echo_line "hello" end
      app:signal "HUP"
      app:wait_log("reload: nothing has changed", nil, 2)
      assert.equal(1, #app:find_log(ANEW))
      app:stop()
      assert.is_nil(stat.lstat(path()))
    end)

    it("is made anew by an upgrade", function()
      local app = start(settings())
      os.remove(path())
      local successor = app:upgrade()
      successor:connect():echo_line "hello"
      successor:stop()
      assert.is_nil(stat.lstat(path()))
    end)

    it("is not made anew where something else is there by now, and a reload says so", function()
      local app = start(settings())
      local before = app:connect()
      os.remove(path())
      command.write(path(), "precious")
      app:signal "HUP"
      local entry = app:wait_log { message = LOST, level = "warn" }
      assert.equal("unix://" .. path() .. ": exists and is not a socket; it is left alone", entry.error)
      before:echo_line "hello"
      assert.equal("precious", command.read(path()))
      os.remove(path())
      local second = start(settings())
      app:signal "HUP"
      wait.until_true("the second entry", function() return #app:find_log(LOST) == 2 end)
      has("in use: a running server answers there", app:find_log(LOST)[2].error)
      second:stop()
      app:signal "HUP"
      app:wait_log(ANEW)
      app:connect():echo_line "hello"
    end)
  end)

  it("that clients reach by a link is not lost, and the link stays at the end", function()
    local app = start(settings())
    assert(os.rename(path(), folder .. "/real"))
    unistd.link("real", path(), true)
    app = app:upgrade()
    app:signal "HUP"
    app:wait_log "reload: nothing has changed"
    assert.equal(0, #app:find_log { level = "warn" })
    app:connect():echo_line("hello"):close()
    app:stop()
    assert.equal("real", unistd.readlink(path()))
  end)

  -- Where something else has taken the place of a file, the new process has no claim to it either.
  describe("whose file something else has replaced before an upgrade", function()
    local function replace(place)
      os.remove(place)
      command.write(place, "precious")
      assert(stat.chmod(place, tonumber("640", 8)))
    end

    local function assert_left_alone(place)
      assert.equal("precious", command.read(place))
      assert.equal(tonumber("640", 8), stat.lstat(place).st_mode % 512)
    end

    -- Its predecessors have written to the same log.
    local function expect_at_reload(app, message, listener)
      local entry = { message = message, listener = listener }
      local n = #app:find_log(entry)
      app:signal "HUP"
      app:wait_log(entry, nil, n + 1)
    end

    it("leaves that alone, and warns at each reload", function()
      local app = start(settings [[mode = "0600", name = "door"]])
      replace(path())
      for _ = 1, 2 do app = app:upgrade() end
      assert_left_alone(path())
      expect_at_reload(app, LOST, "door")
      app:stop()
      assert_left_alone(path())
    end)

    it("leaves that alone where the new script has no such listener", function()
      local app = start(settings())
      replace(path())
      command.write(app.folder .. "/app.lua", ECHO:format [[listen = "tcp://127.0.0.1:0", frame = "line"]])
      local successor = app:upgrade()
      successor:wait_log "an inherited socket is closed: no listener has its address"
      successor:stop()
      assert_left_alone(path())
    end)

    it("leaves another server's alone, and makes its own anew when that has gone", function()
      local first = start(settings())
      os.remove(path())
      local second = start(settings())
      local successor = first:upgrade()
      second:connect():echo_line("hello"):close()
      second:stop()
      expect_at_reload(successor, ANEW)
      successor:connect():echo_line("hello"):close()
      successor:stop()
      assert.is_nil(stat.lstat(path()))
    end)

    it("leaves another server's alone when it stops", function()
      local first = start(settings())
      os.remove(path())
      local second = start(settings())
      first:upgrade():stop()
      second:connect():echo_line "hello"
    end)

    it("leaves that alone where it is the control socket", function()
      local app = start([[listen = "tcp://127.0.0.1:0", frame = "line"]], { control = "control.sock" })
      local control = app.folder .. "/control.sock"
      replace(control)
      local successor = app:upgrade()
      expect_at_reload(successor, LOST, "control socket")
      successor:stop()
      assert_left_alone(control)
    end)
  end)

  it("knows half-close and reset-less ends as TCP does", function()
    local app = start(settings())
    assert.equal("a\nb\n", (app:connect():send("a\nb\n"):shutdown("send"):recv_all()))
    app:connect():echo_line("x"):close()
    assert.equal("peer=2", app:stop().summary.reasons)
  end)
end)

describe("a start that cannot bind", function()
  after_each(server.finish)

  it("names every address that failed, serves none, and exits with 1", function()
    local first = server.start { script = ECHO:format [[frame = "line",
      listen = { "tcp://127.0.0.1:0", "tcp://127.0.0.1:0" }]] }
    local free = first:connect({ listener = 1 })
    local taken, other = first.listeners[1].port, first.listeners[2].port
    local result = start_failing(([[listen = { "tcp://127.0.0.1:%d", "tcp://127.0.0.1:0", "tcp://127.0.0.1:%d",
      "tcp://192.0.2.1:0" }]]):format(taken, other))
    assert_nothing_served(result)
    local text, n = complaints(result)
    assert.equal(3, n)
    has(("tcp://127.0.0.1:%d: Address already in use"):format(taken), text)
    has(("tcp://127.0.0.1:%d: Address already in use"):format(other), text)
    has("tcp://192.0.2.1:0: Cannot assign requested address", text)
    free:echo_line("the first one is not disturbed")
  end)

  it("leaves no socket file of those that it could bind", function()
    local first = start [[listen = "tcp://127.0.0.1:0"]]
    local folder = command.folder()
    local result = start_failing(([[listen = { "unix://%s/a.sock", "tcp://127.0.0.1:%d" }]]):format(folder, first.port))
    assert_nothing_served(result)
    assert.is_nil(stat.lstat(folder .. "/a.sock"))
    command.remove(folder)
  end)

  it("says which name it cannot resolve", function()
    local result = start_failing [[listen = "tcp://no-such-host.invalid:0"]]
    assert_nothing_served(result)
    has("no-such-host.invalid", (complaints(result)))
  end)

  it("binds again at once after a server that had clients", function()
    local first = start [[listen = "tcp://127.0.0.1:0", frame = "line"]]
    for _ = 1, 3 do first:connect():echo_line("x") end
    first:stop()
    local second = start(([[listen = "tcp://127.0.0.1:%d", frame = "line"]]):format(first.port))
    second:connect():echo_line("hello")
  end)

  it("whose setup() fails says so and serves nothing", function()
    local result = start_failing [[listen = "tcp://127.0.0.1:0", setup = function() error("no database") end]]
    assert.equal(78, result.code)
    has("no database", result.text)
    local one = client.try_connect { port = tonumber(result.text:match("tcp://127%.0%.0%.1:(%d+)") or 1) }
    assert.is_nil(one)
  end)
end)
