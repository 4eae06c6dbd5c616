--- Connections out over UDP: real datagrams, whole, from one peer; what is refused, lost or too large.
local command = require "spec.support.command"
local operator = require "spec.support.operator"
local server = require "spec.support.server"
local socket = require "socket"
local support = require "spec.support.reload"
local wait = require "spec.support.wait"

describe("a connection out over UDP", function()
  local held = {}

  after_each(function()
    server.finish()
    for _, sock in ipairs(held) do sock:close() end
    held = {}
  end)

  -- A socket on loopback that answers nobody by itself, and its port.
  local function silent()
    local sock = assert(socket.udp())
    assert(sock:setsockname("127.0.0.1", 0))
    sock:settimeout(wait.SECONDS)
    held[#held + 1] = sock
    return select(2, sock:getsockname()), sock
  end

  -- A port that nobody listens at.
  local function closed()
    local port, sock = silent()
    sock:close()
    return port
  end

  local function backend(address)
    return server.start { control = "control.sock", script = ([[
      local perilune = require "perilune"
      local Agent = {}
      function Agent:proceed(datagram)
        if datagram == "who" then return self.conn.peer end
        if datagram:find "^%%d+$" then
          for i = 1, tonumber(datagram) do self.conn:send("no " .. i) end
          return
        end
        return "<" .. datagram .. ">"
      end
      return { listen = %q, agent = Agent, amplification = false }]]):format(address or "udp://127.0.0.1:0") }
  end

  -- An app of lines that talks to a port; `address` and `perilune` are there.
  local function app_of(port, body, settings)
    return server.start { control = "control.sock", script = ([[
      local perilune = require "perilune"
      local address = "udp://127.0.0.1:%d"
      local Agent = {}
      %s
      return { listen = "tcp://127.0.0.1:0", frame = "line", agent = Agent, %s }
    ]]):format(port, body, settings or "") }
  end

  local ASK = [[
    function Agent:proceed(line)
      self.db = self.db or assert(perilune.connect(address, { timeout = { read = "2s" } }))
      self.db:send(line)
      local reply, why, code = self.db:read()
      return reply or why .. " " .. code
    end]]

  local function asks(client, line, answer)
    client:send(line .. "\n")
    assert.equal(answer, client:recv_line())
  end

  it("sends each frame as a datagram, and reads each datagram as a frame", function()
    local db = backend()
    local app = app_of(db.port, ASK .. [[
      local ask = Agent.proceed
      function Agent:proceed(line)
        if line == "empty" then
          self.db:send ""
          return self.db:read()
        elseif line == "large" then
          local text = ("abcdefghij"):rep(6550)
          self.db:send(text)
          return tostring(self.db:read() == "<" .. text .. ">")
        elseif line == "list" then
          self.db:send { "a", "b", "c" }
          return self.db:read() .. self.db:read() .. self.db:read()
        elseif line == "names" then
          return self.db.listener .. " " .. self.db.peer .. " " .. tostring(self.db.local_addr == self.db:read())
        end
        return ask(self, line)
      end]])
    local client = app:connect()
    asks(client, "a", "<a>")
    asks(client, "empty", "<>")
    asks(client, "large", "true")
    asks(client, "list", "<a><b><c>")
    local address = "127.0.0.1:" .. db.port
    client:send "who\n"
    assert.is_truthy(client:recv_line():find "^127%.0%.0%.1:%d+$")
    local outgoing = operator.status(app).outgoing
    assert.same({ 1, 1, 0 }, { outgoing.connected, outgoing.open, outgoing.closed })
    assert.same({ 7, 7 }, { outgoing.frames_in, outgoing.frames_out })
    asks(client, "names", ("udp://%s %s false"):format(address, address))
    assert.equal(0, app:stop().code)
  end)

  it("goes to IPv6, and from an address of ours", function()
    local db = backend "udp://[::1]:0"
    local app = server.start { script = ([[
      local perilune = require "perilune"
      local Agent = {}
      function Agent:proceed(line)
        local host, from = line:match "^(%%S+) ?(%%S*)$"
        local conn, why = perilune.connect("udp://" .. host .. ":%d", { from = from ~= "" and from or nil })
        if not conn then return why end
        conn:send "who"
        local reply = assert(conn:read())
        return tostring(reply == conn.local_addr) .. " " .. reply:gsub(":%%d+$", "")
      end
      return { listen = "tcp://127.0.0.1:0", frame = "line", agent = Agent }]]):format(db.port) }
    local client = app:connect()
    asks(client, "[::1]", "true [::1]")
    client:send "[::1] 127.0.0.9\n"
    assert.is_truthy(client:recv_line():find "no address of the local address's family")
    client:send "[::1] 2001:db8::1\n"
    assert.is_truthy(client:recv_line():find "address not available")
    local four = backend()
    local other = app_of(four.port, [[
      function Agent:proceed()
        local conn = assert(perilune.connect(address, { from = "127.0.0.9" }))
        conn:send "who"
        return conn:read()
      end]])
    local answered = other:connect():send "x\n":recv_line()
    assert.is_truthy(answered:find "^127%.0%.0%.9:")
  end)

  it("hears its peer and nobody else", function()
    local port, sock = silent()
    local app = app_of(port, [[
      function Agent:proceed(line)
        self.db = self.db or assert(perilune.connect(address))
        if line == "where" then
          self.db:send "hello"
          return self.db.local_addr:match "%d+$"
        end
        return self.db:read()
      end]])
    local client = app:connect()
    client:send "where\n"
    local to = tonumber(client:recv_line())
    local _, stranger = silent()
    assert(stranger:sendto("forged", "127.0.0.1", to))
    assert.equal("hello", (sock:receive()))
    assert(sock:sendto("true", "127.0.0.1", to))
    asks(client, "read", "true")
  end)

  it("lets others be answered while one waits for a reply that never comes", function()
    local port, sock = silent()
    local app = app_of(port, ASK:gsub('"2s"', '"1h"') .. [[
      local ask = Agent.proceed
      function Agent:proceed(line) return line == "quick" and line or ask(self, line) end]])
    local waiting, other = app:connect(), app:connect()
    waiting:send "a\n"
    assert.equal("a", (sock:receive()))
    asks(other, "quick", "quick")
    waiting:close()
    wait.until_true("it has ended with its agent", function() return operator.status(app).outgoing.open == 0 end)
    assert.same({ link = 1 }, operator.status(app).outgoing.reasons)
    assert.equal(0, app:stop().code)
  end)

  it("goes on after a read that has timed out", function()
    local port, sock = silent()
    local app = app_of(port, [[
      function Agent:proceed()
        local db = assert(perilune.connect(address))
        db:send(db.local_addr:match "%d+$")
        local first, why, code = db:read(nil, "1ms")
        self.conn:send(("%s %s %s"):format(first, why, code))
        return db:read()
      end]])
    local client = app:connect()
    asks(client, "x", "nil timeout ETIMEDOUT")
    assert(sock:sendto("late", "127.0.0.1", tonumber((sock:receive()))))
    assert.equal("late", client:recv_line())
  end)

  it("is told that nobody listens there: by a read, or by the next call", function()
    local app = app_of(closed(), ASK .. [[
      local ask = Agent.proceed
      function Agent:proceed(line)
        if line == "later" then
          self.db:send "x"
          self.conn:send "sent"
          perilune.sleep "10ms"
          local ok, why, code = self.db:send "y"
          return ("%s %s %s"):format(ok, why, code)
        end
        return ask(self, line)
      end]])
    local client = app:connect()
    asks(client, "a", "connection refused ECONNREFUSED")
    asks(client, "b", "connection refused ECONNREFUSED")
    asks(client, "later", "sent")
    assert.equal("nil connection refused ECONNREFUSED", client:recv_line())
    asks(client, "c", "connection refused ECONNREFUSED")
    assert.equal(1, operator.status(app).outgoing.open)
    assert.equal(0, app:stop().code)
  end)

  it("finds a peer that comes back, without connecting anew", function()
    local port = closed()
    local app = app_of(port, ASK)
    local client = app:connect()
    asks(client, "a", "connection refused ECONNREFUSED")
    backend("udp://127.0.0.1:" .. port)
    asks(client, "b", "<b>")
  end)

  it("says of a datagram that is too large what is wrong, and goes on", function()
    local db = backend()
    local app = app_of(db.port, ASK .. [[
      local ask = Agent.proceed
      function Agent:proceed(line)
        if line ~= "large" then return ask(self, line) end
        local ok, why, code = self.db:send(("x"):rep(65508))
        return ("%s %s %s"):format(ok, why, code)
      end]])
    local client = app:connect()
    asks(client, "a", "<a>")
    asks(client, "large", "nil a datagram has at most 65507 bytes, this one has 65508 EMSGSIZE")
    asks(client, "b", "<b>")
  end)

  it("drops and counts what is larger than `max`", function()
    local db = backend()
    local app = app_of(db.port, [[
      function Agent:proceed(line)
        self.db = self.db or assert(perilune.connect(address, { frame = { "datagram", max = 4 } }))
        self.db:send { line, "x" }
        return self.db:read()
      end]])
    local client = app:connect()
    asks(client, "abc", "<x>")
    assert.equal(1, operator.status(app).counters.truncated_datagrams)
  end)

  it("keeps some while nobody reads, as limits.inbox says, and drops and counts the rest", function()
    local db = backend()
    local app = app_of(db.port, [[
      function Agent:proceed(line)
        if not self.db then
          self.db = assert(perilune.connect(address, { limits = { inbox = 10 } }))
        end
        if line ~= "read" then
          self.db:send(line)
          return "asked"
        end
        return self.db:read(nil, "1ms") or "nothing"
      end]])
    local client = app:connect()
    local function dropped()
      local counters = operator.status(app).counters
      return counters.dropped_datagrams + counters.lost_datagrams
    end
    -- All that comes in one turn is kept, and no more until somebody reads.
    local sent, count = 0, 0
    wait.until_true("some are dropped", function()
      asks(client, "100", "asked")
      sent = sent + 100
      return dropped() > 0
    end)
    wait.until_true("each is read or dropped", function()
      client:send "read\n"
      local line = client:recv_line()
      if line == "nothing" then return count + dropped() == sent end
      count = count + 1
      assert.is_truthy(line:find "^no %d+$")
    end)
    assert.is_true(count >= 10)
  end)

  it("may have an agent, whose replies are datagrams", function()
    local db = backend()
    local app = app_of(db.port, [[
      function Agent:opened()
        local client = self.conn
        local Peer = {}
        function Peer:proceed(datagram)
          client:send(datagram)
          if datagram == "<a>" then return "from proceed" end
        end
        function Peer:timeout(kind) client:send(kind) end
        function Peer:closed(reason) client:send(reason) end
        self.db = assert(perilune.connect(address, { agent = Peer }))
      end
      function Agent:proceed(line)
        if line == "idle" then
          self.db:set_timeout("idle", "50ms")
        else
          self.db:send(line)
        end
      end]])
    local client = app:connect()
    asks(client, "a", "<a>")
    assert.equal("<from proceed>", client:recv_line())
    asks(client, "idle", "idle")
    assert.equal("idle_timeout", client:recv_line())
  end)

  it("is linked as others are, and is in no pipe and no pool", function()
    local db = backend()
    local app = app_of(db.port, [[
      function Agent:proceed(line)
        local db = assert(perilune.connect(address))
        if line == "link" then
          self.conn:link(db)
          db:close()
          return
        end
        local _, message = pcall(self.conn.pipe, self.conn, db)
        return message
      end]])
    local client = app:connect()
    asks(client, "pipe", "conn:pipe: udp:// has datagrams, and no stream of bytes")
    client:send "link\n"
    client:expect_closed()
  end)

  it("leaves no descriptor behind, and many of them go on beside each other", function()
    local db = backend()
    local app = app_of(db.port, [[
      function Agent:proceed(line)
        local tasks, answers = {}, {}
        for i = 1, 100 do
          tasks[i] = function()
            local conn = assert(perilune.connect(address))
            conn:send("q" .. i)
            answers[i] = conn:read()
            conn:close()
          end
        end
        perilune.all(tasks)
        for i = 1, 100 do assert(answers[i] == "<q" .. i .. ">", answers[i]) end
        return line
      end]])
    local client = app:connect():echo_line("a", "a")
    local before = app:fds()
    client:echo_line("b", "b")
    wait.until_true("all are closed", function() return app:fds() <= before end)
    assert.equal(0, app:stop().code)
  end)

  it("goes on beside listeners of datagrams on the same worker, and through a reload", function()
    local function version(text)
      return ([[
        local perilune = require "perilune"
        local Echo, Asker = {}, {}
        function Echo:proceed(datagram) return "%s <" .. datagram .. ">" end
        function Asker:proceed(line)
          self.conns = self.conns or {}
          local tasks = {}
          for i = 1, 20 do
            tasks[i] = function()
              local conn = self.conns[i] or assert(perilune.connect("udp://" .. line))
              self.conns[i] = conn
              for n = 1, 10 do
                conn:send { i .. "." .. n, "more" }
                local reply, more = assert(conn:read()), assert(conn:read())
                assert(reply:find("<" .. i .. "." .. n .. ">", 1, true) and more:find("<more>", 1, true), reply)
                if n == 10 then return reply:match "^%%a+" end
              end
            end
          end
          return table.concat({ perilune.all(tasks) }, " ") ~= "" and "done"
        end
        return { workers = 1, timeout = { drain = "5s" }, listen = {
          { "tcp://127.0.0.1:0", frame = "line", agent = Asker },
          { "udp://127.0.0.1:0", agent = Echo } } }]]):format(text)
    end
    local app = server.start { control = "control.sock", script = version "one" }
    local address = "127.0.0.1:" .. app.listeners[2].port
    local client = app:connect()
    asks(client, address, "done")
    support.reload_to(app, version "two")
    asks(client, address, "done")
    asks(app:connect(), address, "done")
    assert.equal(0, operator.status(app).counters.faults)
    assert.equal(0, app:stop().code)
  end)

  it("is in the listing of docs/connections.md", function()
    local backend_script = command.read "examples/udp_time.lua"
    local time = server.start { script = (backend_script:gsub("127.0.0.1:9037", "127.0.0.1:0")) }
    local listing = command.read("docs/connections.md"):match "```lua\n(%-%- clock.lua.-)```"
    local app = server.start {
      script = listing:gsub("9037", tostring(time.port)):gsub("127.0.0.1:9000", "127.0.0.1:0"),
    }
    local client = app:connect():send "\n"
    assert.is_true(tonumber(client:recv_line()) > 3e9)
    time:stop()
    asks(client, "", "error: connection refused")
  end)

  it("ends with its agent, a stop and a drain, delivering what was sent", function()
    local db = backend()
    local app = app_of(db.port, [[
      function Agent:opened() self.db = assert(perilune.connect(address)) end
      function Agent:drain()
        self.db:send "last"
        self.conn:send(self.db:read())
      end
      function Agent:closed() self.db:send "not sent any more" end
      function Agent:proceed(line) return line end]])
    local client = app:connect():echo_line("a", "a")
    app:signal "TERM"
    assert.equal("<last>", client:recv_line())
    client:expect_closed()
    assert.equal(0, app:wait_end().code)
  end)
end)
