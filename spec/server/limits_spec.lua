--- Limits that the door, descriptors, threads or resident memory are the point of. All else:
--- spec/behaviour/limits_spec.lua.
local command = require "spec.support.command"
local errno = require "posix.errno"
local has = require "spec.support.has"
local server = require "spec.support.server"
local wait = require "spec.support.wait"

local start_lines = server.start_lines

local ECHO = [[
  function Agent:closed(reason) note("closed " .. reason) end
  function Agent:proceed(line)
    if line == "quit" then return "bye", "close" end
    return line
  end ]]

-- The count of a reason in a summary such as "peer=3 limit=1".
local function count_of(summary, reason)
  return tonumber(((summary.reasons or "") .. " "):match("%f[%w_]" .. reason .. "=(%d+) ")) or 0
end

local function refusals(app, limit) return app:find_log { message = "connection refused", limit = limit } end

-- At most one line a second, with a little for where the seconds begin.
local function assert_rare(entries, seconds)
  assert.is_true(#entries <= math.ceil(seconds) + 1, ("%d lines in %.1f s"):format(#entries, seconds))
end

describe("limits.connections", function()
  after_each(server.finish)

  it("closes the one too many, told why, logged and counted; the others are served", function()
    local app = start_lines(ECHO, nil, [[limits = { connections = 2, reject = "busy\n" }]])
    local first, second = app:connect(), app:connect()
    first:echo_line("a")
    second:echo_line("b")
    local third = app:connect()
    assert.equal("busy\n", (third:recv_all()))
    local entry = app:wait_log "connection refused"
    assert.same({ "limit", "connections", 1, "warn" }, { entry.reason, entry.limit, entry.refused, entry.level })
    has("127.0.0.1:" .. third.port, entry.peer)
    assert.equal("tcp://127.0.0.1:0", entry.listener)
    first:echo_line("still")
    second:echo_line("here")
    local summary = app:stop().summary
    assert.equal(3, summary.accepted)
    assert.equal(1, count_of(summary, "limit"))
  end)

  it("tells why even to one who has already sent something", function()
    local app = start_lines(ECHO, nil, [[limits = { connections = 1, reject = "busy\n" }]])
    app:connect():echo_line("x")
    for _ = 1, 20 do assert.equal("busy\n", (app:connect():send("hello\n"):recv_all())) end
  end)

  it("lets the next one in as soon as one has left", function()
    local app = start_lines(ECHO, { workers = 2 }, [[limits = { connections = 1, per_ip = 1, reject = "busy\n" }]])
    for i = 1, 1000 do
      local client = app:connect():send("quit\n")
      assert.equal("bye\n", (client:recv_all()), "connection " .. i)
      client:close()
    end
    assert.equal(0, #refusals(app))
  end)

  it("that refuses many logs a line a second, which says how many", function()
    local app, began = start_lines(ECHO, nil, "limits = { connections = 1 }"), wait.now()
    app:connect():echo_line("x")
    for _ = 1, 200 do
      local client = app:connect()
      client:expect_closed()
      client:close()
    end
    local took = wait.now() - began
    assert_rare(refusals(app), took)
    wait.pause(math.max(0, 1.01 - took))
    app:connect():expect_closed()
    wait.until_true("the count of all refusals", function()
      local entries = refusals(app)
      return entries[#entries].refused == 201
    end)
    assert.equal(201, count_of(app:stop().summary, "limit"))
  end)
end)

local PREFIXES = { "2001:db8::1", "2001:db8::ffff:2:3:4", "2001:db8::3", "2001:db8:0:1::1", "2001:db8:0:0:1::" }

describe("limits.per_ip", function()
  after_each(server.finish)

  it("counts each address by itself", function()
    local app = start_lines(ECHO, nil, [[limits = { per_ip = 2, reject = "too many\n" }]])
    local first = app:connect():echo_line("a")
    app:connect():echo_line("b")
    assert.equal("too many\n", (app:connect():recv_all()))
    assert.equal("per_ip", app:wait_log("connection refused").limit)
    for _ = 1, 2 do app:connect({ source = "127.0.0.2" }):echo_line("x") end
    assert.equal("too many\n", (app:connect({ source = "127.0.0.2" }):recv_all()))
    assert.equal("bye\n", (first:send("quit\n"):recv_all()))
    app:connect():echo_line("in again")
  end)

  -- The loopback has one address of IPv6; in a network of its own it may have more.
  it("counts the addresses of a /64 as one", function()
    local ups = { "ip link set lo up" }
    for i, address in ipairs(PREFIXES) do ups[i + 1] = ("ip address add %s/128 dev lo nodad"):format(address) end
    local network = "unshare --net --map-root-user sh -c '" .. table.concat(ups, " && ") .. " && %s' 2>&1"
    if command.shell(network:format "echo made") ~= "made\n" then
      pending "no network of one's own can be made here"
      return
    end
    local clients = "luajit spec/support/prefixes.lua " .. table.concat(PREFIXES, " ")
    assert.equal("served, served, refused, served, refused\n", command.shell(network:format(clients)))
  end)
end)

describe("limits.accept_rate", function()
  after_each(server.finish)

  it("makes clients wait and drops nobody", function()
    local app = start_lines(ECHO, nil, "limits = { accept_rate = 40 }")
    -- They all wait in the backlog, however long it takes them to come there.
    app:signal "STOP"
    local clients = app:connect_many(80)
    local began = wait.now()
    app:signal "CONT"
    for i, client in ipairs(clients) do client:send("line " .. i .. "\n") end
    for i, client in ipairs(clients) do assert.equal("line " .. i, client:recv_line()) end
    local took = wait.now() - began
    assert.is_true(took >= 0.9, ("80 clients came in within %.2f s"):format(took))
    local summary = app:stop().summary
    assert.equal(80, summary.accepted)
    assert.equal(0, count_of(summary, "limit"))
    assert.is_true(summary.accept_delays > 0)
  end)
end)

describe("limits.send_buffer", function()
  after_each(server.finish)

  it("makes send answer false, stops reading, and calls writable() when the peer has caught up", function()
    local app = start_lines([[
      function Agent:writable() note("writable") self.full = false end
      function Agent:proceed(line)
        if line ~= "fill" then return line end
        local sent = 0
        repeat
          local below = self.conn:send(("x"):rep(99999))
          sent = sent + 1
        until not below or sent > 1000
        note("full " .. sent)
      end]], nil, [[limits = { send_buffer = "1m" }]])
    local client = app:connect { receive_buffer = 16384 }
    client:send("fill\nafter\n")
    local entry = app:wait_log(function(entry) return entry.message:find("^full") end)
    local sent = tonumber(entry.message:match("%d+"))
    assert.is_true(sent > 10 and sent < 200, "the mark was passed after " .. sent)
    assert.equal(0, #app:find_log "writable")
    for _ = 1, sent do client:recv_exact(100000) end
    app:wait_log "writable"
    assert.equal("after", client:recv_line())
  end)

  it("bounds what a client can make the server hold that sends and does not read", function()
    local app = start_lines([[function Agent:proceed(line) return line:rep(100) end]],
      { asan = server.SMALL_QUARANTINE },
      [[limits = { send_buffer = "256k" }, timeout = { drain = "100s" }]])
    local client, before, sent, since = app:connect { receive_buffer = 4096 }, app:rss(), 0, wait.now()
    while wait.now() - since < 0.3 and sent < 3e7 do
      local n = client:send_some(("0123456789abcdef\n"):rep(1000):sub(1 + sent % 17))
      if n > 0 then since = wait.now() end
      sent = sent + n
    end
    assert.is_true(sent < 3e7, "it read on")
    local grown = app:rss() - before
    assert.is_true(not server.measures_memory or grown < 8e6, "it grew by " .. grown)
    client:reset()
  end)
end)

describe("limits.buffers", function()
  after_each(server.finish)

  local function start_frames()
    return server.start {
      asan = server.SMALL_QUARANTINE,
      script = server.NOTE .. [[
        local Agent = {}
        function Agent:closed(reason) note("closed " .. reason) end
        function Agent:proceed(frame) return frame end
        return { listen = "tcp://127.0.0.1:0", agent = Agent, limits = { buffers = "2m", frame = "1m" } }]],
    }
  end

  it("is not touched by frames that are only announced", function()
    local app = start_frames()
    app:connect():echo_frame("warm")
    local before = app:rss()
    for _, client in ipairs(app:connect_many(200)) do client:send("\0\16\0\0") end
    app:connect():echo_frame("served")
    local grown = app:rss() - before
    assert.is_true(not server.measures_memory or grown < server.scaled(1.5e6, 6e6), "it grew by " .. grown)
    assert.equal(0, #app:find_log "closed memory")
  end)
end)

describe("a limit of open files", function()
  after_each(server.finish)

  -- All lines of one kind come at most once a second.
  local function assert_quiet(app, seconds)
    local counts = {}
    for _, entry in ipairs(app:log()) do
      local key = entry.message .. " " .. (entry.limit or "")
      counts[key] = (counts[key] or 0) + 1
    end
    for key, n in pairs(counts) do
      assert.is_true(n <= math.ceil(seconds) + 1 or key:find("closed", 1, true), ("%d × %s"):format(n, key))
    end
  end

  it("too low for the connections asked for is said at the start", function()
    local app = start_lines(ECHO, { nofile = 64 })
    local entry = app:wait_log "fewer connections than configured: the limit of open files is too low"
    assert.same({ 10000, 64 }, { entry.configured, entry.nofile })
    assert.is_true(entry.connections > 20 and entry.connections < 60)
  end)

  it("refuses who is too many, without a spin, and recovers by itself", function()
    local app, began = start_lines(ECHO, { nofile = 64 }, [[limits = { reject = "busy\n" }]]), wait.now()
    local served, refused = {}, 0
    for i = 1, 120 do
      local client = app:connect():send("line " .. i .. "\n")
      local line = client:recv_line()
      if line == "busy" then refused = refused + 1 else served[#served + 1] = client end
    end
    assert.is_true(#served > 20 and #served < 60, #served .. " were served")
    assert.equal("open files", app:wait_log("connection refused").limit)
    local cpu = app:cpu()
    wait.pause(1)
    assert.is_true(app:cpu() - cpu < 0.1 * server.SLOWER, "it spins")
    for _, client in ipairs(served) do client:echo_line("still served") end
    assert_quiet(app, wait.now() - began)
    for _, client in ipairs(served) do client:close() end
    wait.until_true("a new client is served", function()
      local client = app:connect():send("x\n")
      local line = client:recv_line()
      client:close()
      return line == "x"
    end)
    assert.is_true(count_of(app:stop().summary, "limit") >= refused)
  end)

  it("lets someone in for the one that has left, whatever their worker is at", function()
    local app = start_lines([[
      function Agent:proceed(line)
        if line ~= "busy" then return line end
        note("busy")
        local began = os.clock()
        repeat until os.clock() - began > 0.5
      end]], { nofile = 64 })
    local served, ok = {}
    repeat
      local newcomer = app:connect():send("x\n")
      ok = pcall(newcomer.recv_line, newcomer)
      if ok then served[#served + 1] = newcomer end
    until not ok
    -- One poll reports the reset, and then what keeps the worker from forgetting whom it has closed.
    served[1]:send("busy\n")
    app:wait_log "busy"
    local before = app:fds()
    served[2]:reset()
    served[3]:send("busy\n")
    wait.until_true("the descriptor to be closed", function() return app:fds() < before end)
    app:connect():echo_line("let in")
  end)

  it("that is reached all the same makes clients wait in the backlog, and is logged once a second", function()
    local app = start_lines([[
      local files = {}
      function Agent:proceed(line)
        if line == "eat" then
          repeat
            local file = io.open("/dev/null")
            files[#files + 1] = file
          until not file
        elseif line == "free" then
          for i, file in ipairs(files) do file:close() files[i] = nil end
        end
        return line
      end]], { nofile = 64 })
    local first, began = app:connect(), wait.now()
    first:echo_line("eat")
    local waiting = app:connect_many(5)
    for _, client in ipairs(waiting) do client:send("hello\n") end
    local entry = app:wait_log "cannot accept: clients wait in the backlog"
    assert.equal("Too many open files", entry.error)
    local cpu = app:cpu()
    waiting[1]:expect_silence(1.2)
    assert.is_true(app:cpu() - cpu < 0.1 * server.SLOWER, "it spins")
    assert_quiet(app, wait.now() - began)
    first:echo_line("free")
    for _, client in ipairs(waiting) do assert.equal("hello", client:recv_line()) end
    local summary = app:stop().summary
    assert.equal(6, summary.accepted)
    assert.is_true(summary.accept_errors > 0)
  end)

  it("has all descriptors back when crowds have come and gone", function()
    local app = start_lines(ECHO, { nofile = 64 }, [[limits = { reject = "busy\n" }]])
    local first = app:connect():echo_line("x")
    local before = app:fds() - 1
    first:close()
    for _ = 1, 3 do
      local crowd, refused = {}, 0
      for i = 1, 100 do
        -- Answered: so none of them is still in the backlog when the descriptors are counted.
        crowd[i] = app:connect():send("x\n")
        if crowd[i]:recv_line() == "busy" then refused = refused + 1 end
      end
      assert.is_true(refused > 40 and refused < 80, refused .. " were refused")
      for _, client in ipairs(crowd) do client:close() end
      wait.until_true(function() return app:fds() .. " descriptors instead of " .. before end, function()
        return app:fds() == before
      end)
    end
    app:connect():echo_line("x")
  end)

  it("leaves the port when the server has gone", function()
    local app = start_lines(ECHO, { nofile = 64 })
    app:stop()
    local client, _, code = app:try_connect()
    assert.is_nil(client)
    assert.equal(errno.ECONNREFUSED, code)
  end)
end)

describe("a start with too low a limit of open files", function()
  after_each(server.finish)

  for _, nofile in ipairs { 8, 12, 15, 20 } do
    it("fails with 1 and names it: " .. nofile, function()
      local failed = server.start_failing {
        script = [[return { listen = "tcp://127.0.0.1:0", agent = function() end }]], workers = 2, nofile = nofile,
      }
      assert.equal(1, failed.code)
      has(("the limit of open files is too low: %d (ulimit -n)"):format(nofile), failed.text)
      assert.is_nil(failed.text:find("not found", 1, true))
    end)
  end
end)
