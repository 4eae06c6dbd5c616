local perilune = require "perilune.test"

describe("the collector", function()
  local app

  before_each(function() app = perilune.app "examples/collector.lua" end)
  after_each(function() app:close() end)

  it("tells what has come so far", function()
    local client = app:connect():send("room 21", "room 23", "door 1"):send "report"
    client:expect("door: 1, on average 1", "room: 2, on average 22")
  end)

  it("reports each minute to the log, and begins anew", function()
    local client = app:connect():send("room 21", "room 24")
    app:advance "59s"
    assert.equal(0, #app:log "measured")
    app:advance "1s"
    assert.equal("room: 2, on average 22.5", app:log("measured")[1].what)
    client:close()
    app:connect():send("report"):expect_nothing()
  end)

  it("sends reports to those who follow, while they are there", function()
    local follower, gone = app:connect():send "follow", app:connect():send "follow"
    gone:close():expect_closed "peer"
    app:connect():send "room 20"
    app:advance "30s"
    follower:send "hall 19" -- it says something now and then: else timeout.idle would end it
    app:advance "30s"
    follower:expect("hall: 1, on average 19", "room: 1, on average 20")
  end)

  it("refuses what is no measurement", function()
    app:connect():send("room", "room warm"):expect("expected: name value", "expected: name value")
  end)
end)
