--- perilune.test over real sockets: the same client, the real binary.
local assert_has = require "spec.support.has"
local failure = require "spec.support.failure"
local perilune = require "perilune.test"

local CHAT = "spec/workbench/fixtures/chat.lua"

describe("perilune.start", function()
  local app

  after_each(function()
    if app then app:close() end
    app = nil
  end)

  it("serves the very example of the manual, in real time", function()
    app = perilune.start(CHAT, { timeout = { idle = "200ms" } })
    local ann = app:connect()
    ann:expect("nick?"):send("ann"):expect("* ann joined")
    assert.equal("idle_timeout", ann:closed())
  end)

  it("has clients that split, stall, reset and hang up", function()
    app = perilune.start(CHAT)
    local ann, bob = app:connect { name = "ann" }:skip(), app:connect { name = "bob" }:skip()
    ann:send_split("ann"):expect("* ann joined")
    bob:send_split("bob", 7):expect("* bob joined")
    ann:expect("* bob joined"):stall()
    bob:send("to all"):expect("to all")
    ann:expect_nothing():unstall():expect("to all")
    bob:reset()
    assert.equal("reset", bob:closed())
    ann:close()
    assert.equal("peer", ann:closed())
  end)

  it("has clients that come through a proxy", function()
    app = perilune.start(CHAT, { proxy = true, trust = "127.0.0.1" })
    local ann = app:connect { proxy = { client = "203.0.113.7:5060" } }:expect("nick?"):send("ann")
    ann:expect("* ann joined"):close()
    assert.equal("peer", ann:closed())
    app:connect { proxy = "none at all" }:expect_closed("proxy")
  end)

  it("reads all that an app logs, as an app in memory has it", function()
    local file, entries = "spec/workbench/fixtures/logging.lua", {}
    local in_memory = perilune.app(file)
    app = perilune.start(file)
    for i, one in ipairs { in_memory, app } do
      one:connect():send("hello"):expect("logged")
      local entry = one:log("hello")[1]
      entries[i] = { entry.text, entry.whole, entry.real, entry.large, entry.yes, entry.no, entry.empty, entry.level }
    end
    in_memory:close()
    assert.same({ 'a "quote", and }', -3, 0.25, 1e300, true, false, "", "warn" }, entries[1])
    assert.same(entries[1], entries[2])
  end)

  it("lets clients go on while it stops", function()
    app = perilune.start("spec/workbench/fixtures/stopping.lua")
    local client = app:connect():send("a"):expect("a")
    app:begin_drain()
    client:expect("finish, please"):send("b"):expect("b"):send("done"):expect("done"):expect_closed("agent")
    app:drain()
  end)

  it("tells a reset from an end", function()
    app = perilune.start("spec/workbench/fixtures/aborting.lua")
    app:connect():send("abort"):expect_reset()
    local text = failure(function() app:connect():send("x"):expect("x"):expect_reset() end)
    assert_has("expected a reset: there was none", text)
  end)

  it("tells of faults, and shows them in failures", function()
    app = perilune.start("spec/workbench/fixtures/faulty.lua")
    local client = app:connect():send("x")
    local text = failure(function() client:expect("y") end)
    assert_has("attempt to index field 'x'", text)
    assert_has("nil here", text)
    assert.equal("error", client:closed())
    assert.equal(1, #app:faults())
  end)

  it("says why a script cannot be served", function()
    assert_has("No such file", failure(function() perilune.start("no_such.lua") end))
    local text = failure(function()
      perilune.start(CHAT, { listen = "tcp://192.0.2.1:1" })
    end)
    assert_has("cannot be served", text)
  end)
end)
