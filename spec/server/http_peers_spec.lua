--- http:// with more clients that we did not write: varnishtest, which says and expects each byte of a head, Node's
--- agent, which keeps connections, and Python's sockets.
local command = require "spec.support.command"
local drivers = require "spec.support.drivers"
local server = require "spec.support.server"

local AGENT = command.read "spec/behaviour/fixtures/http.lua"
local PIECES = command.read "spec/behaviour/fixtures/http_stream.lua"

local needs = command.needs

-- What a command of the shell writes, with {port} filled in; and `name`, which it finds in its folder, holds `text`.
local function run(app, line, name, text)
  command.write(app.folder .. "/" .. name, text)
  return command.shell(("cd '%s' && (%s) 2>&1"):format(app.folder, (line:gsub("{port}", app.port))))
end

local function varnishtest(app, steps)
  local missing = drivers.missing(nil, "varnish") or drivers.missing(nil, "libvarnishapi3")
  if missing then pending(missing) end
  local script = ('varnishtest "http://"\nclient c1 -connect "127.0.0.1:%d" {\n\ttimeout 300\n%s} -run\n'):format(
    app.port, steps)
  local out = run(app, drivers.varnishtest() .. " -t 400 steps.vtc; echo \"ended with $?\"", "steps.vtc", script)
  if not out:find("ended with 0\n", 1, true) then error(out, 2) end
end

local KEPT = [[
const http = require("http");
const agent = new http.Agent({ keepAlive: true, maxSockets: 4 });
const sockets = new Set();
const ask = (method, path, body, headers) => new Promise((resolve, reject) => {
  const options = { host: "127.0.0.1", port: process.argv[2], agent, method, path, headers };
  const request = http.request(options, response => {
    const parts = [];
    response.on("data", part => parts.push(part)).on("error", reject);
    response.on("end", () => resolve({ status: response.statusCode, body: Buffer.concat(parts).toString(),
      trailers: response.trailers }));
  });
  request.on("socket", socket => sockets.add(socket)).on("error", reject);
  if (Array.isArray(body)) { for (const part of body) request.write(part); request.end(); } else request.end(body);
});
const main = async () => {
%s
  agent.destroy();
};
main().catch(error => console.log(`failed: ${error.message}`));
]]

local function node(app, body)
  needs "node"
  return run(app, "timeout 300 node client.js {port}", "client.js", (KEPT:gsub("%%s", function() return body end)))
end

-- Says the head, and the body only once it is told to go on.
local EXPECTS = [[
import socket, sys
def read(f):
    status, length = f.readline().split()[1].decode(), 0
    while (line := f.readline()) != b"\r\n":
        if line.lower().startswith(b"content-length:"): length = int(line.split(b":")[1])
    return status, f.read(length).decode().strip()
def ask(head, body):
    s = socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=300)
    f = s.makefile("rb")
    s.sendall(b"PUT /length HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n" + head + b"\r\n\r\n")
    said = read(f)
    print(*said)
    if said[0] == "100":
        for part in body: s.sendall(part)
        print(*read(f))
        s.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        print(*read(f))
ask(b"Content-Length: 300000", [b"x" * 100000] * 3)
ask(b"Transfer-Encoding: chunked", [b"5\r\nhello\r\n", b"1\r\n!\r\n", b"0\r\nX: y\r\n\r\n"])
ask(b"Content-Length: 2000000", [])
]]

describe("http://", function()
  after_each(server.finish)

  describe("varnishtest", function()
    it("keeps a connection, asks for heads, and pipelines", function()
      local app = server.start { script = AGENT }
      varnishtest(app, [[
	txreq -url "/"
	rxresp
	expect resp.proto == HTTP/1.1
	expect resp.status == 200
	expect resp.reason == OK
	expect resp.http.content-type == "text/plain; charset=utf-8"
	expect resp.http.connection == <undef>
	expect resp.body == hello
	txreq -req HEAD -url "/"
	rxresp -no_obj
	expect resp.http.content-length == 5
	txreq -url "/nil"
	rxresp -no_obj
	expect resp.status == 204
	expect resp.http.content-length == <undef>
	expect resp.http.transfer-encoding == <undef>
	txreq -url "/"
	txreq -req POST -url "/echo" -body "second"
	txreq -url "/none"
	rxresp
	expect resp.body == hello
	rxresp
	expect resp.body == second
	rxresp
	expect resp.status == 404
	txreq -url "/" -hdr "Connection: close"
	rxresp
	expect resp.http.connection == close
	expect_close
]])
      assert.equal(1, app:stop().summary.accepted)
    end)

    it("sends bodies in chunks, and gets them", function()
      varnishtest(server.start { script = AGENT }, [[
	txreq -req POST -url "/echo" -nolen -hdr "Transfer-encoding: chunked"
	chunked "one "
	chunkedlen 1000
	chunkedlen 0
	rxresp
	expect resp.bodylen == 1004
]])
      varnishtest(server.start { script = PIECES }, [[
	txreq -url "/large?n=3&bytes=1000"
	rxresphdrs
	expect resp.http.transfer-encoding == chunked
	rxchunk
	expect resp.chunklen == 1000
	rxchunk
	rxchunk
	rxchunk
	expect resp.chunklen == 0
	expect resp.bodylen == 3000
	txreq -proto HTTP/1.0 -url "/large?n=2&bytes=10"
	rxresp
	expect resp.http.transfer-encoding == <undef>
	expect resp.bodylen == 20
]])
    end)

    it("is told to leave with what is no request", function()
      for status, bytes in pairs {
        [400] = [["GET / HTTP/1.1\r\n\r\n"]],
        [501] = [["POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n"]],
        [505] = [["GET / HTTP/2.0\r\nHost: a\r\n\r\n"]],
      } do
        varnishtest(server.start { script = AGENT }, ([[
	send %s
	rxresp
	expect resp.status == %d
	expect resp.http.connection == close
	expect_close
]]):format(bytes, status))
      end
    end)
  end)

  describe("Node's http", function()
    it("keeps its connections for many requests, and mixes none up", function()
      local app = server.start { script = AGENT }
      assert.equal("200 right, 4 connections\n", node(app, [[
  const texts = Array.from({ length: 200 }, (_, i) => `${i} `.repeat(i * 7));
  const answers = await Promise.all(texts.map((text, i) => ask("POST", "/echo", i % 2 ? text : [text, "end"])));
  const right = answers.filter(({ status, body }, i) =>
    status === 200 && body === (i % 2 ? texts[i] : texts[i] + "end"));
  console.log(`${right.length} right, ${sockets.size} connections`);]]))
      assert.equal(4, app:stop().summary.accepted)
    end)

    it("reads pieces and what is behind them, and goes on after an error", function()
      local app = server.start { script = AGENT }
      assert.equal("500 true\n200 hello\n", node(app, [[
  const broken = await ask("GET", "/error");
  console.log(broken.status, broken.body.startsWith("500 Internal Server Error"));
  const again = await ask("GET", "/");
  console.log(again.status, again.body);]]))
      local example = command.shell("pwd"):gsub("\n", "") .. "/examples/http_files.lua"
      app = server.start { file = example, args = { "--listen=http://127.0.0.1:0" } }
      assert.equal("200 true 10000\n304\n", node(app, [[
  const report = await ask("GET", "/report.csv", undefined, { TE: "trailers" });
  console.log(report.status, report.body.endsWith("\n10000,100000000\n"), report.trailers["x-rows"]);
  console.log((await ask("GET", "/", undefined, { "If-Modified-Since": new Date().toUTCString() })).status);]]))
    end)
  end)

  it("tells Python's sockets to go on with a body, or not to", function()
    needs "python3"
    local script = AGENT:gsub("return { listen = ", "return { limits = { body = '1m' }, listen = ")
    local app = server.start { script = script }
    local out = run(app, "timeout 300 python3 expects.py {port}", "expects.py", EXPECTS)
    assert.equal("100 \n200 300000\n200 hello\n" .. "100 \n200 6\n200 hello\n"
      .. "413 413 Content Too Large: the body is too large\n", out)
  end)
end)
