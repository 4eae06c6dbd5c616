--- WebSockets over sockets, with clients that we did not write; recordings and upgrades.
local command = require "spec.support.command"
local has = require "spec.support.has"
local pki = require "spec.support.pki"
local server = require "spec.support.server"
local trace = require "spec.support.trace"

local FIXTURE = command.read "spec/behaviour/fixtures/websocket.lua"
local PYTHON = command.PYTHON

-- `listen` of the fixture, and more that it returns.
local function script_of(listen, more)
  local at = FIXTURE:find("\nreturn { *\n?  listen", 1)
  return FIXTURE:sub(1, at) .. ("return { listen = { %s }, %s }\n"):format(listen, more or "")
end

local WS = '{ "ws://127.0.0.1:0/chat", name = "ws", agent = Chat, subprotocols = { "c" } }'
local HTTP = '{ "http://127.0.0.1:0", name = "http", agent = Api }'

local function start(listen, more, options)
  local all = options or {}
  all.script = script_of(listen, more)
  return server.start(all)
end

local function needs_python() command.needs_python("websockets", "python3-websockets") end

local PROLOGUE = [[
import asyncio, ssl, sys, websockets
url = sys.argv[1]
async def closing(ws):
    try:
        while True: await ws.recv()
    except websockets.ConnectionClosed: return "%d %s" % (ws.close_code, ws.close_reason)
async def main():
    %s
asyncio.run(main())
]]

-- What a program of Python's websockets prints: `body` is of a coroutine, each line of it indented alike.
local function python(app, url, body)
  local file = assert(io.open(app.folder .. "/client.py", "w"))
  local indented = ("\n" .. body):gsub("\n" .. body:match "^ *", "\n    ")
  file:write((PROLOGUE:gsub("\n    %%s", function() return indented end)))
  file:close()
  local line = ("cd '%s' && timeout 300 %s client.py %s 2>&1"):format(app.folder, PYTHON, url)
  return (command.shell(line):gsub("%s+$", ""))
end

local function url_of(app, path) return ("ws://127.0.0.1:%d%s"):format(app.port, path) end

describe("ws://", function()
  after_each(server.finish)

  describe("Python's websockets", function()
    it("talks, text and bytes, large and in fragments, compressed and not", function()
      needs_python()
      local app = start(WS)
      assert.equal("c True\nc False", python(app, url_of(app, "/chat"), [[
      for compression in "deflate", None:
          async with websockets.connect(url, compression=compression, subprotocols=["x", "c"]) as ws:
              for message in "", "a", "héllo", "x" * 65536, b"", b"\0\xff" * 1000:
                  await ws.send(message)
                  assert await ws.recv() == message, message
              await ws.send(["one", " ", "two"])
              assert await ws.recv() == "one two"
              await ws.send("/text 30000")
              assert await ws.recv() == "x" * 30000
              await ws.send("/pieces")
              assert await ws.recv() == "one two three"
              await (await ws.ping(b"are you there"))
              print(ws.subprotocol, len(ws.extensions) == 1)]]))
    end)

    it("is told why it ends, from either side", function()
      needs_python()
      local app = start(WS, "limits = { message = '1k' }")
      local ends = "1000 \n4000 so long\n1008 \n1011 \n1009 a message is too large\n3000 mine"
      assert.equal(ends, python(app, url_of(app, "/chat"), [[
      for message in "/close", "/close 4000 so long", "/kick", "/error", "x" * 1025:
          async with websockets.connect(url) as ws:
              await ws.send(message)
              print(await closing(ws))
      ws = await websockets.connect(url)
      await ws.close(3000, "mine")
      print(ws.close_code, "mine")]]))
    end)

    it("is refused where it asks for something else", function()
      needs_python()
      local app = start(WS, "origins = { 'https://example.org' }")
      assert.equal("404\n403\nopen", python(app, url_of(app, ""), [[
      for path, origin in ("/", None), ("/chat", "https://example.com"):
          try: await websockets.connect(url + path, origin=origin)
          except websockets.InvalidStatusCode as error: print(error.status_code)
      async with websockets.connect(url + "/chat", origin="https://example.org"): print("open")]]))
    end)

    it("upgrades a connection of http://", function()
      needs_python()
      local app = start(HTTP)
      assert.equal("hello you\nx at /factory of 2", python(app, url_of(app, ""), [[
      async with websockets.connect(url + "/chat?greet=you") as ws: print(await ws.recv())
      async with websockets.connect(url + "/factory") as ws:
          await ws.send("x")
          print(await ws.recv())]]))
    end)

    it("goes through TLS", function()
      needs_python()
      local PKI = pki.new()
      finally(function() PKI:remove() end)
      local mine = PKI:sign("server", { names = { "localhost" } })
      local app = start(('{ "wss://localhost:0/chat", agent = Chat, tls = { certificate = %q, key = %q } }'):format(
        mine.certificate, mine.key))
      assert.equal("secret", python(app, ("wss://localhost:%d/chat %s"):format(app.port, PKI:path "ca.pem"), [[
      context = ssl.create_default_context(cafile=sys.argv[2])
      async with websockets.connect(url, ssl=context) as ws:
          await ws.send("secret")
          print(await ws.recv())]]))
    end)

    it("is told 1001 when the server goes", function()
      needs_python()
      local app = start(WS)
      local running = io.popen(("timeout 60 %s -c '%s' %s 2>&1"):format(PYTHON, [[
import asyncio, sys, websockets
async def main():
    async with websockets.connect(sys.argv[1]) as ws:
        await ws.send("ready")
        print(await ws.recv(), flush=True)
        try: await ws.recv()
        except websockets.ConnectionClosed: print(ws.close_code)
asyncio.run(main())]], url_of(app, "/chat")))
      assert.equal("ready", running:read "*l")
      app:signal "TERM"
      assert.equal("1001", running:read "*l")
      running:close()
      app:wait_end()
      has("drain=1", app:text())
    end)
  end)

  it("is recorded, and replayed", function()
    needs_python()
    local app = start(HTTP, nil, { control = "control.sock" })
    local recording = trace.record(app)
    assert.equal("1000 bye", python(app, url_of(app, "/chat?greet=you"), [[
      async with websockets.connect(url) as ws:
          assert await ws.recv() == "hello you"
          for message in "x", b"\0\xff", "y" * 1000:
              await ws.send(message)
              assert await ws.recv() == message
          await ws.ping()
          await ws.send("/list")
          await ws.send("/pieces")
          await ws.close(1000, "bye")
          print(ws.close_code, "bye")]]))
    assert.equal(0, recording:stop().code)
    local replayed = trace.replay(app, recording.path, script_of(HTTP))
    assert.equal(0, replayed.code, replayed.out .. replayed.err)
    replayed = trace.replay(app, recording.path, (script_of(HTTP):gsub('"hello "', '"hallo "')))
    assert.equal(1, replayed.code)
    has("68 61 6c 6c 6f 20 79 6f 75", replayed.out)
  end)
end)
