--- That time-outs end connections of real sockets, by the real clock. All else: spec/behaviour/timeout_spec.lua.
local server = require "spec.support.server"
local wait = require "spec.support.wait"

local function start(timeouts, body)
  return server.start { script = ([[%s
    local Agent = {}
    function Agent:closed(reason) note("closed " .. reason) end
    %s
    return { listen = "tcp://127.0.0.1:0", agent = Agent, timeout = { %s } }]])
    :format(server.NOTE, body or "function Agent:proceed(frame) return frame end", timeouts) }
end

-- What begin() does starts the clock somewhere: not sooner than it is called, and not later than it returns.
local function assert_took(seconds, begin, finish)
  local before = wait.now()
  local client = begin()
  local after = wait.now()
  finish(client)
  local now = wait.now()
  -- The clock of the server has milliseconds.
  assert.is_true(now - before > seconds - 0.003, ("took %.3f s"):format(now - before))
  assert.is_true(now - after < seconds + 0.5 * wait.SCALE, ("took %.3f s"):format(now - after))
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
  local began = wait.now()
  while #app:find_log(message) == 0 and wait.now() - began < 5 do
    client:send_some("x")
    wait.pause(0.03)
  end
  app:wait_log(message)
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
    local began, chunks = wait.now(), 0
    while wait.now() - began < 1.3 do
      client:recv_exact(50000)
      chunks = chunks + 1
      wait.pause(math.max(0, began + chunks * 0.05 - wait.now()))
    end
    assert.equal(0, #app:find_log "closed write_timeout")
    app:wait_log "closed write_timeout"
  end)
end)
