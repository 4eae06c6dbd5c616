--- Framings: by lengths, lines, delimiters and codecs in Lua; views; and how they change in mid-stream.
local framings = require "spec.support.framings"
local has = require "spec.support.has"
local memory = require "spec.support.memory"

local core = require "perilune"
local perilune = require "perilune.test"

local big, varint = framings.big, framings.varint
local echo, note, notes, raw, bytes = memory.echo, memory.note, memory.notes, memory.raw, memory.bytes

local function start(frame, Agent, settings)
  local all = { frame = frame }
  for key, value in pairs(settings or {}) do all[key] = value end
  return memory.start(Agent or echo(), all)
end

local function u32be(payload) return big(#payload, 4) .. payload end

-- Payloads of many lengths, all different, that hold no line end and no NUL.
local function payloads(max)
  local list = {}
  for i, n in ipairs { 1, 2, 3, 5, 31, 32, 33, 127, 128, 129, 200, 255, 256, 1000, 16383, 16384, 70000 } do
    if n <= max then list[#list + 1] = (("%d:abcdefghijklmnopqrstuvwxyz "):format(i):rep(n / 8 + 1)):sub(1, n) end
  end
  return list
end

describe("framing", function()
  after_each(memory.finish)

  for _, codec in ipairs(framings.LIST) do
    local framing, encode = codec.framing, codec.encode
    describe("by " .. codec.source, function()
      local function stream(max)
        local parts = {}
        for i, payload in ipairs(payloads(math.min(codec.max or max, max))) do parts[i] = encode(payload) end
        return table.concat(parts)
      end

      it("gives back what was sent in one write", function()
        local text = stream(70000)
        assert.is_true(text == bytes(raw(start(framing)):send(text)))
      end)

      it("gives back what was sent in many frames of one write", function()
        local text = encode("hello"):rep(1000)
        assert.is_true(text == bytes(raw(start(framing)):send(text)))
      end)

      it("gives back what was sent byte by byte", function()
        local text = stream(256)
        assert.equal(text, bytes(raw(start(framing)):send_split(text)))
      end)
    end)
  end

  it("by raw bytes hands up what there is", function()
    local client = start("raw"):connect()
    for _, text in ipairs { "a", "\0\n\255", ("x"):rep(300000) } do
      assert.is_true(text == bytes(client:send(text)))
    end
  end)

  it("by lines drops one carriage return before the line's end", function()
    local client = start("line", { proceed = function(_, line) return "<" .. line .. ">" end }):connect()
    client:send_raw("a\r\nb\n\r\n\r\r\nc\rd\n"):expect("<a>", "<b>", "<>", "<\r>", "<c\rd>")
  end)

  describe("of empty frames", function()
    it("is an error by default where a length says so", function()
      local app = start("u32be")
      app:connect():send("a", "", "b"):expect("a"):expect_nothing():expect_closed("frame_error")
      assert.equal("empty frame", app:log("bad frame")[1].error)
    end)

    it("delivers them when asked to", function()
      local client = start({ "u32be", empty = "deliver" }):connect()
      client:send("a"):expect("a"):send(""):expect(""):send("b"):expect("b")
    end)

    it("ignores them when asked to: a keep-alive", function()
      local client = start({ "u32be", empty = "ignore" }):connect()
      client:send("", "a", "", "b", ""):expect("a", "b"):expect_nothing():send("c"):expect("c")
    end)

    it("takes ignored ones for a sign of life, but for no first frame", function()
      local app = start({ "u32be", empty = "ignore" }, nil, { timeout = { idle = "300ms", first_frame = "900ms" } })
      local client = app:connect()
      for _ = 1, 3 do
        app:advance("299ms")
        client:send("")
      end
      app:advance("2ms")
      assert.is_nil(client:closed())
      app:advance("1ms")
      client:expect_nothing():expect_closed("idle_timeout")
    end)

    it("delivers empty lines by default", function()
      start("line"):connect():send("", "a", ""):expect("", "a", "")
    end)
  end)

  describe("of large frames", function()
    it("lets exactly the maximum pass, and names both numbers beyond it", function()
      local app = start("u32be")
      local client = app:connect():send(("x"):rep(1048576))
      assert.equal(1048576, #client:receive())
      client:send_raw(big(1048577, 4)):expect_closed("oversize")
      assert.equal("frame too large: 1048577 > 1048576", app:log("bad frame")[1].error)
    end)

    it("refuses them as soon as they are announced", function()
      for _, header in ipairs { "\255\255\255\255", "\128\0\0\0", "\127\255\255\255" } do
        local app = start("u32be")
        app:connect():send_raw(header):expect_closed("oversize")
        has("frame too large: ", app:log("bad frame")[1].error)
      end
    end)

    it("refuses them by every way to frame", function()
      local cases = {
        { "u16be", big(101, 2), "101 > 100" }, { "u64be", ("\255"):rep(8), "18446744073709551615 > 100" },
        { "varint", varint(101), "101 > 100" }, { "netstring", "101:", "101 > 100" },
        { "line", ("x"):rep(102), "> 100" },
      }
      for _, case in ipairs(cases) do
        local app = start(case[1], nil, { limits = { frame = 100 } })
        app:connect():send_raw(case[2]):expect_nothing():expect_closed("oversize")
        has(case[3], app:log("bad frame")[1].error)
      end
    end)

    it("lets a line of exactly the maximum pass", function()
      local client = start("line", nil, { limits = { frame = 100 } }):connect()
      client:send(("x"):rep(100)):expect(("x"):rep(100)):send(("x"):rep(101)):expect_closed("oversize")
    end)

    it("delivers the frames before, and the last word of oversize(n)", function()
      local Agent = echo()
      function Agent:oversize(n) return "too large: " .. n end
      local client = start("u32be", Agent):connect():send_raw(u32be("a") .. u32be("b") .. big(2097152, 4))
      client:expect("a", "b", "too large: 2097152"):expect_closed("oversize")
    end)
  end)

  it("says what is malformed", function()
    for _, case in ipairs { { "netstring", "5:hello;", "netstring" }, { "netstring", "x", "netstring" },
      { "varint", ("\255"):rep(11), "varint" } } do
      local app = start(case[1])
      app:connect():send_raw(case[2]):expect_closed("frame_error")
      local entry = app:log("bad frame")[1]
      has("malformed " .. case[3], entry.error)
      assert.equal(1, entry.conn)
    end
  end)

  describe("malformed(why)", function()
    local function with_last_word()
      local Agent = echo()
      function Agent:malformed(why) return "refused: " .. why end
      function Agent:failed(err) return "failed: " .. tostring(err) end
      function Agent:closed(reason) note("closed " .. reason) end
      return Agent
    end

    it("has a last word to who sends a malformed frame, after the frames before", function()
      for _, case in ipairs {
        { "netstring", "5:hello,x", "5:hello,28:refused: malformed netstring," },
        { "u16be", u32be(""), "\0\20refused: empty frame" },
        { { "u8", adjust = -1 }, "\2a\0", "\2a\29refused: malformed length: 0" },
        { { decode = function() return false, "no \27 such\0thing" end, encode = function(text) return text end }, "x",
          "refused: no \\x1b such\\x00thing" },
      } do
        local app = start(case[1], with_last_word())
        local client = raw(app):send(case[2])
        assert.equal(case[3], bytes(client))
        client:expect_closed("frame_error")
        assert.same({ "closed frame_error" }, notes(app, 1))
      end
    end)

    it("may say nothing, and is not asked about a frame that is too large", function()
      local Agent = with_last_word()
      function Agent:malformed(why) note("why " .. why) end
      local app = start("netstring", Agent)
      raw(app):send("x"):expect_nothing():expect_closed("frame_error")
      raw(app):send("99999999:"):expect_nothing():expect_closed("oversize")
      assert.same({ "why malformed netstring", "closed frame_error" }, notes(app, 1))
      assert.same({ "closed oversize" }, notes(app, 2))
    end)

    it("is not called where a conn:read is told of the frame", function()
      local Agent = with_last_word()
      function Agent:proceed()
        local _, why, code = self.conn:read("netstring")
        return why .. " " .. code
      end
      raw(start("line", Agent)):send("read\nx"):expect("malformed netstring EPROTO\n"):expect_closed("frame_error")
    end)

    it("must not wait, and an error in it is a fault", function()
      local Agent = with_last_word()
      function Agent:malformed() core.sleep(1) end
      local app = start("netstring", Agent)
      raw(app):send("x"):expect(perilune.pattern "^%d+:failed: .*malformed%(%) must not wait")
        :expect_closed("error")
      assert.equal("malformed", app:faults()[1].callback)
    end)

    it("can be made to fail in a test", function()
      local app = start("netstring", with_last_word())
      app:fail "malformed"
      raw(app):send("x"):expect(perilune.pattern "^%d+:failed: "):expect_closed()
    end)
  end)
end)

describe("conn:set_frame", function()
  after_each(memory.finish)

  local function switch()
    local Agent = {}
    function Agent:proceed(frame)
      local name = frame:match("^use (%S+)$")
      if name then
        self.conn:send("using " .. name)
        self.conn:set_frame(name)
        return
      end
      return frame
    end
    return Agent
  end
  local STREAM = "hello\nuse u32be\n" .. u32be("binary\n") .. u32be("use netstring") .. "5:again,8:use line,bye\n"
  local ANSWER = "hello\nusing u32be\n" .. u32be("binary\n") .. u32be("using netstring")
    .. "5:again,10:using line,bye\n"

  it("switches in mid-stream, bytes already received included", function()
    assert.equal(ANSWER, bytes(raw(start("line", switch())):send(STREAM)))
  end)

  it("switches the same when the bytes arrive one at a time", function()
    assert.equal(ANSWER, bytes(raw(start("line", switch())):send_split(STREAM)))
  end)

  it("switches the same wherever the stream is cut in two", function()
    local app = start("line", switch())
    for cut = 1, #STREAM - 1 do
      local client = raw(app):send(STREAM:sub(1, cut)):send(STREAM:sub(cut + 1))
      assert.equal(ANSWER, bytes(client))
      client:close()
    end
  end)

  it("is for this connection only", function()
    local app = start("line", switch())
    app:connect():send("use u32be"):expect("using u32be")
    app:connect():send("still lines"):expect("still lines")
  end)

  it("in the middle of many frames keeps the replies before it in the old framing", function()
    local Agent = {}
    function Agent:proceed(frame)
      if frame == "switch" then self.conn:set_frame("u32be") end
      return frame
    end
    local client = raw(start("line", Agent)):send("a\nb\nswitch\n" .. u32be("c"))
    assert.equal("a\nb\n" .. u32be("switch") .. u32be("c"), bytes(client))
  end)

  it("takes a table, with the listener's limit", function()
    local Agent = {}
    function Agent:proceed(frame)
      if frame == "switch" then self.conn:set_frame({ "delimiter", "|" }) return end
      return frame
    end
    local client = raw(start("line", Agent, { limits = { frame = 50 } })):send("switch\na|b|" .. ("x"):rep(60))
    client:expect("a|b|"):expect_nothing():expect_closed("oversize")
  end)

  it("without an argument returns to the listener's own: a view, after a greeting in lines", function()
    local Agent = {}
    function Agent:opened() self.conn:set_frame("line") end
    function Agent:proceed(frame)
      if type(frame) == "string" then self.conn:send("hello " .. frame) self.conn:set_frame() return end
      if frame:string() == "lines" then self.conn:set_frame("line") return end
      return frame
    end
    local app = start({ "u32be", view = true }, Agent)
    local stream = "a\n" .. u32be("one") .. u32be("lines") .. "b\n" .. u32be("two")
    local answer = "hello a\n" .. u32be("one") .. "hello b\n" .. u32be("two")
    for cut = 1, #stream - 1 do
      local client = raw(app):send(stream:sub(1, cut)):send(stream:sub(cut + 1))
      assert.equal(answer, bytes(client))
      client:close()
    end
  end)

  it("without an argument returns to the listener's own: a codec in Lua", function()
    local digits = {
      decode = function(text, at)
        local n, next = text:match("^(%d)()", at)
        if n then return tonumber(n), next end
      end,
      encode = function(n) return "<" .. n .. ">" end,
    }
    local Agent = {}
    function Agent:opened() self.conn:set_frame("line") end
    function Agent:proceed(frame)
      if type(frame) == "number" then
        if frame == 0 then self.conn:set_frame("line") end
        return
      end
      self.conn:set_frame()
      return 7
    end
    local app = start(digits, Agent)
    raw(app):send("greeting\n1230again\n45"):expect("<7><7>"):half_close():expect_closed("peer")
    assert.equal(0, app:counters().faults)
  end)

  it("refuses nil, which may be a framing that was forgotten", function()
    local Agent = {}
    function Agent:proceed() return tostring(select(2, pcall(self.conn.set_frame, self.conn, nil))) end
    has("frame", start("line", Agent):connect():send("x"):receive())
  end)

  it("refuses what is no framing, naming the nearest", function()
    local Agent = {}
    function Agent:proceed() return tostring(select(2, pcall(self.conn.set_frame, self.conn, "u32eb"))) end
    has([[did you mean "u32be"?]], start("line", Agent):connect():send("x"):receive())
  end)
end)

describe("a codec in Lua", function()
  after_each(memory.finish)

  -- A letter, a digit that says how many bytes follow, those bytes.
  local function start_tlv()
    local function decode(text, at)
      local kind, n = text:match("^(%a)(%d)", at)
      if not kind then
        if at + 1 <= #text then return false, "not a letter and a digit: " .. text:sub(at, at + 1) end
        return nil
      end
      if kind == "E" then error("decode failed") end
      if #text < at + 1 + n then return nil end
      if kind == "C" then return nil, at + 2 + n end
      return text:sub(at + 2, at + 1 + n), at + 2 + n, { kind = kind }
    end
    local function encode(reply)
      if reply.fail then error("encode failed") end
      if reply.number then return 42 end
      return reply.kind .. #reply.body .. reply.body
    end
    local Agent = {}
    function Agent:proceed(frame, meta)
      if frame == "fail" then return { fail = true } end
      if frame == "num" then return { number = true } end
      if frame == "send" then self.conn:send({ kind = "S", body = "ent" }) end
      return { kind = meta.kind:lower(), body = frame }
    end
    return start({ decode = decode, encode = encode, max = 100 }, Agent)
  end

  it("gives proceed a frame with its meta, and makes bytes of any reply", function()
    local app = start_tlv()
    local stream, answer = "A3abcB1xC5skip!A0Z4send", "a3abcb1xa0S3entz4send"
    assert.equal(answer, bytes(raw(app):send(stream)))
    assert.equal(answer, bytes(raw(app):send_split(stream)))
  end)

  it("ends the connection with its own words on what is malformed, after the frames before", function()
    local app = start_tlv()
    raw(app):send("A1x??"):expect("a1x"):expect_nothing():expect_closed("frame_error")
    assert.equal("not a letter and a digit: ??", app:log("bad frame")[1].error)
  end)

  it("that fails ends its connection and no other", function()
    local app = start_tlv()
    local other = raw(app)
    raw(app):send("A1xE1x"):expect("a1x"):expect_nothing():expect_closed("error")
    has("decode failed", memory.error_of(app))
    other:send("A1y"):expect("a1y")
  end)

  it("whose encode fails, or makes no string, is a fault of the handler", function()
    local app = start_tlv()
    raw(app):send("A4fail"):expect_closed("error")
    has("encode failed", memory.error_of(app, 1))
    raw(app):send("A3num"):expect_closed("error")
    has("encode returned a number", memory.error_of(app, 2))
  end)

  it("is held to the limit of a frame", function()
    local app = start { decode = function(text, at)
      local stop = text:find("\n", at, true)
      if stop then return text:sub(at, stop - 1), stop + 1 end
    end, encode = function(reply) return reply .. "\n" end, max = 100 }
    raw(app):send(("x"):rep(100) .. "\n"):expect(("x"):rep(100) .. "\n"):send(("x"):rep(101) .. "\n")
      :expect_closed("oversize")
    has("frame too large: 101 > 100", app:log("bad frame")[1].error)
    raw(app):send(("x"):rep(5000)):expect_closed("oversize")
    has("frame too large", app:log("bad frame")[2].error)
  end)

  it("that does not advance is stopped", function()
    local app = start { decode = function(_, at) return "x", at end, encode = tostring }
    raw(app):send("x"):expect_closed("error")
    has("must return a frame and the position after it", memory.error_of(app))
  end)

  for what, frame in pairs { ["without a frame"] = "", ["with one"] = "x" } do
    it("that advances by a fraction of a byte is stopped, " .. what, function()
      local app = start { decode = function(_, at) return frame ~= "" and frame or nil, at + 0.5 end,
        encode = tostring }
      raw(app):send("x"):expect_closed("error")
      has("must return a frame and the position after it", memory.error_of(app))
    end)
  end
end)

describe("a view", function()
  after_each(memory.finish)

  local VIEW = { "u32be", view = true }

  it("that is returned sends its bytes", function()
    local client = start(VIEW):connect()
    client:send("one"):expect("one"):send(("x"):rep(100000)):expect(("x"):rep(100000))
    local many = {}
    for i = 1, 600 do many[i] = "frame " .. i end
    assert.same(many, client:send(unpack(many)):frames())
  end)

  it("that is returned sends its bytes alone, not those of empty frames around it", function()
    local client = raw(start({ "u16be", view = true, empty = "ignore" }))
    local sent, answer = {}, {}
    for i = 1, 200 do
      local frame = ("\0%s%d"):format(string.char(#tostring(i)), i)
      sent[i] = frame .. (i % 7 == 0 and "\0\0" or "")
      answer[i] = frame
    end
    assert.is_true(table.concat(answer) == bytes(client:send(table.concat(sent))))
  end)

  it("is told apart from the other replies between which it stands", function()
    local Agent = {}
    function Agent:proceed(view)
      if view:byte() == 97 then return view end
      if view:byte() == 98 then return "b!" end
      if view:byte() == 99 then return { "c1", "c2" } end
      if view:byte() == 100 then self.conn:send("d!") return view end
      if view:byte() == 101 then self.conn:send(view) return nil end
    end
    local sent, answer = {}, {}
    local ANSWERS = { a = { "a" }, b = { "b!" }, c = { "c1", "c2" }, d = { "d!", "d" }, e = { "e" }, f = {} }
    for i = 1, 500 do
      local letter = ("abcdef"):sub(1 + i % 6, 1 + i % 6)
      sent[i] = letter
      for _, text in ipairs(ANSWERS[letter]) do answer[#answer + 1] = text end
    end
    assert.same(answer, start(VIEW, Agent):connect():send(unpack(sent)):frames())
  end)

  it("can be looked into", function()
    local Agent = {}
    function Agent:proceed(view)
      return table.concat({ #view, view:byte(), view:byte(2), tostring(view:byte(99)), view:sub(2, 3), view:sub(-2),
        view:sub(0), view:sub(3, 2), view:string(), tostring(view), view:u16be(1), view:u16le(1), view:u32be(2),
        view:u32le(2), view:u32be(view:byte(5)) }, " ")
    end
    start(VIEW, Agent):connect():send("ABCD\2")
      :expect("5 65 66 nil BC D\2 ABCD\2  ABCD\2 ABCD\2 16706 16961 1111704578 38028098 1111704578")
  end)

  it("is not read past its end, and not changed", function()
    local Agent = {}
    function Agent:proceed(view)
      local results = {}
      for i, fn in ipairs {
        function() return view:u32be(2) end, function() return view:u16le(0) end, function() view.x = 1 end,
        function() view.len = 100 end, function() return view:u32be(-100) end,
      } do results[i] = tostring(pcall(fn)) end
      return table.concat(results, " ")
    end
    start(VIEW, Agent):connect():send("ABCD"):expect("false false false false false")
  end)

  it("is dead once proceed has returned or waited", function()
    local kept
    local Agent = {}
    function Agent:proceed(view)
      kept = view
      core.sleep("1ms")
      return tostring(select(2, pcall(view.string, view)))
    end
    function Agent:closed() note(tostring(select(2, pcall(kept.byte, kept)))) end
    local app = start(VIEW, Agent)
    local client = app:connect():send("x")
    app:advance("1ms")
    has("this view is dead", client:receive())
    client:close()
    has("this view is dead", notes(app, 1)[1])
  end)

  it("that is dead cannot be sent", function()
    local Agent = {}
    function Agent:proceed(view)
      core.sleep("1ms")
      return view
    end
    function Agent:failed(err) return err end
    local app = start(VIEW, Agent)
    local client = app:connect():send("x")
    app:advance("1ms")
    has("this view is dead", client:receive())
  end)

  it("is a string where conn:read asks for a frame", function()
    local Agent = {}
    function Agent:proceed()
      local frame = self.conn:read()
      return type(frame) .. " " .. frame
    end
    start(VIEW, Agent):connect():send("a", "b", "c"):send("d"):expect("string b", "string d")
  end)
end)
