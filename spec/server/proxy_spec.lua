--- Listeners with a proxy in front: real sockets, real reloads, and HAProxy itself. All else:
--- spec/behaviour/proxy_spec.lua.
local command = require "spec.support.command"
local has = require "spec.support.has"
local client = require "spec.support.client"
local fcntl = require "posix.fcntl"
local posix_signal = require "posix.signal"
local posix_socket = require "posix.sys.socket"
local proxy = require "spec.support.proxy"
local reload = require "spec.support.reload"
local server = require "spec.support.server"
local trace = require "spec.support.trace"
local unistd = require "posix.unistd"
local wait = require "spec.support.wait"

local V4 = proxy.GOOD["v1, IPv4"].bytes

local WHO = [[
  function Agent:closed(reason) note("closed " .. reason) end
  function Agent:proceed(line)
    if line == "quit" then return "bye", "close" end
    return self.conn.peer .. " " .. line
  end ]]

local TRUST = 'proxy = true, trust = { "127.0.0.1", "unix" }'

local function script(version, settings)
  return ([[local Agent = {}
    function Agent:proceed(line)
      if line == "quit" then return "bye", "close" end
      return %q .. " " .. self.conn.peer .. " " .. line
    end
    function Agent:snapshot() return {} end
    function Agent:upgrade() end
    return { listen = "tcp://127.0.0.1:0", frame = "line", agent = Agent, control = "control.sock", %s }]])
    :format(version, settings or "")
end

local function start(settings, options)
  local copy = { script = script("1", settings), control = "control.sock", args = { "--log-level=debug" } }
  for key, value in pairs(options or {}) do copy[key] = value end
  return server.start(copy)
end

-- Who is counted in has the answer of a handler.
local function through(app, address, how)
  local header = ("PROXY TCP4 %s 192.0.2.1 1 2\r\n"):format(address)
  return app:connect(how):send(header .. "x\n")
end

local function expect_served(one, address)
  assert.equal(address .. ":1 x", one:recv_line())
  return one
end

describe("a listener behind a proxy", function()
  after_each(server.finish)

  it("sees the end of who has said nothing, or the beginning of a header, where none need come", function()
    local app = start('proxy = "optional", trust = { "127.0.0.1" }, timeout = { idle = false }')
    for i, bytes in ipairs { "", "PROX" } do
      local half = app:connect():send(bytes)
      half:shutdown "send"
      assert.equal("", (half:recv_all()))
      app:connect():send(bytes):close()
      app:wait_log({ message = "closed", reason = "peer" }, nil, 2 * i)
    end
  end)

  it("takes headers of all kinds, by TCP and by a Unix socket, whole and byte by byte", function()
    local folder = command.folder()
    local path = folder .. "/app.sock"
    local app = server.start_lines(WHO, { listen = "unix://" .. path }, TRUST)
    local tcp = server.start_lines(WHO, nil, TRUST)
    for name, one in pairs(proxy.GOOD) do
      local direct = tcp:connect()
      local wanted = (one.client ~= "" and one.client or "127.0.0.1:" .. direct.port) .. " hello"
      assert.equal(wanted, direct:send(one.bytes .. "hello\n"):recv_line(), name)
      direct:close()
      local split = tcp:connect()
      if #one.bytes < 1000 then split:trickle(one.bytes) else split:send(one.bytes) end
      assert.equal((wanted:gsub("^127.*:%d+", "127.0.0.1:" .. split.port)), split:send("hello\n"):recv_line(), name)
      split:close()
      local unix = app:connect()
      wanted = (one.client ~= "" and one.client or "unix") .. " hello"
      assert.equal(wanted, unix:send(one.bytes .. "hello\n"):recv_line(), name)
      unix:close()
    end
    app:stop()
    tcp:stop()
    command.remove(folder)
  end)

  it("ends what begins otherwise, and says who and why", function()
    local app = server.start_lines(WHO, nil, TRUST)
    for name, one in pairs(proxy.BAD) do
      local wrong = app:connect():send(one.bytes)
      assert.equal("", (wrong:recv_all()), name)
      local entry = app:wait_log { message = "connection refused", peer = "127.0.0.1:" .. wrong.port }
      assert.equal("proxy", entry.reason)
      has(one.error, entry.error)
    end
    has("proxy=12", app:stop().summary.reasons)
  end)

  it("refuses whom it does not trust, before it reads anything", function()
    local app = server.start_lines(WHO, nil, TRUST)
    for _ = 1, 2 do assert.equal("", (app:connect { source = "127.0.0.2" }:recv_all())) end
    local entry = app:wait_log("connection refused", nil, 2)
    assert.equal("proxy", entry.reason)
    has("127.0.0.2:", entry.peer)
    has("not in `trust`", entry.error)
    assert.equal("203.0.113.7:5060 x", app:connect():send(V4 .. "x\n"):recv_line())
    local summary = app:stop().summary
    has("proxy=2", summary.reasons)
    assert.equal(3, summary.accepted)
  end)

  it("counts clients by their own addresses, exactly, in whatever worker they are", function()
    local app = start([[proxy = true, trust = { "127.0.0.1" }, workers = 2,
      limits = { per_ip = 2, reject = "busy\n" }]])
    local function go(address) return through(app, address) end
    local one, two = go "203.0.113.7", go "203.0.113.7"
    assert.equal("1 203.0.113.7:1 x", one:recv_line())
    assert.equal("1 203.0.113.7:1 x", two:recv_line())
    assert.equal("busy\n", (go "203.0.113.7":recv_all()))
    local entry = app:wait_log "connection refused"
    assert.same({ "limit", "per_ip", "203.0.113.7:1" }, { entry.reason, entry.limit, entry.peer })
    assert.equal("1 203.0.113.8:1 x", go "203.0.113.8":recv_line())
    two:send "quit\n"
    assert.equal("bye\n", (two:recv_all()))
    for i = 1, 300 do
      local next_one = go "203.0.113.7"
      assert.equal("1 203.0.113.7:1 x", next_one:recv_line(), "client " .. i)
      assert.equal("bye\n", (next_one:send "quit\n":recv_all()))
    end
    has("limit=1", app:stop().summary.reasons)
  end)

  it("lets a connection whose header is slow wait, and no longer than timeout.handshake", function()
    local app = server.start_lines(WHO, nil, TRUST .. ', timeout = { handshake = "50ms" }')
    assert.equal("", (app:connect():send(V4:sub(1, 10)):recv_all()))
    has("idle_timeout=1", app:stop().summary.reasons)
  end)

  it("drains who has begun, and does not wait for who has not", function()
    local app = server.start_lines(WHO, nil, TRUST)
    local served, silent = expect_served(through(app, "203.0.113.7"), "203.0.113.7"), app:connect():send "PROXY"
    app:signal "TERM"
    assert.equal("", (served:recv_all()))
    assert.equal("", (silent:recv_all()))
    assert.equal(0, app:wait_end().code)
  end)

  it("is one from a reload on, and is none any more from another on; who is connected stays who they are", function()
    local limits = "limits = { per_ip = 2 }, "
    local app = start(limits)
    local direct = app:connect():send "x\n"
    assert.equal(("1 127.0.0.1:%d x"):format(direct.port), direct:recv_line())
    reload.reload_to(app, script("2", limits .. TRUST))
    local proxied = {}
    for i = 1, 4 do
      proxied[i] = through(app, "203.0.113." .. i)
      assert.equal(("2 203.0.113.%d:1 x"):format(i), proxied[i]:recv_line())
    end
    reload.reload_to(app, script("3", limits .. 'proxy = true, trust = { "127.0.0.2" }'))
    assert.equal("", (app:connect():send(V4 .. "x\n"):recv_all()))
    local other = through(app, "203.0.113.9", { source = "127.0.0.2" })
    assert.equal("3 203.0.113.9:1 x", other:recv_line())
    local slow = app:connect { source = "127.0.0.2" }:send "PROXY"
    reload.reload_to(app, script("4", limits .. "reload = 'migrate'"))
    assert.equal("4 203.0.113.10:1 x", slow:send " TCP4 203.0.113.10 192.0.2.1 1 2\r\nx\n":recv_line())
    assert.equal("4 203.0.113.1:1 y", proxied[1]:send "y\n":recv_line())
    assert.equal(("4 127.0.0.1:%d y"):format(direct.port), direct:send "y\n":recv_line())
    local plain = app:connect():send "x\n"
    assert.equal(("4 127.0.0.1:%d x"):format(plain.port), plain:recv_line())
    assert.equal("", (app:connect():send "x\n":recv_all()))
    for _, one in ipairs { direct, plain, other, slow, unpack(proxied) } do one:close() end
    wait.until_true("room for two again", function()
      local one = app:connect():send "x\n"
      return pcall(one.recv_line, one)
    end)
    app:stop()
  end)

  it("stays one over an upgrade", function()
    local app = start(TRUST)
    local old = through(app, "203.0.113.7")
    assert.equal("1 203.0.113.7:1 x", old:recv_line())
    local successor = app:upgrade()
    assert.equal("1 203.0.113.7:1 y", old:send "y\n":recv_line())
    assert.equal("1 203.0.113.8:1 x", through(successor, "203.0.113.8"):recv_line())
    old:close()
    assert.equal(0, app:wait_end().code)
    successor:stop()
  end)

  it("is recorded with its clients, and replayed without the proxy", function()
    local app = start(TRUST)
    local recording = trace.record(app)
    local one = through(app, "203.0.113.7")
    assert.equal("1 203.0.113.7:1 x", one:recv_line())
    assert.equal("bye\n", (one:send "quit\n":recv_all()))
    assert.equal(0, recording:stop().code)
    assert.equal("203.0.113.7:1", trace.events(trace.lines(recording.path), "open")[1].peer)
    local result = trace.replay(app, recording.path, script("1", TRUST))
    assert.same({ 0, "" }, { result.code, result.err })
    has("203.0.113.7:1", app:wait_log("closed").peer)
    app:stop()
  end)
end)

-- ---- HAProxy ----

local HAPROXY = [[
defaults
  mode tcp
  timeout connect 60s
  timeout client 60s
  timeout server 60s
listen one
  bind fd@%d
  server s 127.0.0.1:%d send-proxy %s
listen two
  bind fd@%d
  server s 127.0.0.1:%d send-proxy-v2 proxy-v2-options crc32c,unique-id %s
  unique-id-format %%ci-%%cp
listen three
  bind fd@%d
  server s unix@%s send-proxy-v2 %s
]]

-- A listening socket that it inherits: nobody else can have its port.
local function listen_for_it()
  local fd = assert(posix_socket.socket(posix_socket.AF_INET, posix_socket.SOCK_STREAM, 0))
  assert(posix_socket.bind(fd, { family = posix_socket.AF_INET, addr = "127.0.0.1", port = 0 }))
  assert(posix_socket.listen(fd, 128))
  local port
  repeat port = posix_socket.getsockname(fd).port until port
  return fd, port
end

local haproxy

local function stop_haproxy()
  if haproxy then posix_signal.kill(haproxy, posix_signal.SIGKILL) end
  haproxy = nil
end

local function start_haproxy(folder, app, check)
  local fds, ports = {}, {}
  for i = 1, 3 do fds[i], ports[i] = listen_for_it() end
  local at = app.listeners
  command.write(folder .. "/haproxy.cfg", HAPROXY:format(fds[1], at[1].port, check, fds[2], at[1].port, check, fds[3],
    at[2].path, check))
  for _, fd in ipairs(fds) do fcntl.fcntl(fd, fcntl.F_SETFD, 0) end
  os.execute(("haproxy -db -f %s/haproxy.cfg >%s/haproxy.log 2>&1 </dev/null & echo $! >%s/pid"):format(folder, folder,
    folder))
  haproxy = tonumber(command.read(folder .. "/pid"))
  for _, fd in ipairs(fds) do unistd.close(fd) end
  return ports
end

describe("HAProxy in front", function()
  local folder

  before_each(function() folder = command.folder() end)
  after_each(function()
    stop_haproxy()
    server.finish()
    command.remove(folder)
  end)

  local function start_behind(settings)
    return server.start { args = { "--log-level=debug" }, script = ([[local Agent = {}
      function Agent:proceed(line) return self.conn.peer .. " " .. line end
      return { listen = { "tcp://127.0.0.1:0", "unix://%s/app.sock" }, frame = "line", agent = Agent, %s, %s }]])
      :format(folder, TRUST, settings or "") }
  end

  it("tells who the client is, in both versions", function()
    if not command.has "haproxy" then return pending "there is no haproxy" end
    local app = start_behind "limits = { per_ip = 1 }"
    local ports = start_haproxy(folder, app, "")
    for _, port in ipairs(ports) do
      for i = 2, 4 do
        local one = client.connect { port = port, source = "127.0.0." .. i }
        assert.equal(("127.0.0.%d:%d hello"):format(i, one.port), one:send("hello\n"):recv_line())
        one:close()
        app:wait_log(function(entry)
          return entry.message == "closed" and entry.peer == ("127.0.0.%d:%d"):format(i, one.port)
        end)
      end
    end
    assert.same({}, app:find_log "connection refused")
    stop_haproxy()
    app:stop()
  end)

  it("may look whether the server is there, as often as it likes", function()
    if not command.has "haproxy" then return pending "there is no haproxy" end
    local app = start_behind()
    start_haproxy(folder, app, "check inter 5ms")
    app:wait_log("closed", nil, 30)
    stop_haproxy()
    assert.same({}, app:find_log "connection refused")
    app:stop()
  end)
end)
