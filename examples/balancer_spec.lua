local perilune = require "perilune.test"

describe("the load balancer", function()
  local net, app

  local function serve(port)
    return net:serve("tcp://127.0.0.1:" .. port, {
      frame = "line", agent = { proceed = function(_, line) return ("%d: %s"):format(port, line) end },
    })
  end

  local function connect() return app:connect { frame = "line" } end

  before_each(function()
    net = perilune.net()
    app = net:app "examples/balancer.lua"
  end)
  after_each(function() net:close() end)

  it("gives each client the backend with the fewest clients", function()
    serve(9101)
    serve(9102)
    local ann, bob = connect(), connect()
    ann:send("hello"):expect("9101: hello")
    bob:send("hello"):expect("9102: hello")
    ann:close()
    connect():send("hello"):expect("9101: hello")
  end)

  it("leaves out one that refuses, until it is back", function()
    serve(9102)
    connect():send("hello"):expect("9102: hello")
    connect():send("hello"):expect("9102: hello")
    assert.equal("tcp://127.0.0.1:9101", app:log("backend is down")[1].backend)
    serve(9101)
    app:advance "2s"
    assert.equal("tcp://127.0.0.1:9101", app:log("backend is up")[1].backend)
    connect():send("hello"):expect("9101: hello")
  end)

  it("notices one that has gone before a client does", function()
    local one = serve(9101)
    serve(9102)
    one:close()
    app:advance "2s"
    assert.equal(1, #app:log "backend is down")
    connect():send("hello"):expect("9102: hello")
  end)

  it("passes on that a backend has ended, and ends a client for whom there is none", function()
    local one = serve(9101)
    local client = connect()
    client:send("hello"):expect("9101: hello")
    one:close()
    client:half_close():expect_closed "peer"
    connect():expect_closed "agent"
  end)

  it("answers a client that has ended its side", function()
    serve(9101)
    connect():send("hello"):half_close():expect("9101: hello"):expect_closed "peer"
  end)
end)
