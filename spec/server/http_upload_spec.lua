--- Bodies of requests that are read in pieces, over sockets, with clients that we did not write.
local command = require "spec.support.command"
local has = require "spec.support.has"
local server = require "spec.support.server"
local trace = require "spec.support.trace"

local AGENT = command.read "spec/behaviour/fixtures/http_upload.lua"

local needs = command.needs

-- The first listener alone.
local SCRIPT = AGENT:gsub("return {\n  listen = {.*$", [[
  return { listen = "http://127.0.0.1:0", limits = { body = 1000, upload = "100m", buffers = "2m" }, agent = Agent }]])

local function start(options)
  local all = { script = SCRIPT }
  for key, value in pairs(options or {}) do all[key] = value end
  return server.start(all)
end

local function run(app, line)
  return command.shell(("cd '%s' && (%s) 2>&1"):format(app.folder, (line:gsub("{url}", "http://127.0.0.1:" .. app.port)
    :gsub("{port}", app.port))))
end

describe("http:// with limits.upload", function()
  after_each(server.finish)

  it("takes what curl sends: of a known length, chunked, with an expectation, over HTTP/1.0", function()
    needs "curl"
    local app = start()
    run(app, "head -c 20000000 /dev/zero > large; head -c 900 large > small")
    for _, how in ipairs { "-T large", "-T - < large", "-0 -T large", "-H 'Expect:' --data-binary @large",
      "-H 'Expect: 100-continue' --data-binary @large" } do
      assert.equal(how .. " 20000000", how .. " " .. tostring(
        run(app, "curl -sS -X POST " .. how:gsub("^(.-)( <.*)$", "%1 {url}/read%2")
          .. (how:find "<" and "" or " {url}/read")):match '"bytes":(%d+)'))
    end
    assert.equal("900", run(app, "curl -sS --data-binary @small {url}/body"):match '"bytes":(%d+)')
    assert.equal("413", run(app, "curl -sS -o /dev/null -w '%{http_code}' --data-binary @large {url}/body"))
    assert.equal("413",
      run(app, "curl -sS -o /dev/null -w '%{http_code}' -H 'Content-Length: 104857601' -X POST {url}/read"))
  end)

  it("refuses before the body is sent, and curl sends none", function()
    needs "curl"
    local app = start()
    run(app, "head -c 20000000 /dev/zero > large")
    assert.equal("401 0", run(app, "curl -sS -o /dev/null -w '%{http_code} %{size_upload}' -H 'Expect: 100-continue' "
      .. "--expect100-timeout 300 -T large {url}/refuse"))
    assert.equal("200 1 200 0 ", run(app, "curl -sS -o /dev/null -w '%{http_code} %{num_connects} ' -H 'Expect:' "
      .. "-d abc {url}/none -o /dev/null {url}/none"))
  end)

  it("is recorded piece by piece, and replayed", function()
    local app = start { control = "control.sock" }
    local recording = trace.record(app)
    local client = app:connect()
    for _, bytes in ipairs { "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
      "1\r\n!\r\n0\r\nX-Sum: 6\r\n\r\n", "POST /read HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhe",
      "llo", "POST /refuse HTTP/1.1\r\nHost: a\r\nContent-Length: 9000\r\n\r\nfoo" .. ("x"):rep(5000), ("x"):rep(3997),
      "POST /body HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 3\r\n\r\nf", "oo" } do
      client:send(bytes)
    end
    has('"bytes":3', client:recv_all())
    assert.equal(0, recording:stop().code)
    local ins = {}
    for _, line in ipairs(trace.lines(recording.path)) do
      if line.event == "in" then ins[#ins + 1] = line.frame or "" end
    end
    local all = table.concat(ins)
    has("\r\nTransfer-Encoding: chunked\r\n\r\n", ins[1])
    has("0\r\nX-Sum: 6\r\n\r\nPOST /read", all)
    has("Content-Length: 5\r\n\r\nhelloPOST /refuse", all)

    has("Content-Length: 3\r\n\r\nfoo", all)
    local replayed = trace.replay(app, recording.path, SCRIPT)
    assert.equal(0, replayed.code, replayed.out .. replayed.err)
  end)

  it("takes what Python sends, with requests behind it", function()
    needs "python3"
    local app = start()
    command.write(app.folder .. "/client.py", [[
import http.client, json, socket, sys, zlib
port = int(sys.argv[1])
c = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
data = bytes(range(256)) * 20000
def pieces():
    for i in range(0, len(data), 70000): yield data[i:i + 70000]
for body, headers in (data, {}), (pieces(), {"Transfer-Encoding": "chunked"}):
    c.request("POST", "/read", body, headers, encode_chunked=bool(headers))
    got = json.loads(c.getresponse().read())
    print(got["bytes"] == len(data), got["crc"] == zlib.crc32(data))
s = socket.create_connection(("127.0.0.1", port), timeout=300)
s.sendall(b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
got = b""
while b"hello" not in got: got += s.recv(65536)
s.sendall(b"1\r\n!\r\n0\r\nX-Sum: 6\r\n\r\nGET /none HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
while True:
    more = s.recv(65536)
    if not more: break
    got += more
print(b"5\r\nhello\r\n1\r\n!\r\n0\r\nx-sum: 6\r\n\r\n" in got.lower(), got.endswith(b"none"))
]])
    assert.equal("True True\nTrue True\nTrue True\n", run(app, "python3 client.py {port}"))
  end)
end)
