local core = require "perilune"
local perilune = require "perilune.test"

describe("who asks two", function()
  local net, app

  local function serve(port, takes)
    return net:serve("tcp://127.0.0.1:" .. port, {
      frame = "line",
      agent = { proceed = function(_, line)
        core.sleep(takes)
        return ("%s from %d"):format(line, port)
      end },
    })
  end

  before_each(function()
    net = perilune.net()
    app = net:app "examples/first_answer.lua"
  end)
  after_each(function() net:close() end)

  it("takes the answer that comes first, and lets the other one go", function()
    local slow = serve(9103, "1s")
    serve(9104, "100ms")
    local client = app:connect():send "hello"
    app:advance "100ms"
    client:expect "hello from 9104"
    assert.equal(1, slow:counters().accepted)
    assert.equal(0, app:counters().outgoing)
  end)

  it("does not mind that one is down", function()
    serve(9104, "100ms")
    local client = app:connect():send "hello"
    app:advance "100ms"
    client:expect "hello from 9104"
  end)

  it("says so where nobody answers in time", function()
    serve(9103, "1m")
    serve(9104, "1m")
    local client = app:connect():send "hello"
    app:advance "2s"
    client:expect "nobody answers: timeout"
  end)

  it("says so where nobody is there", function()
    app:connect():send("hello"):expect(perilune.pattern "^nobody answers: .*connection refused")
  end)
end)
