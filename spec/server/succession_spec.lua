--- What becomes of connections when a new generation comes: reload.policy.
local command = require "spec.support.command"
local has = require "spec.support.has"
local server = require "spec.support.server"
local support = require "spec.support.reload"
local wait = require "spec.support.wait"

local HEAD, rewrite, reload, reload_to = support.HEAD, support.rewrite, support.reload, support.reload_to

-- Agents that count their lines, and take the count along.
local function counter(version, more, settings)
  return HEAD .. ([[
    local VERSION = %q
    function Agent:opened() self.n = 0 end
    function Agent:proceed(line)
      self.n = self.n + 1
      return ("%%s %%s %%d"):format(VERSION, line, self.n)
    end
    function Agent:snapshot() return { n = self.n, list = { 1, { "two" } } } end
    function Agent:upgrade(data, from)
      assert(data.list[2][1] == "two" and self.conn.id)
      self.n, self.from = data.n, from
      note(("upgrade from %%d to %%s"):format(from, VERSION))
    end
    %s
    return { listen = "tcp://127.0.0.1:0", frame = "line", agent = Agent, reload = "migrate", %s }]])
    :format(version, more or "", settings or "")
end

local function retired(app, generation)
  return app:wait_log { message = "generation retired", generation = generation }
end

describe("migrating", function()
  after_each(server.finish)

  it("takes an agent's state to the new code, and its connection stays", function()
    local app = server.start { script = counter "one" }
    local client = app:connect():echo_line("a", "one a 1"):echo_line("b", "one b 2")
    reload_to(app, counter "two")
    client:echo_line("c", "two c 3")
    reload_to(app, counter "three")
    client:echo_line("d", "three d 4")
    app:wait_log "upgrade from 2 to three"
    client:close()
    app:wait_log "closed peer"
    local summary = app:stop().summary
    assert.same({ 2, 0, 1 }, { summary.migrated, summary.not_migrated, summary.accepted })
    assert.equal(1, #app:find_log "closed peer")
  end)

  it("needs no frame, and the old generation is gone after it", function()
    local app = server.start { script = counter "one", workers = 2 }
    local clients = app:connect_many(300)
    reload_to(app, counter "two")
    wait.until_true("both workers to bury the old", function()
      return #app:find_log { message = "generation retired", generation = 1 } == 2
    end)
    assert.equal(300, #app:find_log "upgrade from 1 to two")
    for i = 1, 300, 50 do clients[i]:echo_line("x", "two x 1") end
  end)

  it("misses nobody while most of the others leave", function()
    local bunch, staying = server.scaled(1600, 640), 20
    local app = server.start { script = counter("one", nil, "limits = { connections = 2000 }") }
    local clients = app:connect_many(bunch)
    for i = 1, bunch, bunch / staying do clients[i]:echo_line("a", "one a 1") end
    rewrite(app, counter("two", nil, "limits = { connections = 2000 }"))
    for i = 1, bunch do -- the reload comes in the midst of them
      if i % (bunch / staying) ~= 1 then clients[i]:close() end
      if i == bunch / 2 then app:signal "HUP" end
    end
    retired(app, 1)
    for i = 1, bunch, bunch / staying do clients[i]:echo_line("b", "two b 2") end
  end)

  it("waits for an agent that waits", function()
    local SLEEPY = [[
      local proceed = Agent.proceed
      function Agent:proceed(line)
        while line == "sleep" and not io.open "gate" do perilune.sleep(0.01) end
        if line == "read" then return "read " .. self.conn:read() end
        return proceed(self, line)
      end]]
    local app = server.start { script = counter("one", SLEEPY) }
    local sleeper, reader = app:connect():send("sleep\nafter\n"), app:connect():send("read\n")
    sleeper:expect_silence(0.05)
    reload_to(app, counter("two", SLEEPY))
    command.write(app.folder .. "/gate", "")
    assert.equal("one sleep 1", sleeper:recv_line())
    assert.equal("two after 2", sleeper:recv_line())
    reader:send("it\nafter\n")
    assert.equal("read it", reader:recv_line())
    assert.equal("two after 1", reader:recv_line())
  end)

  it("keeps a partial frame, frames that wait, output and time-outs", function()
    local MORE = [[
      local proceed = Agent.proceed
      function Agent:proceed(line)
        if line == "short" then self.conn:set_timeout("idle", "300ms") end
        if line == "big" then return ("x"):rep(1e6) end
        return proceed(self, line)
      end]]
    local app = server.start { script = counter("one", MORE) }
    local part, slow, idle = app:connect(), app:connect({ receive_buffer = 8192 }), app:connect()
    part:echo_line("a", "one a 1"):send("hal")
    slow:send(("big\n"):rep(8) .. "end\n")
    idle:echo_line("short", "one short 1")
    reload_to(app, counter("two", MORE))
    part:send("f\n")
    assert.equal("two half 2", part:recv_line())
    for _ = 1, 8 do assert.equal(1e6, #slow:recv_line()) end
    assert.truthy(slow:recv_line():find "^%a+ end 1$")
    assert.equal("", (idle:recv_all()))
    app:wait_log "closed idle_timeout"
  end)

  -- The client has left the listener's framing, as `begin` says, before it is asked to migrate, and upgrade() fails.
  for name, change in pairs {
    ["sets another"] = [[self.conn:set_frame("netstring")]],
    ["returns to the listener's"] = "self.conn:set_frame()",
    ["does so twice"] = [[self.conn:set_frame("netstring") self.conn:set_frame() self.conn:set_frame("u16be")]],
  } do
    local FAILS = "function Agent:upgrade() " .. change .. " error 'no' end"
    local SWITCH = [[
      local proceed = Agent.proceed
      function Agent:proceed(line)
        if line == "u8" then self.conn:set_frame("u8") return end
        return proceed(self, line)
      end
      function Agent:timeout() self.conn:set_frame("line") note "timed out" return true end]]
    local function u8(text) return string.char(#text) .. text end

    it("keeps the connection's framing when an upgrade() that " .. name .. " fails", function()
      local app = server.start { script = counter("one", SWITCH) }
      local fresh, used = app:connect():send("u8\n"), app:connect():send("u8\n" .. u8("a"))
      assert.equal(u8 "one a 1", used:recv_exact(8))
      app:connect():echo_line("x", "one x 1"):close() -- fresh has been served as well
      reload_to(app, counter("two", FAILS))
      for _, one in ipairs { fresh, used } do one:send(u8 "b") end
      assert.equal(u8 "one b 1", fresh:recv_exact(8))
      assert.equal(u8 "one b 2", used:recv_exact(8))
      used:send(u8 "c")
      assert.equal(u8 "one c 3", used:recv_exact(8))
    end)

    it("keeps the listener's framing, too, when an upgrade() that " .. name .. " fails", function()
      local app = server.start { script = counter("one", SWITCH, "timeout = { idle = '300ms' }") }
      local client = app:connect():echo_line("a", "one a 1")
      reload_to(app, counter("two", FAILS))
      app:wait_log "timed out" -- and sets its framing before anything has been decoded
      client:echo_line("b", "one b 2")
    end)
  end

  for what, case in pairs {
    ["pauses"] = { "self.conn:pause()" },
    ["sets a time-out"] = { "self.conn:set_timeout('idle', '150ms')" },
    ["sets a time-out again"] = { "self.conn:set_timeout('idle', '150ms')", own = true },
    ["takes the new generation's time-outs for its own"] = { "self.conn:set_timeout('write', '9s')",
      settings = "timeout = { idle = '150ms' }" },
    ["closes"] = { "self.conn:close()" },
    ["aborts"] = { "self.conn:abort()" },
    ["shuts down"] = { "self.conn:shutdown()" },
  } do
    it("leaves a connection as it was when an upgrade() that " .. what .. " fails", function()
      local app = server.start { script = counter("one", case.own and [[
        function Agent:opened() self.n = 0 self.conn:set_timeout("idle", "50s") end]]) }
      local client = app:connect():echo_line("a", "one a 1")
      reload_to(app, counter("two", "function Agent:upgrade() " .. case[1] .. " error 'no' end", case.settings))
      app:wait_log "handler failed"
      client:expect_silence(0.4)
      client:echo_line("b", "one b 2")
    end)
  end

  it("forgets what an upgrade() that fails has deferred", function()
    local app = server.start { script = counter "one" }
    local client = app:connect():echo_line("a", "one a 1")
    reload_to(app, counter("two", [[
      local deferred = setmetatable({}, { __mode = "v" })
      function Agent:upgrade()
        deferred[1] = function() note "deferred" return self end
        self.conn:defer(deferred[1])
        error "no"
      end
      function Agent:proceed()
        local last = {}
        for i = 1, 50000 do last[i % 10] = ("x"):rep(1000) .. i end -- all garbage is collected
        return tostring(deferred[1])
      end]]))
    app:wait_log "handler failed"
    client:echo_line("b", "one b 2"):close()
    app:wait_log "closed peer"
    app:connect():echo_line("x", "nil")
    assert.equal(0, #app:find_log "deferred")
  end)

  it("goes on under the new framing, limits and time-outs", function()
    local function netstrings(settings)
      return (counter("two", nil, settings):gsub([[frame = "line"]], [[frame = "netstring"]]))
    end
    local app = server.start { script = counter "one" }
    local partial, whole = app:connect():echo_line("a", "one a 1"):send("x"), app:connect():echo_line("a", "one a 1")
    rewrite(app, netstrings())
    assert.equal("reloaded", reload(app).message)
    app:wait_log("upgrade from 1 to two", nil, 2)
    assert.equal("", (partial:recv_all())) -- the x is no netstring
    app:wait_log "closed frame_error"
    assert.equal("7:two b 2,", whole:send("1:b,"):recv_exact(10))
    rewrite(app, netstrings [[timeout = { idle = "200ms" }]])
    reload(app)
    assert.equal("", (whole:recv_all()))
    app:wait_log "closed idle_timeout"
  end)

  it("lets upgrade() send, and a codec in Lua take over", function()
    local UPPER = [[frame = { decode = function(bytes, at)
        local stop = bytes:find("\n", at, true)
        if stop then return bytes:sub(at, stop - 1):upper(), stop + 1 end
      end, encode = function(text) return "<" .. text .. ">\n" end },]]
    local HELLO = [[
      local upgrade = Agent.upgrade
      function Agent:upgrade(data, from) upgrade(self, data, from)
        assert(self.conn:send("hello from " .. VERSION)) end]]
    local function script(version, ...) return (counter(version, ...):gsub([[frame = "line",]], UPPER)) end
    local app = server.start { script = script("one", HELLO) }
    local client = app:connect():echo_line("a", "<one A 1>")
    reload_to(app, script("two", HELLO))
    assert.equal("<hello from two>", client:recv_line())
    client:echo_line("b", "<two B 2>")
  end)

  local FAILURES = {
    ["snapshot() throws"] = { "function Agent:snapshot() error 'no picture' end", "", "no picture" },
    ["snapshot() does not return"] = { "function Agent:snapshot() while true do end end", "",
      "it ran for over 50 ms of CPU time" },
    ["the snapshot is no plain data"] = { "function Agent:snapshot() return { print } end", "", "function" },
    ["a conn is in the snapshot"] = { "function Agent:snapshot() return { n = 1, of = { self } } end", "",
      "snapshot().of[1].conn is a conn" },
    ["there is no snapshot()"] = { "Agent.snapshot = nil", "", "the agent has no method snapshot" },
    ["snapshot() waits"] = { "function Agent:snapshot() perilune.sleep(1) end", "", "sleep" },
    ["upgrade() throws"] = { "", "function Agent:upgrade() self.conn:set_timeout('idle', 99) error 'no thanks' end",
      "no thanks" },
    ["upgrade() does not return"] = { "", "function Agent:upgrade() while true do end end",
      "it ran for over 50 ms of CPU time" },
    ["there is no upgrade()"] = { "", "Agent.upgrade = nil", "the agent has no method upgrade" },
  }
  for what, case in pairs(FAILURES) do
    it("leaves the old agent untouched where " .. what, function()
      local settings = [[limits = { proceed = "50ms" }]]
      local app = server.start { script = counter("one", case[1], settings) }
      local client = app:connect():echo_line("a", "one a 1")
      reload_to(app, counter("two", case[2], settings))
      local entry = app:wait_log { message = "handler failed" }
      has(case[3], entry.error)
      for i = 2, 9 do client:echo_line("b", "one b " .. i) end
      app:connect():echo_line("c", "two c 1")
      client:close()
      local notes = retired(app, 1)
      assert.same({ 0, 1 }, { notes.migrated, notes.not_migrated })
      assert.equal(1, #app:find_log { message = "handler failed" })
    end)
  end

  it("takes integers along that no double holds", function()
    local function script(version)
      return counter(version, [[
        function Agent:opened() self.n = string.unpack(">i8", "\127\255\255\255\255\255\255\255") end
        function Agent:proceed() return VERSION .. " " .. tostring(self.n) end
        function Agent:snapshot() return { n = self.n } end
        function Agent:upgrade(data) self.n = data.n end]])
    end
    local app = server.start { script = script "one" }
    local client = app:connect():echo_line("a", "one 9223372036854775807LL")
    reload_to(app, script "two")
    client:echo_line("a", "two 9223372036854775807LL")
  end)

  it("leaves a connection with deferred functions where these are", function()
    local DEFERS = [[function Agent:opened() self.n = 0
      self.conn:defer(function() note("deferred " .. VERSION) end) end]]
    local app = server.start { script = counter("one", DEFERS) }
    local client = app:connect():echo_line("a", "one a 1")
    reload_to(app, counter("two", DEFERS))
    client:echo_line("b", "one b 2"):close()
    app:wait_log "deferred one"
  end)

  it("makes old objects of the connection stale", function()
    local KEEPS = [[
      local all = {}
      function Agent:opened() self.n = 0 all[#all + 1] = self.conn end
      local proceed = Agent.proceed
      function Agent:proceed(line)
        if line ~= "poke" then return proceed(self, line) end
        local answers = {}
        for i, conn in ipairs(all) do answers[i] = tostring((select(2, conn:send("poked")))) end
        return table.concat(answers, " ")
      end]]
    local app = server.start { script = counter("one", KEEPS) }
    local moved = app:connect():echo_line("a", "one a 1")
    local stays = app:connect():echo_line("a", "one a 1")
    stays:send("x"):expect_silence(0.02)
    reload_to(app, counter("two", KEEPS .. [[ function Agent:upgrade(data)
      if self.conn.id == 2 then error "stay" end
      self.n = data.n
    end]]))
    moved:echo_line("b", "two b 2")
    stays:send("\n")
    assert.equal("one x 2", stays:recv_line())
    assert.equal("poked", stays:send("poke\n"):recv_line())
    assert.equal("closed nil", stays:recv_line())
    moved:expect_silence(0.05)
  end)

  it("is each listener's choice", function()
    local function two(version)
      return (counter(version):gsub([[listen = "tcp://127.0.0.1:0"]], [[listen = {
        { "tcp://127.0.0.1:0", name = "a" }, { "tcp://127.0.0.1:0", name = "b", reload = "pin" } }]]))
    end
    local app = server.start { script = two "one" }
    local a, b = app:connect({ listener = 1 }):echo_line("x", "one x 1"),
      app:connect({ listener = 2 }):echo_line("x", "one x 1")
    reload_to(app, two "two")
    a:echo_line("y", "two y 2")
    b:echo_line("y", "one y 2")
  end)

  it("under load loses no reply and keeps their order", function()
    local rounds, bunch = server.scaled(60, 15), server.scaled(50, 10)
    local app = server.start { script = counter "v0", workers = 2 }
    local clients = {}
    for i = 1, bunch do clients[i] = app:connect() end
    local n = 0
    for round = 1, rounds do
      for i = 1, bunch do clients[i]:send(("x\n"):rep(8)) end
      reload_to(app, counter("v" .. round))
      for i = 1, bunch do
        local last = 0
        for k = 1, 8 do
          local version, count = clients[i]:recv_line():match "^v(%d+) x (%d+)$"
          assert.equal(n + k, tonumber(count))
          assert.is_true(tonumber(version) >= last and tonumber(version) <= round)
          last = tonumber(version)
        end
      end
      n = n + 8
    end
    local summary = app:stop().summary
    assert.equal(0, summary.not_migrated)
    assert.equal(bunch * 8 * rounds, summary.frames_out)
  end)
end)

describe("draining", function()
  after_each(server.finish)

  local function script(version, settings)
    return support.script(version, settings):gsub("function Agent:proceed", [[
      function Agent:drain(left) note(("drain %%.1f"):format(left)) self.conn:send("bye") end
      function Agent:proceed]])
  end

  it("ends old connections one after another within timeout.drain", function()
    local app = server.start { script = script "one" }
    local clients = app:connect_many(60)
    for _, client in ipairs(clients) do client:echo_line("a", "one a") end
    -- The same worker's time, in the log between them.
    local ticking = script("two",
      [[reload = "drain", timeout = { drain = "2s" }]]):gsub("function Agent:proceed%(line%)", [[%0
      if line == "tick" then for _ = 1, 50 do perilune.sleep "50ms" note "tick" end end]])
    reload_to(app, ticking)
    local ticker = app:connect():send("tick\n")
    wait.until_true("all to have left", function() return #app:find_log "closed drain" == 60 end)
    local left, ticks = 0, 0
    for _, entry in ipairs(app:log()) do
      if entry.message == "closed drain" then left = left + 1 end
      if entry.message == "tick" and left >= 6 and left <= 54 then ticks = ticks + 1 end
    end
    assert.is_true(ticks > 0, "all left at once")
    assert.equal("two tick", ticker:recv_line())
    for _, client in ipairs(clients) do assert.equal("bye\n", (client:recv_all())) end
    has("drain 2.0", app:find_log(function(entry) return entry.message:find "^drain %d" end)[1].message)
    retired(app, 1)
    assert.equal(0, app:stop().code)
  end)

  it("lets an agent finish what it is at, for as long as a stop would", function()
    local SLEEPY = [[function Agent:proceed(line) perilune.sleep(tonumber(line)) return "woke" end
      return { listen = "tcp://127.0.0.1:0", frame = "line", agent = Agent,
        reload = "drain", timeout = { drain = "500ms" } }]]
    local app = server.start { script = HEAD .. SLEEPY }
    local short, long = app:connect():send("0.4\n"), app:connect():send("60\n")
    reload_to(app, HEAD .. SLEEPY .. " -- again")
    assert.equal("woke\n", (short:recv_all()))
    assert.equal("", (long:recv_all()))
    retired(app, 1)
    assert.equal(2, #app:find_log "closed drain")
    assert.equal(0, app:stop().code)
  end)

  it("of the oldest makes room where too many have connections, if the script wants that", function()
    local function generation(i)
      return script("g" .. i, [[reload = { keep = 1, when_full = "drain" }, timeout = { drain = "300ms" }]])
    end
    local app = server.start { script = generation(1) }
    local first = app:connect():echo_line("a", "g1 a")
    reload_to(app, generation(2))
    local second = app:connect():echo_line("a", "g2 a")
    first:echo_line("b", "g1 b")
    reload_to(app, generation(3))
    assert.equal("bye\n", (first:recv_all()))
    retired(app, 1)
    second:echo_line("b", "g2 b")
    app:connect():echo_line("a", "g3 a")
  end)
end)
