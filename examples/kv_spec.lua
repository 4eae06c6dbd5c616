local server = require "spec.support.server"
local unistd = require "posix.unistd"

local function start()
  return server.start { file = unistd.getcwd() .. "/examples/kv.lua", args = { "--listen=tcp://127.0.0.1:0" } }
end

local function exchange(client, request, answer)
  assert.equal(answer, client:send(request):recv_exact(#answer))
end

describe("examples/kv.lua", function()
  after_each(server.finish)

  it("stores, finds and deletes, for all connections", function()
    local app = start()
    local client = app:connect()
    exchange(client, "set moon 7 0 4\r\nluna\r\n", "STORED\r\n")
    exchange(app:connect(), "get sun moon\r\n", "VALUE moon 7 4\r\nluna\r\nEND\r\n")
    exchange(client, "delete moon\r\n", "DELETED\r\n")
    exchange(client, "delete moon\r\n", "NOT_FOUND\r\n")
    exchange(client, "get moon\r\n", "END\r\n")
  end)

  it("takes data that looks like lines", function()
    local client = start():connect()
    exchange(client, "set k 0 0 10\r\nget k\r\nx\r\n\r\n", "STORED\r\n")
    exchange(client, "get k\r\n", "VALUE k 0 10\r\nget k\r\nx\r\n\r\nEND\r\n")
  end)

  it("parses the same when it gets a byte at a time", function()
    local client = start():connect():trickle("set k 0 0 1\r\nv\r\nget k\r\n")
    exchange(client, "", "STORED\r\nVALUE k 0 1\r\nv\r\nEND\r\n")
  end)

  it("refuses data of another length, and what it does not know", function()
    local app = start()
    exchange(app:connect(), "flush\r\n", "ERROR\r\n")
    local client = app:connect():send("set k 0 0 1\r\nvalue\r\n")
    assert.equal("CLIENT_ERROR bad data chunk\r\n", (client:recv_all()))
  end)
end)
