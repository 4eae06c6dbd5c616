--- WebSockets in memory: the handshake, RFC 6455's groups of cases, ends of all kinds, time, limits, reloads,
--- recordings.
local core = require "perilune"
local http = require "perilune.http"
local memory = require "spec.support.memory"
local perilune = require "perilune.test"
local websocket = require "perilune.test.websocket"

local FIXTURE = "spec/behaviour/fixtures/websocket.lua"

local function open(overrides) return memory.open(FIXTURE, overrides) end

-- One at the ws:// listener.
local function chat(app, options) return app:connect { listener = "ws" }:websocket("/chat", options) end

-- The app of all tests that ask for nothing but defaults: to open one takes longer than most of them.
local shared

local function open_shared() return shared end

local KEY = "dGhlIHNhbXBsZSBub25jZQ=="

local function handshake(changes)
  local headers = { Upgrade = "websocket", Connection = "Upgrade", ["Sec-WebSocket-Version"] = "13",
    ["Sec-WebSocket-Key"] = KEY }
  for name, value in pairs(changes or {}) do headers[name] = value or nil end
  return headers
end

describe("a WebSocket", function()
  after_each(memory.finish)
  setup(function() shared = perilune.app(FIXTURE) end)
  teardown(function() shared:close() end)

  describe("begins with a handshake, which", function()
    it("is answered as RFC 6455 has it", function()
      local client = open():connect { listener = "ws" }
      local response = client:get("/chat", handshake())
      assert.same({ 101, "websocket", "Upgrade", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" }, { response.status,
        response.headers.Upgrade, response.headers.Connection, response.headers["Sec-WebSocket-Accept"] })
      assert.is_nil(response.headers["Sec-WebSocket-Protocol"])
      assert.is_nil(response.headers["Sec-WebSocket-Extensions"])
    end)

    for what, changes in pairs {
      ["has its tokens in any case, among others"] = { Upgrade = "h2c, WebSocket", Connection = "keep-alive, UPGRADE" },
      ["may come from an origin that is listed"] = { Origin = "https://example.org" },
      ["may come from that origin in any case"] = { Origin = "https://EXAMPLE.org" },
    } do
      it(what, function()
        assert.equal(101, open_shared():connect { listener = "ws" }:get("/chat", handshake(changes)).status)
      end)
    end

    for what, row in pairs {
      ["without Upgrade"] = { { Upgrade = false }, 426 },
      ["for something else"] = { { Upgrade = "h2c" }, 426 },
      ["without Connection"] = { { Connection = false }, 426 },
      ["whose Connection does not say so"] = { { Connection = "keep-alive" }, 426 },
      ["without a version"] = { { ["Sec-WebSocket-Version"] = false }, 426 },
      ["of an old version"] = { { ["Sec-WebSocket-Version"] = "8" }, 426 },
      ["without a key"] = { { ["Sec-WebSocket-Key"] = false }, 400 },
      ["with a short key"] = { { ["Sec-WebSocket-Key"] = "dGhlIHNhbXBsZQ==" }, 400 },
      ["with a long key"] = { { ["Sec-WebSocket-Key"] = "AAAAAAAAAAAAAAAAAAAAAAAA" }, 400 },
      ["with a key that is no Base64"] = { { ["Sec-WebSocket-Key"] = "dGhlIHNhbXBsZSBub25jZ!==" }, 400 },
      ["of another origin"] = { { Origin = "https://example.com" }, 403 },
      ["of no origin that can be told"] = { { Origin = "null" }, 403 },
    } do
      it("is refused " .. what .. ", and another one may follow", function()
        local app = open_shared()
        local client = app:connect { listener = "ws" }
        local response = client:get("/chat", handshake(row[1]))
        assert.equal(row[2], response.status)
        if row[2] == 426 then
          assert.same({ "13", "websocket" },
            { response.headers["Sec-WebSocket-Version"], response.headers.Upgrade })
        end
        local before = app:counters().websockets
        client:websocket("/chat"):send("x"):expect("x")
        assert.equal(before + 1, app:counters().websockets)
      end)
    end

    it("is for GET, HTTP/1.1 and the path of its listener", function()
      local app = open()
      local response = app:connect { listener = "ws" }:request { method = "POST", path = "/chat",
        headers = handshake() }
      assert.same({ 405, "GET" }, { response.status, response.headers.Allow })
      assert.equal(404, app:connect { listener = "ws" }:get("/", handshake()).status)
      local client = app:connect { listener = "ws" }
      client:send_raw("GET /chat HTTP/1.0\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        .. "Sec-WebSocket-Key: " .. KEY .. "\r\n\r\n")
      assert.equal(426, client:response().status)
    end)

    it("has no body", function()
      local client = open():connect { listener = "ws" }
      assert.equal(413, client:request({ method = "GET", path = "/chat", headers = handshake(), body = "x" }).status)
      client:expect_closed "oversize"
    end)

    it("chooses the subprotocol that is liked best here, or none", function()
      local app = open()
      local function chosen(...)
        return app:connect { listener = "http" }:websocket("/chat", { subprotocols = { ... } }).subprotocol
      end
      assert.same({ "b", "a", "b" }, { chosen("a", "b"), chosen("x", "a"), chosen("b") })
      assert.is_nil(chosen "x")
      assert.equal("c", chat(app, { subprotocols = { "b", "c" } }).subprotocol)
    end)

    for name, status in pairs { Upgrade = 426, Connection = 426, ["Sec-WebSocket-Extensions"] = 101,
      ["Sec-WebSocket-Protocol"] = 101 } do
      it("has fields that are looked at in little time, though they are full of blanks: " .. name, function()
        local app = open { limits = { proceed = memory.scaled("100ms", "1s") } } -- each blank again and again is longer
        local blanks = "a" .. (" "):rep(15000) .. "b"
        assert.equal(status, app:connect({ listener = "ws" }):get("/chat", handshake { [name] = blanks }).status)
        assert.equal(0, #app:log("handler failed"))
      end)
    end

    it("must come in timeout.handshake", function()
      local app = open { timeout = { handshake = "3s" } }
      local client = app:connect { listener = "ws" }
      app:advance "3s"
      client:expect_closed "idle_timeout"
    end)

    it("may bring messages along", function()
      local client = open():connect { listener = "http" }
      local bytes = { "GET /chat HTTP/1.1\r\nHost: a\r\n" }
      for name, value in pairs(handshake()) do bytes[#bytes + 1] = name .. ": " .. value .. "\r\n" end
      bytes[#bytes + 1] = "\r\n" .. websocket.bytes { data = "one" } .. websocket.bytes { data = "two" }
      client:send_raw(table.concat(bytes))
      assert.equal(101, client:response().status)
      client:expect("\129\3one\129\3two")
    end)
  end)

  describe("that a handler of HTTP has accepted", function()
    it("has an agent of its own, and HTTP's is told nothing", function()
      local app = open()
      local client = app:connect { listener = "http" }
      assert.equal("plain", client:get("/").body)
      local ws = client:websocket("/chat?greet=you")
      ws:expect("hello you"):send("x"):expect("x")
      ws:close(1000):expect_close(1000):expect_closed("peer")
      assert.equal(0, #app:log("HTTP closed"))
      assert.equal(1, #app:log("chat closed"))
      assert.equal(1, #app:log("deferred"))
    end)

    it("may have a factory that knows the request", function()
      open():connect { listener = "http" }:websocket("/factory"):send("x"):expect("x at /factory of 1")
    end)

    it("may be accepted late", function()
      local app = open()
      local client = app:connect { listener = "http" }
      client:ask { path = "/late", headers = handshake() }
      client:send_raw(websocket.bytes { data = "early" })
      app:advance "1s"
      assert.equal(101, client:response().status)
      client:expect("\129\5early")
    end)

    it("has what HTTP's agent had begun", function()
      local app = open()
      local ws = app:connect { listener = "http" }:websocket("/timer")
      app:advance "2s"
      ws:expect "from HTTP's timer"
    end)

    it("is paused by nobody, though HTTP's agent was", function()
      local app = memory.start({
        proceed = function(self)
          self.conn:pause()
          return http.websocket { proceed = function(_, message) return message end }
        end,
      }, { listen = "http://127.0.0.1:0" })
      app:connect():websocket("/"):send("x"):expect("x")
    end)

    it("is told of a drain itself, whatever HTTP's agent has said to that", function()
      local app = memory.start({
        drain = function() return true end,
        proceed = function()
          core.sleep(1)
          return http.websocket {
            drain = function() return "going" end,
            proceed = function(_, message) return message end,
          }
        end,
      }, { listen = "http://127.0.0.1:0" })
      local client, busy = app:connect(), app:connect():ask { path = "/", headers = handshake() }
      app:begin_drain()
      client:ask { path = "/", headers = handshake() }
      app:advance "1s"
      for _, each in ipairs { client, busy } do
        assert.equal(101, each:response().status)
        each:expect("\129\5going\136\2\3\233")
      end
    end)

    it("leaves nothing of an agent that was made for it alone", function()
      local app = assert(memory.script [[
        local http = require "perilune.http"
        local made = setmetatable({}, { __mode = "k" })
        local Agent = {}
        function Agent:proceed(request)
          if request.path == "/" then
            local agent = { proceed = function(_, message) return message end }
            made[agent] = true
            return http.websocket(agent)
          end
          local n = 0
          for _ in pairs(made) do n = n + 1 end
          return n
        end
        return { listen = "http://127.0.0.1:0", agent = Agent }]])
      local function alive()
        app:memory() -- collects all garbage
        return app:connect():get("/alive").body
      end
      local ws = app:connect():websocket("/"):send("x"):expect("x")
      assert.equal("1", alive())
      ws:send("y"):expect("y"):close(1000):expect_closed "peer"
      assert.equal("0", alive())
    end)

    it("is sent by no other way", function()
      local response = open():connect { listener = "http" }:get("/send")
      assert.truthy(response.body:find("a WebSocket, which only proceed accepts", 1, true))
    end)

    it("ends with an agent that cannot be made", function()
      local app = open()
      app:connect { listener = "http" }:websocket("/broken"):expect_close(1011):expect_closed("error")
      assert.truthy(app:log("handler failed")[1].error:find("the agent has no method proceed", 1, true))
    end)

    it("may wait, close or fail in opened", function()
      local app = open()
      local ws = app:connect { listener = "http" }:websocket("/chat?wait=1"):send("x")
      ws:expect_nothing()
      app:advance "1s"
      ws:expect("waited", "x")
      app:connect { listener = "http" }:websocket("/chat?leave=1"):expect_close(4000, "no"):expect_closed("agent")
      app:connect { listener = "http" }:websocket("/chat?fail=1"):expect("sorry"):expect_close(1011)
        :expect_closed("error")
    end)

    for _, listener in ipairs { "http", "ws" } do
      it("may fail in opened, and others are served all the same: " .. listener, function()
        local app = open()
        app:connect { listener = listener }:websocket("/chat?fail=1"):expect("sorry"):expect_close(1011)
        local client = app:connect { listener = "http" }
        assert.equal("plain", client:get("/").body)
        client:close()
        assert.equal(listener == "http" and 2 or 1, #app:log("deferred"))
        chat(app):send("x"):expect "x"
      end)
    end
  end)

  describe("takes", function()
    for _, n in ipairs { 0, 1, 125, 126, 127, 128, 65535, 65536 } do
      for _, kind in ipairs { "text", "binary" } do
        it(("a %s message of %d bytes"):format(kind, n), function()
          local data = ("*"):rep(n)
          local ws = chat(open_shared())
          ws:send(data, kind)
          assert.same({ data, kind }, { ws:receive() })
        end)
      end
    end

    local FRAGMENTED = {
      { "two fragments", "abcd", { { "text", "ab" }, { "more", "cd" } } },
      { "fragments of nothing", "a", { { "text", "" }, { "more", "" }, { "more", "a" }, { "more", "" } } },
      { "a ping between two", "ab", { { "text", "a" }, { "ping", "p" }, { "more", "b" } } },
      { "a pong between two", "ab", { { "text", "a" }, { "pong", "p" }, { "more", "b" } } },
      { "a character in two", "é", { { "text", "\195" }, { "more", "\169" } } },
      { "a character in four, with pings", "😀", { { "text", "\240" }, { "ping", "" }, { "more", "\159" },
        { "more", "\152" }, { "ping", "" }, { "more", "\128" } } },
    }
    for _, row in ipairs(FRAGMENTED) do
      it("a message in " .. row[1], function()
        local frames = {}
        for i, frame in ipairs(row[3]) do
          local is_control = frame[1] == "ping" or frame[1] == "pong"
          frames[i] = { opcode = frame[1], data = frame[2], last = is_control or i == #row[3] }
        end
        local ws = chat(open_shared())
        for _, frame in ipairs(frames) do ws:send_frame(frame) end
        ws:expect(row[2])
        ws:send_frame(unpack(frames)):expect(row[2])
      end)
    end

    it("a message that comes byte by byte", function()
      chat(open()):send_split("héllo"):expect("héllo"):send_split("\0\255", "binary"):expect_binary("\0\255")
    end)

    it("many at once, in order", function()
      local frames, wanted = {}, {}
      for i = 1, 1000 do frames[i], wanted[i] = { data = "n" .. i }, "n" .. i end
      local app = open()
      local ws = chat(app):send_frame(unpack(frames))
      app:settle()
      ws:expect(unpack(wanted))
    end)

    it("UTF-8 of all kinds", function()
      local ws = chat(open())
      for _, text in ipairs { "", "a", "é", "€", "😀", "\238\128\128", "\239\191\191", "\244\143\191\191", "\0", "\127",
        "\237\159\191", ("é"):rep(1000) } do
        ws:send(text):expect(text)
      end
    end)
  end)

  describe("refuses", function()
    -- What is sent, and with which code it ends.
    local CASES = {
      { "a frame without a mask", 1002, { masked = false, data = "x" } },
      { "a reserved bit", 1002, { reserved = 0x40, data = "x" } },
      { "another reserved bit", 1002, { reserved = 0x20, data = "x" } },
      { "all reserved bits", 1002, { reserved = 0x70, data = "x" } },
      { "a ping with a reserved bit", 1002, { opcode = "ping", reserved = 0x10 } },
      { "a ping of 126 bytes", 1002, { opcode = "ping", data = ("x"):rep(126) } },
      { "a pong of 126 bytes", 1002, { opcode = "pong", data = ("x"):rep(126) } },
      { "a close frame of 126 bytes", 1002, { opcode = "close", data = "\3\232" .. ("x"):rep(124) } },
      { "a ping in fragments", 1002, { opcode = "ping", last = false } },
      { "a close frame in fragments", 1002, { opcode = "close", last = false } },
      { "a continuation of nothing", 1002, { opcode = "more", data = "x" } },
      { "a continuation of what has ended", 1002, { data = "a" }, { opcode = "more", data = "x" } },
      { "a text in a text", 1002, { data = "a", last = false }, { data = "b" } },
      { "bytes in a text", 1002, { data = "a", last = false }, { opcode = "binary", data = "b" } },
      { "half a close code", 1002, { opcode = "close", data = "\3" } },
      { "a reason for the end that is no UTF-8", 1007, { opcode = "close", data = "\3\232\255" } },
      { "a byte that is in no text", 1007, { data = "\255" } },
      { "a surrogate", 1007, { data = "\237\160\128" } },
      { "an overlong form", 1007, { data = "\192\175" } },
      { "a code point that is too large", 1007, { data = "\244\144\128\128" } },
      { "a character that is not whole", 1007, { data = "\206" } },
      { "a character that the next fragment does not go on with", 1007, { data = "\206", last = false },
        { opcode = "more", data = "a" } },
      { "a wrong byte in a message that goes on", 1007, { data = "a\255", last = false } },
      { "a wrong byte in a frame that goes on", 1007, { data = "a\255", length = 50 } },
      { "a message that is too large", 1009, { data = ("x"):rep(65537) } },
      { "one whose head says so", 1009, { data = "", length = 2 ^ 40 } },
      { "fragments that are too large together", 1009, { data = ("x"):rep(65536), last = false },
        { opcode = "more", data = "x" } },
    }
    for _, opcode in ipairs { 3, 4, 5, 6, 7, 11, 12, 13, 14, 15 } do
      CASES[#CASES + 1] = { "opcode " .. opcode, 1002, { opcode = opcode } }
      CASES[#CASES + 1] = { "opcode " .. opcode .. " in a message", 1002, { data = "a", last = false },
        { opcode = opcode } }
    end
    for _, code in ipairs { 0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535 } do
      local data = string.char(math.floor(code / 256), code % 256)
      CASES[#CASES + 1] = { "close code " .. code, 1002, { opcode = "close", data = data } }
    end
    for _, case in ipairs(CASES) do
      it(case[1], function()
        local app = open_shared()
        local ws = chat(app):send("before"):expect("before")
        ws:send_frame(unpack(case, 3))
        if case[3].last ~= false and (case[3].data == "a") then ws:expect "a" end
        ws:expect_close(case[2]):expect_closed(case[2] == 1009 and "oversize" or "frame_error")
        local told = app:log(case[2] == 1009 and "oversize" or "malformed")
        assert.truthy(case[2] == 1009 or told[#told].why:find("WebSocket " .. case[2] .. ": ", 1, true))
        ws:send("behind"):expect_nothing()
      end)
    end

    it("what follows on what was refused", function()
      local ws = chat(open()):send_frame({ opcode = 3 }, { data = "x" })
      ws:expect_close(1002):expect_closed("frame_error")
    end)
  end)

  describe("ends", function()
    local codes = { 1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999 }
    for _, code in ipairs(codes) do
      it("by its client with code " .. code, function()
        local app = open_shared()
        chat(app):close(code, "so long"):expect_close(code):expect_closed("peer")
        local entries = app:log("chat closed")
        local entry = entries[#entries]
        assert.same({ "peer", code, "so long" }, { entry.reason, entry.code, entry.text })
      end)
    end

    it("by a client that gives no reason", function()
      local app = open()
      chat(app):close():expect_close(1005):expect_closed("peer")
      assert.same({ 1005, "" }, { app:log("chat closed")[1].code, app:log("chat closed")[1].text })
    end)

    it("by a client that hangs up", function()
      local app = open()
      chat(app):hang_up():expect_closed("peer")
      assert.is_nil(app:log("chat closed")[1].code)
    end)

    it("behind the replies to what came before", function()
      chat(open()):send_frame({ data = "a" }, { data = "b" }, { opcode = "close" }, { data = "c" })
        :expect("a", "b"):expect_close(1005)
    end)

    for sent, row in pairs {
      ["/close"] = { 1000, "agent" }, ["/close 1000 bye"] = { 1000, "agent", "bye" },
      ["/close 3000"] = { 3000, "agent" }, ["/close 4999 so long"] = { 4999, "agent", "so long" },
      ["/leave"] = { 1000, "agent" }, ["/kick"] = { 1008, "kick" }, ["/error"] = { 1011, "error" },
    } do
      it("by " .. sent, function()
        local app = open()
        local ws = chat(app):send(sent)
        if sent == "/leave" then ws:expect "bye" elseif sent == "/error" then ws:expect "sorry" end
        ws:expect_close(row[1], row[3] or ""):close(row[1]):expect_closed(row[2])
        assert.is_nil(app:log("chat closed")[1].code)
      end)
    end

    it("by a handler that takes too long", function()
      chat(open { limits = { proceed = "20ms" } }):send("/loop"):expect("sorry"):expect_close(1011)
        :expect_closed("proceed_timeout")
    end)

    it("by a close frame behind which nothing comes, however late a reply is", function()
      local app = memory.start({
        proceed = function(self)
          self.conn:send(("x"):rep(300000))
          core.spawn(function()
            core.sleep(1)
            self.conn:close()
          end)
          core.sleep(2)
          return "late"
        end,
      }, { listen = "ws://127.0.0.1:0" })
      local ws = app:connect():websocket "/"
      ws.client:stall(1000)
      ws:send "go"
      app:advance "3s"
      ws.client:unstall()
      assert.equal(300000, #ws:frame().data)
      ws:expect_close(1000):expect_nothing():expect_closed "agent"
    end)

    it("without waiting for a client that does not answer", function()
      local app = open()
      local ws = chat(app):send("/close"):expect_close(1000)
      app:advance "1s"
      ws:expect_closed "agent"
    end)

    it("once a client that answers has done so", function()
      local app = open()
      local ws = chat(app):send("/close"):expect_close(1000)
      ws:close(1000):hang_up()
      ws:expect_closed "agent"
    end)

    it("with 1001 when the server goes", function()
      local app = open()
      local ws = chat(app):send("x"):expect("x")
      app:drain()
      ws:expect_close(1001):expect_closed("drain")
    end)

    it("in the middle of a message when the server goes", function()
      local app = open()
      local ws = chat(app):send_frame { data = "x", last = false }
      app:drain()
      app:advance "2s"
      ws:expect_close(1001):expect_closed("drain")
    end)
  end)

  it("is counted by the code with which it ends, of who was first to say so", function()
    local app = open()
    local ends = {
      [1000] = function(ws) ws:close(1000):expect_close(1000) end,
      [1005] = function(ws) ws:close():expect_close() end,
      [1006] = function(ws) ws:hang_up() end,
      [1002] = function(ws) ws:send_frame({ opcode = "text", data = "x", masked = false }):expect_close(1002) end,
      [1007] = function(ws) ws:send_frame({ opcode = "text", data = "\255" }):expect_close(1007) end,
      [1008] = function(ws) ws:send "/kick":expect_close(1008) end,
      [1009] = function(ws) ws:send(("x"):rep(65537)):expect_close(1009) end,
      [1011] = function(ws) ws:send "/error":expect "sorry":expect_close(1011) end,
      other = function(ws) ws:send "/close 4000":expect_close(4000) end,
    }
    for code, use in pairs(ends) do
      local ws = chat(app)
      use(ws)
      ws:hang_up()
      app:advance(2)
      local counters, sum = app:counters(), 0
      assert.equal(1, counters["websocket_" .. code], code)
      for name, value in pairs(counters) do sum = sum + (name:find "^websocket_" and value or 0) end
      assert.equal(counters.websockets, sum)
    end
    local last = chat(app)
    app:drain()
    last:expect_close(1001):hang_up()
    app:advance(2)
    assert.equal(1, app:counters().websocket_1001)
  end)

  describe("has text and bytes, and", function()
    for name, wanted in pairs {
      read = "conn:read: a WebSocket has messages, and no framing",
      set_frame = "a WebSocket has messages, which proceed gets",
      shutdown = "a WebSocket has messages, which proceed gets",
      pipe = "another connection expected",
      reserved_code = "the code is 1000, or one from 3000 to 4999",
      negative_code = "the code is 1000, or one from 3000 to 4999",
      half_code = "the code is 1000, or one from 3000 to 4999",
      long_text = "the text has at most 123 bytes",
      bad_text = "the text is no UTF-8",
      bad_kind = 'expects "text" or "binary"',
      third = "conn:send takes",
      table = "string expected",
      bad_message = "conn:send: a text is no UTF-8",
    } do
      it("its conn says what is wrong with it: " .. name, function()
        local text = chat(open_shared()):send("/wrong " .. name):receive()
        assert.truthy(text:find(wanted, 1, true), text)
      end)
    end

    it("a handler that waits for the next message", function()
      chat(open_shared()):send("/ask who?"):expect("who?"):send("me"):send("later"):expect("me false", "later")
    end)

    it("a handler that waits for a message when there is none more", function()
      local app = open()
      chat(app):send("/ask who?"):expect("who?"):close(4000, "nobody"):expect_close(4000)
      local entry = app:log("chat closed")[1]
      assert.same({ "peer", 4000, "nobody" }, { entry.reason, entry.code, entry.text })
    end)

    it("a text that is no UTF-8 is an error of its sender", function()
      local app = open()
      chat(app):send("/bad"):expect("sorry"):expect_close(1011)
      assert.truthy(app:log("handler failed")[1].error:find("a text is no UTF-8", 1, true))
    end)

    it("conn:send sends bytes, too", function()
      local ws = chat(open())
      ws:send "/bytes 3"
      ws:expect_binary "\255\255\255"
      ws:send "/bytes 0"
      ws:expect_binary ""
    end)

    it("a reply may be a list, or nothing", function()
      chat(open()):send("/list"):expect("one", "two"):send("/nothing"):expect_nothing()
    end)

    it("nobody changes what is told of a message", function()
      chat(open()):send("/meta"):expect("falsefalse")
    end)
  end)

  describe("is pinged", function()
    it("after a silence, and given up after a longer one", function()
      local app = open { ping = "10s", pong = "15s" }
      local ws = chat(app, { answers = false })
      app:advance "9s"
      ws:expect_nothing()
      app:advance "1s"
      ws:expect_ping()
      app:advance "4s"
      assert.is_nil(ws:closed())
      app:advance "1s"
      ws:expect_close(1001):expect_closed("idle_timeout")
    end)

    it("as long as it answers, and as it has been silent", function()
      local app = open { ping = "10s", pong = "15s" }
      local ws = chat(app)
      for _ = 1, 20 do
        app:advance "10s"
        ws:expect_ping()
      end
      for _ = 1, 5 do
        app:advance "9s"
        ws:send("x"):expect("x")
      end
      ws:send_frame { data = "a", last = false }
      app:advance "9s"
      ws:send_frame({ opcode = "more", data = "b" }):expect("ab")
      assert.is_nil(ws:closed())
    end)

    it("by default after 54 s, and given up after 60", function()
      local app = open()
      local ws = chat(app, { answers = false })
      app:advance "53s"
      ws:expect_nothing()
      app:advance "1s"
      ws:expect_ping()
      app:advance "6s"
      ws:expect_close(1001):expect_closed("idle_timeout")
    end)

    it("never, where that is off", function()
      local app = open { ping = false, pong = false }
      local ws = chat(app)
      app:advance "10h"
      ws:send("x"):expect("x")
    end)

    it("not while its agent waits", function()
      local app = open { ping = "10s", pong = "15s" }
      local ws = chat(app, { answers = false }):send("/sleep 60")
      app:advance "60s"
      ws:expect "slept"
      app:advance "10s"
      ws:expect_ping()
    end)

    it("not where it may not be silent for as long", function()
      local app = open { ping = "10s", pong = "15s" }
      local ws = chat(app):send "/idle 5"
      app:advance "5s"
      ws:expect_close(1001):expect_closed "idle_timeout"
    end)

    it("after it has asked timeout() that lets it be", function()
      local agent = { proceed = function(_, message) return message end, timeout = function() return true end }
      local app = memory.open { listen = { { "ws://127.0.0.1:0", agent = agent } }, ping = "10s", pong = "15s" }
      local ws = app:connect():websocket("/", { answers = false })
      for _ = 1, 3 do
        app:advance "10s"
        ws:expect_ping()
        app:advance "5s"
        assert.is_nil(ws:closed())
      end
    end)
  end)

  describe("answers pings", function()
    it("with what they carry", function()
      local ws = chat(open())
      for _, data in ipairs { "", "a", "\0\255", ("x"):rep(125) } do ws:ping(data):expect_pong(data) end
    end)

    it("while its agent waits, and once each", function()
      local app = open()
      local ws = chat(app):send("/sleep 5"):ping("1"):send("between"):ping("2"):expect_pong("1"):expect_pong("2")
      app:advance "5s"
      ws:expect("slept", "between"):ping("3"):expect_pong("3"):expect_nothing()
    end)

    it("though it is paused for the time being", function()
      local app = open()
      local ws = chat(app):send("/pause"):ping("p")
      app:advance "1s"
      ws:expect_pong "p"
    end)

    it("of a client that sends very many, and reads none, within bounds", function()
      local app = open { limits = { send_buffer = "64k" } }
      local ws = chat(app)
      ws.client:stall(0)
      local ping = websocket.bytes { opcode = "ping", data = ("x"):rep(125) }
      for _ = 1, 50 do ws:send_raw(ping:rep(1000)) end
      app:advance "30s"
      ws:expect_closed "write_timeout"
      assert.is_true(app:counters().bytes_out < 2 * 2 ^ 20)
    end)
  end)

  describe("has limits:", function()
    it("of a message, and agents are told", function()
      local app = open { limits = { message = 10 } }
      chat(app):send(("x"):rep(11)):expect_close(1009)
      assert.equal(11, app:log("oversize")[1].n)
    end)

    it("of what breaks the rules agents are told, too", function()
      local app = open()
      chat(app):send_frame({ opcode = 7 }):expect_close(1002)
      assert.equal("WebSocket 1002: a frame has an opcode that is not known", app:log("malformed")[1].why)
    end)

    it("a message that drips must be whole in timeout.header", function()
      local app = open { timeout = { header = "10s" } }
      local ws = chat(app)
      local bytes = websocket.bytes { data = ("x"):rep(20) }
      for i = 1, 10 do
        ws:send_raw(bytes:sub(i, i))
        app:advance "1s"
      end
      ws:expect_close(1008):expect_closed("read_timeout")
    end)

    it("but not what comes between messages, whose reads may all end within a frame", function()
      local app = open { timeout = { header = "10s" } }
      local ws = chat(app, { answers = false })
      ws:send_raw "\138\128\0"
      for _ = 1, 20 do
        ws:send_raw "\0\0\0\138\128\0"
        app:advance "1s"
      end
      ws:send_raw("\0\0\0"):send("x"):expect("x"):send_raw "\138\128\0"
      app:advance "10s"
      ws:expect_close(1008):expect_closed("read_timeout")
    end)

    it("so must one in fragments", function()
      local app = open { timeout = { header = "10s" } }
      local ws = chat(app):send_frame { data = "x", last = false }
      for _ = 1, 10 do
        app:advance "1s"
        ws:send_frame { opcode = "more", data = "x", last = false }
      end
      ws:expect_close(1008):expect_closed("read_timeout")
    end)

    it("of output, past which messages are dropped where the policy says so, and never parts of one", function()
      local agent = {}
      function agent:proceed(n)
        for i = 1, tonumber(n) do self.conn:send(("%04d"):format(i):rep(100), i % 2 == 0 and "binary" or "text") end
      end
      local app = memory.open { listen = "ws://127.0.0.1:0", agent = agent,
        limits = { send_buffer = "1k", slow_consumer = "drop" } }
      local ws = app:connect():websocket("/")
      ws.client:stall(0)
      ws:send "100"
      local dropped = app:counters().dropped_frames
      assert.truthy(dropped > 50)
      ws.client:unstall()
      for i = 1, 100 - dropped do -- the first ones: nobody has read meanwhile
        assert.equal(("%04d"):format(i):rep(100), (ws:receive()))
      end
      ws:expect_nothing()
      ws:close(1000):expect_closed("peer")
    end)
  end)

  local ALONE = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"

  describe("compresses", function()
    it("where the client offers it", function()
      local ws = chat(open(), { compress = true })
      assert.is_true(ws.compresses)
      local text = ("All work and no play. "):rep(100)
      ws:send_compressed(text)
      local frame = ws:frame()
      assert.same({ "text", 0x40, true }, { frame.opcode, frame.reserved, #frame.data < 200 })
      ws:send_compressed("\0\255", "binary"):expect_binary("\0\255"):send("plain"):expect("plain")
      ws:send(text):expect(text):send_compressed(text):expect(text)
    end)

    local KEPT = "permessage-deflate"
    for offer, answer in pairs {
      ["permessage-deflate"] = KEPT,
      ["permessage-deflate; client_max_window_bits"] = KEPT .. "; client_max_window_bits=12",
      ["permessage-deflate; client_max_window_bits=10"] = KEPT,
      ["permessage-deflate; server_no_context_takeover; client_no_context_takeover"] = ALONE,
      ["permessage-deflate; server_no_context_takeover"] = KEPT .. "; server_no_context_takeover",
      ["permessage-deflate; client_no_context_takeover"] = KEPT .. "; client_no_context_takeover",
      ["permessage-deflate; server_max_window_bits=10"] = KEPT .. "; server_max_window_bits=10",
      ['permessage-deflate; server_max_window_bits="9"'] = KEPT .. "; server_max_window_bits=9",
      ["permessage-deflate; server_max_window_bits=15"] = KEPT .. "; server_max_window_bits=15",
      ["permessage-deflate; server_max_window_bits=8"] = KEPT
        .. "; server_no_context_takeover; server_max_window_bits=8",
      ["permessage-deflate; server_max_window_bits=7, permessage-deflate"] = KEPT,
      ["x-other, permessage-deflate"] = KEPT,
      ["x-other; a=b"] = "none",
      ["permessage-deflate; server_max_window_bits=7"] = "none",
      ["permessage-deflate; server_max_window_bits=16"] = "none",
      ["permessage-deflate; server_max_window_bits"] = "none",
      ["permessage-deflate; server_max_window_bits=09"] = "none",
      ["permessage-deflate; client_max_window_bits=7"] = "none",
      ["permessage-deflate; client_max_window_bits; client_max_window_bits"] = "none",
      ["permessage-deflate; server_no_context_takeover=1"] = "none",
      ["permessage-deflate; unknown"] = "none",
    } do
      it(("after the offer %s: %s"):format(offer, answer), function()
        local ws = chat(open_shared(), { compress = offer })
        assert.equal(answer, ws.response.headers["Sec-WebSocket-Extensions"] or "none")
        local text = ("abc"):rep(1000)
        ws:send(text):expect(text)
        if ws.compresses then ws:send_compressed(text):expect(text) end
      end)
    end

    -- What is said to an offer while there is memory for windows.
    local function agreed(server, client, takeover)
      local keeps_out = not takeover:find "server_no" and not server:find "=8$"
      local keeps_in, bits = not takeover:find "client_no", tonumber(client:match "=(%d+)") or 15
      return KEPT .. (keeps_out and "" or "; server_no_context_takeover")
        .. (keeps_in and "" or "; client_no_context_takeover") .. server
        .. (keeps_in and client ~= "" and bits > 12 and "; client_max_window_bits=12" or "")
    end

    -- RFC 7692, 7.1: each parameter is there or not, with each value that it can have, in either order.
    it("after each set of parameters that there is", function()
      local SERVERS, CLIENTS = { "" }, { "", "; client_max_window_bits" }
      for bits = 8, 15 do
        SERVERS[#SERVERS + 1] = "; server_max_window_bits=" .. bits
        CLIENTS[#CLIENTS + 1] = "; client_max_window_bits=" .. bits
      end
      local TAKEOVERS = { "", "; server_no_context_takeover", "; client_no_context_takeover",
        "; client_no_context_takeover; server_no_context_takeover" }
      local app, text, count = open_shared(), ("abc"):rep(100), 0
      for i, server in ipairs(SERVERS) do
        for k, client in ipairs(CLIENTS) do
          count = count + 1
          local takeover = TAKEOVERS[(i + k) % 4 + 1]
          local terms = k % 2 == 0 and server .. client .. takeover or takeover .. client .. server
          local ws = chat(app, { compress = "permessage-deflate" .. terms })
          assert.equal(agreed(server, client, takeover), ws.response.headers["Sec-WebSocket-Extensions"], terms)
          ws:send(text)
          local frame = ws:frame()
          assert.equal(server:find "=8$" and 0 or 0x40, frame.reserved, terms)
          ws:send_compressed(text):expect(text):send(text):expect(text):close()
        end
      end
      assert.equal(90, count)
    end)

    it("what a handler accepts without options", function()
      assert.is_true(open():connect { listener = "http" }:websocket("/bare", { compress = true }).compresses)
    end)

    it("nothing where a handler says so, or the settings", function()
      assert.is_false(open():connect { listener = "http" }:websocket("/plain", { compress = true }).compresses)
      assert.is_false(chat(open { compress = false }, { compress = true }).compresses)
    end)

    it("nothing that nobody has agreed to", function()
      chat(open()):send_compressed("x"):expect_close(1002)
    end)

    it("within limits.message", function()
      local ws = chat(open { limits = { message = 1000 } }, { compress = true })
      ws:send_compressed(("x"):rep(1000)):expect(("x"):rep(1000))
      ws:send_compressed(("x"):rep(1001)):expect_close(1009):expect_closed("oversize")
    end)

    it("and refuses what is broken", function()
      local ws = chat(open(), { compress = true })
      ws:send_frame({ reserved = 0x40, data = "\255\255\255" }):expect_close(1007):expect_closed("frame_error")
    end)

    it("and looks at texts", function()
      chat(open(), { compress = true }):send_compressed("a\255"):expect_close(1007)
    end)

    it("messages that come in fragments", function()
      local data = require("perilune").deflate(("abc"):rep(100), { format = "raw" }) .. "\0"
      local frames = {}
      for i = 1, #data do
        frames[i] = { opcode = i == 1 and "text" or "more", reserved = i == 1 and 0x40 or 0, data = data:sub(i, i),
          last = i == #data }
      end
      chat(open(), { compress = true }):send_frame(unpack(frames)):expect(("abc"):rep(100))
    end)
  end)

  describe("of perilune.test", function()
    it("leaves out messages, and has all that there are as a list", function()
      local ws = chat(open()):send("a"):send("b"):send("c"):send("d", "binary"):send("e")
      assert.same({ "c", "d", "e" }, ws:skip():skip(1):messages())
      assert.same({}, ws:messages())
      ws:send("f"):close(1000)
      assert.same({ "f" }, ws:messages())
      ws:expect_close(1000)
    end)

    it("fails where there are too few to leave out", function()
      local ws = chat(open()):send "a"
      local ok, message = pcall(ws.skip, ws, 2)
      assert.is_false(ok)
      assert.truthy(tostring(message.message or message):find("expected message 2 of 2 to skip: nothing came", 1, true))
    end)
  end)

  -- Of zlib, what a client sends that has a window of 2^12 bytes: a text, and the same again, which only refers to it.
  local TEXT, FIRST, SECOND = "All work and no play makes Jack a dull boy.",
    "\114\204\201\81\40\207\47\202\86\72\204\75\81\200\203\87\40\200\73\172\84\200\77\204\78\45\86\240\74\76\6\10\43"
    .. "\164\148\2\149\36\229\87\234\1\0", "\114\36\94\41\0"
  local OUT_12, IN_12, IN_15 = 6272 + 2 ^ 14 + 2 ^ 13, 7296 + 2 ^ 12, 7296 + 2 ^ 15

  local function compressed(data) return { reserved = 0x40, data = data } end

  local function windows(app) return app:counters().websocket_windows end

  -- The bytes of what comes back.
  local function length(ws, text)
    ws:send(text)
    local frame = ws:frame()
    return frame.reserved == 0x40 and #frame.data or nil
  end

  describe("keeps a window", function()
    it("of what it has sent, in which the same is found again, and what is like it", function()
      local ws = chat(open(), { compress = true })
      local first = length(ws, TEXT:rep(2))
      assert.truthy(first and first > 40)
      ws = chat(open(), { compress = true })
      ws:send(TEXT:rep(2)):expect(TEXT:rep(2)):send(TEXT):expect(TEXT)
      assert.truthy(length(ws, TEXT:rep(2)) < 10)
    end)

    it("of what has come, for who refers to it", function()
      local ws = chat(open(), { compress = true })
      ws:send_frame(compressed(FIRST)):expect(TEXT):send_frame(compressed(SECOND)):expect(TEXT)
      ws:send("plain"):expect("plain"):send_frame(compressed(SECOND)):expect(TEXT)
    end)

    it("of neither where that is asked for: what refers to it is broken then", function()
      local ws = chat(open(), { compress = ALONE })
      assert.equal(length(ws, TEXT:rep(2)), length(ws, TEXT:rep(2)))
      ws:send_frame(compressed(FIRST)):expect(TEXT):send_frame(compressed(SECOND)):expect_close(1007)
    end)

    it("which what was not compressed, or was broken off, is no part of", function()
      local ws = chat(open(), { compress = true })
      local random = {}
      for i = 1, 500 do random[i] = string.char(i * i * 7919 % 251 % 95 + 32) end
      random = table.concat(random)
      ws:send(TEXT):expect(TEXT):send(("x"):rep(20)):expect(("x"):rep(20)):send(random):expect(random)
      ws:send(TEXT):expect(TEXT):send(TEXT):expect(TEXT)
    end)

    it("which what is larger than it begins anew", function()
      local ws = chat(open(), { compress = true })
      local large = {}
      for i = 1, 900 do large[i] = tostring(i * 7919 % 1000) end
      large = table.concat(large, " "):rep(5)
      for _, text in ipairs { TEXT, large, TEXT, TEXT, large, large:sub(1, 4096), large:sub(1, 4097), TEXT } do
        ws:send(text):expect(text)
      end
    end)

    it("of no more bytes than limits.message inflates to, whatever it refers to", function()
      local ws = chat(open { limits = { message = 1000 } }, { compress = true })
      ws:send_frame(compressed(FIRST)):expect(TEXT)
      ws:send_frame(compressed(require("perilune").deflate(TEXT:rep(100), { format = "raw" }) .. "\0"))
      ws:expect_close(1009):expect_closed("oversize")
    end)

    it("until what comes is broken", function()
      local app = open()
      local ws = chat(app, { compress = true })
      ws:send_frame(compressed(FIRST)):expect(TEXT):send_frame(compressed "\255\255"):expect_close(1007)
      assert.equal(0, windows(app))
    end)

    it("behind a last block, to which the next message may refer", function()
      local ws = chat(open(), { compress = true })
      local last = require("perilune").deflate(TEXT, { format = "raw" }) .. "\0"
      ws:send_frame(compressed(last)):expect(TEXT):send_frame(compressed(SECOND)):expect(TEXT)
    end)

    it("in fragments, byte by byte", function()
      local ws = chat(open(), { compress = true }):send_frame(compressed(FIRST)):expect(TEXT)
      local frames = {}
      for i = 1, #SECOND do
        frames[i] = { opcode = i == 1 and "text" or "more", reserved = i == 1 and 0x40 or 0, data = SECOND:sub(i, i),
          last = i == #SECOND }
      end
      ws:send_frame(unpack(frames)):expect(TEXT)
    end)

    it("where there was no memory for a message for a while", function()
      local app = open { limits = { buffers = "2m", message = "600k", body = "600k" } }
      local ws, text = chat(app, { compress = true }), ("x"):rep(300000) .. TEXT
      ws:send_frame(compressed(FIRST)):expect(TEXT)
      for _ = 1, 3 do chat(app):send_frame { data = ("x"):rep(400000), last = false } end
      ws:send_compressed(text)
      assert.equal(1, app:counters().closed)
      ws:expect(text):send_frame(compressed(SECOND)):expect(TEXT)
    end)

    it("not where the settings or a handler say so", function()
      local app = open { compress = "alone" }
      local ws = chat(app, { compress = true })
      assert.equal(ALONE, ws.response.headers["Sec-WebSocket-Extensions"])
      assert.equal(length(ws, TEXT:rep(2)), length(ws, TEXT:rep(2)))
      assert.equal(0, windows(app))
    end)

    for what, value in pairs { ["a text"] = "together", ["a table"] = {}, ["a number"] = 1 } do
      it("as an option that is no " .. what, function()
        local ok, message = pcall(http.websocket, { proceed = print }, { compress = value })
        assert.is_false(ok)
        assert.truthy(message:find('http.websocket: compress: expects true, false or "alone", got ', 1, true), message)
      end)
    end
  end)

  describe("has memory for windows", function()
    it("within limits.deflate: of a smaller one if need be, and then of none", function()
      local app = open { limits = { deflate = OUT_12 + IN_12 + 25000 } }
      local OFFER = "permessage-deflate; client_max_window_bits"
      local function says() return chat(app, { compress = OFFER }).response.headers["Sec-WebSocket-Extensions"] end
      local first = chat(app, { compress = OFFER })
      assert.equal("permessage-deflate; client_max_window_bits=12", first.response.headers["Sec-WebSocket-Extensions"])
      assert.equal(OUT_12 + IN_12, windows(app))
      assert.equal("permessage-deflate; client_no_context_takeover", says()) -- 2^11 of what is sent: 18560 bytes
      assert.equal(OUT_12 + IN_12 + 18560, windows(app))
      assert.equal(ALONE, says())
      first:send(TEXT):expect(TEXT)
      first:close(1000):expect_closed "peer"
      assert.equal(18560, windows(app))
      assert.equal("permessage-deflate; client_max_window_bits=12", says())
    end)

    it("which a client that cannot be asked for less has to have room for", function()
      local app = open { limits = { deflate = OUT_12 + IN_15 - 1 } }
      local ws = chat(app, { compress = true })
      assert.equal("permessage-deflate; client_no_context_takeover", ws.response.headers["Sec-WebSocket-Extensions"])
      assert.equal(OUT_12, windows(app))
      ws.client:close()
      assert.equal(0, windows(app))
      app = open { limits = { deflate = OUT_12 + IN_15 } }
      assert.equal("permessage-deflate", chat(app, { compress = true }).response.headers["Sec-WebSocket-Extensions"])
    end)

    it("not at all with 0", function()
      local app = open { limits = { deflate = 0 } }
      local ws = chat(app, { compress = true })
      assert.equal(ALONE, ws.response.headers["Sec-WebSocket-Extensions"])
      ws:send(TEXT:rep(2)):expect(TEXT:rep(2)):send_compressed(TEXT):expect(TEXT)
    end)
  end)

  describe("in a reload", function()
    it("stays with its agent by default", function()
      local app = open()
      local ws = chat(app):send("x"):expect("x")
      app:reload()
      ws:send("/generation"):expect("0")
    end)

    it("migrates between two messages, where its listener's policy says so", function()
      local app = open { reload = { policy = "migrate" } }
      local ws = chat(app, { compress = true })
      ws:send_frame { data = "a", last = false }
      app:reload()
      ws:send_frame({ opcode = "more", data = "b" }):expect("ab"):send("/generation"):expect("1")
      local text = ("abc"):rep(100)
      ws:send_compressed(text):expect(text)
      ws:close(1000, "bye"):expect_close(1000)
      assert.equal(3, app:log("chat closed")[1].heard)
    end)

    it("migrates with its windows", function()
      local app = open { reload = { policy = "migrate" } }
      local ws = chat(app, { compress = true })
      ws:send_frame(compressed(FIRST)):expect(TEXT):send(TEXT:rep(2)):expect(TEXT:rep(2))
      local counted = windows(app)
      assert.equal(OUT_12 + IN_15, counted)
      app:reload()
      ws:send("/generation"):expect("1"):send_frame(compressed(SECOND)):expect(TEXT)
      assert.truthy(length(ws, TEXT:rep(2)) < 10)
      assert.equal(counted, windows(app))
      ws:close(1000):expect_close(1000):expect_closed "peer"
      assert.equal(0, windows(app))
    end)

    it("stays where upgrade() fails, whatever that would have closed it with", function()
      local app = open { reload = { policy = "migrate" } }
      local ws = chat(app):send "/refuse"
      app:reload()
      ws:send("/generation"):expect("0"):send("/leave"):expect("bye"):expect_close(1000, "")
    end)

    it("drains, where the policy says so", function()
      local app = open { reload = { policy = "drain" } }
      local ws = chat(app)
      app:reload()
      ws:expect_close(1001):expect_closed("drain")
    end)

    it("stays where HTTP's handler had accepted it, as nobody else knows its agent", function()
      local app = open { reload = { policy = "migrate" } }
      local client = app:connect { listener = "http" }
      local ws = client:websocket("/chat")
      app:reload()
      ws:send("x"):expect("x"):send("/generation"):expect("0")
      app:connect { listener = "http" }:websocket("/chat"):send("x"):expect("x")
    end)
  end)
end)
