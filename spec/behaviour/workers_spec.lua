--- Several workers of an app in memory: what each has for itself, what they share, and in which order they do things.
local core = require "perilune"
local perilune = require "perilune.test"

local has = require "has"
local pki = require "spec.support.pki"

local function with(settings, more)
  for key, value in pairs(more or {}) do settings[key] = value end
  return settings
end

-- Answers each line with its worker and how many lines that has had.
local function counting(more)
  local me, lines = nil, 0
  return with({
    listen = "tcp://127.0.0.1:9000", frame = "line",
    setup = function(app)
      me = app.worker
      core.log("info", ("worker %d of %d"):format(app.worker, app.workers))
    end,
    teardown = function(app) core.log("info", ("worker %d ends"):format(app.worker)) end,
    agent = { proceed = function(_, line)
      lines = lines + 1
      if line == "fail" then error "as told" end
      if line == "wait" then core.sleep "1s" end
      return ("%s %d.%d"):format(line, me, lines)
    end },
  }, more)
end

local function said(app)
  local texts = {}
  for i, entry in ipairs(app:log()) do texts[i] = entry.message end
  return texts
end

local function workers_of(clients)
  local numbers = {}
  for i, client in ipairs(clients) do numbers[i] = client:worker() end
  return numbers
end

describe("workers in memory", function()
  local app

  local function open(n, script, overrides)
    app = perilune.app(script or counting(), overrides, { workers = n })
    return app
  end

  local function connect(n, options)
    local clients = {}
    for i = 1, n do clients[i] = app:connect(options) end
    return clients
  end

  after_each(function()
    if app then app:close() end
    app = nil
  end)

  local function says(text, f, ...)
    local ok, message = pcall(f, ...)
    assert.is_false(ok)
    has(text, tostring(message))
  end

  describe("begin", function()
    it("one by one, each with its setup and, when its generation ends, its teardown", function()
      open(2):reload()
      assert.same({ "worker 0 of 2", "worker 1 of 2", "worker 0 of 2", "worker 1 of 2", "worker 0 ends",
        "worker 1 ends" }, said(app))
    end)

    it("as one where nobody asks for more, whatever the script says", function()
      app = perilune.app(counting { workers = 4 })
      assert.same({ "worker 0 of 1" }, said(app))
      assert.equal(0, app:connect():worker())
    end)

    it("as many as the overrides say, which are settings", function()
      app = perilune.app(counting(), { workers = 2 })
      assert.same({ "worker 0 of 2", "worker 1 of 2" }, said(app))
    end)

    it("all or none: a setup that fails in the second one ends the first", function()
      says("not here", perilune.app, counting {
        setup = function(worker) if worker.worker == 1 then error "not here" end end,
      }, nil, { workers = 2 })
    end)

    it("not in numbers that there cannot be", function()
      local function opened(workers, overrides)
        return function() perilune.app(counting(), overrides, { workers = workers }) end
      end
      says("app: workers: a whole number from 1 to 256 is expected, got 0", opened(0))
      says("app: workers: a whole number from 1 to 256 is expected, got 1.5", opened(1.5))
      says("app: workers: a whole number from 1 to 256 is expected, got 257", opened(257))
      says('app: workers: a whole number from 1 to 256 is expected, got "2"', opened "2")
      says("it is both an option and among the overrides", opened(2, { workers = 3 }))
      says("workers: expects a whole number from 1 to 256, got 0", opened(nil, { workers = 0 }))
    end)
  end)

  describe("are dealt clients", function()
    it("so that each has as many as the others", function()
      open(3)
      local clients = connect(6)
      assert.same({ 0, 1, 2, 0, 1, 2 }, workers_of(clients))
      clients[2]:close()
      clients[5]:close()
      assert.same({ 1, 1, 2 }, workers_of(connect(3)))
    end)

    it("that a specification wants to be theirs", function()
      open(3)
      assert.same({ 2, 2 }, workers_of(connect(2, { worker = 2 })))
      assert.same({ 0, 1, 0, 1, 1 }, workers_of(connect(5)))
    end)

    it("and not those that do not exist", function()
      open(2)
      says("connect: worker: there is no worker 2: the app has 2, from 0 on", app.connect, app, { worker = 2 })
      says('connect: worker: there is no worker "1"', app.connect, app, { worker = "1" })
      app:close()
      app = perilune.app(counting())
      says("connect: worker: there is no worker 1: the app has one, worker 0: the option `workers` of perilune.app "
        .. "gives it more", app.connect, app, { worker = 1 })
    end)

    it("whose connections have ids of all workers, and are named with theirs in failures", function()
      open(2)
      local clients = connect(3)
      for i, client in ipairs(clients) do has(("conn %d, worker %d)"):format(i, (i - 1) % 2), client:transcript()) end
      has("(conn 2, worker 1)", app:left())
    end)
  end)

  describe("serve", function()
    local PKI, certificate

    setup(function()
      PKI = pki.new()
      certificate = PKI:sign("server", { names = { "localhost" } })
    end)
    teardown(function() PKI:remove() end)

    local FRONTS = {
      ["tcp://"] = { listen = "tcp://127.0.0.1:9000" },
      ["unix://"] = { listen = "unix:///tmp/workers.sock" },
      ["udp://"] = { listen = "udp://127.0.0.1:9000", frame = "datagram" },
      ["tls://"] = { listen = "tls://127.0.0.1:9000" },
      ["a proxy's clients"] = { listen = "tcp://127.0.0.1:9000", proxy = true, trust = { "127.0.0.1" } },
    }
    for name, settings in pairs(FRONTS) do
      it(name .. ", each its own", function()
        if name == "tls://" then settings.tls = certificate end
        open(3, counting(settings))
        for round = 1, 2 do
          for worker = 0, 2 do
            local client = app:connect { worker = worker, proxy = settings.proxy and { client = "10.0.0.7:1" } }
            client:send("a"):expect(("a %d.%d"):format(worker, 2 * round - 1))
            client:send("b"):expect(("b %d.%d"):format(worker, 2 * round))
          end
        end
        assert.equal(6, app:counters().accepted)
        assert.equal(4, app:counters(2).frames_in)
      end)
    end
  end)

  it("have their own Lua values", function()
    open(2)
    local a, b, c = unpack(connect(3))
    a:send("a"):expect("a 0.1")
    b:send("b"):expect("b 1.1")
    c:send("c"):expect("c 0.2")
  end)

  it("have codecs of their own, in Lua as well", function()
    local made = 0
    open(2, counting {
      frame = {
        decode = function(bytes, at)
          made = made + 1
          return bytes:byte(at) - 48 + made * 10, at + 1
        end,
        encode = function(value) return value end,
      },
      agent = { proceed = function(_, value) return tostring(value % 10) end },
    })
    local a, b = app:connect(), app:connect()
    b:send("1"):expect(21) -- decoded by the app, and what came back by its client
    a:send("2"):expect(22)
    b:send("3"):expect(43)
  end)

  it("have their own timers, which are due together", function()
    open(2, counting { setup = function(worker)
      local n = 0
      worker:every("1s", function()
        n = n + 1
        core.log("info", ("%d.%d"):format(worker.worker, n))
      end)
    end })
    app:advance "2s"
    assert.same({ "0.1", "1.1", "0.2", "1.2" }, said(app))
    assert.equal(1000, app:log()[2].at_ms)
  end)

  it("have one clock: what a handler spends has passed for all of them", function()
    open(2, counting {
      setup = function(worker)
        worker:after("100ms", function() core.log("info", "timer " .. worker.worker) end)
      end,
      agent = { proceed = function()
        perilune.spend "200ms"
        return tostring(core.now() >= 0.2)
      end },
    })
    app:connect({ worker = 1 }):send("x"):expect("true")
    assert.equal(0.2, app:now())
    local entries = app:log()
    assert.same({ "timer 1", "timer 0" }, said(app)) -- the one that has spent it knows first
    assert.same({ 200, 200 }, { entries[1].at_ms, entries[2].at_ms })
  end)

  it("have handlers that take their time, in each of them", function()
    app = perilune.app(counting(), nil, { workers = 2, takes = { proceed = "10ms" } })
    connect(1, { worker = 1 })[1]:send("a"):expect("a 1.1")
    assert.equal(0.01, app:now())
    connect(1, { worker = 0 })[1]:send("a", "b"):expect("a 0.1", "b 0.2")
    assert.equal(0.03, app:now())
  end)

  it("go on beside one whose handlers wait, or whose connection fails", function()
    open(2)
    local a, b, c = unpack(connect(3))
    a:send("wait")
    b:send("b"):expect("b 1.1")
    c:send("fail"):expect_closed "error"
    assert.equal(0, app:faults()[1].worker)
    b:send("fail"):expect_closed "error"
    assert.equal(1, app:faults()[2].worker)
    app:advance "1s"
    a:expect("wait 0.2")
  end)

  it("have their own memory: one that has used it up leaves the others theirs", function()
    local kept = {}
    open(2, counting { limits = { memory = "4m" }, agent = { proceed = function(_, line)
      for i = 1, tonumber(line) do kept[i] = ("x"):rep(1000) .. i end
      return tostring(#kept)
    end } })
    local a, b = app:connect(), app:connect()
    b:send("100"):expect("100")
    a:send("100000"):expect_closed "memory"
    b:send("200"):expect("200")
  end)

  it("tell what each counts and has", function()
    open(2)
    local a, b, c = unpack(connect(3))
    a:send("a", "a")
    b:send("b")
    c:send("wait")
    assert.equal(3, app:counters().accepted)
    assert.equal(2, app:counters(0).accepted)
    assert.equal(3, app:counters(0).frames_in)
    assert.equal(1, app:counters(1).frames_in)
    assert.equal(4, app:counters().frames_in)
    assert.equal(2, app:memory().generations)
    assert.equal(1, app:memory(1).generations)
    assert.is_true(app:memory().vm > app:memory(1).vm)
    says("counters: there is no worker 2: the app has 2, from 0 on", app.counters, app, 2)
    says("memory: there is no worker -1", app.memory, app, -1)
    app:advance "1s"
  end)

  describe("share", function()
    it("limits.connections", function()
      open(2, nil, { limits = { connections = 3 } })
      local clients = connect(4)
      assert.same({ 0, 1, 0 }, workers_of(clients))
      clients[4]:expect_closed "limit"
      assert.is_nil(clients[4]:worker())
      assert.equal(0, app:counters(0).closed + app:counters(1).closed)
      assert.equal(1, app:counters().closed)
      clients[2]:close()
      assert.equal(1, app:connect():worker())
    end)

    it("limits.per_ip", function()
      open(2, nil, { limits = { per_ip = 2 } })
      local clients = connect(3, { from = "10.0.0.1:1" })
      clients[3]:expect_closed "limit"
      assert.is_nil(app:connect({ from = "10.0.0.2:1" }):closed())
      clients[1]:close()
      assert.is_nil(app:connect({ from = "10.0.0.1:1" }):closed())
    end)

    it("limits.per_ip of clients that come through a proxy", function()
      open(2, counting { proxy = true, trust = { "127.0.0.1" } }, { limits = { per_ip = 1 } })
      local clients = connect(2, { proxy = { client = "10.0.0.1:1" } })
      assert.same({ 0, 1 }, workers_of(clients))
      clients[2]:expect_closed "limit"
      clients[1]:close()
      app:connect({ proxy = { client = "10.0.0.1:2" } }):send("a"):expect(perilune.pattern "^a ")
    end)

    it("limits.buffers, in equal parts", function()
      open(2, { listen = "tcp://127.0.0.1:9000", frame = { "line", max = "16k" }, agent = { proceed = function(_, line)
        return line
      end } }, { limits = { buffers = "4m" } })
      local clients = connect(160)
      for _, client in ipairs(clients) do client:send_raw(("x"):rep(16000)) end -- begun, and kept
      assert.equal(app:memory(0).buffers, app:memory(1).buffers)
      assert.equal(app:memory().buffers, app:memory(0).buffers * 2)
      assert.is_true(app:memory(0).buffers <= 2 * 2 ^ 20)
    end)

    it("the `total` of a pool", function()
      local net = perilune.net()
      finally(function() net:close() end)
      local db = net:serve("tcp://db:1", { frame = "line", agent = { proceed = function(_, line)
        core.sleep "1s"
        return line
      end } })
      local pool
      local web = net:app({ listen = "tcp://127.0.0.1:9000", frame = "line",
        setup = function() pool = core.pool("tcp://db:1", { frame = "line", total = 3 }) end,
        agent = { proceed = function(_, line) return (pool:request(line)) end } }, nil, { workers = 2 })
      for i = 1, 8 do web:connect():send("x" .. i) end
      assert.equal(3, db:counters().accepted)
      assert.equal(2, web:counters(0).connected)
      assert.equal(1, web:counters(1).connected)
      net:advance "4s"
    end)

    it("dictionaries, also with the next generation", function()
      local function visits()
        local dictionary
        return counting { shared = { visits = "64k" },
          setup = function() dictionary = core.shared "visits" end,
          agent = { proceed = function(_, name) return ("%s %d"):format(name, dictionary:incr(name)) end } }
      end
      open(2, visits())
      local a, b = app:connect(), app:connect()
      a:send("ann"):expect("ann 1")
      b:send("ann"):expect("ann 2")
      app:reload(visits())
      app:connect({ worker = 1 }):send("ann"):expect("ann 3")
      a:send("ann"):expect("ann 4")
    end)

    it("no `total` that is too little for all of them", function()
      says("total: 2 for 3 workers: each needs a connection at least", open, 3, counting {
        setup = function() core.pool("tcp://db:1", { total = 2 }) end,
      })
    end)
  end)

  it("have connections out of their own, limits.outgoing of each", function()
    local net = perilune.net()
    finally(function() net:close() end)
    net:serve("tcp://db:1", { frame = "line", agent = { proceed = function(_, line) return line:upper() end } })
    local web = net:app({ listen = "tcp://127.0.0.1:9000", frame = "line", limits = { outgoing = 1 },
      agent = { proceed = function(self, line)
        local db, _, code = core.connect("tcp://db:1", { frame = "line" })
        if not db then return "no: " .. code end
        self.db = db
        db:send(line)
        return ("%s %.0f"):format(db:read(), db.id)
      end } }, nil, { workers = 2 })
    local first = 2 ^ 45 + 2 ^ 36 + 1
    local a, b = web:connect(), web:connect()
    a:send("a"):expect(("A %.0f"):format(first))
    b:send("b"):expect(("B %.0f"):format(first + 2 ^ 37))
    a:send("a"):expect(perilune.pattern "^no: ")
    assert.equal(2, web:counters().outgoing)
    assert.equal(1, web:counters(1).outgoing)
  end)

  describe("fail on purpose", function()
    it("at the n-th call, whichever worker's it is", function()
      open(2)
      local a, b = app:connect(), app:connect()
      app:fail("proceed", 3)
      a:send("a"):expect("a 0.1")
      b:send("b"):expect("b 1.1")
      a:send("a"):expect_closed "error"
      b:send("b"):expect("b 1.2")
      has("injected by app:fail", app:faults()[1].error)
    end)

    it("at the n-th call of one of them", function()
      open(2)
      local a, b = app:connect(), app:connect()
      app:fail("proceed", 2, 1)
      a:send("a", "a", "a"):expect("a 0.1", "a 0.2", "a 0.3")
      b:send("b"):expect("b 1.1"):send("b"):expect_closed "error"
      says("fail: there is no worker 5", app.fail, app, "proceed", 1, 5)
    end)

    it("in no worker while there is no memory", function()
      open(2)
      local a, b = app:connect(), app:connect()
      app:no_memory()
      a:send_raw("begun"):expect_closed "memory"
      b:send_raw("begun"):expect_closed "memory"
      app:no_memory(false)
      app:connect():send_raw("be"):send_raw("gun\n"):expect("begun 0.1")
    end)
  end)

  describe("are reloaded", function()
    it("all at once: new clients get the new script, whichever worker is theirs", function()
      open(2)
      local a, b = app:connect(), app:connect()
      app:reload(counting { agent = { proceed = function(_, line) return "new " .. line end } })
      assert.equal(4, app:memory().generations)
      a:send("a"):expect("a 0.1")
      b:send("b"):expect("b 1.1")
      app:connect({ worker = 0 }):send("c"):expect("new c")
      app:connect({ worker = 1 }):send("d"):expect("new d")
      a:close()
      assert.equal(1, app:memory(0).generations)
      assert.equal(2, app:memory(1).generations)
    end)

    it("and connections migrate, each in its worker", function()
      local function keeping(name)
        local me
        return { listen = "tcp://127.0.0.1:9000", frame = "line", reload = "migrate",
          setup = function(worker) me = worker.worker end,
          agent = {
            proceed = function(self, line)
              self.last = (self.last or "") .. line
              return ("%s %d %s"):format(name, me, self.last)
            end,
            snapshot = function(self) return self.last end,
            upgrade = function(self, last) self.last = last end,
          } }
      end
      open(2, keeping "one")
      local a, b = app:connect():send("a"):expect("one 0 a"), app:connect():send("b"):expect("one 1 b")
      app:reload(keeping "two")
      a:send("c"):expect("two 0 ac")
      b:send("d"):expect("two 1 bd")
      assert.equal(2, app:memory().generations)
    end)

    it("or not at all, where it fails for one", function()
      open(2)
      says("not here", app.reload, app, counting {
        setup = function(worker) if worker.worker == 1 then error "not here" end end,
      })
      assert.equal(2, app:memory().generations)
      app:connect():send("a"):expect("a 0.1")
      app:connect():send("b"):expect("b 1.1")
    end)

    it("but stay as many as they are", function()
      open(2)
      app:reload(nil, { timeout = { idle = "1s" } })
      assert.equal(1, app:connect({ worker = 1 }):worker())
      says("workers: a reload keeps their number, which is 2: another takes a restart", app.reload, app, nil,
        { workers = 3 })
    end)
  end)

  describe("stop", function()
    it("together, and each client is asked", function()
      open(2, counting { agent = { drain = function(self) self.conn:send "bye" end, proceed = function() end } })
      local clients = connect(4)
      app:drain()
      for _, client in ipairs(clients) do client:expect("bye"):expect_closed "drain" end
      says("the app stops", app.connect, app)
    end)

    it("after a while, where handlers wait", function()
      open(2)
      local a, b = app:connect():send("wait"), app:connect()
      app:begin_drain()
      b:expect_closed "drain"
      assert.is_nil(a:closed())
      app:advance "1s"
      a:expect("wait 0.1"):expect_closed "drain"
    end)
  end)

  describe("that are stalled", function()
    it("do nothing while the others go on, and then what has become due", function()
      open(2, nil, { timeout = { idle = "3s" } })
      local a, b = app:connect(), app:connect()
      app:stall(1)
      a:send("a"):expect("a 0.1")
      b:send("b"):expect_nothing()
      app:advance "2s"
      a:send("a"):expect("a 0.2")
      app:advance "2s"
      assert.is_nil(b:closed())
      app:resume(1)
      b:expect("b 1.1")
      app:advance "3s"
      a:expect_closed "idle_timeout"
      b:expect_closed "idle_timeout"
    end)

    it("get no clients while another one runs, and keep waiting whom they are given", function()
      open(2)
      app:stall(0)
      assert.same({ 1, 1, 1 }, workers_of(connect(3)))
      local mine = app:connect({ worker = 0 }):send("x"):expect_nothing()
      has("waits for its worker, which is stalled", app:left())
      app:stall(1)
      assert.equal(0, app:connect():worker())
      app:resume(0)
      mine:expect("x 0.1")
      assert.equal(5, app:counters().accepted)
    end)

    it("and clients that leave meanwhile are seen to", function()
      open(2, nil, { limits = { connections = 2 } })
      app:stall(0)
      local quick, rude = app:connect { worker = 0 }, app:connect({ worker = 0 })
      quick:close()
      rude:reset()
      app:connect():expect_closed "limit"
      app:resume(0)
      quick:expect_closed "peer"
      rude:expect_closed "reset"
      assert.is_nil(app:connect():closed())
    end)

    it("hear nothing of what they have connected to", function()
      local net = perilune.net()
      finally(function() net:close() end)
      net:serve("tcp://db:1", { frame = "line", agent = { proceed = function(_, line) return line end } })
      local web = net:app({ listen = "tcp://127.0.0.1:9000", frame = "line", agent = { proceed = function(_, line)
        core.sleep "10ms"
        local db = core.connect("tcp://db:1", { frame = "line" })
        db:send(line)
        return db:read()
      end } }, nil, { workers = 2, name = "web" })
      local a, b = web:connect():send("a"), web:connect():send("b")
      web:stall(1)
      net:advance "1s"
      a:expect("a")
      b:expect_nothing()
      web:resume(1)
      b:expect("b")
      has("web  worker 1 stalls", net:history())
      has("web  worker 1 goes on", net:history())
    end)

    it("let go of whom they have been given, when their app is ended by force", function()
      open(2)
      app:stall(1)
      app:connect({ worker = 1 }):send("x")
      app:dispose()
      assert.is_true(app.is_closed)
    end)

    it("cannot be reloaded or drained, and closing resumes them", function()
      open(2)
      app:stall(1)
      says("reload: worker 1 is stalled: app:resume(1) lets it go on", app.reload, app)
      says("drain: worker 1 is stalled", app.drain, app)
      says("begin_drain: worker 1 is stalled", app.begin_drain, app)
      says("stall: there is no worker 2", app.stall, app, 2)
      says("resume: there is no worker nil", app.resume, app)
      local client = app:connect { worker = 1 }
      app:close()
      client:expect_closed "peer"
    end)
  end)

  describe("with udp://", function()
    local function flows(n)
      local me
      return open(n, { listen = "udp://127.0.0.1:0", setup = function(worker) me = worker.worker end,
        agent = { proceed = function(self, datagram)
          self.n = (self.n or 0) + 1
          return ("%s %d.%d"):format(datagram, me, self.n)
        end } })
    end

    it("are led to by the peer's address, as the kernel does it", function()
      flows(4)
      local function worker_of(from) return app:connect({ from = from }):send("x"):worker() end
      local seen = {}
      for port = 5060, 5120 do
        local worker = worker_of("10.0.0.7:" .. port)
        assert.equal(worker, worker_of("10.0.0.7:" .. port))
        seen[worker] = true
      end
      assert.same({ [0] = true, true, true, true }, seen)
    end)

    it("keep their flows, one after the other", function()
      flows(2)
      local client = app:connect { worker = 1 }
      assert.equal(1, client:worker())
      client:send("a", "b"):expect("a 1.1", "b 1.2")
      app:advance "30s"
      client:expect_closed "idle_timeout"
      client:send("c"):expect("c 1.1")
    end)

    it("hear while they are stalled what is sent to them, and answer then", function()
      flows(2)
      app:stall(1)
      local client = app:connect({ worker = 1 }):send("a", "b"):expect_nothing()
      app:resume(1)
      client:expect("a 1.1", "b 1.2")
    end)
  end)

  describe("in a net", function()
    -- What happens in it, by its seed; each worker draws its own numbers.
    local function history(seed)
      local net = perilune.net { seed = seed }
      local pool
      local db = net:serve("tcp://db:1", { frame = "line", agent = { proceed = function(_, line)
        core.sleep(math.random(20) / 1000)
        return "<" .. line .. ">"
      end } }, { name = "db", workers = 2 })
      local web = net:app({ listen = "tcp://127.0.0.1:9000", frame = "line",
        setup = function() pool = core.pool("tcp://db:1", { frame = "line", size = 2 }) end,
        agent = { proceed = function(_, line)
          return pool:request(line .. math.random(1000)) or "none"
        end } }, nil, { name = "web", workers = 3 })
      net:link(web, db, { latency = { "1ms", "5ms" }, refuse = 0.05 })
      local clients = {}
      for i = 1, 6 do clients[i] = web:connect() end
      for _ = 1, 30 do
        local what = net:random(8)
        if what == 1 then net:reset(0.3) end
        if what == 2 then web:stall(net:random(0, 2)) end
        if what == 3 then for worker = 0, 2 do web:resume(worker) end end
        if what == 4 then net:restart(db) end
        if what == 5 and not next(web.stalled) then web:reload() end
        clients[net:random(6)]:send("x")
        clients[net:random(6)]:send("y")
        net:advance(net:random(20) / 1000)
      end
      net:close()
      return net:history()
    end

    it("do the same for the same seed, and something else for another", function()
      for seed = 1, 5 do
        local first = history(seed)
        assert.equal(first, history(seed))
        assert.are_not.equal(first, history(seed + 100))
      end
    end)

    it("have their turns in an order that the seed draws", function()
      local function order(seed)
        local net = perilune.net { seed = seed }
        local one = net:app(counting { setup = function(worker)
          worker:every("1s", function() core.log("info", tostring(worker.worker)) end)
        end }, nil, { workers = 4 })
        net:advance "20s"
        local text = table.concat(said(one))
        net:close()
        return text
      end
      local first = order(7)
      assert.equal(80, #first)
      assert.equal(first, order(7))
      assert.are_not.equal(first, order(8))
      for i = 1, 80, 4 do -- each has one turn a second
        for worker = 0, 3 do has(tostring(worker), first:sub(i, i + 3)) end
      end
    end)

    it("are named in its history, where it is known whose connection it is", function()
      local net = perilune.net { seed = 3 }
      finally(function() net:close() end)
      net:serve("tcp://db:1", { frame = "line", agent = { proceed = function(_, line) return line end } },
        { name = "db", workers = 2 })
      local web = net:app({ listen = "tcp://127.0.0.1:9000", frame = "line", agent = { proceed = function(_, line)
        local db = core.connect("tcp://db:1", { frame = "line" })
        db:send(line)
        return db:read()
      end } }, nil, { name = "web", workers = 2 })
      web:connect({ worker = 1 }):send("a"):expect("a")
      assert.equal([[
       0ms  db  is up
       0ms  web  is up
       0ms  #1  a client → web[1]  connects
       0ms  #1  a client → web[1]  "a\n"
       0ms  #2  web[1] → db  connects
       0ms  #2  web[1] ← db[0]  accepts
       0ms  #2  web[1] → db[0]  "a\n"
       0ms  #2  web[1] ← db[0]  "a\n"
       0ms  #1  a client ← web[1]  "a\n"]], net:history())
    end)

    it("have flows of udp:// between them, each with its worker at either end", function()
      local net = perilune.net { seed = 3 }
      finally(function() net:close() end)
      local me
      local db = net:serve("udp://db:1", { setup = function(worker) me = worker.worker end,
        agent = { proceed = function(_, datagram) return ("%s %d"):format(datagram, me) end },
      }, { name = "db", workers = 2 })
      local web = net:app({ listen = "tcp://127.0.0.1:9000", frame = "line", agent = {
        opened = function(self) self.db = core.connect "udp://db:1" end,
        proceed = function(self, line)
          self.db:send(line)
          return self.db:read() or "none"
        end,
      } }, nil, { name = "web", workers = 2 })
      local clients, seen = {}, {}
      for i = 1, 12 do
        clients[i] = web:connect():send "a"
        seen[i] = clients[i]:receive()
        clients[i]:send("a"):expect(seen[i])
      end
      for worker = 0, 1 do has("a " .. worker, table.concat(seen, " ")) end
      db:stall(1)
      for i, client in ipairs(clients) do
        client:send "b"
        if seen[i] == "a 1" then client:expect_nothing() else client:expect("b" .. seen[i]:sub(2)) end
      end
      db:resume(1)
      web:stall(0)
      for i, client in ipairs(clients) do
        if seen[i] == "a 1" then client:expect("b 1") end
        client:send "c"
        if client:worker() == 0 then client:expect_nothing() else client:expect("c" .. seen[i]:sub(2)) end
      end
      web:resume(0)
      assert.equal(0, db:counters().lost_datagrams + web:counters().lost_datagrams)
    end)

    it("die and come back together", function()
      local net = perilune.net()
      finally(function() net:close() end)
      local one = net:app(counting(), nil, { workers = 2 })
      local a, b = one:connect(), one:connect()
      net:kill(one)
      a:expect_reset()
      b:expect_reset()
      assert.equal(1, b:worker())
      net:restart(one)
      assert.same({ "worker 0 of 2", "worker 1 of 2" }, said(one))
      assert.same({ 0, 1 }, workers_of { one:connect(), one:connect() })
      net:stall(one)
      says("connect: the app is stalled", one.connect, one)
      net:resume(one)
    end)
  end)
end)
