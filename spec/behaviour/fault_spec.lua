--- What is said of a handler that fails: where, whose it was, and how often; and that nobody else notices.
local has = require "spec.support.has"
local memory = require "spec.support.memory"

local core = require "perilune"

local lines, error_of = memory.lines, memory.error_of

-- Line numbers count, so these are files.
local CHAT, WITHOUT_A_LINE = "spec/behaviour/fixtures/faults.lua", "spec/behaviour/fixtures/without_a_line.lua"

local function start(settings) return memory.open(CHAT, settings) end

-- Makes an agent fail and gives the log entry.
local function fault(app, line)
  app:connect():send(line):expect("sorry"):expect_nothing():expect_closed("error")
  return app:faults()[1]
end

describe("a fault", function()
  after_each(memory.finish)

  it("is logged with its place, its traceback and whose it was", function()
    local app = start()
    app:connect():send("ping"):expect("pong")
    app:connect { from = "10.0.0.7:5060" }:send("ann"):expect_closed("error")
    local entry = app:faults()[1]
    assert.same({ "error", "attempt to index local 'user' (a nil value)", "faults.lua:7", "proceed", 2, 0, 1 }, {
      entry.level, entry.error, entry.place, entry.callback, entry.conn, entry.worker, entry.generation })
    assert.equal("10.0.0.7:5060", entry.peer)
    assert.equal("tcp://127.0.0.1:0", entry.listener)
    has("faults.lua:7: in greet", entry.traceback)
    has("faults.lua:24: in proceed", entry.traceback)
    assert.is_nil(entry.traceback:find("perilune/", 1, true), "the runtime's own lines are in the traceback")
  end)

  it("in a module of the app is shown there, with who called it", function()
    local entry = fault(start(), "module")
    assert.equal("handler.lua:1", entry.place)
    has("handler.lua:1: in fail", entry.traceback)
    has("faults.lua:13", entry.traceback)
  end)

  it("after a sleep has its place all the same", function()
    local app = start()
    local client = app:connect():send("sleep")
    app:advance("1ms")
    client:expect("sorry"):expect_closed("error")
    local entry = app:faults()[1]
    assert.equal("faults.lua:21", entry.place)
    has("after the sleep", entry.error)
  end)

  it("among many frames of one piece has its place all the same", function()
    local app = start()
    app:connect():send("ping", "ping", "ann", "ping"):expect("pong", "pong", "sorry"):expect_nothing()
    assert.equal("faults.lua:7", app:faults()[1].place)
  end)

  local texts = {
    table = "a table", ["nil"] = "nil", huge = "xxxxx", control = "a", utf8 = "caf", object = "__tostring failed",
    deep = "stack overflow",
  }
  for line, text in pairs(texts) do
    it("that raises something odd is one whole log line: " .. line, function()
      local app = start()
      local entry = fault(app, line)
      has(text, entry.error)
      assert.is_true(#entry.error < 2000)
      assert.is_nil(entry.error:find("%c"), "a control character came through")
      app:connect():send("ping"):expect("pong")
    end)
  end

  it("shows the first bytes of the frame only where the script asks for them", function()
    assert.is_nil(fault(start(), "ann").frame)
    assert.equal("ann\\xff\\x00b", fault(start { log = { frame_bytes = 6 } }, "ann\255\0bcd").frame)
  end)

  describe("that repeats", function()
    -- The one entry about those that had none.
    local function again(app)
      app:advance("1m")
      local entries = app:log "handler failed again"
      assert.equal(1, #entries)
      return entries[1]
    end

    it("is logged once and its repeats are counted", function()
      local app = start()
      for _ = 1, 30 do app:connect():send("ann"):expect("sorry") end
      app:connect():send("fail differently"):expect("sorry")
      assert.equal(31, app:counters().faults)
      assert.equal(2, #app:faults())
      local entry = again(app)
      has("×30 in ", entry.repeats)
      has("attempt to index local 'user'", entry.error)
    end)

    it("with ever other words does not flood memory", function()
      local app = start()
      for i = 1, 300 do app:connect():send("fail " .. i):expect("sorry") end
      assert.equal(300, app:counters().faults)
      assert.equal(5, #app:faults())
      local entry = again(app)
      assert.same({ "other errors at this place", "faults.lua:23" }, { entry.error, entry.place })
      has("×300 in ", entry.repeats)
    end)

    it("and claims ever other places has few entries as well", function()
      local app = start()
      for i = 1, 300 do app:connect():send("place " .. i):expect("sorry") end
      assert.equal(300, app:counters().faults)
      assert.equal(32, #app:faults())
      local entry = again(app)
      assert.same({ "other errors of this listener", "tcp://127.0.0.1:0" }, { entry.error, entry.listener })
      has("×300 in ", entry.repeats)
    end)

    it("is told ten seconds after the first, whenever the others were", function()
      local app = start()
      for i = 1, 3 do
        if i > 1 then app:advance("3s") end
        app:connect():send("ann"):expect("sorry")
      end
      app:advance("3999ms")
      assert.equal(0, #app:log "handler failed again")
      app:advance("1ms")
      assert.equal("×3 in 10 s", again(app).repeats)
    end)
  end)

  it("disturbs nobody else: not a frame is lost", function()
    local app = start()
    local neighbours = memory.connect_many(app, 10)
    for round = 1, 10 do
      for _, one in ipairs(neighbours) do one:send("ping", "ping") end
      app:connect():send("fail " .. round):expect("sorry")
      for _, one in ipairs(neighbours) do one:expect("pong", "pong"):expect_nothing() end
    end
  end)
end)

describe("a fault that has left no line", function()
  after_each(memory.finish)

  -- A tail call takes the function off the stack, its end does as well; but what is said leaves one return, mostly.
  for line, case in pairs {
    assert = { "not a number", 3 }, level = { "of who called", 4 }, action = { "unknown action 'clse'", 5 },
    reply = { "a reply is a string" }, list = { "item 3 is a table" },
  } do
    local text, at = unpack(case, 1, 2)
    for _, batch in ipairs { "", "ping\n" } do
      it("is shown where it returns, or where the method is defined: " .. line
        .. (batch == "" and "" or ", in a batch"), function()
        local app = memory.open(WITHOUT_A_LINE)
        app:connect():send_raw(batch .. line .. "\n"):expect_closed("error")
        local entry = app:faults()[1]
        has(text, entry.error)
        if at then
          assert.equal("without_a_line.lua:" .. at, entry.place)
          has(at .. ' |   if line == "' .. line .. '"', entry.excerpt)
          return
        end
        assert.equal("proceed, defined at without_a_line.lua:2", entry.place)
        has("in proceed, defined at ", entry.excerpt)
        has("2 | function Agent:proceed(line)", entry.excerpt)
      end)
    end
  end

  it("is shown with its returns where it is one of a few", function()
    local app = memory.script_lines [[

      function Agent:proceed(line)
        if line == "a" then return self:one(line) end
        local other = line
        return self:one(other)
      end
      function Agent:one() return error({}) end]]
    app:connect():send("a"):expect_closed "error"
    local excerpt = app:faults()[1].excerpt
    has("in proceed, defined at", excerpt)
    has('3 |         if line == "a" then return self:one(line) end\n5 |         return self:one(other)\n', excerpt)
    local other = memory.script_lines [[

      function Agent:proceed(line)
        local other = line
        return self:one(other)
      end
      function Agent:one() return error({}) end]]
    other:connect():send("a"):expect_closed "error"
    assert.equal("app.lua:4", other:faults()[1].place)
    has("4 |         return self:one(other)", other:faults()[1].excerpt)
  end)

  it("of a result is not blamed on the only tail call", function()
    local app = assert(memory.script [[
      local function decode(bytes, at)
        if bytes:byte(at) == 120 then return "half", at + 0.5 end
        return tostring(bytes), #bytes + 1
      end
      return { listen = "tcp://127.0.0.1:0", frame = { decode = decode, encode = tostring },
        agent = { proceed = function(_, text) return text end } }]])
    memory.raw(app):send("x"):expect_closed "error"
    local entry = app:faults()[1]
    has("the position after it, a whole number from 2 to 2: it returned 1.5", entry.error)
    assert.equal("decode, defined at app.lua:1", entry.place)
    has('2 |         if bytes:byte(at) == 120 then return "half", at + 0.5 end\n3 |', entry.excerpt)
  end)

  it("of an argument does not name the caller of what is called at its return", function()
    local app = memory.script_lines [[

      function Agent:proceed() return string.pack("i1", 200) end]]
    app:connect():send("a"):expect_closed "error"
    local entry = app:faults()[1]
    has("bad argument to what is called at a return (", entry.error)
    assert.equal("app.lua:2", entry.place)
  end)

  it("is not folded with others of the same method", function()
    local app = memory.open(WITHOUT_A_LINE)
    for _ = 1, 20 do app:connect():send("action"):expect_closed("error") end
    for _, line in ipairs { "reply", "list", "assert" } do app:connect():send(line):expect_closed("error") end
    assert.equal(4, #app:faults())
  end)

  it("names the factory that gives no agent", function()
    local app = memory.start(function() end)
    app:connect():expect_closed("error")
    assert.matches("^agent, defined at .*fault_spec.lua:%d+$", app:faults()[1].place)
  end)
end)

describe("bad frames", function()
  after_each(memory.finish)

  it("have few log entries, and are counted by listener and kind", function()
    local frame = { "line", max = 4 }
    local app = memory.open { agent = memory.echo(), listen = {
      { "tcp://127.0.0.1:0", name = "one", frame = frame }, { "tcp://127.0.0.1:0", name = "two", frame = frame },
    } }
    for _ = 1, 300 do app:connect():send("too long"):expect_closed("oversize") end
    for _ = 1, 3 do app:connect { listener = "two" }:send("too long"):expect_closed("oversize") end
    local told = { one = 0, two = 0 }
    for _, entry in ipairs(app:log "bad frame") do told[entry.listener] = told[entry.listener] + 1 end
    assert.same({ one = 5, two = 3 }, told)
    app:advance("1m")
    local again = app:log "bad frame again"
    assert.same({ 1, "one", "frame too large" }, { #again, again[1].listener, again[1].error })
    has("×300 in ", again[1].repeats)
  end)
end)

describe("a global", function()
  after_each(memory.finish)

  it("that is not defined is named when it is read", function()
    local entry = fault(start(), "global")
    has("undefined global 'counter'", entry.error)
    assert.equal("faults.lua:11", entry.place)
  end)

  it("is named when it is written", function()
    local entry = fault(start(), "write")
    has("assignment to global 'counter'", entry.error)
    assert.equal("faults.lua:12", entry.place)
  end)
end)

describe("perilune.log", function()
  after_each(memory.finish)

  it("refuses a level that does not exist", function()
    local app = lines { proceed = function(_, line) core.log("loud", line) end }
    app:connect():send("x"):expect_closed("error")
    has('expects "debug", "info", "warn" or "error", got "loud"', error_of(app))
  end)
end)
