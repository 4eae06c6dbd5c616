--- Clients of tls:// that we did not write.
local command = require "spec.support.command"
local has = require "spec.support.has"
local pki = require "spec.support.pki"
local server = require "spec.support.server"

local PKI

local AGENT = server.NOTE .. [[local Agent = {}
  function Agent:proceed(line)
    if line == "facts" then
      local tls = self.conn.tls
      local peer = tls.peer_certificate
      return table.concat({ tls.version, tls.server_name or "-", tls.alpn or "-", tostring(tls.resumed),
        peer and peer.subject or "-" }, " ")
    end
    if line == "quit" then return "bye", "close" end
    return line
  end
  function Agent:closed(reason) note("closed " .. reason) end ]]

-- `tls` is more of the setting of that name, `body` more of the agent's.
local function start(tls, body, frame)
  return server.start { args = { "--log-level=debug" }, folder = PKI.folder, script = ([[%s %s
    return { listen = "tls://127.0.0.1:0", frame = %q, agent = Agent,
      tls = { certificate = "server.pem", key = "server.key", %s } }]]):format(AGENT, body or "", frame or "line",
    tls or "") }
end

local needs = command.needs

-- What a command of the shell writes to standard output, with {port} filled in, in the folder of the certificates;
-- what it says beside goes to the file "said".
local function run(app, line)
  return command.shell(("cd '%s' && (%s) 2>said"):format(PKI.folder, (line:gsub("{port}", app.port))))
end

local function said() return command.read(PKI:path "said") end

-- Until the server hangs up.
local S_CLIENT = "timeout 60 openssl s_client -quiet -verify_quiet -verify_return_error -CAfile ca.pem " ..
  "-verify_hostname localhost -connect 127.0.0.1:{port} "

-- The same with what it has found out, before it has read the end of its input.
local S_CLIENT_TELLS = "timeout 60 openssl s_client -CAfile ca.pem -connect 127.0.0.1:{port} "

local PYTHON_HEAD = [[
import socket, ssl, sys, select
context = ssl.create_default_context(cafile="ca.pem")
def connect():
    plain = socket.create_connection(("127.0.0.1", int(sys.argv[1])), 60)
    return context.wrap_socket(plain, server_hostname="localhost", suppress_ragged_eofs=False)
]]

local function python(app, name, text)
  needs "python3"
  command.write(PKI:path(name), PYTHON_HEAD .. text)
  local out = run(app, ("timeout 60 python3 %s {port}"):format(name))
  return out ~= "" and out or said()
end

-- What comes is said as it comes, and the end; an error by its code.
local NODE_HEAD = [[
const tls = require("tls"), fs = require("fs")
const base = { host: "127.0.0.1", port: Number(process.argv[2]), servername: "localhost",
  ca: fs.readFileSync("ca.pem") }
const connect = more => {
  const socket = tls.connect({ ...base, ...more })
  socket.got = ""
  socket.setEncoding("latin1")
  socket.on("data", text => { socket.got += text })
  socket.on("error", error => console.log(error.code))
  return socket
}
const event = (socket, name) => new Promise(done => socket.once(name, done))
const has = async (socket, text) => { while (!socket.got.includes(text)) await event(socket, "data") }
]]

local function node(app, name, text)
  needs "node"
  command.write(PKI:path(name), ("%s(async () => {\n%s})()\n"):format(NODE_HEAD, text))
  local out = run(app, ("timeout 60 node %s {port}"):format(name))
  return out ~= "" and out or said()
end

describe("tls://, and a client that is", function()
  setup(function()
    PKI = pki.new()
    PKI:sign("server", { names = { "localhost" } })
    PKI:sign("wild", { names = { "*.example.org" } })
    PKI:sign("alice", { subject = "/O=Example/CN=alice" })
    PKI:authority "others"
    PKI:sign("mallory", { by = "others" })
  end)
  teardown(function() PKI:remove() end)
  after_each(server.finish)

  describe("openssl s_client:", function()
    for version, flag in pairs { ["1.2"] = "-tls1_2", ["1.3"] = "-tls1_3" } do
      it("lines with " .. version, function()
        local app = start()
        assert.equal(version .. " localhost - false -\nhello\nbye\n",
          run(app, [[printf "facts\nhello\nquit\n" | ]] .. S_CLIENT .. flag .. " -servername localhost"))
        app:wait_log "closed agent"
      end)

      it("a certificate, with " .. version, function()
        local app = start [[client = "ca.pem"]]
        assert.equal(version .. " - - false CN=alice,O=Example\nbye\n",
          run(app, [[printf "facts\nquit\n" | ]] .. S_CLIENT .. flag .. " -cert alice.pem -key alice.key"))
        assert.equal("", run(app, [[printf "facts\nquit\n" | ]] .. S_CLIENT .. flag))
        has("alert", said())
        assert.equal("", run(app, [[printf "facts\nquit\n" | ]] .. S_CLIENT .. flag ..
          " -cert mallory.pem -key mallory.key"))
        has("unknown ca", said())
        app:wait_log({ message = "closed", reason = "tls" }, nil, 2)
      end)
    end

    it("a session of before", function()
      local app = start()
      for version, flag in pairs { ["1.2"] = "-tls1_2 ", ["1.3"] = "-tls1_3 " } do
        local line = S_CLIENT .. flag .. "-servername localhost "
        assert.equal("hello\nbye\n", run(app, [[printf "hello\nquit\n" | ]] .. line .. "-sess_out session"))
        assert.equal(version .. " localhost - true -\nbye\n",
          run(app, [[printf "facts\nquit\n" | ]] .. line .. "-sess_in session"))
      end
    end)

    it("names, protocols and a stapled response", function()
      PKI:respond "server"
      local app = start([[alpn = { "h2", "echo" }, ocsp = "server.der",
        names = { ["*.example.org"] = { certificate = "wild.pem", key = "wild.key" } }]])
      local out = run(app, S_CLIENT_TELLS .. "-alpn echo,h2 -servername a.example.org </dev/null")
      has("ALPN protocol: h2", out)
      assert.matches("subject=CN ?= ?wild", out)
      out = run(app, S_CLIENT_TELLS .. "-status -alpn echo -servername localhost </dev/null")
      has("ALPN protocol: echo", out)
      has("OCSP Response Status: successful", out)
      assert.matches("subject=CN ?= ?server", out)
      run(app, S_CLIENT_TELLS .. "-alpn other </dev/null")
      has("no application protocol", said())
    end)

    it("a version that is too old", function()
      local app = start [[min = "1.3"]]
      assert.equal("", run(app, [[echo hello | ]] .. S_CLIENT .. "-tls1_2"))
      has("protocol version", said())
      assert.equal("bye\n", run(app, [[echo quit | ]] .. S_CLIENT))
    end)

    it("that wants to renegotiate, which ends with its own refusal", function()
      local app = start()
      -- Its input stays open, and has no more than that.
      run(app, "mkfifo input; exec 3<>input; echo R >&3; " .. S_CLIENT_TELLS .. "-tls1_2 <&3; true")
      has("RENEGOTIATING", said())
      has("no renegotiation", said())
      assert.equal("bye\n", run(app, [[echo quit | ]] .. S_CLIENT))
    end)
  end)

  describe("Python:", function()
    it("ends by close_notify, in both directions", function()
      local app = start()
      assert.equal("b'hello\\n'\nb'bye\\n' b''\nb'hello\\n'\n", python(app, "notice.py", [[
one = connect()
one.sendall(b"hello\n")
print(one.recv(100))
one.sendall(b"quit\n")
f = one.makefile("rb")
print(f.readline(), f.read())    # raises where there is no close_notify
two = connect()
two.sendall(b"hello\n")
print(two.recv(100))
two.unwrap()
]]))
      app:wait_log "closed peer"
    end)

    it("that goes without one has reset", function()
      local app = start()
      assert.equal("b'hello\\n'\n", python(app, "cut.py", [[
one = connect()
one.sendall(b"hello\n")
print(one.recv(100))
one.close()
]]))
      app:wait_log "closed reset"
    end)

    it("may read on once it has ended its side", function()
      local app = start(nil, [[
        function Agent:eof() return { "first", ("x"):rep(100000), "last" }, "close" end]])
      assert.equal("100012\n", python(app, "half.py", [[
incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
plain = socket.create_connection(("127.0.0.1", int(sys.argv[1])), 60)
tls = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
def step(call):
    while True:
        try:
            return call()
        except ssl.SSLWantReadError:
            plain.sendall(outgoing.read())
            data = plain.recv(65536)
            if not data:
                incoming.write_eof()
            incoming.write(data)
step(tls.do_handshake)
try:
    tls.unwrap()                 # the close_notify; that of the server is yet to come
except ssl.SSLWantReadError:
    pass
plain.sendall(outgoing.read())
got = 0
while True:
    try:
        data = step(lambda: tls.read(65536))
    except ssl.SSLZeroReturnError:
        break
    if not data:
        break
    got += len(data)
print(got)
]]))
    end)

    it("sends 5 MB of raw bytes and gets them back, and then 20,000 single bytes", function()
      local app = start(nil, nil, "raw")
      assert.equal("True\nTrue\n", python(app, "large.py", [[
one = connect()
one.setblocking(False)           # a connection is not to be used by two threads at once
def attempt(call, *arguments):
    try:
        return call(*arguments)
    except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
        return None
def echo(pieces, whole):
    pieces, left, got = iter(pieces), b"", bytearray()
    while len(got) < len(whole):
        left = left or memoryview(next(pieces, b""))
        sent = attempt(one.send, left) if left else None
        left = left[sent or 0:]
        come = attempt(one.recv, 65536)
        if come == b"":
            break
        got += come or b""
        if not sent and not come:
            select.select([one], [one] if left else [], [], 60)
    print(got == whole)
whole = bytes(i * 7 % 251 for i in range(5000000))
echo([whole], whole)
echo([whole[i:i + 1] for i in range(20000)], whole[:20000])
]]))
    end)
  end)

  describe("Node:", function()
    it("lines, a name and a protocol, in both versions", function()
      local app = start [[alpn = { "other", "echo" }]]
      assert.equal("1.2 localhost echo false -\nbye\ntrue echo false\n"
        .. "1.3 localhost echo false -\nbye\ntrue echo false\n",
        node(app, "lines.js", [[
for (const version of ["TLSv1.2", "TLSv1.3"]) {
  const socket = connect({ minVersion: version, maxVersion: version, ALPNProtocols: ["echo"] })
  socket.write("facts\nquit\n")
  const failed = await event(socket, "close")
  console.log(socket.got + [socket.authorized, socket.alpnProtocol, failed].join(" "))
}
]]))
      app:wait_log("closed agent", nil, 2)
    end)

    it("a session of before", function()
      local app = start()
      for _, version in ipairs { "1.2", "1.3" } do
        assert.equal(version .. " localhost - true -\n", node(app, "again.js", ([[
const versions = { minVersion: "TLSvVERSION", maxVersion: "TLSvVERSION" }
const one = connect(versions)
one.write("facts\n")
const session = await event(one, "session")
one.destroy()
const two = connect({ ...versions, session })
two.write("facts\n")
await has(two, "\n")
process.stdout.write(two.got)
two.destroy()
]]):gsub("VERSION", version)))
      end
    end)

    it("a certificate, and none", function()
      local app = start [[client = "ca.pem"]]
      assert.equal("1.3 localhost - false CN=alice,O=Example\n\nERR_SSL_TLSV13_ALERT_CERTIFICATE_REQUIRED\n",
        node(app, "certificate.js", [[
const alice = connect({ cert: fs.readFileSync("alice.pem"), key: fs.readFileSync("alice.key") })
alice.write("facts\n")
await has(alice, "\n")
console.log(alice.got)
alice.end()
await event(connect(), "close")
]]))
    end)

    it("whose end is its own: a close_notify, after which it reads on, or a reset", function()
      local app = start(nil, [[
        function Agent:eof() return { "first", ("x"):rep(100000), "last" }, "close" end]])
      assert.equal("100012 false\n", node(app, "ends.js", [[
const one = connect({ allowHalfOpen: true })
await event(one, "secureConnect")
one.end()
const failed = await event(one, "close")
console.log(one.got.length, failed)
const two = connect()
two.write("hello\n")
await has(two, "hello")
two.resetAndDestroy()
]]))
      app:wait_log "closed agent"
      app:wait_log "closed reset"
    end)

    it("sends 5 MB of raw bytes and gets them back", function()
      local app = start(nil, nil, "raw")
      assert.equal("true\n", node(app, "large.js", [[
const whole = Buffer.alloc(5000000)
for (let i = 0; i < whole.length; i++) whole[i] = i * 7 % 251
const one = tls.connect(base), pieces = []
one.on("data", bytes => { pieces.push(bytes); if ((left -= bytes.length) === 0) one.end() })
let left = whole.length
one.write(whole)
await event(one, "close")
console.log(Buffer.concat(pieces).equals(whole))
]]))
    end)

    it("that does not trust the authority leaves", function()
      local app = start()
      assert.equal("UNABLE_TO_VERIFY_LEAF_SIGNATURE\n", node(app, "stranger.js", [[
await event(connect({ ca: [] }), "close")
]]))
      assert.equal("bye\n", run(app, [[echo quit | ]] .. S_CLIENT))
    end)
  end)

  describe("curl:", function()
    it("http:// is told in its own words", function()
      needs "curl"
      local app = start()
      assert.equal("This port speaks TLS: use https:// or tls://\n 400",
        run(app, "curl -s --max-time 60 -w ' %{http_code}' http://127.0.0.1:{port}/"))
    end)

    it("https:// with a protocol that both have", function()
      needs "curl"
      local app = start([[alpn = { "http/1.1" }]], [[
        function Agent:proceed()
          local text = self.conn.tls.alpn .. " " .. self.conn.tls.server_name .. "\n"
          return ("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s"):format(#text, text), "close"
        end]], "raw")
      assert.equal("http/1.1 localhost\n", run(app, "curl -sS --max-time 60 --noproxy localhost --cacert ca.pem " ..
        "--resolve localhost:{port}:127.0.0.1 https://localhost:{port}/"))
    end)
  end)

  it("gnutls-cli", function()
    needs "gnutls-cli"
    local app = start()
    for _, version in ipairs { "1.2", "1.3" } do
      local out = run(app, [[printf "facts\nhello\nquit\n" | timeout 60 gnutls-cli --port {port} ]] ..
        ("--priority NORMAL:-VERS-ALL:+VERS-TLS%s "):format(version) ..
        "--x509cafile ca.pem --verify-hostname localhost --sni-hostname localhost 127.0.0.1")
      has("\n" .. version .. " localhost - false -\nhello\nbye\n", out)
    end
  end)

  it("socat", function()
    needs "socat"
    local app = start()
    assert.equal("hello\nbye\n", run(app, [[printf "hello\nquit\n" | timeout 60 socat -t 30 - ]] ..
      "OPENSSL:127.0.0.1:{port},cafile=ca.pem,commonname=localhost"))
  end)
end)
