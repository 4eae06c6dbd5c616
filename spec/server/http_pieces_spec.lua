--- Responses in pieces and files over sockets, with clients that we did not write.
local command = require "spec.support.command"
local has = require "spec.support.has"
local pki = require "spec.support.pki"
local served = require "spec.support.served"
local server = require "spec.support.server"
local trace = require "spec.support.trace"

local AGENT = command.read "spec/behaviour/fixtures/http_stream.lua"

local FILES = [[
local http = require "perilune.http"
local files = http.files(%q, { precompressed = true })
return { listen = %q, %s agent = { proceed = function(_, request) return files(request) end } }
]]

local needs = command.needs

-- What a command of the shell writes, with {url} filled in.
local function run(app, line)
  return command.shell(("cd '%s' && (%s) 2>&1"):format(app.folder, (line:gsub("{url}", "http://127.0.0.1:" .. app.port)
    :gsub("{port}", app.port))))
end

describe("http:// in pieces", function()
  after_each(server.finish)

  it("serves curl: chunked, with trailers, cut short, HTTP/1.0", function()
    needs "curl"
    local app = server.start { script = AGENT }
    local out = run(app, "curl -sS -i {url}/length?n=3\\&text=abc; curl -sS {url}/large?n=20\\&bytes=100000 | wc -c")
    has("Content-Length: 3\r\n", out)
    has("2000000", out)
    out = run(app, "curl -sS -i {url}/nothing")
    has("Transfer-Encoding: chunked\r\n", out)
    out = run(app, "curl -sS {url}/fails?late=1; echo \" $?\"")
    has("begun", out)
    has(" 18", out)
    out = run(app, "curl -sS -0 {url}/fails?late=1; echo \" $?\"") -- nothing but a reset tells HTTP/1.0 that it is cut
    has(" 56", out)
    out = run(app, "curl -sS -0 -i {url}/large?n=2\\&bytes=5")
    has("Connection: close\r\n", out)
    has("xxxxxxxxxx", out)
    assert.equal("5 1", (run(app, "curl -sS -o /dev/null -w '%{size_download} ' {url}/length?n=5\\&text=abcde; "
      .. "curl -sS -o /dev/null -w '%{num_connects}' {url}/nothing")))
  end)

  it("has descriptors again where responses with files were made and not sent", function()
    needs "curl"
    local app = server.start { nofile = 64, script = [[
      local http = require "perilune.http"
      local site = http.files "."
      return { listen = "http://127.0.0.1:0", agent = { proceed = function(_, request)
        for _ = 1, 60 do site(request) end
        return site(request)
      end } }]] }
    assert.equal("200", (run(app, "curl -sS -o /dev/null -w '%{http_code}' {url}/app.lua")))
  end)

  it("serves Python's http.client, which reads events as they come", function()
    needs "python3"
    local app = server.start { script = AGENT }
    command.write(app.folder .. "/client.py", [[
import http.client, sys
c = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=300)
c.request("GET", "/large?n=30&bytes=50000")
r = c.getresponse()
print(r.status, len(r.read()), r.getheader("Transfer-Encoding"))
c.request("HEAD", "/large")
print(c.getresponse().read())
c.request("GET", "/length?n=5&text=ab")
try:
    c.getresponse().read()
except http.client.IncompleteRead as e:
    print("cut:", e.partial)
c.close()
c.request("GET", "/events", headers={"Last-Event-ID": "9"})
r = c.getresponse()
print(r.getheader("Content-Type"), [r.readline() for _ in range(4)])
]])
    assert.equal([[
200 1500000 chunked
b''
cut: b'ab'
text/event-stream [b'id: 7\n', b'retry: 3000\n', b'data: from 9\n', b'\n']
]], run(app, "python3 client.py {port}"))
  end)

  it("is recorded, and replayed", function()
    local script = server.start { script = AGENT, control = "control.sock" }
    local recording = trace.record(script)
    local client = script:connect()
    client:send("GET /length?n=6&text=abc,def HTTP/1.1\r\nHost: a\r\n\r\nGET /large?n=3&bytes=100000 HTTP/1.1\r\n"
      .. "Host: a\r\nConnection: close\r\n\r\n")
    has("abcdef", client:recv_all())
    assert.equal(0, recording:stop().code)
    local replayed = trace.replay(script, recording.path, AGENT)
    assert.equal(0, replayed.code, replayed.out .. replayed.err)
    replayed = trace.replay(script, recording.path, (AGENT:gsub('%("x"%):rep', '("y"):rep')))
    assert.equal(1, replayed.code)
  end)

  describe("files", function()
    local place

    setup(function()
      place = served.new()
      place:write("public/large.bin", ("0123456789abcdef"):rep(200000))
    end)
    teardown(function() place:remove() end)

    local function start(listen, settings)
      local script = FILES:format(place.folder .. "/public", listen or "http://127.0.0.1:0", settings or "")
      return server.start { script = script }
    end

    it("are served to curl: whole, in ranges, on from where it was, compressed", function()
      needs "curl"
      local app = start()
      local large = place.folder .. "/public/large.bin"
      assert.equal("", run(app, ("curl -sS {url}/large.bin | cmp - '%s'"):format(large)))
      assert.equal("bcde", run(app, "curl -sS -r 11-14 {url}/large.bin"))
      assert.equal("", run(app, ("head -c 1000000 '%s' >part && curl -sS -C - -o part {url}/large.bin && cmp part '%s'")
        :format(large, large)))
      has("416", run(app, "curl -sS -o /dev/null -w '%{http_code}' -r 9999999- {url}/large.bin"))
      assert.equal("gzipped", run(app, "curl -sS -H 'Accept-Encoding: gzip' {url}/page.js"))
      assert.equal("200 304", run(app, "curl -sS -o /dev/null --etag-save tag -w '%{http_code} ' {url}/digits.txt; "
        .. "curl -sS -o /dev/null --etag-compare tag -w '%{http_code}' {url}/digits.txt"))
      assert.equal("304", run(app, "curl -sS -R -o digits.txt {url}/digits.txt; "
        .. "curl -sS -o /dev/null -z digits.txt -w '%{http_code}' {url}/digits.txt"))
      assert.equal("<p>docs", run(app, "curl -sSL {url}/docs"))
      assert.equal("404404404", run(app, "for p in ../secret %2e%2e/secret out; do "
        .. "curl -sS --path-as-is -o /dev/null -w '%{http_code}' {url}/$p; done"))
    end)

    -- More than the system keeps for a peer: the rest waits in the file.
    local HUGE = ("%07d\n"):format(1234567):rep(64) -- 512 bytes

    local function ask(app, path)
      return app:connect():send(("GET %s HTTP/1.1\r\nHost: a\r\n\r\n"):format(path))
    end

    local function head_of(client)
      local head = {}
      repeat head[#head + 1] = client:recv_exact(1) until head[#head] == "\n" and head[#head - 2] == "\n"
      return table.concat(head)
    end

    it("are there to the last byte where the client reads them late, and so is what it asks for behind them", function()
      place:write("public/huge.bin", HUGE:rep(48 * 2048)) -- 48 MiB
      local app = start()
      local late = ask(app, "/huge.bin"):send "GET /digits.txt HTTP/1.1\r\nHost: a\r\n\r\n"
      has("Content-Length: 50331648\r\n", head_of(late))
      has("Content-Length: 10\r\n", head_of(ask(app, "/digits.txt"))) -- others are served meanwhile
      for i = 1, 48 do assert.is_true(late:recv_exact(2 ^ 20) == HUGE:rep(2048), "MiB " .. i) end
      has("Content-Length: 10\r\n", head_of(late))
      assert.equal("0123456789", late:recv_exact(10))
    end)

    it("that become shorter while they are sent end the connection, and that is told", function()
      place:write("public/huge.bin", HUGE:rep(48 * 2048))
      local app = start()
      local client = ask(app, "/huge.bin")
      head_of(client)
      assert(command.shell(("truncate -s 1000 '%s/public/huge.bin'"):format(place.folder)))
      assert.is_true(#client:recv_all() < 48 * 2 ^ 20)
      has("the file has become shorter while it was sent", app:wait_log "handler failed".excerpt)
    end)

    it("are served over TLS", function()
      needs "curl"
      local PKI = pki.new()
      finally(function() PKI:remove() end)
      local cert = PKI:sign("server", { names = { "localhost" } })
      local app = start("https://127.0.0.1:0",
        ("tls = { certificate = %q, key = %q },"):format(cert.certificate, cert.key))
      assert.equal("", run(app, ("curl -sS -k https://127.0.0.1:{port}/large.bin | cmp - '%s/public/large.bin'")
        :format(place.folder)))
    end)
  end)
end)
