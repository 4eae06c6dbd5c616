-- How a handler is tested: in memory, with a clock of its own. In the folder above this one:
--
--   build/perilune test examples/chat_spec.lua
local perilune = require "perilune.test"

local function join(app, name)
  return app:connect { name = name }:expect("your name?"):send(name):expect("welcome, " .. name)
end

describe("the chat", function()
  local app

  before_each(function() app = perilune.app("examples/chat.lua") end)
  after_each(function() app:close() end)

  it("tells everybody else who comes, what is said, and who leaves", function()
    local ann = join(app, "ann")
    local bob = join(app, "bob")
    ann:expect("* bob joined")
    bob:send("hello", "", "is anybody here?") -- they arrive at once
    ann:expect("bob: hello", "bob: is anybody here?")
    bob:send("/quit"):expect("bye"):expect_closed("agent")
    ann:expect("* bob left")
  end)

  it("refuses a name that is taken or malformed, and frees it when its owner leaves", function()
    local ann = join(app, "ann")
    local other = app:connect():skip()
    other:send("ann"):expect("that name is taken")
    other:send("a b"):expect("letters, digits, _ and - only, at most 20")
    ann:reset()
    other:send("ann"):expect("welcome, ann")
  end)

  it("does not care how the network splits what is said", function()
    local ann, bob = join(app, "ann"), join(app, "bob")
    ann:skip()
    bob:send_split { "one", "two" }
    ann:expect("bob: one", "bob: two")
  end)

  it("says goodbye to the silent ones, after five minutes", function()
    local ann, bob = join(app, "ann"), join(app, "bob")
    app:advance("4m")
    bob:send("still here")
    app:advance("1m")
    assert.equal("idle_timeout", ann:closed())
    assert.is_nil(bob:closed())
    assert.equal("you have been silent for too long", ann:skip(2):receive())
  end)

  it("drops whoever does not read", function()
    local slow, bob = join(app, "slow"):stall(), join(app, "bob")
    for _ = 1, 100 do bob:send(("x"):rep(1000)) end
    slow:expect_closed("slow_consumer")
  end)

  it("tells everybody that the server stops", function()
    local ann = join(app, "ann")
    app:drain()
    ann:expect("the server is going down"):expect_closed("drain")
  end)
end)
