local perilune = require "perilune.test"

describe("@NAME@", function()
  local app
  before_each(function() app = perilune.app "app.lua" end)
  after_each(function() app:close() end)

  it("says every line back", function()
    local client = app:connect()
    client:send("hello"):expect("hello")
    client:send("one"):send("two"):expect("one"):expect("two")
  end)

  it("counts the lines of each connection by itself", function()
    local ann, bob = app:connect(), app:connect()
    ann:send("hello"):expect("hello")
    bob:send("quit"):expect("bye, after 0 lines")
    ann:send("quit"):expect("bye, after 1 lines")
    assert.equal("agent", ann:closed())
    assert.equal("agent", bob:closed())
  end)

  it("does not mind how the network cuts the bytes", function()
    local client = app:connect()
    client:send_raw("hel"):send_raw("lo\r\nwor"):send_raw("ld\n"):expect("hello"):expect("world")
  end)

  it("says goodbye to the silent ones after five minutes", function()
    local client = app:connect()
    app:advance("5m")
    client:expect("are you still there? goodbye")
    assert.equal("idle_timeout", client:closed())
  end)
end)
