--- WebSockets that a script opens: perilune.connect("ws://…"), in straight lines and with agents.
local core = require "perilune"
local memory = require "spec.support.memory"
local perilune = require "perilune.test"

local has = require "spec.support.has"
local pki = require "spec.support.pki"

-- Functions of an app are copied into its VM, with what they use.
local function accept_of(head)
  local key = head:match "Sec%-WebSocket%-Key: (%S+)"
  return core.encoding.encode_base64(core.crypto.digest("sha1", key .. "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
end

-- The answer to a handshake; `changes`: lines of it that are others, false leaves one out.
local function answer(head, changes)
  local lines = { "HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade",
    "Sec-WebSocket-Accept: " .. accept_of(head) }
  for at, line in pairs(changes or {}) do lines[at] = line end
  local out = {}
  for _, line in ipairs(lines) do out[#out + 1] = line or nil end
  return table.concat(out, "\r\n") .. "\r\n\r\n"
end

local function frame(first, payload, masked)
  local n = #payload
  local head = n < 126 and string.char(first, n + (masked and 128 or 0))
    or string.char(first, 126 + (masked and 128 or 0), math.floor(n / 256), n % 256)
  return head .. (masked and "\0\0\0\0" or "") .. payload
end

-- The first frame in what a client has sent: its first byte, its payload, its mask, the rest.
local function read_frame(bytes)
  local first, second = bytes:byte(1, 2)
  assert(second >= 128, "it is not masked")
  local n, at = second - 128, 3
  if n == 126 then n, at = bytes:byte(3) * 256 + bytes:byte(4), 5 end
  local mask = bytes:sub(at, at + 3)
  local payload = {}
  for i = 1, n do payload[i] = string.char(bit.bxor(bytes:byte(at + 3 + i), mask:byte((i - 1) % 4 + 1))) end
  return first, table.concat(payload), mask, bytes:sub(at + 4 + n)
end

describe("perilune.connect of ws://", function()
  local net

  before_each(function() net = perilune.net() end)
  after_each(function() net:close() end)
  after_each(memory.finish)

  local Echo = {}
  function Echo:proceed(message, meta)
    local code, text = message:match "^/close (%d+) ?(.*)$"
    if code then return self.conn:close(tonumber(code), text) and nil end
    if message == "/drop" then return self.conn:abort() and nil end
    if message == "/late" then core.sleep(1) end
    self.conn:send(message, meta.binary and "binary" or "text")
  end
  function Echo:opened(request) self.request = request end
  function Echo:closed(reason, code, text)
    core.log("info", "server closed", { reason = reason, code = code, text = text })
  end

  local function serve(more)
    local script = { agent = Echo, subprotocols = { "b", "a" } }
    for key, value in pairs(more or {}) do script[key] = value end
    return net:serve("ws://db:80/chat", script)
  end

  -- A server that is none of ours: `respond(head, conn)` is what it answers.
  local function strange(respond)
    local db = net:serve("tcp://db:80", { frame = { "delimiter", "\r\n\r\n" }, agent = {
      proceed = function(self, data)
        core.log("info", self.raw and "bytes" or "head", { hex = core.encoding.encode_hex(data) })
        if self.raw then return nil end
        self.raw = true
        self.conn:set_frame "raw"
        return respond(data, self.conn)
      end,
      closed = function(_, reason) core.log("info", "server closed", { reason = reason }) end,
    } })
    local got = {}
    function got.head(i) return core.encoding.decode_hex(db:log("head")[i or 1].hex) end
    function got.bytes()
      net:advance(0)
      local out = {}
      for i, entry in ipairs(db:log("bytes")) do out[i] = core.encoding.decode_hex(entry.hex) end
      return table.concat(out)
    end
    function got.reason()
      net:advance(0)
      local entry = db:log("server closed")[1]
      return entry and entry.reason
    end
    return got
  end

  -- An app that does this for each line of a client.
  local function app_of(use, more)
    local script = { listen = "tcp://127.0.0.1:9000", frame = "line", agent = { proceed = function(self, line)
      return use(line, self)
    end } }
    for key, value in pairs(more or {}) do script[key] = value end
    return net:app(script)
  end

  local function says(...)
    local out = {}
    for i = 1, select("#", ...) do
      local value = select(i, ...)
      out[i] = type(value) == "table" and "meta" or tostring(value)
    end
    return table.concat(out, "|")
  end

  -- What comes of connecting, and then of `use`.
  local function outcome(options, use, address)
    local ask = app_of(function(line)
      local ws, message, code, status = core.connect(address or "ws://db:80/chat", options)
      if not ws then return says(message, code, status) end
      return use and use(ws, line) or says("open", ws.subprotocol)
    end)
    local client = ask:connect():send "go"
    return client, ask
  end

  describe("exchanges", function()
    it("texts and binary messages of all sizes", function()
      serve()
      local client = outcome({}, function(ws)
        for _, n in ipairs { 0, 1, 125, 126, 65535, 65536 } do
          local text, bytes = ("é"):rep(n / 2) .. ("x"):rep(n % 2), ("\255"):rep(n)
          ws:send(text)
          ws:send(bytes, "binary")
          local message, meta = ws:read()
          assert(message == text and meta.binary == false, n)
          message, meta = ws:read()
          assert(message == bytes and meta.binary == true, n)
        end
        ws:close()
        return "all"
      end)
      client:expect "all"
    end)

    it("them compressed, where both sides want that", function()
      serve()
      for _, options in ipairs { { compress = true }, {} } do
        outcome(options, function(ws)
          for _, text in ipairs { "a", ("abc"):rep(10000), ("\255"):rep(50000) } do
            ws:send(text, "binary")
            assert(ws:read() == text)
          end
          return "same"
        end):expect "same"
      end
    end)

    it("over Unix sockets", function()
      local served = net:serve("unix:///run/chat.sock", { protocol = "ws", agent = {
        opened = function(self, request) self.seen = request.target .. " " .. request.headers.host end,
        proceed = function(self, message) return message .. " " .. self.seen end,
      } })
      for address, seen in pairs {
        ["ws+unix:///run/chat.sock:/room?a=b"] = "/room?a=b localhost", ["ws+unix:/run/chat.sock:/x"] = "/x localhost",
        ["ws+unix:///run/chat.sock"] = "/ localhost", ["ws+unix:///run/chat.sock:"] = "/ localhost",
      } do
        outcome({ compress = true }, function(ws)
          ws:send "x"
          return (ws:read())
        end, address):expect("x " .. seen)
      end
      served:close()
      outcome({}, nil, "ws+unix:///run/chat.sock:/x")
        :expect(perilune.pattern "chat%.sock: connection refused|ECONNREFUSED")
    end)

    it("what an app says to itself", function()
      local Self = { proceed = function(_, message) return "<" .. message .. ">" end }
      local app = net:app { agent = Self, listen = { { "ws://self:80", agent = Self },
        { "tcp://127.0.0.1:9000", frame = "line", agent = { proceed = function(_, line)
          local ws = assert(core.connect("ws://self"))
          ws:send(line)
          return (ws:read())
        end } } } }
      app:connect { listener = "tcp://127.0.0.1:9000" }:send "a":expect "<a>"
    end)

    it("messages through TLS", function()
      local PKI = pki.new()
      finally(function() PKI:remove() end)
      local mine = PKI:sign("server", { names = { "db" } })
      net:serve("wss://db:443/chat", { agent = Echo, tls = { certificate = mine.certificate, key = mine.key } })
      outcome({ tls = { authority = PKI:path "ca.pem" } }, function(ws)
        ws:send "secret"
        return ws:read() .. " " .. ws.tls.version
      end, "wss://db/chat"):expect "secret 1.3"
    end)

    it("messages in the order in which they come, and one that is late is the next read's", function()
      serve()
      local client = outcome({ timeout = { read = "500ms" } }, function(ws)
        ws:send "/late"
        ws:send "b"
        local _, message, code = ws:read()
        core.sleep(1)
        return says(message, code, (ws:read()), (ws:read()))
      end)
      net:advance(2)
      client:expect "timeout|ETIMEDOUT|/late|b"
    end)

    it("what came right behind the answer, the end included", function()
      strange(function(head, conn)
        conn:send(answer(head) .. frame(0x81, "first") .. frame(0x89, "p") .. frame(0x82, "second")
          .. frame(0x88, "\15\160bye"))
      end)
      outcome({}, function(ws)
        return says(ws:read()) .. " " .. says((ws:read())) .. " " .. says(ws:read()) .. " " .. says(ws:read())
      end):expect "first|meta second nil|end of stream|EOF|4000|bye nil|closed|ECANCELED"
    end)
  end)

  describe("asks", function()
    local function head_of(options, address)
      local got = strange(function(head) return answer(head), "close" end)
      outcome(options, nil, address or "ws://db:80/chat"):receive()
      return got.head() .. "\r\n"
    end

    it("as RFC 6455 has it", function()
      local head = head_of({}, "ws://db/a/b?c=d%20e")
      assert.equal("GET /a/b?c=d%20e HTTP/1.1", head:match "^[^\r]*")
      for _, line in ipairs { "Host: db", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13",
        "User-Agent: perilune" } do has("\r\n" .. line .. "\r\n", head) end
      assert.equal(16, #core.encoding.decode_base64(head:match "Sec%-WebSocket%-Key: (%S+)"))
      for _, name in ipairs { "Origin", "Sec%-WebSocket%-Protocol", "Sec%-WebSocket%-Extensions" } do
        assert.is_nil(head:find(name))
      end
    end)

    it("with what the options say", function()
      local head = head_of { origin = "https://example.org", subprotocols = { "a", "b" },
        headers = { Authorization = "Bearer x", Host = "other.example", ["X-Many"] = { "1", "2" },
          ["User-Agent"] = false } }
      for _, line in ipairs { "Host: other.example", "Origin: https://example.org", "Sec-WebSocket-Protocol: a, b",
        "Authorization: Bearer x", "X-Many: 1\r\nX-Many: 2" } do
        has("\r\n" .. line .. "\r\n", head)
      end
      assert.is_nil(head:find "User%-Agent")
    end)

    for compress, offer in pairs {
      [true] = "permessage-deflate; server_max_window_bits=12; client_max_window_bits, permessage-deflate; "
        .. "server_no_context_takeover; client_no_context_takeover; client_max_window_bits",
      alone = "permessage-deflate; server_no_context_takeover; client_no_context_takeover; client_max_window_bits",
    } do
      it("with compress = " .. tostring(compress) .. " for compression", function()
        has("\r\nSec-WebSocket-Extensions: " .. offer .. "\r\n", head_of { compress = compress })
      end)
    end

    it("with another key each time", function()
      local got = strange(function(head) return answer(head), "close" end)
      local app = app_of(function() return says(core.connect "ws://db:80" ~= nil) end)
      app:connect():send("1", "2"):expect("true", "true")
      local first, second = got.head(1):match "Key: (%S+)", got.head(2):match "Key: (%S+)"
      assert.truthy(first and second and first ~= second)
    end)
  end)

  describe("takes an answer", function()
    for what, row in pairs {
      ["in other letters"] = { { [2] = "UPGRADE: WebSocket", [3] = "connection: keep-alive, upgrade" }, "open|nil" },
      ["with a subprotocol that was offered"] = { { [5] = "Sec-WebSocket-Protocol: b" }, "open|b" },
      ["that compresses"] = { { [5] = "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover" },
        "open|nil" },
      ["that compresses with all terms"] = { { [5] = "Sec-WebSocket-Extensions: permessage-deflate; "
        .. "client_no_context_takeover; server_no_context_takeover; server_max_window_bits=8; "
        .. 'client_max_window_bits="9"' }, "open|nil" },
      ["that keeps a window"] = { { [5] = "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=12" },
        "open|nil" },
      ["that keeps a smaller one"] = { { [5] = "Sec-WebSocket-Extensions: permessage-deflate; "
        .. "server_max_window_bits=8; client_no_context_takeover; client_max_window_bits=10" }, "open|nil" },
      ["behind others that are interim"] = { { [1] = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
        .. "HTTP/1.1 101 Switching Protocols" }, "open|nil" },
    } do
      it(what, function()
        strange(function(head) return answer(head, row[1]) end)
        outcome({ subprotocols = { "a", "b" }, compress = true }):expect(row[2])
      end)
    end

    local WRONG = "ws://db:80/chat: the answer to the handshake is wrong: "
    for what, row in pairs {
      ["of another status"] = { { [1] = "HTTP/1.1 404 Not Found" },
        "ws://db:80/chat: no WebSocket, the answer is 404 Not Found|EPROTO|404" },
      ["that is a redirect"] = { { [1] = "HTTP/1.1 302 Found\r\nLocation: /x" },
        "ws://db:80/chat: no WebSocket, the answer is 302 Found|EPROTO|302" },
      ["without a phrase"] = { { [1] = "HTTP/1.1 503" },
        "ws://db:80/chat: no WebSocket, the answer is 503|EPROTO|503" },
      ["of something else"] = { { [1] = "SSH-2.0-OpenSSH" }, WRONG .. "this is no HTTP response|EPROTO|nil" },
      ["of HTTP/1.0"] = { { [1] = "HTTP/1.0 101 Sure" }, WRONG .. "it switches protocols by HTTP/1.0|EPROTO|nil" },
      ["without Upgrade"] = { { [2] = false }, WRONG
        .. "it does not say to what it switches (Upgrade: websocket)|EPROTO|nil" },
      ["that upgrades to something else"] = { { [2] = "Upgrade: h2c" }, WRONG
        .. "it switches to something else than a WebSocket (Upgrade)|EPROTO|nil" },
      ["without Connection"] = { { [3] = "Connection: keep-alive" }, WRONG
        .. "it does not say that it switches (Connection: Upgrade)|EPROTO|nil" },
      ["without Accept"] = { { [4] = false }, WRONG .. "it has no Sec-WebSocket-Accept|EPROTO|nil" },
      ["with the Accept of another key"] = { { [4] = "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" }, WRONG
        .. "its Sec-WebSocket-Accept is not what the key of the request makes|EPROTO|nil" },
      ["with a subprotocol that was not offered"] = { { [5] = "Sec-WebSocket-Protocol: c" }, WRONG
        .. "it has chosen a subprotocol that was not offered|EPROTO|nil" },
      ["with two subprotocols"] = { { [5] = "Sec-WebSocket-Protocol: a\r\nSec-WebSocket-Protocol: b" }, WRONG
        .. "it has chosen several subprotocols|EPROTO|nil" },
      ["with several subprotocols in one"] = { { [5] = "Sec-WebSocket-Protocol: a, b" }, WRONG
        .. "it has chosen a subprotocol that was not offered|EPROTO|nil" },
      ["with an extension that was not offered"] = { { [5] = "Sec-WebSocket-Extensions: x-own" }, WRONG
        .. "it has chosen an extension that was not offered|EPROTO|nil" },
      ["with an extension twice"] = { { [5] = "Sec-WebSocket-Extensions: permessage-deflate; "
        .. "server_no_context_takeover, permessage-deflate; server_no_context_takeover" }, WRONG
        .. "it has chosen an extension twice|EPROTO|nil" },
      ["that would keep its context"] = { { [5] = "Sec-WebSocket-Extensions: permessage-deflate" }, WRONG
        .. "it would compress with more of what was before than was offered (server_max_window_bits)|EPROTO|nil" },
      ["that would keep more"] = { { [5] = "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=13" },
        WRONG .. "it would compress with more of what was before than was offered (server_max_window_bits)|EPROTO|"
        .. "nil" },
      ["with a broken field"] = { { [5] = "bad field: x" }, WRONG },
      ["with a body"] = { { [5] = "Content-Length: 5" }, WRONG .. "a response of this status has no body|EPROTO|nil" },
    } do
      it("not " .. what, function()
        local got = strange(function(head) return answer(head, row[1]) end)
        outcome({ subprotocols = { "a", "b" }, compress = true })
          :expect(perilune.pattern("^" .. row[2]:gsub("%p", "%%%0")))
        net:advance(0)
        assert.truthy(got.reason())
      end)
    end

    for _, term in ipairs { "server_max_window_bits", "server_max_window_bits=7", "server_max_window_bits=16",
      "client_max_window_bits=08", "server_no_context_takeover=1", "client_max_window_bits",
      "server_no_context_takeover; server_no_context_takeover", "x=1" } do
      it("not that compresses with " .. term, function()
        strange(function(head)
          return answer(head, { [5] = "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; "
            .. term })
        end)
        outcome({ compress = true })
          :expect(WRONG .. "permessage-deflate has a parameter that it cannot have|EPROTO|nil")
      end)
    end

    it("not that keeps its context where nobody has asked for it", function()
      strange(function(head) return answer(head, { [5] = "Sec-WebSocket-Extensions: permessage-deflate" }) end)
      outcome({ compress = "alone" })
        :expect(WRONG .. "it would compress with what was before (server_no_context_takeover)|EPROTO|nil")
    end)

    it("not that compresses where nobody has asked for it", function()
      strange(function(head)
        return answer(head, { [5] = "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover" })
      end)
      outcome({}):expect(WRONG .. "it has chosen an extension that was not offered|EPROTO|nil")
    end)

    it("not that is too large", function()
      strange(function(head) return answer(head, { [5] = "X: " .. ("x"):rep(16384) }) end)
      outcome({}):expect "ws://db:80/chat: the answer to the handshake is too large|EMSGSIZE|nil"
    end)

    it("not that has too many fields", function()
      strange(function(head) return answer(head, { [5] = ("X: y\r\n"):rep(99) .. "X: y" }) end)
      outcome({}):expect(perilune.pattern("^" .. WRONG:gsub("%p", "%%%0")))
    end)

    it("not that does not come to its end", function()
      strange(function() return "HTTP/1.1 101 Sw", "close" end)
      outcome({}):expect "ws://db:80/chat: the connection has ended before the handshake was answered|EOF|nil"
    end)

    it("not that comes too late: timeout.connect is for all of it", function()
      local got = strange(function(head, conn)
        local text = answer(head)
        for i = 1, #text do
          core.sleep(0.1)
          if not conn:send(text:sub(i, i)) then return end
        end
      end)
      local client = outcome { timeout = { connect = "2s", read = "1h" } }
      net:advance "1999ms"
      client:expect_nothing()
      net:advance "1ms"
      client:expect "timeout: connected to ws://db:80/chat, but the handshake was not answered|ETIMEDOUT|nil"
      net:advance "1s"
      assert.truthy(got.reason())
    end)

    it("not for somebody who waits no longer", function()
      local got = strange(function() end)
      local app = app_of(function() return says(core.timeout("1s", core.connect, "ws://db:80")) end)
      local client = app:connect():send "go"
      net:advance "1s"
      client:expect(perilune.pattern "timeout")
      net:advance(0)
      assert.truthy(got.reason())
      assert.equal(1, app:counters().connect_failures)
    end)

    it("not by our own server, where it refuses", function()
      serve { origins = { "https://example.org" } }
      outcome({ origin = "https://example.com" })
        :expect "ws://db:80/chat: no WebSocket, the answer is 403 Forbidden|EPROTO|403"
      outcome({}, nil, "ws://db:80/other")
        :expect "ws://db:80/other: no WebSocket, the answer is 404 Not Found|EPROTO|404"
      outcome({ origin = "https://example.org", subprotocols = { "a", "b" } }):expect "open|b"
    end)

    it("that never comes, as nobody is there", function()
      outcome({}):expect(perilune.pattern "^db:80: connection refused.*|ECONNREFUSED|nil$")
    end)
  end)

  describe("speaks as a client:", function()
    it("each frame has a mask of its own", function()
      local got = strange(function(head) return answer(head) end)
      outcome({}, function(ws)
        ws:send "one"
        ws:send "one"
        ws:send(("x"):rep(200), "binary")
        ws:close(4001, "so")
        return "sent"
      end):expect "sent"
      net:advance(0)
      local first, text, mask, rest = read_frame(got.bytes())
      local _, again, other, more = read_frame(rest)
      local third, bytes, _, last = read_frame(more)
      local fourth, close, _, nothing = read_frame(last)
      assert.same({ 0x81, "one", "one", 0x82, ("x"):rep(200), 0x88, "\15\161so", "" },
        { first, text, again, third, bytes, fourth, close, nothing })
      assert.truthy(mask ~= other and mask ~= "\0\0\0\0")
    end)

    it("pings are answered, with a mask, also while nobody reads", function()
      local got = strange(function(head) return answer(head) .. frame(0x89, "are you there") end)
      outcome({}, function() core.sleep(1) return "slept" end)
      net:advance(0.5)
      local first, payload = read_frame(got.bytes())
      assert.same({ 0x8a, "are you there" }, { first, payload })
    end)

    it("a frame of the server that is masked ends it, with 1002", function()
      local got = strange(function(head) return answer(head) .. frame(0x81, "x", true) end)
      outcome({}, function(ws) return says(ws:read()) end)
        :expect "nil|WebSocket 1002: a frame of a server is masked|EPROTO"
      net:advance(0)
      local first, close = read_frame(got.bytes())
      assert.same({ 0x88, "\3\234a frame of a server is masked" }, { first, close })
    end)

    it("a message over limits.message ends it, with 1009", function()
      serve()
      outcome({ limits = { message = 10 } }, function(ws)
        ws:send(("x"):rep(10))
        local ten = ws:read()
        ws:send(("x"):rep(11))
        return says(#ten, ws:read())
      end):expect "10|nil|WebSocket 1009: a message of 11 bytes; limits.message is 10|EMSGSIZE"
      net:advance(0)
    end)

    it("a text that is no UTF-8 is not sent", function()
      serve()
      outcome({}, function(ws) return (select(2, pcall(ws.send, ws, "\255")):gsub("^.-: ", "", 1)) end)
        :expect(perilune.pattern "no UTF%-8")
    end)

    it("compressed, only what is worth it, and nothing where the server wants a window of 8 bits", function()
      for bits, first in pairs { [9] = 0xc1, [8] = 0x81 } do
        local got = strange(function(head)
          return answer(head, { [5] = "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; "
            .. "client_max_window_bits=" .. bits })
        end)
        outcome({ compress = true }, function(ws)
          ws:send "short"
          ws:send(("abc"):rep(40))
          return "sent"
        end):expect "sent"
        net:advance(0)
        local short, _, _, rest = read_frame(got.bytes())
        assert.same({ 0x81, first }, { short, (read_frame(rest)) })
        net:close()
        net = perilune.net()
      end
    end)
  end)

  describe("keeps windows", function()
    local DEFLATE = "Sec-WebSocket-Extensions: permessage-deflate; "
    -- Of zlib, with a window of 2^12 bytes: a text, and the same again, which only refers to it.
    local TEXT, FIRST, SECOND = "All work and no play makes Jack a dull boy.",
      "\114\204\201\81\40\207\47\202\86\72\204\75\81\200\203\87\40\200\73\172\84\200\77\204\78\45\86\240\74\76\6\10"
      .. "\43\164\148\2\149\36\229\87\234\1\0", "\114\36\94\41\0"
    local OUT_12, IN_12 = 6272 + 2 ^ 14 + 2 ^ 13, 7296 + 2 ^ 12

    -- Two messages there and two back, the same each time. What was sent for the two, and the app.
    local function exchange(terms, second)
      local got = strange(function(head, conn)
        conn:send(answer(head, { [5] = DEFLATE .. terms }))
        conn:send(frame(0xc1, FIRST) .. frame(0xc1, second))
      end)
      local ask = app_of(function(line)
        local ws = assert(core.connect("ws://db:80/chat", { compress = true }))
        for _ = 1, 2 do
          ws:send(TEXT:rep(2))
          line = line .. says(ws:read())
        end
        return line
      end)
      local client = ask:connect():send "go"
      net:advance(1)
      local first, one, _, rest = read_frame(got.bytes())
      local other, two = read_frame(rest)
      assert.same({ 0xc1, 0xc1 }, { first, other })
      return one, two, ask, client
    end

    it("of both directions, if the server does", function()
      local one, two, app, client = exchange("server_max_window_bits=12; client_max_window_bits=12", SECOND)
      assert.same({ true, true }, { #one > 40, #two < 10 })
      assert.equal(OUT_12 + IN_12, app:counters().websocket_windows)
      client:close()
      net:advance(2)
      assert.equal(0, app:counters().websocket_windows)
    end)

    it("of one where the server does not keep the other", function()
      local one, two, app = exchange("server_max_window_bits=10; client_no_context_takeover", SECOND)
      assert.equal(one, two)
      assert.equal(7296 + 2 ^ 10, app:counters().websocket_windows)
    end)

    it("of what is sent alone", function()
      local one, two, app = exchange("server_no_context_takeover", FIRST)
      assert.truthy(#two < #one)
      assert.equal(OUT_12, app:counters().websocket_windows)
    end)

    it("no larger than limits.deflate has room for, from the offer on", function()
      local got = strange(function() core.sleep(1) end)
      local app = app_of(function()
        core.connect("ws://db:80/chat", { compress = true, timeout = { connect = "100ms" } })
      end, { limits = { deflate = IN_12 + 8000 } })
      app:connect():send "go"
      app:connect():send "go"
      net:advance(0.01)
      assert.truthy(got.head(1):find("server_max_window_bits=12", 1, true))
      assert.truthy(got.head(2):find("server_max_window_bits=9;", 1, true))
      assert.equal(IN_12 + 7296 + 2 ^ 9, app:counters().websocket_windows)
      net:advance(1)
      assert.equal(0, app:counters().websocket_windows)
    end)

    it("not with limits.deflate = 0", function()
      local got = strange(function(head) return answer(head), "close" end)
      app_of(function() core.connect("ws://db:80/chat", { compress = true }) end, { limits = { deflate = 0 } })
        :connect():send "go"
      net:advance(0)
      has("\r\n" .. DEFLATE .. "server_no_context_takeover;", got.head())
    end)

    it("which nothing is left of after an answer that is refused", function()
      strange(function(head) return answer(head, { [5] = DEFLATE .. "server_max_window_bits=13" }) end)
      local client, app = outcome { compress = true }
      client:expect(perilune.pattern "EPROTO")
      assert.equal(0, app:counters().websocket_windows)
    end)
  end)

  describe("ends", function()
    -- What the server was told.
    local function told(db)
      net:advance(0)
      return db:log("server closed")[1]
    end

    it("by the server, with its code and text", function()
      serve()
      outcome({}, function(ws)
        ws:send "/close 4001 signed in elsewhere"
        return says(ws:read()) .. " " .. says(ws:send "x")
      end):expect "nil|end of stream|EOF|4001|signed in elsewhere nil|closed"
    end)

    it("by a reset", function()
      serve()
      outcome({}, function(ws)
        ws:send "/drop"
        return says(ws:read())
      end):expect "nil|connection reset by peer|ECONNRESET"
    end)

    it("by the end of the stream, of which the server has said nothing", function()
      strange(function(head) return answer(head), "close" end)
      outcome({}, function(ws) return says(ws:read()) end):expect "nil|end of stream|EOF"
    end)

    it("from here, with a code", function()
      local db = serve()
      outcome({}, function(ws) return says(ws:close(4000, "enough")) end):expect "true"
      net:advance(0)
      local entry = told(db)
      assert.same({ "peer", 4000, "enough" }, { entry.reason, entry.code, entry.text })
    end)

    it("with its agent, by 1001", function()
      local db = serve()
      local client = outcome({}, function() return "open" end):expect "open"
      client:close()
      net:advance(0)
      assert.equal(1001, told(db).code)
    end)
  end)

  describe("with an agent of its own", function()
    local function with_agent(agent, options)
      options = options or {}
      options.agent = agent
      return outcome(options, function(ws, line)
        ws:send(line)
        return "open"
      end)
    end

    -- What the agent has seen, as it has logged that.
    local function seen(app)
      net:advance(0)
      local out = {}
      for i, entry in ipairs(app:log("seen")) do out[i] = entry.what end
      return out
    end

    it("hands up messages, and sends what comes of them", function()
      serve()
      local Agent = {}
      local function see(...) core.log("info", "seen", { what = says(...) }) end
      function Agent:opened()
        see("opened", self.conn.subprotocol)
        self.conn:send "hello"
      end
      function Agent:proceed(message, meta)
        see(message, meta.binary)
        if message == "hello" then return "again" end
        if message == "again" then return { "/close 4000 bye" } end
      end
      function Agent:closed(...) see("closed", ...) end
      local client, app = with_agent(Agent, { subprotocols = { "a" } })
      client:expect "open"
      assert.same({ "opened|a", "hello|false", "go|false", "again|false", "closed|peer|4000|bye" }, seen(app))
    end)

    it("lets it wait, and read, in opened()", function()
      serve()
      local client, app = with_agent {
        opened = function(self)
          self.conn:send "a"
          self.conn:flush()
          core.sleep(1)
          core.log("info", "seen", { what = self.conn:read() })
        end,
        proceed = function(_, message) core.log("info", "seen", { what = "proceed " .. message }) end,
      }
      net:advance(2)
      client:expect "open"
      assert.same({ "a", "proceed go" }, seen(app))
    end)

    it("ends with 1011 when that raises", function()
      local db = serve()
      with_agent { proceed = function() error "boom" end }:expect "open"
      net:advance(0)
      assert.equal(1011, db:log("server closed")[1].code)
    end)

    it("asks a silent server whether it is there, and gives it up", function()
      local got = strange(function(head) return answer(head) end)
      local Agent = { proceed = function() end,
        closed = function(_, why) core.log("info", "seen", { what = why }) end }
      local client, app = with_agent(Agent, { ping = "5s", pong = "8s" })
      client:expect "open"
      net:advance "4999ms"
      assert.equal("", (select(4, read_frame(got.bytes()))))
      net:advance "1ms"
      local _, _, _, rest = read_frame(got.bytes())
      local first, payload, _, more = read_frame(rest)
      assert.same({ 0x89, "", "" }, { first, payload, more })
      net:advance "3s"
      _, _, _, rest = read_frame(got.bytes())
      _, _, _, rest = read_frame(rest)
      first, payload = read_frame(rest)
      assert.same({ 0x88, "\3\233" }, { first, payload })
      assert.same({ "idle_timeout" }, seen(app))
    end)

    it("may be linked with who has opened it", function()
      serve()
      local app = app_of(function(_, self)
        local agent = { proceed = function(_, message) self.conn:send(message) end }
        local ws = assert(core.connect("ws://db:80/chat", { agent = agent }))
        self.conn:link(ws)
        ws:send "/close 1000"
      end)
      local client = app:connect():send "go"
      client:expect_closed "link"
    end)
  end)

  describe("refuses", function()
    for what, row in pairs {
      ["a fragment"] = { { "ws://db/a#b" }, "the address of a WebSocket has no fragment" },
      ["a password"] = { { "ws://me:secret@db/" }, "end up in logs" },
      ["no host"] = { { "ws://" }, '"ws://": there is no host in it' },
      ["a blank"] = { { "wss://db/a b" }, '"wss://db/a b": its path or query has a blank' },
      ["an address of HTTP"] = { { "http://db/a" }, 'by http.get(…) and the like of require "perilune.http"' },
      ["one with TLS"] = { { "https://db" }, "for bytes write tls://" },
      ["a Unix socket without a path"] = { { "ws+unix:" }, 'expects the path of a socket, and behind a colon what is' },
      ["a Unix socket of nothing"] = { { "ws+unix://:/chat" }, 'expects the path of a socket, and behind a colon' },
      ["a path that is none"] = { { "ws+unix:///run/x.sock:chat" }, '"ws+unix:///run/app.sock:/chat", got "ws+unix:' },
      ["a blank behind a socket"] = { { "ws+unix:///run/x.sock:/a b" },
        '"ws+unix:///run/x.sock:/a b": its path or query has a blank' },
      ["a fragment behind a socket"] = { { "ws+unix:///run/x.sock:/a#b" }, "no fragment" },
      ["TLS of a socket"] = { { "wss+unix:///run/x.sock:/a" }, "there is no TLS over a Unix socket: write ws+unix:" },
      ["TLS of a socket by an option"] = { { "ws+unix:///run/x.sock", { tls = {} } },
        "tls: a Unix socket has no TLS" },
      ["a framing"] = { { "ws://db", { frame = "line" } }, "frame: a WebSocket has messages" },
      ["limits of frames"] = { { "ws://db", { limits = { frame = 10 } } }, "limits.frame: a WebSocket has messages" },
      ["limits of waiting frames"] = { { "ws://db", { limits = { inbox = 10 } } }, "limits.inbox: messages" },
      ["timeout.idle"] = { { "ws://db", { timeout = { idle = 10 } } }, "timeout.idle: of a WebSocket `pong`" },
      ["timeout.first_frame"] = { { "ws://db", { timeout = { first_frame = 10 } } },
        "timeout.first_frame: of a WebSocket" },
      ["TLS"] = { { "ws://db", { tls = {} } }, "only a wss:// address has TLS" },
      ["a strange origin"] = { { "ws://db", { origin = "https://example.org/x" } }, "origin: expects an origin" },
      ["a subprotocol that is none"] = { { "ws://db", { subprotocols = { "a b" } } }, "subprotocols: expects" },
      ["a subprotocol twice"] = { { "ws://db", { subprotocols = { "a", "a" } } }, 'subprotocols: it has "a" twice' },
      ["a name that is near"] = { { "ws://db", { subprotocol = { "a" } } }, 'did you mean "subprotocols"?' },
      ["a header of the handshake"] = { { "ws://db", { headers = { ["Sec-WebSocket-Key"] = "x" } } },
        "headers: Sec-WebSocket-Key: it is made anew for each handshake" },
      ["a header that has an option"] = { { "ws://db", { headers = { Origin = "x" } } },
        "headers: Origin: write it as origin" },
      ["headers that are none"] = { { "ws://db", { headers = "x" } }, "headers: expects a table" },
      ["a header with a line break"] = { { "ws://db", { headers = { X = "a\r\nb" } } }, "control character" },
      ["options of WebSockets for bytes"] = { { "tcp://db:1", { compress = true } },
        "compress: only a ws:// or wss://" },
      ["headers for bytes"] = { { "tcp://db:1", { headers = {} } }, "headers: only a ws:// or wss://" },
      ["limits.message for bytes"] = { { "tcp://db:1", { limits = { message = 1 } } }, "limits.message: only a ws://" },
    } do
      it(what, function()
        local app = app_of(function() return (select(2, pcall(core.connect, unpack(row[1])))) end)
        local client = app:connect():send "go"
        has(row[2], client:receive())
      end)
    end

    it("a blank without speaking of an option that it has not", function()
      local app = app_of(function() return (select(2, pcall(core.connect, "ws://db/?a b"))) end)
      assert.truthy(app:connect():send "go":receive():find "with perilune%.encoding%.encode_url%(…%)$")
    end)

    it("a pool", function()
      local app = app_of(function() return (select(2, pcall(core.pool, "ws://db"))) end)
      has("perilune.pool: messages of a WebSocket come as they like", app:connect():send "go":receive())
    end)

    it("what a WebSocket has not", function()
      serve()
      local client = outcome({}, function(ws)
        local out = {}
        for _, try in ipairs { { "read", "line" }, { "set_frame", "raw" }, { "shutdown" }, { "close", 1001 } } do
          out[#out + 1] = select(2, pcall(ws[try[1]], ws, try[2])):gsub("^%S+:%d+: ", "")
        end
        return table.concat(out, "; ")
      end)
      local text = client:receive()
      has("conn:read: a WebSocket has messages, and no framing", text)
      has("conn:set_frame: a WebSocket has messages", text)
      has("conn:shutdown: a WebSocket has messages", text)
      has("the code is 1000, or one from 3000 to 4999", text)
    end)
  end)
end)
