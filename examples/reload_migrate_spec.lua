local server = require "spec.support.server"
local support = require "spec.support.reload"

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
