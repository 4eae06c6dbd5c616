--- Responses in pieces and server-sent events, in memory.
local memory = require "spec.support.memory"

local function open(overrides) return memory.open("spec/behaviour/fixtures/http_stream.lua", overrides) end

local function asks(client, line)
  client.asked = { line:match "^%S+" }
  return client:send_raw(line .. "\r\nHost: a\r\n\r\n")
end

describe("a response in pieces", function()
  after_each(memory.finish)

  it("is chunked, and comes as it is written", function()
    local app = open()
    local client = app:connect():ask "/pieces"
    local head = client:head()
    assert.same({ 200, "chunked", "b", "text/plain; charset=utf-8" }, { head.status,
      head.headers["Transfer-Encoding"], head.headers["X-A"], head.headers["Content-Type"] })
    assert.is_nil(head.headers["Content-Length"])
    assert.equal("one 2", client:piece())
    client:expect_nothing()
    app:advance "1s"
    assert.equal(" three", client:piece())
    assert.is_nil(client:piece())
    assert.same({ "6", "because" }, { head.trailers["X-Sum"], head.trailers["x-why"] })
    assert.equal("hello", client:get("/hello").body)
  end)

  it("is framed so that nobody can misread it", function()
    local app = open()
    local client = memory.raw(app)
    client:send "GET /pieces HTTP/1.1\r\nHost: a\r\n\r\n"
    app:advance "1s"
    assert.equal("5\r\none 2\r\n6\r\n three\r\n0\r\nX-Sum: 6\r\nX-Why: because\r\n\r\n",
      memory.bytes(client):match "\r\n\r\n(.*)")
  end)

  it("ends with the connection for HTTP/1.0", function()
    local app = open()
    local client = asks(app:connect(), "GET /pieces HTTP/1.0\r\nConnection: keep-alive")
    app:advance "1s"
    local response = client:response()
    assert.same({ "one 2 three", "close" }, { response.body, response.headers.Connection })
    assert.is_nil(response.headers["Transfer-Encoding"])
    client:expect_closed "agent"
  end)

  it("is as long as was said", function()
    local client = open():connect()
    local response = client:get "/length?n=5&text=abc,de"
    assert.same({ "abcde", "5", "application/x" },
      { response.body, response.headers["Content-Length"], response.headers["Content-Type"] })
    assert.equal("hello", client:get("/hello").body)
    assert.equal("", client:get("/length?n=0&text=").body)
  end)

  it("ends the connection where it is not as long as was said", function()
    for text, why in pairs {
      ["abc,d"] = "less is written than `length` says: 1 bytes are missing",
      ["abc,def"] = "more is written than `length` says: there is room for 2 bytes more",
    } do
      local app = open()
      local client = memory.raw(app)
      client:send(("GET /length?n=5&text=%s HTTP/1.1\r\nHost: a\r\n\r\nGET /hello HTTP/1.1\r\n\r\n"):format(text))
      client:expect_closed "error"
      local body = memory.bytes(client):match "\r\n\r\n(.*)"
      assert.equal(text:sub(1, 3) .. (#text == 5 and "d" or ""), body)
      assert.truthy(memory.error_of(app):find(why, 1, true), memory.error_of(app))
    end
  end)

  it("says that it is the last one that limits.requests lets be", function()
    local client = open({ limits = { requests = 1 } }):connect()
    local response = client:get "/nothing"
    assert.same({ "", "close" }, { response.body, response.headers.Connection })
    client:expect_closed "agent"
  end)

  it("may be empty, and has its head before its body", function()
    local app = open()
    local client = app:connect()
    local response = client:get "/nothing"
    assert.same({ "", "chunked" }, { response.body, response.headers["Transfer-Encoding"] })
    client:ask "/flush"
    assert.equal(200, client:head().status)
    assert.same({ "true" }, memory.noted(app))
    app:advance "1s"
    assert.equal("late", client:piece())
  end)

  it("has no body after HEAD, nor with status 204, and its producer is not run", function()
    local client = open():connect()
    for _, path in ipairs { "/fails", "/length?n=5&text=a", "/pieces" } do
      local response = client:request { method = "HEAD", path = path }
      assert.same({ 200, "" }, { response.status, response.body })
    end
    assert.equal(204, client:get("/none").status)
    assert.is_nil(client:get("/none").headers["Transfer-Encoding"])
    assert.equal("hello", client:get("/hello").body)
  end)

  it("goes on for who has only ended its side, and then the connection ends", function()
    local app = open()
    local client = app:connect():ask("/pieces"):half_close()
    app:advance "1s"
    assert.equal("one 2 three", client:response().body)
    client:expect_closed "peer"
  end)

  it("is what failed() says, or 500, where the producer fails before it writes", function()
    local app = open()
    local client = app:connect()
    assert.equal("it has failed", client:get("/fails").body)
    client:expect_closed "error"
    assert.equal(1, #app:faults())
  end)

  it("is cut where the producer fails behind that", function()
    local app = open()
    local client = memory.raw(app)
    client:send "GET /fails?late=1 HTTP/1.1\r\nHost: a\r\n\r\n"
    client:expect_closed "error"
    assert.equal("5\r\nbegun\r\n", memory.bytes(client):match "\r\n\r\n(.*)")
    assert.same({ 1, "boom" }, { #app:faults(), memory.error_of(app):match "boom" })
    client = asks(app:connect(), "GET /fails?late=1 HTTP/1.0")
    client:expect_reset()
    client:expect_closed "error"
  end)

  it("has let go of a body in chunks, which a fault does not show any more", function()
    local function shown(path)
      local app = open { log = { frame_bytes = 200 } }
      app:connect():send_raw("POST " .. path .. " HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        .. "3e8\r\n" .. ("x"):rep(1000) .. "\r\n0\r\n\r\n")
      return app:faults()[1].frame
    end
    assert.equal("POST /fails HTTP", shown("/fails"):sub(1, 16))
    assert.is_nil(shown "/fails?late=1")
  end)

  it("leaves nothing of a request on a connection that is idle", function()
    local app = memory.open { listen = "http://127.0.0.1:0", limits = { body = 60000, buffers = 200000 }, agent = {
      proceed = function()
        return require("perilune.http").stream(function(out) out:write "done" end)
      end,
    } }
    local clients = {}
    for i = 1, 10 do
      clients[i] = app:connect()
      clients[i].asked = { "POST" }
      clients[i]:send_raw("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nc350\r\n"
        .. ("x"):rep(50000) .. "\r\n0\r\nX-Sum: 1\r\n\r\n")
      assert.equal("done", clients[i]:response().body)
    end
    for _, client in ipairs(clients) do assert.is_nil(client:closed()) end
  end)

  it("waits for who does not keep up, in bounded memory", function()
    local app = open()
    local client = app:connect():stall()
    client:ask "/large?n=200"
    local written = #memory.noted(app)
    assert.is_true(written < 100, written)
    client:unstall()
    assert.equal(2000000, #client:response().body)
    assert.equal(200, #memory.noted(app))
  end)

  it("waits within a piece, however large that is, and with a small limit", function()
    local app = open { limits = { send_buffer = 4096, slow_consumer = "close" } }
    local client = app:connect()
    assert.equal(3000000, #client:get("/large?n=1&bytes=3000000").body)
  end)

  it("ends by timeout.write where the client reads no more", function()
    local app = open { timeout = { write = "5s" } }
    local client = app:connect():stall()
    client:ask "/large?n=200"
    app:advance "6s"
    client:expect_closed "write_timeout"
    assert.equal("over", memory.noted(app)[#memory.noted(app)])
  end)

  it("ends when the client leaves", function()
    local app = open()
    local client = app:connect():stall()
    client:ask "/large?n=200"
    client:reset()
    local notes = memory.noted(app)
    assert.equal("over", notes[#notes])
    assert.is_true(#notes < 100)
    assert.equal(0, #app:faults())
  end)

  it("has the next request wait", function()
    local app = open()
    local client = app:connect():ask("/pieces"):ask("/hello")
    app:advance "1s"
    assert.equal("one 2 three", client:response().body)
    assert.equal("hello", client:response().body)
  end)

  it("may be written by several tasks, and none tears apart what another writes", function()
    local client = open():connect():stall()
    client:ask "/tasks"
    client:unstall()
    local body = client:response().body
    assert.equal(600003, #body)
    assert.truthy(body:find(("a"):rep(300000), 1, true))
    assert.truthy(body:find(("b"):rep(300000), 1, true))
    assert.truthy(body:find "A" and body:find "B" and body:find "C")
  end)

  it("is over when its producer has returned, and is nobody else's", function()
    local app = open()
    local client, other = app:connect(), app:connect()
    client:get "/keep"
    assert.truthy(client:get("/after"):json()[1]:find("this response is over", 1, true))
    client:ask "/hold"
    assert.truthy(other:get("/after"):json()[1]:find("another connection's", 1, true))
    app:advance "5s"
    assert.equal("held", client:response().body)
  end)

  it("ends with the connection that its handler closes", function()
    local app = open()
    local client = memory.raw(app)
    client:send "GET /closes HTTP/1.1\r\nHost: a\r\n\r\n"
    client:expect_closed "agent"
    assert.equal("1\r\na\r\n", memory.bytes(client):match "\r\n\r\n(.*)")
    assert.same({ "closed", "over" }, memory.noted(app))
    assert.equal(0, #app:faults())
  end)

  it("is the last one where that is asked for", function()
    local app = open()
    for _, path in ipairs { "/action", "/header" } do
      local client = app:connect()
      local response = client:get(path)
      assert.same({ "a", "close" }, { response.body, response.headers.Connection })
      client:expect_closed "agent"
    end
    local client = app:connect()
    assert.equal("close", client:get("/nothing", { Connection = "close" }).headers.Connection)
    client:expect_closed "peer"
  end)

  it("goes on in a drain, until that is over", function()
    local app = open()
    local client, slow = app:connect():ask "/pieces", app:connect():ask "/slow"
    app:begin_drain()
    app:advance "1s"
    assert.equal("one 2 three", client:response().body)
    client:expect_closed "drain"
    assert.is_nil(slow:closed())
    app:advance "60s"
    slow:expect_closed "drain"
  end)

  it("is what proceed returns, and nothing else", function()
    for path, why in pairs {
      ["/send"] = "a response in pieces can be returned by proceed, and not be sent otherwise",
      ["/again"] = "there is no request to answer",
    } do
      local app = open()
      app:connect():ask(path):expect_closed()
      assert.truthy(memory.error_of(app):find(why, 1, true), memory.error_of(app))
    end
  end)

  it("says what is wrong with its use", function()
    local lines = {}
    for line in open():connect():get("/misuse").body:gmatch "[^\n]+" do
      lines[#lines + 1] = line:gsub("^[^ ]*: ", "")
    end
    for i, why in ipairs {
      "expects a function that gets the stream, got nothing", "options: expects a table such as { headers = … }, got 1",
      "unknown option body; it has headers, length, status", "length: expects the number of bytes, got -1",
      "a status is a whole number from 200 to 599, got 100", "write it with a colon, as in out:write(…)",
      "out:write: a text is expected, got ", "the name of a header field is a word",
      "its value has a control character",
      "out:trailer: Content-Type is of no use behind a body", "header field Content-Length: it is made from the body",
      "a stream cannot be written to",
    } do
      assert.truthy(lines[i]:find(why, 1, true), lines[i])
    end
  end)
end)

describe("server-sent events", function()
  after_each(memory.finish)

  it("come one by one, with what the client needs to come back", function()
    local app = open()
    local client = app:connect():ask { path = "/events", headers = { ["Last-Event-ID"] = "6" } }
    local headers = client:head().headers
    assert.same({ "text/event-stream", "no-cache", "no" },
      { headers["Content-Type"], headers["Cache-Control"], headers["X-Accel-Buffering"] })
    client:expect_event { data = "from 6", id = "7", retry = 3000 }
    client:expect_nothing()
    app:advance "40s"
    client:expect_event { event = "lines", data = "one\ntwo\n\nthree" }
    client:expect_event('{"a":1}'):expect_event("")
    assert.is_nil(client:event())
    assert.equal("hello", client:get("/hello").body)
  end)

  it("have heartbeats between them", function()
    local app = open()
    local client = app:connect():ask "/events"
    client:expect_event "from nowhere"
    app:advance "14s"
    client:expect_nothing()
    app:advance "1s"
    assert.equal(":\n\n", client:piece())
    app:advance "15s"
    assert.equal(":\n\n", client:piece())
    app:advance "60s"
    assert.equal(": no\n: event\n\n", client:response().body:match "(: no.-\n\n)")
    client:ask("/events?beat=2s"):expect_event "from nowhere"
    app:advance "2s"
    assert.equal(":\n\n", client:piece())
    app:advance "60s"
    client:response()
    client:ask("/events?beat=off"):expect_event "from nowhere"
    app:advance "39s"
    client:expect_nothing()
  end)

  it("end when the client leaves, or ends its side", function()
    local app = open()
    for _, how in ipairs { "reset", "half_close" } do
      local client = app:connect():ask "/events"
      client:expect_event "from nowhere"
      client[how](client):expect_closed()
    end
    app:advance "60s"
    assert.equal(0, #app:faults())
    assert.same({ "over", "over" }, memory.noted(app))
  end)

  it("end at once in a drain, as if they were over", function()
    local app = open()
    local client = app:connect():ask "/events"
    client:expect_event "from nowhere"
    app:begin_drain()
    client:expect_closed "drain"
    assert.is_nil(client:event())
  end)

  it("end whole in a drain for HTTP/1.0, too, where the connection's end is theirs", function()
    local app = open()
    local client = memory.raw(app)
    client:send "GET /events HTTP/1.0\r\nHost: a\r\n\r\n"
    app:begin_drain()
    client:expect_closed "drain"
    assert.truthy(memory.bytes(client):find("from nowhere", 1, true))
    assert.is_false((pcall(client.expect_reset, client)))
  end)

  it("say what is wrong with their use", function()
    local client = open():connect():ask "/event-misuse"
    assert.equal("no-store", client:head().headers["Cache-Control"])
    local lines = {}
    for line in client:event().data:gmatch "[^\n]+" do lines[#lines + 1] = line end
    for i, why in ipairs {
      "expects a function that gets the events, got nothing", "unknown option retry; it has headers, heartbeat, status",
      "heartbeat: expects a duration such as \"15s\", or false, got 0", "write it with a colon, as in events:send(…)",
      "send: expects a text, or a table for JSON, got nothing", "send: unknown option ID (did you mean \"id\"?)",
      "id: expects a text of one line", "retry: expects a duration", "events cannot be written to",
    } do
      assert.truthy(lines[i]:find(why, 1, true), lines[i])
    end
  end)
end)

describe("the streams of docs/http-toolkit.md", function()
  after_each(memory.finish)

  it("get what others post, until their clients leave", function()
    local file = assert(io.open "docs/http-toolkit.md")
    local snippet = file:read("*a"):match "(local streams = {}.-)```"
    file:close()
    local app = assert(memory.script([[
      local http = require "perilune.http"
      local perilune = require "perilune"
      local api = http.router()]] .. "\n" .. snippet .. [[
      api:get("/n", function()
        local n = 0
        for _ in pairs(streams) do n = n + 1 end
        return n
      end)
      return { listen = "http://127.0.0.1:0", agent = api }]]))
    local one, other, poster = app:connect(), app:connect(), app:connect()
    one:ask("/news"):head()
    other:ask("/news"):head()
    poster:request { method = "POST", path = "/news", body = "hi" }
    assert.same({ "hi", "hi", "2" }, { one:event().data, other:event().data, poster:get("/n").body })
    one:half_close()
    assert.equal("1", poster:get("/n").body)
    other:close()
    assert.equal("0", poster:get("/n").body)
  end)
end)
