local server = require "spec.support.server"
local support = require "spec.support.reload"

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
