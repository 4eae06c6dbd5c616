--- Bodies of requests that are read in pieces, and their trailers, in memory.
local memory = require "spec.support.memory"
local perilune = require "perilune"

local function open(overrides) return memory.open("spec/behaviour/fixtures/http_upload.lua", overrides) end

local function connect(app, listener) return app:connect { listener = listener or "pieces" } end

local function raw(app, listener) return app:connect { listener = listener or "pieces", frame = "raw" } end

local function head(path, fields)
  return ("POST %s HTTP/1.1\r\nHost: a\r\n%s\r\n"):format(path, fields)
end

local function with_length(path, n, more) return head(path, ("Content-Length: %d\r\n%s"):format(n, more or "")) end
local function chunked(path, more) return head(path, "Transfer-Encoding: chunked\r\n" .. (more or "")) end

local CHUNKS = "5\r\nhello\r\n1\r\n \r\n5\r\nworld\r\n0\r\nX-Sum: 11\r\n\r\n"

-- A client that has sent what is no whole request says for which ones it expects responses.
local function send(client, bytes, method)
  client.asked = client.asked or {}
  if bytes:find "^%u+ /" then table.insert(client.asked, method or "POST") end
  return client:send_raw(bytes)
end

local function crc(text) return perilune.crc.crc32(text) end

describe("a body that is read in pieces", function()
  after_each(memory.finish)

  it("comes as it is sent, of a known length", function()
    local app = open()
    local client = connect(app)
    send(client, with_length("/slow", 11))
    client:expect_nothing()
    send(client, "hello")
    app:advance "1s"
    send(client, " ")
    app:advance "1s"
    client:expect_nothing()
    send(client, "world")
    app:advance "1s"
    assert.equal("5|1|5", client:response().body)
    assert.equal("none", client:get("/none").body)
  end)

  it("comes as it is sent, in chunks", function()
    local app = open()
    local client = connect(app)
    send(client, chunked "/slow")
    send(client, "5\r\nhel")
    app:advance "1s"
    send(client, "lo\r\n3\r\nfoo\r")
    app:advance "1s"
    send(client, "\n0\r\n\r\n")
    assert.equal("3|5", client:response().body)
    assert.equal("none", client:get("/none").body)
  end)

  it("is the same however it is cut", function()
    local app = open()
    local bodies = { length = with_length("/read", 11) .. "hello world", chunks = chunked "/read" .. CHUNKS }
    for what, bytes in pairs(bodies) do
      for cut = 1, #bytes - 1 do
        local client = connect(app)
        send(client, bytes:sub(1, cut))
        send(client, bytes:sub(cut + 1) .. "GET /none HTTP/1.1\r\nHost: a\r\n\r\n")
        table.insert(client.asked, "GET")
        local told = client:response():json()
        assert.same({ what, cut, 11, crc "hello world" }, { what, cut, told.bytes, told.crc })
        assert.equal("none", client:response().body)
      end
    end
  end)

  it("is the same byte by byte, whole or in pieces", function()
    for _, path in ipairs { "/read", "/body", "/told" } do
      for _, bytes in ipairs { with_length(path, 11) .. "hello world", chunked(path) .. CHUNKS } do
        local client = connect(open())
        for at = 1, #bytes do send(client, bytes:sub(at, at)) end
        assert.equal(crc "hello world", client:response():json().crc)
      end
    end
  end)

  it("may be larger than what is kept of it", function()
    local app = open { limits = { buffers = 400000 } }
    local client = connect(app)
    local text = ("0123456789abcdef"):rep(65536)
    send(client, with_length("/read", #text))
    for at = 1, #text, 50000 do send(client, text:sub(at, at + 49999)) end
    local told = client:response():json()
    assert.same({ #text, crc(text) }, { told.bytes, told.crc })
    send(client, chunked "/read")
    for at = 1, #text, 65536 do send(client, ("10000\r\n%s\r\n"):format(text:sub(at, at + 65535))) end
    send(client, "0\r\n\r\n")
    told = client:response():json()
    assert.same({ #text, crc(text) }, { told.bytes, told.crc })
  end)

  it("waits in the client while the handler is behind", function()
    local app = open { limits = { buffers = 500000 } }
    local client = connect(app)
    send(client, with_length("/slow", 1048576))
    for _ = 1, 16 do send(client, ("x"):rep(65536)) end
    app:advance "20s"
    local n = 0
    for size in client:response().body:gmatch "%d+" do n = n + size end
    assert.equal(1048576, n)
  end)

  it("has a limit of its own", function()
    local client = connect(open())
    send(client, with_length("/read", 1048577))
    local response = client:response()
    assert.same({ 413, "close" }, { response.status, response.headers.Connection })
    client:expect_closed "oversize"
    local app = open()
    client = connect(app)
    send(client, chunked "/told" .. "100000\r\n" .. ("x"):rep(1048576) .. "\r\n1\r\n")
    response = client:response()
    assert.same({ 413, "close", { error = "the body is too large" } },
      { response.status, response.headers.Connection, response:json() })
    client:expect_closed "agent"
  end)

  it("is answered by 413 or 400 where the handler does not say so", function()
    local app = open()
    local client = connect(app)
    send(client, chunked "/patient" .. "100001\r\n")
    assert.equal(413, client:response().status)
    client:expect_closed "oversize"
    client = connect(app)
    send(client, chunked "/patient" .. "2\r\nhixx")
    assert.equal(400, client:response().status)
    client:expect_closed "frame_error"
    assert.same({ "the body is too large", "a chunk does not end in CR LF" }, memory.noted(app))
  end)

  it("must come on", function()
    local app = open()
    local client = connect(app)
    send(client, with_length("/read", 100))
    for _ = 1, 5 do
      app:advance "9s"
      send(client, "x")
    end
    app:advance "10s"
    local response = client:response()
    assert.same({ 408, "close" }, { response.status, response.headers.Connection })
    client:expect_closed "read_timeout"
  end)

  it("is waited for while it is read, and not before", function()
    local app = open()
    local client = connect(app)
    send(client, with_length("/task", 5))
    app:advance "9s"
    send(client, "hello")
    assert.equal(5, client:response():json().bytes)
    send(client, with_length("/slow", 5) .. "h")
    app:advance "1s"
    app:advance "9s"
    send(client, "ello")
    app:advance "1s"
    assert.equal("1|4", client:response().body)
  end)

  it("may end early", function()
    local client = connect(open())
    send(client, with_length("/told", 100) .. "x")
    client:half_close()
    local response = client:response()
    assert.same({ 400, { error = "end of stream" } },
      { response.status, response:json() })
    client:expect_closed()
  end)

  it("is cancelled with its handler where the client goes", function()
    local app = open()
    local client = connect(app)
    send(client, with_length("/patient", 100) .. "x")
    client:reset()
    assert.same({ 0, {} }, { #app:faults(), memory.noted(app) })
  end)

  it("is read on in a drain, while it comes on", function()
    local app = open()
    local client, silent, dropping = connect(app), connect(app), connect(app)
    for _, each in ipairs { client, silent } do send(each, with_length("/read", 5) .. "h") end
    send(dropping, with_length("/refuse", 5) .. "h")
    assert.equal(401, dropping:response().status)
    app:begin_drain()
    app:advance "1900ms"
    send(client, "ell")
    app:advance "1900ms"
    assert.equal(503, silent:response().status)
    silent:expect_closed "drain"
    dropping:expect_closed "drain"
    send(client, "o")
    local response = client:response()
    assert.same({ 5, "close" }, { response:json().bytes, response.headers.Connection })
    client:expect_closed "drain"
  end)

  it("is read on by the code that has begun it", function()
    local function version(text)
      return { listen = "http://127.0.0.1:0", limits = { upload = "2m" }, agent = { proceed = function(_, request)
        local n = 0
        for piece in function() return (request:read()) end do n = n + #piece end
        return text .. n
      end } }
    end
    local app = memory.open(version "old ")
    local client, dropping = app:connect(), app:connect()
    send(client, with_length("/", 5) .. "h")
    send(dropping, chunked "/" .. "1\r\nh")
    app:reload(version "new ")
    send(client, "ello")
    assert.equal("old 5", client:response().body)
    send(client, with_length("/", 5) .. "h")
    send(client, "ello")
    assert.equal("new 5", client:response().body)
    send(dropping, "\r\n0\r\n\r\n")
    assert.equal("old 1", dropping:response().body)
  end)

  it("can be read by tasks, one at a time", function()
    local client = connect(open())
    send(client, with_length("/two", 5))
    local told = client:response():json()
    assert.is_false(told.ok)
    assert.truthy(told.message:find("another task of this handler reads the body", 1, true))
  end)

  it("is the request's, and gone when that is answered", function()
    local app = open()
    local client = connect(app)
    send(client, with_length("/answered", 5))
    assert.equal("answered", client:response().body)
    assert.truthy(memory.noted(app)[1]:find("this request is answered, and its body is gone", 1, true))
  end)

  it("is not another request's", function()
    local client = connect(open())
    send(client, with_length("/kept", 5) .. "h")
    assert.equal("kept", client:response().body)
    send(client, "ello" .. with_length("/kept", 5) .. "w")
    local told = client:response():json()
    assert.same({ false, "w" }, { told.ok, told.own })
    assert.truthy(told.message:find("this request is answered", 1, true), told.message)
  end)

  it("goes out again as it comes", function()
    local app = open()
    local client = connect(app)
    send(client, chunked "/echo" .. "5\r\nhello\r\n")
    assert.equal("hello", (client:head() and client:piece()))
    send(client, "3\r\nfoo\r\n0\r\nX-Sum: 8\r\n\r\n")
    assert.equal("foo", client:piece())
    assert.is_nil(client:piece())
    assert.equal("none", client:get("/none").body)
  end)

  it("is small and there already: nothing is to be waited for", function()
    local client = connect(open())
    local told = client:request({ method = "POST", path = "/read", body = "hello" }):json()
    assert.same({ 5, 1 }, { told.bytes, told.pieces })
    told = client:request({ method = "POST", path = "/read", body = "" }):json()
    assert.same({ 0, 0 }, { told.bytes, told.pieces })
    told = connect(open(), "whole"):request({ method = "POST", path = "/read", body = "hello" }):json()
    assert.same({ 5, 1 }, { told.bytes, told.pieces })
  end)
end)

describe("a body that comes behind its head", function()
  after_each(memory.finish)

  it("is whole for who asks for request.body", function()
    local app = open()
    local client = connect(app)
    send(client, with_length("/body", 11))
    assert.same({ "begun" }, memory.noted(app))
    send(client, "hello")
    client:expect_nothing()
    send(client, " world")
    assert.same({ bytes = 11, crc = crc "hello world", again = true, piece = true }, client:response():json())
    send(client, chunked "/body" .. CHUNKS)
    assert.same({ bytes = 11, crc = crc "hello world", again = true, piece = true }, client:response():json())
    send(client, chunked "/json" .. "3\r\n[1,\r\n2\r\n2]\r\n0\r\n\r\n")
    assert.same({ got = { 1, 2 } }, client:response():json())
  end)

  it("has limits.body there, whatever limits.upload is, and its handler does not hear of it", function()
    local app = open()
    local too_large = with_length("/body", 1001)
    for _, bytes in ipairs { too_large, chunked "/body" .. "3e9\r\n", too_large .. "x" } do
      local client = connect(app)
      send(client, bytes)
      if bytes:find "1001" then send(client, "x") end
      assert.equal(413, client:response().status)
      client:expect_closed "oversize"
    end
    local client = connect(app)
    send(client, chunked "/body" .. "2\r\nhix")
    assert.equal(400, client:response().status)
    client = connect(app)
    send(client, with_length("/body", 5))
    app:advance "10s"
    assert.equal(408, client:response().status)
    client = connect(app)
    send(client, with_length("/body", 5) .. "x"):half_close()
    client:expect_closed "peer"
    assert.equal(0, #app:faults())
  end)

  it("is none where the handler has ended the connection", function()
    local app = open()
    local client = connect(app)
    send(client, with_length("/closed", 5) .. "h")
    client:expect_closed "agent"
    assert.truthy(memory.noted(app)[1]:find("false .*request.body: the connection is closed"), memory.noted(app)[1])
  end)

  it("cannot be had whole and in pieces", function()
    local app = open()
    local client = connect(app)
    send(client, with_length("/mixed", 5) .. "h")
    assert.equal(500, client:response().status)
    assert.truthy(memory.error_of(app):find("this body is being read in pieces", 1, true))
  end)

  it("is read before a WebSocket takes the connection", function()
    local app = open()
    local client = connect(app)
    send(client, "GET /socket HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
      .. "Sec-WebSocket-Version: 13\r\n"
      .. "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nContent-Length: 5\r\n\r\n", "GET")
    client:expect_nothing()
    send(client, "hello")
    assert.equal(101, client:response().status)
  end)
end)

describe("request:multipart with into", function()
  after_each(memory.finish)

  local SAMPLE = '--XX\r\nContent-Disposition: form-data; name="a"\r\n\r\none\r\n'
    .. '--XX\r\ncontent-disposition: form-data; name="f"; filename="x.txt"\r\nContent-Type: text/plain\r\n\r\n'
    .. "line\r\n--X\r\n\r--XX-\r\n--XX\r\nContent-Disposition: form-data; name=empty; filename=y\r\n\r\n\r\n--XX--\r\n"
  local KIND = "Content-Type: multipart/form-data; boundary=XX\r\n"

  local function post(client, pieces, path)
    local bytes = chunked(path or "/multipart", KIND)
    send(client, bytes)
    for _, piece in ipairs(pieces) do
      if piece ~= "" then send(client, ("%x\r\n%s\r\n"):format(#piece, piece)) end
    end
    send(client, "0\r\n\r\n")
    return client:response()
  end

  local EXPECTED = { ended = 2, parts = { { name = "a", size = 3, body = "one" },
    { name = "f", size = 17, file = "line\r\n--X\r\n\r--XX-" }, { name = "empty", size = 0, file = "" } } }

  it("reads parts as they come, however they are cut", function()
    local client = connect(open())
    for cut = 0, #SAMPLE do
      local told = post(client, { SAMPLE:sub(1, cut), SAMPLE:sub(cut + 1) }):json()
      assert.same({ cut, EXPECTED }, { cut, told })
    end
    local bytes = {}
    for at = 1, #SAMPLE do bytes[at] = SAMPLE:sub(at, at) end
    assert.same(EXPECTED, post(client, bytes):json())
    local whole = client:request { method = "POST", path = "/multipart", body = SAMPLE,
      headers = { ["Content-Type"] = "multipart/form-data; boundary=XX" } }
    assert.same(EXPECTED, whole:json())
    assert.equal("none", client:get("/none").body)
  end)

  it("is nothing where it is cut short", function()
    local client = connect(open())
    for n = 0, #SAMPLE - 3, 5 do
      local told = post(client, { SAMPLE:sub(1, n) }):json()
      assert.truthy(told.message, n)
    end
  end)

  it("takes files of any size, and keeps no more than it may", function()
    local client = connect(open())
    local large = ("0123456789"):rep(50000)
    local told = post(client, { (SAMPLE:gsub("line", large)) }):json()
    assert.same({ 500013, 500013 }, { told.parts[2].size, #told.parts[2].file })
    local response = post(client, { (SAMPLE:gsub("one", ("1"):rep(101))) })
    assert.equal("the parts that are kept are too large", response:json().message)
    assert.equal(100, #post(connect(open()), { (SAMPLE:gsub("one", ("1"):rep(100))) }):json().parts[1].body)
    client = connect(open())
    send(client, with_length("/multipart", #SAMPLE + 50, KIND) .. SAMPLE:sub(1, 80)):half_close()
    assert.same({ message = "end of stream", code = "EOF", ended = 0 }, client:response():json())
    client = connect(open())
    local _, within = SAMPLE:find("filename=.-\r\n\r\nl")
    send(client, with_length("/multipart", #SAMPLE, KIND) .. SAMPLE:sub(1, within)):half_close()
    assert.same({ message = "end of stream", code = "EOF", ended = 1, why = "end of stream" }, client:response():json())
  end)

  it("says what is wrong with what it is given", function()
    local app = open()
    post(connect(app), { SAMPLE }, "/multipart?wrong=1")
    assert.truthy(memory.error_of(app):find("into: it is to return a function(piece), or nil, got", 1, true))
    local request = require("perilune.test").request { method = "POST", body = SAMPLE }
    for options, why in pairs { [{ into = 5 }] = "into: expects a function, got 5",
      [{ memory = "1m" }] = "memory: it goes with into", [{ memory = "x", into = print }] = "memory: expects a size",
      [{ inot = 1 }] = [[unknown option inot (did you mean "into"?)]] } do
      local ok, message = pcall(request.multipart, request, options)
      assert.same({ false, true }, { ok, message:find(why, 1, true) ~= nil }, message)
    end
  end)
end)

describe("a body that nobody reads", function()
  after_each(memory.finish)

  it("is dropped where it is short, and the connection goes on", function()
    local app = open()
    local client = connect(app)
    send(client, with_length("/refuse", 50000) .. "x")
    local response = client:response()
    assert.same({ 401 }, { response.status, response.headers.Connection })
    for _ = 1, 4 do
      app:advance "9s"
      send(client, ("x"):rep(10000))
    end
    send(client, ("x"):rep(9999) .. "GET /none HTTP/1.1\r\nHost: a\r\n\r\n")
    table.insert(client.asked, "GET")
    assert.equal("none", client:response().body)
    send(client, with_length("/one", 3) .. "a")
    assert.equal("1", client:response().body)
    app:advance "11s"
    client:expect_closed "read_timeout"
  end)

  it("ends the connection where it is long, or nobody knows how long", function()
    for _, bytes in ipairs { with_length("/refuse", 70000), chunked "/refuse", chunked "/one" .. "1\r\nx\r\n",
      with_length("/refuse", 5, "Expect: 100-continue\r\n") } do
      local client = connect(open())
      send(client, bytes)
      local response = client:response()
      assert.equal("close", response.headers.Connection)
      client:expect_closed "agent"
    end
  end)
end)

describe("100 Continue", function()
  after_each(memory.finish)

  local EXPECT = "Expect: 100-continue\r\n"

  it("is sent when the body is read first, and once", function()
    for path, answer in pairs { ["/read"] = '"bytes":5', ["/body"] = '"bytes":5', ["/slow"] = "5" } do
      local app = open()
      local client = raw(app)
      client:send(with_length(path, 5, EXPECT))
      assert.equal("HTTP/1.1 100 Continue\r\n\r\n", memory.bytes(client))
      client:send "hello"
      app:advance "2s"
      local rest = memory.bytes(client)
      assert.is_nil(rest:find(" 100 ", 1, true))
      assert.truthy(rest:find(answer, 1, true), rest)
    end
  end)

  it("is not sent to who is refused before", function()
    local client = raw(open())
    client:send(with_length("/refuse", 5, EXPECT))
    assert.truthy(memory.bytes(client):find "^HTTP/1.1 401 ")
    client:expect_closed "agent"
  end)

  it("is sent by the core where bodies come whole", function()
    local client = raw(open(), "whole")
    client:send(with_length("/refuse", 5, EXPECT))
    assert.equal("HTTP/1.1 100 Continue\r\n\r\n", memory.bytes(client))
  end)
end)

describe("trailers of requests", function()
  after_each(memory.finish)

  it("are handed up behind the body, whole or in pieces", function()
    for _, case in ipairs { { "pieces", "/trailers" }, { "pieces", "/trailers?whole=1" }, { "whole", "/trailers" },
      { "whole", "/trailers?whole=1" } } do
      local client = connect(open(), case[1])
      for _, cut in ipairs { 5, #CHUNKS - 12, #CHUNKS - 2, #CHUNKS } do
        send(client, chunked(case[2]) .. CHUNKS:sub(1, cut))
        if cut < #CHUNKS then send(client, CHUNKS:sub(cut + 1)) end
        local told = client:response():json()
        assert.same({ case, cut, "11" }, { case, cut, told.sum })
        assert.is_nil(told.none)
        assert.is_true((told.bytes or #told.body) == 11)
      end
      send(client, with_length(case[2], 2) .. "hi")
      assert.is_nil(client:response():json().sum)
    end
  end)

  it("are not there before the body is read", function()
    local app = open()
    local client = connect(app)
    send(client, chunked "/early" .. CHUNKS)
    assert.equal(500, client:response().status)
    assert.truthy(memory.error_of(app):find("they come behind the body", 1, true))
  end)

  it("are no fields that must be known before, and within limits.headers", function()
    for _, listener in ipairs { "pieces", "whole" } do
      for line, status in pairs { ["Authorization: x"] = 400, ["content-encoding: gzip"] = 400, ["Cookie: a=b"] = 400,
        ["Host: b"] = 400, ["X: " .. ("y"):rep(1000)] = 431, ["X y"] = 400, ["X-Fine: y"] = 200 } do
        local client = connect(open(), listener)
        send(client, chunked "/body" .. "1\r\nx\r\n0\r\n" .. line .. "\r\n\r\n")
        assert.same({ line, status }, { line, client:response().status })
      end
    end
  end)
end)

describe("request:read() in a call", function()
  after_each(memory.finish)
  it("that has read messages before has the body all the same", function()
    local net = require("perilune.test").net()
    finally(function() net:close() end)
    net:serve("ws://db:80/", { agent = { proceed = function(_, message) return "got " .. message end } })
    local Agent = {}
    function Agent.proceed(_, request)
      local db = assert(require("perilune").connect("ws://db:80/"))
      db:send "a"
      local n = #assert(db:read())
      db:close()
      for piece in function() return (request:read()) end do n = n + #piece end
      return tostring(n)
    end
    local app = net:app { listen = "http://10.0.0.2:80", agent = Agent, limits = { upload = "10m" } }
    local client = app:connect()
    client.asked = { "POST" }
    client:send_raw "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12345"
    net:advance(0)
    client:send_raw "67890"
    net:advance(0)
    assert.equal("15", client:response().body)
  end)

  it("is an error where the connection is a WebSocket by now", function()
    local http = require "perilune.http"
    local app = memory.open { listen = "http://127.0.0.1:0", limits = { upload = "10m" }, agent = {
      proceed = function(_, request)
        assert(request:read())
        return http.websocket { proceed = function() return (select(2, pcall(request.read, request))) end }
      end,
    } }
    local client = app:connect { frame = "raw" }
    client:send_raw("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
      .. "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n")
    client:send_raw "hello"
    client:send_raw "\129\129\0\0\0\0a"
    assert.truthy(memory.bytes(client):find("this connection is a WebSocket by now", 1, true))
  end)

  it("has whoever holds most make room for trailers", function()
    local app = memory.open { listen = "http://127.0.0.1:0", agent = {
      proceed = function(_, request)
        if request.path == "/hold" then require("perilune").sleep(100) end
        repeat local piece = request:read() until not piece
        return #request.trailers["x-sum"]
      end,
    }, limits = { body = 1000, upload = "10m", headers = "16k", buffers = 74000 } }
    local fat, client = app:connect { frame = "raw" }, app:connect()
    fat:send_raw("POST /hold HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n" .. ("x"):rep(64000))
    client.asked = { "POST" }
    client:send_raw("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: "
      .. ("y"):rep(6000) .. "\r\n\r\n")
    assert.equal("6000", client:response().body)
    fat:expect_closed "memory"
  end)
end)
