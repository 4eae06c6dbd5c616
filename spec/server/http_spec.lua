--- http:// over sockets, with clients that we did not write; and parsers that we did not write, as judges.
local command = require "spec.support.command"
local has = require "spec.support.has"
local pki = require "spec.support.pki"
local rows_of = require "spec.support.http_rows"
local server = require "spec.support.server"
local trace = require "spec.support.trace"

local AGENT = command.read "spec/behaviour/fixtures/http.lua"

-- `settings` is more of what the script returns.
local function start(settings, options)
  local all = options or {}
  all.script = AGENT:gsub("return { listen = [^\n]*", function()
    return ('return { listen = %q, agent = Agent, %s }'):format(all.listen or "http://127.0.0.1:0", settings or "")
  end)
  return server.start(all)
end

local needs = command.needs

-- What a command of the shell writes, with {url} filled in.
local function run(app, line)
  return command.shell(("cd '%s' && (%s) 2>&1"):format(app.folder,
    (line:gsub("{url}", "http://127.0.0.1:" .. (app.port or ""))
    :gsub("{port}", app.port or ""))))
end

describe("http://", function()
  after_each(server.finish)

  describe("curl", function()
    it("gets, posts and asks for heads, over one connection", function()
      needs "curl"
      local app = start()
      assert.equal("hello", run(app, "curl -sS {url}/"))
      assert.equal("hello 200 1 hello 200 0 hello 200 0 ",
        run(app, "curl -sS -w ' %{http_code} %{num_connects} ' {url}/ {url}/kept {url}/"))
      assert.equal("a=b&c=d", run(app, "curl -sS -d a=b -d c=d {url}/echo"))
      assert.equal('{"value":[1]}', run(app, "curl -sS -H 'Content-Type: application/json' -d '[1]' {url}/json"))
      has("Content-Length: 5", run(app, "curl -sS -I {url}/"))
      assert.equal("204", run(app, "curl -sS -o /dev/null -w '%{http_code}' {url}/nil"))
      assert.equal("302 {url}/there",
        (run(app, "curl -sS -o /dev/null -w '%{http_code} %{redirect_url}' {url}/elsewhere")
        :gsub("http://127.0.0.1:" .. app.port, "{url}")))
    end)

    it("speaks HTTP/1.0", function()
      needs "curl"
      local app = start()
      local out = run(app, "curl -sS -0 -i {url}/")
      has("HTTP/1.1 200 OK", out)
      has("Connection: close", out)
      has("hello", out)
    end)

    it("uploads, with 100-continue, chunked and not", function()
      needs "curl"
      local app = start "limits = { body = '4m' }"
      run(app, "head -c 3000000 /dev/zero >large")
      local out = run(app, "curl -sS -v -H 'Expect: 100-continue' -T large {url}/length")
      has("100 Continue", out)
      has("3000000", out)
      assert.equal("3000000", run(app, "curl -sS -H 'Transfer-Encoding: chunked' -T large {url}/length"))
      assert.equal("413", run(app, "cat large large 2>cat | curl -sS -T - -o /dev/null -w '%{http_code}' {url}/length"))
      out = run(app, "cat large large >larger; curl -sS -v -H 'Expect: 100-continue' -T larger {url}/length")
      has("413", out)
      assert.is_nil(out:find("100 Continue", 1, true))
    end)

    it("speaks to https:// and to a Unix socket", function()
      needs "curl"
      local PKI = pki.new()
      finally(function() PKI:remove() end)
      local cert = PKI:sign("server", { names = { "localhost" } })
      local app = start(("tls = { certificate = %q, key = %q }"):format(cert.certificate, cert.key),
        { listen = "https://127.0.0.1:0" })
      assert.equal("TLS", run(app, "curl -sS -k https://localhost:{port}/about --resolve localhost:{port}:127.0.0.1")
        :match '"tls":"1%.3"' and "TLS")
      app = server.start { script = AGENT:gsub("return { listen = [^\n]*",
        'return { listen = "unix://http.sock", protocol = "http", agent = Agent }') }
      assert.equal("hello", run(app, "curl -sS --unix-socket http.sock http://localhost/"))
    end)
  end)

  it("serves Python's http.client", function()
    needs "python3"
    local app = start()
    command.write(app.folder .. "/client.py", [[
import http.client, json, sys
c = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=10)
c.request("GET", "/")
r = c.getresponse()
print(r.status, r.read(), r.getheader("Content-Type"))
c.request("POST", "/json", json.dumps({"a": [1, 2]}), {"Content-Type": "application/json"})
print(json.loads(c.getresponse().read()))
c.request("PUT", "/echo", iter([b"one ", b"two"]), encode_chunked=True, headers={"Transfer-Encoding": "chunked"})
print(c.getresponse().read())
c.request("HEAD", "/")
print(c.getresponse().read())
c.request("GET", "/error")
r = c.getresponse()
print(r.status, r.getheader("Connection"), r.read()[:25])
]])
    assert.equal([[
200 b'hello' text/plain; charset=utf-8
{'value': {'a': [1, 2]}}
b'one two'
b''
500 close b'500 Internal Server Error'
]], run(app, "python3 client.py {port}"))
  end)

  it("refuses what is no HTTP, and says how the connection ends", function()
    local app = start()
    local client = app:connect()
    client:send "\22\3\1\2\0\1\0\1\252\3\3"
    has("HTTP/1.1 400 Bad Request\r\n", client:recv_all())
    app:stop()
    assert.equal(1, app:find_log({ message = "stopped" })[1].http_400)
  end)

  it("answers what is under way when it stops, and ends idle connections at once", function()
    local app = start()
    local idle, busy = app:connect(), app:connect()
    idle:send "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    idle:recv_exact(#("HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
      .. "Content-Type: text/plain; charset=utf-8\r\nContent-Length: 5\r\n\r\nhello"))
    busy:send "GET /late?s=0.5 HTTP/1.1\r\nHost: a\r\n\r\n"
    app:wait_log { message = "late begins" }
    app:signal "TERM"
    assert.equal("", idle:recv_all())
    local out = busy:recv_all()
    has("late /late", out)
    has("Connection: close\r\n", out)
    app:wait_end()
  end)

  it("goes on in a new process", function()
    needs "curl"
    local app = start()
    local busy = app:connect()
    busy:send "GET /late?s=0.3 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    app:wait_log { message = "late begins" }
    app:upgrade()
    assert.equal("hello", run(app, "curl -sS {url}/"))
    local out = busy:recv_all()
    has("late /late", out)
    app:wait_end()
  end)

  it("is recorded, and replayed", function()
    needs "curl"
    local script = start(nil, { control = "control.sock" })
    local recording = trace.record(script)
    local client = script:connect()
    client:send("POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
      .. "3\r\none\r\n4\r\n two\r\n0\r\nX: y\r\n\r\n"
      .. "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
      .. "HEAD / HTTP/1.1\r\nHost: a\r\n\r\nGET /table HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    local out = client:recv_all()
    has("one two", out)
    has('{"a":1}', out)
    run(script, "curl -sS {url}/error")
    assert.equal(0, recording:stop().code)
    local lines = trace.lines(recording.path)
    local ins = {}
    for _, line in ipairs(lines) do
      assert.is_nil((line.frame or ""):find("Date:", 1, true))
      if line.event == "in" then ins[#ins + 1] = line.frame or line.base64 end
    end
    local head = "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert.equal(head .. "7\r\none two\r\n0\r\nX: y\r\n\r\n", ins[1])
    assert.equal("POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", ins[2])
    local text = AGENT:gsub("return { listen = [^\n]*", 'return { listen = "http://127.0.0.1:0", agent = Agent }')
    local replayed = trace.replay(script, recording.path, text)
    assert.equal(0, replayed.code, replayed.out .. replayed.err)
    replayed = trace.replay(script, recording.path, (text:gsub("{ a = 1 }", "{ a = 2 }")))
    assert.equal(1, replayed.code)
    has('{"a":2}', (replayed.out:gsub("\\", "")))
  end)

  -- ---- judges ----

  local NODE = [[
const { HTTPParser, methods } = process.binding('http_parser');
function judge(bytes) {
  const seen = [];
  let body = Buffer.alloc(0), method, target, head;
  const parser = new HTTPParser();
  parser.initialize(HTTPParser.REQUEST, {});
  parser[HTTPParser.kOnHeaders | 0] = (fields, url) => { head = url || head; };
  parser[HTTPParser.kOnHeadersComplete | 0] = (major, minor, fields, m, url) => {
    method = methods[m];
    target = url || head;
    return 0;
  };
  parser[HTTPParser.kOnBody | 0] = (b, at, n) => {
    body = Buffer.concat([body, at === undefined ? b : b.subarray(at, at + n)]);
  };
  parser[HTTPParser.kOnMessageComplete | 0] = () => {
    seen.push(method + ' ' + target + ' ' + body.toString('latin1'));
    body = Buffer.alloc(0);
  };
  const result = parser.execute(bytes, 0, bytes.length);
  if (result instanceof Error) seen.push(result.code);
  return seen;
}
for (const line of require('fs').readFileSync(process.argv[2], 'latin1').split('\n'))
  if (line) console.log(JSON.stringify(judge(Buffer.from(line, 'hex'))));
]]

  local H11 = [[
import h11, json, sys
def judge(data):
    seen, body, request = [], b"", None
    c = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    c.receive_data(data)
    try:
        while True:
            event = c.next_event()
            if event in (h11.NEED_DATA, h11.PAUSED): break
            if isinstance(event, h11.Request): request, body = event, b""
            elif isinstance(event, h11.Data): body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                seen.append("%s %s %s" % (request.method.decode(), request.target.decode(), body.decode("latin1")))
                c.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
                c.send(h11.EndOfMessage())
                if c.our_state is h11.MUST_CLOSE: break
                c.start_next_cycle()
            else: break
    except h11.RemoteProtocolError as e:
        seen.append("refused: %s" % e)
    return seen
for line in open(sys.argv[1]):
    print(json.dumps(judge(bytes.fromhex(line.strip()))))
]]

  local function hex(text) return (text:gsub(".", function(c) return ("%02x"):format(c:byte()) end)) end

  -- As a judge tells it: each request with its method, its target as sent, its body.
  local function as_judged(row)
    local seen, from = {}, 1
    for answer in (row.answer .. ", "):gmatch "(.-), " do
      local method, _, body = answer:match "^200 (%S+) (%S+) ?(.*)$"
      if method then
        local target, next_from = row.bytes:match("%S+ (%S+) HTTP/1%.%d\r\n()", from)
        seen[#seen + 1], from = ("%s %s %s"):format(method, target, body), next_from
      end
    end
    return seen
  end

  -- What we accept is understood in the same way; `but` names rows that the judge refuses, being stricter there.
  local function check(program, script, file, but)
    local folder = command.folder()
    finally(function() command.remove(folder) end)
    local rows, lines = {}, {}
    for _, row in ipairs(rows_of.read()) do
      if row.answer:find "^200 " or row.answer:find "^100, 200 " then
        rows[#rows + 1], lines[#lines + 1] = row, hex(row.bytes)
      end
    end
    assert.is_true(#rows > 35)
    command.write(folder .. "/rows", table.concat(lines, "\n") .. "\n")
    command.write(folder .. "/" .. file, script)
    local out = command.shell(("%s %s/%s %s/rows 2>%s/said"):format(program, folder, file, folder, folder))
    local json, n = require "spec.support.json_decode", 0
    for line in out:gmatch "[^\n]+" do
      n = n + 1
      local row, judged = rows[n], json(line)
      if not but[row.what] then
        local expected = as_judged(row)
        -- Behind the end of a connection there may be more, which nobody answers.
        for i = #expected + 1, #judged do judged[i] = nil end
        assert.same({ row.what, expected }, { row.what, judged })
      end
    end
    assert.equal(#rows, n, command.read(folder .. "/said"))
  end

  it("understands what it accepts as llhttp does", function()
    needs "node"
    check("node --no-warnings", NODE, "judge.js", {
      ["methods have a case"] = true, -- it knows a list of methods
    })
  end)

  it("understands what it accepts as h11 does", function()
    if command.shell "/usr/bin/python3 -c 'import h11' 2>&1; echo $?" ~= "0\n" then pending "h11 is not installed" end
    check("/usr/bin/python3", H11, "judge.py", {
      ["one empty line before it"] = true, -- it wants none
      ["HTTP/1.0 that is kept"] = true, -- it ends each connection of HTTP/1.0
    })
  end)
end)
