local server = require "spec.support.server"
local unistd = require "posix.unistd"

local function start()
  return server.start {
    file = unistd.getcwd() .. "/examples/countdown.lua", args = { "--listen=tcp://127.0.0.1:0" },
  }
end

describe("examples/countdown.lua", function()
  after_each(server.finish)

  it("counts down while others go on, and keeps what is sent meanwhile", function()
    local app = start()
    local slow, quick = app:connect(), app:connect()
    slow:send("2 0.2\n1 0\n")
    assert.equal("2", slow:recv_line())
    quick:send("1 0\n")
    assert.equal("1", quick:recv_line())
    assert.equal("lift-off", quick:recv_line())
    assert.equal("1\nlift-off\n1\nlift-off\n", slow:recv_exact(22))
  end)

  it("stops counting when the client has left", function()
    local app = start()
    local client = app:connect():send("3 0.1\n")
    assert.equal("3", client:recv_line())
    client:close()
    local result = app:stop()
    assert.equal(0, result.code)
    assert.equal(1, result.summary.frames_out)
  end)

  it("explains itself", function()
    start():connect():echo_line("three", "say a number, as in: 3")
  end)
end)
