--- WebSockets that a script opens, over sockets: to a server that we did not write, to our own, through TLS, at a stop.
local command = require "spec.support.command"
local has = require "spec.support.has"
local operator = require "spec.support.operator"
local pki = require "spec.support.pki"
local server = require "spec.support.server"

local PYTHON = command.PYTHON

local function needs_python() command.needs_python("websockets", "python3-websockets") end

-- Tells its port, and runs until it is killed.
local STRANGER = [[
import asyncio, ssl, sys, websockets
async def answer(ws, message):
    if message == "/fragments": await ws.send(["one", " ", "two"])
    elif message == "/bytes": await ws.send([b"\0", b"\xff"])
    elif message == "/who":
        who = ws.request_headers.get("X-Who")
        await ws.send("%s %s %d" % (ws.subprotocol, who, len(ws.extensions)))
    elif message == "/terms":
        e = ws.extensions[0]
        await ws.send("%s %d %s" % (e.local_no_context_takeover, e.local_max_window_bits, e.remote_no_context_takeover))
    elif message == "/ping":
        await (await ws.ping(b"are you there"))
        await ws.send("it is there")
    elif message == "/large": await ws.send("x" * 300000)
    elif message == "/close": await ws.close(4001, "so long")
    else: await ws.send(message)
async def talk(ws):
    try:
        while True: await answer(ws, await ws.recv())
    except websockets.ConnectionClosed: print("closed", ws.close_code, ws.close_reason, flush=True)
async def main():
    context = None
    if len(sys.argv) > 1:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(sys.argv[1], sys.argv[2])
    async with websockets.serve(talk, "127.0.0.1", 0, ssl=context, subprotocols=["b"],
                                origins=[None, "https://example.org"]) as it:
        print(it.sockets[0].getsockname()[1], flush=True)
        await asyncio.Future()
asyncio.run(main())
]]

describe("perilune.connect of ws://", function()
  local strangers = {}

  after_each(function()
    for _, stranger in ipairs(strangers) do stranger:stop() end
    strangers = {}
    server.finish()
  end)

  -- Python's server: its port, and what it says.
  local function stranger(...)
    needs_python()
    local folder = command.folder()
    command.write(folder .. "/server.py", STRANGER)
    local pipe = assert(io.popen(("cd %s && echo $$ >pid && exec %s server.py %s 2>&1"):format(folder, PYTHON,
      table.concat({ ... }, " "))))
    local self = { port = tonumber(pipe:read "*l") }
    function self.line() return pipe:read "*l" end
    function self.stop()
      os.execute("kill $(cat " .. folder .. "/pid)")
      pipe:close()
      command.remove(folder)
    end
    strangers[#strangers + 1] = self
    return self
  end

  -- An app that does this for each line: `ws` is connected anew, with these options.
  local function app_of(url, options, body, more)
    return server.start { control = "control.sock", script = ([[
      local perilune = require "perilune"
      local Agent = {}
      function Agent:proceed(line)
        local ws, message, code, status = perilune.connect(%q, %s)
        if not ws then return ("no: %%s %%s %%s"):format(message, code, tostring(status)) end
        %s
      end
      return { listen = "tcp://127.0.0.1:0", frame = "line", agent = Agent, %s }
    ]]):format(url, options, body, more or "") }
  end

  local ASK = [[
    ws:send(line)
    local reply, meta = ws:read()
    return reply and reply .. " " .. tostring(meta.binary) or tostring(meta)]]

  it("talks with Python's websockets, compressed and not", function()
    local other = stranger()
    for _, compress in ipairs { "true", "false" } do
      local app = app_of(("ws://127.0.0.1:%d/x?y=z"):format(other.port),
        ("{ subprotocols = { 'a', 'b' }, headers = { ['X-Who'] = 'me' }, compress = %s, limits = { message = '1m' } }")
          :format(compress), [[
        local function ask(message, kind)
          ws:send(message, kind)
          local reply, meta = ws:read()
          return reply, meta.binary
        end
        for _, n in ipairs { 0, 1, 125, 126, 65535, 65536, 200000 } do
          local text, bytes = ("x"):rep(n), ("\0\255"):rep(n / 2)
          assert(ask(text) == text, n)
          local reply, binary = ask(bytes, "binary")
          assert(reply == bytes and binary, n)
        end
        local message = ws:begin()
        for _, piece in ipairs { "pieces", " of ", "one" } do message:write(piece) end
        message:finish()
        assert(ws:read() == "pieces of one")
        assert(ask "/fragments" == "one two")
        assert(ask "/bytes" == "\0\255")
        assert(ask "/ping" == "it is there")
        assert(#ask "/large" == 300000)
        local who = ask "/who"
        ws:send "/close"
        return ("%s %s %s %s %s"):format(ws.subprotocol, who, select(3, ws:read()))]])
      app:connect():echo_line("go", ("b b me %d EOF 4001 so long"):format(compress == "true" and 1 or 0))
      assert.equal("closed 4001 ", other:line())
    end
  end)

  it("keeps windows with Python's websockets, or none", function()
    local other = stranger()
    for compress, terms in pairs { ["true"] = "False 12 False", ["'alone'"] = "True 12 True" } do
      local app = app_of(("ws://127.0.0.1:%d"):format(other.port), ("{ compress = %s }"):format(compress), [[
        for i = 1, 200 do
          local text = ('{"type":"message","from":"user-%d","text":"number %d","more":"%s"}'):format(i % 7,
            i * 7919 % 1000, ("x"):rep(i % 50 == 0 and i * 97 or 0))
          ws:send(text)
          assert(ws:read() == text)
        end
        ws:send "/terms"
        return (ws:read())]])
      app:connect():echo_line("go", terms)
    end
  end)

  it("talks over a Unix socket, with a program of the same", function()
    local folder = command.folder()
    local app = server.start { script = ([[
      local perilune = require "perilune"
      local Echo, Agent = {}, {}
      function Echo:opened(request) self.target = request.target end
      function Echo:proceed(message) return message .. " " .. self.target end
      function Agent:proceed(line)
        local ws = assert(perilune.connect("ws+unix://%s/app.sock:/chat?a=b", { compress = true }))
        ws:send(line)
        return (ws:read())
      end
      return { listen = { { "tcp://127.0.0.1:0", frame = "line", agent = Agent },
        { "unix://%s/app.sock", protocol = "ws", agent = Echo } } }
    ]]):format(folder, folder) }
    app:connect():echo_line("hello", "hello /chat?a=b")
    if command.has "node" and command.exists "/usr/share/nodejs/ws/package.json" then
      command.write(folder .. "/client.js", ([[
        const ws = new (require("ws").WebSocket)("ws+unix:%s/app.sock:/chat?c=d");
        ws.on("open", () => ws.send("hello"));
        ws.on("message", data => { console.log(data.toString()); ws.close(); });]]):format(folder))
      assert.equal("hello /chat?c=d\n",
        (command.shell(("NODE_PATH=/usr/share/nodejs timeout 300 node %s/client.js 2>&1"):format(folder))))
    end
    app:stop()
    command.remove(folder)
  end)

  it("tells Python's websockets why it ends", function()
    local other = stranger()
    local url = ("ws://127.0.0.1:%d"):format(other.port)
    app_of(url, "{}", "ws:close(3000, 'mine') return 'closed'"):connect():echo_line("go", "closed")
    assert.equal("closed 3000 mine", other:line())
    local app = app_of(url, "{ limits = { message = 10 } }", ASK)
    app:connect():echo_line("12345678901", "WebSocket 1009: a message of 11 bytes; limits.message is 10")
    assert.equal("closed 1009 a message is too large", other:line())
    local client = app:connect():echo_line("1", "1 false")
    client:close()
    assert.equal("closed 1001 ", other:line())
  end)

  it("is told by Python's websockets what is refused", function()
    local other = stranger()
    local url = ("ws://127.0.0.1:%d"):format(other.port)
    app_of(url, "{ origin = 'https://example.com' }", ASK):connect():echo_line("go",
      ("no: %s: no WebSocket, the answer is 403 Forbidden EPROTO 403"):format(url))
    app_of(url, "{ origin = 'https://example.org' }", ASK):connect():echo_line("go", "go false")
  end)

  it("goes through TLS, to Python's and to our own", function()
    local PKI = pki.new()
    finally(function() PKI:remove() end)
    local mine = PKI:sign("server", { names = { "localhost" } })
    local other = stranger(mine.certificate, mine.key)
    local ours = server.start { script = ([[
      return { listen = { { "wss://localhost:0", tls = { certificate = %q, key = %q } } },
        agent = { proceed = function(_, message) return message end } }]]):format(mine.certificate, mine.key) }
    for _, port in ipairs { other.port, ours.port } do
      local url = ("wss://localhost:%d"):format(port)
      app_of(url, ("{ tls = { authority = %q } }"):format(PKI:path "ca.pem"), ASK):connect()
        :echo_line("secret", "secret false")
      local client = app_of(url, "{}", ASK):connect()
      client:send "go\n"
      has("not trusted", client:recv_line())
    end
  end)

  it("is told 1001 when the server goes, and tells it when it goes itself", function()
    local other = stranger()
    local app = app_of(("ws://127.0.0.1:%d"):format(other.port), "{}", [[
      self.ws = ws
      ws:send(line)
      return (ws:read())]])
    app:connect():echo_line("here", "here")
    local outgoing = operator.status(app).outgoing
    assert.same({ 1, 1 }, { outgoing.connected, outgoing.open })
    assert.equal(0, app:stop().code)
    assert.equal("closed 1001 ", other:line())
  end)
end)
