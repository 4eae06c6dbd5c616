--- TLS: what handlers and clients are promised over tls://, in memory, however the bytes are cut.
local memory = require "spec.support.memory"
local pki = require "spec.support.pki"

describe("tls", function()
  local PKI, server, other, alice, stranger

  setup(function()
    PKI = pki.new()
    server = PKI:sign("server", { names = { "localhost" } })
    other = PKI:sign("other", { names = { "*.example.org" }, kind = "rsa" })
    alice = PKI:sign("alice", { names = { "alice.example.org" } })
    stranger = PKI:sign("stranger", { by = false })
  end)
  teardown(function() PKI:remove() end)
  after_each(memory.finish)

  -- Says what conn.tls has, and else what it is told.
  local Agent = {}
  Agent.__index = Agent

  function Agent.new(conn)
    local facts = conn.tls
    local peer = facts and facts.peer_certificate
    return setmetatable({ conn = conn, at_birth = peer and peer.subject or "nobody" }, Agent)
  end

  function Agent:proceed(line)
    local facts = self.conn.tls
    if line == "who" then return self.at_birth end
    if line == "fact" then return tostring(facts) end
    return facts and tostring(facts[line:match "^%?(.*)$" or ""] or line) or line
  end

  function Agent:eof() self.conn:send "the end" end

  local function start(tls, settings)
    local all = { listen = "tls://127.0.0.1:0", frame = "line", tls = tls or server, agent = Agent.new }
    for key, value in pairs(settings or {}) do all[key] = value end
    return memory.open(all)
  end

  local function with(more)
    local all = { certificate = server.certificate, key = server.key }
    for key, value in pairs(more) do all[key] = value end
    return all
  end

  local function failure(app) return app:log "TLS failed"[1].error end

  for _, version in ipairs { "1.2", "1.3" } do
    it("speaks " .. version .. " however the bytes are cut", function()
      for _, most in ipairs { 0, 1, 2, 3, 5, 17, 100, 1000 } do
        local app = start()
        local client = app:connect { read_max = most, write_max = most, tls = { version = version } }
        client:send("one", "two", ("x"):rep(40000), "?version")
        client:expect("one", "two", ("x"):rep(40000), version)
        client:half_close():expect "the end"
        client:expect_closed "peer"
      end
    end)
  end

  it("is no TLS on tcp://", function()
    local app = memory.lines(Agent.new)
    app:connect():send("fact"):expect "nil"
  end)

  it("tells what was agreed on", function()
    local app = start(with { alpn = { "chat/2", "chat/1" } })
    local client = app:connect { tls = { server_name = "localhost", alpn = { "chat/1", "chat/2" } } }
    client:send("?server_name", "?alpn", "?resumed", "?cipher")
    client:expect("localhost", "chat/2", "resumed" and "?resumed", client:tls().cipher)
    assert.equal("chat/2", client:tls().alpn)
  end)

  it("refuses who has no protocol in common", function()
    local app = start(with { alpn = { "chat" } })
    local client = app:connect { tls = { alpn = { "mail" } } }
    client:expect_closed "tls"
    assert.matches("no application protocol", select(2, client:tls()))
    app:connect { tls = {} }:send("hello"):expect "hello"
  end)

  it("shows each name its certificate", function()
    local app = start(with { names = { ["*.example.org"] = other, ["exact.example.org"] = alice } })
    local function subject(name) return app:connect { tls = { server_name = name } }:tls().peer_certificate.subject end
    assert.equal("CN=other", subject "chat.example.org")
    assert.equal("CN=other", subject "CHAT.example.ORG")
    assert.equal("CN=alice", subject "exact.example.org")
    assert.equal("CN=server", subject "a.b.example.org")
    assert.equal("CN=server", subject "localhost")
    assert.equal("CN=server", subject(nil))
  end)

  it("has certificates of several kinds for one name", function()
    local app = start { certificate = { server.certificate, other.certificate }, key = { server.key, other.key } }
    app:connect():send("hello"):expect "hello"
  end)

  describe("of clients", function()
    local function try(tls)
      local app = start(with { client = PKI:path "ca.pem" })
      local client = app:connect { tls = tls }
      client:send "who"
      return app, client
    end

    it("takes those that the authority has signed, and the factory knows whose they are", function()
      local _, client = try(alice)
      client:expect "CN=alice"
    end)

    it("refuses others, and says why", function()
      local app, client = try(stranger)
      client:expect_closed "tls"
      assert.matches("self.signed", failure(app))
      app, client = try {}
      client:expect_closed "tls"
      assert.equal("the client has sent no certificate", failure(app))
    end)

    it("only asks, by request", function()
      local app = start(with { client = "request" })
      app:connect { tls = stranger }:send("who"):expect "CN=stranger"
      app:connect():send("who"):expect "nobody"
    end)
  end)

  it("has a version that is the least", function()
    local app = start(with { min = "1.3" })
    app:connect { tls = { version = "1.2" } }:expect_closed "tls"
    assert.equal("the client has no version of TLS that tls.min allows", failure(app))
    app:connect { tls = { version = "1.3" } }:send("?version"):expect "1.3"
  end)

  it("answers who does not speak TLS", function()
    local app = start()
    local client = app:connect { tls = false, frame = "raw" }
    client:send_raw "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
    client:expect_closed "tls"
    assert.matches("^HTTP/1.1 400 Bad Request\r\n.*This port speaks TLS", client:receive())
    client = app:connect { tls = false, frame = "raw" }
    client:send_raw "\0\0\0\5hello"
    client:expect_closed "tls"
    assert.equal("\21\3\3\0\2\2\70", client:receive())
    local told = app:log "TLS failed"
    assert.equal("the client speaks HTTP, without TLS", told[1].error)
    assert.equal("the client does not speak TLS", told[2].error)
  end)

  it("that fails is logged a few times in ten seconds, and then how often", function()
    local app = start()
    for i = 1, 100 do
      app:connect { tls = false, frame = "raw" }:send_raw(i % 2 == 0 and "GET / HTTP/1.1\r\n" or "hello, server\n")
        :expect_closed "tls"
    end
    assert.equal(5, #app:log "TLS failed")
    app:advance "10s"
    local again = app:log "TLS failed again"
    assert.equal(1, #again)
    assert.matches("100", again[1].repeats)
    assert.same({ "warn", "tls://127.0.0.1:0" }, { again[1].level, again[1].listener })
    assert.same({}, app:log "bad frame again")
  end)

  it("gives a handshake its time, and no more", function()
    local app = start(nil, { timeout = { handshake = "2s" } })
    local silent, begun = app:connect { tls = false }, app:connect { tls = false }
    begun:send_raw "\22\3\1"
    app:advance "1999ms"
    assert.is_nil(silent:closed())
    app:advance "1ms"
    silent:expect_closed "tls"
    begun:expect_closed "tls"
    app:connect():send("hello"):expect "hello"
  end)

  it("bounds the handshakes at once, and not the connections", function()
    local app = start(nil, { limits = { handshakes = 2 } })
    local first = app:connect { tls = false }
    local _ = app:connect { tls = false }
    app:connect():expect_closed "limit"
    first:close()
    for _ = 1, 5 do app:connect():send("hello"):expect "hello" end
  end)

  it("counts who is named by a PROXY header before the handshake, and tells of them", function()
    local app = start(nil, { proxy = true, trust = { "10.0.0.1" }, limits = { per_ip = 1 } })
    local HEADER = "PROXY TCP4 203.0.113.7 192.0.2.1 5060 9000\r\n"
    local function begin() return app:connect { tls = false, frame = "raw", proxy = HEADER } end
    local first = begin()
    begin():expect_closed "limit"
    assert.equal("203.0.113.7:5060", app:log "connection refused"[1].peer)
    app:connect { proxy = { client = "198.51.100.1:1" } }:send("hello"):expect "hello"
    first:send_raw("hello"):expect_closed "tls"
    assert.equal("203.0.113.7:5060", app:log "TLS failed"[1].peer)
    begin():close()
    app:connect { proxy = HEADER }:send("hello"):expect "hello"
  end)

  it("is asked of listeners alone that have it", function()
    local app = memory.script [[
      local Agent = {}
      function Agent:proceed(line) return line end
      return { listen = "tcp://127.0.0.1:0", frame = "line", agent = Agent } ]]
    assert.has_error(function() app:connect { tls = {} } end)
  end)

  it("ends with a close_notify when it is drained", function()
    local app = start()
    local client = app:connect()
    client:send("hello"):expect "hello"
    app:drain()
    client:expect_closed "drain"
    assert.is_nil(select(2, client:tls()))
  end)

  it("gives nothing to a handler before it has opened", function()
    local born = 0
    local app = start(nil, {
      agent = function() born = born + 1 return Agent end,
    })
    app:connect { tls = false }:close()
    assert.equal(0, born)
  end)
end)
