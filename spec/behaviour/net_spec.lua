--- perilune.net: what its network does to apps, and that the same seed does the same.
local core = require "perilune"
local memory = require "memory"
local perilune = require "perilune.test"

local has = require "has"
local pki = require "spec.support.pki"

-- Answers each line, and tells how many it has answered since it began. `work`: so much computing for each, in real
-- time.
local function counting_echo(work)
  local answered = 0
  return { frame = "line", agent = { proceed = function(_, line)
    answered = answered + 1
    for _ = 1, work or 0 do line = line:upper():lower() end
    return ("<%s %d>"):format(line, answered)
  end } }
end

local function echo()
  return { frame = "line", agent = { proceed = function(_, line) return "<" .. line .. ">" end } }
end

-- Asks the backend for each line, over one connection for each client.
local function asker(options)
  local Agent = {}
  function Agent:proceed(line)
    if not self.db then
      local db, message, code = core.connect("tcp://db:1", options or { frame = "line" })
      if not db then return ("no: %s %s"):format(message, code) end
      self.db = db
    end
    local ok, closed = self.db:send(line)
    local reply, why, code = self.db:read()
    if reply then return reply end
    self.db:close()
    self.db = nil
    return ("no reply: %s %s"):format(ok and why or closed, code)
  end
  return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent }
end

describe("perilune.net", function()
  local net

  before_each(function() net = perilune.net { seed = 7 } end)
  after_each(function() net:close() end)

  -- A backend and an app that asks it.
  local function pair(options, backend)
    local db = net:serve("tcp://db:1", backend or echo(), { name = "db" })
    return net:app(asker(options), nil, { name = "web" }), db
  end

  describe("says what is wrong with", function()
    local function says(text, f, ...)
      local ok, message = pcall(f, ...)
      assert.is_false(ok)
      has(text, tostring(message))
    end

    it("its options", function()
      says("net: unknown option sead (there are: seed)", perilune.net, { sead = 1 })
      says("net: seed: a whole number from 0 on is expected, got 1.5", perilune.net, { seed = 1.5 })
      says("net: seed: a whole number from 0 on is expected, got seven", perilune.net, { seed = "seven" })
    end)

    it("the seed in the environment", function()
      local getenv = os.getenv
      finally(function() os.getenv = getenv end) -- luacheck: ignore 122
      local value = "12"
      -- luacheck: ignore 122
      os.getenv = function(name) return name == "PERILUNE_NET_SEED" and value or getenv(name) end
      local other = perilune.net()
      assert.equal(12, other.seed)
      other:close()
      value = "twelve"
      says("PERILUNE_NET_SEED: a whole number from 0 on is expected, got twelve", perilune.net)
    end)

    it("links", function()
      local app, db = pair()
      local function link(options) return function() net:link(app, db, options) end end
      says("link: unknown option lag (there are: latency, loss, one_way, rate, refuse)", link { lag = 1 })
      says("link: latency: ", link { latency = "fast" })
      says("link: latency: a duration is expected, or two of them", link { latency = { "1ms" } })
      says("link: latency: the second duration is less than the first", link { latency = { "2ms", "1ms" } })
      says("link: rate: ", link { rate = "fast" })
      says("link: rate: bytes a second are expected", link { rate = 0 })
      says("link: refuse: a share from 0 to 1 is expected, got 2", link { refuse = 2 })
      says("link: loss: a share from 0 to 1 is expected, got 7", link { loss = 7 })
      says("link: an app has no link to itself", function() net:link(db, db, {}) end)
      says("partition: an app of this net is expected, got nil", function() net:partition(app) end)
      says("partition: unknown option oneway (there are: one_way)",
        function() net:partition(app, db, { oneway = true }) end)
    end)

    it("apps and numbers", function()
      local app, db = pair()
      local stranger = perilune.app(asker())
      says("kill: an app of this net is expected, got another", function() net:kill(stranger) end)
      says("kill: an app of this net is expected, got db", function() net:kill "db" end)
      says("kill: unknown option quiet (there are: silent)", function() net:kill(db, { quiet = true }) end)
      says("reset: a share from 0 to 1 is expected, got 7", function() net:reset(app, db, 7) end)
      says("random: a whole number from 1 on is expected, got 0", function() net:random(0) end)
      says("app: unknown option nme (there are: name, takes, workers)",
        function() net:app(asker(), nil, { nme = "x" }) end)
      says("app: name: a string is expected", function() net:app(asker(), nil, { name = 7 }) end)
      net:kill(db)
      says("kill: the app is closed, or was killed", function() net:kill(db) end)
      says("stall: the app is closed, or was killed", function() net:stall(db) end)
      says("the app is closed", function() db:connect() end)
      net:stall(app)
      says("connect: the app is stalled", function() app:connect() end)
    end)
  end)

  describe("a link", function()
    it("has a latency, each way, for connects as well", function()
      local app, db = pair()
      net:link(app, db, { latency = "10ms" })
      local client = app:connect():send("a")
      net:advance "39ms" -- there and back to connect, there and back to ask
      client:expect_nothing()
      net:advance "1ms"
      client:expect("<a>"):send("b")
      net:advance "19ms"
      client:expect_nothing()
      app:advance "1ms"
      client:expect("<b>")
      assert.equal(0.06, net:now())
    end)

    it("has another latency one way", function()
      local app, db = pair()
      net:link(app, db, { latency = "10ms", one_way = true })
      local client = app:connect():send("a")
      net:advance "19ms"
      client:expect_nothing()
      net:advance "1ms"
      client:expect("<a>")
    end)

    it("has a latency within its bounds, and never reorders bytes", function()
      local app, db = pair(nil, { frame = "line", agent = { proceed = function(self, line)
        for i = 1, 200 do
          self.conn:send(line .. i)
          core.sleep "1ms"
        end
      end } })
      net:link(app, db, { latency = { "1ms", "50ms" } })
      local reader = net:app { listen = "tcp://127.0.0.1:9001", frame = "line", agent = { proceed = function(self, line)
        local conn = assert(core.connect("tcp://db:1", { frame = "line" }))
        conn:send(line)
        for _ = 1, 200 do self.conn:send((conn:read())) end
      end } }
      net:link(reader, db, { latency = { "1ms", "50ms" } })
      local client = reader:connect():send("n")
      net:advance "5s"
      for i = 1, 200 do client:expect("n" .. i) end
    end)

    it("is slow", function()
      local app, db = pair({ frame = "raw" }, { frame = "raw", agent = { proceed = function()
        return ("x"):rep(10000)
      end } })
      net:link(app, db, { rate = "1k" })
      local client = app:connect { frame = "raw" }:send_raw("go\n")
      net:advance "5s"
      local got = 0
      for line in table.concat(client:frames()):gmatch "[^\n]+" do got = got + #line end
      assert.is_true(got <= 5 * 1024, got)
      -- Only the first read's reply is told; the rest of it came since.
      assert.is_true(got > 0)
    end)

    it("passes on as many bytes a second as it says", function()
      local taker = net:serve("tcp://db:1", { frame = "raw", agent = { proceed = function(self, bytes)
        self.got = (self.got or 0) + #bytes
        core.log("info", tostring(self.got))
      end } })
      local app = net:app { listen = "tcp://127.0.0.1:9000", frame = "line", agent = { proceed = function()
        assert(core.connect "tcp://db:1"):send(("x"):rep(50000))
      end } }
      net:link(app, taker, { rate = 10000 })
      local client = app:connect():send("go")
      for second = 1, 5 do
        net:advance "1s"
        local log = taker:log()
        local got = tonumber(log[#log].message)
        assert.is_true(math.abs(got - second * 10000) <= 100, got)
      end
      client:close()
    end)

    it("refuses connects, all or a share", function()
      local app, db = pair()
      net:link(app, db, { refuse = 1 })
      app:connect():send("a"):expect("no: db:1: connection refused ECONNREFUSED")
      net:link(app, db, { refuse = 0.5 })
      local refused = 0
      for _ = 1, 100 do
        if app:connect():send("a"):receive() ~= "<a>" then refused = refused + 1 end
      end
      assert.is_true(refused > 30 and refused < 70, refused)
    end)

    it("is what all links are that have none of their own", function()
      net:link { latency = "10ms" }
      local app, db = pair()
      local client = app:connect():send("a")
      net:advance "39ms"
      client:expect_nothing()
      net:advance "1ms"
      client:expect("<a>")
      net:link(app, db, {})
      client:send("b"):expect("<b>")
    end)
  end)

  describe("a partition", function()
    it("lets nothing pass and tells nobody, and what waited arrives when it heals", function()
      local app, db = pair()
      local client = app:connect():send("a"):expect("<a>")
      net:partition(app, db)
      client:send("b")
      net:advance "3s"
      client:expect_nothing()
      net:heal(app, db)
      client:expect("<b>")
      assert.equal(1, db:counters().accepted)
    end)

    it("lets no connect through", function()
      local app, db = pair { frame = "line", timeout = { connect = "2s" } }
      net:partition({ app }, { db })
      local client = app:connect():send("a")
      net:advance "2s"
      client:expect(perilune.pattern "ETIMEDOUT$")
      net:heal()
      assert.equal(0, db:counters().accepted)
      client:send("b"):expect("<b>")
    end)

    it("hides an end until it heals", function()
      local app, db = pair()
      local client = app:connect():send("a"):expect("<a>")
      net:partition(app, db)
      client:close()
      assert.equal(0, app:counters().outgoing)
      assert.equal(0, db:counters().closed)
      net:heal()
      assert.equal(1, db:counters().closed)
    end)

    it("may be of one way", function()
      local app, db = pair()
      local client = app:connect():send("a"):expect("<a>")
      net:partition(db, app, { one_way = true })
      client:send("b"):expect_nothing()
      assert.equal(2, db:counters().frames_in)
      net:heal()
      client:expect("<b>")
    end)

    it("keeps no more on its way than a window, and then holds back who writes", function()
      local flushed = net:app { listen = "tcp://127.0.0.1:9001", frame = "line", agent = { proceed = function(_, line)
        local conn = assert(core.connect("tcp://db:1", { timeout = { write = 0 } }))
        conn:send(("x"):rep(200000))
        conn:flush()
        conn:close()
        return line
      end } }
      local db = net:serve("tcp://db:1", { frame = "raw", agent = { proceed = function() end } })
      net:partition(flushed, db, { one_way = true })
      local client = flushed:connect():send("done")
      net:heal()
      client:expect("done"):send("again")
      net:advance "1s"
      client:expect("again")
    end)
  end)

  describe("a reset", function()
    it("is seen at both ends", function()
      local app, db = pair()
      local client = app:connect():send("a"):expect("<a>")
      assert.equal(1, net:reset(app, db))
      client:send("b"):expect(perilune.pattern "^no reply: ")
      client:send("c"):expect("<c>")
      assert.equal(1, db:counters().closed)
    end)

    it("reaches who waits for a reply", function()
      local app, db = pair(nil, { frame = "line", agent = { proceed = function() core.sleep "1s" return "late" end } })
      local client = app:connect():send("a"):expect_nothing()
      net:reset(app)
      client:expect(perilune.pattern "^no reply: .* ECONNRESET$")
      net:advance "1s"
      client:expect_nothing()
      assert.equal(db:counters().accepted, db:counters().closed)
    end)

    it("may take a share", function()
      local app = pair()
      for _ = 1, 100 do app:connect():send("a"):expect("<a>") end
      local count = net:reset(0.3)
      assert.is_true(count > 15 and count < 45, count)
      assert.equal(100 - count, app:counters().outgoing)
    end)
  end)

  describe("a stalled app", function()
    it("does nothing until it goes on, and then all that waits", function()
      local app, db = pair()
      local client = app:connect():send("a"):expect("<a>")
      net:stall(db)
      client:send("b")
      net:advance "3s"
      client:expect_nothing()
      assert.equal(1, db:counters().frames_in)
      net:resume(db)
      client:expect("<b>")
    end)

    it("is connected to, and does not answer", function()
      local app, db = pair { frame = "line", timeout = { connect = "1s", read = "2s" } }
      net:stall(db)
      local client = app:connect():send("a")
      net:advance "1999ms"
      client:expect_nothing()
      net:advance "1ms"
      client:expect(perilune.pattern "^no reply: .*ETIMEDOUT$")
      assert.equal(0, db:counters().accepted)
      net:resume(db)
      assert.equal(1, db:counters().accepted)
    end)

    it("finds its time-outs due when it goes on", function()
      local script = echo()
      script.timeout = { idle = "5s" }
      local app, db = pair(nil, script)
      app:connect():send("a"):expect("<a>")
      net:stall(db)
      net:advance "10s"
      assert.equal(0, db:counters().closed)
      net:resume(db)
      assert.equal(1, db:counters().closed)
    end)
  end)

  describe("an app that is killed", function()
    it("resets its connections, and its address refuses", function()
      local app, db = pair(nil, { frame = "line", agent = { proceed = function() core.sleep "1s" end } })
      local client, direct = app:connect():send("a"), db:connect()
      net:kill(db)
      client:expect(perilune.pattern "^no reply: .* ECONNRESET$")
      direct:expect_closed("reset"):expect_reset():send("x"):expect_nothing()
      client:send("b"):expect("no: db:1: connection refused ECONNREFUSED")
    end)

    it("says nothing any more, whatever its handlers do at their end", function()
      local witness = net:serve("tcp://witness:1", echo())
      local app, db = pair(nil, { frame = "line", agent = {
        proceed = function(_, line) return "<" .. line .. ">" end,
        closed = function(self)
          self.conn:send("goodbye")
          core.connect "tcp://witness:1"
        end,
      } })
      local client = app:connect():send("a"):expect("<a>")
      net:kill(db)
      assert.equal(0, witness:counters().accepted)
      client:send("b"):expect(perilune.pattern "^no")
    end)

    it("vanishes without a word, if it is to", function()
      local app, db = pair { frame = "line", timeout = { connect = "1s", read = "2s" } }
      local client, direct = app:connect():send("a"):expect("<a>"), db:connect()
      net:kill(db, { silent = true })
      assert.is_nil(direct:closed())
      client:send("b"):expect_nothing()
      net:advance "2s"
      client:expect(perilune.pattern "^no reply: .*ETIMEDOUT$"):send("c"):expect_nothing()
      net:advance "1s"
      client:expect(perilune.pattern "^no: .*ETIMEDOUT$")
    end)

    it("is told that it is known no more where it comes back", function()
      local app, db = pair()
      local client = app:connect():send("a"):expect("<a>")
      net:kill(db, { silent = true }):restart(db)
      client:send("b"):expect(perilune.pattern "^no reply: .*ECONNRESET$"):send("c"):expect("<c>")
    end)

    it("comes back at its address, with a state of its own", function()
      local app, db = pair(nil, counting_echo())
      local client = app:connect():send("a", "b"):expect("<a 1>", "<b 2>")
      net:kill(db)
      client:send("c"):expect(perilune.pattern "^no")
      net:restart(db)
      client:send("d"):expect("<d 1>")
      net:restart(db)
      client:send("e"):expect(perilune.pattern "^no"):send("f"):expect("<f 1>")
      assert.equal(1, db:counters().accepted)
    end)

    it("takes those along that it has connected to", function()
      local app, db = pair()
      app:connect():send("a"):expect("<a>")
      net:kill(app)
      assert.equal(1, db:counters().closed)
      net:restart(app)
      app:connect():send("b"):expect("<b>")
    end)

    it("or is closed ends, whatever it was doing", function()
      local app, db = pair()
      app:connect():send("a"):expect("<a>")
      net:stall(db)
      local ok, message = pcall(db.drain, db)
      assert.is_false(ok)
      has("drain: the app is stalled: net:resume(app) lets it go on", tostring(message))
      db:close()
      net:stall(app)
      app:dispose() -- as at the end of a test that has failed
      assert.equal(1, db:counters().closed)
    end)

    it("has no more to say where it was stalled", function()
      local app, db = pair()
      net:stall(db)
      local client = app:connect():send("a"):expect_nothing()
      net:kill(db)
      client:expect(perilune.pattern "^no reply: .* ECONNRESET$")
    end)
  end)

  describe("a failure tells what the app waits for:", function()
    local function failure(client)
      local ok, message = pcall(client.expect, client, "x")
      assert.is_false(ok)
      return tostring(message)
    end

    it("a connect, with its address, how long so far and until when", function()
      local app, db = pair { frame = "line", timeout = { connect = "5s" } }
      net:partition(app, db)
      local client = app:connect { name = "ann" }:send "a"
      net:advance "2s"
      has("ann (conn 1): open; its proceed() waits in perilune.connect: nobody has answered at tcp://db:1, "
        .. "for 2s so far, with a timer at 5s (it is 2s)", failure(client))
    end)

    it("a read, with the address of its connection", function()
      local app, db = pair(nil, { frame = "line", agent = { proceed = function() end } })
      net:link(app, db, { latency = "1s" })
      local client = app:connect():send "a"
      net:advance "3s"
      has("its proceed() waits in conn:read from tcp://db:1, for 1s so far", failure(client))
    end)

    it("a pool's reply, and what its tasks wait in", function()
      net:serve("tcp://db:1", { frame = "line", agent = { proceed = function() end } })
      local pool
      local app = net:app { listen = "tcp://127.0.0.1:9000", frame = "line", agent = { proceed = function()
        pool = pool or core.pool("tcp://db:1", { frame = "line", pipeline = true })
        core.all { function() return pool:request "a" end, function() core.sleep "10s" end }
      end } }
      local client = app:connect():send "a"
      net:advance "1s"
      local text = failure(client)
      has("its proceed() waits in a task, a channel", text)
      has("a task of it waits in pool:request: no reply has come from tcp://db:1, for 1s so far", text)
      has("a task of it waits in perilune.sleep, for 1s so far, with a timer at 10s (it is 1s)", text)
    end)
  end)

  it("says what to do where it is used after its end, or not ended", function()
    local function says(text, f, ...)
      local ok, message = pcall(f, ...)
      assert.is_false(ok)
      has(text, tostring(message))
    end
    local other = perilune.net()
    local app = other:app(asker())
    other:kill(app)
    says("the app is closed: net:kill has ended it, net:restart(app) brings it back", app.connect, app)
    other:restart(app)
    app:connect()
    has("or all of the net's with net:close()", app:left())
    other:close()
    says("the app is closed: net:close() has ended it", app.connect, app)
    for _, method in ipairs {
      "app", "serve", "advance", "link", "partition", "heal", "reset", "stall", "resume", "kill", "restart",
    } do
      says(method .. ": the net is closed: perilune.net() makes another one", other[method], other, "1s")
    end
    other:close()
    local kept = perilune.net()
    local one = kept:app(asker())
    one:dispose() -- as at the end of its test
    kept:dispose()
    says("the app is closed: it has ended with the test that opened it, as its net was not closed there: open both in "
      .. "before_each, and call net:close() in after_each", one.connect, one)
    says("advance: the net is closed: it has ended with the test that made it", kept.advance, kept, "1s")
  end)

  it("serves a list of addresses with one app, each of them once at a time", function()
    local one = net:serve({ "tcp://db:1", { "tcp://db:2", name = "two" } }, { frame = "line", agent = {
      proceed = function(self) return self.conn.listener end } })
    local app = net:app { listen = "tcp://127.0.0.1:9000", frame = "line", agent = { proceed = function(_, line)
      local conn = assert(core.connect(line, { frame = "line" }))
      conn:send "x"
      return conn:read()
    end } }
    app:connect():send("tcp://db:2"):expect("two"):send("tcp://db:1"):expect("tcp://db:1")
    local ok, message = pcall(net.serve, net, "tcp://db:2", echo())
    assert.is_false(ok)
    has('serve: "tcp://db:2" is served already', tostring(message))
    one:close()
    net:serve("tcp://db:2", echo())
    for _, address in ipairs { {}, 7, { 7 }, { "tcp://db:3", {} }, { db = "tcp://db:3" } } do
      ok, message = pcall(net.serve, net, address, echo())
      assert.is_false(ok)
      has('serve: an address such as "tcp://db:5432", or a list of them, is expected', tostring(message))
    end
  end)

  describe("the history", function()
    it("says of a refusal what was asked for", function()
      local app = pair()
      local other = net:app({ listen = "tcp://127.0.0.1:9001", frame = "line", limits = { connections = 1 },
        agent = { proceed = function(_, line)
          local _, message = core.connect(line)
          return message
        end } }, nil, { name = "other" })
      local client = other:connect():send("tcp://db:2", "unix:///tmp/nobody.sock")
      client:skip(2)
      has("#2  other ← db  refuses db:2: nobody in this test serves it", (net:history():gsub("#%d+", "#2")))
      has("refuses /tmp/nobody.sock: nobody in this test serves it", net:history())
      other:connect()
      has("a client ← other  refuses tcp://127.0.0.1:9001: limits.connections", net:history())
      net:link(app, other, { refuse = 1 })
    end)

    it("has a line for each event, with its time", function()
      local app, db = pair()
      net:link(app, db, { latency = "5ms" })
      local client = app:connect():send("a\1b")
      net:advance "50ms"
      client:expect("<a\1b>"):close()
      net:advance "50ms"
      net:kill(db)
      assert.equal([[
       0ms  db  is up
       0ms  web  is up
       0ms  #1  a client → web  connects
       0ms  #1  a client → web  "a\x01b\n"
       0ms  #2  web → db  connects
      10ms  #2  web ← db  accepts
      15ms  #2  web → db  "a\x01b\n"
      20ms  #2  web ← db  "<a\x01b>\n"
      20ms  #1  a client ← web  "<a\x01b>\n"
      50ms  #1  a client → web  end
      50ms  #1  a client ← web  end
      55ms  #2  web → db  end
     100ms  db  is killed]], net:history())
    end)

    it("shows datagrams", function()
      local app = net:app({ listen = "udp://127.0.0.1:9001", frame = "datagram", agent = {
        proceed = function(_, text) return text:upper() end } }, nil, { name = "dns" })
      app:connect():send("a", "b"):expect("A", "B")
      has('#1  a client → dns  "a"\n       0ms  #1  a client → dns  "b"\n', net:history())
      has('#1  a client ← dns  "B"', net:history())
    end)

    it("shows what clients of WebSockets say without its masks", function()
      local app = net:app({ listen = "ws://127.0.0.1:9001", agent = { proceed = function(_, text) return text end } },
        nil, { name = "chat" })
      app:connect():websocket("/"):send("hello"):expect "hello"
      has([[a client → chat  "\x81\x05hello"]], net:history())
      has([[a client ← chat  "\x81\x05hello"]], net:history())
      local asking = net:app({ listen = "tcp://127.0.0.1:9002", frame = "line", agent = { proceed = function(_, line)
        local other = assert(require("perilune").connect "ws://127.0.0.1:9001/")
        other:send(line)
        return (other:read())
      end } }, nil, { name = "asking" })
      asking:connect():send("hi"):expect "hi"
      has([[asking → chat  "\x81\x02hi"]], net:history())
    end)

    it("keeps its last lines", function()
      local app = pair()
      for _ = 1, 3000 do app:connect():send("a"):reset() end
      local history = net:history()
      local _, count = history:gsub("\n", "")
      assert.equal(5000, count)
      has("lines before these\n", history)
    end)

    it("is shown by a failure, with the seed", function()
      local client = pair():connect():send("a"):expect("<a>")
      local ok, message = pcall(client.expect, client, "<b>")
      assert.is_false(ok)
      has("the net, of seed 7 (perilune.net { seed = 7 })\n", tostring(message))
      has('#2  web → db  "a\\n"', tostring(message))
    end)
  end)

  describe("with the same seed", function()
    -- All kinds of faults, as they are drawn; returns the history.
    local function run(seed, work)
      local one = perilune.net { seed = seed }
      local db = one:serve("tcp://db:1", counting_echo(work))
      local script = asker { frame = "line", timeout = { connect = "1s", read = "1s" } }
      local apps = { one:app(script), one:serve("tcp://web:2", script) }
      local clients = {}
      local faults = {
        function(app) one:link(app, db, { latency = { "1ms", ("%dms"):format(one:random(50)) } }) end,
        function(app) one:link(app, db, { rate = 100 * one:random(20), refuse = 0.2, latency = "3ms" }) end,
        function(app) one:partition(app, db, { one_way = one:random(2) == 1 }) end,
        function() one:heal() end,
        function() one:reset(0.5) end,
        function() if not db.is_closed then one:stall(db) end end,
        function() one:resume(db) end,
        function() if not db.is_closed then one:kill(db, { silent = one:random(2) == 1 }) end end,
        function() one:restart(db) end,
      }
      for i = 1, 6 do clients[i] = apps[i % 2 + 1]:connect() end
      for _ = 1, 40 do
        for _ = 1, one:random(3) do clients[one:random(6)]:send("n" .. one:random(1000)) end
        if one:random(3) == 1 then faults[one:random(#faults)](apps[one:random(2)]) end
        one:advance(("%dms"):format(one:random(200)))
      end
      local history = one:history()
      one:close()
      return history
    end

    it("has the same history, byte for byte, and with another another", function()
      local seen = {}
      for seed = 1, memory.scaled(20, 5) do
        local history = run(seed)
        assert.equal(history, run(seed))
        assert.is_nil(seen[history])
        seen[history] = true
      end
    end)

    it("has the same history, however long its handlers compute", function()
      for seed = 1, 3 do assert.equal(run(seed), run(seed, 20000)) end
    end)

    -- Signatures of this kind have one of several lengths, and on a slow link that can be told. Two apps ask, so there
    -- are full handshakes after one that has handed out tickets.
    it("has the same history where there is TLS", function()
      local authority = pki.new()
      local certificate = authority:sign("server", { names = { "db" } })
      local function ask(seed)
        local one = perilune.net { seed = seed }
        local db = one:serve("tls://db:1", { frame = "line", tls = certificate, agent = echo().agent })
        local clients = {}
        for i = 1, 3 do
          local app = one:app { listen = "tls://127.0.0.1:900" .. i, frame = "line", tls = certificate, agent = {
            proceed = function(_, line)
              local conn = assert(core.connect("tls://db:1", { frame = "line", tls = { verify = false } }))
              conn:send(line)
              return conn:read()
            end } }
          one:link(app, db, { rate = 400, latency = { "1ms", "9ms" } })
          clients[i] = app:connect()
        end
        for i = 1, 6 do
          clients[(i - 1) % 3 + 1]:send("x")
          one:advance "5s"
        end
        one:advance "60s"
        for _, client in ipairs(clients) do client:expect("<x>", "<x>") end
        local history = one:history()
        one:close()
        return history
      end
      local first = ask(5)
      for _ = 1, memory.scaled(10, 3) do assert.equal(first, ask(5)) end
      authority:remove()
    end)

    it("draws the same numbers", function()
      local function draw(seed)
        local one, numbers = perilune.net { seed = seed }, {}
        for i = 1, 20 do numbers[i] = one:random(6) end
        one:close()
        return table.concat(numbers, " ")
      end
      assert.equal(draw(3), draw(3))
      assert.are_not.equal(draw(3), draw(4))
      assert.equal(1, net:random(1))
      for _ = 1, 100 do
        local n = net:random(6)
        assert.is_true(n >= 1 and n <= 6 and n % 1 == 0)
      end
    end)

    it("draws the same numbers in its apps", function()
      local function draw(seed)
        local one = perilune.net { seed = seed }
        local app = one:app { listen = "tcp://127.0.0.1:9000", frame = "line", agent = { proceed = function()
          return tostring(math.random(1e9))
        end } }
        local client = app:connect():send("a", "b")
        local text = client:receive() .. client:receive()
        one:close()
        return text
      end
      assert.equal(draw(3), draw(3))
      assert.are_not.equal(draw(3), draw(4))
    end)
  end)

  it("draws from a range, and refuses what is none", function()
    local other = perilune.net { seed = 3 }
    for _ = 1, 200 do
      local n = other:random(5, 7)
      assert.is_true(n >= 5 and n <= 7)
    end
    assert.equal(4, other:random(4, 4))
    local ok, message = pcall(other.random, other, 6, 1)
    assert.is_false(ok)
    assert.truthy(tostring(message):find("the second not less than the first", 1, true))
    other:close()
  end)

  it("serves an address once at a time", function()
    local other = perilune.net()
    local one = other:serve("tcp://db:1", { frame = "line", agent = { proceed = function(_, line) return line end } })
    local ok, message = pcall(other.serve, other, "tcp://db:1", echo())
    assert.is_false(ok)
    assert.truthy(tostring(message):find("is served already", 1, true))
    one:close()
    other:serve("tcp://db:1", { frame = "line", agent = { proceed = function() end } })
    other:close()
  end)

  it("takes latencies as far apart as there are", function()
    local other = perilune.net()
    local db = other:serve("tcp://db:1", { frame = "line", agent = { proceed = function(_, line) return line end } })
    local app = other:app { listen = "tcp://127.0.0.1:9000", frame = "line", agent = { proceed = function() end } }
    other:link(app, db, { latency = { "0ms", 4294967.295 } })
    other:close()
  end)
end)
