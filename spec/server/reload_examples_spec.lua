--- The examples for trying reloads, reloaded. What they say for themselves: examples/reload_*_spec.lua.
local server = require "spec.support.server"
local support = require "spec.support.reload"

describe("examples/reload_pin.lua", function()
  after_each(server.finish)

  it("keeps the old price for whoever was there, until it leaves", function()
    local app, edit = support.start_example "reload_pin"
    local early = app:connect()
    assert.equal("a coffee is 3; say how many", early:recv_line())
    early:echo_line("2", "6 so far")
    edit("PRICE = 3", "PRICE = 4")
    local late = app:connect()
    assert.equal("a coffee is 4; say how many", late:recv_line())
    late:echo_line("2", "8 so far")
    early:echo_line("1", "9 so far"):echo_line("pay", "that makes 9")
    early:expect_closed()
    app:wait_log { message = "generation retired", generation = 1 }
    late:echo_line("pay", "that makes 8")
  end)
end)

describe("examples/reload_migrate.lua", function()
  after_each(server.finish)

  it("takes what a connection has said to the new code", function()
    local app, edit = support.start_example "reload_migrate"
    local client = app:connect():echo_line("tea", "noted: tea, the 1. word")
    edit([["noted"]], [["written down"]])
    app:wait_log { message = "generation retired", generation = 1 }
    client:echo_line("milk", "written down: milk, the 2. word"):echo_line("list", "tea, milk")
  end)

  it("understands the shape of an earlier version", function()
    local SNAPSHOT = "return { shape = SHAPE, words = self.words, since = self.since }"
    local app, edit = support.start_example "reload_migrate"
    edit(SNAPSHOT, [[return table.concat(self.words, ", ")]])
    local client = app:connect():echo_line("tea", "noted: tea, the 1. word")
    client:echo_line("milk", "noted: milk, the 2. word")
    edit([[return table.concat(self.words, ", ") end

-- In place]], SNAPSHOT .. [[ end

-- In place]])
    app:wait_log { message = "generation retired", generation = 2 }
    client:echo_line("list", "tea, milk"):echo_line("sugar", "noted: sugar, the 3. word")
  end)

  it("leaves a connection with the old code where the shape is another", function()
    local app, edit = support.start_example "reload_migrate"
    local client = app:connect():echo_line("tea", "noted: tea, the 1. word")
    edit("SHAPE = 2", "SHAPE = 3")
    app:wait_log { message = "handler failed", callback = "upgrade" }
    client:echo_line("milk", "noted: milk, the 2. word")
    app:connect():echo_line("rice", "noted: rice, the 1. word")
  end)
end)

describe("examples/reload_drain.lua", function()
  after_each(server.finish)

  it("says good-bye to whoever was there, and welcomes it again", function()
    local app, edit = support.start_example("reload_drain", { "--drain=1s" })
    local clients = {}
    for i = 1, 5 do
      clients[i] = app:connect()
      assert.equal("version 1", clients[i]:recv_line())
    end
    edit("VERSION = 1", "VERSION = 2")
    for _, client in ipairs(clients) do
      assert.equal("good-bye: version 1 ends within 1 s, please come back\n", (client:recv_all()))
      assert.equal("version 2", app:connect():recv_line())
    end
    app:wait_log { message = "generation retired", generation = 1 }
  end)
end)
