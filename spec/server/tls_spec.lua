--- tls://: the handshake, what it settles, how it ends, and what comes of those that do not make one.
local command = require "spec.support.command"
local has = require "spec.support.has"
local pki = require "spec.support.pki"
local server = require "spec.support.server"
local tls_client = require "spec.support.tls_client"

if not tls_client.is_there then
  describe("tls://", function()
    it("is served", function() pending "there is no libssl.so.3 to be a client with" end)
  end)
  return
end

local HEAD = server.NOTE .. [[
  local Agent, worker = {}, nil
  local function facts(tls)
    local peer = tls.peer_certificate
    return table.concat({ tls.version, tls.server_name or "-", tls.alpn or "-", tostring(tls.resumed),
      peer and peer.subject or "-" }, " ")
  end
  function Agent:proceed(line)
    if line == "facts" then return facts(self.conn.tls) end
    if line == "worker" then return tostring(worker) end
    if line == "quit" then return "bye", "close" end
    if line == "shutdown" then self.conn:send("last") self.conn:shutdown() return end
    local n = line:match "^give (%d+)$"
    if n then return ("x"):rep(tonumber(n)) end
    return line
  end
  function Agent:closed(reason) note("closed " .. reason) end ]]

local PKI

-- { certificate = "/tmp/…/server.pem", … } as text. `more` goes before the end.
local function tls_text(name, more)
  return ("{ certificate = %q, key = %q, %s }"):format(PKI:path(name .. ".pem"), PKI:path(name .. ".key"), more or "")
end

-- A server of the agent above. `settings` is more of the listener's tls, `body` more of the agent's.
local function start(settings, options, body)
  options = options or {}
  options.script = ([[%s %s
    return { listen = "tls://127.0.0.1:0", frame = "line", agent = Agent, tls = %s, %s
      setup = function(app) worker = app.worker end }]]):format(HEAD, body or "",
    tls_text(options.name or "server", settings), options.more or "")
  options.args = options.args or { "--log-level=debug" }
  return server.start(options)
end

-- A client that knows the authority.
local function open(app, options)
  options = options or {}
  options.authority = options.authority or PKI:path "ca.pem"
  return tls_client.open(app:connect { listener = options.listener }, options)
end

local function try_open(app, options) return tls_client.try_open(app:connect(), options) end

-- How many connections ended so, in "tls=3 drain=1".
local function count_of(summary, reason)
  return tonumber(((summary.reasons or "") .. " "):match("%f[%w_]" .. reason .. "=(%d+) ")) or 0
end

-- The next end of a connection that came so far as to have an agent or not; n: the n-th of that reason.
local function wait_end(app, reason, n) return app:wait_log({ message = "closed", reason = reason }, nil, n) end

local function failures(app)
  local texts = {}
  for i, entry in ipairs(app:find_log "TLS failed") do texts[i] = entry.error end
  return texts
end

describe("tls://", function()
  setup(function()
    PKI = pki.new()
    PKI:sign("server", { names = { "localhost" } })
    PKI:sign("rsa", { kind = "rsa", names = { "localhost" } })
    PKI:sign("exact", { names = { "a.example.org" } })
    PKI:sign("wild", { names = { "*.example.org" } })
    PKI:sign("alice", { names = { "alice.example.org", "email:alice@example.org", "IP:10.0.0.1" },
      subject = "/O=Example/CN=alice" })
    PKI:authority "others"
    PKI:sign("mallory", { by = "others" })
  end)
  teardown(function() PKI:remove() end)
  after_each(server.finish)

  describe("with a handshake", function()
    for _, version in ipairs { "1.2", "1.3" } do
      it("of " .. version .. " serves as tcp:// does", function()
        local app = start()
        local alice = open(app, { version = version, name = "localhost" })
        assert.equal("TLSv" .. version, alice:version())
        alice:echo_line("facts", version .. " localhost - false -")
        alice:echo_line "hello"
        alice:send "a\nb\nc"
        assert.same({ "a", "b" }, { alice:recv_line(), alice:recv_line() })
        alice:send "\n"
        assert.equal("c", alice:recv_line())
        assert.same({ "bye\n", "closed by notice" }, { alice:send("quit\n"):recv_all() })
        wait_end(app, "agent")
        assert.equal(6, app:stop().summary.frames_in)
      end)

      it("of " .. version .. " carries frames of a megabyte, and a thousand small ones", function()
        local app = start()
        local alice = open(app, { version = version })
        local big = ("0123456789abcde\t"):rep(60000)
        alice:echo_line(big)
        local lines = {}
        for i = 1, 1000 do lines[i] = "line " .. i end
        for _, line in ipairs(lines) do alice:send(line .. "\n") end
        for _, line in ipairs(lines) do assert.equal(line, alice:recv_line()) end
        alice:send(table.concat(lines, "\n") .. "\n")
        for _, line in ipairs(lines) do assert.equal(line, alice:recv_line()) end
      end)

      it("of " .. version .. " may come in single bytes, and so may records", function()
        local app = start()
        local wire = app:connect()
        local send = wire.send
        wire.send = function(self, bytes)
          for i = 1, #bytes do send(self, bytes:sub(i, i)) end
          return self
        end
        tls_client.open(wire, { version = version }):echo_line "hello"
      end)
    end

    it("comes behind a PROXY header, in the same bytes or in others, and the client is whom it names", function()
      local app = start(nil, { more = 'proxy = true, trust = { "127.0.0.1" }, limits = { per_ip = 1 },' },
        "function Agent:opened() note(self.conn.peer) end")
      for port = 1, 5 do
        local wire, send = app:connect(), nil
        local header = ("PROXY TCP4 203.0.113.7 192.0.2.1 %d 9000\r\n"):format(port)
        if port % 2 == 1 then
          wire:send(header)
        else
          send = wire.send
          wire.send = function(self, bytes)
            self.send = nil
            return send(self, header .. bytes)
          end
        end
        local alice = tls_client.open(wire, { authority = PKI:path "ca.pem" }):echo_line "hello"
        app:wait_log { message = "203.0.113.7:" .. port }
        local bob = app:connect():send(header)
        tls_client.try_open(bob, { authority = PKI:path "ca.pem" })
        wait_end(app, "limit", port)
        alice:echo_line "hello"
        alice:close()
        app:wait_log { message = "closed", conn = 2 * port - 1 }
      end
    end)

    it("has bytes that come together with its end served", function()
      local app = start()
      local wire = app:connect()
      local alice = tls_client.begin(wire, { version = "1.3" })
      local held, send = {}, wire.send
      assert.is_truthy((function()
        local flights = 0
        wire.send = function(self, bytes)
          flights = flights + 1
          if flights == 1 then return send(self, bytes) end
          held[#held + 1] = bytes
          return self
        end
        return alice:handshake()
      end)())
      wire.send = send
      wire:send(table.concat(held) .. alice:record "hello\n")
      assert.equal("hello", alice:recv_line())
    end)

    it("has a cipher, which the agent is told of", function()
      local app = start([[ciphers = "ECDHE-ECDSA-AES128-GCM-SHA256:TLS_CHACHA20_POLY1305_SHA256"]], nil, [[
        function Agent:opened() note("cipher " .. self.conn.tls.cipher) end]])
      assert.equal("ECDHE-ECDSA-AES128-GCM-SHA256", open(app, { version = "1.2" }):cipher())
      assert.equal("TLS_CHACHA20_POLY1305_SHA256", open(app, { version = "1.3" }):cipher())
      app:wait_log "cipher ECDHE-ECDSA-AES128-GCM-SHA256"
      app:wait_log "cipher TLS_CHACHA20_POLY1305_SHA256"
      local _, why = try_open(app, { version = "1.2", ciphers = "ECDHE-ECDSA-AES256-GCM-SHA384" })
      has("handshake failure", why)
      assert.equal("the client has no cipher in common with this server", app:wait_log("TLS failed").error)
    end)

    it("refuses versions below tls.min", function()
      local app = start [[min = "1.3"]]
      local _, why = try_open(app, { version = "1.2" })
      has("protocol version", why)
      assert.equal("the client has no version of TLS that tls.min allows", app:wait_log("TLS failed").error)
      wait_end(app, "tls")
      open(app, { version = "1.3" }):echo_line "hello"
    end)

    it("is not there for plain listeners, whose conn.tls is nil", function()
      local app = server.start { script = ([[%s
        function Agent:opened() note(tostring(self.conn.tls)) end
        return { listen = { "tcp://127.0.0.1:0", { "tls://127.0.0.1:0", tls = %s } }, frame = "line", agent = Agent }]])
        :format(HEAD, tls_text "server") }
      app:connect():echo_line "hello"
      app:wait_log "nil"
      open(app, { listener = 2 }):echo_line "hello"
    end)

    it("is known to the end, and no longer", function()
      local app = start(nil, nil, [[
        local last
        function Agent:closed()
          note("at the end " .. tostring(self.conn.tls and self.conn.tls.version))
          last = self.conn
        end
        function Agent:opened() note("then " .. tostring(last and last.tls)) end]])
      open(app):echo_line("hello"):notify():close()
      app:wait_log "at the end 1.3"
      open(app):echo_line "hello"
      assert.equal(2, #app:find_log "then nil")
    end)
  end)

  describe("for a name", function()
    local NAMES

    setup(function()
      NAMES = ([[names = { ["A.example.org"] = %s, ["*.example.org"] = %s }]]):format(tls_text "exact", tls_text "wild")
    end)

    for name, subject in pairs {
      ["a.example.org"] = "/CN=exact", ["A.EXAMPLE.ORG"] = "/CN=exact", ["b.example.org"] = "/CN=wild",
      ["x.b.example.org"] = "/CN=server", ["example.org"] = "/CN=server", [".example.org"] = "/CN=server",
      ["else.net"] = "/CN=server",
    } do
      it(name .. " shows the certificate of " .. subject, function()
        local app = start(NAMES)
        for _, version in ipairs { "1.2", "1.3" } do
          local alice = open(app, { name = name, version = version })
          assert.equal(subject, (alice:certificate()))
          alice:echo_line("facts", version .. " " .. name .. " - false -")
        end
      end)
    end

    it("that nobody asks for shows the first", function()
      local app = start(NAMES)
      assert.equal("/CN=server", (open(app):certificate()))
    end)

    it("shows the certificate whose kind of key the client can take", function()
      local app = server.start { script = ([[%s
        return { listen = "tls://127.0.0.1:0", frame = "line", agent = Agent,
          tls = { certificate = { %q, %q }, key = { %q, %q } } }]]):format(HEAD, PKI:path "server.pem",
        PKI:path "rsa.pem", PKI:path "server.key", PKI:path "rsa.key") }
      for kind, ciphers in pairs { rsa = "ECDHE-RSA-AES128-GCM-SHA256", ec = "ECDHE-ECDSA-AES128-GCM-SHA256" } do
        local alice = open(app, { version = "1.2", ciphers = ciphers })
        assert.equal(kind, select(2, alice:certificate()))
        alice:echo_line "hello"
      end
    end)

    it("staples the response of its own certificate to who asks for it", function()
      PKI:respond "server"
      PKI:respond "exact"
      local function response(name) return command.read(PKI:path(name .. ".der")) end
      local app = start(([[ocsp = %q, names = { ["a.example.org"] = { certificate = %q, key = %q, ocsp = %q },
        ["b.example.org"] = %s }]]):format(PKI:path "server.der", PKI:path "exact.pem", PKI:path "exact.key",
        PKI:path "exact.der", tls_text "wild"))
      assert.equal(response "server", open(app, { status = true }):status())
      assert.equal(response "exact", open(app, { status = true, name = "a.example.org" }):status())
      assert.is_nil(open(app, { status = true, name = "b.example.org" }):status())
      assert.is_nil(open(app):status())
    end)
  end)

  describe("asks clients for certificates:", function()
    local function client_of(name) return { certificate = PKI:path(name .. ".pem"), key = PKI:path(name .. ".key") } end

    local function with_version(name, version)
      local options = name and client_of(name) or {}
      options.version = version
      return options
    end

    -- The first that is not in the handshake of a client of 1.3 is how that has ended.
    local function how_it_ends(app, options)
      local alice, why = try_open(app, options)
      if not alice then return why end
      return select(2, alice:recv_all())
    end

    for _, version in ipairs { "1.2", "1.3" } do
      it("one that the authority has signed is let in, with " .. version, function()
        local app = start(("client = %q"):format(PKI:path "ca.pem"))
        open(app, with_version("alice", version)):echo_line("facts", version .. " - - false CN=alice,O=Example")
      end)

      it("none is refused, with " .. version, function()
        local app = start(("client = %q"):format(PKI:path "ca.pem"))
        has(version == "1.3" and "certificate required" or "handshake failure",
          how_it_ends(app, with_version(nil, version)))
        assert.equal("the client has sent no certificate", app:wait_log("TLS failed").error)
        assert.equal(1, count_of(app:stop().summary, "tls"))
      end)

      it("one of another authority is refused, with " .. version, function()
        local app = start(("client = %q"):format(PKI:path "ca.pem"))
        has("unknown ca", how_it_ends(app, with_version("mallory", version)))
        has("certificate", app:wait_log("TLS failed").error)
        assert.equal(1, count_of(app:stop().summary, "tls"))
      end)

      it("with \"request\" anybody's is taken, and the agent told whose, with " .. version, function()
        local app = start([[client = "request"]], nil, [[
          function Agent:opened()
            local peer = self.conn.tls.peer_certificate
            note("peer " .. (peer and peer.subject .. " " .. tostring(peer.verified) or "none"))
          end]])
        open(app, with_version("mallory", version)):echo_line "hello"
        app:wait_log "peer CN=mallory false"
        open(app, with_version(nil, version)):echo_line "hello"
        app:wait_log "peer none"
      end)
    end

    it("not unless it is told to", function()
      local app = start()
      open(app, client_of "alice"):echo_line("facts", "1.3 - - false -")
    end)

    it("all that is in one is told", function()
      local app = start(("client = %q"):format(PKI:path "ca.pem"), nil, [[
        function Agent:opened()
          local peer = self.conn.tls.peer_certificate
          note(table.concat({ peer.subject, peer.issuer, table.concat(peer.names, " "), peer.serial, peer.fingerprint,
            tostring(peer.verified), os.date("!%Y%m%d%H%M%S", peer.not_before), peer.not_after - peer.not_before },
            "|"))
        end]])
      local said = PKI:shell [[
        openssl x509 -in alice.pem -noout -serial -fingerprint -sha256]]
      local serial, fingerprint = said:match "serial=(%x+)", said:match "Fingerprint=([%x:]+)"
      local start_date = PKI:shell [[
        date -u -d "$(openssl x509 -in alice.pem -noout -startdate | cut -d= -f2)" +%Y%m%d%H%M%S]]
      open(app, client_of "alice"):echo_line "hello"
      app:wait_log(table.concat({ "CN=alice,O=Example", "CN=ca", "alice.example.org", serial:lower(),
        fingerprint:gsub(":", ""):lower(), "true", start_date:match "%d+", 30 * 86400 }, "|"))
    end)
  end)

  describe("with alpn", function()
    it("chooses by the server's order", function()
      local app = start [[alpn = { "second", "first" }]]
      local alice = open(app, { alpn = { "first", "other", "second" } })
      assert.equal("second", alice:alpn())
      alice:echo_line("facts", "1.3 - second false -")
    end)

    it("refuses who offers only others, and takes who offers none", function()
      local app = start [[alpn = { "h2" }]]
      for _, version in ipairs { "1.2", "1.3" } do
        local _, why = try_open(app, { alpn = { "h3", "http/1.1" }, version = version })
        has("no application protocol", why)
      end
      app:wait_log("TLS failed", nil, 2)
      wait_end(app, "tls", 2)
      open(app):echo_line("facts", "1.3 - - false -")
    end)

    it("is nothing to who has none", function()
      local app = start()
      assert.is_nil(open(app, { alpn = { "h2" } }):alpn())
    end)
  end)

  describe("resumes a session", function()
    for _, version in ipairs { "1.2", "1.3" } do
      it("of " .. version .. " in all workers", function()
        local app = start(nil, { workers = 2 })
        local session = open(app, { version = version }):echo_line("facts", version .. " - - false -"):session()
        local workers, n = {}, 0
        for _ = 1, 8 do
          local alice = open(app, { version = version, session = session })
          assert.is_true(alice:is_resumed())
          alice:echo_line("facts", version .. " - - true -")
          local number = alice:send("worker\n"):recv_line()
          n = n + (workers[number] and 0 or 1)
          workers[number] = true
        end
        assert.equal(2, n)
      end)

      it("of " .. version .. ", but not where clients show certificates, which may have ended since", function()
        local app = start(("client = %q"):format(PKI:path "ca.pem"))
        local options = { version = version, certificate = PKI:path "alice.pem", key = PKI:path "alice.key" }
        local session = open(app, options):echo_line("facts", version .. " - - false CN=alice,O=Example"):session()
        options.session = session
        open(app, options):echo_line("facts", version .. " - - false CN=alice,O=Example")
      end)

      it("of " .. version .. ", but not where clients need a certificate and it has none", function()
        local app = server.start { args = { "--log-level=debug" }, script = ([[%s
          return { frame = "line", agent = Agent, listen = {
            { "tls://127.0.0.1:0", tls = %s }, { "tls://127.0.0.1:0", tls = %s },
            { "tls://127.0.0.1:0", tls = %s } } }]])
          :format(HEAD, tls_text "server", tls_text("server", ("client = %q"):format(PKI:path "ca.pem")),
          tls_text("server", [[client = "request"]])) }
        local session = open(app, { version = version }):echo_line("hello"):session()
        local other = open(app, { version = version, listener = 3, certificate = PKI:path "mallory.pem",
          key = PKI:path "mallory.key" }):echo_line("hello"):session()
        for _, one in ipairs { session, other } do
          local alice, why = tls_client.try_open(app:connect { listener = 2 }, { version = version, session = one })
          if alice then why = select(2, alice:recv_all()) end
          assert.is_true(why:find "certificate required" ~= nil or why:find "handshake failure" ~= nil, why)
        end
        wait_end(app, "tls", 2)
      end)
    end

    it("after a reload", function()
      local app = start()
      local session = open(app):echo_line("hello"):session()
      app:signal "HUP"
      app:wait_log "reload: nothing has changed"
      assert.is_true(open(app, { session = session }):echo_line("hello"):is_resumed())
    end)
  end)

  describe("has ends:", function()
    it("a close_notify is the end of the peer's side", function()
      local app = start()
      local alice = open(app):echo_line "hello"
      alice:notify()
      assert.same({ "", "closed by notice" }, { alice:recv_all() })
      app:wait_log "closed peer"
    end)

    it("the network's alone is none: the stream was cut", function()
      local app = start(nil, nil, [[function Agent:eof() note "eof" return true end]])
      local alice = open(app):echo_line "hello"
      alice.wire:shutdown "send"
      app:wait_log "closed reset"
      assert.same({}, app:find_log "eof")
    end)

    it("what was sent before a cut is served", function()
      local app = start(nil, nil, [[
        function Agent:proceed(line) note("got " .. line) end]])
      local alice = open(app)
      alice:send "one\ntwo\nhalf"
      alice.wire:shutdown "send"
      app:wait_log "closed reset"
      assert.same({ 1, 1, 0 }, { #app:find_log "got one", #app:find_log "got two", #app:find_log "got half" })
    end)

    it("a reset", function()
      local app = start()
      open(app):echo_line("hello"):reset()
      app:wait_log "closed reset"
    end)

    for _, version in ipairs { "1.2", "1.3" } do
      it("an agent with eof() sends on after the peer's close_notify, with " .. version, function()
        local app = start(nil, nil, [[
          function Agent:eof()
            self.conn:send "more"
            perilune.sleep "1ms"
            self.conn:send(("x"):rep(300000))
            return "last", "close"
          end]])
        local alice = open(app, { version = version }):echo_line "hello"
        alice:notify()
        local bytes, how = alice:recv_all()
        assert.same({ "more\n" .. ("x"):rep(300000) .. "\nlast\n", "closed by notice" }, { bytes, how })
        app:wait_log "closed agent"
      end)

      it("after conn:shutdown() the peer may send on, with " .. version, function()
        local app = start(nil, nil, [[
          local proceed = Agent.proceed
          function Agent:proceed(line) note("got " .. line) return proceed(self, line) end]])
        local alice = open(app, { version = version })
        assert.same({ "last\n", "closed by notice" }, { alice:send("shutdown\n"):recv_all() })
        alice:send "after\n"
        app:wait_log "got after"
        alice:notify()
        app:wait_log "closed peer"
      end)
    end

    it("abort() ends without one", function()
      local app = start(nil, nil, [[function Agent:proceed() self.conn:abort() end]])
      assert.same({ "", "reset" }, { open(app):send("hello\n"):recv_all() })
    end)

    it("a record that was changed on its way, with an alert", function()
      local app = start()
      local alice, neighbour = open(app):echo_line "hello", open(app)
      local record = alice:record "hello\n"
      alice.wire:send(record:sub(1, -2) .. string.char((record:byte(-1) + 1) % 256))
      local _, how = alice:recv_all()
      has("bad record mac", how)
      app:wait_log "closed tls"
      neighbour:echo_line "hello"
    end)

    it("what is no record", function()
      local app = start()
      local alice = open(app):echo_line "hello"
      alice.wire:send "hello, is there nobody who knows me?\n"
      app:wait_log "closed tls"
    end)

    it("renegotiation is refused", function()
      local app = start()
      local alice, neighbour = open(app, { version = "1.2" }):echo_line "hello", open(app)
      local ok, why = alice:renegotiate()
      assert.is_nil(ok)
      has("no renegotiation", why)
      alice:close()
      neighbour:echo_line "hello"
    end)
  end)

  describe("without a handshake", function()
    local ALERT = "\21\3\3\0\2\2\70"

    it("tells HTTP in its own words", function()
      local app = start()
      for _, line in ipairs { "GET / HTTP/1.1", "POST /x HTTP/1.0", "CONNECT a:1 HTTP/1.1" } do
        local wire = app:connect():send(line .. "\r\nHost: a\r\n\r\n")
        local text, how = wire:recv_all()
        assert.equal("closed", how)
        assert.equal("HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: 45\r\n" ..
          "Connection: close\r\n\r\nThis port speaks TLS: use https:// or tls://\n", text)
      end
      app:wait_log("TLS failed", nil, 3)
      assert.same({ "the client speaks HTTP, without TLS", "the client speaks HTTP, without TLS",
        "the client speaks HTTP, without TLS" }, failures(app))
    end)

    for what, bytes in pairs {
      ["a line"] = "hello, server\n", ["a frame behind its length"] = "\0\0\0\5hello", zeros = ("\0"):rep(100),
      ones = ("\255"):rep(100), ["a long one"] = ("hello "):rep(5000), ["SSH"] = "SSH-2.0-OpenSSH_9.2p1\r\n",
    } do
      it("answers " .. what .. " with an alert", function()
        local app = start()
        local got, how = app:connect():send(bytes):recv_all()
        assert.same({ ALERT, "closed" }, { got, how })
        wait_end(app, "tls")
        assert.same({ "the client does not speak TLS" }, failures(app))
        open(app):echo_line "hello"
      end)
    end

    it("names who it was", function()
      local app = start()
      local wire = app:connect()
      wire:send("hello, server\n"):recv_all()
      local entry = app:wait_log "TLS failed"
      assert.same({ "warn", "127.0.0.1:" .. wire.port, "tls://127.0.0.1:0", 0, 1 },
        { entry.level, entry.peer, entry.listener, entry.worker, entry.generation })
    end)

    it("makes no agent", function()
      local app = start(nil, nil, [[function Agent:opened() note "opened" end]])
      app:connect():send("hello, server\n"):recv_all()
      app:connect():close()
      wait_end(app, "tls", 2)
      assert.same({ 0, 0 }, { #app:find_log "opened", #app:find_log "closed tls" })
    end)

    it("fills no log", function()
      local app = start()
      for _ = 1, 20 do app:connect():send("hello, server\n"):recv_all() end
      wait_end(app, "tls", 20)
      local n = #app:find_log "TLS failed"
      assert.is_true(n >= 5 and n < 20, n)
    end)

    -- Those that stop in the midst of their hello, and those whose hello has a wrong byte.
    local HELLO = tls_client.hello { name = "localhost", alpn = { "h2" } }

    it("ends who leaves after each byte of it, and serves its neighbours", function()
      local app = start()
      local neighbour = open(app)
      for n = 0, #HELLO do
        app:connect():send(HELLO:sub(1, n)):shutdown("send")
        if n % 50 == 0 then neighbour:echo_line "hello" end
      end
      wait_end(app, "tls", #HELLO + 1)
      neighbour:echo_line "hello"
      assert.equal(#HELLO + 1, count_of(app:stop().summary, "tls"))
    end)

    it("ends who stays after each byte of it, at timeout.handshake, and serves its neighbours", function()
      local app = server.start { args = { "--log-level=debug" }, script = ([[%s
        return { frame = "line", agent = Agent, tls = %s, listen = { "tls://127.0.0.1:0",
          { "tls://127.0.0.1:0", timeout = { handshake = "200ms" } } } }]]):format(HEAD, tls_text "server") }
      local neighbour = open(app)
      local wires = {}
      for n = 0, #HELLO do wires[n] = app:connect({ listener = 2 }):send(HELLO:sub(1, n)) end
      for n = 0, #HELLO do
        wires[n]:recv_all()
        if n % 50 == 0 then neighbour:echo_line "hello" end
      end
      local summary = app:stop().summary
      assert.equal(#HELLO + 1, count_of(summary, "tls"))
      assert.equal(1, count_of(summary, "drain"))
    end)

    it("ends who has a wrong byte anywhere in it, and serves its neighbours", function()
      local app = start()
      local neighbour = open(app)
      for n = 1, #HELLO do
        local wire = app:connect():send(HELLO:sub(1, n - 1) .. string.char(255 - HELLO:byte(n)) .. HELLO:sub(n + 1))
        wire:shutdown "send"
        if n % 50 == 0 then neighbour:echo_line "hello" end
      end
      wait_end(app, "tls", #HELLO)
      neighbour:echo_line "hello"
      assert.equal(#HELLO, count_of(app:stop().summary, "tls"))
    end)
  end)

  describe("limits.handshakes", function()
    it("ends those that are too many, and lets others in once one is through", function()
      local app = start(nil, { more = "limits = { handshakes = 2 }," })
      local first, second = app:connect(), app:connect()
      assert.equal("", (app:connect():recv_all()))
      wait_end(app, "limit")
      local alice = tls_client.open(first):echo_line "hello"
      local bob = open(app):echo_line "hello"
      second:close()
      wait_end(app, "tls")
      alice:echo_line "hello"
      bob:echo_line "hello"
      for _ = 1, 5 do open(app):echo_line "hello" end
      assert.equal(1, count_of(app:stop().summary, "limit"))
    end)

    it("counts those alone that are in a handshake, however it ends", function()
      local app = start(nil, { more = "limits = { handshakes = 1 }," })
      for _ = 1, 10 do
        app:connect():send("hello, server\n"):recv_all()
        open(app):echo_line "hello"
      end
      assert.equal(0, count_of(app:stop().summary, "limit"))
    end)
  end)

  describe("at a stop", function()
    it("drains connections as others, with a close_notify", function()
      local app = start()
      local alice = open(app):echo_line "hello"
      app:signal "TERM"
      assert.same({ "", "closed by notice" }, { alice:recv_all() })
      local result = app:wait_end()
      assert.same({ 0, 1 }, { result.code, count_of(result.summary, "drain") })
    end)

    it("serves what had come, and who waits goes on", function()
      local app = start(nil, nil, [[
        function Agent:proceed(line)
          note("got " .. line)
          if line == "wait" then return (self.conn:read()) end
          return line
        end
        function Agent:drain() return true end]])
      local alice = open(app):send "wait\n"
      app:wait_log "got wait"
      app:signal "TERM"
      app:wait_log "draining"
      alice:echo_line "more"
      alice:notify()
      assert.equal(0, app:wait_end().code)
    end)

    it("does not wait for handshakes that do not go on", function()
      local app = start(nil, { more = "timeout = { handshake = '19d', drain = '19d' }," })
      local wire = app:connect():send "\22\3\1"
      open(app):echo_line "hello"
      app:signal "TERM"
      wire:recv_all()
      assert.equal(0, app:wait_end().code)
    end)
  end)

  describe("at an upgrade", function()
    it("serves on at the same port, and who is there goes on", function()
      local app = start()
      local alice = open(app):echo_line "hello"
      local successor = app:upgrade()
      tls_client.open(successor:connect(), { authority = PKI:path "ca.pem" }):echo_line "hello"
      alice:echo_line("hello"):notify()
      assert.same({ "", "closed by notice" }, { alice:recv_all() })
      alice:close()
      assert.equal(0, app:wait_end().code)
    end)

    it("resumes sessions of before", function()
      local app = start()
      local alice = open(app):echo_line "hello"
      local session = alice:session()
      alice:close()
      local successor = app:upgrade()
      local again = tls_client.open(successor:connect(), { authority = PKI:path "ca.pem", session = session })
      assert.is_true(again:echo_line("hello"):is_resumed())
    end)
  end)
end)
