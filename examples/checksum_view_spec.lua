local perilune = require "perilune.test"

describe("examples/checksum_view.lua", function()
  it("answers with the CRC-32 of each frame, however large", function()
    local app = perilune.app("examples/checksum_view.lua")
    local client = app:connect():send("123456789", "a"):send(("\0"):rep(1000000))
    client:expect("cbf43926", "e8b7be43", "1279cb9e")
    app:close()
  end)
end)
