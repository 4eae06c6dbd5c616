--- Calls that fail while clients are served. A fault is one connection's, or nobody's.
local faults = require "spec.support.faults"
local server = require "spec.support.server"

-- Call, how it fails, how many connections that may cost.
local POINTS = {
  { "accept4", "EMFILE", 0 }, { "accept4", "ENFILE", 0 }, { "accept4", "ENOMEM", 0 }, { "accept4", "ENOBUFS", 0 },
  { "accept4", "ECONNABORTED", 0 }, { "accept4", "EPERM", 0 }, { "accept4", "EPROTO", 0 }, { "accept4", "EINTR", 0 },
  { "accept4", "EAGAIN", 0 },
  { "recvfrom", "EINTR", 0 }, { "recvfrom", "short", 0 },
  { "recvfrom", "ECONNRESET", 1 },
  { "sendto", "EINTR", 0 }, { "sendto", "EAGAIN", 0 }, { "sendto", "short", 0 },
  { "sendto", "EPIPE", 1 },
  { "epoll_wait", "EINTR", 0 },
  { "connect", "ECONNREFUSED", 1 }, { "connect", "ENOMEM", 1 },
}

-- A call that fails for want of memory goes the way of one that fails: some of them do.
describe("a call that fails once for want of memory", function()
  after_each(server.finish)

  for kind, how in pairs { recvfrom = "ENOMEM", sendto = "ENOBUFS" } do
    it(("%s() with %s costs a connection"):format(kind, how), function()
      local fired, lost = 0, 0
      for fault in faults.some(kind, how) do
        local result, message = faults.run(fault)
        if message then error(message, 0) end
        if not result.fired then break end
        assert.same({ true, 0 }, { result.started, result.code }, fault)
        assert.is_true(result.lost <= 1, fault)
        fired, lost = fired + 1, lost + result.lost
      end
      assert.is_true(fired > 3 and lost > 0)
    end)
  end
end)

-- Those that cost nothing fail several times in a run: that makes no difference to any of them.
describe("a call that fails", function()
  after_each(server.finish)

  for _, point in ipairs(POINTS) do
    local kind, how, cost = unpack(point)
    local function check(result, fault)
      assert.same({ true, 0 }, { result.started, result.code }, fault)
      assert.is_true(result.lost <= cost, ("%s: %d connections were lost"):format(fault, result.lost))
    end
    it(("%s() with %s costs %d"):format(kind, how, cost), function()
      if cost > 0 then
        assert.is_true(faults.each(kind, how, check) > 0)
        return
      end
      for i, fault in ipairs(faults.spread(kind, how)) do
        local result, message = faults.run(fault)
        if message then error(message, 0) end
        check(result, fault)
        assert.is_true(result.fired or i > 1)
      end
    end)
  end

  for _, how in ipairs { "ENOMEM", "ENOSPC" } do
    it(("epoll_ctl() with %s costs one connection, or the start"):format(how), function()
      local started, failed = 0, 0
      faults.each("epoll_ctl", how, function(result, fault)
        if result.started then started = started + 1 else failed = failed + 1 end
        assert.is_true(not result.started or result.lost <= 1, fault)
      end)
      assert.is_true(started > 0 and failed > 0)
    end)
  end
end)

describe("calls that go on to fail", function()
  after_each(server.finish)

  it("by doing a byte at a time change nothing but the pace", function()
    for _, fault in ipairs { "recvfrom:1+:short", "sendto:1+:short", "recvfrom:1+:short,sendto:1+:short" } do
      local result, message = faults.run(fault)
      assert.is_nil(message)
      assert.equal(0, result.lost)
    end
  end)

  for _, how in ipairs { "EMFILE", "ENOMEM", "EPERM", "ECONNABORTED" } do
    it(("accept4() with %s: clients wait, it is told once a second, nothing spins"):format(how), function()
      local app = faults.arm(faults.start("accept4:2+:" .. how))
      local first = app:connect()
      first:echo_line "first"
      local waiting = app:connect()
      waiting:send "hello\n"
      app:wait_log "cannot accept: clients wait in the backlog"
      local cpu = app:cpu()
      waiting:expect_silence(1.2)
      assert.is_true(app:cpu() - cpu < 0.1 * server.SLOWER, "it spins")
      assert.is_true(#app:find_log "cannot accept: clients wait in the backlog" <= 3)
      first:echo_line "still here"
      assert.equal(0, app:stop().code)
      local lost = app:find_log "cannot accept: clients in the backlog are lost"
      assert.same({ 1, app.listeners[1].name }, { #lost, lost[1].listener }) -- nobody waits at the other
    end)
  end

  it("recvfrom() for want of memory end connections with memory, not with reset", function()
    local app = faults.arm(faults.start("recvfrom:1+:ENOMEM"))
    app:connect():send("hello\n"):recv_all()
    assert.equal("memory=1", app:stop().summary.reasons)
  end)

  it("sendto() for want of memory end connections with memory, not with reset", function()
    local app = faults.arm(faults.start("sendto:1+:ENOBUFS"))
    app:connect():send("hello\n"):recv_all()
    assert.equal("memory=1", app:stop().summary.reasons)
  end)
end)
