--- udp:// in memory: flows, what is dropped, what would amplify.
local memory = require "spec.support.memory"
local perilune = require "perilune.test"

local Echo = {}
function Echo:opened() self.n = 0 end
function Echo:proceed(datagram)
  self.n = self.n + 1
  if datagram == "quit" then return "bye", "close" end
  if datagram == "count" then return tostring(self.n) end
  return datagram
end

local function start(agent, settings)
  local all = { listen = "udp://127.0.0.1:0" }
  for key, value in pairs(settings or {}) do all[key] = value end
  return memory.start(agent, all)
end

describe("udp:// in memory", function()
  after_each(memory.finish)

  it("makes an agent for a peer when its first datagram comes, and none before", function()
    local opened = {}
    local Agent = {}
    function Agent:opened() opened[#opened + 1] = self.conn.peer end
    function Agent:proceed(datagram) return #opened .. datagram end
    local app = start(Agent)
    local one, other = app:connect { from = "10.0.0.7:5060" }, app:connect { from = "[2001:db8::1]:53" }
    assert.equal(0, app:counters().accepted)
    other:send("a"):expect "1a"
    one:send("b"):expect "2b"
    assert.equal(2, app:counters().accepted)
  end)

  it("takes each datagram for a frame", function()
    local client = start(Echo, { amplification = false }):connect()
    client:send("one", "", "three"):expect("one", "", "three")
    client:send_raw(("x"):rep(65507)):expect(("x"):rep(65507))
    local ok, message = pcall(client.send, client, ("x"):rep(65508))
    assert.is_false(ok)
    assert.truthy(tostring(message):find "cannot be sent")
  end)

  it("ends a flow when nothing has come for timeout.idle, and begins another one then", function()
    local app = start(Echo)
    local client = app:connect()
    client:send("count"):expect "1"
    app:advance "29s"
    client:send("count"):expect "2"
    app:advance "29.9s"
    assert.is_nil(client:closed())
    app:advance "0.1s"
    client:expect_closed "idle_timeout"
    client:send("count"):expect "1"
    assert.equal(2, app:counters().accepted)
  end)

  it("begins another flow after the agent has closed one", function()
    local client = start(Echo):connect()
    client:send("count"):expect("1"):send("quit"):expect("bye"):expect_closed "agent"
    client:send("count"):expect "1"
  end)

  it("begins another flow beside those of others that have gone on", function()
    local app = start { proceed = function(_, datagram) return datagram, datagram == "end" and "close" or nil end }
    local one, other = app:connect(), app:connect()
    one:send("a"):expect "a"
    other:send("b"):expect "b"
    for _ = 1, 3 do
      one:send("end"):expect("end"):expect_closed "agent"
      one:send("c"):expect "c"
      other:send("d"):expect "d"
    end
    assert.equal(5, app:counters().accepted)
  end)

  it("asks an agent that may keep its flow", function()
    local Agent, asked = { proceed = Echo.proceed, opened = Echo.opened }, 0
    function Agent:timeout(kind)
      asked = asked + 1
      return kind == "idle" and asked < 3
    end
    local app = start(Agent, { timeout = { idle = "1s" } })
    local client = app:connect():send("x"):expect "x"
    app:advance "2.5s"
    assert.is_nil(client:closed())
    app:advance "1s"
    client:expect_closed "idle_timeout"
  end)

  it("bounds flows, and drops what others send", function()
    local app = start(Echo, { limits = { connections = 2 } })
    local one, two, three = app:connect(), app:connect(), app:connect()
    one:send("a"):expect "a"
    two:send("b"):expect "b"
    three:send("c"):expect_nothing():expect_closed "limit"
    assert.equal(1, app:counters().dropped_datagrams)
    one:send("quit"):expect "bye"
    three:send("d"):expect "d"
  end)

  it("bounds the flows of an address", function()
    local app = start(Echo, { limits = { per_ip = 1 } })
    app:connect({ from = "10.0.0.7:1" }):send("a"):expect "a"
    app:connect({ from = "10.0.0.7:2" }):send("b"):expect_nothing()
    app:connect({ from = "10.0.0.8:1" }):send("c"):expect "c"
    assert.equal("per_ip", app:log("connection refused")[1].limit)
  end)

  it("drops what is larger than `max`", function()
    local app = start(Echo, { frame = { "datagram", max = 10 } })
    app:connect():send(("x"):rep(11), "y"):expect "y"
    assert.equal(1, app:counters().truncated_datagrams)
  end)

  it("takes limits.frame for `max`", function()
    local app = start(Echo, { limits = { frame = 10 } })
    app:connect():send(("x"):rep(11), "y"):expect "y"
  end)

  for empty, case in pairs {
    deliver = { { "", "x" }, "agent", 2 }, ignore = { { "x" }, nil, 1 }, error = { {}, "frame_error", 0 },
  } do
    it(("has an empty datagram where `empty` is %q"):format(empty), function()
      local app = start(Echo, { frame = { "datagram", empty = empty } })
      local client = app:connect():send("", "x")
      for _, expected in ipairs(case[1]) do client:expect(expected) end
      client:expect_nothing()
      assert.equal(case[3], app:counters().frames_in)
      if empty == "error" then client:expect_closed "frame_error" end
    end)
  end

  it("gives views of datagrams", function()
    local Agent = {}
    function Agent:proceed(view) return view end
    local client = start(Agent, { frame = { "datagram", view = true } }):connect()
    client:send("a", "", "ccc"):expect("a", "", "ccc")
  end)

  it("sends one reply a datagram", function()
    local Agent = {}
    function Agent:proceed() return { "a", "", "b" } end
    start(Agent, { amplification = 10 }):connect():send("x"):expect("a", "", "b")
  end)

  it("has a reply that no datagram carries for a fault", function()
    local Agent = {}
    function Agent:proceed() return ("x"):rep(65508) end
    local app = start(Agent)
    app:connect():send("x"):expect_closed "error"
    assert.equal(1, #app:faults())
  end)

  it("keeps what comes while an agent waits", function()
    local core = require "perilune"
    local Agent = {}
    function Agent:proceed(datagram)
      if datagram == "slow" then core.sleep "1s" end
      return datagram
    end
    local app = start(Agent)
    local client = app:connect():send("slow", "a"):send("b"):expect_nothing()
    app:advance "1s"
    client:expect("slow", "a", "b")
  end)

  it("gives who waits for it the next datagram", function()
    local Agent = {}
    function Agent:proceed(datagram)
      local next_one = self.conn:read(nil, "5s")
      return datagram .. "+" .. tostring(next_one)
    end
    local app = start(Agent)
    app:connect():send("a"):expect_nothing():send("b"):expect "a+b"
    local late = app:connect():send "c"
    app:advance "5s"
    late:expect "c+nil"
  end)

  it("keeps no more than limits.inbox says", function()
    local Agent = {}
    function Agent:proceed(datagram)
      if datagram == "pause" then self.conn:pause() end
      return datagram
    end
    local app = start(Agent, { limits = { inbox = 3 } })
    local client = app:connect():send("pause"):expect "pause"
    for i = 1, 10 do client:send(tostring(i)) end
    assert.equal(7, app:counters().dropped_datagrams)
  end)

  it("drops what a paused agent leaves for too long", function()
    local Agent = {}
    function Agent:proceed(datagram)
      if datagram == "pause" then self.conn:pause() end
      return datagram
    end
    local app = start(Agent)
    local client = app:connect():send("pause"):expect "pause"
    for _ = 1, 10 do client:send(("x"):rep(20000)) end
    assert.equal(7, app:counters().dropped_datagrams)
  end)

  it("has no other framings", function()
    for _, method in ipairs { "set_frame", "read" } do
      local Agent = {}
      function Agent:proceed() self.conn[method](self.conn, "line") end
      local app = start(Agent)
      app:connect():send("x"):expect_closed "error"
      assert.truthy(app:faults()[1].error:find("a udp:// address has datagrams, and no other frames", 1, true))
    end
    local Agent = {}
    function Agent:proceed() self.conn:set_frame "datagram" end
    local app = memory.lines(Agent)
    app:connect():send("x"):expect_closed "error"
    assert.truthy(app:faults()[1].error:find("only a udp:// listener has datagrams", 1, true))
  end)

  describe("amplification", function()
    local Loud = {}
    function Loud:proceed(datagram)
      for _ = 1, 5 do self.conn:send(datagram) end
    end

    it("is three at most until the peer has answered, whole datagrams", function()
      local app = start(Loud)
      local client = app:connect():send(("x"):rep(100))
      client:expect(("x"):rep(100), ("x"):rep(100), ("x"):rep(100)):expect_nothing()
      assert.equal(2, app:counters().unsent_datagrams)
      client:send "y"
      assert.equal(5, #client:frames())
    end)

    it("counts the headers of datagrams, so that an empty one has an answer", function()
      local Agent = {}
      function Agent:proceed() return { ("x"):rep(16), "y" } end
      start(Agent):connect():send(""):expect(("x"):rep(16)):expect_nothing()
    end)

    it("counts what has come when the agent greets", function()
      local Agent = {}
      function Agent:opened() self.conn:send "hello" end
      function Agent:proceed() end
      start(Agent):connect():send("x"):expect "hello"
    end)

    it("skips what is too large, and sends what fits", function()
      local Agent = {}
      function Agent:proceed() return { ("x"):rep(100), "small" } end
      start(Agent):connect():send("x"):expect("small"):expect_nothing()
    end)

    it("holds for what is sent by itself, too", function()
      local core = require "perilune"
      local Agent = {}
      function Agent:proceed()
        for _ = 1, 100 do
          core.sleep "1s"
          self.conn:send "tick"
        end
      end
      local app = start(Agent, { timeout = { idle = "10m" } })
      local client = app:connect():send "subscribe"
      app:advance "100s"
      assert.equal(4, #client:frames()) -- of 12 bytes each, for 17
    end)

    it("is told of once, with a hint", function()
      local app = start(Loud)
      for _ = 1, 3 do app:connect():send "x" end
      local entries = app:log "a datagram was not sent: it would amplify"
      assert.equal(1, #entries)
      assert.equal(3, entries[1].amplification)
      assert.equal(6, app:counters().unsent_datagrams)
    end)

    it("can be another, or any", function()
      for amplification, expected in pairs { [1] = 1, [4] = 4, [false] = 5 } do
        local client = start(Loud, { amplification = amplification }):connect():send "x"
        assert.equal(expected, #client:frames())
      end
    end)
  end)

  describe("a drain", function()
    it("ends flows, and answers what had come", function()
      local app = start(Echo)
      local client = app:connect():send("a"):expect "a"
      app:drain()
      client:expect_closed "drain"
    end)

    it("lets agents go on that close by themselves", function()
      local Agent = { proceed = Echo.proceed, opened = Echo.opened }
      function Agent:drain() return true end
      local app = start(Agent)
      local client = app:connect():send("a"):expect "a"
      app:begin_drain()
      client:send("b"):expect("b"):send("quit"):expect("bye"):expect_closed "agent"
    end)
  end)

  it("refuses options of clients that are for connections", function()
    local app = start(Echo)
    for option, value in pairs { tls = {}, proxy = "x", read_max = 1, write_max = 1, frame = "line" } do
      local ok, message = pcall(app.connect, app, { [option] = value })
      assert.is_false(ok)
      assert.truthy(tostring(message):find("connect: " .. option .. ": a client of udp://", 1, true), tostring(message))
    end
    local ok, message = pcall(perilune.splits, { "a", "b" }, function() return app:connect() end)
    assert.is_false(ok)
    assert.truthy(tostring(message):find("a datagram comes whole", 1, true), tostring(message))
  end)

  it("says what a client does not get, and why", function()
    local Loud = {}
    function Loud:proceed() return ("x"):rep(100) end
    local client = start(Loud, { frame = { "datagram", max = 10 } }):connect():send("a", ("b"):rep(11))
    local ok, message = pcall(client.receive, client)
    assert.is_false(ok)
    assert.truthy(tostring(message):find("1 datagrams were not sent: they would amplify", 1, true), tostring(message))
    assert.truthy(tostring(message):find("1 datagrams of clients were dropped", 1, true), tostring(message))
  end)

  it("has clients without connections", function()
    local client = start(Echo):connect()
    for _, method in ipairs { "half_close", "reset", "expect_reset" } do
      assert.has_error(function() client[method](client) end)
    end
    assert.has_error(function() client:send_split "x" end)
    assert.has_error(function() client:set_frame "line" end)
  end)

  it("leaves nothing behind when a client falls silent", function()
    local app = perilune.app { listen = "udp://127.0.0.1:0", agent = Echo }
    app:connect():send("x"):expect("x"):close()
    assert.is_nil(app:left())
    app:close()
  end)
end)
