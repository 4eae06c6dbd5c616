--- That time-outs end connections of real sockets, by the real clock. All else: spec/behaviour/timeout_spec.lua.
local server = require "spec.support.server"
local wait = require "spec.support.wait"

local function start(timeouts, body)
  return server.start { script = ([[%s
    local Agent = {}
    function Agent:closed(reason) note("closed " .. reason) end
    %s
    return { listen = "tcp://127.0.0.1:0", agent = Agent, timeout = { %s },
      limits = { proceed = "10s" } }]])
    :format(server.NOTE, body or "function Agent:proceed(frame) return frame end", timeouts) }
end

-- What begin() does starts the clock, not sooner than it is called. How late the end may come, only the clock of an
-- app in memory can tell: this machine may be busy.
local function assert_took(seconds, begin, finish)
  local before = wait.now()
  finish(begin())
  local took = wait.now() - before
  -- The clock of the server has milliseconds.
  assert.is_true(took > seconds - 0.003, ("took %.3f s"):format(took))
end

local function await_end(app, client, reason)
  client:recv_all()
  app:wait_log { message = "closed " .. reason, conn = 1 }
end

-- begin() returns the client that ends.
local function assert_ends(app, seconds, reason, begin)
  assert_took(seconds, begin, function(client) await_end(app, client, reason) end)
end

-- Sends bytes that complete no frame until the log says so.
local function trickle(app, client, message)
  wait.until_true(message, function()
    client:send_some("x")
    wait.pause(0.03)
    return app:find_log(message)[1]
  end)
end

describe("timeout.idle", function()
  after_each(server.finish)

  it("closes a client that says nothing", function()
    local app = start [[idle = "200ms"]]
    assert_ends(app, 0.2, "idle_timeout", function() return app:connect() end)
  end)
end)

describe("timeout.read", function()
  after_each(server.finish)

  it("is not extended by a trickle", function()
    local app = start [[read = "300ms"]]
    assert_took(0.3, function() return app:connect():send("\0\0\1\0") end, function(client)
      trickle(app, client, "closed read_timeout")
    end)
  end)
end)

describe("timeout.write", function()
  after_each(server.finish)

  local BIG = [[function Agent:proceed() return ("x"):rep(3e7) end]]

  it("closes a client that does not read", function()
    local app = start([[write = "300ms"]], BIG)
    local client = app:connect { receive_buffer = 4096 }
    assert_took(0.3, function() client:send_frame("x") end, function() app:wait_log "closed write_timeout" end)
  end)

  it("begins anew whenever the client has taken something", function()
    local app = start([[write = "600ms"]], BIG)
    local client = app:connect { receive_buffer = 65536 }
    client:send_frame("x")
    local began = wait.now()
    local took, longest = began, 0
    while wait.now() - began < 1.3 do
      client:recv_exact(50000)
      longest, took = math.max(longest, wait.now() - took), wait.now()
      wait.pause(0.05)
    end
    -- Where we had no processor for that long ourselves, the server was right to end it.
    assert.is_true(#app:find_log "closed write_timeout" == 0 or longest > 0.55, ("at most %.3f s"):format(longest))
    app:wait_log "closed write_timeout"
  end)
end)
