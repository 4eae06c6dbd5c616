local perilune = require "perilune.test"

describe("@NAME@", function()
  local app
  before_each(function() app = perilune.app "app.lua" end)
  after_each(function() app:close() end)

  it("calls a method and answers with its result", function()
    app:connect():send('{"id": 1, "method": "add", "params": [2, 3]}'):expect('{"id":1,"jsonrpc":"2.0","result":5}')
  end)

  it("answers calls in their order, and says which is which", function()
    local client = app:connect()
    for i = 1, 3 do client:send(('{"id":%d,"method":"echo","params":[%d]}'):format(i, i)) end
    for i = 1, 3 do client:expect(('{"id":%d,"jsonrpc":"2.0","result":[%d]}'):format(i, i)) end
  end)

  for what, case in pairs {
    ["no JSON"] = { "{", '"code":-32700' },
    ["what is no request"] = { "[1]", '"code":-32600' },
    ["an unknown method"] = { '{"id":1,"method":"nothing"}', '"code":-32601' },
    ["wrong parameters"] = { '{"id":1,"method":"add","params":[2]}', '"code":-32602' },
  } do
    it("refuses " .. what .. " and goes on", function()
      local client = app:connect():send(case[1])
      assert.truthy(client:receive():find(case[2], 1, true))
      client:send('{"id":2,"method":"add","params":[1,1]}'):expect('{"id":2,"jsonrpc":"2.0","result":2}')
    end)
  end

  it("does not answer a notification", function()
    local client = app:connect():send '{"method":"echo","params":[1]}'
    client:send('{"id":7,"method":"echo","params":[]}'):expect('{"id":7,"jsonrpc":"2.0","result":[]}')
  end)

  it("lets one caller wait, and nobody else", function()
    local slow, quick = app:connect(), app:connect()
    slow:send '{"id":1,"method":"sleep","params":[3]}'
    quick:send('{"id":2,"method":"add","params":[1,1]}'):expect('{"id":2,"jsonrpc":"2.0","result":2}')
    app:advance "3s"
    slow:expect('{"id":1,"jsonrpc":"2.0","result":3}')
  end)

  it("ends a connection that announces too large a message", function()
    local client = app:connect():send_raw "\127\255\255\255"
    assert.equal("oversize", client:closed())
  end)
end)
