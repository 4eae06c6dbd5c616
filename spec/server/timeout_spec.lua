local server = require "spec.support.server"
local wait = require "spec.support.wait"

local frame = require("spec.support.client").frame

local function start(timeouts, body, settings)
  return server.start { script = ([[%s
    local Agent = {}
    function Agent:closed(reason) note("closed " .. reason) end
    %s
    return { listen = "tcp://127.0.0.1:0", agent = Agent, timeout = { %s }, %s }]])
    :format(server.NOTE, body or "function Agent:proceed(frame) return frame end", timeouts, settings or "") }
end

-- What begin() does starts the clock somewhere: not sooner than it is called, and not later than it returns.
local function assert_took(seconds, begin, finish)
  local before = wait.now()
  local client = begin()
  local after = wait.now()
  finish(client)
  local now = wait.now()
  -- The clock of the server has milliseconds.
  assert.is_true(now - before > seconds - 0.003, ("took %.3f s"):format(now - before))
  assert.is_true(now - after < seconds + 0.5 * wait.SCALE, ("took %.3f s"):format(now - after))
end

local function await_end(app, client, reason)
  client:recv_all()
  app:wait_log { message = "closed " .. reason, conn = 1 }
end

-- begin() returns the client that ends.
local function assert_ends(app, seconds, reason, begin)
  assert_took(seconds, begin, function(client) await_end(app, client, reason) end)
end

-- Sends bytes that complete no frame until the log says so.
local function trickle(app, client, message)
  local began = wait.now()
  while #app:find_log(message) == 0 and wait.now() - began < 5 do
    client:send_some("x")
    wait.pause(0.03)
  end
  app:wait_log(message)
end

-- Waits without reading: what a peer that takes its time does.
local function pause(client, seconds) client:expect_silence(seconds) end

describe("timeout.idle", function()
  after_each(server.finish)

  it("closes a client that says nothing", function()
    local app = start [[idle = "200ms"]]
    assert_ends(app, 0.2, "idle_timeout", function() return app:connect() end)
  end)

  it("begins anew with each frame", function()
    local app = start [[idle = "500ms"]]
    local client = app:connect()
    for _ = 1, 6 do
      client:echo_frame("x")
      pause(client, 0.15)
    end
    assert_ends(app, 0.5, "idle_timeout", function() return client:echo_frame("x") end)
  end)

  it("ends a connection that eof() kept, and begins anew with what is sent to it", function()
    local app = start([[idle = "500ms"]], [[
      local first
      function Agent:opened() first = first or self.conn end
      function Agent:eof() note "kept" return true end
      function Agent:proceed() return tostring(first:send("news")) end]])
    local kept, other = app:connect():shutdown("send"), app:connect()
    app:wait_log { message = "kept", conn = 1 }
    local function tell()
      other:send_frame("tell")
      assert.equal("true", other:recv_frame())
      assert.equal("news", kept:recv_frame())
    end
    for _ = 1, 3 do
      pause(kept, 0.15)
      tell()
    end
    pause(kept, 0.15)
    assert_took(0.5, tell, function() kept:expect_closed() end)
    app:wait_log { message = "closed idle_timeout", conn = 1 }
  end)

  it("is not extended by a trickle that completes no frame", function()
    local app = start [[idle = "300ms", read = 0]]
    assert_took(0.3, function() return app:connect():send("\0\0\1\0") end, function(client)
      trickle(app, client, "closed idle_timeout")
    end)
  end)

  it("does not run while the agent is the one that takes its time", function()
    local app = start([[idle = "150ms", read = "150ms"]], [[
      function Agent:proceed(frame)
        perilune.sleep("400ms")
        return frame
      end]])
    local client = app:connect()
    client:echo_frame("x")
    client:send(frame("a") .. frame("b"))
    assert.equal("a", client:recv_frame())
    assert_ends(app, 0.15, "idle_timeout", function()
      assert.equal("b", client:recv_frame())
      return client
    end)
  end)

  it("does not run while the agent has paused its peer", function()
    local app = start([[idle = "150ms", read = "150ms"]], [[
      local paused
      function Agent:proceed(what)
        if what == "pause" then paused = self.conn self.conn:pause() end
        if what == "resume" then paused:resume() end
        return what
      end]])
    local client = app:connect()
    client:echo_frame("pause")
    client:expect_silence(0.4)
    assert_ends(app, 0.15, "idle_timeout", function()
      app:connect():echo_frame("resume")
      return client
    end)
  end)

  it("runs while an agent waits for the next frame with conn:read", function()
    local app = start([[idle = "200ms"]], [[
      function Agent:proceed() return (self.conn:read()) end]])
    assert_ends(app, 0.2, "idle_timeout", function() return app:connect():send_frame("x") end)
  end)
end)

describe("timeout.read", function()
  after_each(server.finish)

  it("closes a client that does not complete a frame", function()
    local app = start [[read = "200ms"]]
    assert_ends(app, 0.2, "read_timeout", function() return app:connect():send("\0") end)
  end)

  it("is not extended by a trickle", function()
    local app = start [[read = "300ms"]]
    assert_took(0.3, function() return app:connect():send("\0\0\1\0") end, function(client)
      trickle(app, client, "closed read_timeout")
    end)
  end)

  it("does not run between frames", function()
    local app = start [[read = "100ms"]]
    local client = app:connect()
    for _ = 1, 3 do
      client:echo_frame("x")
      pause(client, 0.2)
    end
    client:echo_frame("x")
  end)

  it("begins anew with the frame after a completed one", function()
    local app = start [[read = "400ms"]]
    local client = app:connect()
    local bytes = frame("hello")
    for _ = 1, 4 do
      client:send(bytes:sub(1, 6))
      pause(client, 0.15)
      client:send(bytes:sub(7))
      assert.equal("hello", client:recv_frame())
    end
    assert_ends(app, 0.4, "read_timeout", function() return client:send("\0") end)
  end)
end)

describe("timeout.first_frame", function()
  after_each(server.finish)

  it("closes a client whose first frame does not come", function()
    local app = start [[first_frame = "200ms"]]
    assert_ends(app, 0.2, "idle_timeout", function() return app:connect() end)
  end)

  it("is not extended by a part of a frame", function()
    local app = start [[first_frame = "300ms"]]
    local client
    assert_took(0.3, function() client = app:connect() end, function()
      pause(client, 0.1)
      client:send("\0\0")
      await_end(app, client, "idle_timeout")
    end)
  end)

  it("and idle: a client that is silent from the start is cut by the shorter one", function()
    for _, case in ipairs {
      { [[first_frame = "150ms", idle = "5s"]], "first_frame" }, { [[first_frame = "5s", idle = "150ms"]], "idle" },
    } do
      local app = start(case[1], [[
        function Agent:timeout(kind) note("asked " .. kind) end
        function Agent:proceed(frame) return frame end]])
      assert_ends(app, 0.15, "idle_timeout", function() return app:connect() end)
      assert.same({ "asked " .. case[2], "closed idle_timeout" }, app:notes(1))
    end
  end)

  it("has nothing to say after the first frame", function()
    local app = start [[first_frame = "150ms"]]
    local client = app:connect()
    client:echo_frame("x")
    pause(client, 0.4)
    client:echo_frame("x")
  end)
end)

describe("timeout.write", function()
  after_each(server.finish)

  local BIG = [[function Agent:proceed() return ("x"):rep(3e7) end]]

  it("closes a client that does not read", function()
    local app = start([[write = "300ms"]], BIG)
    local client = app:connect { receive_buffer = 4096 }
    assert_took(0.3, function() client:send_frame("x") end, function() app:wait_log "closed write_timeout" end)
  end)

  it("begins anew whenever the client has taken something", function()
    local app = start([[write = "600ms"]], BIG)
    local client = app:connect { receive_buffer = 65536 }
    client:send_frame("x")
    local began, chunks = wait.now(), 0
    while wait.now() - began < 2 do
      client:recv_exact(50000)
      chunks = chunks + 1
      wait.pause(math.max(0, began + chunks * 0.05 - wait.now()))
    end
    assert.equal(0, #app:find_log "closed write_timeout")
    app:wait_log "closed write_timeout"
  end)

  it("ends a closing connection, too", function()
    local app = start([[write = "300ms"]], [[function Agent:proceed() return ("x"):rep(3e7), "close" end]])
    app:connect({ receive_buffer = 4096 }):send_frame("x")
    app:wait_log "closed agent"
    assert.equal("agent=1", app:stop().summary.reasons)
  end)
end)

describe("timeout(kind)", function()
  after_each(server.finish)

  it("is asked with the kind, and keeps the connection with true", function()
    local app = start([[idle = "100ms"]], [[
      function Agent:timeout(kind)
        self.asked = (self.asked or 0) + 1
        note(kind .. " " .. self.asked)
        return self.asked < 3
      end
      function Agent:proceed(frame) return frame end]])
    assert_ends(app, 0.3, "idle_timeout", function() return app:connect() end)
    assert.same({ "idle 1", "idle 2", "idle 3", "closed idle_timeout" }, app:notes(1))
  end)

  it("is asked for a frame that does not complete, and for the first one", function()
    local app = start([[read = "100ms", first_frame = "300ms"]], [[
      function Agent:timeout(kind)
        note(kind)
        self.asked = (self.asked or 0) + 1
        return self.asked < 5
      end
      function Agent:proceed(frame) return frame end]])
    await_end(app, app:connect():send("\0"), "read_timeout")
    local asked = table.concat(app:notes(1), " ")
    assert.truthy(asked:find("^read read ") and asked:find("first_frame", 1, true), asked)
  end)

  it("is asked for a peer that does not read", function()
    local app = start([[write = "150ms"]], [[
      function Agent:timeout(kind)
        self.asked = (self.asked or 0) + 1
        note(kind .. " " .. self.asked)
        return self.asked < 2
      end
      function Agent:proceed() return ("x"):rep(3e7) end]])
    app:connect({ receive_buffer = 4096 }):send_frame("x")
    app:wait_log "closed write_timeout"
    assert.same({ "write 1", "write 2", "closed write_timeout" }, app:notes(1))
  end)

  it("may say a last word", function()
    local app = start([[idle = "100ms"]], [[
      function Agent:timeout(kind) return "too slow: " .. kind end
      function Agent:proceed(frame) return frame end]])
    local client = app:connect()
    assert.equal("too slow: idle", client:recv_frame())
    client:expect_closed()
    app:wait_log "closed idle_timeout"
  end)

  it("that fails ends the connection as a fault", function()
    local app = start([[idle = "100ms"]], [[
      function Agent:timeout() error("in timeout") end
      function Agent:proceed(frame) return frame end]])
    app:connect():expect_closed()
    app:wait_log(function(entry) return entry.error and entry.error:find("in timeout", 1, true) end)
    app:wait_log "closed error"
  end)
end)

describe("conn:set_timeout", function()
  after_each(server.finish)

  local SET = [[
    function Agent:proceed(what)
      local kind, duration = what:match("^(%S+) (%S+)$")
      if duration == "off" then duration = false end
      return tostring(self.conn:set_timeout(kind, duration))
    end]]

  it("is for this connection only", function()
    local app = start("", SET)
    local client, other = app:connect(), app:connect()
    client:send_frame("idle 150ms")
    assert.equal("true", client:recv_frame())
    await_end(app, client, "idle_timeout")
    other:expect_silence(0.2)
    other:send_frame("idle 60s")
    assert.equal("true", other:recv_frame())
  end)

  it("shortens a time-out that is already running", function()
    local app = start([[read = "60s"]], SET)
    local client = app:connect()
    assert_ends(app, 0.15, "read_timeout", function()
      client:send(frame("read 150ms") .. "\0")
      assert.equal("true", client:recv_frame())
      return client
    end)
  end)

  it("turns one off with false", function()
    local app = start([[idle = "200ms"]], SET)
    local client = app:connect():send_frame("idle off")
    assert.equal("true", client:recv_frame())
    client:expect_silence(0.5)
    client:send_frame("idle 100ms")
    assert.equal("true", client:recv_frame())
    await_end(app, client, "idle_timeout")
  end)

  it("refuses other kinds and durations", function()
    local app = start("", [[
      function Agent:proceed(what)
        if what == "kind" then return tostring(select(2, pcall(self.conn.set_timeout, self.conn, "idel", 1))) end
        if what == "none" then return tostring(select(2, pcall(self.conn.set_timeout, self.conn, "idle"))) end
        return tostring(select(2, pcall(self.conn.set_timeout, self.conn, "idle", "soon")))
      end]])
    local client = app:connect()
    client:send(frame("kind") .. frame("none") .. frame("duration"))
    assert.truthy(client:recv_frame():find("invalid option 'idel'", 1, true))
    assert.truthy(client:recv_frame():find("value expected", 1, true))
    assert.truthy(client:recv_frame():find("soon", 1, true))
  end)
end)

describe("time-outs that are off", function()
  after_each(server.finish)

  for _, off in ipairs { "0", "false" } do
    it("by " .. off .. " never fire", function()
      local app = start(("idle = %s, read = %s, first_frame = %s, write = %s"):format(off, off, off, off))
      local client = app:connect()
      client:expect_silence(0.2)
      client:send("\0\0")
      client:expect_silence(0.2)
      client:send("\0\1x")
      assert.equal("x", client:recv_frame())
    end)
  end
end)
