local server = require "spec.support.server"
local unistd = require "posix.unistd"

local function start()
  return server.start { file = unistd.getcwd() .. "/examples/upload.lua", args = { "--listen=tcp://127.0.0.1:0" } }
end

describe("examples/upload.lua", function()
  after_each(server.finish)

  it("takes a body of the size announced, and goes on with lines", function()
    local client = start():connect()
    client:send("PUT logo 5\nhelloPUT empty 0\n")
    assert.equal("OK logo 5 062c0215", client:recv_line())
    assert.equal("OK empty 0 00000001", client:recv_line())
    client:send("PUT zeros 1000000\n"):send(("\0"):rep(1000000))
    assert.equal("OK zeros 1000000 43210001", client:recv_line())
  end)

  it("answers a client that has ended its side", function()
    local client = start():connect():send("PUT logo 5\nhello"):shutdown("send")
    assert.equal("OK logo 5 062c0215\n", (client:recv_all()))
  end)

  it("says how much was missing when the stream ends early", function()
    local client = start():connect():send("PUT logo 5\nhel"):shutdown("send")
    assert.equal("ERROR end of stream with 5 bytes to go\n", (client:recv_all()))
  end)

  it("refuses what is no upload", function()
    local client = start():connect():send("GET logo\n")
    assert.equal("ERROR expected: PUT name size\n", (client:recv_all()))
  end)
end)
