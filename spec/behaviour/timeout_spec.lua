--- Time-outs, to the millisecond.
local memory = require "spec.support.memory"

local core = require "perilune"

local echo, note, notes = memory.echo, memory.note, memory.notes

local function start(timeouts, Agent, settings)
  local all = { timeout = timeouts }
  for key, value in pairs(settings or {}) do all[key] = value end
  Agent = Agent or echo()
  function Agent:closed(reason) note("closed " .. reason) end
  return memory.start(Agent, all)
end

-- The client ends when so many ms have passed, and not before.
local function assert_ends(app, client, ms, reason)
  app:advance((ms - 1) .. "ms")
  assert.is_nil(client:closed())
  app:advance("1ms")
  client:expect_closed(reason)
end

-- Sends bytes that complete no frame, one each 30 ms, until it is over; tells when that was.
local function trickle(app, client)
  for _ = 1, 100 do
    local ended = client:closed()
    if ended then break end
    client:send_raw("x")
    app:advance("30ms")
  end
  for _, entry in ipairs(app:log()) do
    if entry.message:find "^closed .*timeout" then return entry.at_ms end
  end
end

describe("timeout.idle", function()
  after_each(memory.finish)

  it("closes a client that says nothing", function()
    local app = start { idle = "200ms" }
    assert_ends(app, app:connect(), 200, "idle_timeout")
  end)

  it("begins anew with each frame", function()
    local app = start { idle = "500ms" }
    local client = app:connect()
    for _ = 1, 6 do
      client:send("x"):expect("x")
      app:advance("499ms")
    end
    client:send("x"):expect("x")
    assert_ends(app, client, 500, "idle_timeout")
  end)

  it("ends a connection that eof() kept, and begins anew with what is sent to it", function()
    local first
    local Agent = {}
    function Agent:opened() first = first or self.conn end
    function Agent:eof() note "kept" return true end
    function Agent:proceed() return tostring(first:send("news")) end
    local app = start({ idle = "500ms" }, Agent)
    local kept, other = app:connect():half_close(), app:connect()
    assert.same({ "kept" }, notes(app, 1))
    for _ = 1, 4 do
      app:advance("450ms")
      other:send("tell"):expect("true")
      kept:expect("news")
    end
    assert_ends(app, kept, 500, "idle_timeout")
    assert.same({ "kept", "closed idle_timeout" }, notes(app, 1))
  end)

  it("is not extended by a trickle that completes no frame", function()
    local app = start { idle = "300ms", read = 0 }
    assert.equal(300, trickle(app, app:connect():send_raw("\0\0\1\0")))
    assert.same({ "closed idle_timeout" }, notes(app, 1))
  end)

  it("does not run while the client takes a long reply slowly, and does once it takes no more", function()
    local Agent = {}
    function Agent:proceed() return ("x"):rep(500000) end
    function Agent:timeout(kind) note("out of time: " .. kind) end
    local app = start({ idle = "2s", write = 0 }, Agent)
    local client = app:connect():stall():send "get"
    for _ = 1, 16 do
      client:stall(25000)
      app:advance("1s")
    end
    assert.same({}, notes(app, 1))
    app:advance("4s")
    assert.same({ "out of time: idle" }, notes(app, 1))
    client:unstall():expect(("x"):rep(500000)):expect_closed "idle_timeout"
  end)

  it("goes on while the client takes at once what others send it", function()
    local listener
    local Agent = {}
    function Agent:opened() listener = listener or self.conn end
    function Agent:proceed(frame) listener:send(frame) end
    local app = start({ idle = "2s" }, Agent)
    local silent, other = app:connect(), app:connect()
    for _ = 1, 19 do
      app:advance("100ms")
      other:send("news")
      silent:expect("news")
    end
    assert_ends(app, silent, 100, "idle_timeout")
  end)

  it("does not run while the agent is the one that takes its time", function()
    local Agent = {}
    function Agent:proceed(frame)
      core.sleep("400ms")
      return frame
    end
    local app = start({ idle = "150ms", read = "150ms" }, Agent)
    local client = app:connect():send("x")
    app:advance("400ms")
    client:expect("x"):send("a", "b")
    app:advance("800ms")
    client:expect("a", "b")
    assert_ends(app, client, 150, "idle_timeout")
  end)

  it("does not run while the agent has paused its peer", function()
    local paused
    local Agent = {}
    function Agent:proceed(what)
      if what == "pause" then paused = self.conn self.conn:pause() end
      if what == "resume" then paused:resume() end
      return what
    end
    local app = start({ idle = "150ms", read = "150ms" }, Agent)
    local client = app:connect():send("pause"):expect("pause")
    app:advance("10m")
    assert.is_nil(client:closed())
    app:connect():send("resume"):expect("resume")
    assert_ends(app, client, 150, "idle_timeout")
  end)

  it("runs while an agent waits for the next frame with conn:read", function()
    local app = start({ idle = "200ms" }, { proceed = function(self) return (self.conn:read()) end })
    assert_ends(app, app:connect():send("x"), 200, "idle_timeout")
  end)
end)

describe("timeout.read", function()
  after_each(memory.finish)

  it("closes a client that does not complete a frame", function()
    local app = start { read = "200ms" }
    assert_ends(app, app:connect():send_raw("\0"), 200, "read_timeout")
  end)

  it("is not extended by a trickle", function()
    local app = start { read = "300ms" }
    assert.equal(300, trickle(app, app:connect():send_raw("\0\0\1\0")))
    assert.same({ "closed read_timeout" }, notes(app, 1))
  end)

  it("does not run between frames", function()
    local app = start { read = "100ms" }
    local client = app:connect()
    for _ = 1, 3 do
      client:send("x"):expect("x")
      app:advance("10s")
    end
    client:send("x"):expect("x")
  end)

  it("begins anew with the frame after a completed one", function()
    local app = start { read = "400ms" }
    local client = app:connect()
    for _ = 1, 4 do
      client:send_raw("\0\0\0\5he")
      app:advance("399ms")
      client:send_raw("llo"):expect("hello")
    end
    assert_ends(app, client:send_raw("\0"), 400, "read_timeout")
  end)
end)

describe("timeout.first_frame", function()
  after_each(memory.finish)

  it("closes a client whose first frame does not come", function()
    local app = start { first_frame = "200ms" }
    assert_ends(app, app:connect(), 200, "idle_timeout")
  end)

  it("is not extended by a part of a frame", function()
    local app = start { first_frame = "300ms" }
    local client = app:connect()
    app:advance("100ms")
    assert_ends(app, client:send_raw("\0\0"), 200, "idle_timeout")
  end)

  it("and idle: a client that is silent from the start is cut by the shorter one", function()
    for _, case in ipairs {
      { { first_frame = "150ms", idle = "5s" }, "first_frame" }, { { first_frame = "5s", idle = "150ms" }, "idle" },
    } do
      local Agent = echo()
      function Agent:timeout(kind) note("asked " .. kind) end
      local app = start(case[1], Agent)
      assert_ends(app, app:connect(), 150, "idle_timeout")
      assert.same({ "asked " .. case[2], "closed idle_timeout" }, notes(app, 1))
    end
  end)

  it("has nothing to say after the first frame", function()
    local app = start { first_frame = "150ms" }
    local client = app:connect():send("x"):expect("x")
    app:advance("30s")
    client:send("x"):expect("x")
  end)
end)

describe("timeout.write", function()
  after_each(memory.finish)

  local function big() return { proceed = function() return ("x"):rep(2e6) end } end

  it("closes a client that does not read", function()
    local app = start({ write = "300ms" }, big())
    assert_ends(app, app:connect():stall():send("x"), 300, "write_timeout")
  end)

  it("begins anew whenever the client has taken something", function()
    local app = start({ write = "600ms" }, big())
    local client = memory.raw(app):stall():send("\0\0\0\1x")
    for _ = 1, 40 do
      app:advance("599ms")
      assert.equal(50000, #client:stall(50000):receive())
    end
    -- That the last piece has been taken is found when the time is over, and is progress, too.
    assert_ends(app, client, 1200, "write_timeout")
  end)

  it("ends a closing connection, too", function()
    local app = start({ write = "300ms" }, { proceed = function() return ("x"):rep(2e6), "close" end })
    local client = app:connect():stall():send("x")
    assert_ends(app, client, 300, "agent")
    assert.equal("closed agent", notes(app, 1)[1])
  end)
end)

describe("timeout(kind)", function()
  after_each(memory.finish)

  it("is asked with the kind, and keeps the connection with true", function()
    local Agent = echo()
    function Agent:timeout(kind)
      self.asked = (self.asked or 0) + 1
      note(kind .. " " .. self.asked)
      return self.asked < 3
    end
    local app = start({ idle = "100ms" }, Agent)
    assert_ends(app, app:connect(), 300, "idle_timeout")
    assert.same({ "idle 1", "idle 2", "idle 3", "closed idle_timeout" }, notes(app, 1))
  end)

  it("is asked for a frame that does not complete, and for the first one", function()
    local Agent = echo()
    function Agent:timeout(kind)
      note(kind)
      self.asked = (self.asked or 0) + 1
      return self.asked < 5
    end
    local app = start({ read = "110ms", first_frame = "300ms" }, Agent)
    app:connect():send_raw("\0")
    app:advance("440ms")
    assert.same({ "read", "read", "first_frame", "read", "read", "closed read_timeout" }, notes(app, 1))
  end)

  it("is asked for a peer that does not read", function()
    local Agent = { proceed = function() return ("x"):rep(2e6) end }
    function Agent:timeout(kind)
      self.asked = (self.asked or 0) + 1
      note(kind .. " " .. self.asked)
      return self.asked < 2
    end
    local app = start({ write = "150ms" }, Agent)
    assert_ends(app, app:connect():stall():send("x"), 300, "write_timeout")
    assert.same({ "write 1", "write 2", "closed write_timeout" }, notes(app, 1))
  end)

  it("may say a last word", function()
    local Agent = echo()
    function Agent:timeout(kind) return "too slow: " .. kind end
    local app = start({ idle = "100ms" }, Agent)
    local client = app:connect()
    app:advance("100ms")
    client:expect("too slow: idle"):expect_closed("idle_timeout")
  end)

  it("that fails ends the connection as a fault", function()
    local Agent = echo()
    function Agent:timeout() error("in timeout") end
    local app = start({ idle = "100ms" }, Agent)
    assert_ends(app, app:connect(), 100, "error")
    assert.matches("in timeout", memory.error_of(app))
    assert.same({ "closed error" }, notes(app, 1))
  end)
end)

describe("conn:set_timeout", function()
  after_each(memory.finish)

  local function setter()
    local Agent = {}
    function Agent:proceed(what)
      local kind, duration = what:match("^(%S+) (%S+)$")
      if duration == "off" then duration = false end
      return tostring(self.conn:set_timeout(kind, duration))
    end
    return Agent
  end

  it("is for this connection only", function()
    local app = start(nil, setter())
    local client, other = app:connect(), app:connect()
    client:send("idle 150ms"):expect("true")
    assert_ends(app, client, 150, "idle_timeout")
    app:advance("50s")
    other:expect_nothing():send("idle 60s"):expect("true")
  end)

  it("shortens a time-out that is already running", function()
    local app = start({ read = "60s" }, setter())
    local client = app:connect():send_raw("\0\0\0\10read 150ms\0"):expect("true")
    assert_ends(app, client, 150, "read_timeout")
  end)

  it("turns one off with false", function()
    local app = start({ idle = "200ms" }, setter())
    local client = app:connect():send("idle off"):expect("true")
    app:advance("1h")
    client:send("idle 100ms"):expect("true")
    assert_ends(app, client, 100, "idle_timeout")
  end)

  it("refuses other kinds and durations", function()
    local Agent = {}
    function Agent:proceed(what)
      if what == "kind" then return tostring(select(2, pcall(self.conn.set_timeout, self.conn, "idel", 1))) end
      if what == "none" then return tostring(select(2, pcall(self.conn.set_timeout, self.conn, "idle"))) end
      return tostring(select(2, pcall(self.conn.set_timeout, self.conn, "idle", "soon")))
    end
    local client = start(nil, Agent):connect():send("kind", "none", "duration")
    assert.truthy(client:receive():find('got "idel" (did you mean "idle"?)', 1, true))
    assert.truthy(client:receive():find("value expected", 1, true))
    assert.truthy(client:receive():find("soon", 1, true))
  end)
end)

describe("time-outs that are off", function()
  after_each(memory.finish)

  for _, off in ipairs { 0, false } do
    it("by " .. tostring(off) .. " never fire", function()
      local Agent = echo()
      local app = start({ idle = off, read = off, first_frame = off, write = off }, Agent)
      local client = app:connect()
      app:advance("1h")
      client:send_raw("\0\0")
      app:advance("1h")
      client:stall():send_raw("\0\1x")
      app:advance("1h")
      client:unstall():expect("x")
    end)
  end
end)
