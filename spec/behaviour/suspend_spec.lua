--- Handlers that wait: sleeps, reads, flushes, the frames that come meanwhile, and the ends that interrupt them.
local has = require "spec.support.has"
local memory = require "spec.support.memory"

local core = require "perilune"

local lines, raw, note, notes, count = memory.lines, memory.raw, memory.note, memory.notes, memory.count

local function sleeper()
  local Agent = {}
  function Agent:closed(reason) note("closed " .. reason) end
  function Agent:proceed(line)
    assert(not self.busy, "two proceeds at once")
    self.busy = true
    local duration = line:match("^sleep (.*)$")
    if duration then
      core.sleep(duration)
      note("woke")
    end
    self.busy = false
    return line
  end
  return Agent
end

describe("perilune.sleep", function()
  after_each(memory.finish)

  it("suspends its own agent and no other", function()
    local app = lines(sleeper())
    local asleep, other = app:connect(), app:connect()
    asleep:send("sleep 60s")
    for i = 1, 20 do other:send("line " .. i):expect("line " .. i) end
    app:advance("59s")
    asleep:expect_nothing()
  end)

  it("lasts as long as it was told, and no longer", function()
    local app = lines(sleeper())
    local client = app:connect():send("sleep 200ms")
    app:advance("199ms")
    client:expect_nothing()
    app:advance("1ms")
    client:expect("sleep 200ms")
  end)

  it("takes a number of seconds, and none at all", function()
    local Agent = {}
    function Agent:proceed(line)
      core.sleep(tonumber(line))
      return line
    end
    local app = lines(Agent)
    local client = app:connect():send("0.01"):expect_nothing()
    app:advance("10ms")
    client:expect("0.01"):send("0"):expect("0")
  end)

  it("keeps the frames that arrive meanwhile, in order", function()
    local app = lines(sleeper())
    local client = app:connect():send("sleep 100ms"):send("a", "b"):send("c"):expect_nothing()
    app:advance("100ms")
    client:expect("sleep 100ms", "a", "b", "c")
  end)

  it("in the middle of many frames of one piece loses none, in order", function()
    local app = lines(sleeper())
    local all = {}
    for i = 1, 400 do all[i] = i % 9 == 0 and "sleep 1ms" or "line " .. i end
    local client = app:connect():send(unpack(all))
    app:advance("44ms")
    assert.same(all, client:frames())
  end)

  it("leaves the replies before it to be delivered at once", function()
    local app = lines(sleeper())
    local client = app:connect():send("a", "b", "sleep 60s", "c"):expect("a", "b")
    app:advance("59s")
    client:expect_nothing()
  end)

  it("in opened() makes the first frames wait", function()
    local Agent = {}
    function Agent:opened()
      core.sleep("50ms")
      self.ready = true
      return "ready"
    end
    function Agent:proceed(line) return line .. " " .. tostring(self.ready) end
    local app = lines(Agent)
    local client = app:connect():send("a", "b"):expect_nothing()
    app:advance("50ms")
    client:expect("ready", "a true", "b true")
  end)

  it("works inside pcall, and inside another function of the script", function()
    local function deep(n)
      if n == 0 then
        core.sleep("5ms")
        return "slept"
      end
      return (deep(n - 1))
    end
    local app = lines { proceed = function() return select(2, pcall(deep, 20)) end }
    local client = app:connect()
    for _ = 1, 2 do
      client:send("x"):expect_nothing()
      app:advance("5ms")
      client:expect("slept")
    end
  end)

  it("of hundreds of agents at once wakes every one", function()
    local app = lines(sleeper())
    local clients = memory.connect_many(app, 300)
    for i, client in ipairs(clients) do client:send(("sleep %dms"):format(20 + i % 60)) end
    app:advance("79ms")
    for i, client in ipairs(clients) do client:expect(("sleep %dms"):format(20 + i % 60)) end
    assert.equal(300, app:counters().suspensions)
  end)

  describe("that a disconnect interrupts never goes on:", function()
    it("the peer closed", function()
      local app = lines(sleeper())
      local client = app:connect():send("sleep 1500ms")
      app:connect():send("served by the same worker"):expect("served by the same worker")
      client:close():expect_closed("peer")
      assert.same({ "closed peer" }, notes(app, 1))
      app:advance("5m")
      assert.equal(0, count(app, "woke"))
    end)

    it("the peer reset", function()
      local app = lines(sleeper())
      app:connect():send("sleep 60s"):reset():expect_closed("reset")
      app:advance("5m")
      assert.same({ "closed reset" }, notes(app, 1))
    end)

    it("another agent closed it", function()
      local first
      local Agent = {}
      function Agent:opened() first = first or self.conn end
      function Agent:closed(reason) note("closed " .. reason) end
      function Agent:proceed(line)
        if line == "sleep" then
          self.conn:send("asleep")
          core.sleep(60)
          note("woke")
        end
        return tostring(first:close())
      end
      local app = lines(Agent)
      local asleep = app:connect():send("sleep"):expect("asleep")
      app:connect():send("close"):expect("true")
      asleep:expect_closed("agent")
      app:advance("5m")
      assert.same({ "closed agent" }, notes(app, 1))
    end)
  end)

  describe("is a clear error", function()
    local function error_of(Agent)
      local app = lines(Agent)
      app:connect():send("x")
      return memory.error_of(app)
    end

    it("inside a coroutine of the handler's own", function()
      has("perilune.sleep: cannot wait inside a coroutine of the handler's own", error_of {
        proceed = function() coroutine.wrap(function() core.sleep(1) end)() end,
      })
    end)

    it("in closed()", function()
      has("perilune.sleep: closed() must not wait", error_of {
        proceed = function() return "x", "close" end, closed = function() core.sleep(1) end,
      })
    end)

    it("in failed() and in defer", function()
      local Agent = {}
      function Agent:proceed()
        self.conn:defer(function() core.sleep(1) end)
        error("as asked")
      end
      function Agent:failed() core.sleep(1) end
      local app = lines(Agent)
      app:connect():send("x"):expect_closed("error")
      for i, name in ipairs { "failed", "defer" } do has(name .. "() must not wait", memory.error_of(app, i + 1)) end
    end)

    it("with something that is no duration", function()
      has("soon", error_of { proceed = function() core.sleep("soon") end })
      has("-1", error_of { proceed = function() core.sleep(-1) end })
      has("value expected", error_of { proceed = function() core.sleep() end })
    end)
  end)

  it("is what plain coroutine.yield is not: that is an error", function()
    local app = lines { proceed = function() coroutine.yield("x") end }
    app:connect():send("x"):expect_closed("error")
    has("coroutine.yield() outside of a coroutine of the handler's own", memory.error_of(app))
  end)

  it("leaves the handler's own coroutines alone", function()
    local Agent = {}
    function Agent:proceed()
      local out = {}
      for i in coroutine.wrap(function() for i = 1, 3 do coroutine.yield(i) end end) do out[i] = i end
      core.sleep("1ms")
      return table.concat(out, ",")
    end
    local app = lines(Agent)
    local client = app:connect():send("x")
    app:advance("1ms")
    client:expect("1,2,3")
  end)
end)

describe("the inbox of a suspended agent", function()
  after_each(memory.finish)

  local function counter()
    local awake
    local Agent = {}
    function Agent:proceed(line)
      self.seen = (self.seen or 0) + 1
      if line == "sleep" then
        while not awake do core.sleep("20ms") end
      elseif line == "wake" then
        awake = true
        return line
      elseif line == "count" then
        return tostring(self.seen)
      end
    end
    return Agent
  end

  -- Sends so many lines and tells how many bytes of all were taken.
  local function fill(app, client, line, n)
    for _ = 1, n do client:send(line) end
    return app:counters().bytes_in
  end

  it("is bounded in frames: the socket is no longer read, and nothing is lost", function()
    local app = lines(counter(), { limits = { inbox = 16 } })
    local client, other = app:connect { read_max = 15 }, app:connect() -- a read brings one frame
    client:send("sleep")
    local taken = fill(app, client, "frame of 15 by", 1000)
    assert.is_true(taken < 20 * 15, "it read on: " .. taken)
    other:send("wake"):expect("wake")
    app:advance("20ms")
    client:send("count"):expect(tostring(1002))
  end)

  it("is bounded in bytes", function()
    local app = lines(counter(), { limits = { inbox = 1000000, frame = "64k" } })
    local client = app:connect():send("sleep")
    local taken = fill(app, client, ("y"):rep(60000), 800)
    assert.is_true(taken < 4e6, "it read on: " .. taken)
    assert.equal(taken, fill(app, client, ("y"):rep(60000), 1))
    client:reset():expect_closed("reset")
  end)
end)

describe("conn:read", function()
  after_each(memory.finish)

  local function reader()
    local Agent = {}
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
    end
    return Agent
  end

  it("gives the next frame to the handler that asks", function()
    lines(reader()):connect():send("next"):expect_nothing():send("blue", "echo x"):expect("blue nil nil", "x")
  end)

  local STREAM = "echo a\nnext\nblue\nfixed 5\nab\nde" .. "fixed 3\nxyz" .. "echo b\n" .. "line\nend\necho c\n"
  local ANSWER = "a\nblue nil nil\nab\nde nil nil\nxyz nil nil\nb\nend nil nil\nc\n"

  it("finds it, by any framing, in the bytes that have been received", function()
    assert.equal(ANSWER, memory.bytes(raw(lines(reader())):send(STREAM)))
  end)

  it("finds the same when the bytes arrive one at a time", function()
    assert.equal(ANSWER, memory.bytes(raw(lines(reader())):send_split(STREAM)))
  end)

  it("finds the same wherever the stream is cut in two", function()
    local app = lines(reader())
    for cut = 1, #STREAM - 1 do
      local client = raw(app):send(STREAM:sub(1, cut)):send(STREAM:sub(cut + 1))
      assert.equal(ANSWER, memory.bytes(client))
      client:close()
    end
  end)

  it("of raw bytes takes what there is", function()
    local client = lines(reader()):connect():send_raw("raw\nabc"):expect("abc nil nil")
    client:send("raw"):expect_nothing():send_raw("later"):expect("later nil nil"):send("echo x"):expect("x")
  end)

  it("gives up after its time-out, and the frame that comes later is an ordinary one", function()
    local app = lines(reader())
    local client = app:connect():send("within 50ms")
    app:advance("49ms")
    client:expect_nothing()
    app:advance("1ms")
    client:expect("nil timeout ETIMEDOUT"):send("echo late"):expect("late")
    client:send("within 5s")
    app:advance("4999ms")
    client:send("in time"):expect("in time nil nil")
  end)

  it("tells that what came is no frame, and its reply is delivered before the end", function()
    local Agent = {}
    function Agent:closed(reason) note("closed " .. reason) end
    function Agent:proceed(line)
      local frame, message, code = self.conn:read(line)
      self.conn:send(("%s %s %s"):format(frame, message, code))
      self.conn:read() -- nothing comes any more, and nothing is waited for
      note "never"
    end
    local app = lines(Agent, { limits = { frame = 10 } })
    local function bytes(sent, reason)
      local client = raw(app):send(sent):expect_closed(reason)
      return memory.bytes(client)
    end
    assert.equal("nil frame too large: 11 > 10 EMSGSIZE\n", bytes("u16be\n\0\11" .. ("x"):rep(11), "oversize"))
    assert.same({ "closed oversize" }, notes(app, 1))
    assert.equal("nil malformed netstring EPROTO\n", bytes("netstring\nno:", "frame_error"))
    assert.same({ "closed frame_error" }, notes(app, 2))
  end)

  it("tells the end of the stream, and its reply is delivered", function()
    lines(reader()):connect():send("next"):half_close():expect("nil end of stream EOF"):expect_closed("peer")
  end)

  it("tells the end of the stream after a part of a frame", function()
    local client = lines(reader()):connect():send_raw("fixed 5\nabc"):half_close()
    client:expect("nil end of stream EOF"):expect_nothing():expect_closed("peer")
  end)

  it("in eof() tells the end of the stream at once, after what is left of a frame", function()
    local Agent = memory.echo()
    function Agent:eof()
      local rest = self.conn:read "raw"
      local _, message, code = self.conn:read()
      return ("%s %s %s"):format(rest, message, code), "close"
    end
    lines(Agent):connect():send_raw("abc"):half_close():expect("abc end of stream EOF"):expect_closed("agent")
    lines(Agent):connect():send("x"):half_close():expect("x"):expect("nil end of stream EOF"):expect_closed("agent")
  end)

  it("again and again past the end tells it each time", function()
    local Agent = {}
    function Agent:proceed()
      local times = 0
      while times < 3 and not self.conn:read() do times = times + 1 end
      return tostring(times)
    end
    lines(Agent):connect():send("x"):half_close():expect("3"):expect_closed("peer")
  end)

  it("ends with the connection when the peer resets", function()
    local app = lines(reader())
    local client = app:connect():send("next")
    app:connect():send("echo x"):expect("x")
    client:reset():expect_closed("reset")
    assert.same({ "closed reset" }, notes(app, 1))
  end)

  it("meets the limits of frames: one too large ends the connection", function()
    local app = lines(reader(), { limits = { frame = 100 } })
    app:connect():send_raw("next\n" .. ("x"):rep(200)):expect_closed("oversize")
    assert.same({ "closed oversize" }, notes(app, 1))
    has("frame too large", app:log("bad frame")[1].error)
  end)

  it("reads the handler's own connection only", function()
    local first
    local Agent = {}
    function Agent:opened() first = first or self.conn end
    function Agent:proceed() return tostring(select(2, pcall(first.read, first))) end
    local app = lines(Agent)
    app:connect()
    has("a handler can read from its own connection only", app:connect():send("x"):receive())
  end)

  it("refuses what is no framing", function()
    local Agent = {}
    function Agent:proceed() return tostring(select(2, pcall(self.conn.read, self.conn, "u32eb"))) end
    has([[did you mean "u32be"?]], lines(Agent):connect():send("x"):receive())
  end)
end)

describe("a half-close", function()
  after_each(memory.finish)

  it("ends the connection once all replies are delivered", function()
    local Agent = {}
    function Agent:closed(reason) note("closed " .. reason) end
    function Agent:proceed(line) return line:rep(1e5) end
    local app = lines(Agent)
    local client = raw(app):stall():send(("x\n"):rep(30)):half_close()
    assert.is_nil(client:closed())
    client:unstall():expect_closed("peer")
    assert.equal(30 * (1e5 + 1), #memory.bytes(client))
    assert.same({ "closed peer" }, notes(app, 1))
  end)

  it("drops a part of a frame", function()
    local client = lines(memory.echo()):connect():send_raw("a\nb"):half_close()
    client:expect("a"):expect_nothing():expect_closed("peer")
  end)

  it("lets an agent that knows of it say a last word", function()
    local Agent = memory.echo()
    function Agent:eof() return "bye" end
    lines(Agent):connect():send("a"):half_close():expect("a", "bye"):expect_closed("peer")
  end)

  it("lets an agent go on to write whose eof() says true", function()
    local first
    local Agent = {}
    function Agent:opened() first = first or self.conn end
    function Agent:closed(reason) note("closed " .. reason) end
    function Agent:eof() note("eof") return true end
    function Agent:proceed(line)
      if line == "close" then return tostring(first:close()) end
      return tostring(first:send(line))
    end
    local app = lines(Agent)
    local kept, other = app:connect():half_close(), app:connect()
    assert.same({ "eof" }, notes(app, 1))
    other:send("hello"):expect("true"):send("again"):expect("true")
    kept:expect("hello", "again")
    other:send("close"):expect("true")
    kept:expect_closed("agent")
    assert.same({ "eof", "closed agent" }, notes(app, 1))
    other:close()
  end)

  it("lets eof() take its time", function()
    local Agent = memory.echo()
    function Agent:eof()
      self.conn:send("first")
      core.sleep("50ms")
      return "last"
    end
    local app = lines(Agent)
    local client = app:connect():send("a"):half_close():expect("a", "first"):expect_nothing()
    app:advance("50ms")
    client:expect("last"):expect_closed("peer")
  end)

  it("cancels what an agent waits for that does not know of it", function()
    local app = lines(sleeper())
    app:connect():send("a", "sleep 60s", "b"):half_close():expect("a"):expect_nothing():expect_closed("peer")
    app:advance("5m")
    assert.same({ "closed peer" }, notes(app, 1))
  end)

  it("lets an agent that knows of it finish what it is at, and the frames that wait", function()
    local Agent = sleeper()
    function Agent:eof() return "bye" end
    local app = lines(Agent)
    local client = app:connect():send("a", "sleep 100ms", "b", "c"):half_close():expect("a"):expect_nothing()
    app:advance("100ms")
    client:expect("sleep 100ms", "b", "c", "bye"):expect_closed("peer")
  end)
end)

describe("a wait below a call of C", function()
  after_each(memory.finish)

  for name, wait in pairs {
    sleep = function() core.sleep("50ms") end, read = function(agent) agent.conn:read() end,
  } do
    it("is an error, and none that a later yield takes for its own: " .. name, function()
      local Agent = {}
      function Agent:proceed()
        self.ok, self.err = pcall(table.sort, { 1, 2 }, function() wait(self) end)
        self.conn:send(self.ok and "slept" or self.err)
        coroutine.yield()
        return "woke"
      end
      local app = lines(Agent)
      local client = app:connect():send("x")
      has("yield across C-call boundary", client:receive())
      client:expect_nothing():expect_closed("error")
      has("coroutine.yield() outside of a coroutine", memory.error_of(app))
    end)
  end
end)

describe("conn:flush that waits", function()
  after_each(memory.finish)

  it("is cancelled by a disconnect", function()
    local Agent = {}
    function Agent:closed(reason) note("closed " .. reason) end
    function Agent:proceed()
      self.conn:send(("x"):rep(2e6))
      note("flushing")
      self.conn:flush()
      note("flushed")
    end
    local app = lines(Agent)
    local client = raw(app):stall():send("x\n")
    assert.same({ "flushing" }, notes(app, 1))
    assert.equal(1000, #client:stall(1000):receive())
    client:reset():expect_closed("reset")
    assert.same({ "flushing", "closed reset" }, notes(app, 1))
  end)
end)

describe("timeout.proceed", function()
  after_each(memory.finish)

  local function app_with(body)
    return memory.script_lines([[
      function Agent:closed(reason) note("closed " .. reason) end
      function Agent:failed(err, callback) return callback .. ": " .. err end
      ]] .. body, "timeout = { proceed = '5s', idle = false }")
  end

  local OVER = ": it took over 5 s, its waits included (timeout.proceed)"

  for what, wait in pairs {
    sleeps = "perilune.sleep '1h'", ["sleeps again and again"] = "while true do perilune.sleep '1s' end",
    reads = "self.conn:read()", joins = "perilune.spawn(perilune.sleep, 3600):join()",
    ["waits in a channel"] = "perilune.channel():receive()",
    flushes = "self.conn:send(('x'):rep(2e6)) self.conn:flush()",
    ["reads with a time-out of its own"] = "while true do self.conn:read(nil, '3s') end",
    ["waits as a callback of a timer"] = "perilune.after(0, function() perilune.sleep '1h' end)",
  } do
    it("ends a call that " .. what, function()
      local app = app_with("function Agent:proceed(line) if line == 'go' then " .. wait .. " end return line end")
      local client = app:connect()
      if what == "flushes" then client:stall() end
      client:send "go"
      if what:find "timer" then client:expect "go" end
      app:advance "4999ms"
      assert.same({}, memory.notes(app, 1))
      app:advance "1ms"
      local callback = what:find "timer" and "timer" or "proceed"
      if what ~= "flushes" then client:expect(callback .. OVER):expect_closed "proceed_timeout" end
      local fault = app:log("handler failed")[1]
      assert.equal(callback .. OVER, callback .. ": " .. fault.error)
      assert.truthy(fault.traceback:find "^app.lua:4: in " or fault.traceback:find "^app.lua:%d+: in ", fault.traceback)
      if what ~= "flushes" then assert.same({ "closed proceed_timeout" }, memory.notes(app, 1)) end
    end)
  end

  it("lets those be that are over in time, call by call, and keeps what was replied before", function()
    local app = app_with [[
      function Agent:opened() perilune.sleep "4s" return "hello" end
      function Agent:proceed(line) perilune.sleep(line) return line end]]
    local client = app:connect():send("3s", "4s", "1h", "never")
    app:advance "4s"
    client:expect "hello"
    app:advance "7s"
    client:expect("3s", "4s")
    app:advance "5s"
    client:expect("proceed" .. OVER):expect_closed "proceed_timeout"
  end)

  it("lets tasks run for longer", function()
    local app = app_with [[
      function Agent:proceed(line)
        perilune.spawn(function() perilune.sleep "1m" self.conn:send "done" end)
        return "begun"
      end]]
    local client = app:connect():send("x"):expect "begun"
    app:advance "1m"
    client:expect "done"
  end)
end)
