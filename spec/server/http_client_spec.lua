--- The HTTP client over sockets, with servers that we did not write: Node's and Python's.
local command = require "spec.support.command"
local pki = require "spec.support.pki"
local server = require "spec.support.server"

-- It says its ports, plain and TLS, and then serves; /count tells how many connections there have been.
local NODE = [[
const fs = require("fs"), http = require("http"), https = require("https"), zlib = require("zlib")
let connections = 0
function answer(request, response) {
  const path = request.url.split("?")[0], parts = []
  if (path == "/early") {
    request.resume()
    return response.writeHead(413).end("no")
  }
  request.on("data", part => parts.push(part)).on("end", () => {
    const body = Buffer.concat(parts)
    if (path == "/count") return response.end(String(connections))
    if (path == "/echo") return response.end(body)
    if (path == "/length") return response.end(`${request.headers["transfer-encoding"]} ${body.length}`)
    if (path == "/chunks") {
      response.setHeader("Trailer", "X-Sum")
      for (let i = 0; i < 5; i++) response.write("x".repeat(50000))
      response.addTrailers({ "X-Sum": "7" })
      return response.end()
    }
    if (path == "/gzip") {
      response.setHeader("Content-Encoding", "gzip")
      return response.end(zlib.gzipSync("packed ".repeat(1000)))
    }
    if (path == "/hints") {
      response.writeEarlyHints({ link: "</a.css>; rel=preload" })
      return response.end("hinted")
    }
    if (path == "/away") return response.writeHead(302, { Location: "/echo?x" }).end()
    if (path == "/late") return
    if (path == "/half") {
      response.writeHead(200, { "Content-Length": 100 })
      response.write("half")
      return setImmediate(() => response.socket.destroy())
    }
    response.setHeader("Set-Cookie", ["a=1", "b=2"])
    response.end(JSON.stringify({ method: request.method, url: request.url, auth: request.headers.authorization }))
  })
}
const plain = http.createServer(answer)
const secure = https.createServer({ cert: fs.readFileSync("server.pem"), key: fs.readFileSync("server.key") }, answer)
plain.on("connection", () => connections++)
plain.listen(0, "127.0.0.1", () => secure.listen(0, "127.0.0.1", () =>
  console.log(plain.address().port + " " + secure.address().port)))
]]

-- The same of Python's: HTTP/1.0, which ends each connection.
local PYTHON = [[
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"old " + self.path.encode())
    def log_message(self, *args): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
]]

local SCRIPT = [[
local http = require "perilune.http"
local NODE, SECURE, PYTHON, CA = "http://127.0.0.1:%d", "https://localhost:%d", "http://127.0.0.1:%d", %q
local node = http.client { base = NODE, compress = true }
local trusting = http.client { tls = { authority = CA } }
local calls = {}

local function told(response, why, code)
  return response and ("%%d %%s"):format(response.status, response.body) or ("%%s %%s"):format(code, why)
end

function calls.get()
  local response = node:get("/a", { query = { q = "x y" }, auth = { "ann", "secret" } })
  local said = response:json()
  return table.concat({ said.method, said.url, said.auth, table.concat(response:list "set-cookie", " ") }, " ")
end

function calls.kept()
  local before = tonumber(node:get("/count").body)
  for i = 1, 20 do assert(node:post("/echo", ("x"):rep(i)).body == ("x"):rep(i)) end
  return tostring(tonumber(node:get("/count").body) - before)
end

function calls.large() return tostring(#node:post("/echo", ("x"):rep(2000000)).body) end

function calls.early()
  return told(node:post("/early", ("x"):rep(2000000))) .. " " .. told(node:post("/early", function() return "more" end))
end

function calls.chunks()
  local response = node:get "/chunks"
  return #response.body .. " " .. response.trailers["x-sum"]
end

function calls.gzip() return tostring(#node:get("/gzip").body) end
function calls.hints() return told(node:get "/hints") end
function calls.away() return told(node:get "/away") end
function calls.head() return tostring(node:head("/echo").status) end
function calls.late() return (told(node:get("/late", { timeout = "50ms" }))) end
function calls.half() return told(node:get "/half") end
function calls.python() return told(http.get(PYTHON .. "/x")) .. " " .. http.get(PYTHON .. "/x").version end

function calls.pieces()
  local n, bytes = 0, 0
  local sent = node:post("/length", function()
    n = n + 1
    return n <= 10 and ("x"):rep(10000) or nil
  end).body
  local response = node:get("/chunks", { stream = true })
  for piece in function() return response:read() end do bytes = bytes + #piece end
  return sent .. " " .. bytes
end

function calls.secure() return told(trusting:get(SECURE .. "/echo")) end
function calls.unknown() return (select(3, http.get(SECURE .. "/echo"))) end
function calls.wrong() return (select(3, trusting:get((SECURE:gsub("localhost", "127.0.0.1")) .. "/echo"))) end
function calls.proxied()
  local through = http.client { proxy = "environment" }
  return through:get("http://api.example/x"):json().url .. " " .. through:get(NODE .. "/y"):json().url
end

function calls.refused() return (select(3, http.get "http://127.0.0.1:1/")) end

local Agent = { proceed = function(_, line) return calls[line]() end }
return { listen = "tcp://127.0.0.1:0", frame = "line", agent = Agent }
]]

describe("the HTTP client over sockets", function()
  local PKI, pipes, ports, client = nil, {}, {}, nil

  local function begin(line)
    local pipe = assert(io.popen(("cd %s && echo $$ >>pids && exec %s"):format(PKI.folder, line)))
    pipes[#pipes + 1] = pipe
    return pipe
  end

  setup(function()
    if not (command.has "node" and command.has "python3") then return end
    PKI = pki.new()
    PKI:sign("server", { names = { "localhost" } })
    command.write(PKI.folder .. "/serve.js", NODE)
    command.write(PKI.folder .. "/serve.py", PYTHON)
    local node, python = begin "node serve.js", begin "python3 serve.py"
    ports = { node:read("*n"), node:read("*n"), python:read("*n") }
    local app = server.start {
      script = SCRIPT:format(ports[1], ports[2], ports[3], PKI.folder .. "/ca.pem"),
      env = { http_proxy = "127.0.0.1:" .. ports[1], no_proxy = "localhost, 127.0.0.1" },
    }
    client = app:connect()
  end)

  teardown(function()
    server.finish()
    if not PKI then return end
    for pid in io.lines(PKI.folder .. "/pids") do os.execute("kill " .. pid) end
    for _, pipe in ipairs(pipes) do pipe:close() end
    PKI:remove()
  end)

  local EXPECTED = {
    { "asks, with a query and a password", "get", "GET /a?q=x%20y Basic YW5uOnNlY3JldA== a=1 b=2" },
    { "keeps its connection", "kept", "0" },
    { "sends and takes large bodies", "large", "2000000" },
    { "takes an answer that comes before all was sent", "early", "413 no 413 no" },
    { "reads chunks and trailers", "chunks", "250000 7" },
    { "decodes gzip", "gzip", "7000" },
    { "skips early hints", "hints", "200 hinted" },
    { "follows a redirect", "away", "200 " },
    { "asks for a head", "head", "200" },
    { "waits no longer than it is told", "late", "^ETIMEDOUT " },
    { "says where a body was cut short", "half", "^E%u+ 127%.0%.0%.1:%d+: " },
    { "speaks to an old server", "python", "200 old /x 1.0" },
    { "sends and reads in pieces", "pieces", "chunked 100000 250000" },
    { "verifies a certificate", "secure", "200 " },
    { "refuses one that nobody knows", "unknown", "EPROTO" },
    { "refuses one that is another's", "wrong", "EPROTO" },
    { "asks the proxy of its environment", "proxied", "http://api.example/x /y" },
    { "is refused where nobody listens", "refused", "ECONNREFUSED" },
  }
  for _, case in ipairs(EXPECTED) do
    it(case[1], function()
      if not PKI then return pending "node or python3 is not installed" end
      client:send(case[2] .. "\n")
      local line = client:recv_line():gsub("\n$", "")
      if case[3]:find "^%^" then assert.matches(case[3], line) else assert.equal(case[3], line) end
    end)
  end
end)
