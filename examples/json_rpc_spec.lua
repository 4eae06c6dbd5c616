local perilune = require "perilune.test"

describe("examples/json_rpc.lua", function()
  local app, client
  before_each(function()
    app = perilune.app("examples/json_rpc.lua")
    client = app:connect()
  end)
  after_each(function() app:close() end)

  it("keeps 64 bits exact", function()
    client:send '{"jsonrpc":"2.0","id":"a","method":"add","params":["visits",9007199254740993]}'
    client:expect '{"id":"a","jsonrpc":"2.0","result":9007199254740993}'
    client:send '{"jsonrpc":"2.0","id":9007199254740995,"method":"add","params":["visits",-1]}'
    client:expect '{"id":9007199254740995,"jsonrpc":"2.0","result":9007199254740992}'
  end)

  it("answers an empty list with an array", function()
    client:send '{"jsonrpc":"2.0","id":1,"method":"list"}':expect '{"id":1,"jsonrpc":"2.0","result":[]}'
    client:send '{"jsonrpc":"2.0","method":"add","params":["a",1]}':expect_nothing()
    client:send '{"jsonrpc":"2.0","id":2,"method":"list","params":[]}':expect '{"id":2,"jsonrpc":"2.0","result":["a"]}'
  end)

  it("answers a batch with what wants an answer", function()
    client:send '[{"jsonrpc":"2.0","id":1,"method":"list"},{"jsonrpc":"2.0","method":"list"},1]'
    client:expect('[{"id":1,"jsonrpc":"2.0","result":[]},'
      .. '{"error":{"code":-32600,"message":"Invalid Request"},"id":null,"jsonrpc":"2.0"}]')
    client:send "[]":expect '{"error":{"code":-32600,"message":"Invalid Request"},"id":null,"jsonrpc":"2.0"}'
    client:send '[{"jsonrpc":"2.0","method":"list"}]':expect_nothing()
  end)

  it("says what is wrong", function()
    client:send '{"jsonrpc":"2.0", method}'
    client:expect('{"error":{"code":-32700,"message":"Parse error: a key in quotes is expected at byte 19"},'
      .. '"id":null,"jsonrpc":"2.0"}')
    client:send '{"jsonrpc":"2.0","id":1,"method":"divide"}'
    client:expect '{"error":{"code":-32601,"message":"Method not found"},"id":1,"jsonrpc":"2.0"}'
    client:send '{"jsonrpc":"2.0","id":1,"method":"add","params":{}}'
    client:expect '{"error":{"code":-32602,"message":"params must be an array"},"id":1,"jsonrpc":"2.0"}'
    client:send '{"jsonrpc":"2.0","id":1,"method":"add","params":[1]}'
    client:expect '{"error":{"code":-32602,"message":"expects a name and a number"},"id":1,"jsonrpc":"2.0"}'
  end)
end)
