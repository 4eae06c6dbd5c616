local server = require "spec.support.server"
local unistd = require "posix.unistd"

local function start()
  return server.start { file = unistd.getcwd() .. "/examples/echo.lua", args = { "--listen=tcp://127.0.0.1:0" } }
end

describe("examples/echo.lua", function()
  after_each(server.finish)

  it("sends every line back", function()
    start():connect():echo_line("hello"):echo_line(""):echo_line("again")
  end)

  it("says bye and hangs up at quit", function()
    local client = start():connect():echo_line("quit", "bye")
    client:expect_closed()
  end)
end)
