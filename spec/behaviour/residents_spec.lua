--- Agents without a socket: from the first message to their end. With threads: spec/server/residents_spec.lua.
local core = require "perilune"
local perilune = require "perilune.test"
local has = require "spec.support.has"
local memory = require "spec.support.memory"
local shell = require "spec.support.shell"

local show_outcome = shell.outcome

-- A client's line is Lua, as is a text that is sent to an agent without a socket.
local function run(text, self, from)
  local code = assert(loadstring("local core, self, from = ... " .. text, "=text"))
  return code(core, self, from)
end

local Shell = {}
function Shell:proceed(line) return show_outcome(pcall(run, "return " .. line, self)) end

local function user(methods)
  local User = {}
  function User:opened()
    core.log("info", "opened " .. self.key)
    self.got = {}
  end
  function User:message(_, data, from) return run(data, self, from) end
  function User:closed(reason) core.log("info", "closed " .. self.key .. " " .. reason) end
  for name, method in pairs(methods or {}) do User[name] = method or nil end
  return User
end

describe("an agent without a socket", function()
  local app

  local function script(methods, kind, settings)
    local settings_of_kind = { agent = user(methods), idle = "10s" }
    for key, value in pairs(kind or {}) do settings_of_kind[key] = value end
    local all = { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Shell, agents = { user = settings_of_kind },
      timeout = { idle = false } }
    for key, value in pairs(settings or {}) do all[key] = value end
    return all
  end

  local function open(workers, ...)
    app = perilune.app(script(...), nil, { workers = workers or 2 })
    return app
  end

  after_each(function()
    if app then app:close() end
    app = nil
    memory.finish()
  end)

  local function ask(client, line)
    client:send(line)
    return client:receive()
  end

  -- What was logged by the agents, and only that.
  local function noted() return memory.noted(app) end

  local function connect(n)
    local clients = {}
    for i = 1, n do clients[i] = app:connect() end
    return unpack(clients)
  end

  -- Whatever has happened: what was sent is somewhere, and so is who was made.
  local function check_sums(waiting, open_now)
    local c = app:counters()
    assert.equal(c.messages_sent, c.messages_delivered + c.messages_dropped + (waiting or 0))
    assert.equal(c.residents_begun, c.residents_ended + (open_now or 0))
  end

  for workers = 1, 2 do
    describe(("with %d workers"):format(workers), function()
      it("is made by what is sent to its name, and is the same for all who send", function()
        open(workers)
        local a, b = connect(2)
        assert.equal("1", ask(a, 'core.call("user:42", "self.n = (self.n or 0) + 1 return self.n")'))
        assert.equal("2", ask(b, 'core.call("user:42", "self.n = (self.n or 0) + 1 return self.n")'))
        assert.equal("1", ask(b, 'core.call("user:7", "self.n = (self.n or 0) + 1 return self.n")'))
        assert.equal("42", ask(b, 'core.call("user:42", "return self.key")'))
        assert.same({ "opened 42", "opened 7" }, noted())
        check_sums(0, 2)
      end)

      it("ends when nothing has come for so long, and the next message makes another one", function()
        open(workers)
        local a = connect(1)
        ask(a, 'core.call("user:42", "self.n = 1")')
        app:advance "9s"
        assert.equal("1", ask(a, 'core.call("user:42", "return self.n")'))
        app:advance "9.9s"
        assert.same({ "opened 42" }, noted())
        app:advance "0.2s"
        assert.same({ "opened 42", "closed 42 idle_timeout" }, noted())
        assert.equal("nil", ask(a, 'core.call("user:42", "return self.n")'))
        assert.same({ "opened 42", "closed 42 idle_timeout", "opened 42" }, noted())
        check_sums(0, 1)
      end)

      it("gets what is sent in the order in which one sender has sent it, whoever it is then", function()
        open(workers)
        local a = connect(1)
        local sends = { 'core.send("user:1", "self.got[1] = 1")', 'core.send("user:1", "return nil, [[close]]")' }
        for i = 2, 5 do
          sends[#sends + 1] = ('core.send("user:1", "self.got[#self.got + 1] = %d")'):format(i)
        end
        sends[#sends + 1] = 'core.call("user:1", "return table.concat(self.got)")'
        assert.equal("true true true true true true 2345", ask(a, table.concat(sends, ", ")))
        assert.same({ "opened 1", "closed 1 agent", "opened 1" }, noted())
        check_sums(0, 1)
      end)

      it("that fails drops what waits for it, and the next message makes another one", function()
        open(workers, { opened = function() core.sleep "1s" end })
        local a = connect(1)
        a:send('core.send("user:1", "error [[oops]]"), core.send("user:1", ""), core.call("user:1", "")')
        app:advance "2s"
        assert.equal("true true nil it has ended, or failed, before it has replied ECANCELED", a:receive())
        assert.equal("oops", app:faults()[1].error)
        assert.equal("user:1", app:faults()[1].agent)
        has("agent user:1", app:faults()[1].excerpt)
        assert.same({ "closed 1 error" }, noted())
        local c = app:counters()
        assert.same({ 3, 1, 2 }, { c.messages_sent, c.messages_delivered, c.messages_dropped })
        a:send('core.call("user:1", "return 5")')
        app:advance "2s"
        assert.equal("5", a:receive())
        check_sums(0, 1)
      end)
    end)
  end

  it("has a factory that is told its key and its name", function()
    open(1, nil, { agent = function(key, name)
      return { message = function(_, topic) return key .. " " .. name .. " " .. topic end }
    end })
    local a = connect(1)
    assert.equal("x:y user:x:y user:x:y", ask(a, 'core.call("user:x:y", 1)'))
    assert.equal(" user: user:", ask(a, 'core.call("user:", 1)'))
  end)

  it("whose factory fails, or makes no agent, drops what was sent", function()
    open(1, nil, { agent = function(key)
      if key == "1" then error "oops" end
      return key == "2" and {} or nil
    end })
    local a = connect(1)
    for i, text in ipairs { "oops", "the agent has no method message",
      "the agent factory returned nil; it must return the agent" } do
      has("ECANCELED", ask(a, ('core.call("user:%d", 1)'):format(i)))
      assert.equal(text, app:faults()[i].error)
    end
    assert.equal(3, app:counters().messages_dropped)
    check_sums(0, 0)
  end)

  it("has opened() before the first message, which waits for it", function()
    open(1, { opened = function(self)
      core.sleep "1s"
      self.got = { "opened" }
    end })
    local a = connect(1)
    a:send 'core.call("user:1", "return self.got[1]")'
    app:advance "0.5s"
    a:expect_nothing()
    app:advance "0.6s"
    a:expect "opened"
  end)

  it("that closes in opened() drops what has made it", function()
    open(1, { opened = function() return nil, "close" end })
    local a = connect(1)
    has("ECANCELED", ask(a, 'core.call("user:1", "")'))
    assert.same({ "closed 1 agent" }, noted())
    assert.equal(1, app:counters().messages_dropped)
    check_sums(0, 0)
  end)

  it("is one at a time: the next is made after closed() of the last", function()
    open(1, { closed = function(self)
      core.log("info", "closing")
      core.send("user:" .. self.key, "core.log([[info]], [[next]])")
      core.log("info", "closed")
    end })
    local a = connect(1)
    ask(a, 'core.send("user:1", "return nil, [[close]]")')
    assert.same({ "opened 1", "closing", "closed", "opened 1", "next" }, noted())
    check_sums(0, 1)
  end)

  it("never ends for being idle where idle is false", function()
    open(1, nil, { idle = false })
    ask(connect(1), 'core.send("user:1", "")')
    app:advance "1h"
    assert.same({ "opened 1" }, noted())
  end)

  it("is asked by timeout() whether it goes on", function()
    open(1, { timeout = function(self, kind)
      self.asked = (self.asked or 0) + 1
      core.log("info", kind)
      return self.asked < 3
    end })
    ask(connect(1), 'core.send("user:1", "")')
    app:advance "25s"
    assert.same({ "opened 1", "idle", "idle" }, noted())
    app:advance "6s"
    assert.same({ "opened 1", "idle", "idle", "idle", "closed 1 idle_timeout" }, noted())
  end)

  it("is not idle while a call of it waits", function()
    open(1)
    local a = connect(1)
    a:send 'core.call("user:1", "core.sleep(25) return 1", "60s")'
    app:advance "26s"
    a:expect "1"
    app:advance "8.5s"
    assert.same({ "opened 1" }, noted())
    app:advance "1s"
    assert.same({ "opened 1", "closed 1 idle_timeout" }, noted())
  end)

  it("has timers and tasks, which end with it", function()
    open(1)
    local a = connect(1)
    ask(a, 'core.call("user:1", "core.every(1, function() self.got[#self.got + 1] = 1 end)")')
    ask(a, 'core.call("user:1", "core.spawn(function() core.sleep(3) core.log([[info]], [[task]]) end)")')
    app:advance "5.5s"
    assert.equal("5", ask(a, 'core.call("user:1", "return #self.got")'))
    ask(a, 'core.call("user:1", "core.spawn(function() core.sleep(30) end)")')
    app:advance "20s"
    assert.same({ "opened 1", "task", "closed 1 idle_timeout" }, noted())
    assert.equal(0, app:memory().tasks)
  end)

  it("sends, calls others, and is answered by its name", function()
    open(2)
    local a = connect(1)
    assert.equal("user:1", ask(a, [==[core.call("user:1", "return core.call([[user:2]], [[return from]])")]==]))
    assert.equal("user:2",
      ask(a, [==[core.call("user:1", "core.send([[user:2]], [[core.send(from, 'self.heard = from')]])")]==]) and
      ask(a, 'core.sleep(0), core.call("user:1", "return self.heard")'):match "%S+$")
    has("EDEADLK", ask(a, [==[core.call("user:1", "return select(3, core.call([[user:1]], 1))")]==]))
  end)

  it("has further names, if it registers them, but none of its kind's", function()
    open(1)
    local a = connect(1)
    assert.equal("true", ask(a, 'core.call("user:1", "return core.register [[first]]")'))
    assert.equal("1", ask(a, 'core.call("first", "return self.key")'))
    has("are those of agents without a socket", ask(a, 'core.register "user:2"'))
    app:advance "30s"
    has("ENOENT", ask(a, 'core.call("first", "")'))
  end)

  it("has nobody to reply to but who calls it", function()
    open(1, { opened = function() return "hello" end })
    has("ECANCELED", ask(connect(1), 'core.call("user:1", "")'))
    assert.equal("user:1 has no connection to send a string to", app:faults()[1].error)
  end)

  it("gives what it returns to who has called, though it closes", function()
    open(1)
    assert.equal("bye", ask(connect(1), 'core.call("user:1", "return [[bye]], [[close]]")'))
    assert.same({ "opened 1", "closed 1 agent" }, noted())
  end)

  it("is refused where there are as many of its kind as there may be", function()
    open(1, nil, { most = 2 })
    local a = connect(1)
    local text = 'core.send("user:1", ""), core.send("user:2", ""), core.send("user:3", ""), core.send("user:1", "")'
    -- the third is told why, and the fourth is there already
    assert.equal("true true nil true", ask(a, text))
    assert.equal("nil there are as many agents of that kind as there may be EBUSY", ask(a, 'core.send("user:3", "")'))
    app:advance "11s"
    assert.equal("true", ask(a, 'core.send("user:3", "")'))
    check_sums(0, 1)
  end)

  it("has as many messages that wait as its kind says", function()
    open(1, { opened = function() core.sleep "1s" end }, { limits = { mailbox = 2 } })
    local a = connect(1)
    assert.equal("true", ask(a, 'core.send("user:1", "")'))
    assert.equal("true", ask(a, 'core.send("user:1", "")'))
    assert.equal("nil too many messages wait for it EBUSY", ask(a, 'core.send("user:1", "")'))
  end)

  it("has a budget, and a time-out of its calls", function()
    open(1, nil, { limits = { proceed = "50ms" }, timeout = { proceed = "3s" } })
    local a = connect(1)
    has("ECANCELED", ask(a, 'core.call("user:1", "while true do end")'))
    a:send 'core.call("user:2", "core.sleep(60)")'
    app:advance "4s"
    has("ECANCELED", a:receive())
    assert.same({ "opened 1", "closed 1 proceed_timeout", "opened 2", "closed 2 proceed_timeout" }, noted())
  end)

  it("is not made of a name without a kind", function()
    open(1)
    local a = connect(1)
    for _, name in ipairs { "user", "users:1", ":1", "user1:2" } do
      has("ENOENT", ask(a, ('core.send("%s", 1)'):format(name)))
    end
    check_sums(0, 0)
  end)

  describe("when the server stops", function()
    it("is told, and ends", function()
      open(2, { drain = function(self, left) core.log("info", ("drain %s %d"):format(self.key, left)) end })
      ask(connect(1), 'core.send("user:1", ""), core.send("user:2", "")')
      app:drain()
      local found = noted()
      table.sort(found)
      assert.same({ "closed 1 drain", "closed 2 drain", "drain 1 10", "drain 2 10", "opened 1", "opened 2" }, found)
      check_sums(0, 0)
    end)

    it("finishes what it is at, and what waits for it", function()
      open(1)
      local a = connect(1)
      a:send 'core.send("user:1", "core.sleep(2)"), core.call("user:1", "return 1")'
      app:begin_drain()
      app:advance "3s"
      a:expect "true 1"
      assert.same({ "opened 1", "closed 1 drain" }, noted())
    end)

    it("goes on if it says so, to the deadline", function()
      open(1, { drain = function() return true end }, { idle = false })
      ask(connect(1), 'core.send("user:1", ""), '
        .. 'core.send("user:2", "core.every(2, function() return nil, [[close]] end)")')
      app:begin_drain()
      app:advance "5s"
      assert.same({ "opened 1", "opened 2", "closed 2 agent" }, noted())
      app:advance "6s"
      assert.same({ "opened 1", "opened 2", "closed 2 agent", "closed 1 drain" }, noted())
      check_sums(0, 0)
    end)

    it("is made for who is not done yet", function()
      open(1)
      local a = connect(1)
      a:send 'core.sleep(2), core.call("user:1", "return 1")'
      app:begin_drain()
      app:advance "3s"
      has("1", a:receive())
      assert.same({ "opened 1", "closed 1 drain" }, noted())
      check_sums(0, 0)
    end)
  end)

  describe("when the script is reloaded", function()
    local function version(name, policy, methods)
      local all = { message = function(self, _, data)
        if data == "wait" then core.sleep "3s" end
        self.n = (self.n or 0) + 1
        return ("%s %d"):format(name, self.n)
      end, closed = function(_, reason) core.log("info", name .. " " .. reason) end, opened = false,
      snapshot = function(self) return { n = self.n } end, upgrade = function(self, data) self.n = data.n end }
      for key, method in pairs(methods or {}) do all[key] = method end
      return script(all, { reload = policy })
    end

    local function begin(first)
      app = perilune.app(first, nil, { workers = 2 })
      local a = connect(1)
      assert.equal("one 1", ask(a, 'core.call("user:1", 1)'))
      return a
    end

    it("stays with the old code until it ends, where that is pinned", function()
      local a = begin(version "one")
      app:reload(version "two")
      assert.equal("one 2", ask(a, 'core.call("user:1", 1)'))
      assert.equal("two 1", ask(app:connect(), 'core.call("user:2", 1)'))
      app:advance "11s"
      assert.equal("two 1", ask(a, 'core.call("user:1", 1)'))
      local found = noted()
      table.sort(found)
      assert.same({ "one idle_timeout", "two idle_timeout" }, found)
      a:close()
      app:settle()
      assert.equal(2, app:memory().generations)
    end)

    it("hands over, and keeps its name", function()
      local a = begin(version("one", "migrate"))
      app:reload(version("two", "migrate"))
      assert.equal("two 2", ask(a, 'core.call("user:1", 1)'))
      assert.equal(1, app:counters().migrated)
      app:advance "11s"
      assert.same({ "two idle_timeout" }, noted())
      check_sums(0, 0)
    end)

    it("hands over when it is free, and what waits with it", function()
      local a = begin(version("one", "migrate"))
      a:send 'core.send("user:1", "wait"), core.call("user:1", 1), core.call("user:1", 1)'
      app:settle()
      app:reload(version("two", "migrate"))
      app:advance "6s"
      assert.equal("true two 3 two 4", a:receive())
    end)

    it("stays, if it cannot hand over", function()
      local a = begin(version("one", "migrate"))
      app:reload(version("two", "migrate", { upgrade = function() error "no" end }))
      assert.equal("one 2", ask(a, 'core.call("user:1", 1)'))
      assert.equal(1, app:counters().not_migrated)
      app:advance "11s"
      assert.same({ "one idle_timeout" }, noted())
      check_sums(0, 0)
    end)

    it("ends where that is drained, and the next is of the new code", function()
      local a = begin(version("one", "drain"))
      app:reload(version("two", "drain"))
      assert.equal("two 1", ask(a, 'core.call("user:1", 1)'))
      assert.same({ "one drain" }, noted())
    end)

    it("stays though its kind is gone, and is the last of it", function()
      local a = begin(version "one")
      local next = version "two"
      next.agents = nil
      app:reload(next)
      assert.equal("one 2", ask(a, 'core.call("user:1", 1)'))
      has("ENOENT", ask(app:connect(), 'core.call("user:2", 1)'))
      has("ECANCELED", ask(a, 'core.call("user:2", 1)')) -- whose own script has the kind
      app:advance "11s"
      has("ECANCELED", ask(a, 'core.call("user:1", 1)'))
      check_sums(0, 0)
    end)
  end)

  it("loses no message to its end, wherever its senders are", function()
    open(2, { message = function() end }, { idle = "10ms" })
    local a, b, c = connect(3)
    for i = 1, 200 do
      for _, client in ipairs { a, b, c } do
        assert.equal("true", ask(client, ('core.send("user:%d", 1)'):format(i % 3)))
      end
      app:advance((i % 5) * 0.003)
    end
    app:advance "1s"
    local sums = app:counters()
    assert.same({ 600, 600, 0 }, { sums.messages_sent, sums.messages_delivered, sums.messages_dropped })
    assert.is_true(sums.residents_begun > 50)
    check_sums(0, 0)
  end)

  describe("whatever happens to it", function()
    local TEXTS = { "", "error [[oops]]", "return nil, [[close]]", "core.sleep(0.5)", "core.send([[user:1]], [[]])",
      "core.every(0.2, function() end)", "core.spawn(core.sleep, 9)", "core.call([[user:2]], [[]], 1)" }
    local POLICIES = { "pin", "migrate", "drain" }

    local function run_random(seed)
      local state = seed
      local function draw(n)
        state = (state * 16807) % 2147483647
        return state % n + 1
      end
      local methods = { snapshot = function(self) return self.got end,
        upgrade = function(self, got) self.got = got end }
      open(2, methods, { reload = "migrate" })
      local clients = { connect(4) }
      for _ = 1, 150 do
        local what = draw(20)
        if what == 1 then
          app:stall(draw(2) - 1)
        elseif what == 2 then
          app:resume(0):resume(1):reload(script(methods, { reload = POLICIES[draw(3)] }))
        elseif what < 6 then
          app:resume(0):resume(1):advance(draw(30) / 10)
        else
          local way = draw(4) == 1 and "call" or "send"
          clients[draw(4)]:send(("core.%s('user:%d', %q)"):format(way, draw(5), TEXTS[draw(#TEXTS)]))
        end
      end
      app:resume(0):resume(1):advance "5m"
      check_sums(0, 0)
      assert.equal(0, app:memory().tasks)
      app:close()
      app = nil
    end

    for seed = 1, 10 do
      it(("everything adds up: seed %d"):format(seed), function() run_random(seed) end)
    end
  end)
end)
