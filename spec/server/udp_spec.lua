--- udp://: datagrams of real sockets, with an agent for each peer.
local command = require "spec.support.command"
local descriptors = require "spec.support.descriptors"
local has = require "spec.support.has"
local posix_socket = require "posix.sys.socket"
local reload = require "spec.support.reload"
local server = require "spec.support.server"
local udp = require "spec.support.udp"
local unistd = require "posix.unistd"
local wait = require "spec.support.wait"

-- Answers with its version, worker, the count of its datagrams, and the datagram; or does what it is asked for.
local AGENT = server.NOTE .. [[
  local Agent, held = {}, {}
  local app
  function Agent:opened() self.n = 0 end
  function Agent:proceed(datagram)
    self.n = self.n + 1
    if datagram == "quit" then return "bye", "close" end
    if datagram == "spin" then while true do end end
    if datagram == "pause" then
      held[#held + 1] = self.conn
      self.conn:pause()
    end
    for _, conn in ipairs(datagram == "resume" and held or {}) do conn:resume() end
    if datagram == "fail" then error "asked for" end
    local seconds = datagram:match "^sleep (.+)$"
    if seconds then perilune.sleep(seconds) end
    if datagram == "count" then return ("%%s %%d %%d"):format(%q, app.worker, self.n) end
    return datagram
  end
  function Agent:closed(reason) note("closed " .. reason) end
  function Agent:snapshot() return { n = self.n } end
  function Agent:upgrade(state) self.n = state.n end
  local function setup(of) app = of end
]]

local function script(settings, version, listen)
  return AGENT:format(version or "one") .. ([[
    return { listen = %s, agent = Agent, setup = setup, control = "control.sock", %s }]]):format(
    listen or '"udp://127.0.0.1:0"', settings or "")
end

local function start(settings, options)
  options = options or {}
  options.script = options.script or script(settings)
  options.args, options.control = { "--log-level=debug" }, "control.sock"
  return server.start(options)
end

local function status(app)
  local out = command.shell(("'%s' status --json --control '%s/control.sock'"):format(command.binary, app.folder))
  return require("spec.support.json_decode")(out)
end

local function shown(app)
  return command.shell(("'%s' status --control '%s/control.sock'"):format(command.binary, app.folder))
end

local function counter(app, name) return status(app).counters[name] end

describe("udp://", function()
  after_each(function()
    udp.close_all()
    server.finish()
    descriptors.close_all()
  end)

  it("takes each datagram for a frame, whatever its size", function()
    local one = udp.connect(start("amplification = false"))
    for _, n in ipairs { 0, 1, 32, 1399, 1400, 1401, 1500, 9000, 65507 } do one:echo(("x"):rep(n)) end
  end)

  it("gives each peer an agent, which stays on its worker", function()
    local app = start(nil, { workers = 4 })
    local of, workers = {}, {}
    local peers = udp.connect_all(app, 60)
    for round = 1, 3 do
      for i, peer in ipairs(peers) do
        local worker, n = peer:send("count"):receive():match "^one (%d) (%d+)$"
        assert.equal(round, tonumber(n))
        of[i] = of[i] or worker
        assert.equal(of[i], worker)
        workers[worker] = true
      end
    end
    assert.truthy(workers["0"] and workers["1"] and workers["2"] and workers["3"])
    local counts = status(app).counters
    assert.same({ 60, 60, 180, 180 }, { counts.accepted, counts.open, counts.frames_in, counts.frames_out })
    assert.same({ 180 * 13, 0, 0 }, { counts.bytes_in, counts.dropped_datagrams, counts.unsent_datagrams })
  end)

  it("begins a new flow once the old one has ended", function()
    local app = start("timeout = { idle = '1s' }")
    local one = udp.connect(app)
    one:echo("count", "one 0 1"):echo("quit", "bye"):echo("count", "one 0 1")
    app:wait_log("closed idle_timeout")
    one:echo("count", "one 0 1")
  end)

  it("reads and writes many datagrams at once", function()
    local app = start "amplification = false"
    local one = udp.connect(app, { queue = 4 * 2 ^ 20 })
    for round = 1, 20 do
      local sent = {}
      for i = 1, 100 do sent[i] = ("%d-%d-%s"):format(round, i, ("x"):rep(i % 7 == 0 and 0 or i % 3)) end
      one:send(unpack(sent))
      for i = 1, 100 do assert.equal(sent[i], one:receive()) end
    end
  end)

  it("takes apart what the kernel has put together", function()
    if not command.has "python3" then return pending "python3 is not installed" end
    local app = start()
    local out = command.shell(([[python3 - %d <<'EOF'
import socket, sys
UDP_SEGMENT = 103
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
s.settimeout(60)
s.connect(("127.0.0.1", int(sys.argv[1])))
s.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 100)
text = b"".join(b"%%03d" %% i + b"." * 97 for i in range(40)) + b"tail"
s.send(text)
got = [s.recv(65536) for i in range(41)]
print(b"".join(got) == text, [len(one) for one in got][-2:])
EOF]]):format(app.port))
    assert.equal("True [100, 4]\n", out)
    assert.equal(41, counter(app, "frames_in"))
  end)

  it("keeps a burst of one flow that comes at once", function()
    if not command.has "python3" then return pending "python3 is not installed" end
    local app = server.start { script = [[
      local Agent = {}
      function Agent:proceed(datagram)
        self.n = (self.n or 0) + 1
        if datagram == "end" then return tostring(self.n) end
      end
      return { listen = "udp://127.0.0.1:0", agent = Agent }]], control = "control.sock" }
    local out = command.shell(([[python3 - %d <<'EOF'
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(60)
s.connect(("127.0.0.1", int(sys.argv[1])))
s.setsockopt(socket.IPPROTO_UDP, 103, 100)
for i in range(12): s.send(b"." * 6000)
s.setsockopt(socket.IPPROTO_UDP, 103, 0)
s.send(b"end")
print(s.recv(100).decode())
EOF]]):format(app.port))
    assert.same({ "721\n", 0 }, { out, counter(app, "dropped_datagrams") })
  end)

  it("costs nothing while an agent waits, whatever has come", function()
    local app = start()
    local one = udp.connect(app)
    one:echo "x":send("sleep 1s", ("a"):rep(100), ("b"):rep(9000), ("c"):rep(100))
    wait.until_true("all to be there", function() return counter(app, "bytes_in") > 100 end)
    local cpu = app:cpu()
    assert.equal("sleep 1s", one:receive())
    assert.is_true(app:cpu() - cpu < 0.3 * server.SLOWER)
    for _, n in ipairs { 100, 9000, 100 } do assert.equal(n, #one:receive()) end
  end)

  it("drops what is too large of what comes together, and no more", function()
    if not command.has "python3" then return pending "python3 is not installed" end
    local app = start "frame = { 'datagram', max = 500 }, amplification = false"
    local out = command.shell(([[python3 - %d <<'EOF'
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(60)
s.connect(("127.0.0.1", int(sys.argv[1])))
s.setsockopt(socket.IPPROTO_UDP, 103, 1000)
s.send(b"x" * 2300)
print(len(s.recv(4000)))
EOF]]):format(app.port))
    assert.same({ "300\n", 2, 1 }, { out, counter(app, "truncated_datagrams"), counter(app, "frames_in") })
  end)

  it("drops what is larger than `frame` allows, and counts it", function()
    local app = start "frame = { 'datagram', max = 100 }"
    local one = udp.connect(app)
    one:send(("x"):rep(101)):echo(("y"):rep(100))
    assert.same({ 1, 1 }, { counter(app, "truncated_datagrams"), counter(app, "frames_in") })
  end)

  it("hands up no datagram without bytes where none may be", function()
    local app = start "frame = { 'datagram', empty = 'ignore' }"
    udp.connect(app):send(""):echo("x")
    assert.equal(1, counter(app, "frames_in"))
  end)

  it("keeps what comes while an agent is paused, and drops what is too much", function()
    local app = start "amplification = false"
    local one, other = udp.connect(app, { queue = 2 ^ 20 }), udp.connect(app)
    local large = ("x"):rep(20000)
    one:echo "pause"
    for _ = 1, 30 do one:send(large) end
    wait.until_true("what has no room to be dropped", function() return counter(app, "dropped_datagrams") == 27 end)
    other:echo "resume"
    for _ = 1, 3 do assert.equal(large, one:receive()) end
    one:echo "x"
    assert.equal(6, counter(app, "frames_in"))
  end)

  it("keeps what comes while an agent waits", function()
    local app = start()
    local one, other = udp.connect(app), udp.connect(app)
    one:send("sleep 300ms", "a", "b")
    other:echo "served meanwhile"
    for _, expected in ipairs { "sleep 300ms", "a", "b" } do assert.equal(expected, one:receive()) end
  end)

  for name, case in pairs {
    connections = { "limits = { connections = 3 }", {} },
    per_ip = { "limits = { per_ip = 3 }", { host = "127.0.0.1", from = "127.0.0.5" } },
  } do
    it("refuses flows past limits." .. name .. ", and drops what they send", function()
      local app = start(case[1])
      local peers = udp.connect_all(app, 3, case[2])
      for _, peer in ipairs(peers) do peer:echo "x" end
      local refused = udp.connect(app, case[2]):send "y"
      local entry = app:wait_log "connection refused"
      assert.same({ "limit", name, ("%s:%d"):format(refused.host, refused.port) },
        { entry.reason, entry.limit, entry.peer })
      for _, peer in ipairs(peers) do peer:echo "x" end
      assert.is_nil(refused:try_receive())
      local seen = status(app)
      local counts = seen.counters
      assert.same({ 3, 3, 1, 1 }, { counts.accepted, counts.open, seen.listeners[1].refused, counts.dropped_datagrams })
      peers[1]:echo("quit", "bye")
      refused:echo "z"
    end)
  end

  it("refuses flows that begin faster than limits.accept_rate", function()
    local app = start "limits = { accept_rate = 1 }"
    for _, peer in ipairs(udp.connect_all(app, 80)) do peer:send "x" end
    local seen
    wait.until_true("all to have come", function()
      seen = status(app)
      return seen.counters.accepted + seen.counters.dropped_datagrams == 80
    end)
    assert.is_true(seen.counters.dropped_datagrams > 0)
    assert.equal(seen.counters.dropped_datagrams, seen.listeners[1].refused)
    assert.equal("accept_rate", app:wait_log("connection refused").limit)
  end)

  it("sends a peer that has not answered no more than three times what it has sent", function()
    local app = server.start { script = [[
      local Agent = {}
      function Agent:proceed(d) for _ = 1, 5 do self.conn:send(d) end end
      return { listen = "udp://127.0.0.1:0", agent = Agent }]], control = "control.sock" }
    local one = udp.connect(app)
    one:send "first"
    for _ = 1, 3 do assert.equal("first", one:receive()) end
    local entry = app:wait_log "a datagram was not sent: it would amplify"
    assert.equal(3, entry.amplification)
    one:send "second"
    for _ = 1, 5 do assert.equal("second", one:receive()) end
    assert.equal(2, counter(app, "unsent_datagrams"))
    has("datagrams    0 dropped, 0 too large, 0 lost by the system, 2 not sent\n", shown(app))
  end)

  it("has a reply that no datagram carries for a fault", function()
    local app = server.start_lines([[function Agent:proceed() return ("x"):rep(70000) end]], {},
      [[listen = "udp://127.0.0.1:0", frame = "datagram"]])
    udp.connect(app):send "x"
    has("datagram", app:wait_log("handler failed").excerpt)
  end)

  it("answers from the address that was asked", function()
    local app = start(nil, { script = script(nil, nil, '"udp://0.0.0.0:0"') })
    udp.connect(app, { host = "127.0.0.2" }):echo "x" -- it hears nobody else
    udp.connect(app, { host = "127.0.0.3" }):echo "x"
  end)

  it("serves IPv6, and both where no host is named", function()
    local app = start(nil, { script = script(nil, nil, '{ "udp://[::1]:0", "udp://:0" }'), workers = 2 })
    udp.connect(app):echo "x"
    for _, host in ipairs { "::1", "127.0.0.1", "127.0.0.2" } do
      udp.connect(app, { listener = 2, host = host }):echo "x"
    end
    assert.truthy(app:find_log(function(entry) return entry.peer and entry.peer:find "^127" end))
  end)

  it("tells handlers who asks, and what was asked", function()
    local app = server.start { script = [[
      local Agent = {}
      function Agent:proceed() return self.conn.peer .. " " .. self.conn.local_addr end
      return { listen = "udp://0.0.0.0:0", agent = Agent, amplification = false }]] }
    local one = udp.connect(app, { host = "127.0.0.2" })
    one:echo("x", ("%s:%d 127.0.0.2:%d"):format(one.host, one.port, app.port))
  end)

  it("is refused where somebody else has the address", function()
    local app = start()
    local listen = ('"udp://127.0.0.1:%d"'):format(app.port)
    local result = server.start_failing { script = script(nil, nil, listen) }
    assert.equal(1, result.code)
    has("ddress already in use", result.text)
  end)

  it("shares an address where both say so", function()
    local app = start "reuse_port = true"
    local listen = ('"udp://127.0.0.1:%d"'):format(app.port)
    local other = start(nil, { script = script("reuse_port = true", "two", listen) })
    local answers = {}
    for _ = 1, 40 do answers[udp.connect(app):send("count"):receive()] = true end
    assert.same({ ["one 0 1"] = true, ["two 0 1"] = true }, answers)
    other:stop()
    for _ = 1, 5 do udp.connect(app):echo("count", "one 0 1") end
  end)

  it("shares its port with TCP", function()
    -- A port that is free for both, which the server is handed over.
    local tcp, fd, port
    repeat
      tcp = descriptors.on_tcp()
      port = descriptors.port_of(tcp)
      fd = descriptors.keep(assert(posix_socket.socket(posix_socket.AF_INET, posix_socket.SOCK_DGRAM, 0)))
    until posix_socket.bind(fd, { family = posix_socket.AF_INET, addr = "127.0.0.1", port = port })
    local listen = ([[{ { "udp://127.0.0.1:%d" }, { "tcp://127.0.0.1:%d", frame = "line" } }]]):format(port, port)
    local app = server.start { fds = { tcp, fd }, script = AGENT:format "one" ..
      ("return { listen = %s, agent = Agent }"):format(listen) }
    udp.connect(app):echo "x"
    app:connect({ listener = 2 }):echo_line "y"
  end)

  describe("contains handlers:", function()
    it("one that fails ends its flow alone", function()
      local app = start()
      local one, other = udp.connect(app), udp.connect(app)
      other:echo "x"
      one:send "fail"
      app:wait_log "closed error"
      other:echo("count", "one 0 2")
      one:echo("count", "one 0 1")
    end)

    it("one that never returns is ended, and its neighbours are served", function()
      local app = start "limits = { proceed = '200ms' }"
      local one, other = udp.connect(app), udp.connect(app)
      other:echo "x"
      one:send "spin"
      other:echo "y"
      app:wait_log "closed proceed_timeout"
      one:echo("count", "one 0 1")
    end)
  end)

  describe("in a reload", function()
    it("goes on with the old script, with the new one for who comes then, each on its worker", function()
      local app = start(nil, { workers = 4 })
      local peers, before = udp.connect_all(app, 30), {}
      for i, peer in ipairs(peers) do before[i] = peer:send("count"):receive():match " (%d) " end
      reload.reload_to(app, script(nil, "two"))
      for i, peer in ipairs(peers) do
        assert.equal(("one %s 2"):format(before[i]), peer:send("count"):receive())
      end
      assert.truthy(udp.connect(app):send("count"):receive():find "^two %d 1$")
    end)

    it("takes its state along where it migrates", function()
      local app = start("reload = 'migrate'", { workers = 2 })
      local peers = udp.connect_all(app, 20)
      for _, peer in ipairs(peers) do peer:echo "x" end
      reload.reload_to(app, script("reload = 'migrate'", "two"))
      for _, peer in ipairs(peers) do
        wait.until_true("a flow to have migrated", function() return peer:send("count"):receive():find "^two" end)
        assert.truthy(peer:send("count"):receive():find "^two %d [3-9]")
      end
    end)

    it("has the new script's settings where it migrates", function()
      local app = start "reload = 'migrate', amplification = 1, frame = { 'datagram', max = 100 }"
      local peers = udp.connect_all(app, 3)
      for _, peer in ipairs(peers) do peer:send(("x"):rep(101)) end
      wait.until_true("what is too large to be dropped", function() return counter(app, "truncated_datagrams") == 3 end)
      for version = 2, 4 do -- the first generations are gone by then
        reload.reload_to(app, script("reload = 'migrate', amplification = false, frame = { 'datagram', max = 2000 }",
          tostring(version)))
      end
      app:wait_log { message = "generation retired", generation = 1 }
      for _, peer in ipairs(peers) do
        peer:send(("x"):rep(1500))
        assert.equal(1500, #peer:receive())
        assert.equal("4 0 2", peer:send("count"):receive())
      end
    end)

    it("loses no reply under load", function()
      local app = start("reload = 'migrate'", { workers = 2 })
      local peers = udp.connect_all(app, 20)
      for round = 1, 60 do
        for _, peer in ipairs(peers) do peer:send(("%d a"):format(round), ("%d b"):format(round)) end
        if round % 10 == 5 then
          reload.rewrite(app, script("reload = 'migrate'", tostring(round)))
          app:signal "HUP"
        end
        for _, peer in ipairs(peers) do
          assert.equal(("%d a"):format(round), peer:receive())
          assert.equal(("%d b"):format(round), peer:receive())
        end
      end
      assert.same({ 0, 0 }, { counter(app, "dropped_datagrams"), counter(app, "lost_datagrams") })
    end)

    it("comes with a new listener, and ends with its last flow", function()
      local app = start(nil, { script = script(nil, nil, '"tcp://127.0.0.1:0", frame = "line"'), workers = 2 })
      reload.reload_to(app, script(nil, "two", '{ { "tcp://127.0.0.1:0", frame = "line" }, "udp://127.0.0.1:0" }'))
      local entry = app:wait_log(function(one)
        return one.message == "listening" and one.address:find "^udp"
      end)
      local port = tonumber(entry.address:match "%d+$")
      local to = { host = "127.0.0.1", port = port }
      local one = udp.connect(app, to)
      one:echo "x"
      reload.reload_to(app, script(nil, "three", '"tcp://127.0.0.1:0", frame = "line"'))
      one:echo("count", one:send("count"):receive():gsub("2$", "3"))
      local late = udp.connect(app, to):send "late"
      wait.until_true("it to be dropped", function() return counter(app, "dropped_datagrams") == 1 end)
      one:echo("quit", "bye")
      app:wait_log "closed agent"
      wait.until_true("the port to be closed", function()
        posix_socket.send(late.fd, "x")
        local _, _, code = posix_socket.send(late.fd, "x")
        return code == 111
      end)
    end)
  end)

  describe("in an upgrade", function()
    local function ask(peer) return peer:send("count"):receive() end

    for _, case in ipairs { { '"udp://127.0.0.1:0"', 2, 2 }, { '"udp://0.0.0.0:0"', 2, 4 }, { '"udp://[::1]:0"', 4, 2 },
      { '"udp://127.0.0.1:0"', 4, 1 }, { '"udp://127.0.0.1:0"', 1, 3 } } do
      local listen, before, after = unpack(case)
      it(("goes on in the old process, while others are served by the new one: %s, %d workers, then %d")
        :format(listen, before, after), function()
        local function of(version, workers)
          local agent = ("agent = Agent, workers = %d,"):format(workers)
          return (script(nil, version, listen):gsub("agent = Agent,", agent, 1))
        end
        local app = server.start { script = of("one", before), args = { "--log-level=debug" }, scripts_own = true,
          env = { PERILUNE_LOG_FORMAT = "json" } }
        local host = app.listeners[1].host == "0.0.0.0" and "127.0.0.1" or nil
        local peers = udp.connect_all(app, 20, { host = host })
        for _, peer in ipairs(peers) do peer:echo "x" end
        reload.rewrite(app, of("two", after))
        local successor = app:upgrade()
        assert.equal(app.port, successor.port)
        -- From its first answer on the kernel deals peers out to the new number of workers.
        wait.until_true("the new process to answer", function()
          local first = udp.connect(successor, { host = host })
          if ask(first):find "^two" then return true end
          first:echo("quit", "bye") -- the old process would wait for it
        end)
        local new = udp.connect_all(successor, 30, { host = host })
        local workers = {}
        for round = 1, 3 do
          for _, peer in ipairs(peers) do assert.truthy(ask(peer):find("^one %d " .. round + 1 .. "$")) end
          for i, peer in ipairs(new) do
            local worker, n = ask(peer):match "^two (%d) (%d+)$"
            assert.equal(round, tonumber(n))
            workers[i] = workers[i] or worker
            assert.equal(workers[i], worker)
          end
        end
        for _, peer in ipairs(peers) do peer:echo("quit", "bye") end
        assert.equal(0, app:wait_end().code)
        for i, peer in ipairs(new) do assert.equal(("two %s 4"):format(workers[i]), ask(peer)) end
        for _, peer in ipairs(peers) do assert.truthy(ask(peer):find "^two %d 1$") end
      end)
    end

    it("loses no datagram of those who go on asking", function()
      local app = start(nil, { workers = 2 })
      local peers = udp.connect_all(app, 30)
      reload.rewrite(app, script(nil, "two"))
      for _, peer in ipairs(peers) do peer:echo "x" end
      local successor
      for round = 1, 40 do
        for _, peer in ipairs(peers) do peer:send("a " .. round, "b " .. round) end
        if round == 20 then successor = app:upgrade() end
        for _, peer in ipairs(peers) do
          assert.equal("a " .. round, peer:receive())
          assert.equal("b " .. round, peer:receive())
        end
      end
      for _, peer in ipairs(peers) do assert.truthy(ask(peer):find "^one %d 82$") end
      wait.until_true("the new process to answer", function() return ask(udp.connect(successor)):find "^two" end)
    end)

    it("serves on where the new process does not come up", function()
      local app = start()
      local one = udp.connect(app)
      one:echo "x"
      reload.rewrite(app, "return { listen = 7 }")
      assert.equal("upgrade failed: this process serves on", app:try_upgrade().message)
      one:echo("count", "one 0 2")
      udp.connect(app):echo("count", "one 0 1")
    end)
  end)

  describe("at the end", function()
    it("answers what had come", function()
      local app = start "limits = { proceed = '5s' }"
      local one, other = udp.connect(app), udp.connect(app)
      one:echo "x"
      one:send "sleep 300ms"
      other:send "never served before"
      app:stop()
      assert.equal("sleep 300ms", one:receive())
      assert.equal("never served before", other:receive())
    end)

    it("serves flows that say goodbye themselves, and nobody else", function()
      local app = server.start { script = AGENT:format "one" .. [[
        function Agent:drain() note "drains" return true end
        return { listen = "udp://127.0.0.1:0", agent = Agent, setup = setup }]], control = "control.sock" }
      local one = udp.connect(app)
      one:echo "x"
      app:signal "TERM"
      app:wait_log "drains"
      local late = udp.connect(app):send "late"
      one:echo("count", "one 0 2"):echo("quit", "bye")
      assert.equal(0, app:wait_end().code)
      assert.is_nil(late:try_receive())
    end)
  end)

  it("takes a socket that was handed over, by systemd for one", function()
    local fd = assert(posix_socket.socket(posix_socket.AF_INET, posix_socket.SOCK_DGRAM, 0))
    assert(posix_socket.bind(fd, { family = posix_socket.AF_INET, addr = "127.0.0.1", port = 0 }))
    local port = posix_socket.getsockname(fd).port
    local app = start(nil, {
      script = script(nil, nil, ('"udp://127.0.0.1:%d"'):format(port)), fds = { fd }, workers = 2,
    })
    unistd.close(fd)
    for _, peer in ipairs(udp.connect_all(app, 10)) do peer:echo "x" end
    assert.equal(0, #app:find_log { level = "warn" })
  end)

  it("can be recorded and played back", function()
    local trace = require "spec.support.trace"
    local app = start()
    local recording = trace.record(app)
    -- One that begins in the poll in which the worker is told to record may be left out; the next one comes after that.
    udp.connect(app):echo("quit", "bye")
    app:wait_log "closed agent"
    udp.connect(app):echo("count", "one 0 1"):echo(""):echo("quit", "bye")
    app:wait_log("closed agent", nil, 2)
    recording:stop()
    local out = command.shell(("'%s' replay '%s' '%s/app.lua' 2>&1"):format(command.binary, recording.path, app.folder))
    assert.truthy(out:find "%f[%d][12] connections?", out)
  end)

  it("talks with clients that we did not write", function()
    local app = start()
    for program, line in pairs {
      nc = "printf hello | timeout 60 nc -u -W1 127.0.0.1 %d",
      node = [[timeout 60 node -e 'const s = require("dgram").createSocket("udp4");
        s.on("message", m => { console.log(String(m)); s.close() }); s.send("hello", %d, "127.0.0.1")']],
    } do
      if command.has(program) then assert.equal("hello", (command.shell(line:format(app.port)):gsub("\n$", ""))) end
    end
  end)
end)
