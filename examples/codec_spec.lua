local perilune = require "perilune.test"

-- Redis's own bytes, whatever decode() and encode() make of them: so the client takes them raw.
local function request(...)
  local parts = { ("*%d\r\n"):format(select("#", ...)) }
  for _, arg in ipairs { ... } do parts[#parts + 1] = ("$%d\r\n%s\r\n"):format(#arg, arg) end
  return table.concat(parts)
end

describe("examples/codec.lua", function()
  local app
  before_each(function() app = perilune.app("examples/codec.lua") end)
  after_each(function() app:close() end)

  local function connect() return app:connect { frame = "raw" } end

  it("answers Redis's requests", function()
    local client = connect()
    client:send(request("ping")):expect("$4\r\nPONG\r\n")
    client:send(request("GET", "k")):expect("$-1\r\n")
    client:send(request("SET", "k", "a\r\nb")):expect("$2\r\nOK\r\n")
    client:send(request("GET", "k")):expect("$4\r\na\r\nb\r\n")
    client:send(request("INCR", "n") .. request("INCR", "n")):expect(":1\r\n:2\r\n")
    client:send(request("INCR", "k")):expect("-ERR value is not an integer\r\n")
    client:send(request("GET")):expect("-ERR wrong number of arguments\r\n"):expect_nothing()
  end)

  it("parses the same when it gets a byte at a time", function()
    connect():send_split(request("ECHO", "hello")):expect("$5\r\nhello\r\n")
  end)

  it("parses the same wherever the stream is cut in three", function()
    local stream = request("ECHO", "a\r\nb") .. request("PING") .. request("ECHO", "")
    local answer = "$4\r\na\r\nb\r\n$4\r\nPONG\r\n$0\r\n\r\n"
    for first = 1, #stream - 2 do
      for second = first + 1, #stream - 1 do
        local client = connect()
        client:send(stream:sub(1, first)):send(stream:sub(first + 1, second)):send(stream:sub(second + 1))
        client:expect(answer):expect_nothing():close()
      end
    end
  end)

  it("hangs up on anything else, and logs why", function()
    connect():send("GET / HTTP/1.1\r\n\r\n"):expect_nothing():expect_closed("frame_error")
    assert.truthy(app:log("bad frame")[1].error:find("a request is an array", 1, true))
  end)
end)
