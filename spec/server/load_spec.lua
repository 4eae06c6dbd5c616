--- Many of everything. Less of it under sanitizers; PERILUNE_TEST_SCALE says how much, 1 is the full amount.
local posix_wait = require "posix.sys.wait"
local resource = require "posix.sys.resource"
local server = require "spec.support.server"
local unistd = require "posix.unistd"
local wait = require "spec.support.wait"

local frame = require("spec.support.client").frame

local SCALE = tonumber(os.getenv("PERILUNE_TEST_SCALE") or "") or server.scaled(1, 0.1)

local function many(n) return math.max(1, math.floor(n * SCALE)) end

local function start(settings, options)
  options = options or {}
  options.asan = server.SMALL_QUARANTINE
  options.script = server.NOTE .. ([[
    local Echo = {}
    function Echo:proceed(frame) return frame end
    return { listen = "tcp://127.0.0.1:0", agent = Echo, limits = { connections = 1000000 }, backlog = 4096, %s }]])
    :format(settings or "")
  return server.start(options)
end

-- Our own: each client is one. The server raises its limit by itself.
local function allow_descriptors(n)
  local limit = resource.getrlimit(resource.RLIMIT_NOFILE)
  assert(limit.rlim_max < 0 or limit.rlim_max >= n,
    "the hard limit of open files is too low (ulimit -Hn): " .. limit.rlim_max)
  if limit.rlim_cur >= 0 and limit.rlim_cur < n then
    resource.setrlimit(resource.RLIMIT_NOFILE, { rlim_cur = n, rlim_max = limit.rlim_max })
  end
end

-- What a server has open and holds, once a few clients have come and gone.
local function baseline(app)
  for _, client in ipairs(app:connect_many(20)) do client:echo_frame("warm") client:close() end
  wait.until_true("the first clients gone", function() return app:fds() == app.fds_before end)
  return app:rss()
end

local function start_measured(settings, options)
  local app = start(settings, options)
  app.fds_before = app:fds()
  app.descriptors_before = app:descriptors()
  return app, baseline(app)
end

-- Descriptors are back at once, memory when the worker has been idle for a while.
local function assert_back(app, before, slack)
  wait.until_true(function() return ("descriptors back: %d, were %d"):format(app:fds(), app.fds_before) end,
    function() return app:fds() == app.fds_before end)
  assert.same(app.descriptors_before, app:descriptors())
  if server.sanitizer then return end
  wait.until_true(function() return ("memory back: %d, was %d"):format(app:rss(), before) end,
    function() return app:rss() - before < slack end)
end

-- Processor time that the server takes for others, and for this one, before it answers.
local function ping(app, client)
  local before = app:cpu()
  client:echo_frame("ping")
  return app:cpu() - before
end

local function ping_line(app, client)
  local before = app:cpu()
  client:echo_line("ping")
  return app:cpu() - before
end

describe("under load", function()
  after_each(server.finish)

  it("10,000 connections are held and served, and leave nothing behind", function()
    local n = many(10000)
    allow_descriptors(n + 200)
    local app, before = start_measured()
    local clients = app:connect_many(n)
    for i, client in ipairs(clients) do client:send_frame("number " .. i) end
    for i, client in ipairs(clients) do assert.equal("number " .. i, client:recv_frame()) end
    assert.equal(app.fds_before + n, app:fds())
    if not server.sanitizer then
      local each = (app:rss() - before) / n
      assert.is_true(each < 2000, ("%d bytes a connection"):format(each))
    end
    clients[1]:echo_frame("the first")
    clients[n]:echo_frame("the last")
    for _, client in ipairs(clients) do client:close() end
    app:connect():echo_frame("served meanwhile"):close()
    assert_back(app, before, 3e6)
    local summary = app:stop().summary
    assert.equal(n + 21, summary.accepted)
    assert.equal(0, summary.faults)
  end)

  it("10,000 disconnects at once cause no stall", function()
    local n = many(10000)
    local app = start_measured()
    local neighbour = app:connect()
    local clients = app:connect_many(n)
    for _, client in ipairs(clients) do client:send_frame("x") end
    for _, client in ipairs(clients) do client:recv_frame() end
    for _, client in ipairs(clients) do client:reset() end
    local worst = 0
    repeat
      worst = math.max(worst, ping(app, neighbour))
    until app:fds() == app.fds_before + 1
    assert.is_true(worst < 0.2 * server.SLOWER, ("a neighbour waited %.3f s"):format(worst))
  end)

  it("100,000 times connect, a frame or none, close or reset: every one is accounted for", function()
    local n = many(100000)
    local app, before = start_measured(nil, { workers = 2 })
    for i = 1, n do
      local client = app:connect()
      if i % 4 == 0 then client:send_frame("x") end
      if i % 8 == 0 then client:recv_frame() end
      if i % 2 == 0 then client:reset() else client:close() end
      app.clients = {}
    end
    assert_back(app, before, 6e6)
    local summary = app:stop().summary
    assert.equal(n + 20, summary.accepted)
    assert.equal(summary.accepted, summary.closed)
  end)

  it("a reset at every byte of a frame is survived", function()
    local app, before = start_measured()
    local bytes = frame(("0123456789"):rep(20)):rep(3)
    for cut = 0, #bytes, server.scaled(1, 7) do
      app:connect():send(bytes:sub(1, cut)):reset()
    end
    app:connect():echo_frame("alive"):close()
    assert_back(app, before, 3e6)
    app:stop()
  end)

  it("a half-close at every byte of a frame gets the answers to the frames before", function()
    local app, before = start_measured()
    local one = frame("0123456789abcdef")
    local bytes = one:rep(2)
    for cut = 0, #bytes do
      local answer, how = app:connect():send(bytes:sub(1, cut)):shutdown("send"):recv_all()
      assert.same({ one:rep(math.floor(cut / #one)), "closed" }, { answer, how })
    end
    for _, client in ipairs(app.clients) do client:close() end
    assert_back(app, before, 3e6)
  end)

  it("writers of single bytes are served, each in its own time", function()
    local app = start()
    local clients, bytes = app:connect_many(50), frame("byte by byte by byte by byte")
    for i = 1, #bytes do
      for _, client in ipairs(clients) do client:send(bytes:sub(i, i)) end
    end
    for _, client in ipairs(clients) do assert.equal(bytes:sub(5), client:recv_frame()) end
  end)

  it("a slow reader gets everything, and holds nobody up", function()
    local app, before = start_measured [[timeout = { write = "30s" }]]
    local slow, neighbour = app:connect { receive_buffer = 8192 }, app:connect()
    local payload, sent = ("slow "):rep(2000), 0
    local pid = assert(unistd.fork())
    if pid == 0 then
      -- A process of its own sends, for as long as the server takes it.
      for _ = 1, 2000 do slow:send_frame(payload) end
      unistd._exit(0)
    end
    local worst = 0
    while sent < 2000 do
      for _ = 1, 50 do
        assert.equal(payload, slow:recv_frame())
        sent = sent + 1
      end
      worst = math.max(worst, ping(app, neighbour))
    end
    posix_wait.wait(pid)
    assert.is_true(worst < 0.2 * server.SLOWER, ("a neighbour waited %.3f s"):format(worst))
    slow:close()
    neighbour:close()
    assert_back(app, before, 4e6)
  end)

  it("10,000 buffered frames of one client do not starve another", function()
    local app = server.start { script = [[
      local Agent = {}
      function Agent:proceed(line)
        local x = 0
        if line ~= "ping" then for i = 1, 20000 do x = x + i % 7 end end
        self.seen = (self.seen or 0) + 1
        return line
      end
      return { listen = "tcp://127.0.0.1:0", frame = "line", agent = Agent, limits = { send_buffer = "8m" } }]] }
    local greedy, other = app:connect(), app:connect():echo_line("ping")
    local n = 10000
    local began = app:cpu()
    greedy:send(("work\n"):rep(n))
    greedy:recv_line()
    local worst = 0
    for _ = 1, 5 do worst = math.max(worst, ping_line(app, other)) end
    local meanwhile = app:cpu() - began
    for _ = 2, n do greedy:recv_line() end
    local all = app:cpu() - began
    assert.is_true(meanwhile < all / 2 + 0.05, ("the other waited for %.2f of %.2f s"):format(meanwhile, all))
    assert.is_true(worst < 0.3 * server.SLOWER, ("a frame of the other waited %.3f s"):format(worst))
  end)

  it("frames that take long do not starve another, nor the end of the server", function()
    local app = server.start { script = [[
      local Agent = {}
      function Agent:proceed(line)
        local from = os.clock()
        if line ~= "ping" then repeat until os.clock() - from > 0.02 end
        return line
      end
      return { listen = "tcp://127.0.0.1:0", frame = "line", agent = Agent, timeout = { drain = "1s" } }]] }
    local greedy, other = app:connect(), app:connect():echo_line("ping")
    greedy:send(("work\n"):rep(3000))
    greedy:recv_line()
    local worst = 0
    for _ = 1, 10 do worst = math.max(worst, ping_line(app, other)) end
    assert.is_true(worst < 0.2 * server.SLOWER, ("a frame of the other waited %.3f s"):format(worst))
    local ended = app:stop()
    assert.same({ 1, 1 }, { ended.code, ended.summary.cut })
    assert.is_true(ended.summary.frames_in < 3000, "all frames came before the deadline of the drain")
  end)

  it("thousands of sleeping agents whose peers vanish leave nothing behind", function()
    local n = many(4000)
    local app = server.start { asan = server.SMALL_QUARANTINE, script = [[
      local perilune = require "perilune"
      local Agent = {}
      function Agent:proceed(frame)
        if frame == "sleep" then perilune.sleep(60) end
        return frame
      end
      return { listen = "tcp://127.0.0.1:0", agent = Agent }]] }
    app.fds_before, app.descriptors_before = app:fds(), app:descriptors()
    local before = baseline(app)
    local clients = app:connect_many(n)
    for _, client in ipairs(clients) do client:send(frame("sleep") .. frame("a") .. frame("b")) end
    for i, client in ipairs(clients) do
      if i % 2 == 0 then client:reset() else client:close() end
    end
    assert_back(app, before, 6e6)
    assert.equal(n + 20, app:stop().summary.closed)
  end)

  it("clients that only announce frames commit no memory", function()
    local n = many(4000)
    local app, before = start_measured()
    local clients = app:connect_many(n)
    for _, client in ipairs(clients) do client:send("\0\15\255\255") end
    app:connect():echo_frame("served"):close()
    if not server.sanitizer then
      local each = (app:rss() - before) / n
      -- One buffer of the smallest size: a megabyte was announced.
      assert.is_true(each < 8192, ("%d bytes a connection"):format(each))
    end
    for _, client in ipairs(clients) do client:close() end
    assert_back(app, before, 4e6)
  end)
end)
