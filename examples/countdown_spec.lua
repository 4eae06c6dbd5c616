local perilune = require "perilune.test"

describe("examples/countdown.lua", function()
  local app
  before_each(function() app = perilune.app("examples/countdown.lua") end)
  after_each(function() app:close() end)

  it("counts down while others go on, and keeps what is sent meanwhile", function()
    local slow, quick = app:connect(), app:connect()
    slow:send("2 0.2", "1 0"):expect("2")
    quick:send("1 0"):expect("1", "lift-off")
    app:advance("200ms")
    slow:expect("1"):expect_nothing()
    app:advance("200ms")
    slow:expect("lift-off", "1", "lift-off")
  end)

  it("counts seconds, if nothing else is said", function()
    local client = app:connect():send("3"):expect("3")
    app:advance("999ms")
    client:expect_nothing()
    app:advance("2001ms")
    client:expect("2", "1", "lift-off")
  end)

  it("stops counting when the client has left", function()
    app:connect():send("3 0.1"):expect("3"):close():expect_closed("peer")
    app:advance("1m")
    assert.equal(1, app:counters().frames_out)
  end)

  it("explains itself", function()
    app:connect():send("three"):expect("say a number, as in: 3")
  end)
end)
