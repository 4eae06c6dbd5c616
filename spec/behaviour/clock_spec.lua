--- What begins while a handler runs begins then, and not when the events that are being served were reported: no wait
--- ends early.
local memory = require "spec.support.memory"
local core = require "perilune"
local perilune = require "perilune.test"

describe("after work", function()
  after_each(memory.finish)

  it("perilune.sleep takes its time from when it is called", function()
    local app = memory.lines { proceed = function()
      perilune.spend "200ms"
      core.sleep "100ms"
      return "woke"
    end }
    local client = app:connect():send("x"):expect_nothing()
    assert.equal(0.2, app:now())
    app:advance "99ms"
    client:expect_nothing()
    app:advance "1ms"
    client:expect "woke"
  end)

  it("of others in the same turn, too", function()
    local app = memory.lines { proceed = function(_, line)
      core.sleep "1s" -- both wake in the same turn
      if line == "work" then perilune.spend "300ms" return end
      core.sleep "100ms"
      return "woke"
    end }
    local worker, sleeper = app:connect(), app:connect()
    worker:send "work"
    sleeper:send "x"
    app:advance "1s"
    assert.equal(1.3, app:now())
    app:advance "99ms"
    sleeper:expect_nothing()
    app:advance "1ms"
    sleeper:expect "woke"
  end)

  it("the time-out of conn:read does", function()
    local app = memory.lines { proceed = function(self)
      perilune.spend "200ms"
      local line, why = self.conn:read("line", "100ms")
      return line or why
    end }
    local client = app:connect():send "x"
    app:advance "99ms"
    client:expect_nothing():send("in time"):expect "in time"
    client:send "x"
    app:advance "99ms"
    client:expect_nothing()
    app:advance "1ms"
    client:expect "timeout"
  end)

  it("several waits in a row take what they take together", function()
    local app = memory.lines { proceed = function(self)
      for _ = 1, 3 do
        perilune.spend "50ms"
        core.sleep "100ms"
      end
      perilune.spend "50ms"
      local _, why = self.conn:read("line", "100ms")
      return why
    end }
    local client = app:connect():send "x"
    app:advance "549ms" -- the clock shows the first 50 ms already
    client:expect_nothing()
    app:advance "1ms"
    client:expect "timeout"
    assert.equal(0.6, app:now())
  end)

  it("a wait of no time lets others have their turn, and no time pass", function()
    local app = memory.lines { proceed = function()
      perilune.spend "20ms"
      core.sleep(0)
      return "woke"
    end }
    app:connect():send("x"):expect "woke"
    assert.equal(0.02, app:now())
  end)
end)

describe("perilune.now", function()
  after_each(memory.finish)

  it("shows at least the time that a wait took", function()
    local app = memory.lines { proceed = function()
      local began = core.now()
      perilune.spend "30ms"
      core.sleep "100ms"
      return tostring(core.now() - began >= 0.1)
    end }
    local client = app:connect():send "x"
    app:advance "1s"
    client:expect "true"
  end)
end)
