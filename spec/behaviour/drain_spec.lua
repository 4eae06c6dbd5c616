--- What connections are promised when the server stops.
local has = require "spec.support.has"
local memory = require "spec.support.memory"

local core = require "perilune"

local echo, lines, note, notes = memory.echo, memory.lines, memory.note, memory.notes

local function sleeper()
  local Agent = {}
  function Agent:closed(reason) note("closed " .. reason) end
  function Agent:proceed(line)
    local duration = line:match("^sleep (.*)$")
    if duration then core.sleep(duration) end
    return line
  end
  return Agent
end

-- How many ms it took.
local function drain(app)
  local from = app:now()
  app:drain()
  return math.floor((app:now() - from) * 1000 + 0.5)
end

describe("a drain", function()
  after_each(memory.finish)

  it("with idle clients ends at once", function()
    local app = lines(sleeper())
    local clients = memory.connect_many(app, 10)
    for i, client in ipairs(clients) do if i % 2 == 0 then client:send("x"):expect("x") end end
    assert.equal(0, drain(app))
    for i, client in ipairs(clients) do
      client:expect_nothing():expect_closed("drain")
      assert.same({ "closed drain" }, notes(app, i))
    end
    assert.equal(0, app:counters().cut)
  end)

  it("gives a frame that was begun two seconds to be complete, and is clean without it", function()
    local app = lines(sleeper())
    local never = app:connect():send_raw("hal")
    assert.equal(2000, drain(app))
    never:expect_nothing():expect_closed("drain")
    assert.equal(0, app:counters().cut)
  end)

  it("waits for a frame that has begun", function()
    local app = lines(sleeper())
    local client = app:connect():send_raw("hel")
    app:begin_drain()
    app:advance("1999ms")
    assert.is_nil(client:closed())
    client:send_raw("lo\n"):expect("hello"):expect_closed("drain")
    assert.equal(0, app:counters().cut)
  end)

  it("delivers output that is pending", function()
    local app = lines { proceed = function(_, line) return line:rep(8e6) end }
    local client = memory.raw(app):stall():send("x\n")
    app:begin_drain()
    app:advance("5s")
    assert.is_nil(client:closed())
    assert.equal(8e6 + 1, #memory.bytes(client:unstall()))
    client:expect_closed("drain")
    assert.equal(0, app:counters().cut)
  end)

  it("answers what is in flight, and everything that was sent before", function()
    local app = lines(sleeper())
    local client, idle = app:connect():send("sleep 300ms", "a", "b"), app:connect()
    assert.equal(300, drain(app))
    idle:expect_closed("drain")
    client:expect("sleep 300ms", "a", "b"):expect_closed("drain")
    assert.equal(0, app:counters().cut)
  end)

  describe("asks drain(deadline)", function()
    it("with the seconds that are left, and delivers its reply", function()
      local Agent = echo()
      function Agent:drain(deadline) note("deadline " .. deadline) return "going away" end
      function Agent:closed(reason) note("closed " .. reason) end
      local app = lines(Agent, { timeout = { drain = "7s" } })
      local client = app:connect():send("x"):expect("x")
      app:drain()
      client:expect("going away"):expect_closed("drain")
      assert.same({ "deadline 7", "closed drain" }, notes(app, 1))
    end)

    it("and leaves the end to an agent that says true", function()
      local Agent = {}
      function Agent:drain()
        self.conn:send("finish, please")
        return true
      end
      function Agent:closed(reason) note("closed " .. reason) end
      function Agent:proceed(line)
        if line == "done" then return "bye", "close" end
        return line
      end
      local app = lines(Agent)
      local client = app:connect():send("x"):expect("x")
      app:begin_drain()
      client:expect("finish, please"):send("one more"):expect("one more"):send("done"):expect("bye")
      assert.same({ "closed agent" }, notes(app, 1))
      assert.equal(0, app:counters().cut)
    end)

    it("and gives it time to wait", function()
      local Agent = echo()
      function Agent:drain() core.sleep("150ms") return "saved" end
      local app = lines(Agent)
      local client = app:connect():send("x"):expect("x")
      assert.equal(150, drain(app))
      client:expect("saved"):expect_closed("drain")
    end)

    it("and ends its connection when it fails", function()
      local Agent = echo()
      function Agent:drain() error("in drain") end
      local app = lines(Agent)
      local client = app:connect():send("x"):expect("x")
      assert.equal(0, drain(app))
      client:expect_closed("error")
      has("in drain", memory.error_of(app))
    end)
  end)

  describe("past its deadline", function()
    -- So many connections were cut, after 300 ms.
    local function assert_cuts(app, n)
      assert.equal(300, drain(app))
      assert.equal(n, app:counters().cut)
    end

    it("cuts what is left", function()
      local app = lines(sleeper(), { timeout = { drain = "300ms" } })
      for _ = 1, 3 do app:connect():send("sleep 60s") end
      app:connect():send("idle"):expect("idle")
      assert_cuts(app, 3)
      for conn = 1, 4 do assert.same({ "closed drain" }, notes(app, conn)) end
    end)

    it("cuts an agent that said true and did not close", function()
      local Agent = echo()
      function Agent:drain() return true end
      local app = lines(Agent, { timeout = { drain = "300ms" } })
      app:connect():send("x"):expect("x")
      assert_cuts(app, 1)
    end)

    it("cuts a client that does not read", function()
      local app = lines({ proceed = function(_, line) return line:rep(2e6) end }, { timeout = { drain = "300ms" } })
      app:connect():stall():send("x")
      assert_cuts(app, 1)
    end)
  end)
end)
