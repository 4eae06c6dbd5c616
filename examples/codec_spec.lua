local server = require "spec.support.server"
local unistd = require "posix.unistd"

local function start()
  return server.start { file = unistd.getcwd() .. "/examples/codec.lua", args = { "--listen=tcp://127.0.0.1:0" } }
end

local function request(...)
  local parts = { ("*%d\r\n"):format(select("#", ...)) }
  for _, arg in ipairs { ... } do parts[#parts + 1] = ("$%d\r\n%s\r\n"):format(#arg, arg) end
  return table.concat(parts)
end

local function exchange(client, bytes, answer)
  assert.equal(answer, client:send(bytes):recv_exact(#answer))
end

describe("examples/codec.lua", function()
  after_each(server.finish)

  it("answers Redis's requests", function()
    local client = start():connect()
    exchange(client, request("ping"), "$4\r\nPONG\r\n")
    exchange(client, request("GET", "k"), "$-1\r\n")
    exchange(client, request("SET", "k", "a\r\nb"), "$2\r\nOK\r\n")
    exchange(client, request("GET", "k"), "$4\r\na\r\nb\r\n")
    exchange(client, request("INCR", "n") .. request("INCR", "n"), ":1\r\n:2\r\n")
    exchange(client, request("INCR", "k"), "-ERR value is not an integer\r\n")
    exchange(client, request("GET"), "-ERR wrong number of arguments\r\n")
  end)

  it("parses the same when it gets a byte at a time", function()
    local client = start():connect()
    client:trickle(request("ECHO", "hello"))
    exchange(client, "", "$5\r\nhello\r\n")
  end)

  it("parses the same wherever the stream is cut in three", function()
    local app = start()
    local stream = request("ECHO", "a\r\nb") .. request("PING") .. request("ECHO", "")
    local answer = "$4\r\na\r\nb\r\n$4\r\nPONG\r\n$0\r\n\r\n"
    for first = 1, #stream - 2 do
      for second = first + 1, #stream - 1 do
        local client = app:connect():send(stream:sub(1, first))
        client:send(stream:sub(first + 1, second))
        exchange(client, stream:sub(second + 1), answer)
        client:close()
      end
    end
  end)

  it("hangs up on anything else, and logs why", function()
    local app = start()
    local client = app:connect():send("GET / HTTP/1.1\r\n\r\n")
    client:expect_closed()
    assert.truthy(app:wait_log("bad frame").error:find("a request is an array", 1, true))
  end)
end)
