--- Compressed responses over sockets, with clients that we did not write.
local command = require "spec.support.command"
local server = require "spec.support.server"

local AGENT = command.read "spec/behaviour/fixtures/http_compress.lua"
local TEXT = ("a line of a text that can be compressed\n"):rep(100)

local needs = command.needs

-- The first listener alone.
local function start()
  return server.start { script = (AGENT:gsub("sleep%(1%)", "sleep(0.05)"):gsub("return { listen = {.*$",
    'return { listen = "http://127.0.0.1:0", compress = true, agent = Agent }')) }
end

local function run(app, line)
  return command.shell(("cd '%s' && (%s) 2>&1"):format(app.folder, (line:gsub("{url}", "http://127.0.0.1:" .. app.port)
    :gsub("{port}", app.port))))
end

describe("http:// with compress = true", function()
  after_each(server.finish)

  it("is read by curl --compressed", function()
    needs "curl"
    local app = start()
    command.write(app.folder .. "/text", TEXT)
    assert.equal("", run(app, "curl -sS --compressed {url}/text | cmp - text"))
    assert.equal("", run(app, "curl -sS {url}/text | cmp - text"))
    assert.equal("", run(app, "curl -sS -H 'Accept-Encoding: gzip' {url}/text | gzip -dc | cmp - text"))
    assert.equal("piece 1\npiece 2\npiece 3\n", run(app, "curl -sS --compressed {url}/pieces"))
    assert.equal("piece 1\npiece 2\npiece 3\n", run(app, "curl -sS -0 --compressed {url}/pieces"))
    assert.equal("1000000", (run(app, "curl -sS --compressed {url}/large | wc -c"):match "%d+"))
    assert.equal("200 1 200 0 ", run(app, "curl -sS --compressed -o /dev/null -w '%{http_code} %{num_connects} ' "
      .. "{url}/text -o /dev/null {url}/small"))
    assert.equal("18", run(app, "curl -sS --compressed -o /dev/null {url}/fails 2>/dev/null; echo $?"):match "%d+")
  end)

  it("is read by Python, piece by piece", function()
    needs "python3"
    local app = start()
    command.write(app.folder .. "/client.py", [[
import gzip, http.client, sys, zlib
c = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=300)
def ask(method, path, accept):
    c.request(method, path, headers={"Accept-Encoding": accept})
    return c.getresponse()
r = ask("GET", "/text", "gzip")
body = r.read()
print(r.getheader("Content-Encoding"), len(gzip.decompress(body)), len(body) == int(r.getheader("Content-Length")))
r = ask("HEAD", "/text", "gzip")
print(r.getheader("Content-Encoding"), len(r.read()), int(r.getheader("Content-Length")) == len(body))
r = ask("GET", "/text", "gzip;q=0")
print(r.getheader("Content-Encoding"), len(r.read()), r.getheader("Vary"))
r = ask("GET", "/pieces", "gzip")
unzip = zlib.decompressobj(31)
while not unzip.eof:
    piece = unzip.decompress(r.read1())
    if piece: print(piece.decode().strip())
print(r.read() == b"", c.sock is not None)
]])
    assert.equal("gzip 4000 True\ngzip 0 True\nNone 4000 Accept-Encoding\npiece 1\npiece 2\npiece 3\nTrue True\n",
      run(app, "python3 client.py {port}"))
  end)
end)
