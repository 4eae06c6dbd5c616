--- WebSockets with more peers that we did not write: Node's ws, and Python's wsproto, which does no more than the
--- protocol and is told what to send frame by frame.
local command = require "spec.support.command"
local has = require "spec.support.has"
local server = require "spec.support.server"

local FIXTURE = command.read "spec/behaviour/fixtures/websocket.lua"
local PYTHON = command.PYTHON
local NODE = "NODE_PATH=/usr/share/nodejs node"

local function start(more)
  local at = FIXTURE:find("\nreturn { *\n?  listen", 1)
  return server.start { script = FIXTURE:sub(1, at) .. ([[return { listen = {
    { "ws://127.0.0.1:0/chat", name = "ws", agent = Chat, subprotocols = { "c" } } }, %s }]]):format(more or "") }
end

local function needs_ws()
  if not (command.has "node" and command.exists "/usr/share/nodejs/ws/package.json") then
    pending "node-ws is not installed"
  end
end

local function needs_wsproto() command.needs_python("wsproto", "python3-wsproto") end

-- What a program prints that gets the port as its argument.
local function run(app, program, name, text)
  command.write(app.folder .. "/" .. name, text)
  local line = ("cd '%s' && timeout 300 env %s %s %d 2>&1"):format(app.folder, program, name, app.port)
  return (command.shell(line):gsub("%s+$", ""))
end

local WS = [[
const { WebSocket } = require("ws");
const open = (options, protocols) => new Promise((resolve, reject) => {
  const ws = new WebSocket(`ws://127.0.0.1:${process.argv[2]}/chat`, protocols, options), queue = [], waiting = [];
  ws.on("message", (data, binary) => {
    const message = binary ? data : data.toString();
    if (waiting.length) waiting.shift()(message); else queue.push(message);
  });
  ws.next = () => new Promise(take => { if (queue.length) take(queue.shift()); else waiting.push(take); });
  ws.over = new Promise(take => ws.on("close", (code, reason) => take(`${code} ${reason}`)));
  ws.on("open", () => resolve(ws));
  ws.on("error", reject);
});
const main = async () => {
%s
};
main().catch(error => console.log(`failed: ${error.message}`));
]]

local function node(app, body)
  return run(app, NODE, "client.js", (WS:gsub("%%s", function() return body end)))
end

-- h.send(event): what wsproto makes of it; h.next(): the next event that is no half of a message.
local WSPROTO = [[
import socket, sys
from wsproto import ConnectionType, WSConnection
from wsproto.events import *
from wsproto.extensions import PerMessageDeflate

class Peer:
    def __init__(self, *extensions):
        self.socket = socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=300)
        self.ws = WSConnection(ConnectionType.CLIENT)
        self.events = []
        self.send(Request(host="a", target="/chat", subprotocols=["x", "c"], extensions=list(extensions)))
        self.accepted = self.next()
    def send(self, *events): self.socket.sendall(b"".join(self.ws.send(event) for event in events))
    def next(self):
        while not self.events:
            data = self.socket.recv(65536)
            self.ws.receive_data(data or None)
            self.events.extend(self.ws.events())
        return self.events.pop(0)
    def message(self):
        parts = []
        while True:
            event = self.next()
            parts.append(event.data)
            if event.message_finished: return parts[0][:0].join(parts)
    def eof(self): return self.socket.recv(100) == b""
]]

local function python(app, body) return run(app, PYTHON, "client.py", WSPROTO .. body) end

describe("ws://", function()
  after_each(server.finish)

  describe("Node's ws", function()
    it("talks, compressed and not, in fragments, with pings", function()
      needs_ws()
      local app = start()
      assert.equal("c compressed true\nc plain true", node(app, [[
        for (const perMessageDeflate of [{ threshold: 0 }, false]) {
          const ws = await open({ perMessageDeflate }, ["x", "c"]), same = [];
          for (const message of ["", "a", "h\u00e9llo", "x".repeat(65536), Buffer.alloc(0), Buffer.alloc(9000, 255)]) {
            ws.send(message);
            const got = await ws.next();
            same.push(typeof message === "string" ? got === message : message.equals(got));
          }
          ws.send("one", { fin: false });
          ws.ping("between");
          ws.send(" ", { fin: false });
          ws.send("two", { fin: true });
          same.push(await new Promise(take => ws.on("pong", data => take(data.toString() === "between"))));
          same.push(await ws.next() === "one two");
          ws.send("/text 30000");
          same.push(await ws.next() === "x".repeat(30000));
          console.log(ws.protocol, ws.extensions ? "compressed" : "plain", same.every(Boolean));
          ws.close(1000);
          await ws.over;
        }]]))
      assert.equal(0, app:stop().summary.faults)
    end)

    it("asks for a small window and gets it", function()
      needs_ws()
      local app = start()
      local out = node(app, [[
        const ws = await open({ perMessageDeflate: { serverMaxWindowBits: 9, threshold: 0 } });
        const text = Array.from({ length: 5000 }, (_, i) => `${i} ${i * i % 977}`).join(" ");
        ws.send(text);
        console.log(await ws.next() === text, ws._extensions["permessage-deflate"].params.server_max_window_bits);
        ws.close();]])
      assert.equal("true 9", out)
    end)

    it("keeps windows of all sizes, in either direction, and finds in them what was before", function()
      needs_ws()
      local app = start()
      local said = node(app, [[
        const text = i => JSON.stringify({ type: "message", from: `user-${i % 7}`, text: `number ${i * 7919 % 1000}`,
          more: i % 10 ? "" : "x".repeat(i * 97), list: Array.from({ length: i % 13 }, (_, k) => k * i) });
        let count = 0, same = true;
        const talk = async perMessageDeflate => {
          const ws = await open({ perMessageDeflate: { threshold: 0, ...perMessageDeflate } });
          for (let i = 0; i < 60; i++) {
            ws.send(text(i));
            same = await ws.next() === text(i) && same;
          }
          const before = ws._socket.bytesRead;
          for (let i = 0; i < 10; i++) {
            ws.send(text(1));
            await ws.next();
          }
          ws.close();
          count++;
          return (ws._socket.bytesRead - before) / 10;
        };
        for (const serverNoContextTakeover of [false, true])
          for (const clientNoContextTakeover of [false, true])
            for (const serverMaxWindowBits of [undefined, 9, 10, 12, 15])
              for (const clientMaxWindowBits of [undefined, 9, 15]) {
                const options = { serverNoContextTakeover, clientNoContextTakeover };
                if (serverMaxWindowBits) options.serverMaxWindowBits = serverMaxWindowBits;
                if (clientMaxWindowBits) options.clientMaxWindowBits = clientMaxWindowBits;
                await talk(options);
              }
        console.log(count, "same", same);
        console.log("kept", await talk({}) < 20, "alone", await talk({ serverNoContextTakeover: true }) > 50);]])
      assert.equal("60 same true\nkept true alone true", said)
      assert.equal(0, app:stop().summary.faults)
    end)

    it("is told why it ends, and many at once are", function()
      needs_ws()
      local app = start "limits = { message = '1k' }"
      assert.equal("1000 \n4000 so long\n1008 \n1011 \n1009 a message is too large\n3000 \n200", node(app, [[
        for (const message of ["/close", "/close 4000 so long", "/kick", "/error", "x".repeat(1025)]) {
          const ws = await open();
          ws.send(message);
          console.log(await ws.over);
        }
        const ws = await open();
        ws.close(3000, "mine");
        console.log(await ws.over);
        const many = await Promise.all(Array.from({ length: 200 }, () => open()));
        many.forEach((one, i) => one.send(`/close 4000 ${i}`));
        const ends = await Promise.all(many.map(one => one.over));
        console.log(ends.filter((end, i) => end === `4000 ${i}`).length);]]))
    end)
  end)

  describe("Python's wsproto", function()
    it("sends fragments with a ping in between, and gets a pong before the message", function()
      needs_wsproto()
      local app = start()
      assert.equal("c\nPong b'1'\nhi you\nPong b''\nb'\\x00\\xff'", python(app, [[
p = Peer()
print(p.accepted.subprotocol)
p.send(TextMessage("hi", message_finished=False), Ping(b"1"), TextMessage(" ", message_finished=False),
    TextMessage("you"))
pong = p.next()
print(type(pong).__name__, bytes(pong.payload))
print(p.message())
p.send(BytesMessage(b"\0", message_finished=False), Ping(), BytesMessage(b"\xff"))
pong = p.next()
print(type(pong).__name__, bytes(pong.payload))
print(bytes(p.message()))]]))
    end)

    it("compresses, with windows of all sizes and with none", function()
      needs_wsproto()
      local app = start()
      assert.equal("36 True", python(app, [[
import json
texts = ["x" * 60000, "y" * 60000, "short", "short"]
texts += [json.dumps({"number": i, "list": list(range(i)), "more": "x" * (i * i % 5000)}) for i in range(50)]
count, same = 0, True
for server_alone in False, True:
    for client_alone in False, True:
        for server_bits in 9, 11, 15:
            for client_bits in 9, 12, 15:
                p = Peer(PerMessageDeflate(client_no_context_takeover=client_alone, client_max_window_bits=client_bits,
                    server_no_context_takeover=server_alone, server_max_window_bits=server_bits))
                assert [type(e).__name__ for e in p.accepted.extensions] == ["PerMessageDeflate"]
                for text in texts:
                    p.send(TextMessage(text))
                    same = p.message() == text and same
                count += 1
print(count, same)]]))
    end)

    it("shakes hands at the end, whoever begins, and then the connection is over", function()
      needs_wsproto()
      local app = start()
      assert.equal("3999 None True\n1000 None True\n4001 there True", python(app, [[
def told(p):
    while True:
        event = p.next()
        if isinstance(event, CloseConnection): return event
p = Peer()
p.send(CloseConnection(3999, "here"))
event = told(p)
print(event.code, event.reason or None, p.eof())
for line in "/close", "/close 4001 there":
    p = Peer()
    p.send(TextMessage(line))
    event = told(p)
    p.send(event.response())
    print(event.code, event.reason or None, p.eof())]]))
      has("peer=1", tostring(app:stop().summary.reasons))
    end)
  end)
end)
