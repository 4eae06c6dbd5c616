local server = require "spec.support.server"

-- Both listeners have settings of their own, so --listen cannot move them to free ports.
local function start()
  local file = assert(io.open("examples/gateway.lua"))
  local script = file:read("*a"):gsub("127%.0%.0%.1:900%d", "127.0.0.1:0")
  file:close()
  return server.start { script = script }
end

local SENSORS, WATCHERS = { listener = 1 }, { listener = 2 }

describe("examples/gateway.lua", function()
  after_each(server.finish)

  it("shows readings of one listener's clients to those of another", function()
    local app = start()
    local watcher = app:connect(WATCHERS):echo_line("?", "there is nothing to say here")
    app:connect(SENSORS):send("\0\4\0\7\0\215\0\4\0\7\255\241")
    assert.equal("7 21.5", watcher:recv_line())
    assert.equal("7 -1.5", watcher:recv_line())
    assert.equal("7 -1.5", app:connect(WATCHERS):recv_line())
  end)

  it("ends a sensor that sends something else, and nobody else", function()
    local app = start()
    local watcher = app:connect(WATCHERS):echo_line("?", "there is nothing to say here")
    local sensor = app:connect(SENSORS):send("\0\3abc")
    sensor:expect_closed()
    assert.equal("sensors", app:wait_log("handler failed").listener)
    watcher:echo_line("?", "there is nothing to say here")
  end)
end)
