--- Names: perilune.register, send and call, as handlers see them. What the directory does among threads:
--- spec/unit/names_test.c and spec/server/names_spec.lua.
local core = require "perilune"
local perilune = require "perilune.test"
local has = require "spec.support.has"
local memory = require "spec.support.memory"
local shell = require "spec.support.shell"

local show = shell.show

-- It sends its client what it is sent.
local function agent(methods)
  local all = { message = function(self, topic, data, from)
    self.conn:send(show(topic, data, from))
    return data
  end }
  for name, method in pairs(methods or {}) do all[name] = method end
  return shell.agent(all)
end

describe("names", function()
  local app

  local function open(n, methods, settings)
    local all = { listen = "tcp://127.0.0.1:9000", frame = "line", agent = agent(methods) }
    for key, value in pairs(settings or {}) do all[key] = value end
    app = perilune.app(all, nil, { workers = n or 2 })
    return app
  end

  after_each(function()
    if app then app:close() end
    app = nil
    memory.finish()
  end)

  local ask = shell.ask

  local function connect(n)
    local clients = {}
    for i = 1, n do clients[i] = app:connect() end
    return unpack(clients)
  end

  local function logged(message)
    for _, entry in ipairs(app:log()) do
      if entry.message == message then return entry end
    end
  end

  local function sum()
    local c = app:counters()
    return { sent = c.messages_sent, delivered = c.messages_delivered, dropped = c.messages_dropped }
  end

  for workers = 1, 2 do
    describe(("with %d workers"):format(workers), function()
      it("lead to the agent that has registered one", function()
        open(workers)
        local a, b = connect(2)
        assert.equal("true", ask(a, 'core.register "a"'))
        assert.equal("true", ask(b, 'core.send("a", "hello")'))
        has("a hello @", a:receive())
        assert.equal("true", ask(b, 'core.register "b"'))
        assert.equal("true", ask(b, 'core.send("a", 7)'))
        assert.equal("a 7 b", a:receive())
        assert.same({ sent = 2, delivered = 2, dropped = 0 }, sum())
      end)

      it("lead nowhere where nobody has them", function()
        open(workers)
        local a = connect(1)
        assert.equal("nil nobody has that name ENOENT", ask(a, 'core.send("b", 1)'))
        assert.equal("nil nobody has that name ENOENT", ask(a, 'core.call("b", 1)'))
        assert.same({ sent = 0, delivered = 0, dropped = 0 }, sum())
      end)

      it("take calls, and give what message() returns", function()
        open(workers)
        local a, b = connect(2)
        ask(a, 'core.register "a"')
        assert.equal("hello", ask(b, 'core.call("a", "hello")'))
        assert.equal("nil", ask(b, 'core.call("a")'))
        assert.equal("true", ask(b, 'core.call("a", true)'))
        assert.equal("1.5", ask(b, 'core.call("a", 1.5)'))
        assert.equal("3", ask(b, '#core.call("a", { 1, 2, { x = 1 } })'))
        assert.same({ sent = 5, delivered = 5, dropped = 0 }, sum())
      end)

      it("go with their agent", function()
        open(workers)
        local a, b = connect(2)
        ask(a, 'core.register "a"')
        a:close()
        app:settle()
        assert.equal("nil nobody has that name ENOENT", ask(b, 'core.send("a", 1)'))
        assert.equal("true", ask(b, 'core.register "a"'))
      end)
    end)
  end

  describe("have an agent that", function()
    it("gets what comes while it waits afterwards, in its order, and never two at once", function()
      open(2, { message = function(self, _, data)
        self.at_work = (self.at_work or 0) + 1
        assert(self.at_work == 1)
        if data == "slow" then core.sleep "1s" end
        self.at_work = self.at_work - 1
        self.conn:send("got " .. data)
      end, proceed = function(_, line)
        if line == "sleep" then core.sleep "1s" return "slept" end
        if line == "register" then return tostring(core.register "a") end
        core.send("a", line)
      end })
      local a, b = connect(2)
      assert.equal("true", ask(a, "register"))
      a:send "sleep"
      b:send "1":send "2":send "slow":send "3"
      assert.equal(0, sum().delivered)
      app:advance "1s"
      assert.same({ "slept", "got 1", "got 2" }, a:frames())
      a:send "register" -- which waits for message()
      assert.same({}, a:frames())
      app:advance "1s"
      assert.same({ "got slow", "got 3", "true" }, a:frames())
      assert.same({ sent = 4, delivered = 4, dropped = 0 }, sum())
    end)

    it("is told what it was sent to, by whom, and answers to that", function()
      open(2, { message = function(self, topic, data, from)
        self.conn:send(show(topic, data, from))
        if data == "ping" then core.send(from, "pong") end
      end })
      local a, b = connect(2)
      ask(a, 'core.register "a"')
      ask(a, 'core.register "a2"')
      assert.equal("true", ask(b, 'core.send("a2", "ping")'))
      assert.equal("a2 ping @1/2", a:receive())
      assert.equal("@1/2 pong a", b:receive())
      assert.equal("nil nobody has that name ENOENT", ask(b, 'core.send("@0/1", 1)')) -- it has names
      assert.equal("true", ask(a, 'core.send("@1/2", "to b")'))
      assert.equal("@1/2 to b a", b:receive())
    end)

    it("ends when its message() fails, and whoever called is told", function()
      open(2, { message = function(_, _, data) error("on purpose: " .. tostring(data)) end })
      local a, b = connect(2)
      ask(a, 'core.register "a"')
      assert.equal("nil it has ended, or failed, before it has replied ECANCELED", ask(b, 'core.call("a", 1)'))
      assert.equal("error", a:closed())
      local entry = logged("handler failed")
      assert.same({ "message", "on purpose: 1" }, { entry.callback, (entry.error:gsub("^.-: (on)", "%1")) })
      assert.equal("nil nobody has that name ENOENT", ask(b, 'core.call("a", 1)'))
    end)

    it("can be made to fail", function()
      open(2)
      local a, b = connect(2)
      ask(a, 'core.register "a"')
      app:fail "message"
      assert.equal("nil it has ended, or failed, before it has replied ECANCELED", ask(b, 'core.call("a", 1)'))
      assert.equal("error", a:closed())
    end)

    it("ends by timeout.proceed where its message() waits for too long", function()
      open(2, { message = function() core.sleep "1h" end }, { timeout = { proceed = "1s" } })
      local a, b = connect(2)
      ask(a, 'core.register "a"')
      b:send 'core.spawn(function() conn:send(tostring(core.call("a", 1))) end)'
      app:advance "1s"
      assert.equal("proceed_timeout", a:closed())
    end)

    it("ends with the budget of one call", function()
      open(2, { message = function() while true do end end }, { limits = { proceed = "20ms" } })
      local a, b = connect(2)
      ask(a, 'core.register "a"')
      assert.equal("nil it has ended, or failed, before it has replied ECANCELED", ask(b, 'core.call("a", 1)'))
      assert.equal("proceed_timeout", a:closed())
    end)

    it("ends its connection by its second result", function()
      open(2, { message = function(_, _, data) return data, "close" end })
      local a, b = connect(2)
      ask(a, 'core.register "a"')
      assert.equal("bye", ask(b, 'core.call("a", "bye")'))
      assert.equal("agent", a:closed())
    end)

    it("fails where its second result is something else", function()
      open(2, { message = function() return nil, "nonsense" end })
      local a, b = connect(2)
      ask(a, 'core.register "a"')
      assert.equal("nil it has ended, or failed, before it has replied ECANCELED", ask(b, 'core.call("a", 1)'))
      has("unknown action 'nonsense'", logged("handler failed").error)
    end)
  end)

  describe("when an agent ends", function()
    it("lose what waits for it, and who called is told at once", function()
      open(2)
      local a, b, c = connect(3)
      ask(a, 'core.register "a"')
      a:send 'core.sleep "1s"'
      assert.equal("true", ask(b, 'core.send("a", 1)'))
      b:send 'core.call("a", 2)'
      c:send 'core.call("a", 3)'
      assert.same({}, b:frames())
      a:close()
      app:settle()
      local told = "nil it has ended, or failed, before it has replied ECANCELED"
      assert.same({ { told }, { told } }, { b:frames(), c:frames() })
      assert.same({ sent = 3, delivered = 0, dropped = 3 }, sum())
    end)

    it("tell the one whose message() has it", function()
      open(2, { message = function() core.sleep "1h" end })
      local a, b = connect(2)
      ask(a, 'core.register "a"')
      b:send 'core.call("a", 2)'
      assert.same({}, b:frames())
      a:close()
      assert.equal("nil it has ended, or failed, before it has replied ECANCELED", b:receive())
      assert.same({ sent = 1, delivered = 1, dropped = 0 }, sum())
    end)

    it("are free before closed() runs, which can send", function()
      open(2, { closed = function()
        core.send("b", tostring(core.send("a", "to myself")))
      end })
      local a, b = connect(2)
      ask(a, 'core.register "a"')
      ask(b, 'core.register "b"')
      a:close()
      assert.equal("b nil @0/1", b:receive())
    end)

    it("let a call that is its own go: the reply is dropped", function()
      open(2, { message = function() core.sleep "1s" return "late" end })
      local a, b = connect(2)
      ask(a, 'core.register "a"')
      b:send 'core.call("a")':close()
      app:advance "2s"
      assert.equal(1, app:counters().replies_dropped)
    end)
  end)

  describe("in a call", function()
    it("have some time to answer, and what comes later is dropped", function()
      open(2, { message = function(_, _, data) core.sleep(data) return "late" end })
      local a, b = connect(2)
      ask(a, 'core.register "a"')
      b:send 'core.call("a", "6s")'
      app:advance "4999ms"
      assert.same({}, b:frames())
      app:advance "1ms"
      assert.same({ "nil timeout: a has not answered ETIMEDOUT" }, b:frames())
      app:advance "2s"
      assert.same({ 1, 1 }, { app:counters().calls_timed_out, app:counters().replies_dropped })
      b:send 'core.call("a", "1s", "2s")'
      app:advance "1s"
      assert.same({ "late" }, b:frames())
      assert.equal("nil timeout: a has not answered ETIMEDOUT", (b:send 'core.call("a", "1s", 0.5)' and app:advance "1s"
        and b:receive()))
    end)

    it("never wait for ever", function()
      open(1)
      local a = connect(1)
      has("perilune.call: the time-out must be more than 0", ask(a, 'core.call("a", 1, 0)'))
      has("perilune.call: the time-out must be more than 0", ask(a, 'core.call("a", 1, false)'))
    end)

    it("are not the agent's own, but for its tasks", function()
      open(2)
      local a = connect(1)
      ask(a, 'core.register "a"')
      assert.equal("nil the agent would wait for itself EDEADLK", ask(a, 'core.call("a", 1)'))
      ask(a, 'core.spawn(function() conn:send(tostring(core.call("a", 7))) end)')
      assert.same({ "a 7 a", "7" }, a:frames())
      assert.same({ sent = 1, delivered = 1, dropped = 0 }, sum())
    end)

    it("that wait for each other end by their time-outs", function()
      open(2, { message = function(_, topic, n) return core.call(topic == "a" and "b" or "a", n, "1s") end })
      local a, b, c = connect(3)
      ask(a, 'core.register "a"')
      ask(b, 'core.register "b"')
      c:send 'core.call("a", 1)'
      app:advance "1s"
      has("nil", c:receive())
      app:advance "5s"
      local all = sum()
      assert.equal(all.sent, all.delivered + all.dropped)
    end)

    it("get what is too large as an error, and not as a fault", function()
      open(2, { message = function(_, _, n) return ("x"):rep(n) end })
      local a, b = connect(2)
      ask(a, 'core.register "a"')
      assert.equal("1048576", ask(b, '#core.call("a", 1048576)'))
      assert.equal("nil the reply is larger than 1 MiB EMSGSIZE", ask(b, 'core.call("a", 1048577)'))
      assert.equal("nil a message has at most 1 MiB EMSGSIZE", ask(b, 'core.send("a", ("x"):rep(1048577))'))
      assert.equal("nil a message has at most 1 MiB EMSGSIZE", ask(b, 'core.call("a", { ("x"):rep(1048577) })'))
      assert.equal("true", ask(b, 'core.send("a", 3)'))
      assert.is_nil(a:closed())
    end)

    it("take plain data only", function()
      open(2, { message = function() return { print } end })
      local a, b = connect(2)
      ask(a, 'core.register "a"')
      has("perilune.send: only plain data can be sent: the value is a function", ask(b, 'core.send("a", print)'))
      has("perilune.call: only plain data can be sent: the value[1] is a function", ask(b, 'core.call("a", { print })'))
      assert.equal("nil it has ended, or failed, before it has replied ECANCELED", ask(b, 'core.call("a", 1)'))
      has("message: the reply: only plain data can be sent: the value[1] is a function",
        logged("handler failed").error)
    end)

    it("can be a task's of the app's, whom nobody can answer otherwise", function()
      open(2, nil, {
        setup = function(app_)
          if app_.worker == 0 then
            app_:spawn(function()
              core.sleep "1s"
              core.send("a", 1)
              core.send("a", core.call("a", 2) + 1)
            end)
          end
        end,
      })
      local a = connect(1)
      ask(a, 'core.register "a"')
      app:advance "2s"
      assert.same({ "a 1 nil", "a 2 nil", "a 3 nil" }, a:frames())
    end)

    it("are refused where nothing runs", function()
      local ok, message = pcall(open, 2, nil, { setup = function() core.send("a", 1) end })
      assert.is_false(ok)
      has("perilune.send: only a running handler can", tostring(message))
    end)
  end)

  describe("are bounded", function()
    it("by limits.mailbox", function()
      open(2, nil, { limits = { mailbox = 2 } })
      local a, b = connect(2)
      ask(a, 'core.register "a"')
      a:send 'core.sleep "1s"'
      assert.equal("true", ask(b, 'core.send("a", 1)'))
      assert.equal("true", ask(b, 'core.send("a", 2)'))
      assert.equal("nil too many messages wait for it EBUSY", ask(b, 'core.send("a", 3)'))
      assert.equal("nil too many messages wait for it EBUSY", ask(b, 'core.call("a", 3)'))
      app:advance "1s"
      assert.same({ "", "a 1 @1/2", "a 2 @1/2" }, a:frames())
      assert.equal("true", ask(b, 'core.send("a", 4)'))
      assert.same({ sent = 3, delivered = 3, dropped = 0 }, sum())
    end)

    it("by bytes that are on their way to a worker", function()
      open(2)
      local a, b = connect(2)
      ask(a, 'core.register "a"')
      a:send 'core.sleep "1s"'
      assert.equal("63", ask(b, '(function(n, big) while core.send("a", big) do n = n + 1 end return n end)'
        .. '(0, ("x"):rep(1048576))'))
      assert.equal("nil too much is on its way to its worker EBUSY", ask(b, 'core.send("a", ("x"):rep(1048576))'))
      a:close()
      app:settle()
      assert.same({ sent = 63, delivered = 0, dropped = 63 }, sum())
    end)

    it("in number and length", function()
      open(1)
      local a = connect(1)
      assert.equal("100", ask(a, '(function() for i = 1, 100 do core.register("n" .. i) end return 100 end)()'))
      has("the agent has 100 names already", ask(a, 'core.register "more"'))
      assert.equal("true", ask(a, 'core.register "n7"'))
      assert.equal("true", ask(a, 'core.unregister "n7"'))
      assert.equal("false", ask(a, 'core.unregister "n7"'))
      assert.equal("true", ask(a, 'core.register "more"'))
      assert.equal("true", ask(a, 'core.unregister "more"'))
      assert.equal("true", ask(a, 'core.register(("x"):rep(255))'))
      has("a name has 1 to 255 bytes, this one has 256", ask(a, 'core.register(("x"):rep(256))'))
      has("a name has 1 to 255 bytes, this one has 0", ask(a, 'core.send("", 1)'))
      has("the name is a string, got no value", ask(a, 'core.send()'))
      has("names that begin with @ are given, not registered", ask(a, 'core.register "@0/1"'))
    end)

    it("and their arguments are looked at", function()
      open(1)
      local a = connect(1)
      has('perilune.register: unknown option "replaces"', ask(a, 'core.register("a", { replaces = true })'))
      has("perilune.register: replace is true or false, got number", ask(a, 'core.register("a", { replace = 1 })'))
      has("perilune.send", ask(a, 'core.send("a", 1, 2)'))
    end)

    it("to agents that take messages", function()
      open(2, { message = false })
      local a, b = connect(2)
      has("perilune.register: the agent has no method message", ask(a, 'core.register "a"'))
      assert.equal("nil nobody has that name ENOENT", ask(b, 'core.send("@0/1", 1)'))
    end)
  end)

  describe("that are taken", function()
    it("are refused, or replaced: then what is under way still goes where it was sent", function()
      open(2)
      local a, b, c = connect(3)
      ask(a, 'core.register "x"')
      assert.equal("nil another agent has that name EEXIST", ask(b, 'core.register "x"'))
      a:send 'core.sleep "1s"'
      ask(c, 'core.send("x", "first")')
      assert.equal("true", ask(b, 'core.register("x", { replace = true })'))
      ask(c, 'core.send("x", "second")')
      assert.equal("x second @0/3", b:receive())
      app:advance "1s"
      assert.same({ "", "x first @0/3" }, a:frames())
      local entry = logged("a name has another agent now")
      assert.same({ "x", 2, 1 }, { entry.name, entry.conn, entry.before })
      assert.equal("false", ask(a, 'core.unregister "x"'))
      assert.equal("true", ask(c, 'core.send("x", "third")'))
      assert.equal("x third @0/3", b:receive())
      a:close()
      app:settle()
      assert.equal("true", ask(c, 'core.send("x", "fourth")'))
    end)

    it("are not what who has lost them sends from", function()
      open(1)
      local a, b = connect(2)
      ask(a, 'core.register "x"')
      ask(a, 'core.register "y"')
      ask(b, 'core.register("x", { replace = true })')
      ask(a, 'core.send("x", 1)')
      assert.equal("x 1 y", b:receive())
    end)
  end)

  describe("over a reload", function()
    local function generation(n, methods)
      local Agent = agent(methods)
      Agent.snapshot = function() return n end
      Agent.upgrade = Agent.upgrade or function() end
      return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent, reload = "migrate", workers = 2 }
    end

    it("stay, with what waits, where the agent goes to the new generation", function()
      app = perilune.app(generation(1), nil, { workers = 2 })
      local a, b = connect(2)
      ask(a, 'core.register "a"')
      a:send 'core.sleep "1s"'
      ask(b, 'core.send("a", 1)')
      app:reload(generation(2, { message = function(self, topic, data)
        self.conn:send("new " .. show(topic, data))
      end }))
      assert.equal("true", ask(b, 'core.send("a", 2)'))
      app:advance "1s"
      assert.same({ "", "new a 1", "new a 2" }, a:frames())
      assert.equal("true", ask(b, 'core.send("a", 3)'))
      assert.equal("new a 3", a:receive())
      assert.same({ sent = 3, delivered = 3, dropped = 0 }, sum())
    end)

    it("go where the new agent takes no messages", function()
      app = perilune.app(generation(1), nil, { workers = 2 })
      local a, b = connect(2)
      ask(a, 'core.register "a"')
      app:reload(generation(2, { message = false }))
      app:settle()
      assert.equal("nil nobody has that name ENOENT", ask(b, 'core.send("a", 1)'))
      assert.equal("a", logged("a name is given up: the agent has no method message any more").name)
    end)

    it("that a failed upgrade() has registered go again", function()
      app = perilune.app(generation(1), nil, { workers = 2 })
      local a, b = connect(2)
      ask(a, 'core.register "a"')
      app:reload(generation(2, { upgrade = function()
        core.register("b" .. "2")
        error "on purpose"
      end }))
      app:settle()
      assert.equal("nil nobody has that name ENOENT", ask(b, 'core.send("b2", 1)'))
      assert.equal("true", ask(b, 'core.send("a", 1)'))
      has("a 1", a:receive())
    end)
  end)

  it("of connections out with an agent of their own work as well", function()
    local Backend = { proceed = function() end, opened = function() core.register "backend" end,
      message = function(_, topic, data) return show(topic, data) end }
    open(2, { proceed = function(self, line)
      if line == "connect" then
        self.out = core.connect("tcp://127.0.0.1:9000", { frame = "line", agent = Backend })
        return "connected"
      end
      if line == "close" then
        self.out:close()
        return "closed"
      end
      return show(core.call("backend", line))
    end })
    local a, b = connect(2)
    assert.equal("connected", ask(a, "connect"))
    assert.equal("backend x", ask(b, "x"))
    assert.equal("closed", ask(a, "close"))
    app:settle()
    assert.equal("nil nobody has that name ENOENT", ask(b, "x"))
  end)

  it("of a worker that is stalled wait with it", function()
    open(2)
    local a, b = connect(2)
    ask(a, 'core.register "a"')
    app:stall(0)
    assert.equal("true", ask(b, 'core.send("a", 1)'))
    assert.same({}, a:frames())
    b:send 'core.call("a", 2, "1s")'
    app:advance "2s"
    assert.same({ "nil timeout: a has not answered ETIMEDOUT" }, b:frames())
    app:resume(0)
    app:settle()
    assert.same({ "a 1 @1/2", "a 2 @1/2" }, a:frames())
    assert.equal(1, app:counters().replies_dropped)
  end)

  it("are sent to by several workers at once in an order that the seed says", function()
    local function history(seed)
      local net = perilune.net { seed = seed }
      app = net:app({ listen = "tcp://127.0.0.1:9000", frame = "line", agent = agent() }, nil,
        { name = "web", workers = 4 })
      local a, b, c, d = connect(4)
      ask(a, 'core.register "a"')
      for i, client in ipairs { b, c, d } do
        client:send(("core.every(1, function() core.send('a', %d) end)"):format(i))
      end
      app:advance "10s"
      local got = table.concat(a:frames(), " ")
      local all = sum()
      net:close()
      app = nil
      assert.same({ sent = 30, delivered = 30, dropped = 0 }, all)
      return got
    end
    assert.equal(history(1), history(1))
    assert.are_not.equal(history(1), history(2))
  end)

  it("end with the app, whatever waits", function()
    open(2)
    local a, b, c = connect(3)
    ask(a, 'core.register "a"')
    a:send 'core.sleep "1h"'
    b:send 'core.call("a", 1, "1h")'
    c:send 'core.send("a", 2)'
    app:close()
    app = nil
  end)
end)
