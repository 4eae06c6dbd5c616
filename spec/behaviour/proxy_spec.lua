--- Listeners with a proxy in front, which says who the client is.
local has = require "spec.support.has"
local memory = require "spec.support.memory"
local perilune = require "perilune.test"
local proxy = require "spec.support.proxy"

local V4 = proxy.GOOD["v1, IPv4"].bytes

-- Says whose a line is.
local Agent = { proceed = function(self, line)
  if line == "quit" then return "bye", "close" end
  return self.conn.peer .. " " .. line
end }

local function start(settings)
  local all = { proxy = true, trust = { "10.0.0.0/8", "127.0.0.1" } }
  for key, value in pairs(settings or {}) do all[key] = value end
  return memory.lines(Agent, all)
end

local FROM = { from = "10.0.0.1:999" }

local function refused(app)
  local entries = app:log "connection refused"
  assert.equal(1, #entries)
  return entries[1]
end

describe("a PROXY header", function()
  after_each(memory.finish)

  for name, one in pairs(proxy.GOOD) do
    it(name .. ": the client is who it says, however it comes", function()
      local client = one.client ~= "" and one.client or "10.0.0.1:999"
      local app = start()
      app:connect(FROM):send_raw(one.bytes .. "hello\n"):expect(client .. " hello")
      local split = app:connect(FROM)
      for byte in (one.bytes .. "hello\nyou\n"):gmatch "." do split:send_raw(byte) end
      split:expect(client .. " hello", client .. " you"):send("quit"):expect("bye"):expect_closed("agent")
      app:connect { from = "10.0.0.1:999", read_max = 7, write_max = 3 }:send_raw(one.bytes .. "hello\n")
        :expect(client .. " hello")
    end)
  end

  it("is followed by bytes that stay, wherever it is cut", function()
    for cut = 1, #V4 + 8 do
      local app, bytes = start(), V4 .. "one\ntwo\n"
      local client = app:connect(FROM):send_raw(bytes:sub(1, cut)):send_raw(bytes:sub(cut + 1))
      client:expect("203.0.113.7:5060 one", "203.0.113.7:5060 two"):half_close()
      client:expect_closed("peer")
      assert.same({ 2, 8 }, { app:counters().frames_in, app:counters().bytes_in })
      app:close()
    end
  end)

  it("may be all that comes before the end", function()
    local app = start()
    app:connect(FROM):send_raw(V4):half_close():expect_closed("peer")
    app:connect(FROM):send_raw(V4 .. "last\n"):half_close():expect("203.0.113.7:5060 last"):expect_closed("peer")
  end)

  it("and what came with it are taken though the client is gone", function()
    local app = start()
    app:connect(FROM):send_raw(V4 .. "one\ntwo\n"):reset():expect_closed("reset")
    assert.equal(2, app:counters().frames_in)
  end)

  for name, one in pairs(proxy.BAD) do
    it("that is none ends the connection: " .. name, function()
      local app = start()
      app:connect(FROM):send_raw(one.bytes):expect_nothing():expect_closed("proxy")
      local entry = refused(app)
      assert.same({ "warn", "proxy", "10.0.0.1:999", "tcp://127.0.0.1:0" },
        { entry.level, entry.reason, entry.peer, entry.listener })
      has(one.error, entry.error)
      assert.same({ 1, 1, 0 }, { app:counters().accepted, app:counters().closed, app:counters().frames_in })
    end)
  end

  it("that ends too early is none", function()
    local app = start()
    app:connect(FROM):send_raw(V4:sub(1, -2)):half_close():expect_closed("proxy")
    has("ends within it", refused(app).error)
  end)

  it("is not missed of who only looks whether somebody is there", function()
    local app = start()
    app:connect(FROM):half_close():expect_closed("peer")
    app:connect(FROM):close():expect_closed("peer")
    assert.same({}, app:log "connection refused")
  end)

  it("must have come within timeout.handshake", function()
    local app = start { timeout = { handshake = "3s", idle = "1s" } }
    local slow, late = app:connect(FROM), app:connect(FROM)
    slow:send_raw(V4:sub(1, 1))
    app:advance "1s"
    slow:send_raw(V4:sub(2, -2))
    app:advance "1999ms"
    assert.is_nil(slow:closed())
    late:send_raw(V4):send("hello"):expect("203.0.113.7:5060 hello")
    app:advance "1ms"
    slow:expect_closed("idle_timeout")
    assert.is_nil(late:closed())
    app:advance "999ms"
    late:expect_closed("idle_timeout")
  end)

  it("has ten seconds as a rule, and any time where that is off", function()
    local app, patient = start(), start { timeout = { handshake = false } }
    local client, other = app:connect(FROM), patient:connect(FROM)
    app:advance "9999ms"
    assert.is_nil(client:closed())
    app:advance "1ms"
    client:expect_closed("idle_timeout")
    patient:advance "1d"
    other:send_raw(V4):send("hello"):expect("203.0.113.7:5060 hello")
  end)

  it("begins a connection that a drain finishes", function()
    local app = start()
    local arrived, silent = app:connect(FROM), app:connect(FROM)
    arrived:send_raw(V4 .. "one\n"):expect("203.0.113.7:5060 one")
    app:drain()
    arrived:expect_closed("drain")
    silent:expect_closed("drain")
  end)

  it("is taken off before a handler speaks first", function()
    local app = memory.lines({
      opened = function(self) self.conn:send("hello " .. self.conn.peer) end,
      proceed = function() end,
    }, { proxy = true, trust = { "10.0.0.0/8" } })
    app:connect(FROM):expect_nothing():send_raw(V4):expect("hello 203.0.113.7:5060")
  end)

  it("is in no handler's way that fails", function()
    local app = memory.lines({ proceed = function() error "oops" end }, { proxy = true, trust = { "10.0.0.0/8" } })
    app:connect(FROM):send_raw(V4 .. "one\n"):expect_closed("error")
    assert.equal("203.0.113.7:5060", app:faults()[1].peer)
  end)

  it("lets nobody in whom nobody trusts, not even to say something", function()
    local app = start { limits = { reject = "busy\n" } }
    for _, from in ipairs { "11.0.0.1:999", "[::1]:999", "127.0.0.2:999" } do
      app:connect { from = from }:send_raw(V4):expect_nothing():expect_closed("proxy")
    end
    local entry = app:log("connection refused")[1]
    assert.same({ "proxy", "11.0.0.1:999" }, { entry.reason, entry.peer })
    has("not in `trust`", entry.error)
    assert.same({ 3, 3 }, { app:counters().accepted, app:counters().closed })
  end)

  it("is logged a few times in ten seconds, and then how often", function()
    local app = start()
    for _ = 1, 100 do app:connect(FROM):send_raw("x"):expect_closed("proxy") end
    assert.equal(5, #app:log "connection refused")
    app:advance "10s"
    local again = app:log "connection refused again"
    assert.equal(1, #again)
    has("no PROXY header", again[1].error)
    has("100", again[1].repeats)
  end)

  it("is for Unix sockets as well", function()
    local app = start { listen = "unix:///tmp/proxied.sock", trust = { "unix" } }
    app:connect():send_raw(V4 .. "hello\n"):expect("203.0.113.7:5060 hello")
    app:connect():send_raw(proxy.GOOD["v2, local"].bytes .. "hello\n"):expect("unix hello")
  end)
end)

describe("proxy = \"optional\"", function()
  after_each(memory.finish)

  local function optional(settings)
    local all = { proxy = "optional" }
    for key, value in pairs(settings or {}) do all[key] = value end
    return start(all)
  end

  it("takes a header, or none", function()
    local app = optional()
    app:connect(FROM):send_raw(V4 .. "hello\n"):expect("203.0.113.7:5060 hello")
    app:connect(FROM):send("hello"):expect("10.0.0.1:999 hello")
  end)

  it("takes what begins as a header does, and is none", function()
    local app = optional()
    for _, line in ipairs { "PROX", "P", "PROXYTCP4", "proxy ", "" } do
      local client = app:connect(FROM)
      for byte in (line .. "\nmore\n"):gmatch "." do client:send_raw(byte) end
      client:expect("10.0.0.1:999 " .. line, "10.0.0.1:999 more")
    end
  end)

  it("takes what is nothing, and ends", function()
    local app = optional()
    app:connect(FROM):half_close():expect_closed("peer")
    app:connect { from = "10.0.0.1:999", frame = "raw" }:send_raw("PROX"):half_close():expect_closed("peer")
    assert.same({}, app:log "connection refused")
  end)

  it("takes no header that is wrong, and nobody whom nobody trusts", function()
    local app = optional()
    app:connect(FROM):send_raw("PROXY TCP4 x\r\n"):expect_closed("proxy")
    app:connect { from = "11.0.0.1:999" }:send("hello"):expect_closed("proxy")
  end)

  it("counts those who come without one by their own address", function()
    local app = optional { limits = { per_ip = 1 } }
    app:connect(FROM):send("hello"):expect("10.0.0.1:999 hello")
    app:connect(FROM):send("hello"):expect_closed("limit")
    app:connect(FROM):send_raw(V4 .. "hello\n"):expect("203.0.113.7:5060 hello")
  end)
end)

describe("limits.per_ip behind a proxy", function()
  after_each(memory.finish)

  local function through(app, client) return app:connect { from = "10.0.0.1:999", proxy = { client = client } } end

  it("counts clients, and not the proxy", function()
    local app = start { limits = { per_ip = 2, reject = "too many\n" } }
    local first = through(app, "203.0.113.7:1"):send("a"):expect("203.0.113.7:1 a")
    through(app, "203.0.113.7:2"):send("b"):expect("203.0.113.7:2 b")
    through(app, "203.0.113.7:3"):send("never"):expect("too many"):expect_nothing():expect_closed("limit")
    local entry = refused(app)
    assert.same({ "limit", "per_ip", "203.0.113.7:3" }, { entry.reason, entry.limit, entry.peer })
    for i = 1, 5 do through(app, ("203.0.113.%d:1"):format(i)):send("c"):expect(("203.0.113.%d:1 c"):format(i)) end
    first:send("quit"):expect("bye"):expect_closed("agent")
    through(app, "203.0.113.7:4"):send("d"):expect("203.0.113.7:4 d")
    through(app, "203.0.113.7:5"):expect("too many"):expect_closed("limit")
  end)

  it("counts nobody before the header is there, nor whom it does not name", function()
    local app = start { limits = { per_ip = 1 } }
    local silent = {}
    for i = 1, 5 do silent[i] = app:connect(FROM) end
    for _ = 1, 5 do app:connect(FROM):send_raw("PROXY UNKNOWN\r\n"):send("x"):expect("10.0.0.1:999 x") end
    for i = 1, 5 do
      local client = ("198.51.100.%d"):format(i)
      silent[i]:send_raw(("PROXY TCP4 %s 192.0.2.1 1 2\r\nx\n"):format(client)):expect(client .. ":1 x")
    end
  end)

  it("is right again when all have left, whatever they left for", function()
    local app = start { limits = { per_ip = 1 } }
    for _ = 1, 200 do
      through(app, "203.0.113.7:1"):send("quit"):expect("bye"):expect_closed("agent")
      through(app, "203.0.113.7:1"):reset():expect_closed("reset")
      app:connect(FROM):send_raw("x"):expect_closed("proxy")
    end
    local one = through(app, "203.0.113.7:1"):send("a"):expect("203.0.113.7:1 a")
    through(app, "203.0.113.7:1"):expect_closed("limit")
    one:close()
    through(app, "203.0.113.7:1"):send("b"):expect("203.0.113.7:1 b")
  end)
end)

describe("a client of a test that comes through a proxy", function()
  after_each(memory.finish)

  it("is who it is said to be; the proxy is one that is trusted", function()
    local app = start()
    app:connect { proxy = { client = "203.0.113.7:5060" } }:send("a"):expect("203.0.113.7:5060 a")
    app:connect { proxy = { client = "[2001:db8::7]:5060" } }:send("a"):expect("[2001:db8::7]:5060 a")
    app:connect { proxy = { client = "203.0.113.7:5060", server = "198.51.100.1:80" } }:send("a")
      :expect("203.0.113.7:5060 a")
    app:connect { proxy = proxy.GOOD["v2, IPv4"].bytes }:send("a"):expect("203.0.113.7:5060 a")
  end)

  it("has an address", function()
    local app = start()
    for _, wrong in ipairs { "203.0.113.7", "x:1", "203.0.113.7:70000", "::1:5", "10.0.0.0/8:1", "unix:1" } do
      local ok, message = pcall(app.connect, app, { proxy = { client = wrong } })
      assert.is_false(ok)
      has("proxy.client: an address such as", message)
    end
    assert.is_false(pcall(app.connect, app, { proxy = { client = "1.1.1.1:1", server = "[::1]:1" } }))
    assert.is_false(pcall(app.connect, app, { proxy = { from = "1.1.1.1:1" } }))
  end)

  it("may be split as any other", function()
    perilune.splits({ "one", "two" }, function()
      return start():connect { proxy = { client = "203.0.113.7:5060" } }
    end)
  end)
end)
