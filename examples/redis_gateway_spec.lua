local perilune = require "perilune.test"

-- What Redis says, by what it is asked.
local REPLIES = {
  ["*1\r\n$4\r\nPING\r\n"] = "+PONG\r\n",
  ["*3\r\n$3\r\nSET\r\n$4\r\nname\r\n$3\r\nAnn\r\n"] = "+OK\r\n",
  ["*2\r\n$3\r\nGET\r\n$4\r\nname\r\n"] = "$3\r\nAnn\r\n",
  ["*2\r\n$3\r\nGET\r\n$6\r\nnobody\r\n"] = "$-1\r\n",
  ["*2\r\n$3\r\nGET\r\n$5\r\nempty\r\n"] = "$0\r\n\r\n",
  ["*2\r\n$3\r\nGET\r\n$5\r\nlines\r\n"] = "$7\r\none\r\ntwo\r\n",
  ["*2\r\n$3\r\nGET\r\n$4\r\nhuge\r\n"] = "$99999999\r\n",
  ["*2\r\n$4\r\nINCR\r\n$1\r\nn\r\n"] = ":7\r\n",
  ["*2\r\n$4\r\nINCR\r\n$4\r\nname\r\n"] = "-ERR value is not an integer or out of range\r\n",
}

describe("the gateway to Redis", function()
  local net, app

  local function serve(proceed)
    return net:serve("tcp://127.0.0.1:6379", { frame = "raw", agent = { proceed = proceed } })
  end

  before_each(function()
    net = perilune.net()
    app = net:app "examples/redis_gateway.lua"
  end)
  after_each(function() net:close() end)

  it("puts commands and replies into the words of the other side", function()
    serve(function(_, bytes) return REPLIES[bytes] end)
    local client = app:connect()
    client:send("PING", "SET name Ann", "GET name"):expect("PONG", "OK", "Ann")
    client:send("GET nobody", "GET empty", "INCR n"):expect("(none)", "", "7")
    client:send("INCR name"):expect "error: ERR value is not an integer or out of range"
    client:send("GET lines"):expect(perilune.pattern "^one")
  end)

  it("refuses all other commands", function()
    for _, line in ipairs { "FLUSHALL", "GET", "GET a b", "" } do
      app:connect():send(line):expect(perilune.pattern "^error: there are")
    end
  end)

  it("uses few connections for many clients, each for one at a time", function()
    local backend = serve(function(_, bytes) return REPLIES[bytes] end)
    for _ = 1, 50 do app:connect():send("GET name"):expect "Ann" end
    assert.equal(1, backend:counters().accepted)
  end)

  it("does not give one caller the reply of another who has not waited for it", function()
    local core = require "perilune"
    serve(function(_, bytes)
      if bytes:find "INCR" then core.sleep "3s" end
      return REPLIES[bytes]
    end)
    local client = app:connect():send "INCR n"
    app:advance "2s"
    client:expect "error: timeout"
    client:send "GET name"
    app:advance "2s"
    client:expect "Ann"
  end)

  it("refuses a reply that is too large, and goes on", function()
    serve(function(_, bytes) return REPLIES[bytes] end)
    app:connect():send("GET huge", "GET name"):expect(perilune.pattern "^error: a reply that is too large", "Ann")
  end)

  it("says so where there is no Redis", function()
    app:connect():send("PING"):expect(perilune.pattern "^error: .*connection refused")
  end)
end)
