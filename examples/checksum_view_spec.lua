local server = require "spec.support.server"
local unistd = require "posix.unistd"

describe("examples/checksum_view.lua", function()
  after_each(server.finish)

  it("answers with the CRC-32 of each frame, however large", function()
    local client = server.start {
      file = unistd.getcwd() .. "/examples/checksum_view.lua", args = { "--listen=tcp://127.0.0.1:0" },
    }:connect()
    client:send_frame("123456789"):send_frame("a"):send_frame(("\0"):rep(1000000))
    assert.equal("cbf43926", client:recv_frame())
    assert.equal("e8b7be43", client:recv_frame())
    assert.equal("1279cb9e", client:recv_frame())
  end)
end)
