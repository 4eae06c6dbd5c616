--- A reload may bring other listeners: each is known by its address. What stays is not touched, what is new is bound
--- before anything else happens, and what is no more serves whom it has.
local command = require "spec.support.command"
local errno = require "posix.errno"
local fcntl = require "posix.fcntl"
local has = require "spec.support.has"
local posix_signal = require "posix.signal"
local posix_socket = require "posix.sys.socket"
local server = require "spec.support.server"
local stat = require "posix.sys.stat"
local support = require "spec.support.reload"
local unistd = require "posix.unistd"
local wait = require "spec.support.wait"

local rewrite, reload, reload_to = support.rewrite, support.reload, support.reload_to

local function tcp(name, more, host)
  return ([[{ "tcp://%s:0", name = %q, %s }]]):format(host or "127.0.0.1", name, more or "")
end

local function unix(path, name, more) return ([[{ "unix://%s", name = %q, %s }]]):format(path, name, more or "") end

-- Agents that answer with `version`, the listener's name and the line, and that can migrate.
local function script(version, listen, settings)
  return support.HEAD .. ([[
    function Agent:proceed(line) return %q .. " " .. self.conn.listener .. " " .. line end
    function Agent:snapshot() return {} end
    function Agent:upgrade() end
    return { listen = { %s }, frame = "line", agent = Agent, %s }]]):format(version, table.concat(listen, ", "),
    settings or "")
end

-- Where the listener of that name was said to be last.
local function place(app, name)
  local entries = app:find_log { message = "listening", listener = name }
  local address = assert(entries[#entries], app:text()).address
  local host, port = address:match "^tcp://(.*):(%d+)$"
  return { host = host, port = tonumber(port), path = address:match "^unix://(.*)$" }
end

local function connect(app, name) return app:connect(place(app, name)) end

-- Inodes of its listening sockets, and how many descriptors there are.
local function sockets(app)
  local listening = {}
  for line in io.lines("/proc/" .. app.pid .. "/net/tcp") do
    local state, inode = line:match "^ *%d+: %S+ %S+ (%S+) %S+ %S+ %S+ +%S+ +%S+ (%d+)"
    if state == "0A" then listening["socket:[" .. inode .. "]"] = true end
  end
  local found, n = {}, 0
  for _, target in pairs(app:descriptors()) do
    n = n + 1
    if listening[target] then found[target] = true end
  end
  return found, n
end

-- Waits until as many descriptors are open as then.
local function wait_fds(app, n)
  wait.until_true(function() return n .. " descriptors; it has " .. app:fds() end, function() return app:fds() == n end)
end

local function refused(app, to)
  local _, _, code = app:try_connect(to)
  return code == errno.ECONNREFUSED
end

-- A listening socket of somebody else's.
local function somebody_elses(family, address)
  local fd = assert(posix_socket.socket(family, posix_socket.SOCK_STREAM, 0))
  fcntl.fcntl(fd, fcntl.F_SETFD, fcntl.FD_CLOEXEC)
  assert(posix_socket.setsockopt(fd, posix_socket.SOL_SOCKET, posix_socket.SO_REUSEADDR, 1))
  assert(posix_socket.bind(fd, address))
  assert(posix_socket.listen(fd, 1))
  return fd
end

describe("a reload", function()
  local folder, fds

  before_each(function() folder, fds = command.folder(), {} end)

  after_each(function()
    for _, fd in ipairs(fds) do unistd.close(fd) end
    server.finish()
    command.remove(folder)
  end)

  local function occupy(family, address)
    fds[#fds + 1] = somebody_elses(family, address)
    return fds[#fds]
  end

  it("adds a listener", function()
    local app = server.start { script = script("one", { tcp "a" }), workers = 2 }
    local old = app:connect():echo_line("x", "one a x")
    reload_to(app, script("two", { tcp "a", tcp "b" }))
    for i = 1, 4 do
      connect(app, "b"):echo_line("y" .. i, "two b y" .. i)
      connect(app, "a"):echo_line("z" .. i, "two a z" .. i)
    end
    old:echo_line("x", "one a x")
    assert.equal(1, #app:find_log { message = "listening", listener = "a" })
  end)

  it("removes a listener, whose connections go on", function()
    local app = server.start { script = script("one", { tcp "a", tcp "b" }), workers = 2,
      control = folder .. "/control" }
    local function status() return command.run({ "status", "--control", folder .. "/control" }).out end
    assert.is_nil(status():find("removed", 1, true)) -- and the control socket has its spare descriptor
    local _, before = sockets(app)
    local to = place(app, "b")
    local a, b = connect(app, "a"):echo_line("x", "one a x"), connect(app, "b"):echo_line("x", "one b x")
    reload_to(app, script("two", { tcp "a" }))
    local entry = app:find_log("no longer listening")[1]
    assert.same({ "b", 1 }, { entry.listener, entry.open })
    assert.is_true(refused(app, to))
    occupy(posix_socket.AF_INET, { family = posix_socket.AF_INET, addr = "127.0.0.1", port = to.port })
    reload_to(app, script("three", { tcp "a" }))
    a:echo_line("y", "one a y")
    b:echo_line("y", "one b y")
    connect(app, "a"):echo_line("z", "three a z"):close()
    assert.matches("  b  1 open of 10000, 0 refused, removed\n", status())
    b:close()
    a:close()
    wait.until_true("the old generation's end", function()
      return #app:find_log { message = "generation retired", generation = 1 } == 2
    end)
    wait_fds(app, before - 1)
    assert.is_nil(status():find("removed", 1, true))
  end)

  it("serves who waits in the backlog of a listener that it removes", function()
    local app = server.start { script = script("one", { tcp "a", tcp("b", "limits = { accept_rate = 1 }") }),
      workers = 2 }
    local clients = app:connect_many(20, place(app, "b"))
    for i, client in ipairs(clients) do client:send("x" .. i .. "\n") end
    reload_to(app, script("two", { tcp "a" }))
    for i, client in ipairs(clients) do assert.equal("one b x" .. i, client:recv_line()) end
    assert.equal(20, app:find_log("no longer listening")[1].open)
  end)

  it("keeps sockets, limits and connections of a listener whose place changes", function()
    local function both(version, first, second) return script(version, { first, second }, [[reload = "migrate"]]) end
    local a, b = tcp("a", "limits = { connections = 2 }"), tcp("b", "limits = { connections = 1 }")
    local app = server.start { script = both("one", a, b) }
    local before, n = sockets(app)
    local at_a, at_b = connect(app, "a"):echo_line("x", "one a x"), connect(app, "b"):echo_line("x", "one b x")
    reload_to(app, both("two", b, a))
    at_a:echo_line("y", "two a y")
    at_b:echo_line("y", "two b y")
    assert.equal("", (connect(app, "b"):recv_all()))
    local second = connect(app, "a"):echo_line("z", "two a z")
    assert.equal("", (connect(app, "a"):recv_all()))
    at_b:close()
    app:wait_log "closed peer"
    wait.until_true("room for another one", function()
      local another = connect(app, "b"):send("z\n")
      local _, line = pcall(another.recv_line, another)
      return line == "two b z"
    end)
    second:close()
    assert.same(before, (sockets(app)))
    assert.is_true(n <= app:fds())
  end)

  it("changes framing and agent of one listener only", function()
    local app = server.start { script = script("one", { tcp "a", tcp "b" }) }
    reload_to(app, script("two", { tcp "a",
      tcp("b", [[frame = "netstring", agent = { proceed = function(_, text) return text:upper() end }]]) }))
    connect(app, "a"):echo_line("x", "two a x")
    assert.equal("2:HI,", connect(app, "b"):send("2:hi,"):recv_exact(5))
  end)

  it("tells listeners of one address apart by their names", function()
    local app = server.start { script = script("one", { tcp "a", tcp "b", tcp "c" }) }
    local at_c = connect(app, "c"):echo_line("x", "one c x")
    reload_to(app, script("two", { tcp "c", tcp "a" }, [[reload = "migrate"]]))
    assert.equal("b", app:find_log("no longer listening")[1].listener)
    at_c:echo_line("y", "two c y")
    connect(app, "c"):echo_line("z", "two c z")
    connect(app, "a"):echo_line("z", "two a z")
  end)

  it("migrates nobody whose listener is no more", function()
    local app = server.start { script = script("one", { tcp "a", tcp "b" }) }
    local a, b = connect(app, "a"):echo_line("x", "one a x"), connect(app, "b"):echo_line("x", "one b x")
    reload_to(app, script("two", { tcp "a" }, [[reload = "migrate"]]))
    a:echo_line("y", "two a y")
    b:echo_line("y", "one b y")
    reload_to(app, script("three", { tcp "a", tcp "b" }, [[reload = "migrate"]]))
    a:echo_line("z", "three a z")
    b:echo_line("z", "one b z")
    local summary = app:stop().summary
    assert.same({ 2, 0 }, { summary.migrated, summary.not_migrated })
  end)

  it("drains whose listener is no more, if the script drains", function()
    local app = server.start { script = script("one", { tcp("a", [[reload = "pin"]]), tcp "b" }) }
    local a, b = connect(app, "a"):echo_line("x", "one a x"), connect(app, "b"):echo_line("x", "one b x")
    reload_to(app, script("two", { tcp("a", [[reload = "pin"]]) }, [[reload = "drain", timeout = { drain = "200ms" }]]))
    assert.equal("", (b:recv_all()))
    app:wait_log "closed drain"
    a:echo_line("y", "one a y")
  end)

  describe("that cannot bind changes nothing:", function()
    local function expect_failure(app, listen, address, reason)
      local before, n = sockets(app)
      rewrite(app, script("two", listen))
      local entry = reload(app)
      assert.equal("reload failed: the old generation serves on", entry.message)
      has(address, entry.excerpt)
      has(reason, entry.excerpt)
      assert.equal(1, entry.generation)
      wait_fds(app, n)
      assert.same(before, (sockets(app)))
      connect(app, "a"):echo_line("x", "one a x"):close()
      connect(app, "b"):echo_line("x", "one b x"):close()
      wait_fds(app, n) -- until the server has heard of it, or the next count would have them
    end

    it("a port that is in use", function()
      local OTHER = tcp("c", nil, "127.0.0.2")
      local fd = occupy(posix_socket.AF_INET, { family = posix_socket.AF_INET, addr = "127.0.0.1", port = 0 })
      local port
      while not port do port = posix_socket.getsockname(fd).port end -- which luaposix does not always tell
      local address = "tcp://127.0.0.1:" .. port
      local app = server.start { script = script("one", { tcp "a", tcp "b" }), workers = 2 }
      -- Not even what could be: c is bound first, b would go.
      for _ = 1, 3 do
        expect_failure(app, { tcp "a", OTHER, ("{ %q }"):format(address) }, address, "in use")
      end
      unistd.close(table.remove(fds))
      reload_to(app, script("two", { tcp "a", OTHER, ("{ %q, name = 'd' }"):format(address) }))
      for _, name in ipairs { "a", "c", "d" } do connect(app, name):echo_line("x", "two " .. name .. " x") end
    end)

    it("a Unix socket that somebody else answers at", function()
      local path = folder .. "/theirs"
      occupy(posix_socket.AF_UNIX, { family = posix_socket.AF_UNIX, path = path })
      local app = server.start { script = script("one", { tcp "a", tcp "b" }) }
      expect_failure(app, { tcp "a", unix(folder .. "/ours", "c"), unix(path, "d") }, path,
        "a running server answers there")
      assert.is_truthy(stat.stat(path))
      assert.is_nil(stat.stat(folder .. "/ours"))
    end)

    it("a Unix socket that is there under another spelling", function()
      local path = folder .. "/ours"
      local app = server.start { script = script("one", { tcp "a", tcp "b" }) }
      expect_failure(app, { tcp "a", unix(path, "c"), unix(folder .. "//ours", "d") }, folder .. "//ours",
        "the same socket as unix://" .. path)
      assert.is_nil(stat.stat(path))
    end)

    it("an address that this machine has not", function()
      local app = server.start { script = script("one", { tcp "a", tcp "b" }) }
      expect_failure(app, { tcp "a", [["tcp://192.0.2.1:0"]] }, "tcp://192.0.2.1:0", "annot assign")
    end)
  end)

  it("makes and removes the files of Unix sockets", function()
    local path = folder .. "/socket"
    local app = server.start { script = script("v0", { tcp "a" }) }
    local old
    for i = 1, 3 do
      local version = "v" .. i
      reload_to(app, script(version, { unix(path, "u", "mode = '600'"), tcp "a" }))
      assert.equal("600", ("%o"):format(stat.stat(path).st_mode % 512))
      old = connect(app, "u"):echo_line("x", version .. " u x")
      reload_to(app, script(version .. "+", { tcp "a" }))
      assert.is_nil(stat.stat(path))
      old:echo_line("y", version .. " u y"):close()
      app:wait_log({ message = "generation retired", generation = 2 * i })
    end
  end)

  it("changes the size of the backlog", function()
    local path = folder .. "/socket"
    local app = server.start { script = script("one", { tcp "a", unix(path, "u", "backlog = 5") }) }
    -- How many clients find room while nobody accepts.
    local function room()
      posix_signal.kill(app.pid, posix_signal.SIGSTOP)
      wait.until_true("the process to stand still", function()
        for line in io.lines("/proc/" .. app.pid .. "/status") do
          if line:find "^State:%s+[Tt]" then return true end
        end
      end)
      local n = 0
      while app:try_connect { path = path } do n = n + 1 end
      posix_signal.kill(app.pid, posix_signal.SIGCONT)
      return n
    end
    local before = room()
    reload_to(app, script("two", { tcp "a", unix(path, "u", "backlog = 9") }))
    assert.equal(before + 4, room())
  end)

  it("changes keepalive and nodelay, and says what needs a restart", function()
    local path = folder .. "/socket"
    local app = server.start { script = script("one", { tcp "a", unix(path, "u", "mode = '600'") }) }
    rewrite(app, script("two", { tcp "a", unix(path, "u", "mode = '660'") }))
    has("cannot change without a restart: mode", reload(app).excerpt)
    rewrite(app, script("two", { tcp("a", "reuse_port = true"), unix(path, "u", "mode = '600'") }))
    has("cannot change without a restart: reuse_port", reload(app).excerpt)
    rewrite(app, script("two", { tcp("a", "limits = { per_ip = 5 }"), unix(path, "u", "mode = '600'") }))
    has("cannot change without a restart: limits.per_ip", reload(app).excerpt)
    reload_to(app, script("two", { tcp("a", "nodelay = false, keepalive = '30s'"), unix(path, "u", "mode = '600'"),
      tcp("b", "limits = { per_ip = 2 }") }))
    connect(app, "a"):echo_line("x", "two a x")
    local first = connect(app, "b"):echo_line("x", "two b x")
    connect(app, "b"):echo_line("x", "two b x")
    assert.equal("", (connect(app, "b"):recv_all()))
    first:echo_line("y", "two b y")
  end)

  it("does not change a listener that the command line has set", function()
    local app = server.start { script = script("one", { [["tcp://127.0.0.1:1"]] }),
      args = { "--listen=tcp://127.0.0.1:0" } }
    local before = sockets(app)
    rewrite(app, script("two", { [["tcp://127.0.0.1:2"]] }))
    assert.equal("reloaded", reload(app).message)
    assert.same(before, (sockets(app)))
    app:connect():echo_line("x", "two tcp://127.0.0.1:0 x")
  end)

  it("is followed by an upgrade, which takes the sockets as they are now", function()
    local path = folder .. "/socket"
    local app = server.start { script = script("one", { tcp "a", tcp("b", nil, "127.0.0.2") }) }
    local a, b = connect(app, "a"):echo_line("x", "one a x"), connect(app, "b"):echo_line("x", "one b x")
    local LATER = { unix(path, "u"), tcp "c", tcp "a" }
    reload_to(app, script("two", LATER))
    local gone, stays, new = place(app, "b"), place(app, "a"), place(app, "c")
    local successor = app:upgrade()
    a:echo_line("y", "one a y")
    b:echo_line("y", "one b y")
    assert.is_true(refused(app, gone))
    app:connect({ path = path }):echo_line("z", "two u z")
    -- Those of one address are told apart by their order, which is the script's.
    app:connect(stays):echo_line("z", "two a z")
    app:connect(new):echo_line("z", "two c z")
    a:close()
    b:close()
    assert.equal(0, app:wait_end().code)
    assert.is_truthy(stat.stat(path))
    assert.equal(0, successor:stop().code)
    assert.is_nil(stat.stat(path))
  end)

  it("again and again leaves the requests of others alone, and no descriptor behind", function()
    local rounds, bunch = server.scaled(50, 20), server.scaled(20, 8)
    local app = server.start { script = script("v0", { tcp "a" }), workers = 2 }
    local before, n = sockets(app)
    local clients = {}
    for i = 1, bunch do clients[i] = app:connect():echo_line("x", "v0 a x") end
    local _, loaded = sockets(app)
    for round = 1, rounds do
      for _, client in ipairs(clients) do client:send(("x\n"):rep(8)) end
      local listen = round % 2 == 1 and { tcp "b", unix(folder .. "/socket", "u"), tcp "a" } or { tcp "a" }
      rewrite(app, script("v" .. round, listen, "reload = 'migrate'"))
      app:signal "HUP"
      -- While that goes on, some come, and some ask.
      for _ = 1, 3 do assert.matches("^v%d+ a y$", app:connect():send("y\n"):recv_line()) end
      assert.equal("reloaded", support.outcome(app, round).message)
      for _, client in ipairs(clients) do
        for _ = 1, 8 do assert.matches("^v%d+ a x$", client:recv_line()) end
      end
      if round % 2 == 1 then
        connect(app, "b"):echo_line("z", "v" .. round .. " b z"):close()
        connect(app, "u"):echo_line("z", "v" .. round .. " u z"):close()
      end
      for i, client in ipairs(app.clients) do
        if i > bunch then client:close() end
      end
      app:connect():echo_line("w", "v" .. round .. " a w"):close()
    end
    assert.is_true(loaded >= n + bunch)
    for _, client in ipairs(clients) do client:echo_line("last", "v" .. rounds .. " a last"):close() end
    wait_fds(app, n)
    assert.same(before, (sockets(app)))
    local summary = app:stop().summary
    assert.same({ 0, 0 }, { summary.cut, summary.not_migrated })
  end)
end)
