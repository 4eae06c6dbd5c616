local has = require "spec.support.has"
local server = require "spec.support.server"
local wait = require "spec.support.wait"

local start_lines = server.start_lines

local SLEEPER = [[
  function Agent:closed(reason) note("closed " .. reason) end
  function Agent:proceed(line)
    assert(not self.busy, "two proceeds at once")
    self.busy = true
    local duration = line:match("^sleep (.*)$")
    if duration then
      perilune.sleep(duration)
      note("woke")
    end
    self.busy = false
    return line
  end ]]

describe("perilune.sleep", function()
  after_each(server.finish)

  it("suspends its own agent and no other", function()
    local app = start_lines(SLEEPER)
    local sleeper, other = app:connect(), app:connect()
    sleeper:send("sleep 60s\n")
    for i = 1, 20 do other:echo_line("line " .. i) end
    sleeper:expect_silence(0.05)
  end)

  it("lasts as long as it was told, and not much longer", function()
    local app = start_lines(SLEEPER)
    local client, began = app:connect(), wait.now()
    client:echo_line("sleep 200ms")
    local took = wait.now() - began
    assert.is_true(took >= 0.199 and took < 0.2 + 0.5 * wait.SCALE, took .. " s")
  end)

  it("takes a number of seconds, and none at all", function()
    local app = start_lines [[
      function Agent:proceed(line)
        perilune.sleep(tonumber(line))
        return line
      end]]
    app:connect():echo_line("0.01"):echo_line("0")
  end)

  it("keeps the frames that arrive meanwhile, in order", function()
    local app = start_lines(SLEEPER)
    local client = app:connect():send("sleep 100ms\n"):send("a\nb\n"):send("c\n")
    for _, line in ipairs { "sleep 100ms", "a", "b", "c" } do assert.equal(line, client:recv_line()) end
  end)

  it("in the middle of many frames of one piece loses none, in order", function()
    local app = start_lines(SLEEPER)
    local lines = {}
    for i = 1, 400 do lines[i] = i % 9 == 0 and "sleep 1ms" or "line " .. i end
    local text = table.concat(lines, "\n") .. "\n"
    assert.equal(text, app:connect():send(text):recv_exact(#text))
  end)

  it("leaves the replies before it to be delivered at once", function()
    local app = start_lines(SLEEPER)
    local client = app:connect():send("a\nb\nsleep 60s\nc\n")
    assert.equal("a", client:recv_line())
    assert.equal("b", client:recv_line())
    client:expect_silence(0.05)
  end)

  it("in opened() makes the first frames wait", function()
    local app = start_lines [[
      function Agent:opened()
        perilune.sleep("50ms")
        self.ready = true
        return "ready"
      end
      function Agent:proceed(line) return line .. " " .. tostring(self.ready) end]]
    local client = app:connect():send("a\nb\n")
    for _, line in ipairs { "ready", "a true", "b true" } do assert.equal(line, client:recv_line()) end
  end)

  it("works inside pcall, and inside another function of the script", function()
    local app = start_lines [[
      local function deep(n) if n == 0 then perilune.sleep("5ms") return "slept" end return (deep(n - 1)) end
      function Agent:proceed() return select(2, pcall(deep, 20)) end]]
    app:connect():echo_line("x", "slept"):echo_line("x", "slept")
  end)

  it("of hundreds of agents at once wakes every one", function()
    local app = start_lines(SLEEPER)
    local clients = app:connect_many(300)
    for i, client in ipairs(clients) do client:send(("sleep %dms\n"):format(20 + i % 60)) end
    for i, client in ipairs(clients) do assert.equal(("sleep %dms"):format(20 + i % 60), client:recv_line()) end
    assert.equal(300, app:stop().summary.suspensions)
  end)

  describe("that a disconnect interrupts never goes on:", function()
    it("the peer closed", function()
      local app = start_lines(SLEEPER)
      local client = app:connect():send("sleep 1500ms\n")
      app:connect():echo_line("served by the same worker")
      client:close()
      app:wait_log({ message = "closed peer", conn = 1 }, 1 / wait.SCALE)
      wait.while_true("the sleep stays cancelled", function() return #app:find_log "woke" == 0 end, 1.6)
    end)

    it("the peer reset", function()
      local app = start_lines(SLEEPER)
      local client = app:connect():send("sleep 60s\n")
      app:connect():echo_line("served by the same worker")
      client:reset()
      app:wait_log { message = "closed reset", conn = 1 }
    end)

    it("another agent closed it", function()
      local app = start_lines [[
        local first
        function Agent:opened() first = first or self.conn end
        function Agent:closed(reason) note("closed " .. reason) end
        function Agent:proceed(line)
          if line == "sleep" then
            self.conn:send("asleep")
            perilune.sleep(60)
            note("woke")
          end
          return tostring(first:close())
        end]]
      local sleeper = app:connect():send("sleep\n")
      assert.equal("asleep", sleeper:recv_line())
      app:connect():echo_line("close", "true")
      sleeper:expect_closed()
      app:wait_log { message = "closed agent", conn = 1 }
    end)
  end)

  describe("is a clear error", function()
    local function error_of(body)
      local app = start_lines(body)
      app:connect():send("x\n"):recv_all()
      return app:wait_log("handler failed").error
    end

    it("inside a coroutine of the handler's own", function()
      has("perilune.sleep: cannot wait inside a coroutine of the handler's own",
        error_of [[function Agent:proceed() coroutine.wrap(function() perilune.sleep(1) end)() end]])
    end)

    it("in closed()", function()
      has("perilune.sleep: closed() must not wait", error_of [[
        function Agent:proceed() return "x", "close" end
        function Agent:closed() perilune.sleep(1) end]])
    end)

    it("in failed() and in defer", function()
      local app = start_lines [[
        function Agent:proceed()
          self.conn:defer(function() perilune.sleep(1) end)
          error("as asked")
        end
        function Agent:failed() perilune.sleep(1) end]]
      app:connect():send("x\n"):expect_closed()
      for _, name in ipairs { "failed", "defer" } do
        app:wait_log(function(entry) return entry.error and entry.error:find(name .. "() must not wait", 1, true) end)
      end
    end)

    it("with something that is no duration", function()
      has("soon", error_of [[function Agent:proceed() perilune.sleep("soon") end]])
      has("-1", error_of [[function Agent:proceed() perilune.sleep(-1) end]])
      has("value expected", error_of [[function Agent:proceed() perilune.sleep() end]])
    end)
  end)

  it("is what plain coroutine.yield is not: that is an error", function()
    local app = start_lines [[function Agent:proceed() coroutine.yield("x") end]]
    app:connect():send("x\n"):expect_closed()
    has("coroutine.yield() outside of a coroutine of the handler's own", app:wait_log("handler failed").error)
  end)

  it("leaves the handler's own coroutines alone", function()
    local app = start_lines [[
      function Agent:proceed()
        local out = {}
        for i in coroutine.wrap(function() for i = 1, 3 do coroutine.yield(i) end end) do out[i] = i end
        perilune.sleep("1ms")
        return table.concat(out, ",")
      end]]
    app:connect():echo_line("x", "1,2,3")
  end)
end)

describe("the inbox of a suspended agent", function()
  after_each(server.finish)

  local COUNTER = [[
    local sleeping
    function Agent:proceed(line)
      self.seen = (self.seen or 0) + 1
      if line == "sleep" then
        note("asleep")
        while not sleeping do perilune.sleep("20ms") end
      elseif line == "wake" then
        sleeping = true
        return line
      elseif line == "count" then
        return tostring(self.seen)
      end
    end ]]

  -- Sends lines until nothing has been taken for a while; returns how many bytes were, at most `max`.
  local function fill(client, line, max)
    local sent, since = 0, wait.now()
    while wait.now() - since < 0.3 and sent < max do
      local n = client:send_some(line:rep(1000):sub(1 + sent % #line))
      if n > 0 then since = wait.now() end
      sent = sent + n
    end
    return sent
  end

  it("is bounded in frames: the socket is no longer read, and nothing is lost", function()
    local app = start_lines(COUNTER, nil, [[limits = { inbox = 16 }]])
    local client, other = app:connect { send_buffer = 16384 }, app:connect()
    client:send("sleep\n")
    app:wait_log "asleep"
    local line, max = "frame of 15 by\n", 48e6
    local sent = fill(client, line, max)
    assert.is_true(sent < max, "it read on")
    other:echo_line("wake")
    client:send(line:rep(2):sub(1 + sent % #line, #line)):send("count\n")
    assert.equal(tostring(2 + math.floor(sent / #line) + 1), client:recv_line())
  end)

  it("is bounded in bytes", function()
    local app = start_lines(COUNTER, { asan = server.SMALL_QUARANTINE },
      [[limits = { inbox = 1000000, frame = "64k" }]])
    local client = app:connect { send_buffer = 16384 }
    client:send("sleep\n")
    app:wait_log "asleep"
    local before = app:rss()
    assert.is_true(fill(client, ("y"):rep(60000) .. "\n", 48e6) < 48e6, "it read on")
    local grown = app:rss() - before
    assert.is_true(not server.measures_memory or grown < 4e6, "it grew by " .. grown)
    client:reset()
  end)
end)

describe("conn:read", function()
  after_each(server.finish)

  local READER = [[
    function Agent:closed(reason) note("closed " .. reason) end
    function Agent:proceed(line)
      local what, argument = line:match("^(%a+) ?(.*)$")
      local frame, why, code
      if what == "next" then frame, why, code = self.conn:read() end
      if what == "raw" then frame, why, code = self.conn:read("raw") end
      if what == "line" then frame, why, code = self.conn:read("line") end
      if what == "fixed" then frame, why, code = self.conn:read({ "fixed", tonumber(argument) }) end
      if what == "within" then frame, why, code = self.conn:read(nil, argument) end
      if what == "echo" then return argument end
      return ("%s %s %s"):format(tostring(frame), tostring(why), tostring(code))
    end ]]

  it("gives the next frame to the handler that asks", function()
    local app = start_lines(READER)
    local client = app:connect():send("next\n")
    client:send("blue\necho x\n")
    assert.equal("blue nil nil", client:recv_line())
    assert.equal("x", client:recv_line())
  end)

  local STREAM = "echo a\nnext\nblue\nfixed 5\nab\nde" .. "fixed 3\nxyz" .. "echo b\n" .. "line\nend\necho c\n"
  local ANSWER = "a\nblue nil nil\nab\nde nil nil\nxyz nil nil\nb\nend nil nil\nc\n"

  it("finds it, by any framing, in the bytes that have been received", function()
    local app = start_lines(READER)
    assert.equal(ANSWER, app:connect():send(STREAM):recv_exact(#ANSWER))
  end)

  it("finds the same when the bytes arrive one at a time", function()
    local app = start_lines(READER)
    assert.equal(ANSWER, app:connect():trickle(STREAM):recv_exact(#ANSWER))
  end)

  it("finds the same wherever the stream is cut in two", function()
    local app = start_lines(READER)
    for cut = 1, #STREAM - 1 do
      local client = app:connect():send(STREAM:sub(1, cut))
      client:send(STREAM:sub(cut + 1))
      assert.equal(ANSWER, client:recv_exact(#ANSWER))
      client:close()
    end
  end)

  it("of raw bytes takes what there is", function()
    local app = start_lines(READER)
    local client = app:connect():send("raw\nabc")
    assert.equal("abc nil nil", client:recv_line())
    client:send("raw\n")
    client:expect_silence(0.05)
    client:send("later")
    assert.equal("later nil nil", client:recv_line())
    client:echo_line("echo x", "x")
  end)

  it("gives up after its time-out, and the frame that comes later is an ordinary one", function()
    local app = start_lines(READER)
    local client = app:connect()
    client:echo_line("within 50ms", "nil timeout ETIMEDOUT")
    client:echo_line("echo late", "late")
    client:send("within 5s\n"):send("in time\n")
    assert.equal("in time nil nil", client:recv_line())
  end)

  it("tells that what came is no frame, and its reply is delivered before the end", function()
    local app = start_lines([[
      function Agent:closed(reason) note("closed " .. reason) end
      function Agent:proceed(line)
        local frame, message, code = self.conn:read(line)
        self.conn:send(("%s %s %s"):format(frame, message, code))
        self.conn:read() -- nothing comes any more, and nothing is waited for
        note "never"
      end]], nil, [[limits = { frame = 10 }]])
    local client = app:connect():send("u16be\n\0\11" .. ("x"):rep(11))
    assert.equal("nil frame too large: 11 > 10 EMSGSIZE\n", (client:recv_all()))
    app:wait_log "closed oversize"
    client = app:connect():send("netstring\nno:")
    assert.equal("nil malformed netstring EPROTO\n", (client:recv_all()))
    app:wait_log "closed frame_error"
    assert.is_nil(app:find_log("never")[1])
  end)

  it("tells the end of the stream, and its reply is delivered", function()
    local app = start_lines(READER)
    local client = app:connect():send("next\n"):shutdown("send")
    assert.equal("nil end of stream EOF\n", (client:recv_all()))
    app:wait_log "closed peer"
  end)

  it("tells the end of the stream after a part of a frame", function()
    local app = start_lines(READER)
    local client = app:connect():send("fixed 5\nabc"):shutdown("send")
    assert.equal("nil end of stream EOF\n", (client:recv_all()))
  end)

  it("again and again past the end tells it each time", function()
    local app = start_lines [[
      function Agent:proceed()
        local times = 0
        while times < 3 and not self.conn:read() do times = times + 1 end
        return tostring(times)
      end]]
    local client = app:connect():send("x\n"):shutdown("send")
    assert.equal("3\n", (client:recv_all()))
  end)

  it("ends with the connection when the peer resets", function()
    local app = start_lines(READER)
    local client = app:connect():send("next\n")
    app:connect():echo_line("echo x", "x")
    client:reset()
    app:wait_log { message = "closed reset", conn = 1 }
  end)

  it("meets the limits of frames: one too large ends the connection", function()
    local app = start_lines(READER, nil, [[limits = { frame = 100 }]])
    app:connect():send("next\n" .. ("x"):rep(200)):recv_all()
    app:wait_log "closed oversize"
    has("frame too large", app:wait_log("bad frame").error)
  end)

  it("reads the handler's own connection only", function()
    local app = start_lines [[
      local first
      function Agent:opened() first = first or self.conn end
      function Agent:proceed() return tostring(select(2, pcall(first.read, first))) end]]
    app:connect()
    local second = app:connect():send("x\n")
    has("a handler can read from its own connection only", second:recv_line())
  end)

  it("refuses what is no framing", function()
    local app = start_lines [[
      function Agent:proceed() return tostring(select(2, pcall(self.conn.read, self.conn, "u32eb"))) end]]
    has([[did you mean "u32be"?]], app:connect():send("x\n"):recv_line())
  end)
end)

describe("a half-close", function()
  after_each(server.finish)

  it("ends the connection once all replies are delivered", function()
    local app = start_lines [[
      function Agent:closed(reason) note("closed " .. reason) end
      function Agent:proceed(line) return line:rep(1e5) end]]
    local client = app:connect():send(("x\n"):rep(30)):shutdown("send")
    local bytes, how = client:recv_all()
    assert.equal(30 * (1e5 + 1), #bytes)
    assert.equal("closed", how)
    app:wait_log "closed peer"
  end)

  it("drops a part of a frame", function()
    local app = start_lines [[function Agent:proceed(line) return line end]]
    assert.equal("a\n", (app:connect():send("a\nb"):shutdown("send"):recv_all()))
    assert.equal("peer=1", app:stop().summary.reasons)
  end)

  it("lets an agent that knows of it say a last word", function()
    local app = start_lines [[
      function Agent:eof() return "bye" end
      function Agent:proceed(line) return line end]]
    assert.equal("a\nbye\n", (app:connect():send("a\n"):shutdown("send"):recv_all()))
  end)

  it("lets an agent go on to write whose eof() says true", function()
    local app = start_lines [[
      local first
      function Agent:opened() first = first or self.conn end
      function Agent:closed(reason) note("closed " .. reason) end
      function Agent:eof() note("eof") return true end
      function Agent:proceed(line)
        if line == "close" then return tostring(first:close()) end
        return tostring(first:send(line))
      end]]
    local first, other = app:connect():shutdown("send"), app:connect()
    app:wait_log { message = "eof", conn = 1 }
    other:echo_line("hello", "true"):echo_line("again", "true")
    assert.equal("hello", first:recv_line())
    assert.equal("again", first:recv_line())
    other:echo_line("close", "true")
    first:expect_closed()
    app:wait_log { message = "closed agent", conn = 1 }
    assert.same({ "eof", "closed agent" }, app:notes(1))
  end)

  it("lets eof() take its time", function()
    local app = start_lines [[
      function Agent:eof()
        self.conn:send("first")
        perilune.sleep("50ms")
        return "last"
      end
      function Agent:closed(reason) note("closed " .. reason) end
      function Agent:proceed(line) return line end]]
    assert.equal("a\nfirst\nlast\n", (app:connect():send("a\n"):shutdown("send"):recv_all()))
    app:wait_log "closed peer"
  end)

  it("cancels what an agent waits for that does not know of it", function()
    local app = start_lines(SLEEPER)
    local client = app:connect():send("a\nsleep 60s\nb\n"):shutdown("send")
    assert.equal("a\n", (client:recv_all()))
    app:wait_log "closed peer"
    assert.equal(0, #app:find_log "woke")
  end)

  it("lets an agent that knows of it finish what it is at, and the frames that wait", function()
    local app = start_lines(SLEEPER .. [[ function Agent:eof() return "bye" end ]])
    local client = app:connect():send("a\nsleep 100ms\nb\nc\n"):shutdown("send")
    assert.equal("a\nsleep 100ms\nb\nc\nbye\n", (client:recv_all()))
    app:wait_log "closed peer"
  end)
end)

describe("a wait", function()
  after_each(server.finish)

  -- Each leaves a connection in a state in which its socket could be reported ready again and again.
  local cases = {
    { "of a suspended agent with more input than its inbox takes", "sleep 60s\n" .. ("x\n"):rep(100) },
    { "of a suspended agent whose peer has half-closed", "sleep 60s\nx\n", true },
    { "of a paused agent with input", "pause\nx\n" },
    { "of a paused agent whose peer has half-closed", "pause\nx\n", true },
    { "of an agent that goes on after its peer has half-closed", "x\n", true },
    { "for a peer that does not read", "big\nx\n" },
    { "for the rest of a frame", "x" },
  }
  for _, case in ipairs(cases) do
    it(case[1] .. " costs no processor time", function()
      local app = start_lines([[
        function Agent:eof() return true end
        function Agent:proceed(line)
          if line == "pause" then self.conn:pause() end
          if line == "big" then return ("x"):rep(2e7) end
          local duration = line:match("^sleep (.*)$")
          if duration then perilune.sleep(duration) end
        end]], nil, "limits = { inbox = 4 }")
      local client = app:connect { receive_buffer = 4096 }
      client:send(case[2])
      if case[3] then client:shutdown("send") end
      -- What it was sent is work, and takes as long as it takes; then it has to come to rest.
      wait.until_true("a half second in which the server does nothing", function()
        local before = app:cpu()
        wait.pause(0.5)
        return app:cpu() - before <= 0.02
      end, 10)
      client:reset()
    end)
  end
end)

describe("a wait below a call of C", function()
  after_each(server.finish)

  for name, call in pairs { sleep = "perilune.sleep('50ms')", read = "self.conn:read()" } do
    it("is an error, and none that a later yield takes for its own: " .. name, function()
      local app = start_lines(([[
        function Agent:proceed()
          self.ok, self.err = pcall(table.sort, { 1, 2 }, function() %s end)
          self.conn:send(self.ok and "slept" or self.err)
          coroutine.yield()
          return "woke"
        end]]):format(call))
      local client = app:connect():send("x\n")
      has("yield across C-call boundary", client:recv_line())
      assert.equal("", (client:recv_all()))
      has("coroutine.yield() outside of a coroutine", app:wait_log("handler failed").error)
    end)
  end
end)

describe("conn:flush that waits", function()
  after_each(server.finish)

  it("is cancelled by a disconnect", function()
    local app = start_lines [[
      function Agent:closed(reason) note("closed " .. reason) end
      function Agent:proceed()
        self.conn:send(("x"):rep(2e7))
        note("flushing")
        self.conn:flush()
        note("flushed")
      end]]
    local client = app:connect { receive_buffer = 4096 }
    client:send("x\n")
    app:wait_log "flushing"
    client:recv_exact(1000)
    client:reset()
    app:wait_log "closed reset"
    assert.equal(0, #app:find_log "flushed")
  end)
end)
