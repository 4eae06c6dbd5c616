--- Connections out in a server: over real sockets, names, TLS; in reloads, a stop, an upgrade; pools, pipes, status.
local operator = require "spec.support.operator"
local pki = require "spec.support.pki"
local server = require "spec.support.server"
local support = require "spec.support.reload"
local wait = require "spec.support.wait"

describe("connections out", function()
  after_each(server.finish)

  local ECHO = [[
    local Agent = {}
    function Agent:proceed(line)
      if line == "reset" then return self.conn:abort() end
      if line == "who" then return self.conn.peer end
      return "<" .. line .. ">"
    end
    return { listen = %q, frame = "line", agent = Agent, %s }]]

  local function backend(address, settings)
    local script = ECHO:format(address or "tcp://127.0.0.1:0", settings or "")
    return server.start { control = "control.sock", script = script }
  end

  -- Asks the backend for each line, by this body; `address` and `perilune` are there.
  local function asker(address, body, settings)
    return server.start { control = "control.sock", script = ([[
      local perilune = require "perilune"
      local address = %q
      local Agent = {}
      local function note(text) perilune.log("info", text) end
      %s
      return { listen = "tcp://127.0.0.1:0", frame = "line", agent = Agent, %s }
    ]]):format(address, body, settings or "") }
  end

  local ASK = [[
    function Agent:proceed(line)
      local db, message, code = perilune.connect(address, OPTIONS)
      if not db then return "no: " .. message .. " " .. code end
      db:send(line)
      local reply, why, how = db:read()
      db:close()
      return reply or "no reply: " .. why .. " " .. how
    end]]

  local function asking(options) return (ASK:gsub("OPTIONS", options or "{ frame = 'line' }")) end

  it("go by TCP, and are closed in good order", function()
    local db = backend()
    local app = asker(("tcp://127.0.0.1:%d"):format(db.port), asking())
    app:connect():echo_line("a", "<a>"):echo_line("b", "<b>")
    wait.until_true("both have ended", function() return operator.status(db).counters.closed == 2 end)
    assert.same({ peer = 2 }, operator.status(db).counters.reasons)
    local outgoing = operator.status(app).outgoing
    assert.same({ 2, 2, 0 }, { outgoing.connected, outgoing.closed, outgoing.open })
    assert.same({ 2, 2 }, { outgoing.frames_in, outgoing.frames_out })
    assert.equal(0, app:stop().code)
  end)

  it("go to a name, by whichever of its addresses answers", function()
    local db = backend()
    local app = asker(("tcp://localhost:%d"):format(db.port), asking() .. [[
      local proceed = Agent.proceed
      function Agent:proceed(line)
        if line == "names" then return table.concat(perilune.resolve "localhost", " ") end
        if line == "nobody" then return select(3, perilune.resolve "nobody.invalid") end
        return proceed(self, line)
      end]])
    local client = app:connect():echo_line("a", "<a>")
    client:send "names\n"
    assert.is_truthy(client:recv_line():find "127.0.0.1")
  end)

  it("go by Unix sockets, and from an address of ours", function()
    local folder = require("spec.support.command").shell "mktemp -d":gsub("\n", "")
    local path = folder .. "/db.sock"
    backend("unix://" .. path)
    asker("unix://" .. path, asking()):connect():echo_line("a", "<a>")
    os.remove(path)
    os.remove(folder)
    local db = backend()
    local app = asker(("tcp://127.0.0.1:%d"):format(db.port), asking "{ frame = 'line', from = '127.0.0.9' }")
    local client = app:connect()
    client:send "who\n"
    assert.is_truthy(client:recv_line():find "^127%.0%.0%.9:")
  end)

  it("have TCP keep-alive, unless it is off", function()
    local db = backend()
    local function timer_of(options)
      local app = asker(("tcp://127.0.0.1:%d"):format(db.port), ([[
        function Agent:opened() self.db = assert(perilune.connect(address, %s)) end
        function Agent:proceed(line) return line end]]):format(options))
      app:connect():echo_line("x", "x")
      local out = require("spec.support.command").shell(("ss -Htno state established dport = :%d"):format(db.port))
      app:stop()
      return out:match "timer:%((%a+)"
    end
    assert.equal("keepalive", timer_of "{ frame = 'line' }")
    assert.is_nil(timer_of "{ frame = 'line', keepalive = false }")
  end)

  it("go over TLS, to who has the right certificate", function()
    local PKI = pki.new()
    local one = PKI:sign("server", { names = { "localhost" } })
    local db = backend("tls://127.0.0.1:0", ("tls = { certificate = %q, key = %q }"):format(one.certificate, one.key))
    local options = ("{ frame = 'line', tls = { authority = %q, server_name = NAME } }"):format(PKI.folder .. "/ca.pem")
    local function app_for(name)
      return asker(("tls://127.0.0.1:%d"):format(db.port), asking((options:gsub("NAME", ("%q"):format(name)))))
    end
    app_for("localhost"):connect():echo_line("a", "<a>"):echo_line("b", "<b>")
    local client = app_for("other.example"):connect()
    client:send "a\n"
    assert.is_truthy(client:recv_line():find "^no: .* EPROTO$")
    PKI:remove()
  end)

  it("are refused, and time out, while others are served", function()
    local app = asker("tcp://127.0.0.1:1", asking())
    local client = app:connect()
    client:send "a\n"
    assert.equal("no: 127.0.0.1:1: connection refused ECONNREFUSED", client:recv_line())
    -- A backlog that is full answers nobody.
    local socket = require "socket"
    local full = assert(socket.bind("127.0.0.1", 0, 0))
    local port, held = select(2, full:getsockname()), {}
    for i = 1, 4 do
      held[i] = socket.tcp()
      held[i]:settimeout(0)
      held[i]:connect("127.0.0.1", port)
    end
    local waiting = asker(("tcp://127.0.0.1:%d"):format(port),
      asking "{ frame = 'line', timeout = { connect = '300ms' } }" .. [[
      local ask = Agent.proceed
      function Agent:proceed(line) return line == "quick" and "quick" or ask(self, line) end]])
    local slow, quick = waiting:connect(), waiting:connect()
    slow:send "a\n"
    quick:echo_line("quick", "quick")
    assert.is_truthy(slow:recv_line():find "^no: timeout: nobody has answered at tcp://127.0.0.1:%d+ ETIMEDOUT$")
    full:close()
    for _, one in ipairs(held) do one:close() end
  end)

  it("tell a reset, and leave no descriptor behind", function()
    local db = backend()
    local app = asker(("tcp://127.0.0.1:%d"):format(db.port), asking())
    local client = app:connect():echo_line("a", "<a>")
    local before = app:fds()
    for _ = 1, 20 do
      client:send "reset\n"
      assert.equal("no reply: connection reset by peer ECONNRESET", client:recv_line())
    end
    wait.until_true("all are closed", function() return app:fds() <= before end)
  end)

  it("end with their agent, whose client has gone", function()
    local db = backend()
    local app = asker(("tcp://127.0.0.1:%d"):format(db.port), [[
      function Agent:proceed(line)
        self.db = self.db or perilune.connect(address, { frame = "line" })
        self.db:send(line)
        return self.db:read()
      end]])
    app:connect():echo_line("a", "<a>"):close()
    wait.until_true("it has ended", function() return operator.status(db).counters.open == 0 end)
    assert.same({ link = 1 }, operator.status(app).outgoing.reasons)
  end)

  it("stay with their generation: a reload loses no reply of theirs", function()
    local db = backend()
    local function version(text)
      return ([[
        local perilune = require "perilune"
        local Agent = {}
        function Agent:opened() self.db = assert(perilune.connect("tcp://127.0.0.1:%d", { frame = "line" })) end
        function Agent:proceed(line)
          self.db:send(line)
          return "%s " .. self.db:read()
        end
        function Agent:snapshot() return {} end
        function Agent:upgrade() end
        local function setup(app)
          app:spawn(function()
            local db = perilune.connect("tcp://127.0.0.1:%d", { frame = "line" })
            db:send "%s"
            perilune.log("info", db:read())
            perilune.sleep "1h"
          end)
        end
        return { listen = "tcp://127.0.0.1:0", frame = "line", reload = "migrate", agent = Agent, setup = setup,
          teardown = function() perilune.log("info", "teardown %s") end }]]):format(db.port, text, db.port, text, text)
    end
    local app = server.start { control = "control.sock", script = version "one" }
    local client = app:connect():echo_line("a", "one <a>")
    app:wait_log "<one>"
    support.reload_to(app, version "two")
    app:wait_log "<two>"
    client:echo_line("b", "one <b>") -- it has a connection out, and does not migrate
    app:connect():echo_line("c", "two <c>")
    client:close()
    app:wait_log "teardown one"
    assert.equal(0, app:stop().code)
    app:wait_log "teardown two"
    wait.until_true("all have ended", function() return operator.status(db).counters.open == 0 end)
  end)

  it("are left to those who use them while the server drains", function()
    local db = backend()
    local app = asker(("tcp://127.0.0.1:%d"):format(db.port), [[
      function Agent:opened() self.db = assert(perilune.connect(address, { frame = "line" })) end
      function Agent:drain()
        self.db:send "last"
        self.conn:send(self.db:read())
        self.conn:close()
        return true
      end
      function Agent:proceed(line) return line end]])
    local client = app:connect():echo_line("a", "a")
    app:signal "TERM"
    assert.equal("<last>", client:recv_line())
    client:expect_closed()
    assert.equal(0, app:wait_end().code)
  end)

  describe("that are piped", function()
    local PIPE = [[
      function Agent:opened()
        local db, message = perilune.connect(address)
        if not db then return message, "close" end
        self.conn:pipe(db)
      end
      function Agent:proceed() error "not reached" end]]

    it("carry what they are given, whole and in order, both ways", function()
      local db = server.start { control = "control.sock", script = [[
        return { listen = "tcp://127.0.0.1:0", frame = "raw", agent = { proceed = function(_, bytes) return bytes end,
          } }]] }
      local app = asker(("tcp://127.0.0.1:%d"):format(db.port), PIPE)
      local client = app:connect()
      for i = 1, 200 do
        local piece = (("%d,"):format(i)):rep(i * 7 % 900 + 1)
        client:send(piece)
        assert.equal(piece, client:recv_exact(#piece))
      end
      client:close()
      wait.until_true("both have ended", function()
        return operator.status(app).outgoing.open == 0 and operator.status(app).counters.open == 0
      end)
    end)

    it("keep what a slow reader has not read, and not more than that", function()
      local bytes = server.scaled(64, 16) * 1024 * 1024
      local db = server.start { control = "control.sock", script = ([[
        local Agent = {}
        function Agent:proceed(line)
          self.left = %d
          self:writable()
        end
        function Agent:writable()
          while self.left and self.left > 0 do
            self.left = self.left - 65536
            if not self.conn:send(("x"):rep(65536)) then return end
          end
          if self.left then self.conn:close() end
        end
        return { listen = "tcp://127.0.0.1:0", frame = "raw", agent = Agent }]]):format(bytes) }
      local app = asker(("tcp://127.0.0.1:%d"):format(db.port), PIPE)
      local client = app:connect():send "go"
      wait.pause(0.3)
      assert.is_true(operator.status(app).counters.bytes_out < bytes)
      assert.equal(bytes, #client:recv_all())
    end)

    it("stay piped, and linked, where others migrate at a reload", function()
      local db = backend()
      local function version(text)
        return ([[
          local perilune = require "perilune"
          local Agent, first = {}, nil
          function Agent:opened()
            if first then first:link(self.conn) end
            first = first or self.conn
          end
          function Agent:proceed(line)
            if line == "end" then return self.conn:close() end
            if line ~= "pipe" then return "%s " .. line end
            local db = perilune.connect("tcp://127.0.0.1:%d")
            self.conn:send "piped"
            self.conn:flush()
            self.conn:pipe(db)
          end
          function Agent:snapshot() return {} end
          function Agent:upgrade() end
          return { listen = "tcp://127.0.0.1:0", frame = "line", reload = "migrate", agent = Agent }
        ]]):format(text, db.port)
      end
      local app = server.start { script = version "one" }
      local linked = { app:connect():echo_line("a", "one a"), app:connect():echo_line("a", "one a") }
      local piped = app:connect():echo_line("pipe", "piped"):echo_line("x", "<x>")
      support.reload_to(app, version "two")
      piped:echo_line("y", "<y>")
      app:connect():echo_line("b", "two b")
      linked[1]:send "end\n"
      linked[1]:expect_closed()
      linked[2]:expect_closed()
    end)

    it("pass a reset on", function()
      local db = backend()
      local app = asker(("tcp://127.0.0.1:%d"):format(db.port), PIPE)
      local client = app:connect():echo_line("a", "<a>"):send "reset\n"
      client:expect_reset()
      local other = app:connect():echo_line("a", "<a>")
      other:reset()
      wait.until_true("the other end has seen it", function()
        return (operator.status(db).counters.reasons.reset or 0) == 1
      end)
    end)
  end)

  describe("of a pool", function()
    local POOL = [[
      local pool = perilune.pool(address, { frame = "line", pipeline = PIPELINE, size = 4, timeout = { read = "2s" } })
      function Agent:proceed(line)
        local reply, message, code = pool:request(line)
        return reply or "no: " .. message .. " " .. code
      end]]

    for _, pipeline in ipairs { "false", "true" } do
      it("answer many clients, each its own: pipeline = " .. pipeline, function()
        local db = backend()
        local app = asker(("tcp://127.0.0.1:%d"):format(db.port), (POOL:gsub("PIPELINE", pipeline)))
        local clients = app:connect_many(50)
        for round = 1, 5 do
          for i, client in ipairs(clients) do client:send(("%d.%d\n"):format(round, i)) end
          for i, client in ipairs(clients) do assert.equal(("<%d.%d>"):format(round, i), client:recv_line()) end
        end
        assert.is_true(operator.status(db).counters.accepted <= 4)
      end)

      it("find a backend again that was away: pipeline = " .. pipeline, function()
        local db = backend()
        local port = db.port
        local app = asker(("tcp://127.0.0.1:%d"):format(port), (POOL:gsub("PIPELINE", pipeline)))
        local client = app:connect():echo_line("a", "<a>")
        assert.equal(0, db:stop().code)
        client:send "b\n"
        assert.is_truthy(client:recv_line():find "^no: ")
        backend("tcp://127.0.0.1:" .. port)
        wait.until_true("it is answered", function()
          client:send "c\n"
          return client:recv_line() == "<c>"
        end)
      end)
    end
  end)
end)
