--- perilune.test, by itself: apps in memory.
local assert_has = require "spec.support.has"
local failure = require "spec.support.failure"
local perilune = require "perilune.test"

local function lines(agent, settings)
  local app = { listen = "tcp://127.0.0.1:9000", frame = "line", agent = agent }
  for key, value in pairs(settings or {}) do app[key] = value end
  return app
end

local function echo() return { proceed = function(_, line) return line end } end

describe("perilune.app", function()
  local app

  local function open(...)
    app = perilune.app(...)
    return app
  end

  after_each(function()
    if app then app:close() end
    app = nil
  end)

  describe("from a file", function()
    it("runs the very example of the manual", function()
      local chat = open("spec/workbench/fixtures/chat.lua")
      local ann = chat:connect()
      ann:expect("nick?"):send("ann"):expect("* ann joined")
      chat:advance("5m")
      assert.equal("idle_timeout", ann:closed())
    end)

    it("takes overrides that win over the script", function()
      local chat = open("spec/workbench/fixtures/chat.lua", { timeout = { idle = "2s" } })
      local ann = chat:connect():skip()
      chat:advance(1.999)
      assert.is_nil(ann:closed())
      chat:advance(0.001)
      assert.equal("idle_timeout", ann:closed())
    end)

    it("refuses what cannot be loaded, and says why", function()
      assert_has("no_such.lua: No such file", failure(function() perilune.app("no_such.lua") end))
      assert_has('timeout.idel: unknown key "timeout.idel" (did you mean "timeout.idle"?)', failure(function()
        perilune.app("spec/workbench/fixtures/chat.lua", { timeout = { idel = 1 } })
      end))
    end)

    it("refuses one whose setup fails", function()
      assert_has("not today", failure(function()
        perilune.app(lines(echo(), { setup = function() error("not today") end }))
      end))
    end)

    it("loads it anew when it has changed", function()
      local folder = os.tmpname()
      os.remove(folder)
      assert(require("lfs").mkdir(folder))
      local path = folder .. "/app.lua"
      local function write(word)
        local file = assert(io.open(path, "w"))
        file:write(("return { listen = 'tcp://:0', frame = 'line', agent = { proceed = function() return %q end } }")
          :format(word))
        file:close()
      end
      for _, word in ipairs { "one", "two", "one" } do
        write(word)
        local one = perilune.app(path)
        one:connect():send("x"):expect(word):close()
        one:close()
      end
      os.remove(path)
      os.remove(folder)
    end)
  end)

  describe("from a table", function()
    it("copies what the functions refer to, shared as before", function()
      local total, words = 0, { "zero", "one", "two" }
      local function name(n) return words[n + 1] end
      open(lines {
        opened = function() total = total + 1 end,
        proceed = function(self, line)
          self.n = (self.n or 0) + 1
          return line:upper() .. " " .. name(self.n) .. " " .. total
        end,
      })
      local a, b = app:connect(), app:connect()
      a:send("x"):expect("X one 2")
      b:send("y"):expect("Y one 2")
      a:send("z"):expect("Z two 2")
      assert.equal(0, total) -- the app has its own
    end)

    it("copies what refers to itself", function()
      local Agent = {}
      Agent.__index = Agent
      local function fib(n) return n < 2 and n or fib(n - 1) + fib(n - 2) end
      function Agent.proceed(_, line) return tostring(fib(tonumber(line))) end
      open(lines(function() return setmetatable({}, Agent) end))
      app:connect():send("10"):expect("55")
    end)

    it("keeps metatables, so that prototypes inherit", function()
      local Base = { proceed = function(self, line) return self:greet(line) end }
      local Agent = setmetatable({ greet = function(_, line) return "hello " .. line end }, { __index = Base })
      open(lines(Agent))
      app:connect():send("ann"):expect("hello ann")
    end)

    it("takes a factory, and require 'perilune'", function()
      local core = require "perilune"
      open(lines(function(conn)
        return { proceed = function(_, line)
          core.sleep("1s")
          return conn.id .. " " .. line
        end }
      end))
      local client = app:connect():send("x"):expect_nothing()
      app:advance("1s")
      client:expect("1 x")
    end)

    it("shows a fault with the line of the specification", function()
      open(lines { proceed = function(_, line) return line.nothing.at_all end })
      app:connect():send("x"):expect_closed("error")
      local fault = app:faults()[1]
      assert_has("spec/workbench/app_spec.lua:", fault.place)
      assert_has("attempt to index field 'nothing' (a nil value)", fault.error)
      assert_has("line.nothing.at_all", fault.excerpt)
    end)

    it("refuses what cannot go to another VM, and names it", function()
      local file = io.stdout
      assert_has("(upvalue 'file') is a userdata", failure(function()
        perilune.app(lines { proceed = function() return tostring(file) end })
      end))
      local socket = require("lfs").currentdir
      assert_has("(upvalue 'socket') is a function in C", failure(function()
        perilune.app(lines { proceed = function() return socket() end })
      end))
    end)

    it("runs in the sandbox, under the guard", function()
      open(lines({ proceed = function(_, line)
        if line == "global" then oops = 1 end -- luacheck: ignore
        while true do end
      end }, { limits = { proceed = "50ms" } }))
      app:connect():send("global"):expect_closed("error")
      assert_has("assignment to global 'oops'", app:faults()[1].error)
      app:connect():send("loop"):expect_closed("proceed_timeout")
    end)
  end)

  describe("time", function()
    it("serves what is due in order, each at its own time", function()
      local core = require "perilune"
      open(lines { proceed = function(_, line)
        core.sleep(line .. "ms")
        return ("%g"):format(core.now() * 1000 % 1000)
      end })
      local a, b = app:connect { name = "a" }, app:connect { name = "b" }
      a:send("30")
      b:send("20")
      app:advance("100ms")
      b:expect("20")
      a:expect("30")
      assert_has("20ms  ←", b:transcript())
      assert.equal(0.1, app:now())
    end)

    it("ends each kind of time-out with its reason", function()
      open(lines(echo(), { timeout = { read = "1s", idle = "10s", first_frame = "3s", write = "2s" },
        limits = { send_buffer = 100 } }))
      local partial, silent = app:connect():send_raw("abc"), app:connect()
      local idle, slow = app:connect():send("x"):skip(), app:connect():stall(0):send(("x"):rep(500))
      app:advance("1s")
      assert.same({ "read_timeout" }, { partial:closed(), silent:closed(), idle:closed() })
      app:advance("1s")
      assert.equal("write_timeout", slow:closed())
      app:advance("1s")
      assert.equal("idle_timeout", silent:closed())
      app:advance("7s")
      assert.equal("idle_timeout", idle:closed())
    end)

    it("says so when a handler never comes to rest", function()
      local core = require "perilune"
      local restless = perilune.app(lines { proceed = function() while true do core.sleep(0) end end })
      local client = restless:connect()
      assert_has("does not come to rest", failure(function() client:send("x") end))
      restless:dispose()
    end)

    it("goes on while handlers compute, if they say so", function()
      open(lines { proceed = function(_, line)
        perilune.spend(line .. "ms")
        return "done"
      end })
      local client = app:connect():send("250"):expect("done")
      assert.equal(0.25, app:now())
      client:send("10", "20"):expect("done", "done")
      assert.equal(0.28, app:now())
      client:close()
    end)

    it("goes on by what each callback takes", function()
      open("spec/workbench/fixtures/chat.lua", nil, { takes = { opened = "1s", proceed = "500ms" } })
      local ann = app:connect():expect("nick?")
      assert.equal(1, app:now())
      ann:send("ann"):expect("* ann joined")
      assert.equal(1.5, app:now())
      app:close()
      local all = perilune.app("spec/workbench/fixtures/chat.lua", nil, { takes = "1s" })
      all:connect():send("ann"):close()
      assert.equal(3, all:now())
      all:close()
    end)

    it("goes on by no more than a test lets it where nobody spends any", function()
      open(lines(echo(), nil), nil, { takes = {} })
      app:connect():send("x"):expect("x")
      assert.equal(0, app:now())
    end)

    it("can be spent in handlers only", function()
      assert_has("spend: only while a callback of an app in memory runs", failure(function() perilune.spend(1) end))
      open(lines { proceed = function(_, line)
        local ok, why = pcall(perilune.spend, line)
        return tostring(ok) .. " " .. tostring(why)
      end, closed = function() perilune.app "app.lua" end })
      app:connect():send("soon"):expect(perilune.pattern "^false .*spend: expects a duration"):close()
      assert_has("an app in memory has nothing of perilune.test but spend()", app:faults()[1].error)
    end)

    it("goes on for a day at once", function()
      local core, beats = require "perilune", 0
      open(lines { proceed = function(self)
        while true do
          core.sleep("1m")
          beats = beats + 1
          self.conn:send(tostring(beats))
        end
      end }, { timeout = { idle = 0 } })
      local client = app:connect():send("go")
      app:advance("24h")
      assert.equal(1440, #client:frames())
      client:close()
    end)
  end)

  describe("limits and back-pressure", function()
    it("refuses clients at the door, with words if there are any", function()
      open(lines(echo(), { limits = { connections = 2, reject = "full\n" } }))
      local a = app:connect()
      app:connect()
      local refused = app:connect():expect("full")
      assert.equal("limit", refused:closed())
      a:close()
      app:connect():send("x"):expect("x")
    end)

    it("counts clients by address", function()
      open(lines(echo(), { limits = { per_ip = 1 } }))
      local a = app:connect { from = "10.0.0.7:5060" }
      app:connect { from = "10.0.0.8:5060" }:send("x"):expect("x")
      assert.equal("limit", app:connect { from = "10.0.0.7:5061" }:closed())
      a:reset()
      app:connect { from = "10.0.0.7:5062" }:send("x"):expect("x")
    end)

    it("does not read from whoever does not read", function()
      open(lines(echo(), { limits = { send_buffer = 100 }, timeout = { write = 0 } }))
      local client = app:connect():stall(0)
      for i = 1, 50 do client:send(("%02d"):format(i):rep(10)) end
      assert.is_true(app:counters().frames_in < 50)
      client:unstall()
      local frames = client:frames()
      assert.equal(50, #frames)
      assert.equal(("50"):rep(10), frames[50])
    end)

    it("gives a slow reader so many bytes at a time", function()
      open(lines(echo(), { timeout = { write = "1s" } }))
      local client = app:connect { frame = "raw" }:stall()
      client:send_raw("0123456789\n"):expect_nothing()
      client:stall(4):expect("0123"):expect_nothing()
      app:advance("900ms")
      client:stall(3):expect("456"):expect_nothing()
      app:advance("900ms")
      assert.is_nil(client:closed())
      client:unstall():expect("789\n")
    end)

    it("ends a frame over the limit", function()
      open(lines(echo(), { limits = { frame = 10 } }))
      app:connect():send(("x"):rep(11)):expect_closed("oversize")
    end)
  end)

  describe("framings", function()
    it("encodes and decodes as the listener does", function()
      for _, framing in ipairs { "u8", "u16be", "u32be", "u32le", "varint", "netstring" } do
        local one = perilune.app { listen = "tcp://:0", frame = framing, agent = echo() }
        one:connect():send("a\0b", "c"):expect("a\0b", "c")
        one:close()
      end
    end)

    local LUA = {
      decode = function(bytes, at)
        local stop = bytes:find(";", at, true)
        if stop then return bytes:sub(at, stop - 1), stop + 1 end
      end,
      encode = function(reply) return reply .. ";" end,
    }

    -- limits.frame bounds what a peer may send, not what it is sent.
    for name, framing in pairs {
      u24be = "u24be", u32le = "u32le", u64be = "u64be", varint = "varint", line = "line", netstring = "netstring",
      delimiter = { "delimiter", "\0\0" }, offset = { "u32be", offset = 2 }, lua = LUA,
    } do
      it("take replies larger than what the server takes: " .. name, function()
        local reply = { proceed = function(_, frame) return frame:sub(1, 2) .. ("r"):rep(3e6) end }
        local client = open(lines(reply, { frame = framing, limits = { frame = 64 } })):connect()
        local got = client:send("xx"):receive()
        assert.equal(3e6 + 2, #got)
        assert.equal("xxr", got:sub(1, 3))
        client:send "yy":expect("yy" .. ("r"):rep(3e6))
        if name ~= "lua" then
          client:set_frame(framing):send("zz"):expect("zz" .. ("r"):rep(3e6))
          client:send(("x"):rep(65)):expect_closed "oversize"
        end
      end)
    end

    it("takes a stream as it comes", function()
      open { listen = "tcp://:0", frame = "raw", agent = echo() }
      app:connect():send("hel"):send("lo wor"):expect("hello"):expect(" wor"):expect_nothing()
    end)

    it("keeps what stands before a length", function()
      local framing = { "length", bytes = 1, offset = 2 }
      open { listen = "tcp://:0", frame = framing, agent = { proceed = function(_, f) return f .. "!" end } }
      app:connect():send("ABxyz"):expect("ABxyz!")
    end)

    it("goes through codecs in Lua, whose frames may be tables", function()
      open { listen = "tcp://:0", agent = { proceed = function(_, t) return { sum = t.a + t.b } end }, frame = {
        decode = function(bytes, at)
          local a, b, to = bytes:match("^(%d+)%+(%d+);()", at)
          if a then return { a = tonumber(a), b = tonumber(b) }, to end
          local sum, after = bytes:match("^=(%d+);()", at)
          if sum then return { sum = tonumber(sum) }, after end
        end,
        encode = function(t) return t.sum and "=" .. t.sum .. ";" or t.a .. "+" .. t.b .. ";" end,
      } }
      app:connect():send({ a = 1, b = 2 }, { a = 3, b = 4 }):expect({ sum = 3 }, { sum = 7 })
    end)

    it("follows a handler that changes its framing", function()
      open(lines { proceed = function(self, line)
        if line == "binary" then
          self.conn:send("ok")
          self.conn:set_frame "u8"
          return
        end
        return line
      end })
      app:connect():send("binary"):expect("ok"):set_frame("u8"):send("a\nb"):expect("a\nb")
    end)
  end)

  describe("what networks do", function()
    it("splits at every byte, and at random with a seed", function()
      open(lines(echo()))
      local client = app:connect():send_split("hello"):expect("hello")
      client:send_split({ "one", "two" }, 42):expect("one", "two")
      assert_has(", seed 42", client:transcript())
      client:send_split("x", "random"):expect("x")
      assert.truthy(client:transcript():find("seed %d+"))
    end)

    it("reads and writes in small pieces", function()
      open(lines(echo()))
      local client = app:connect { read_max = 1, write_max = 2 }
      client:send("a long line", "another one"):expect("a long line", "another one")
    end)

    it("ends a side, resets, and hangs up", function()
      open(lines {
        proceed = function(_, line) return line end,
        eof = function() return "that was all" end,
      })
      app:connect():send("x"):half_close():expect("x", "that was all"):expect_closed("peer")
      app:connect():reset():expect_closed("reset")
      app:connect():send("x"):close():expect_closed("peer")
    end)
  end)

  it("tells a reset from an end", function()
    open(lines { proceed = function(self, line)
      if line == "abort" then self.conn:abort() end
      return line, "close"
    end })
    local aborted, closed = app:connect():send("abort"):expect_reset(), app:connect():send("x")
    assert_has("expected a reset: there was none", failure(function() closed:expect_reset() end))
    app:close()
    aborted:expect_reset()
  end)

  describe("faults", function()
    it("come in the n-th call of a callback", function()
      open(lines {
        proceed = function(_, line) return line end,
        failed = function() return "sorry" end,
        closed = function() end,
      })
      app:fail("proceed", 3)
      local client = app:connect():send("a", "b", "c")
      client:expect("a", "b", "sorry"):expect_closed("error")
      assert_has('injected by app:fail("proceed")', app:faults()[1].error)
      app:connect():send("d"):expect("d") -- once
      app:fail("closed"):connect():close():expect_closed("peer")
      assert.equal(2, #app:faults())
    end)

    it("are the lack of memory for buffers", function()
      open(lines(echo()))
      local client = app:connect():send("x"):expect("x")
      app:no_memory()
      client:send_raw("half a line"):expect_closed("memory")
      app:no_memory(false)
      app:connect():send_raw("half"):send_raw(" a line\n"):expect("half a line")
    end)
  end)

  describe("expect", function()
    it("takes patterns and functions", function()
      open(lines(echo()))
      local client = app:connect():send("hello 42", "hello 43")
      client:expect(perilune.pattern "^hello %d+$"):expect(function(frame) return frame:sub(-2) == "43" end)
    end)

    it("fails with what happened on the connection", function()
      open(lines(echo()))
      local client = app:connect():send("abc"):send("\1\2\255")
      app:advance("90s"):connect():send("y")
      local text = failure(function() client:expect("abd") end)
      assert_has('expected "abd", got "abc"', text)
      assert_has("spec/workbench/app_spec.lua:", text)
      assert_has("0s  →  01 02 ff (3 bytes)", text)
      assert_has("1m  ──  the connection has ended: idle_timeout", text)
      assert_has("expected what the function accepts, got 01 02 ff", failure(function()
        client:expect(function() return false end)
      end))
    end)

    it("tells what a handler waits for", function()
      local core = require "perilune"
      open(lines { proceed = function() core.sleep("3s") end })
      local client = app:connect { name = "ann" }:send("x")
      local text = failure(function() client:expect("y") end)
      assert_has('expected "y": nothing came', text)
      assert_has("ann (conn 1): open; its proceed() waits in perilune.sleep, with a timer at 3s (it is 0s)", text)
      app:advance("3s")
    end)

    it("shows the log, faults with their excerpts", function()
      local core = require "perilune"
      open(lines { proceed = function(_, line)
        core.log("info", "got " .. line)
        return line.x.y
      end })
      local client = app:connect():send("x")
      local text = failure(function() client:expect("y") end)
      assert_has("got x", text)
      assert_has("^ nil here", text:gsub("%^+", "^"))
    end)

    it("refuses misuse", function()
      open(lines(echo()))
      local client = app:connect()
      assert_has("a frame is a string, got a table", failure(function() client:send {} end))
      assert_has("got nil", failure(function() client:expect(nil) end))
      assert_has("unknown option form (there are: frame, from", failure(function() app:connect { form = 1 } end))
      assert_has("no listener 2; there are:", failure(function() app:connect { listener = 2 } end))
      assert_has("an address such as", failure(function() app:connect { from = "nowhere" } end))
      assert_has('no callback "proced"', failure(function() app:fail("proced") end))
      assert_has("expects a duration", failure(function() app:advance("soon") end))
      local function open_with(options) return failure(function() perilune.app(lines(echo()), nil, options) end) end
      assert_has("app: unknown option take (there are: takes, workers)", open_with { take = "1s" })
      assert_has("app expects a table, got a string", open_with "1s")
      assert_has('takes: there is no callback "proced"', open_with { takes = { proced = "1s" } })
      assert_has("takes: expects a duration", open_with { takes = "soon" })
    end)
  end)

  it("closes in good order, and fails where a handler has to be cut", function()
    local stubborn = perilune.app(lines({
      proceed = function(_, line) return line end,
      eof = function() return true end,
      drain = function() return true end,
    }, { timeout = { drain = "3s" } }))
    local client = stubborn:connect { name = "ann" }:send("x"):expect("x")
    local text = failure(function() stubborn:close() end)
    assert_has("had to be cut at the end of timeout.drain", text)
    assert_has("ann (conn 1)", text)
    assert.equal("drain", client:closed())
  end)

  it("lets clients go on while it stops", function()
    open(lines({
      proceed = function(_, line) return line, line == "done" and "close" or nil end,
      drain = function(self)
        self.conn:send("finish, please")
        return true
      end,
    }, { timeout = { drain = "3s" } }))
    local quick, slow = app:connect():send("a"):expect("a"), app:connect()
    app:begin_drain()
    quick:expect("finish, please"):send("b"):expect("b"):send("done"):expect("done"):expect_closed("agent")
    app:advance("2999ms")
    assert.is_nil(slow:closed())
    app:advance("1ms")
    slow:expect("finish, please"):expect_closed("drain")
    assert.equal(1, app:counters().cut)
    assert.equal(3, app:begin_drain():drain():now())
    assert_has("accepts nobody any more", failure(function() app:connect() end))
  end)

  it("runs setup and teardown, and several listeners", function()
    local words = {}
    open {
      listen = { { "tcp://:0", name = "one" }, { "unix:///tmp/x.sock", name = "two", frame = "u8" } },
      frame = "line",
      agent = function(conn)
        return { proceed = function(_, f) return conn.listener .. " " .. conn.peer .. " " .. words[1] .. f end }
      end,
      setup = function() words[1] = "ready " end,
    }
    app:connect():send("x"):expect(perilune.pattern "^one 127%.0%.0%.1:%d+ ready x$")
    app:connect { listener = "two" }:send("y"):expect("two unix ready y")
    app:connect { listener = 2 }:send("z"):expect("two unix ready z")
  end)

  it("has hundreds of apps and thousands of connections", function()
    local many = {}
    for i = 1, 100 do many[i] = perilune.app(lines(echo())) end
    for _, one in ipairs(many) do
      for n = 1, 10 do one:connect():send(tostring(n)):expect(tostring(n)) end
    end
    for _, one in ipairs(many) do one:close() end
  end)
end)
