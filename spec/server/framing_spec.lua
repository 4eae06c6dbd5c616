local has = require "spec.support.has"
local server = require "spec.support.server"
local wait = require "spec.support.wait"

local u32be = require("spec.support.client").frame

local function start(frame, body, settings)
  return server.start { script = ([[%s
    local Agent = {}
    function Agent:closed(reason) note("closed " .. reason) end
    %s
    return { listen = "tcp://127.0.0.1:0", frame = %s, agent = Agent, %s }]])
    :format(server.NOTE, body, frame, settings or "") }
end

local ECHO = "function Agent:proceed(frame) return frame end"

-- n as `count` bytes, the most significant first.
local function big(n, count)
  local bytes = {}
  for i = count, 1, -1 do
    bytes[i] = string.char(n % 256)
    n = math.floor(n / 256)
  end
  return table.concat(bytes)
end

local function varint(n)
  local out = ""
  while n >= 128 do
    out, n = out .. string.char(128 + n % 128), math.floor(n / 128)
  end
  return out .. string.char(n)
end

local function length(count, little)
  return function(payload)
    local field = big(#payload, count)
    return (little and field:reverse() or field) .. payload
  end
end

-- Payloads of many lengths, all different, that hold no line end and no NUL.
local function payloads(max)
  local list = {}
  for i, n in ipairs { 1, 2, 3, 5, 31, 32, 33, 127, 128, 129, 200, 255, 256, 1000, 16383, 16384, 70000 } do
    if n <= max then list[#list + 1] = (("%d:abcdefghijklmnopqrstuvwxyz "):format(i):rep(n / 8 + 1)):sub(1, n) end
  end
  return list
end

local CODECS = {
  { [["u8"]], length(1), max = 255 }, { [["u16be"]], length(2), max = 65535 },
  { [["u16le"]], length(2, true), max = 65535 }, { [["u24be"]], length(3) }, { [["u32be"]], length(4) },
  { [["u32le"]], length(4, true) }, { [["u64be"]], length(8) },
  { [["varint"]], function(payload) return varint(#payload) .. payload end },
  { [["line"]], function(payload) return payload .. "\n" end },
  { [["netstring"]], function(payload) return #payload .. ":" .. payload .. "," end },
  { [[{ "delimiter", "\0" }]], function(payload) return payload .. "\0" end },
  { [[{ "delimiter", "\r\n" }]], function(payload) return payload .. "\r\n" end },
  { [[{ "fixed", 7 }]], function(payload) return (payload .. "......."):sub(1, 7) end },
  -- Three bytes in front, then a length that counts those and itself.
  { [[{ "length", bytes = 2, endian = "little", offset = 3, adjust = -5 }]], function(payload)
    local whole = "abc" .. payload
    return whole:sub(1, 3) .. big(#payload + 5, 2):reverse() .. whole:sub(4)
  end, max = 60000 },
  { [[{ decode = decode, encode = encode }]], function(payload) return "<" .. payload .. ">" end, max = 1000,
    body = [[
      local function decode(bytes, at)
        local stop = bytes:find(">", at, true)
        if stop then return bytes:sub(at + 1, stop - 1), stop + 1 end
      end
      local function encode(reply) return "<" .. reply .. ">" end ]] },
}

describe("framing", function()
  after_each(server.finish)

  for _, codec in ipairs(CODECS) do
    describe("by " .. codec[1], function()
      local function stream(max)
        local parts = {}
        for i, payload in ipairs(payloads(math.min(codec.max or max, max))) do parts[i] = codec[2](payload) end
        return table.concat(parts)
      end
      local body = (codec.body or "") .. ECHO

      it("gives back what was sent in one write", function()
        local bytes = stream(70000)
        assert.is_true(bytes == start(codec[1], body):connect():send(bytes):recv_exact(#bytes))
      end)

      it("gives back what was sent in many frames of one write", function()
        local bytes = codec[2]("hello"):rep(1000)
        assert.is_true(bytes == start(codec[1], body):connect():send(bytes):recv_exact(#bytes))
      end)

      it("gives back what was sent byte by byte", function()
        local bytes = stream(256)
        assert.equal(bytes, start(codec[1], body):connect():trickle(bytes):recv_exact(#bytes))
      end)
    end)
  end

  it("by raw bytes hands up what there is", function()
    local client = start([["raw"]], ECHO):connect()
    for _, bytes in ipairs { "a", "\0\n\255", ("x"):rep(300000) } do
      assert.is_true(bytes == client:send(bytes):recv_exact(#bytes))
    end
  end)

  it("by lines drops one carriage return before the line's end", function()
    local client = start([["line"]], [[function Agent:proceed(line) return "<" .. line .. ">" end]]):connect()
    client:send("a\r\nb\n\r\n\r\r\nc\rd\n")
    for _, line in ipairs { "<a>", "<b>", "<>", "<\r>", "<c\rd>" } do assert.equal(line, client:recv_line()) end
  end)

  describe("of empty frames", function()
    it("is an error by default where a length says so", function()
      local app = start([["u32be"]], ECHO)
      assert.equal(u32be "a", (app:connect():send(u32be("a") .. u32be("") .. u32be("b")):recv_all()))
      assert.equal("empty frame", app:wait_log("bad frame").error)
      app:wait_log "closed frame_error"
    end)

    it("delivers them when asked to", function()
      local client = start([[{ "u32be", empty = "deliver" }]], ECHO):connect()
      client:echo_frame("a"):echo_frame(""):echo_frame("b")
    end)

    it("ignores them when asked to: a keep-alive", function()
      local client = start([[{ "u32be", empty = "ignore" }]], ECHO):connect()
      client:send(u32be("") .. u32be("a") .. u32be("") .. u32be("b") .. u32be(""))
      assert.equal("a", client:recv_frame())
      assert.equal("b", client:recv_frame())
      client:echo_frame("c")
    end)

    it("takes ignored ones for a sign of life, but for no first frame", function()
      local app = start([[{ "u32be", empty = "ignore" }]], ECHO, [[timeout = { idle = "300ms", first_frame = "900ms" }]])
      local began, client = wait.now(), app:connect()
      repeat
        client:send(u32be(""))
        wait.pause(0.05)
      until wait.now() - began > 0.7
      client:expect_silence(0)
      assert.equal("", (client:recv_all()))
      assert.is_true(wait.now() - began > 0.85, "it was closed too early")
      app:wait_log "closed idle_timeout"
    end)

    it("delivers empty lines by default", function()
      start([["line"]], ECHO):connect():echo_line(""):echo_line("a"):echo_line("")
    end)
  end)

  describe("of large frames", function()
    it("lets exactly the maximum pass, and names both numbers beyond it", function()
      local app = start([["u32be"]], ECHO)
      local client = app:connect():send_frame(("x"):rep(1048576))
      assert.equal(1048576, #client:recv_frame())
      client:send(big(1048577, 4)):expect_closed()
      assert.equal("frame too large: 1048577 > 1048576", app:wait_log("bad frame").error)
      app:wait_log "closed oversize"
    end)

    it("refuses them as soon as they are announced", function()
      for _, header in ipairs { "\255\255\255\255", "\128\0\0\0", "\127\255\255\255" } do
        local app = start([["u32be"]], ECHO)
        app:connect():send(header):expect_closed()
        has("frame too large: ", app:wait_log("bad frame").error)
        server.finish()
      end
    end)

    it("refuses them by every way to frame", function()
      local cases = {
        { "u16be", big(101, 2), "101 > 100" }, { "u64be", ("\255"):rep(8), "18446744073709551615 > 100" },
        { "varint", varint(101), "101 > 100" }, { "netstring", "101:", "101 > 100" },
        { "line", ("x"):rep(102), "> 100" },
      }
      for _, case in ipairs(cases) do
        local app = start(("%q"):format(case[1]), ECHO, "limits = { frame = 100 }")
        app:connect():send(case[2]):recv_all()
        has(case[3], app:wait_log("bad frame").error)
        app:wait_log "closed oversize"
        server.finish()
      end
    end)

    it("lets a line of exactly the maximum pass", function()
      local app = start([["line"]], ECHO, "limits = { frame = 100 }")
      app:connect():echo_line(("x"):rep(100)):send(("x"):rep(101) .. "\n"):recv_all()
      app:wait_log "closed oversize"
    end)

    it("delivers the frames before, and the last word of oversize(n)", function()
      local app = start([["u32be"]], ECHO .. [[
        function Agent:oversize(n) return "too large: " .. n end]])
      local client = app:connect():send(u32be("a") .. u32be("b") .. big(2097152, 4))
      for _, text in ipairs { "a", "b", "too large: 2097152" } do assert.equal(text, client:recv_frame()) end
      client:expect_closed()
      app:wait_log "closed oversize"
    end)
  end)

  it("says what is malformed", function()
    for _, case in ipairs { { "netstring", "5:hello;", "netstring" }, { "netstring", "x", "netstring" },
      { "varint", ("\255"):rep(11), "varint" } } do
      local app = start(("%q"):format(case[1]), ECHO)
      app:connect():send(case[2]):expect_closed()
      local entry = app:wait_log "bad frame"
      has("malformed " .. case[3], entry.error)
      assert.equal(1, entry.conn)
      app:wait_log "closed frame_error"
      server.finish()
    end
  end)
end)

describe("conn:set_frame", function()
  after_each(server.finish)

  local SWITCH = [[
    function Agent:proceed(frame)
      local name = frame:match("^use (%S+)$")
      if name then
        self.conn:send("using " .. name)
        self.conn:set_frame(name)
        return
      end
      return frame
    end]]
  local STREAM = "hello\nuse u32be\n" .. u32be("binary\n") .. u32be("use netstring") .. "5:again,8:use line,bye\n"
  local ANSWER = "hello\nusing u32be\n" .. u32be("binary\n") .. u32be("using netstring") .. "5:again,10:using line,bye\n"

  it("switches in mid-stream, bytes already received included", function()
    assert.equal(ANSWER, start([["line"]], SWITCH):connect():send(STREAM):recv_exact(#ANSWER))
  end)

  it("switches the same when the bytes arrive one at a time", function()
    assert.equal(ANSWER, start([["line"]], SWITCH):connect():trickle(STREAM):recv_exact(#ANSWER))
  end)

  it("switches the same wherever the stream is cut in two", function()
    local app = start([["line"]], SWITCH)
    for cut = 1, #STREAM - 1 do
      local client = app:connect():send(STREAM:sub(1, cut))
      client:send(STREAM:sub(cut + 1))
      assert.equal(ANSWER, client:recv_exact(#ANSWER))
      client:close()
    end
  end)

  it("is for this connection only", function()
    local app = start([["line"]], SWITCH)
    app:connect():send("use u32be\n"):recv_line()
    app:connect():echo_line("still lines")
  end)

  it("in the middle of many frames keeps the replies before it in the old framing", function()
    local app = start([["line"]], [[
      function Agent:proceed(frame)
        if frame == "switch" then self.conn:set_frame("u32be") end
        return frame
      end]])
    local expected = "a\nb\n" .. u32be("switch") .. u32be("c")
    assert.equal(expected, app:connect():send("a\nb\nswitch\n" .. u32be("c")):recv_exact(#expected))
  end)

  it("takes a table, with the listener's limit", function()
    local app = start([["line"]], [[
      function Agent:proceed(frame)
        if frame == "switch" then self.conn:set_frame({ "delimiter", "|" }) return end
        return frame
      end]], "limits = { frame = 50 }")
    local client = app:connect():send("switch\na|b|" .. ("x"):rep(60))
    assert.equal("a|b|", (client:recv_all()))
    app:wait_log "closed oversize"
  end)

  it("without an argument returns to the listener's own: a view, after a greeting in lines", function()
    local app = start([[{ "u32be", view = true }]], [[
      function Agent:opened() self.conn:set_frame("line") end
      function Agent:proceed(frame)
        if type(frame) == "string" then self.conn:send("hello " .. frame) self.conn:set_frame() return end
        if frame:string() == "lines" then self.conn:set_frame("line") return end
        return frame
      end]])
    local stream = "a\n" .. u32be("one") .. u32be("lines") .. "b\n" .. u32be("two")
    local answer = "hello a\n" .. u32be("one") .. "hello b\n" .. u32be("two")
    for cut = 1, #stream - 1 do
      local client = app:connect():send(stream:sub(1, cut))
      client:send(stream:sub(cut + 1))
      assert.equal(answer, client:recv_exact(#answer))
      client:close()
    end
  end)

  it("without an argument returns to the listener's own: a codec in Lua", function()
    local app = start([[{ decode = function(bytes, at)
        local n, next = bytes:match("^(%d)()", at)
        if n then return tonumber(n), next end
      end, encode = function(n) return "<" .. n .. ">" end }]], [[
      function Agent:opened() self.conn:set_frame("line") end
      function Agent:proceed(frame)
        if type(frame) == "number" then
          if frame == 0 then self.conn:set_frame("line") end
          return
        end
        self.conn:set_frame()
        return 7
      end]])
    local client = app:connect():send("greeting\n1230again\n45")
    assert.equal("<7><7>", client:recv_exact(6))
    client:shutdown("send"):expect_closed()
    assert.equal(0, app:stop().summary.faults)
  end)

  it("refuses nil, which may be a framing that was forgotten", function()
    local app = start([["line"]], [[
      function Agent:proceed() return tostring(select(2, pcall(self.conn.set_frame, self.conn, nil))) end]])
    has("frame", app:connect():send("x\n"):recv_line())
  end)

  it("refuses what is no framing, naming the nearest", function()
    local app = start([["line"]], [[
      function Agent:proceed() return tostring(select(2, pcall(self.conn.set_frame, self.conn, "u32eb"))) end]])
    has([[did you mean "u32be"?]], app:connect():send("x\n"):recv_line())
  end)
end)

describe("a codec in Lua", function()
  after_each(server.finish)

  -- A letter, a digit that says how many bytes follow, those bytes.
  local TLV = [[
    local function decode(bytes, at)
      local kind, n = bytes:match("^(%a)(%d)", at)
      if not kind then
        if at + 1 <= #bytes then return false, "not a letter and a digit: " .. bytes:sub(at, at + 1) end
        return nil
      end
      if kind == "E" then error("decode failed") end
      if #bytes < at + 1 + n then return nil end
      if kind == "C" then return nil, at + 2 + n end
      return bytes:sub(at + 2, at + 1 + n), at + 2 + n, { kind = kind }
    end
    local function encode(reply)
      if reply.fail then error("encode failed") end
      if reply.number then return 42 end
      return reply.kind .. #reply.body .. reply.body
    end
    function Agent:proceed(frame, meta)
      if frame == "fail" then return { fail = true } end
      if frame == "num" then return { number = true } end
      if frame == "send" then self.conn:send({ kind = "S", body = "ent" }) end
      return { kind = meta.kind:lower(), body = frame }
    end ]]
  local FRAME = "{ decode = decode, encode = encode, max = 100 }"

  it("gives proceed a frame with its meta, and makes bytes of any reply", function()
    local app = start(FRAME, TLV)
    local stream, answer = "A3abcB1xC5skip!A0Z4send", "a3abcb1xa0S3entz4send"
    assert.equal(answer, app:connect():send(stream):recv_exact(#answer))
    assert.equal(answer, app:connect():trickle(stream):recv_exact(#answer))
  end)

  it("ends the connection with its own words on what is malformed, after the frames before", function()
    local app = start(FRAME, TLV)
    assert.equal("a1x", (app:connect():send("A1x??"):recv_all()))
    assert.equal("not a letter and a digit: ??", app:wait_log("bad frame").error)
    app:wait_log "closed frame_error"
  end)

  it("that fails ends its connection and no other", function()
    local app = start(FRAME, TLV)
    local other = app:connect()
    assert.equal("a1x", (app:connect():send("A1xE1x"):recv_all()))
    has("decode failed", app:wait_log("bad frame").error)
    assert.equal("a1y", other:send("A1y"):recv_exact(3))
  end)

  it("whose encode fails, or makes no string, is a fault of the handler", function()
    local app = start(FRAME, TLV)
    app:connect():send("A4fail"):expect_closed()
    has("encode failed", app:wait_log("handler failed").error)
    app:connect():send("A3num"):expect_closed()
    has("encode returned a number", app:wait_log("handler failed", nil, 2).error)
  end)

  it("is held to the limit of a frame", function()
    local app = start([[{ decode = function(bytes, at)
        local stop = bytes:find("\n", at, true)
        if stop then return bytes:sub(at, stop - 1), stop + 1 end
      end, encode = function(reply) return reply .. "\n" end, max = 100 }]], ECHO)
    app:connect():echo_line(("x"):rep(100)):send(("x"):rep(101) .. "\n"):recv_all()
    has("frame too large: 101 > 100", app:wait_log("bad frame").error)
    app:connect():send(("x"):rep(5000)):recv_all()
    has("frame too large", app:wait_log("bad frame", nil, 2).error)
  end)

  it("that does not advance is stopped", function()
    local app = start([[{ decode = function(_, at) return "x", at end, encode = tostring }]], ECHO)
    app:connect():send("x"):expect_closed()
    has("must return a frame and the position after it", app:wait_log("bad frame").error)
  end)
end)

describe("a view", function()
  after_each(server.finish)

  local VIEW = [[{ "u32be", view = true }]]

  it("that is returned sends its bytes", function()
    local client = start(VIEW, ECHO):connect()
    client:echo_frame("one"):echo_frame(("x"):rep(100000))
    local many = {}
    for i = 1, 600 do many[i] = u32be("frame " .. i) end
    many = table.concat(many)
    assert.is_true(many == client:send(many):recv_exact(#many))
  end)

  it("that is returned sends its bytes alone, not those of empty frames around it", function()
    local client = start([[{ "u16be", view = true, empty = "ignore" }]], ECHO):connect()
    local sent, answer = {}, {}
    for i = 1, 200 do
      local frame = ("\0%s%d"):format(string.char(#tostring(i)), i)
      sent[i] = frame .. (i % 7 == 0 and "\0\0" or "")
      answer[i] = frame
    end
    answer = table.concat(answer)
    assert.is_true(answer == client:send(table.concat(sent)):recv_exact(#answer))
  end)

  it("is told apart from the other replies between which it stands", function()
    local app = start(VIEW, [[
      function Agent:proceed(view)
        if view:byte() == 97 then return view end
        if view:byte() == 98 then return "b!" end
        if view:byte() == 99 then return { "c1", "c2" } end
        if view:byte() == 100 then self.conn:send("d!") return view end
        if view:byte() == 101 then self.conn:send(view) return nil end
      end]])
    local client = app:connect()
    local sent, answer = {}, {}
    local ANSWERS = { a = { "a" }, b = { "b!" }, c = { "c1", "c2" }, d = { "d!", "d" }, e = { "e" }, f = {} }
    for i = 1, 500 do
      local letter = ("abcdef"):sub(1 + i % 6, 1 + i % 6)
      sent[i] = u32be(letter)
      for _, text in ipairs(ANSWERS[letter]) do answer[#answer + 1] = u32be(text) end
    end
    answer = table.concat(answer)
    assert.is_true(answer == client:send(table.concat(sent)):recv_exact(#answer))
  end)

  it("can be looked into", function()
    local app = start(VIEW, [[
      function Agent:proceed(view)
        return table.concat({ #view, view:byte(), view:byte(2), tostring(view:byte(99)), view:sub(2, 3), view:sub(-2),
          view:sub(0), view:sub(3, 2), view:string(), tostring(view), view:u16be(1), view:u16le(1), view:u32be(2),
          view:u32le(2), view:u32be(view:byte(5)) }, " ")
      end]])
    local client = app:connect():send_frame("ABCD\2")
    assert.equal("5 65 66 nil BC D\2 ABCD\2  ABCD\2 ABCD\2 16706 16961 1111704578 38028098 1111704578",
      client:recv_frame())
  end)

  it("is not read past its end, and not changed", function()
    local app = start(VIEW, [[
      function Agent:proceed(view)
        local results = {}
        for i, fn in ipairs {
          function() return view:u32be(2) end, function() return view:u16le(0) end, function() view.x = 1 end,
          function() view.len = 100 end, function() return view:u32be(-100) end,
        } do results[i] = tostring(pcall(fn)) end
        return table.concat(results, " ")
      end]])
    assert.equal("false false false false false", app:connect():send_frame("ABCD"):recv_frame())
  end)

  it("is dead once proceed has returned or waited", function()
    local app = start(VIEW, [[
      local kept
      function Agent:proceed(view)
        kept = view
        perilune.sleep("1ms")
        return tostring(select(2, pcall(view.string, view)))
      end
      function Agent:closed() note(tostring(select(2, pcall(kept.byte, kept)))) end]])
    local client = app:connect():send_frame("x")
    has("this view is dead", client:recv_frame())
    client:close()
    app:wait_log(function(entry) return entry.message:find("this view is dead", 1, true) end)
  end)

  it("that is dead cannot be sent", function()
    local app = start(VIEW, [[
      function Agent:proceed(view)
        perilune.sleep("1ms")
        return view
      end
      function Agent:failed(err) return err end]])
    has("this view is dead", app:connect():send_frame("x"):recv_frame())
  end)

  it("is a string where conn:read asks for a frame", function()
    local app = start(VIEW, [[
      function Agent:proceed()
        local frame = self.conn:read()
        return type(frame) .. " " .. frame
      end]])
    local client = app:connect():send(u32be("a") .. u32be("b") .. u32be("c")):send_frame("d")
    assert.equal("string b", client:recv_frame())
    assert.equal("string d", client:recv_frame())
  end)
end)
