local perilune = require "perilune.test"

describe("examples/gateway.lua", function()
  local app
  before_each(function() app = perilune.app("examples/gateway.lua") end)
  after_each(function() app:close() end)

  local function watch() return app:connect { listener = "watchers" } end
  local function sense() return app:connect { listener = "sensors" } end

  it("shows readings of one listener's clients to those of another", function()
    local watcher = watch():send("?"):expect("there is nothing to say here")
    sense():send("\0\7\0\215", "\0\7\255\241")
    watcher:expect("7 21.5", "7 -1.5")
    watch():expect("7 -1.5")
  end)

  it("ends a sensor that sends something else, and nobody else", function()
    local watcher = watch():send("?"):expect("there is nothing to say here")
    sense():send("abc"):expect_nothing():expect_closed("error")
    assert.equal("sensors", app:faults()[1].listener)
    watcher:send("?"):expect("there is nothing to say here")
  end)

  it("lets a watcher be silent for hours, and drops readings for one that does not read", function()
    local watcher = watch():stall()
    local sensor = sense()
    for _ = 1, 5000 do sensor:send("\0\7\0\215") end
    app:advance("5s") -- not timeout.write
    watcher:unstall()
    assert.is_true(#watcher:frames() < 5000)
    app:advance("3h")
    assert.is_nil(watcher:closed())
  end)
end)
