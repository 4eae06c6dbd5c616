--- http:// in memory: requests and what handlers make of them, time-outs, limits, drains, reloads, recordings.
local memory = require "spec.support.memory"
local pki = require "spec.support.pki"

local FIXTURE = "spec/behaviour/fixtures/http.lua"

local function open(overrides) return memory.open(FIXTURE, overrides) end

-- The bytes of a request.
local function bytes(line, ...)
  return table.concat({ line .. " HTTP/1.1", "Host: a", ... }, "\r\n") .. "\r\n\r\n"
end

describe("http:// in memory", function()
  local PKI, server

  setup(function()
    PKI = pki.new()
    server = PKI:sign("server", { names = { "localhost" } })
  end)
  teardown(function() PKI:remove() end)
  after_each(memory.finish)

  describe("a request", function()
    it("has what the client has sent", function()
      local client = open():connect { from = "10.0.0.7:5060" }
      client:send_raw(bytes("GET /about?a=1&b=%41+%2b&a=2&c", "ACCEPT: x", "Cookie: k=v", "accept:  y \t",
        "Cookie: l=w"))
      client.asked = { "GET" }
      local about = client:response():json()
      assert.same({ "GET", "/about", "a=1&b=%41+%2b&a=2&c", "/about?a=1&b=%41+%2b&a=2&c", "a", "1.1", "10.0.0.7:5060" },
        { about.method, about.path, about.query, about.target, about.host, about.version, about.peer })
      assert.same({ a = "1", b = "A +", c = "" }, about.args)
      assert.same({ "x, y", "x, y", "k=v; l=w" }, { about.accept, about.Accept, about.cookie })
      assert.is_nil(about.none)
      assert.is_true(about.same)
      assert.equal("HTTP request GET /about", about.text)
      assert.same({ { "Host", "a" }, { "ACCEPT", "x" }, { "Cookie", "k=v" }, { "accept", "y" }, { "Cookie", "l=w" } },
        about.fields)
    end)

    it("has the host of its target, where there is one", function()
      local client = open():connect()
      local about = client:get("http://b.example:81/about"):json()
      assert.same({ "b.example:81", "/about" }, { about.host, about.path })
      assert.equal("localhost", client:get("/about"):json().host)
    end)

    it("has its body whole, however it comes", function()
      local client = open():connect()
      assert.equal("a\0b", client:request({ method = "PUT", path = "/echo", body = "a\0b" }).body)
      local chunked = bytes("POST /echo", "Transfer-Encoding: chunked") .. "3\r\nabc\r\n2\r\nde\r\n0\r\nX: y\r\n\r\n"
      client:send_split(chunked)
      assert.equal("abcde", client:response().body)
      assert.equal("", client:get("/echo").body)
      local large = ("x"):rep(300000)
      assert.equal("300000", client:request({ method = "POST", path = "/length", body = large }).body)
    end)

    it("reads JSON, or says why it cannot", function()
      local client = open():connect()
      assert.same({ value = { 1, 2 } }, client:request({ path = "/json", body = "[1,2]" }):json())
      assert.truthy(client:request({ path = "/json", body = "[1," }):json().message:find "expected at byte")
    end)

    -- What reads a head into a table, in C, beside what reads it field by field, in Lua. A line feed alone is refused
    -- before.
    it("has the fields of its head, whatever that looks like", function()
      local headers = require "perilune.headers"
      local PARTS = { "\r\n", "\r\n", "\r", ":", ": ", " ", "\t", "a", "B", "Cookie", "b:c", "\0", "\255", "" }
      local function expected(head)
        local all = {}
        for name, value in headers.each(head) do
          name = name:lower()
          all[name] = all[name] and all[name] .. (name == "cookie" and "; " or ", ") .. value or value
        end
        return all
      end
      math.randomseed(1)
      for _ = 1, 5000 do
        local parts = {}
        for i = 1, math.random(0, 24) do parts[i] = PARTS[math.random(#PARTS)] end
        local head, found = table.concat(parts), {}
        for name, value in next, headers.read(head) do found[name] = value end
        assert.same(expected(head), found, ("%q"):format(head))
      end
    end)

    it("is a request at every split", function()
      local client = open():connect { read_max = 1 }
      for _ = 1, 3 do
        assert.equal("hi", client:request({ method = "POST", path = "/echo", body = "hi" }).body)
      end
    end)
  end)

  describe("what proceed returns", function()
    it("becomes a response", function()
      local client = open():connect()
      local text = client:get "/"
      assert.same({ 200, "hello", "text/plain; charset=utf-8", "5" },
        { text.status, text.body, text.headers["Content-Type"], text.headers["content-length"] })
      assert.truthy(text.headers.Date:find "^%a%a%a, %d%d %a%a%a %d%d%d%d %d%d:%d%d:%d%d GMT$")
      local json = client:get "/table"
      assert.same({ 200, '{"a":1}', "application/json" }, { json.status, json.body, json.headers["Content-Type"] })
      for _, path in ipairs { "/nil", "/false" } do
        local none = client:get(path)
        assert.same({ 204, "" }, { none.status, none.body })
        assert.is_nil(none.headers["Content-Length"])
      end
      assert.equal("12.5", client:get("/number").body)
      assert.equal("hello", client:get("/kept").body)
      assert.equal("hello", client:get("/kept").body)
    end)

    it("may be made with status, headers and body", function()
      local client = open():connect()
      local made = client:get "/made?status=418&name=X-A&value=b&body=c"
      assert.same({ 418, "b", "c" }, { made.status, made.headers["x-a"], made.body })
      local html = client:get "/html"
      assert.same({ 404, "text/html; charset=utf-8", "x" },
        { html.status, html.headers["Content-Type"], html.headers.Vary })
      local elsewhere = client:get "/elsewhere?status=308"
      assert.same({ 308, "/there" }, { elsewhere.status, elsewhere.headers.Location })
      assert.same({ error = "Gone" }, client:get("/gone?status=410"):json())
      assert.same({ error = "why" }, client:get("/gone?status=410&message=why"):json())
      local many = client:get "/many"
      assert.same({ 201, "a=1, b=2", "5", "close" },
        { many.status, many.headers["Set-Cookie"], many.headers.Age, many.headers.Connection })
      client:expect_closed "agent"
    end)

    for path, why in pairs {
      ["/made?name=X&value=a%0d%0aY:%20b"] = "header field X: its value has a control character, at byte 2",
      ["/made?name=X&value=a%00"] = "header field X: its value has a control character, at byte 2",
      ["/made?name=X%20Y&value=a"] = "the name of a header field is a word",
      ["/made?name=Content-Length&value=5"] = "header field Content-Length: it is made from the body",
      ["/made?name=transfer-encoding&value=chunked"] = "header field transfer-encoding: bodies are framed here",
      ["/made?name=Connection&value=upgrade"] = "header field Connection: the only value is \"close\"",
      ["/made?status=100"] = "a status is a whole number from 200 to 599, got 100",
      ["/made?status=204&body=x"] = "a 204 has no body",
      ["/elsewhere?to=/a%0d%0ab"] = "http.redirect: expects a path or an address without blanks",
      ["/elsewhere?status=200"] = "http.redirect: the status is 301, 302, 303, 307 or 308, got 200",
      ["/gone?status=200"] = "http.error: expects a status from 400 to 599, got 200",
      ["/changed"] = "a response is made whole",
      ["/error"] = "boom",
      ["/true"] = "a reply of an HTTP agent is a string, a table",
      ["/function"] = "it is a function",
      ["/request"] = "it is a request",
      ["/conn"] = "it is a conn",
      ["/third"] = "a handler returned an error as its reply: no such user (ENOENT)",
      ["/twice"] = "there is no request to answer",
    } do
      it("may be at fault: " .. path, function()
        local app = open()
        local client = app:connect()
        local response = client:get(path)
        if path ~= "/twice" then
          assert.equal(500, response.status)
          assert.equal("close", response.headers.Connection)
        end
        client:expect_closed "error"
        assert.truthy(app:log()[1].error:find(why, 1, true), app:log()[1].error)
        assert.equal(path ~= "/twice" and 1 or 0, app:counters().http_500)
      end)
    end

    it("may be said before, by conn:send", function()
      local client = open():connect()
      assert.same({ early = true }, client:get("/early"):json())
      assert.equal("hello", client:get("/").body)
    end)

    it("is said by proceed alone", function()
      local app = open()
      local client = app:connect()
      assert.equal(200, client:get("/later").status)
      app:advance "2s"
      client:expect_closed "error"
      assert.truthy(app:log()[1].error:find("timer cannot answer", 1, true))
    end)

    it("is all that there is: an HTTP connection has no frames", function()
      local client = open():connect()
      for _, path in ipairs { "/read", "/set_frame", "/shutdown" } do
        assert.truthy(client:get(path).body:find("an HTTP connection has requests", 1, true))
      end
    end)

    it("is 500 where a call takes too long", function()
      local app = open { limits = { proceed = "5ms" } }
      local client = app:connect()
      assert.equal(500, client:get("/loop").status)
      client:expect_closed "proceed_timeout"
    end)

    it("is nothing where the agent hangs up", function()
      open():connect():ask("/leave"):expect_closed "agent"
    end)
  end)

  it("has a module that scripts cannot change for others", function()
    local app = memory.open(FIXTURE)
    assert.equal(500, app:connect():get("/assign").status)
    assert.truthy(app:log()[1].error:find("perilune.http.text cannot be assigned", 1, true), app:log()[1].error)
  end)

  describe("a connection", function()
    it("has no more requests than limits.requests", function()
      local app = open { limits = { requests = 3 } }
      local client = app:connect()
      client:send_raw((bytes "GET /about"):rep(4))
      client.asked = { "GET", "GET", "GET" }
      assert.same({ nil, nil, "close" }, { client:response().headers.Connection, client:response().headers.Connection,
        client:response().headers.Connection })
      client:expect_closed "agent"
      client = app:connect()
      for _ = 1, 2 do assert.equal(200, client:get("/about").status) end
      assert.equal("close", client:request({ method = "POST", path = "/echo", body = "x" }).headers.Connection)
      client:expect_closed "agent"
      assert.equal(6, app:counters().http_requests)
    end)

    it("serves one request after the other", function()
      local app = open()
      local client = app:connect()
      client:ask("/late"):ask("/"):ask("/late?s=2"):ask("/table")
      client:expect_nothing()
      app:advance "1s"
      assert.equal("late /late", client:response().body)
      assert.equal("hello", client:response().body)
      client:expect_nothing()
      app:advance "2s"
      assert.equal("late /late", client:response().body)
      assert.equal('{"a":1}', client:response().body)
    end)

    it("serves many that come at once", function()
      local app = open()
      local client = app:connect()
      local all = {}
      for i = 1, 1000 do
        all[i] = bytes "GET /"
        client.asked = client.asked or {}
        client.asked[i] = "GET"
      end
      client:send_raw(table.concat(all))
      for _ = 1, 1000 do assert.equal("hello", client:response().body) end
      assert.equal(1000, app:counters().http_requests)
    end)

    it("ends after a request that says so", function()
      local client = open():connect()
      local response = client:get("/", { Connection = "close" })
      assert.equal("close", response.headers.Connection)
      client:expect_closed "peer"
    end)

    it("ends after one of HTTP/1.0, unless it says otherwise", function()
      local app = open()
      local client = app:connect()
      client:send_raw "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
      assert.equal("keep-alive", client:response().headers.Connection)
      client:send_raw "GET / HTTP/1.0\r\n\r\n"
      assert.equal("close", client:response().headers.Connection)
      client:expect_closed "peer"
    end)

    it("ends after an action", function()
      local app = open()
      local client = app:connect()
      assert.equal("close", client:get("/bye").headers.Connection)
      client:expect_closed "agent"
      client = app:connect()
      local none = client:get "/nothing"
      assert.same({ 204, "close" }, { none.status, none.headers.Connection })
      client:expect_closed "agent"
    end)

    it("answers who has half-closed", function()
      local app = open()
      local client = app:connect()
      client:ask("/late"):half_close()
      app:advance "1s"
      assert.equal("late /late", client:response().body)
      client:expect_closed "peer"
    end)

    it("answers all that such a client has sent", function()
      local app = open()
      local client = app:connect()
      client:ask("/late"):ask("/"):ask("/table"):half_close()
      app:advance "1s"
      assert.equal("late /late", client:response().body)
      assert.equal("hello", client:response().body)
      assert.equal('{"a":1}', client:response().body)
      client:expect_closed "peer"
      local begun = app:connect()
      begun:send_raw("GET / HTTP"):half_close():expect_nothing():expect_closed "peer"
    end)

    it("says 100 Continue before a body that is to come, and 413 in its place", function()
      local app = open()
      local client = app:connect()
      client:send_raw(bytes("POST /echo", "Content-Length: 2", "Expect: 100-continue"))
      client:expect "HTTP/1.1 100 Continue\r\n\r\n"
      client:send_raw "hi"
      assert.equal("hi", client:response().body)
      client:send_raw(bytes("POST /echo", "Content-Length: 1048577", "Expect: 100-continue"))
      assert.equal(413, client:response().status)
      client:expect_closed "oversize"
    end)

    it("has no body after HEAD", function()
      local client = open():connect()
      local head = client:request { method = "HEAD" }
      assert.same({ "5", "" }, { head.headers["Content-Length"], head.body })
      assert.equal("hello", client:get("/").body)
    end)
  end)

  describe("a refusal", function()
    for status, request in pairs {
      [400] = "GET / HTTP/1.1\nHost: a\r\n\r\n",
      [413] = bytes("POST /", "Content-Length: 200"),
      [414] = "GET /" .. ("a"):rep(70) .. " HTTP/1.1\r\n\r\n",
      [417] = bytes("POST /", "Content-Length: 1", "Expect: all"),
      [431] = bytes("GET /", "X: " .. ("a"):rep(100)),
      [501] = "CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n",
      [505] = "GET / HTTP/3.0\r\n\r\n",
    } do
      it("has status " .. status .. ", and is counted", function()
        local app = open { limits = { body = 100, uri = 64, headers = 100 } }
        local client = app:connect()
        client:send_raw(request .. "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        local response = client:response()
        assert.same({ status, "close", "text/plain; charset=utf-8" },
          { response.status, response.headers.Connection, response.headers["Content-Type"] })
        assert.truthy(response.body:find("^" .. status .. " %u"))
        client:expect_nothing()
        client:close()
        assert.equal(1, app:counters()["http_" .. status])
        assert.equal(0, app:counters().http_requests)
        assert.equal("bad frame", app:log()[1].message)
        assert.truthy(app:log()[1].error:find("HTTP " .. status .. ": ", 1, true))
      end)
    end

    it("comes behind the responses that are owed", function()
      local app = open()
      local client = app:connect()
      client:ask("/late"):send_raw "rubbish\r\n"
      app:advance "1s"
      assert.equal("late /late", client:response().body)
      assert.equal(400, client:response().status)
    end)
  end)

  describe("perilune.stats()", function()
    local COUNTING = [[
      local http, perilune = require "perilune.http", require "perilune"
      return { listen = "http://:1", limits = { body = 10 }, agent = { proceed = function(self, request)
        local path = request.path
        if path == "/stats" then return perilune.stats() end
        if path == "/fails" then error "no" end
        if path == "/pieces" then return http.stream(function(out) out:write "x" end, { status = 203 }) end
        return http.response { status = tonumber(path:sub(2)) }
      end } }
    ]]

    it("counts responses by the class of their status, whoever makes them, of all workers", function()
      local app = assert(memory.script(COUNTING, nil, { workers = 2 }))
      local clients = { app:connect { worker = 0 }, app:connect { worker = 1 } }
      for i, path in ipairs { "/200", "/204", "/301", "/304", "/404", "/499", "/503", "/pieces" } do
        clients[i % 2 + 1]:get(path)
      end
      assert.equal(500, app:connect():get("/fails").status)
      assert.equal(400, app:connect():send_raw("rubbish\r\n"):response().status)
      assert.equal(413, app:connect():send_raw(bytes("POST /", "Content-Length: 11")):response().status)
      local stats = clients[1]:get("/stats"):json()
      assert.same({ 3, 2, 4, 2 }, { stats.http_2xx, stats.http_3xx, stats.http_4xx, stats.http_5xx })
      assert.same({ 1, 1, 1 }, { stats.http_400, stats.http_413, stats.http_500 })
      assert.same({ 5, 2, { error = 1 } }, { stats.accepted, stats.open, stats.fault_reasons })
      assert.equal(4, app:counters().http_2xx) -- and that of the figures themselves
    end)

    it("has what the app's counters are", function()
      local app = assert(memory.script(COUNTING, nil, { workers = 2 }))
      local stats = app:connect():get("/stats"):json()
      local counters = app:counters()
      for name, value in pairs(stats) do
        if type(value) == "number" and name ~= "open" then assert.is_number(counters[name], name) end
      end
      assert.is_number(stats.websocket_1009)
      assert.same({ {}, {} }, { stats.reasons, stats.fault_reasons })
    end)
  end)

  describe("time", function()
    it("is out for a head that drips", function()
      local app = open { timeout = { header = "10s", idle = "60s" } }
      local client = app:connect()
      app:advance "50s"
      for byte in ("GET / HTTP"):gmatch "." do
        client:send_raw(byte)
        app:advance "1s"
      end
      assert.equal(408, client:response().status)
      client:expect_closed "read_timeout"
      assert.equal(1, app:counters().http_408)
    end)

    local HALF = "GET / HTTP/1.1\r\nHost: a\r\nX-Half: a"

    local function halves(app, n)
      local clients = {}
      for i = 1, n do clients[i] = app:connect():send_raw(HALF) end
      return clients
    end

    it("is out for many who send half a head, and others are served meanwhile", function()
      local many = memory.scaled(2000, 300)
      local app = open { timeout = { header = "10s" }, limits = { connections = 3000 } }
      local clients, neighbour = halves(app, many), app:connect()
      assert.is_true(app:memory().buffers <= many * 4096)
      app:advance "9s"
      assert.same({ "hello", 0 }, { neighbour:get("/").body, app:counters().http_408 })
      app:advance "1s"
      assert.same({ "hello", many }, { neighbour:get("/").body, app:counters().http_408 })
      for _, client in ipairs(clients) do
        assert.equal(408, client:response().status)
        client:expect_closed "read_timeout"
      end
      assert.same({ 0, many, many }, { app:memory().buffers, app:counters().closed, app:counters().http_4xx })
    end)

    it("needs no more than limits.buffers for them, whoever has to go", function()
      local app = open { limits = { buffers = "512k", body = "64k" } }
      halves(app, 200)
      local buffers = app:memory().buffers
      assert.is_true(buffers > 400000 and buffers <= 512 * 1024)
      assert.equal("hello", app:connect():get("/").body)
      local closed = app:counters().closed
      assert.is_true(closed >= 200 - 128 and closed < 100)
      app:advance "10s"
      assert.same({ 200 - closed, 0 }, { app:counters().http_408, app:memory().buffers })
      local told = app:log "connections are ended: the memory for buffers is used up"
      assert.same({ 1, "warn", "limits.buffers", 512 * 1024, 1 },
        { #told, told[1].level, told[1].limit, told[1].worker_bytes, told[1].ended })
      halves(app, 200)
      told = app:log "connections are ended: the memory for buffers is used up"
      assert.same({ 2, closed }, { #told, told[2].ended })
    end)

    it("is out for a body that does not come on, and not for one that does", function()
      local app = open { timeout = { header = "2s", body = "10s", idle = "15s" } }
      local slow, late, chunked = app:connect(), app:connect(), app:connect()
      slow:send_raw(bytes("POST /echo", "Content-Length: 5"))
      late:send_raw(bytes("POST /echo", "Content-Length: 5"))
      chunked:send_raw(bytes("POST /echo", "Transfer-Encoding: chunked"))
      for byte in ("hell"):gmatch "." do
        app:advance "9s"
        slow:send_raw(byte)
        chunked:send_raw("1\r\n" .. byte .. "\r\n")
      end
      assert.equal(408, late:response().status)
      late:expect_closed "read_timeout"
      slow:send_raw "o"
      assert.equal("hello", slow:response().body)
      chunked:expect_nothing()
      app:advance "10s"
      assert.equal(408, chunked:response().status)
    end)

    it("is out between requests without a word", function()
      local app = open { timeout = { idle = "5s" } }
      local client = app:connect()
      client:get "/"
      app:advance "4s"
      client:get "/"
      app:advance "4s"
      assert.is_nil(client:closed())
      app:advance "1s"
      client:expect_nothing():expect_closed "idle_timeout"
    end)

    it("is not counted while a handler waits", function()
      local app = open { timeout = { idle = "5s", header = "1s" } }
      local client = app:connect()
      client:ask "/late?s=20":send_raw "GET /"
      app:advance "20s"
      assert.equal("late /late", client:response().body)
      app:advance "900ms"
      client:send_raw " HTTP/1.1\r\nHost: a\r\n\r\n"
      assert.equal("hello", client:response().body)
    end)
  end)

  describe("a drain", function()
    it("answers what is under way, with Connection: close, and ends the others", function()
      local app = open()
      local busy, idle, begun = app:connect(), app:connect(), app:connect()
      idle:get "/"
      busy:ask "/late"
      begun:send_raw "GET /"
      app:begin_drain()
      idle:expect_closed "drain"
      idle:expect_nothing()
      app:advance "1s"
      local response = busy:response()
      assert.same({ "late /late", "close" }, { response.body, response.headers.Connection })
      busy:expect_closed "drain"
      app:advance "2s"
      assert.equal(503, begun:response().status)
      begun:expect_closed "drain"
    end)
  end)

  describe("a reload", function()
    local function version(text)
      local Agent = {}
      function Agent:opened() self.count = 0 end
      function Agent:proceed(request)
        if request.path == "/late" then require("perilune").sleep(1) end
        self.count = self.count + 1
        return text .. self.count
      end
      return { listen = "http://127.0.0.1:0", agent = Agent }
    end

    it("takes connections over between two requests", function()
      local app = memory.open(version "old ")
      local idle, busy, begun = app:connect(), app:connect(), app:connect()
      assert.equal("old 1", idle:get("/").body)
      busy:ask("/late"):ask "/"
      begun:send_raw "GET / HT"
      app:reload(version "new ")
      assert.equal("new 1", idle:get("/").body)
      begun:send_raw "TP/1.1\r\nHost: a\r\n\r\n"
      assert.equal("old 1", begun:response().body)
      assert.equal("new 1", begun:get("/").body)
      app:advance "1s"
      assert.equal("old 1", busy:response().body)
      assert.equal("new 1", busy:response().body)
      assert.is_nil(idle:closed())
    end)
  end)

  it("has TLS where the address says so", function()
    local app = memory.start({ proceed = function(_, request) return request.tls.version end }, {
      listen = "https://127.0.0.1:0", tls = { certificate = server.certificate, key = server.key } })
    local client = app:connect { tls = {} }
    assert.equal("1.3", client:get("/").body)
    client:send_raw "rubbish\r\n"
    assert.equal(400, client:response().status)
    client:expect_closed "frame_error"
  end)
end)

-- The same over whatever carries it, and however that cuts it.
describe("http:// over", function()
  local PKI, cert

  setup(function()
    PKI = pki.new()
    cert = PKI:sign("server", { names = { "localhost" } })
  end)
  teardown(function() PKI:remove() end)
  after_each(memory.finish)

  local HEADER = { client = "203.0.113.7:5060" }
  local FRONTS = {
    TCP = { listen = "http://127.0.0.1:0" },
    ["a Unix socket"] = { listen = "unix://http.sock", protocol = "http" },
    TLS = { listen = "https://127.0.0.1:0", tls = true },
    ["a proxy"] = { listen = "http://127.0.0.1:0", proxy = true },
    ["TLS behind a proxy"] = { listen = "https://127.0.0.1:0", tls = true, proxy = true },
  }

  for name, front in pairs(FRONTS) do
    for _, most in ipairs { 0, 1, 7 } do
      it(("%s, %s"):format(name, most == 0 and "whole" or most .. " bytes at a time"), function()
        local Agent = {}
        function Agent:proceed(request)
          if request.path == "/late" then require("perilune").sleep(1) end
          return request.method .. " " .. request.path .. " " .. request.body
        end
        local app = memory.start(Agent, { listen = front.listen, protocol = front.protocol, proxy = front.proxy,
          trust = front.proxy and { "127.0.0.1" }, limits = { proceed = "10s" },
          tls = front.tls and { certificate = cert.certificate, key = cert.key } })
        local client = app:connect { read_max = most, write_max = most, tls = front.tls and {},
          proxy = front.proxy and HEADER }
        client.asked = { "POST", "GET", "HEAD", "PUT", "GET" }
        client:send_raw(bytes("POST /a", "Transfer-Encoding: chunked") .. "5\r\nhello\r\n1\r\n!\r\n0\r\nX: y\r\n\r\n"
          .. bytes "GET /late" .. bytes "HEAD /b" .. bytes("PUT /c", "Content-Length: 2") .. "hi" .. "GET /d\r\n")
        assert.equal("POST /a hello!", client:response().body)
        app:advance "1s"
        assert.equal("GET /late ", client:response().body)
        assert.equal("8", client:response().headers["Content-Length"])
        assert.equal("PUT /c hi", client:response().body)
        assert.equal(400, client:response().status)
        client:close():expect_closed "frame_error"
      end)
    end
  end
end)

describe("a client of perilune.test", function()
  after_each(memory.finish)

  it("says what is wrong with a request", function()
    local client = open():connect()
    for call, why in pairs {
      [function() client:request { url = "/" } end] = "unknown option url",
      [function() client:request "/" end] = "request: a table is expected",
      [function() client:ask(5) end] = "ask: a path or a table is expected",
      [function() client:response() end] = "expected a response: nothing came",
    } do
      local ok, message = pcall(call)
      assert.is_false(ok)
      assert.truthy(tostring(message):find(why, 1, true), tostring(message))
    end
  end)

  it("has responses only of http://", function()
    local client = memory.lines({ proceed = function() return "x" end }):connect()
    local _, message = pcall(client.get, client, "/")
    assert.truthy(tostring(message):find("only for a client of an http:// listener", 1, true))
  end)
end)
