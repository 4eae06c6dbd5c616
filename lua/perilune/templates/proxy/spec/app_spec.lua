local perilune = require "perilune.test"

local ADDRESSES = require("backends").ADDRESSES

describe("@NAME@", function()
  local net, app

  -- Stands in for a backend, by its place in the list.
  local function serve(place)
    return net:serve(ADDRESSES[place], {
      frame = "line",
      agent = { proceed = function(_, line) return ("%d: %s"):format(place, line) end },
    })
  end

  local function connect() return app:connect { frame = "line" } end

  before_each(function()
    net = perilune.net()
    app = net:app "app.lua"
  end)
  after_each(function() net:close() end)

  it("gives backends their clients in turn", function()
    serve(1)
    serve(2)
    connect():send("hello"):expect("1: hello")
    connect():send("hello"):expect("2: hello")
    connect():send("hello"):expect("1: hello")
  end)

  it("passes ends of stream on", function()
    serve(1)
    connect():send("hello"):half_close():expect("1: hello"):expect_closed "peer"
  end)

  it("leaves out a backend that refuses, until it is back", function()
    serve(2)
    connect():send("hello"):expect("2: hello")
    connect():send("hello"):expect("2: hello")
    assert.equal(1, #app:log "backend is down")
    serve(1)
    app:advance "2s"
    assert.equal(ADDRESSES[1], app:log("backend is up")[1].backend)
    connect():send("hello"):expect("1: hello")
  end)

  it("ends a client for whom there is no backend, and says so", function()
    connect():expect_closed "agent"
    connect():expect_closed "agent"
    assert.equal("all backends are down", app:log("no backend for a client")[2].error)
  end)
end)
