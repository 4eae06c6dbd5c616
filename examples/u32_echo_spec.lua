local server = require "spec.support.server"
local unistd = require "posix.unistd"

local function start()
  return server.start { file = unistd.getcwd() .. "/examples/u32_echo.lua", args = { "--listen=tcp://127.0.0.1:0" } }
end

describe("examples/u32_echo.lua", function()
  after_each(server.finish)

  it("sends every frame back, up to the limit", function()
    start():connect():echo_frame("hello"):echo_frame("\0\n\255"):echo_frame(("x"):rep(65536))
  end)

  it("hangs up at a frame over the limit, and at an empty one", function()
    local app = start()
    for _, header in ipairs { "\0\1\0\1", "\0\0\0\0" } do
      local client = app:connect():send(header)
      client:expect_closed()
    end
  end)
end)
