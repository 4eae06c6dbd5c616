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
