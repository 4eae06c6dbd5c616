--- What an agent is promised: when its methods are called, how often, and what comes of what they return.
local has = require "spec.support.has"
local memory = require "spec.support.memory"

local core = require "perilune"
local perilune = require "perilune.test"

local lines, note, notes = memory.lines, memory.note, memory.notes

describe("an agent", function()
  after_each(memory.finish)

  describe("begins", function()
    it("with exactly one call of the factory for each connection", function()
      local app = lines(function()
        note("made")
        return { proceed = function(_, line) return line end }
      end)
      for i, client in ipairs(memory.connect_many(app, 20)) do
        client:send("hello " .. i):expect("hello " .. i):send("again"):expect("again")
      end
      local ids = {}
      for _, entry in ipairs(app:log "made") do ids[#ids + 1] = entry.conn end
      assert.equal(20, #ids)
      for i = 2, 20 do assert.is_true(ids[i] > ids[i - 1], "ids do not ascend") end
    end)

    it("as an object of its own: no state is shared", function()
      local app = lines(function()
        local seen = 0
        return { proceed = function() seen = seen + 1 return tostring(seen) end }
      end)
      local first, second = app:connect(), app:connect()
      for i = 1, 3 do first:send("x"):expect(tostring(i)) end
      second:send("x"):expect("1")
      first:send("x"):expect("4")
    end)

    it("as an instance of a prototype, with conn set and fields of its own", function()
      local Agent = { greeting = "hello" }
      function Agent:proceed()
        self.seen = (self.seen or 0) + 1
        return self.greeting .. " " .. self.conn.id .. " " .. self.seen
      end
      local app = lines(Agent)
      local first, second = app:connect(), app:connect()
      first:send("x"):expect("hello 1 1"):send("x"):expect("hello 1 2")
      second:send("x"):expect("hello 2 1")
    end)

    it("with metamethods of a prototype that is its own __index", function()
      local Agent = {}
      Agent.__index = Agent
      function Agent:__tostring() return "agent " .. self.conn.id end
      function Agent:proceed() return tostring(self) end
      lines(Agent):connect():send("x"):expect("agent 1")
    end)

    it("by opened(), whose reply is the first thing that the client reads", function()
      local Agent = memory.echo()
      function Agent:opened() return "welcome" end
      lines(Agent):connect():expect("welcome"):send("x"):expect("x")
    end)

    it("and ends at once when opened() says so", function()
      local Agent = memory.echo()
      function Agent:opened() return "not today", "close" end
      lines(Agent):connect():expect("not today"):expect_nothing():expect_closed("agent")
    end)
  end)

  describe("proceeds", function()
    it("once for each frame, in order, however many arrive in one piece", function()
      local Agent = {}
      function Agent:proceed(line)
        self.seen = (self.seen or 0) + 1
        return line .. "=" .. self.seen
      end
      local sent, expected = {}, {}
      for i = 1, 1500 do sent[i], expected[i] = tostring(i), i .. "=" .. i end
      assert.same(expected, lines(Agent):connect():send(unpack(sent)):frames())
    end)

    it("never again after the close that it asked for", function()
      local Agent = {}
      function Agent:proceed(line)
        note("got " .. line)
        if line == "quit" then return "bye", "close" end
        return line
      end
      local app = lines(Agent)
      local client = app:connect():send("a", "quit", "b", "c")
      assert.same({ "a", "bye" }, client:frames())
      client:expect_closed("agent")
      assert.same({ "got a", "got quit" }, notes(app, 1))
    end)

    it("never again after it failed", function()
      local Agent = {}
      function Agent:proceed(line)
        note("got " .. line)
        if line == "bad" then error("no") end
        return line
      end
      local app = lines(Agent)
      local client = app:connect():send("a", "bad", "b", "c")
      assert.same({ "a" }, client:frames())
      client:expect_closed("error")
      assert.same({ "got a", "got bad" }, notes(app, 1))
    end)
  end)

  describe("that closes in the normal way", function()
    it("delivers everything first", function()
      local app = lines { proceed = function(_, line) return line:rep(5e6), "close" end }
      local client, bytes = app:connect():stall():send("x"):set_frame("raw"), 0
      for _ = 1, 50 do bytes = bytes + #client:stall(1e5):receive() end -- a peer that takes its time
      assert.equal("\n", client:unstall():receive())
      client:expect_closed("agent")
      assert.equal(5e6, bytes)
    end)

    it("has not failed: nothing is logged or counted as such", function()
      local app = lines { proceed = function() return "bye", "close" end }
      app:connect():send("x"):expect("bye"):expect_closed("agent")
      assert.equal(0, app:counters().faults)
      for _, entry in ipairs(app:log()) do
        assert.is_true(entry.level == "info" or entry.level == "debug", entry.message)
      end
    end)

    it("may say so without a reply", function()
      local app = lines { proceed = function() return nil, "close" end }
      app:connect():send("x"):expect_nothing():expect_closed("agent")
    end)
  end)

  describe("that cannot be made ends only its connection, logged with its id:", function()
    local cases = {
      { "the factory fails", function() error("no more agents") end, "no more agents" },
      { "the factory returns nil", function() return nil end, "the agent factory returned nil" },
      { "the factory returns no object", function() return 42 end, "the agent factory returned a number" },
      { "the agent has no proceed", function() return { procede = 1 } end, "the agent has no method proceed" },
    }
    for _, case in ipairs(cases) do
      it(case[1], function()
        local made, make = 0, case[2]
        local app = lines(function()
          made = made + 1
          if made == 2 then return make() end
          return { proceed = function(_, line) return line end }
        end)
        local first, second, third = app:connect(), app:connect(), app:connect()
        second:expect_closed("error")
        first:send("still here"):expect("still here")
        third:send("and so am I"):expect("and so am I")
        local entry = app:faults()[1]
        assert.equal(2, entry.conn)
        has(case[3], entry.error)
      end)
    end
  end)

  it("that fails ends only its own connection", function()
    local Agent = {}
    function Agent:proceed(line)
      if line == "fail" then error("as asked") end
      return line
    end
    local app = lines(Agent)
    local clients = memory.connect_many(app, 5)
    clients[3]:send("fail"):expect_closed("error")
    for i, client in ipairs(clients) do
      if i ~= 3 then client:send("alive"):expect("alive") end
    end
    local entry = app:faults()[1]
    assert.equal(3, entry.conn)
    has("as asked", entry.error)
    assert.equal(1, app:counters().faults)
  end)

  describe("hears opened and closed(reason) once each, when", function()
    local Agent = {}
    function Agent:opened() note("opened") end
    function Agent:closed(reason) note("closed " .. reason) end
    function Agent:proceed(what)
      local conn = self.conn
      if what == "quit" then return "bye", "close" end
      if what == "close" then conn:close() end
      if what == "twice" then conn:close() conn:close() return "bye", "close" end
      if what == "kick" then conn:close("kick") end
      if what == "abort" then conn:abort() end
      if what == "fail" then error("as asked") end
      if what == "sleep" then core.sleep(60) end
      if what == "big" then conn:send(("x"):rep(2e6)) end
      return what
    end

    local function send(payload) return function(client) client:send(payload) end end
    local cases = {
      { "the peer closes", "peer", function(client) client:close() end },
      { "the peer closes in the middle of a frame", "peer", function(client) client:send_raw("\0\0\0"):close() end },
      { "the peer resets", "reset", function(client) client:reset() end },
      { "the peer resets while the agent sleeps", "reset", function(client) client:send("sleep"):reset() end },
      { "the agent returns close", "agent", send "quit" },
      { "the agent calls close", "agent", send "close" },
      { "the agent closes again and again", "agent", send "twice" },
      { "the agent kicks", "kick", send "kick" },
      { "the agent aborts", "agent", send "abort" },
      { "the agent fails", "error", send "fail" },
      { "a frame is not completed in time", "read_timeout", function(client, app)
        client:send_raw("\0\0")
        app:advance("150ms")
      end, { read = "150ms" } },
      { "no frame comes", "idle_timeout", function(_, app) app:advance("150ms") end, { idle = "150ms" } },
      { "not even a first frame comes", "idle_timeout", function(_, app) app:advance("150ms") end,
        { first_frame = "150ms" } },
      { "the peer does not read", "write_timeout", function(client, app)
        client:stall():send("big")
        app:advance("200ms")
      end, { write = "200ms" } },
      { "a frame is empty", "frame_error", send "" },
      { "a frame is too large", "oversize", function(client) client:send_raw("\0\0\4\1") end },
      { "the server drains", "drain", function(_, app) app:drain() end },
    }
    for _, case in ipairs(cases) do
      it(case[1], function()
        local app = memory.start(Agent, { limits = { frame = "1k", send_buffer = "1m" }, timeout = case[4] })
        local client = app:connect()
        assert.same({ "opened" }, notes(app, 1))
        case[3](client, app)
        assert.same({ "opened", "closed " .. case[2] }, notes(app, 1))
        client:expect_closed(case[2])
        app:close()
        assert.same({ "opened", "closed " .. case[2] }, notes(app, 1))
      end)
    end

    it("the peer does not read and is not waited for", function()
      local Slow = { opened = Agent.opened, closed = Agent.closed, proceed = function() return ("x"):rep(2e6) end }
      local app = memory.start(Slow, { limits = { slow_consumer = "close" } })
      app:connect():stall():send("x"):expect_closed("slow_consumer")
      assert.same({ "opened", "closed slow_consumer" }, notes(app, 1))
    end)

    it("opened() itself fails", function()
      local Broken = memory.echo()
      function Broken:opened() error("cannot open") end
      function Broken:closed(reason) note("closed " .. reason) end
      local app = lines(Broken)
      app:connect():expect_closed("error")
      assert.same({ "closed error" }, notes(app, 1))
    end)

    it("closed() itself fails", function()
      local Broken = {}
      function Broken:proceed(line) return line, "close" end
      function Broken:closed(reason) note("closed " .. reason) error("in closed") end
      local app = lines(Broken)
      app:connect():send("x"):expect("x"):expect_closed("agent")
      has("in closed", memory.error_of(app))
      assert.same({ "closed agent" }, notes(app, 1))
    end)
  end)

  describe("replies", function()
    local function start_replies()
      local Agent, WHAT = {}, {
        list = { "a", "b", "", "c" }, none = {}, number = 42, yes = true, no = false, nested = { "a", { "b" } },
        numbers = { "a", 1.5 }, func = function() end, hole = { "a", nil, "c" }, head = { nil, "b" },
        far = { "a", [100] = "z" }, keys = { status = "ok" }, both = { "a", n = 1 }, zero = { [0] = "a" },
        half = { [1.5] = "a" }, object = { [true] = "a" }, zero_key = { ["st\0atus\194\155"] = "ok" },
      }
      function Agent:proceed(what)
        if what == "nil" then return nil end
        if what == "empty" then return "" end
        if what == "misspelt" then return "x", "clsoe" end
        if what == "zero_action" then return "x", "clo\0se\194\155" end
        if what == "behind" then return "x", "close\0" end
        if what == "action" then return "x", 1 end
        if what == "third" then return "x", nil, "y" end
        if what == "third_after_close" then return "x", "close", false end
        local reply = WHAT[what]
        if reply == nil then return what end
        return reply
      end
      return memory.start(Agent, { frame = { "u32be", empty = "deliver" } })
    end

    it("with a string, of any bytes", function()
      local client = start_replies():connect()
      for _, text in ipairs { "x", "\0\1\255", ("y"):rep(100000) } do client:send(text):expect(text) end
    end)

    it("with a list of strings, a frame each", function()
      start_replies():connect():send("list"):send("end"):expect("a", "b", "", "c", "end")
    end)

    it("with nothing", function()
      start_replies():connect():send("nil"):send("none"):send("end"):expect("end"):expect_nothing()
    end)

    -- What `return line == "x" and "text"` gives for the other lines.
    it("with false, which is nothing", function()
      start_replies():connect():send("no"):send("no", "no", "end"):expect("end"):expect_nothing()
      local Agent = {}
      function Agent:opened() return false, false end
      function Agent:proceed(line) return line ~= "quiet" and line, line == "bye" and "close" end
      function Agent:closed() return false end
      lines(Agent):connect():send("a", "quiet", "b", "bye", "c"):expect("a", "b", "bye"):expect_closed "agent"
      function Agent:proceed(view) return view:len() < 3 and view end
      memory.start(Agent, { frame = { "line", view = true } }):connect():send("a", "quiet", "b"):expect("a", "b")
    end)

    it("with false for a codec in Lua, which takes any value", function()
      local codec = {
        decode = function(bytes, at) return bytes:sub(at), #bytes + 1 end,
        encode = function(value) return tostring(value) .. ";" end,
      }
      local Agent = {}
      function Agent:proceed() self.conn:send(false) return false end
      memory.raw(memory.start(Agent, { frame = codec })):send("x"):expect("false;false;")
    end)

    it("with a number, as Lua writes it", function()
      start_replies():connect():send("number", "numbers", "number"):expect("42", "a", "1.5", "42")
    end)

    it("with an empty frame", function()
      start_replies():connect():send("empty"):expect("")
    end)

    local wrong = {
      yes = "a reply is a string, a list of strings or nil, not a boolean", func = "not a function",
      nested = "a list of replies holds strings; item 2 is a table",
      hole = "a list of replies has no holes: item 2 is nil, and there is an item 3",
      head = "a list of replies has no holes: item 1 is nil, and there is an item 2",
      far = "a list of replies has no holes: item 2 is nil, and there is an item 100",
      keys = "a list of replies has items 1, 2 … and nothing else; this table has the key 'status'",
      both = "this table has the key 'n'", zero = "this table has the key 0", half = "this table has the key 1.5",
      object = "this table has the key that is a boolean",
      zero_key = [[this table has the key 'st\x00atus\u{9b}']],
      zero_action = [[unknown action 'clo\x00se\u{9b}'; the only one]],
      behind = [[unknown action 'close\x00'; the only]],
      third = "a handler returns a reply and an action; a third value would be lost",
      third_after_close = "a third value would be lost", misspelt = "unknown action 'clsoe'",
      action = "the action after a reply is \"close\" or nothing, not a number",
    }
    it("are refused by conn:send() as well, before any of them is sent", function()
      local Agent = {}
      function Agent:proceed()
        local ok, err = pcall(self.conn.send, self.conn, { "a", nil, "c" })
        return tostring(ok) .. " " .. err
      end
      lines(Agent):connect():send("x"):expect(perilune.pattern "^false conn:send: a list of replies has no holes")
    end)

    it("are no error of a call that may fail, and its message is told", function()
      local function fails() return nil, "connection\nrefused", "ECONNREFUSED" end
      local function waits() require("perilune").sleep(0.001) return fails() end
      for _, case in ipairs {
        { { proceed = fails } }, { { proceed = fails }, frame = { "line", view = true } }, { { proceed = waits } },
        { { proceed = memory.echo().proceed, opened = fails } },
        { { proceed = function() return false, "connection\nrefused", "ECONNREFUSED" end } },
      } do
        local app = memory.start(case[1], { frame = case.frame or "line" })
        local one = memory.raw(app):send("x\nx\n")
        app:advance "1ms"
        one:expect_closed("error")
        has("a handler returned an error as its reply: connection\\nrefused (ECONNREFUSED)", memory.error_of(app))
      end
    end)

    it("are one, and not three, of every callback and every framing", function()
      local function three() return "x", nil, "y" end
      local codec = { decode = function(bytes, at) return bytes:sub(at), #bytes + 1 end, encode = tostring }
      local function waits() require("perilune").sleep(0.001) return three() end
      for _, case in ipairs {
        { { proceed = three }, frame = { "line", view = true } }, { { proceed = three }, frame = codec },
        { { proceed = waits } }, { { proceed = memory.echo().proceed, opened = three } },
      } do
        local app = memory.start(case[1], { frame = case.frame or "line" })
        local one = memory.raw(app):send("x\n")
        app:advance "1ms"
        one:expect_closed("error")
        has("a handler returns a reply and an action; a third value would be lost", memory.error_of(app))
      end
    end)

    for what, message in pairs(wrong) do
      it("are refused with a clear error: " .. what, function()
        local app = start_replies()
        app:connect():send(what):expect_nothing():expect_closed("error")
        has(message, memory.error_of(app))
      end)
      it("are refused in the middle of many frames, too: " .. what, function()
        local app = start_replies()
        app:connect():send("one", "two", what, "three"):expect("one", "two"):expect_nothing():expect_closed("error")
        has(message, memory.error_of(app))
      end)
    end

    -- A list in a framing of so few bytes that one of its items has no place in it.
    for name, frame in pairs { u8 = "u8", u16be = "u16be", fixed = { "fixed", 2 } } do
      it("are refused as a whole where one does not fit the framing: " .. name, function()
        local Agent = {}
        function Agent:proceed() return { "ab", "cd", ("x"):rep(70000) } end
        local app = memory.start(Agent, { frame = frame, limits = { frame = "100k" } })
        app:connect():send("xy"):expect_nothing():expect_closed("error")
        has("a reply of 70000 bytes does not fit a " .. name .. " frame", memory.error_of(app))
      end)
    end

    it("are refused as a whole with views in them, and one that is dead", function()
      local Agent, kept = {}
      function Agent:proceed(view)
        local what = view:string()
        kept = view
        if what ~= "act" then self.conn:send { "a", view, what == "list" and {} or "b" } end
        return view, what == "act" and "clsoe"
      end
      function Agent:timeout() self.conn:send { "a", kept } end
      local app = memory.start(Agent, { frame = { "line", view = true }, timeout = { idle = "1s" } })
      app:connect():send("x", "list"):expect("a", "x", "b", "x"):expect_nothing():expect_closed("error")
      app:connect():send("x", "act", "y"):expect("a", "x", "b", "x"):expect_nothing():expect_closed("error")
      local client = app:connect():send("x"):expect("a", "x", "b", "x")
      app:advance("1s")
      client:expect_nothing():expect_closed("error")
    end)
  end)

  describe("that failed", function()
    it("may say a last word, and is told why", function()
      local Agent = {}
      function Agent:proceed() error({ code = 7 }) end
      function Agent:failed(err) return "sorry: " .. err.code end
      local app = lines(Agent)
      app:connect():send("x"):expect("sorry: 7"):expect_closed("error")
      assert.equal(1, app:counters().faults)
    end)

    it("is told what has failed, after a wait as well", function()
      local come = {
        opened = function() end,
        proceed = function(client) client:send "x" end,
        eof = function(client) client:half_close() end,
        oversize = function(client) client:send_raw(("x"):rep(200)) end,
        timeout = function(_, app) app:advance "61s" end,
        drain = function(_, app) app:begin_drain() end,
      }
      for callback, go in pairs(come) do
        for _, waits in ipairs { false, callback == "opened" or callback == "proceed" or callback == "eof" } do
          local Agent = memory.echo()
          Agent[callback] = function()
            if waits then core.sleep(1) end
            error("no")
          end
          function Agent:failed(_, what) note("failed " .. what) end
          local app = lines(Agent, { limits = { frame = 100 } })
          go(app:connect(), app)
          app:advance "2s"
          assert.same({ "failed " .. callback }, notes(app, 1))
        end
      end
    end)

    it("says it after the replies before it", function()
      local Agent = {}
      function Agent:proceed(line) if line == "3" then error("no") end return line end
      function Agent:failed(err) return (err:match("no$")) end
      assert.same({ "1", "2", "no" }, lines(Agent):connect():send("1", "2", "3", "4"):frames())
    end)

    it("ends all the same when its last word fails", function()
      local Agent = {}
      function Agent:proceed() error("first") end
      function Agent:failed() error("second") end
      local app = lines(Agent)
      app:connect():send("x"):expect_nothing():expect_closed("error")
      has("second", memory.error_of(app, 2))
      assert.equal(2, app:counters().faults)
    end)
  end)

  it("is collected once its connection has gone", function()
    local alive = setmetatable({}, { __mode = "k" })
    local Agent = {}
    function Agent:opened() alive[self] = true end
    function Agent:proceed(line)
      local garbage, n = 0, 0
      for i = 1, line == "count" and 2e4 or 0 do garbage = garbage + #("garbage " .. i) end
      for _ in pairs(alive) do n = n + 1 end
      return tostring(n)
    end
    local app = lines(Agent)
    for _, client in ipairs(memory.connect_many(app, 50)) do client:send("x"):skip():close() end
    local client, left = app:connect(), nil
    for _ = 1, 500 do
      left = client:send("count"):receive()
      if left == "1" then break end
    end
    assert.equal("1", left)
  end)
end)
