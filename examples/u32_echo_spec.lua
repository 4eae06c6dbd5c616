local perilune = require "perilune.test"

describe("examples/u32_echo.lua", function()
  local app
  before_each(function() app = perilune.app("examples/u32_echo.lua") end)
  after_each(function() app:close() end)

  it("sends every frame back, up to the limit", function()
    local client = app:connect()
    for _, frame in ipairs { "hello", "\0\n\255", ("x"):rep(65536) } do client:send(frame):expect(frame) end
  end)

  it("hangs up at a frame over the limit, and at an empty one", function()
    app:connect():send_raw("\0\1\0\1"):expect_nothing():expect_closed("oversize")
    app:connect():send_raw("\0\0\0\0"):expect_nothing():expect_closed("frame_error")
  end)
end)
