local perilune = require "perilune.test"

-- Lines, and blocks of data between them: so the client takes bytes as they are.
describe("examples/kv.lua", function()
  local app
  before_each(function() app = perilune.app("examples/kv.lua") end)
  after_each(function() app:close() end)

  local function connect() return app:connect { frame = "raw" } end

  it("stores, finds and deletes, for all connections", function()
    local client = connect():send("set moon 7 0 4\r\nluna\r\n"):expect("STORED\r\n")
    connect():send("get sun moon\r\n"):expect("VALUE moon 7 4\r\nluna\r\nEND\r\n")
    client:send("delete moon\r\n"):expect("DELETED\r\n")
    client:send("delete moon\r\n"):expect("NOT_FOUND\r\n")
    client:send("get moon\r\n"):expect("END\r\n"):expect_nothing()
  end)

  it("takes data that looks like lines", function()
    local client = connect():send("set k 0 0 10\r\nget k\r\nx\r\n\r\n"):expect("STORED\r\n")
    client:send("get k\r\n"):expect("VALUE k 0 10\r\nget k\r\nx\r\n\r\nEND\r\n"):expect_nothing()
  end)

  it("parses the same when it gets a byte at a time", function()
    connect():send_split("set k 0 0 1\r\nv\r\nget k\r\n"):expect("STORED\r\nVALUE k 0 1\r\nv\r\nEND\r\n")
  end)

  it("refuses data of another length, and what it does not know", function()
    connect():send("flush\r\n"):expect("ERROR\r\n")
    connect():send("set k 0 0 1\r\nvalue\r\n"):expect("CLIENT_ERROR bad data chunk\r\n"):expect_closed("agent")
  end)
end)
