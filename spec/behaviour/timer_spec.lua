--- perilune.after and perilune.every: callbacks of the agent by the clock; and the app's own, of setup().
local memory = require "spec.support.memory"

local noted = memory.noted
local app_of = memory.script_lines

describe("perilune.after", function()
  after_each(memory.finish)

  it("calls once, when the time has come, with its arguments", function()
    local app = app_of [[
      function Agent:proceed(line)
        perilune.after("1s", function(a, b, c) note(("%s %s %s"):format(a, tostring(b), c)) end, line, nil, 3)
      end]]
    app:connect():send "x"
    app:advance "999ms"
    assert.same({}, noted(app))
    app:advance "1ms"
    assert.same({ "x nil 3" }, noted(app))
    app:advance "5m"
    assert.equal(1, #noted(app))
  end)

  it("returns a reply and an action, as callbacks do", function()
    local app = app_of [[
      function Agent:opened() perilune.after("1s", function() return { "a", "b" }, "close" end) end
      function Agent:proceed() end
      function Agent:closed(reason) note(reason) end]]
    local client = app:connect()
    app:advance "1s"
    client:expect("a", "b"):expect_closed "agent"
    assert.same({ "agent" }, noted(app))
  end)

  it("that returns no reply and no action fails", function()
    local app = app_of [[function Agent:proceed() perilune.after("1s", function() return true end) end]]
    local client = app:connect():send "x"
    app:advance "1s"
    client:expect_closed "error"
    assert.truthy(app:log("handler failed")[1].error:find("^a reply is a string"))
  end)

  it("is called in the order of time, and of beginning within a millisecond", function()
    local app = app_of [[
      function Agent:proceed()
        for _, ms in ipairs { 30, 10, 20, 10, 0, 30 } do
          self.n = (self.n or 0) + 1
          perilune.after(ms / 1000, function(n) self.conn:send(ms .. " " .. n) end, self.n)
        end
      end]]
    local client = app:connect():send "x"
    app:advance "1s"
    client:expect("0 5", "10 2", "10 4", "20 3", "30 1", "30 6")
  end)

  it("is cancelled for good, and says whether it was still to be called", function()
    local app = app_of [[
      function Agent:proceed(line)
        if line == "begin" then
          self.timer = perilune.after("1s", function() return "called" end)
        else
          return tostring(self.timer:cancel())
        end
      end]]
    local client = app:connect():send("begin", "cancel", "cancel"):expect("true", "false")
    app:advance "5s"
    client:send "begin"
    app:advance "1s"
    client:expect("called"):send("cancel"):expect "false"
  end)

  it("may be cancelled in its own call, and begin another", function()
    local app = app_of [[
      function Agent:opened()
        local timer
        local function again(n)
          note(tostring(timer:cancel()))
          if n > 0 then timer = perilune.after("10ms", again, n - 1) end
        end
        timer = perilune.after("10ms", again, 2)
      end
      function Agent:proceed() end]]
    app:connect()
    app:advance "1s"
    assert.same({ "false", "false", "false" }, noted(app))
  end)

  it("waits until the agent is free, and never beside another callback", function()
    local app = app_of [[
      function Agent:opened()
        for i = 1, 3 do
          perilune.after(i / 10, function()
            assert(not self.busy, "two at once")
            self.busy = true
            perilune.sleep "50ms"
            self.busy = false
            note("timer " .. i)
          end)
        end
      end
      function Agent:proceed(line)
        assert(not self.busy, "two at once")
        self.busy = true
        perilune.sleep(line)
        self.busy = false
        note "proceed"
      end]]
    app:connect():send("250ms", "250ms")
    app:advance "2s"
    assert.same({ "proceed", "timer 1", "timer 2", "timer 3", "proceed" }, noted(app))
  end)

  it("ends with its agent", function()
    local app = app_of [[
      function Agent:proceed(line)
        perilune.after("1s", function() note "called" end)
        perilune.every("1s", function() note "called" end)
        if line == "close" then return nil, "close" end
      end]]
    local client = app:connect():send "x"
    app:connect():send("close"):expect_closed "agent"
    client:close():expect_closed "peer"
    app:advance "1m"
    assert.same({}, noted(app))
  end)

  it("that fails ends its connection, and says where", function()
    local app = app_of [[
      function Agent:proceed() perilune.after("1s", function() error "boom" end) end
      function Agent:failed(err, callback) note(callback) return "sorry" end]]
    local client = app:connect():send "x"
    app:advance "1s"
    client:expect("sorry"):expect_closed "error"
    assert.same({ "timer" }, noted(app))
    local fault = app:log("handler failed")[1]
    assert.equal("timer", fault.callback)
    assert.truthy(fault.place:find "^app.lua:%d+$", fault.place)
  end)

  it("of thousands are all called", function()
    local app = app_of [[
      function Agent:proceed(line)
        for i = 1, tonumber(line) do perilune.after(i % 97 / 1000, function() self.n = (self.n or 0) + 1 end) end
        perilune.after("1s", function() return self.n end)
      end]]
    local client = app:connect():send "5000"
    app:advance "1s"
    client:expect "5000"
  end)

  it("are bounded for an agent", function()
    local app = app_of [[
      function Agent:proceed() for i = 1, 10001 do self.last = i perilune.after("1h", print) end end
      function Agent:failed(err) return self.last .. " " .. err:gsub("^.-: ", "") end]]
    app:connect():send("x"):expect "10001 there are 10000 timers already, which is the most"
  end)

  for _, case in ipairs {
    { "perilune.after('1s')", "perilune.after: a function expected, got no value" },
    { "perilune.after('1s', 'print')", "a function expected, got string" },
    { "perilune.after('soon', print)", "soon" }, { "perilune.after()", "perilune.after expects a duration" },
    { "perilune.after('1s', print).stop()", 'a timer has no "stop"' },
    { "perilune.every(0, print)", "must be more than 0" }, { "perilune.every(false, print)", "must be more than 0" },
    { "perilune.after('1s', print, unpack({}, 1, 17))", "more than 16 arguments: put them into a table" },
    { "perilune.semaphore().with(print)", "semaphore:with: write it with a colon" },
    { "perilune.after('1s', print).cancel()", "write it with a colon" },
    { "perilune.spawn(print).status(1)", "task:status: write it with a colon" },
    { "perilune.spawn(print, unpack({}, 1, 17))", "more than 16 arguments: put them into a table" },
    { "perilune.spawn 'print'", "function expected" }, { "perilune.defer(print)", "only in a task" },
    { "perilune.all(print)", "perilune.all expects a list of functions" },
    { "perilune.any { print, 1 }", "its item 2 is a number" },
    { "perilune.timeout('1s')", "perilune.timeout expects a duration, and then a function, got nil" },
    { "perilune.channel(-1)", "a whole number from 0" }, { "perilune.semaphore(1.5)", "a whole number from 0" },
    { "perilune.channel():send()", "a value expected, got nil" }, { "perilune.channel().send(1, 2)", "with a colon" },
    { "perilune.semaphore():with()", "expects a function" }, { "perilune.channel():recieve()", "did you mean" },
    { "perilune.channel().x = 1", "cannot be written to" }, { "perilune.semaphore():acquire('x')", "x" },
  } do
    it("refuses " .. case[1], function()
      local app = app_of(("function Agent:proceed() %s end function Agent:failed(err) return err end"):format(case[1]))
      local client = app:connect():send "x"
      local message = client:receive()
      assert.truthy(message:find(case[2], 1, true), message)
      assert.truthy(app:log("handler failed")[1].place:find "^app.lua:", message)
    end)
  end

  it("is refused in closed()", function()
    local app = app_of [[
      function Agent:closed() perilune.after("1s", print) end
      function Agent:proceed() return nil, "close" end]]
    app:connect():send("x"):expect_closed "agent"
    assert.truthy(app:log("handler failed")[1].error:find("closed() must not begin anything", 1, true))
  end)
end)

describe("perilune.every", function()
  after_each(memory.finish)

  it("keeps its pace, whatever its calls take", function()
    local app = app_of [[
      function Agent:opened()
        local began = perilune.now()
        perilune.every("100ms", function()
          note(("%.0f"):format((perilune.now() - began) * 1000))
          perilune.sleep "30ms"
        end)
      end
      function Agent:proceed() end]]
    app:connect()
    app:advance "520ms"
    assert.same({ "100", "200", "300", "400", "500" }, noted(app))
  end)

  it("leaves out what it has missed, and stays in step", function()
    local app = app_of [[
      function Agent:opened()
        self.began = perilune.now()
        perilune.every("100ms", function() note(("%.0f"):format((perilune.now() - self.began) * 1000)) end)
      end
      function Agent:proceed(line) perilune.sleep(line) end]]
    local client = app:connect()
    app:advance "150ms"
    client:send "300ms"
    app:advance "500ms"
    assert.same({ "100", "450", "500", "600" }, noted(app))
  end)

  it("goes on until it is cancelled", function()
    local app = app_of [[
      function Agent:opened()
        local n = 0
        self.timer = perilune.every("1s", function()
          n = n + 1
          if n == 3 then self.timer:cancel() end
          return tostring(n)
        end)
      end
      function Agent:proceed() end]]
    local client = app:connect()
    app:advance "10s"
    client:expect("1", "2", "3")
  end)
end)

describe("perilune.time", function()
  after_each(memory.finish)

  it("goes on with the app's clock, from the first second of 2026", function()
    local app = app_of 'function Agent:proceed() return ("%.1f"):format(perilune.time()) end'
    local client = app:connect():send("x"):expect "1767225600.0"
    app:advance "50500ms"
    client:send("x"):expect "1767225650.5"
  end)
end)

describe("the app of setup()", function()
  after_each(memory.finish)

  local function app_with(setup, rest)
    return assert(memory.script(([[
      local perilune = require "perilune"
      local function note(text) perilune.log("info", text) end
      local Agent = {}
      function Agent:proceed(line) return line end
      local function setup(app) %s end
      return { listen = "tcp://127.0.0.1:0", frame = "line", agent = Agent, setup = setup, %s }]])
      :format(setup, rest or "")))
  end

  it("has tasks, and timers once and again", function()
    local app = app_with [[
      app:after("150ms", function(text) note("after " .. text) end, "x")
      app:every("100ms", function() note "every" end)
      app:spawn(function(text) note("task " .. text) perilune.sleep "120ms" note "slept" end, "y")]]
    app:advance "250ms"
    assert.same({ "task y", "every", "slept", "after x", "every" }, noted(app))
  end)

  it("calls those of one time in the order in which they were begun", function()
    local app = app_with [[for i = 1, 4 do app:after("1s", function() note("t" .. i) end) end]]
    app:advance "1s"
    assert.same({ "t1", "t2", "t3", "t4" }, noted(app))
  end)

  it("does not take another timer for its own, where one has ended", function()
    local app = app_with([[
      app:after("1s", function()
        app:every("1s", function() note "tick" end)
        perilune.sleep "5s"
        while true do end
      end)]], "limits = { proceed = '20ms' }")
    app:advance "8s"
    assert.equal(1, app:counters().faults)
    assert.same({ "tick", "tick", "tick", "tick", "tick", "tick", "tick" }, noted(app))
  end)

  it("does not begin the next call before the last has ended", function()
    local app = app_with [[
      app:every("100ms", function() note "begins" perilune.sleep "250ms" note "ends" end)]]
    app:advance "750ms"
    assert.same({ "begins", "ends", "begins", "ends", "begins" }, noted(app))
  end)

  it("may be kept, and begin things later", function()
    local app = app_with [[
      app:after("1s", function()
        app:spawn(function() note "second" end)
        perilune.after("1s", function() note "third" end)
        perilune.spawn(function() note "also" end)
        note "first"
      end)]]
    app:advance "2s"
    assert.same({ "first", "second", "also", "third" }, noted(app))
  end)

  it("logs faults, and goes on", function()
    local app = app_with [[app:every("1s", function() error "boom" end)]]
    app:advance "2s"
    local fault = app:log("handler failed")[1]
    assert.equal("app.lua:5", fault.place)
    assert.is_nil(fault.conn)
    assert.is_nil(fault.peer)
    assert.equal(2, app:counters().faults)
    app:connect():send("still served"):expect "still served"
  end)

  it("gives up a timer whose call computes for ever", function()
    local app = app_with([[
      app:every("1s", function() while true do end end)
      app:every("1s", function() note "every" end)]], "limits = { proceed = '20ms' }")
    app:advance "3500ms"
    assert.equal(1, app:counters().faults)
    assert.equal(1, #app:log "a timer of the app is cancelled: its call took more than limits.proceed")
    assert.same({ "every", "every", "every" }, noted(app))
  end)

  it("cancels its timers", function()
    local app = app_with [[
      local timer = app:every("1s", function() note "every" end)
      app:after("3500ms", function() note(tostring(timer:cancel())) end)]]
    app:advance "10s"
    assert.same({ "every", "every", "every", "true" }, noted(app))
  end)

  it("refuses what cannot be at load", function()
    local _, message = memory.script [[
      return { listen = "tcp://127.0.0.1:0", frame = "line", agent = { proceed = print },
        setup = function(app) app:every("0s", print) end }]]
    assert.truthy(message:find("the time between two calls must be more than 0", 1, true), message)
  end)

  it("is needed for what belongs to no connection", function()
    local _, message = memory.script [[
      return { listen = "tcp://127.0.0.1:0", frame = "line", agent = { proceed = print },
        setup = function() require("perilune").every("1s", print) end }]]
    assert.truthy(message:find("begins in setup(app), with app:every(…)", 1, true), message)
  end)
end)
