local perilune = require "perilune.test"

describe("rooms", function()
  local app

  before_each(function() app = perilune.app("examples/rooms.lua", nil, { workers = 2 }) end)
  after_each(function() app:close() end)

  it("pass on what is said to all others in them", function()
    local ann, bob, cid = app:connect(), app:connect(), app:connect()
    ann:send("join tea"):expect "you are in tea with 0 others"
    bob:send("join tea"):expect "you are in tea with 1 others"
    cid:send("join coffee"):expect "you are in coffee with 0 others"
    bob:send "hello"
    ann:expect "hello"
    bob:expect_nothing()
    cid:expect_nothing()
    ann:send("join coffee"):expect "you are in coffee with 1 others"
    bob:send "anybody?"
    ann:expect_nothing()
  end)

  it("take no name that would be a pattern", function()
    app:connect():send("join *"):expect "join ROOM: letters, digits, _ and - only"
    app:connect():send("hello"):expect "join ROOM"
  end)

  it("are for browsers as well", function()
    local ann = app:connect():send("join tea"):expect "you are in tea with 0 others"
    local browser = app:connect({ listener = 2 }):ask "/listen/tea"
    assert.equal(200, browser:head().status)
    assert.equal(204, app:connect({ listener = 2 }):request({ method = "POST", path = "/say/tea", body = "hi" }).status)
    ann:expect "hi"
    browser:expect_event { data = "hi" }
    ann:send "hello"
    browser:expect_event { data = "hello" }
    assert.equal(404, app:connect({ listener = 2 }):get("/listen/*").status)
  end)
end)
