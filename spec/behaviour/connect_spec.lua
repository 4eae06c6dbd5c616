--- Connections out: perilune.connect, in straight lines and with agents.
local memory = require "memory"
local core = require "perilune"
local perilune = require "perilune.test"

local has = require "has"

describe("perilune.connect", function()
  local net

  before_each(function() net = perilune.net() end)
  after_each(function() net:close() end)

  local function echo()
    return { frame = "line", agent = { proceed = function(_, line) return "<" .. line .. ">" end } }
  end

  -- An app whose handler asks the backend for each line.
  local function asker(options)
    return {
      listen = "tcp://127.0.0.1:9000", frame = "line",
      agent = function(conn)
        return {
          proceed = function(_, line)
            local db, message, code = core.connect("tcp://db:1", options)
            if not db then return ("no: %s %s"):format(message, code) end
            db:send(line)
            local reply, why, how = db:read()
            db:close()
            return reply or ("no reply: %s %s"):format(why, how)
          end,
          conn = conn,
        }
      end,
    }
  end

  it("reads and writes in straight lines", function()
    net:serve("tcp://db:1", echo())
    local app = net:app(asker { frame = "line" })
    app:connect():send("a", "b"):expect("<a>", "<b>")
  end)

  it("tells who is not there", function()
    local app = net:app(asker { frame = "line" })
    app:connect():send("a"):expect(perilune.pattern "^no: db:1: connection refused.* ECONNREFUSED$")
  end)

  it("is turned away by a backend that has its limits.connections", function()
    local script = echo()
    script.limits = { connections = 1, reject = "full\n" }
    net:serve("tcp://db:1", script)
    local app = net:app(asker { frame = "line" })
    local held = net:app { listen = "tcp://127.0.0.1:9001", frame = "line", agent = {
      proceed = function(self, line)
        self.db = self.db or assert(core.connect("tcp://db:1", { frame = "line" }))
        self.db:send(line)
        return (self.db:read())
      end } }
    local holder = held:connect():send("a"):expect("<a>")
    app:connect():send("b"):expect("full"):send("c"):expect("full")
    holder:send("d"):expect("<d>")
  end)

  -- An app whose handler does this with a connection to the backend; what it returns is the reply.
  local function with_db(use, settings)
    local Agent = {}
    function Agent:proceed(line)
      local timeout = { read = "2s", connect = "3s" }
      local db, message, code = core.connect("tcp://db:1", { frame = "line", timeout = timeout })
      if not db then return ("no: %s %s"):format(message, code) end
      return use(db, line, self)
    end
    local script = { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent }
    for key, value in pairs(settings or {}) do script[key] = value end
    return net:app(script)
  end

  local function backend(agent, settings)
    local script = { frame = "line", agent = agent }
    for key, value in pairs(settings or {}) do script[key] = value end
    return net:serve("tcp://db:1", script)
  end

  describe("reads", function()
    it("for as long as timeout.read says, and goes on afterwards", function()
      backend { proceed = function(_, line)
        if line == "later" then core.sleep(3) end
        return line
      end }
      local app = with_db(function(db)
        db:send "later"
        local line, message, code = db:read()
        assert(not line)
        return ("%s %s, then %s"):format(message, code, db:read())
      end)
      local client = app:connect():send("x")
      app:advance("3s")
      client:expect("timeout ETIMEDOUT, then later")
    end)

    it("frames of another framing, and what came before it was asked for", function()
      backend { opened = function(self) self.conn:send("hello") self.conn:set_frame("u8") self.conn:send("binary") end,
        proceed = function() end }
      local app = with_db(function(db) core.sleep(1) return db:read() .. " " .. db:read("u8") end)
      local client = app:connect():send("x")
      app:advance("1s")
      client:expect("hello binary")
    end)

    it("until the end of the stream, and says so each time", function()
      backend { opened = function(self) self.conn:send("last") self.conn:close() end, proceed = function() end }
      local app = with_db(function(db)
        local first = db:read()
        local _, why, code = db:read()
        local _, again = db:read()
        return ("%s, %s %s, %s"):format(first, why, code, again)
      end)
      app:connect():send("x"):expect("last, end of stream EOF, end of stream")
    end)

    it("and is told of a reset, by its code", function()
      backend { proceed = function(self) self.conn:abort() end }
      local app = with_db(function(db)
        db:send "x"
        local _, why, code = db:read()
        return why .. " " .. code
      end)
      app:connect():send("x"):expect("connection reset by peer ECONNRESET")
    end)

    it("and is told of a frame that is too large", function()
      backend { proceed = function() return ("x"):rep(2e6) end }
      local app = with_db(function(db)
        db:send "x"
        local _, why, code = db:read()
        return why .. " " .. code
      end)
      app:connect():send("x"):expect(perilune.pattern "^frame too large.* EMSGSIZE$")
    end)

    it("in one call at a time, and only by its own agent", function()
      backend(echo().agent)
      local shared
      local app = with_db(function(db, line)
        if line == "share" then shared = db core.sleep(5) return "done" end
        if line == "other" then return (select(2, pcall(shared.read, shared))) end
        core.spawn(function() db:read() end)
        core.sleep(1)
        return (select(2, pcall(db.read, db)))
      end)
      local client = app:connect():send("two")
      app:advance("1s")
      client:expect(perilune.pattern "conn:read: another call of this agent reads already$")
      app:connect():send("share")
      app:connect():send("other"):expect(perilune.pattern "another agent or the app has made this one")
      app:advance("5s")
    end)
  end)

  describe("belongs to its agent", function()
    it("and ends with it, after its deferred functions and before its closed()", function()
      local db = backend { proceed = function(_, line) return line end, closed = function(_, reason)
        core.log("info", "closed " .. reason) end }
      local app = with_db(function(conn, _, self)
        self.db = conn
        return "connected"
      end)
      app:connect():send("x"):expect("connected"):close()
      assert.same({ "closed peer" }, memory.noted(db))
      assert.equal(0, app:counters().outgoing)
    end)

    it("and so does one that is being made", function()
      local app = with_db(function() end)
      local client = app:connect()
      client:send("x"):close()
      assert.equal(0, app:counters().outgoing)
      assert.equal(0, app:counters().connected)
    end)

    it("but not to one of its tasks, unless that closes it", function()
      backend(echo().agent)
      local app = with_db(function() return "unused" end)
      local Agent = {}
      function Agent:proceed()
        local db
        core.spawn(function() db = core.connect("tcp://db:1", { frame = "line" }) end):join()
        db:send("a")
        return db:read()
      end
      local other = net:app { listen = "tcp://127.0.0.1:9001", frame = "line", agent = Agent }
      other:connect():send("x"):expect("<a>")
      app:connect():send("x"):expect("unused")
    end)

    it("and a task that is cancelled while it connects leaves nothing behind", function()
      backend(echo().agent)
      local Agent = {}
      function Agent:proceed()
        local task = core.spawn(function() core.connect("tcp://db:1", { frame = "line" }) end)
        core.sleep(0)
        task:cancel()
        core.sleep(1)
        return "done"
      end
      local app = net:app { listen = "tcp://127.0.0.1:9001", frame = "line", agent = Agent }
      local client = app:connect():send("x")
      app:advance("1s")
      client:expect("done")
      assert.equal(0, app:counters().outgoing)
    end)

    it("or to the app, where a task of setup's has made it", function()
      local db = backend(echo().agent)
      local app = net:app { listen = "tcp://127.0.0.1:9001", frame = "line", agent = memory.echo(),
        setup = function(app)
          app:spawn(function()
            local conn = core.connect("tcp://db:1", { frame = "line" })
            conn:send("hello")
            core.log("info", conn:read())
          end)
        end }
      app:settle()
      assert.same({ "<hello>" }, memory.noted(app))
      app:close()
      db:settle()
      assert.equal(1, db:counters().closed)
    end)
  end)

  it("takes the first answer of two backends", function()
    backend { proceed = function(_, line) core.sleep(2) return "slow " .. line end }
    net:serve("tcp://db:2", { frame = "line", agent = {
      proceed = function(_, line) core.sleep(1) return "fast " .. line end } })
    local Agent = {}
    function Agent:proceed(line)
      local function ask(address)
        return function()
          local db = core.connect(address, { frame = "line" })
          db:send(line)
          return db:read()
        end
      end
      return (core.any { ask "tcp://db:1", ask "tcp://db:2" })
    end
    local app = net:app { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent }
    local client = app:connect():send("x")
    app:advance("1s")
    client:expect("fast x")
  end)

  it("gives a connection an agent of its own", function()
    local db = backend { opened = function(self) self.conn:send("hello") end, proceed = function(_, line)
      return line:upper() end }
    local Backend, Agent = {}, {}
    function Backend:opened() self.count = 0 end
    function Backend:proceed(line)
      self.count = self.count + 1
      core.log("info", self.count .. " " .. line)
      if line == "hello" then return "first" end
      if line == "FIRST" then return "second", "close" end
    end
    function Backend:closed(reason) core.log("info", "closed " .. reason) end
    function Agent:proceed()
      local conn, message = core.connect("tcp://db:1", { frame = "line", agent = Backend })
      return conn and conn.listener or message
    end
    local app = net:app { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent }
    app:connect():send("x"):expect("tcp://db:1")
    assert.same({ "1 hello", "2 FIRST", "closed agent" }, memory.noted(app))
    assert.equal(3, db:counters().frames_out)
  end)

  it("lets a codec in Lua end its connection, as a listener's may", function()
    backend { proceed = function() return { "a", "stop", "b", "c" } end }
    local app = net:app { listen = "tcp://127.0.0.1:9000", frame = "line", agent = { proceed = function()
      local made
      local codec = {
        decode = function(bytes, at)
          local stop = bytes:find("\n", at, true)
          if not stop then return nil end
          local line = bytes:sub(at, stop - 1)
          if line == "stop" then made:abort() end
          return line, stop + 1
        end,
        encode = function(text) return text .. "\n" end,
      }
      local function Backend(conn)
        made = conn
        return { proceed = function(_, line) core.log("info", line) end }
      end
      core.connect("tcp://db:1", { frame = codec, agent = Backend }):send "x"
    end } }
    app:connect():send "go"
    assert.same({ "a" }, memory.noted(app))
  end)

  it("comes to rest after a flush", function()
    backend { proceed = function() end }
    local app = with_db(function(db)
      db:send(("x"):rep(300000))
      db:flush()
      core.sleep(0.1)
      db:abort()
      return "done"
    end)
    local client = app:connect():send "x"
    app:advance "500ms"
    client:expect("done")
  end)

  it("waits for no longer than timeout.connect, whatever it waits for", function()
    local app = net:app { listen = "tcp://127.0.0.1:9000", frame = "line", agent = {
      proceed = function()
        local db, message, code = core.connect("tls://db:1", { timeout = { connect = "2s" }, tls = { verify = false } })
        return db and "connected" or message .. " " .. code
      end } }
    net:serve("tcp://db:1", { frame = "raw", agent = { proceed = function() end } }) -- it says nothing
    local client = app:connect():send("x")
    app:advance("2s")
    client:expect("timeout: connected to tls://db:1, but TLS has not opened ETIMEDOUT")
    assert.equal(1, app:counters().connect_failures)
    assert.equal(0, app:counters().outgoing)
  end)

  it("refuses more connections at once than limits.outgoing", function()
    backend(echo().agent)
    local app = with_db(function(db, _, self) self.db = db return "ok" end, { limits = { outgoing = 2 } })
    app:connect():send("x"):expect("ok")
    local two = app:connect():send("x"):expect("ok")
    app:connect():send("x"):expect("no: too many connections out (limits.outgoing) EBUSY")
    two:close()
    app:connect():send("x"):expect("ok")
  end)

  describe("limits the calls of an agent of its own", function()
    -- Each call of it is as `proceed` says, where each call of the listener may do as it likes.
    local function limited(options, proceed)
      backend { opened = function() return "speak" end, proceed = function() end }
      local app = net:app { listen = "tcp://127.0.0.1:9000", frame = "line", limits = { proceed = false },
        agent = { opened = function()
          options.frame = "line"
          options.agent = { proceed = proceed, closed = function(_, reason) core.log("info", "closed " .. reason) end }
          assert(core.connect("tcp://db:1", options))
        end, proceed = function(_, line) return line end } }
      local client = app:connect():send("a"):expect("a")
      app:advance "1s"
      client:send("b"):expect("b")
      return app
    end

    it("by timeout.proceed", function()
      local app = limited({ timeout = { proceed = "500ms" } }, function() core.sleep "1h" end)
      assert.equal(1, #app:log "closed proceed_timeout")
    end)

    it("by limits.proceed", function()
      local app = limited({ limits = { proceed = "20ms" } }, function() while true do end end)
      assert.equal(1, #app:log "closed proceed_timeout")
    end)

    it("by limits.allocation", function()
      local app = limited({ limits = { allocation = "1m" } }, function()
        local all = {}
        for i = 1, 1e7 do all[i] = { i } end
        return #all
      end)
      assert.equal(1, #app:log "closed memory")
    end)
  end)

  describe("says what is wrong with", function()
    for what, case in pairs {
      ["an address that is none"] = { { "db:1" }, 'perilune.connect: ' },
      ["no port"] = { { "tcp://db" }, "no port" },
      ["port 0"] = { { "tcp://db:0" }, "expects a host and a port to connect to" },
      ["a framing of udp://"] = { { "udp://db:1", { frame = "line" } }, "frame: each datagram of udp:// is a frame" },
      ["datagrams of others"] = { { "tcp://db:1", { frame = "datagram" } },
        "frame: only a udp:// address has datagrams" },
      ["a datagram that is too large"] = { { "udp://db:1", { frame = { "datagram", max = "64k" } } },
        "a datagram has at most 65507 bytes" },
      ["keep-alive of udp://"] = { { "udp://db:1", { keepalive = "1s" } },
        "keepalive: a udp:// address has no TCP keep-alive" },
      ["TLS for udp://"] = { { "udp://db:1", { tls = {} } }, "only a tls:// address has TLS" },
      ["an unknown option"] = { { "tcp://db:1", { farme = "line" } },
        'unknown option "farme" (did you mean "frame"?)' },
      ["an unknown time-out"] = { { "tcp://db:1", { timeout = { conect = 1 } } },
        'timeout: unknown option "conect" (did you' },
      ["a framing"] = { { "tcp://db:1", { frame = "lien" } }, "frame: " },
      ["a duration"] = { { "tcp://db:1", { timeout = { connect = "soon" } } }, "timeout.connect: " },
      ["an agent"] = { { "tcp://db:1", { agent = {} } }, "agent: " },
      ["TLS for a plain address"] = { { "tcp://db:1", { tls = {} } }, "only a tls:// address has TLS" },
      ["a local address"] = { { "tcp://db:1", { from = "here" } }, "from: expects an address of this machine" },
      ["the limits of an agent that there is not"] = { { "tcp://db:1", { limits = { proceed = "1s" } } },
        "limits.proceed: is for calls of an agent of its own" },
      ["options that are no table"] = { { "tcp://db:1", "line" }, "the options are a table" },
    } do
      it(what, function()
        local app = net:app { listen = "tcp://127.0.0.1:9000", frame = "line", agent = {
          proceed = function() return (select(2, pcall(core.connect, unpack(case[1])))) end } }
        local reply = app:connect():send("x"):receive()
        has("perilune.connect: ", reply)
        has(case[2], reply)
      end)
    end

    it("who asks", function()
      local app = net:app { listen = "tcp://127.0.0.1:9000", frame = "line", agent = {
        closed = function() core.connect("tcp://db:1") end, proceed = function(_, line) return line, "close" end } }
      app:connect():send("x"):expect("x")
      has("perilune.connect: closed() must not", memory.error_of(app))
    end)
  end)

  describe("over TLS", function()
    local pki = require "spec.support.pki"
    local PKI, server, authority

    setup(function()
      PKI = pki.new()
      server = PKI:sign("server", { names = { "db" } })
      authority = PKI.folder .. "/ca.pem"
    end)
    teardown(function() PKI:remove() end)

    local db

    before_each(function() db = nil end)

    local function ask(tls)
      db = db or net:serve("tls://db:1", { frame = "line", tls = server, agent = { proceed = function(self, line)
        return line .. " " .. self.conn.tls.version .. " " .. tostring(self.conn.tls.server_name) end } })
      local app = net:app { listen = "tcp://127.0.0.1:9000", frame = "line", agent = { proceed = function(_, line)
        local out, message, code = core.connect("tls://db:1", { frame = "line", tls = tls })
        if not out then return ("no: %s %s"):format(message, code) end
        out:send(line)
        return out:read() .. " " .. out.tls.version
      end } }
      return app:connect():send("x"):receive()
    end

    it("speaks with who has the right certificate", function()
      assert.equal("x 1.3 db 1.3", ask { authority = authority })
    end)

    it("and with nobody else", function()
      has("no: ", ask {})
      has("EPROTO", ask { authority = authority, server_name = "another.example" })
    end)

    it("unless it is told not to look", function()
      assert.equal("x 1.3 db 1.3", ask { verify = false })
    end)

    it("says which file is wrong", function()
      local app = net:app { listen = "tcp://127.0.0.1:9000", frame = "line", agent = { proceed = function()
        return (select(2, pcall(core.connect, "tls://db:1", { tls = { authority = "/nowhere/ca.pem" } }))) end } }
      has("/nowhere/ca.pem", app:connect():send("x"):receive())
    end)
  end)

  describe("conn:link", function()
    local function linked(how)
      return with_db(function(db, line, self)
        self.conn:link(db, how)
        if line == "end" then db:close() end
        core.sleep(5)
        return "still here"
      end)
    end

    it("ends the one when the other ends, and tells why", function()
      backend { proceed = function(self) self.conn:close() end, opened = function() end }
      local app = linked()
      app:connect():send("end"):expect_closed("link")
    end)

    it("ends the one by a reset, if that is asked for", function()
      backend(echo().agent)
      local app = linked "abort"
      app:connect():send("end"):expect_reset()
    end)

    it("needs another connection", function()
      backend(echo().agent)
      local app = with_db(function(_, _, self) return (select(2, pcall(self.conn.link, self.conn, self.conn))) end)
      app:connect():send("x"):expect(perilune.pattern "another connection expected, got this one$")
    end)
  end)

  -- What is known of an address is made anew for each of these, and is not finished.
  it("keeps nothing of options with which it has raised", function()
    local app = net:app { listen = "tcp://127.0.0.1:9000", frame = "line", agent = { proceed = function()
      local decoders = setmetatable({}, { __mode = "v" })
      for i = 1, 20 do
        local function decode() return i end
        decoders[i] = decode
        local ok, message = pcall(core.connect, "tls://db:1",
          { frame = { decode = decode, encode = tostring }, tls = { authority = "/nowhere/ca.pem" } })
        assert(not ok and message:find("/nowhere/ca.pem", 1, true), message)
      end
      for i = 1, 500 do assert(#(("x"):rep(1e5) .. i) > 0) end -- until the collector has been everywhere
      local count = 0
      for _ in pairs(decoders) do count = count + 1 end
      return tostring(count)
    end } }
    app:connect():send("x"):expect "1" -- the last, which the next one makes room for
  end)

  describe("pipe", function()
    local function proxy()
      return {
        listen = "tcp://127.0.0.1:9000", frame = "line",
        agent = {
          opened = function(self)
            local db, message = core.connect("tcp://db:1")
            if not db then return message, "close" end
            self.conn:pipe(db)
          end,
          proceed = function() error("not reached") end,
          closed = function(_, reason) core.log("info", "closed " .. reason) end,
        },
      }
    end

    it("carries bytes both ways, whatever they are", function()
      net:serve("tcp://db:1", { frame = "raw", agent = { proceed = function(_, bytes) return bytes:upper() end } })
      local app = net:app(proxy())
      local client = memory.raw(app)
      client:send("abc\0d")
      assert.equal("ABC\0D", memory.bytes(client))
    end)

    it("refuses those that are piped already, and leaves them as they are", function()
      net:serve("tcp://db:1", { frame = "raw", agent = { proceed = function(_, bytes) return bytes:upper() end } })
      local app = net:app { listen = "tcp://127.0.0.1:9000", frame = "line", agent = {
        opened = function(self)
          local db, third = assert(core.connect "tcp://db:1"), assert(core.connect "tcp://db:1")
          self.conn:pipe(db)
          for _, pair in ipairs { { self.conn, db }, { db, self.conn }, { third, db }, { self.conn, third } } do
            local ok, message = pcall(pair[1].pipe, unpack(pair))
            assert(not ok and message:find("it is piped already", 1, true), message)
          end
          third:close()
        end,
        proceed = function() error("not reached") end,
      } }
      local client = memory.raw(app)
      client:send("abc")
      assert.equal("ABC", memory.bytes(client))
    end)

    it("passes ends of stream on, and ends when both have", function()
      net:serve("tcp://db:1", { frame = "raw", agent = {
        proceed = function() end, eof = function(self) self.conn:send("bye") self.conn:close() end } })
      local app = net:app(proxy())
      local client = memory.raw(app)
      client:send("abc"):half_close()
      assert.equal("bye", memory.bytes(client))
      client:expect_closed()
      assert.same({ "closed peer" }, memory.noted(app))
    end)

    it("takes no side for idle that is sent something", function()
      net:serve("tcp://db:1", { frame = "raw", timeout = { idle = "1m" }, agent = { opened = function(self)
        core.every("500ms", function() self.conn:send "tick" end)
      end, proceed = function() end } })
      local app = net:app(proxy(), { timeout = { idle = "1s" } })
      local client = memory.raw(app)
      app:advance "20s"
      assert.equal(40 * 4, #memory.bytes(client))
      assert.is_nil(client:closed())
    end)

    it("pauses who sends more than the other takes", function()
      local db = net:serve("tcp://db:1", { frame = "raw", limits = { send_buffer = "64k" },
        agent = { proceed = function(self) for _ = 1, 64 do self.conn:send(("x"):rep(65536)) end end } })
      local app = net:app(proxy(), { limits = { send_buffer = "64k" } })
      local client = memory.raw(app)
      client:stall():send("go")
      assert.equal(0, app:counters().bytes_out)
      assert.is_true(db:counters().bytes_out < 1e6)
      client:unstall()
      assert.equal(64 * 65536, #memory.bytes(client))
    end)
  end)
end)
