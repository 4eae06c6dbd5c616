--- perilune.pool: connections that are kept and shared.
local core = require "perilune"
local perilune = require "perilune.test"

local pattern = perilune.pattern

describe("perilune.pool", function()
  local net

  before_each(function() net = perilune.net() end)
  after_each(function() net:close() end)

  local function backend(agent, settings)
    local script = { frame = "line", agent = agent }
    for key, value in pairs(settings or {}) do script[key] = value end
    return net:serve("tcp://db:1", script)
  end

  local function replying(agent)
    agent.proceed = agent.proceed or function(_, line) return "<" .. line .. ">" end
    return agent
  end

  -- An app that asks a pool for each line.
  local function asker(options, answer)
    local pool
    local Agent = {}
    function Agent:proceed(line)
      pool = pool or core.pool("tcp://db:1", options)
      if line == "status" then
        local status = pool:status()
        return ("%d idle, %d used, %d owed, %d waiting"):format(status.idle, status.used, status.owed, status.waiting)
      end
      if answer then return answer(pool, line, self) end
      local reply, message, code = pool:request(line)
      return reply or ("no: %s %s"):format(message, code)
    end
    return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent }
  end

  for _, pipeline in ipairs { false, true } do
    describe("with pipeline = " .. tostring(pipeline), function()
      local function options(more)
        local all = { frame = "line", pipeline = pipeline }
        for key, value in pairs(more or {}) do all[key] = value end
        return all
      end

      it("asks over one connection, again and again", function()
        local db = backend(replying {})
        local app = net:app(asker(options()))
        app:connect():send("a", "b"):expect("<a>", "<b>")
        app:connect():send("c"):expect("<c>")
        assert.equal(1, db:counters().accepted)
      end)

      it("fails at once where nobody is there, and tries again after a while", function()
        local app = net:app(asker(options()))
        app:connect():send("a", "b"):expect(pattern "^no: db:1: connection refused", pattern "refused")
        assert.equal(1, app:counters().connect_failures)
        backend(replying {})
        app:advance "1s"
        app:connect():send("c"):expect("<c>")
      end)

      it("times out where a backend never answers, and gives nobody a late reply", function()
        local held
        backend { proceed = function(self, line)
          if line == "hold" then held = self.conn return end
          if held and held ~= self.conn then held:send("late") held = nil end
          return "<" .. line .. ">"
        end }
        local app = net:app(asker(options { timeout = { read = "2s" } }))
        local one, two = app:connect(), app:connect()
        one:send("hold")
        app:advance("2s")
        one:expect("no: timeout ETIMEDOUT")
        two:send("a"):expect("<a>"):send("b"):expect("<b>")
        one:send("c"):expect("<c>")
      end)

      it("tells those who wait that a backend has reset, and goes on with another connection", function()
        backend(replying { proceed = function(self, line)
          if line == "reset" then return self.conn:abort() end
          return "<" .. line .. ">"
        end })
        local app = net:app(asker(options()))
        local client = app:connect():send("a"):expect("<a>")
        client:send("reset"):expect(pattern "^no: .* ECONNRESET$")
        client:send("b"):expect("<b>")
      end)

      it("tells those who wait that a backend has closed in the middle of a reply", function()
        backend(replying { proceed = function(self, line)
          if line ~= "half" then return "<" .. line .. ">" end
          self.conn:set_frame("raw")
          self.conn:send("ha")
          self.conn:close()
        end })
        local app = net:app(asker(options()))
        local client = app:connect():send("half"):expect(pattern "^no: .* EOF$")
        client:send("b"):expect("<b>")
      end)

      it("drops a connection that has ended while it idled", function()
        local conns = {}
        local db = backend(replying { opened = function(self) conns[#conns + 1] = self.conn end })
        local app = net:app(asker(options()))
        local client = app:connect():send("a"):expect("<a>")
        db:advance("1s")
        db:fail("proceed")
        client:send("b"):expect(pattern "^no: ")
        client:send("c"):expect("<c>")
      end)

      it("drops a connection that answers twice", function()
        backend(replying { proceed = function(_, line)
          if line == "twice" then return { "<1>", "<2>" } end
          return "<" .. line .. ">"
        end })
        local app = net:app(asker(options()))
        local client = app:connect()
        client:send("twice"):expect("<1>")
        client:send("a"):expect("<a>")
        client:send("b"):expect("<b>")
      end)

      it("drops it also where a call asks again at once, and takes no answer that was there before", function()
        backend(replying { proceed = function(_, line)
          if line == "twice" then return { "<1>", "<2>" } end
          return "<" .. line .. ">"
        end })
        local app = net:app(asker(options(), function(pool)
          return table.concat({ pool:request "twice", (pool:request "a") or "none", (pool:request "b") }, " ")
        end))
        app:connect():send("x"):expect("<1> <a> <b>")
      end)

      it("keeps a connection whose answers come in pieces", function()
        local db = backend { proceed = function(self, line)
          self.conn:set_frame("raw")
          self.conn:send("<" .. line)
          core.sleep("100ms")
          self.conn:send(">\n")
          self.conn:set_frame("line")
        end }
        local app = net:app(asker(options()))
        local client = app:connect()
        for i = 1, 5 do
          client:send("a" .. i)
          app:advance("100ms")
          client:expect("<a" .. i .. ">")
        end
        assert.equal(1, db:counters().accepted)
      end)

      it("bounds a reply that floods", function()
        backend({ proceed = function(_, line) return line == "flood" and ("x"):rep(5000) or "<" .. line .. ">" end })
        local app = net:app(asker(options { limits = { frame = "1k" } }))
        local client = app:connect():send("flood"):expect(pattern "^no: frame too large")
        client:send("b"):expect("<b>")
      end)

      it("keeps no connection that idles for too long", function()
        local db = backend(replying {})
        local app = net:app(asker(options { idle = "10s" }))
        app:connect():send("a"):expect("<a>")
        app:advance("20s")
        assert.equal(1, db:counters().closed)
        app:connect():send("b"):expect("<b>")
        assert.equal(2, db:counters().accepted)
      end)

      it("keeps nothing of an agent that goes while it waits", function()
        local held
        backend { proceed = function(self, line)
          if line == "hold" then held = self.conn return end
          if held then held:send("<held>") held = nil end
          return "<" .. line .. ">"
        end }
        local app = net:app(asker(options { size = 1 }))
        app:connect():send("hold"):close()
        app:connect():send("a"):expect("<a>"):send("b"):expect("<b>")
        app:connect():send("status"):expect("1 idle, 0 used, 0 owed, 0 waiting")
      end)
    end)
  end

  it("has so many connections at most, and callers wait for one in their order", function()
    local db = backend { proceed = function(_, line)
      core.sleep(1)
      return "<" .. line .. ">"
    end }
    local app = net:app(asker { frame = "line", size = 2 })
    local clients = {}
    for i = 1, 5 do clients[i] = app:connect():send(tostring(i)) end
    assert.equal(2, db:counters().accepted)
    app:advance("1s")
    clients[1]:expect("<1>")
    clients[2]:expect("<2>")
    clients[3]:expect_nothing()
    app:advance("1s")
    clients[3]:expect("<3>")
    clients[4]:expect("<4>")
    app:advance("1s")
    clients[5]:expect("<5>")
    assert.equal(2, db:counters().accepted)
  end)

  it("says once that it cannot connect, and when it can again", function()
    local app = net:app(asker { frame = "line", size = 2 })
    for _ = 1, 5 do
      app:connect():send("x"):frames()
      app:advance "2s"
    end
    local entries = app:log "a pool cannot connect"
    assert.same({ 1, "warn", "tcp://db:1", "ECONNREFUSED" },
      { #entries, entries[1].level, entries[1].address, entries[1].code })
    assert.equal(0, #app:log "a pool connects again")
    backend(replying {})
    app:connect():send("x"):expect("<x>")
    app:connect():send("y"):expect("<y>")
    assert.equal(1, #app:log "a pool connects again")
  end)

  it("refuses who would wait behind too many, or for too long", function()
    backend { proceed = function(_, line)
      core.sleep(10)
      return "<" .. line .. ">"
    end }
    local app = net:app(asker { frame = "line", size = 1, queue = 1, wait = "2s", timeout = { read = "20s" } })
    local one, two, three = app:connect():send("1"), app:connect():send("2"), app:connect():send("3")
    three:expect("no: 1 calls wait for this pool already (queue) EBUSY")
    app:advance("2s")
    two:expect("no: timeout ETIMEDOUT")
    app:advance("8s")
    one:expect("<1>")
  end)

  it("lends a connection to one at a time, which is not kept unless all of it was read", function()
    local db = backend { proceed = function() return { "1", "2" } end }
    local app = net:app(asker({ frame = "line", size = 1 }, function(pool, line)
      return pool:with(function(conn)
        conn:send("x")
        local first = conn:read()
        return line == "both" and first .. conn:read() or first
      end)
    end))
    local client = app:connect()
    client:send("both", "both"):expect("12", "12")
    assert.equal(1, db:counters().accepted)
    client:send("first"):expect("1")
    client:send("both"):expect("12")
    assert.equal(2, db:counters().accepted)
  end)

  it("keeps no connection of a function that has waited for a reply in vain", function()
    local db = backend { proceed = function(_, line)
      if line == "slow" then core.sleep(2) end
      return "<" .. line .. ">"
    end }
    local app = net:app(asker({ frame = "line", size = 1 }, function(pool, line, self)
      return pool:with(function(conn)
        conn:send(line == "wait" and "slow" or line)
        if self.is_bounded then return core.timeout("1s", conn.read, conn) or "too late" end
        self.is_bounded = line == "slow"
        local reply, why = conn:read(nil, line == "wait" and "3s" or "1s")
        return reply or why
      end)
    end))
    local client = app:connect():send "slow"
    app:advance "1s"
    client:expect("timeout"):send "slow" -- now by perilune.timeout, which cancels the read
    app:advance "1s"
    client:expect("too late"):send "fast"
    app:advance "2s"
    client:expect "<fast>"
    assert.equal(3, db:counters().accepted)
    app:connect():send "wait"
    app:advance "2s"
    app:connect():send("fast"):expect "<fast>" -- who has waited and got it gives it back
    assert.equal(3, db:counters().accepted)
  end)

  it("keeps no connection of a function that has failed", function()
    local db = backend(replying {})
    local app = net:app(asker({ frame = "line", size = 1 }, function(pool, line)
      local ok, why = pcall(pool.with, pool, function(conn)
        conn:send(line)
        error("as asked", 0)
      end)
      return tostring(ok) .. " " .. why
    end))
    app:connect():send("a", "b"):expect("false as asked", "false as asked")
    assert.equal(2, db:counters().accepted)
    assert.equal(2, db:counters().closed)
  end)

  it("takes a connection back from a task that is cancelled with it", function()
    local db = backend(replying {})
    local app = net:app(asker({ frame = "line", size = 1 }, function(pool, line)
      local task = core.spawn(function() pool:with(function() core.sleep(100) end) end)
      core.sleep(1)
      task:cancel()
      core.sleep(1)
      return (pool:request(line))
    end))
    local client = app:connect():send("a")
    app:advance("2s")
    client:expect("<a>")
    assert.equal(2, db:counters().accepted)
    assert.equal(1, db:counters().closed)
  end)

  it("asks once more where a connection had ended unnoticed, if the caller says that it may", function()
    local count = 0
    backend { proceed = function(self, line)
      count = count + 1
      if count == 2 then return self.conn:abort() end
      return "<" .. line .. ">"
    end }
    local app = net:app(asker({ frame = "line" }, function(pool, line)
      local reply, _, code = pool:request(line, { idempotent = line == "again" })
      return reply or code
    end))
    local client = app:connect():send("a"):expect("<a>")
    client:send("again"):expect("<again>")
  end)

  it("says what is wrong with its options", function()
    local app = net:app(asker({ siez = 3 }))
    app:connect():send("a"):expect_closed("error")
    assert.is_truthy(app:faults()[1].error:find('perilune.pool: unknown option "siez" (did you mean "size"?)', 1, true))
  end)

  it("pipelines: many requests at once over one connection, answered in their order", function()
    local db = backend(replying {})
    local app = net:app(asker { frame = "line", pipeline = true, size = 1 })
    local clients = {}
    for i = 1, 20 do clients[i] = app:connect() end
    for i, client in ipairs(clients) do client:send("a" .. i) end
    for i, client in ipairs(clients) do client:expect("<a" .. i .. ">") end
    assert.equal(1, db:counters().accepted)
  end)

  it("tells all who wait when a backend dies, however many they are", function()
    local n = 3000
    backend { proceed = function() end,
      timeout = function(self) self.conn:abort() return true end }
    local app = net:app(asker { frame = "line", pipeline = true, size = 1, depth = 1e6, timeout = { read = false } },
      { limits = { connections = n } })
    local clients = {}
    for i = 1, n do clients[i] = app:connect():send "x" end
    app:advance "60s" -- the backend's timeout.idle
    for _, client in ipairs(clients) do client:expect(pattern "ECONNRESET$") end
  end)

  describe("pipelines: a connection that owes a reply, and says nothing for timeout.read, ends", function()
    local function silent_pool(options, timeout)
      backend { proceed = function() end }
      options.frame, options.pipeline, options.timeout = "line", true, { read = "3s" }
      return net:app(asker(options, function(pool, line)
        return "no: " .. select(3, pool:request(line, { timeout = timeout }))
      end))
    end

    it("at whatever time it was asked", function()
      local app = silent_pool { idle = "5m" }
      for tenth = 1, 20 do
        app:advance "100ms"
        local client = app:connect():send("a")
        app:advance "3s"
        client:expect("no: ETIMEDOUT"):close()
        assert.equal(0, app:counters().outgoing, tenth)
      end
    end)

    it("also where its caller has waited for less, and nobody asks again", function()
      for _, idle in ipairs { "1s", "0" } do
        local app = silent_pool({ idle = idle }, "500ms")
        local client = app:connect():send("a")
        app:advance "500ms"
        client:expect("no: ETIMEDOUT")
        assert.equal(1, app:counters().outgoing)
        app:advance "5s"
        assert.equal(0, app:counters().outgoing, idle)
        net:close()
        net = perilune.net()
      end
    end)
  end)

  describe("gives nobody the reply of another", function()
    it("where a request is none: " .. "nil, false, a list", function()
      backend { proceed = function(_, line)
        core.sleep(0.5)
        return "<" .. line .. ">"
      end }
      local app = net:app(asker({ frame = "line", pipeline = true, timeout = { read = "5s" } }, function(pool, line)
        local data = line
        if line == "nil" then data = nil elseif line == "false" then data = false end
        if line == "list" then data = { "a", "b" } end
        local ok, reply = pcall(pool.request, pool, data)
        return tostring(ok) .. " " .. tostring(reply)
      end))
      local clients = {}
      for i, line in ipairs { "x", "nil", "y", "false", "z", "list", "w" } do clients[i] = app:connect():send(line) end
      app:advance "8s"
      for i, line in ipairs { "x", "y", "z", "w" } do clients[2 * i - 1]:expect("true <" .. line .. ">") end
      for i = 2, 6, 2 do clients[i]:expect(pattern "^false .*pool:request expects the frame that is to be sent") end
    end)

    it("where a request cannot be encoded", function()
      local db = backend { proceed = function(_, line)
        core.sleep(0.5)
        return "<" .. line .. ">"
      end }
      local function decode(bytes, at)
        local stop = bytes:find("\n", at, true)
        if stop then return bytes:sub(at, stop - 1), stop + 1 end
      end
      local function encode(data)
        if data == "bad" then error "no such request" end
        return data .. "\n"
      end
      local options = { frame = { decode = decode, encode = encode }, pipeline = true, size = 1 }
      local app = net:app(asker(options, function(pool, line)
        local ok, reply = pcall(pool.request, pool, line)
        return tostring(ok) .. " " .. tostring(reply)
      end))
      local clients, lines = {}, { "x", "bad", "y", "bad", "z" }
      for i, line in ipairs(lines) do clients[i] = app:connect():send(line) end
      app:advance "8s"
      for i, line in ipairs(lines) do
        clients[i]:expect(line == "bad" and pattern "^false .*no such request" or "true <" .. line .. ">")
      end
      assert.equal(1, db:counters().accepted)
    end)

    it("where a backend speaks first", function()
      backend { opened = function() return "hello" end, proceed = function(_, line) return "<" .. line .. ">" end }
      local app = net:app(asker { frame = "line", pipeline = true })
      app:connect():send("x"):expect(pattern "^no: it has said something before it was asked")
    end)

    it("where a backend says something that nobody has asked for, while the connection idles", function()
      local db = backend {
        proceed = function(_, line) return "<" .. line .. ">" end,
        timeout = function(self) self.conn:send "news" return true end }
      local app = net:app(asker { frame = "line", pipeline = true, idle = "5m", timeout = { read = "1s" } })
      app:connect():send("a"):expect("<a>")
      db:advance "61s"
      app:connect():send("b"):expect("<b>")
      assert.equal(2, db:counters().accepted)
    end)
  end)

  for what, spoil in pairs {
    ["another framing"] = function(conn) conn:set_frame "u32be" end, pause = function(conn) conn:pause() end,
    ["a pipe"] = function(conn, self) conn:pipe(self.conn) end,
    ["a link"] = function(conn, self) conn:link(self.conn) end,
    ["a deferred function"] = function(conn) conn:defer(function() end) end,
    ["a half-close"] = function(conn) conn:shutdown() end,
  } do
    it("keeps no connection that was changed: " .. what, function()
      local db = backend { proceed = function(_, line) return "<" .. line .. ">" end }
      local app = net:app(asker({ frame = "line", size = 1, timeout = { read = "3s" } }, function(pool, line, self)
        if line ~= "spoil" then return pool:request(line) or "none" end
        pool:with(function(conn)
          conn:send "s"
          conn:read()
          spoil(conn, self)
        end)
      end))
      local one = app:connect():send "spoil"
      app:connect():send("x"):expect("<x>")
      assert.equal(2, db:counters().accepted)
      one:close()
    end)
  end

  it("lets nobody use a connection that was given back", function()
    backend(replying {})
    local kept
    local app = net:app(asker({ frame = "line", size = 1 }, function(pool, line)
      if line == "keep" then
        pool:with(function(conn) kept = conn end)
        return "kept"
      end
      if line == "evil" then return tostring(kept:send "evil") .. " " .. tostring(select(2, kept:read())) end
      return (pool:request(line))
    end))
    local client = app:connect():send("keep"):expect("kept")
    client:send("evil"):expect("nil closed")
    client:send("a"):expect("<a>")
  end)

  it("goes on after a connection that could not even be tried", function()
    for _, pipeline in ipairs { false, true } do
      local tried = net:app { listen = "tcp://127.0.0.1:" .. (pipeline and 9001 or 9002), frame = "line", agent = {
        proceed = function(self)
          self.pool = self.pool or core.pool("tls://db:1", { frame = "line", size = 1, wait = "500ms",
            pipeline = pipeline, tls = { authority = "/nowhere/ca.pem" } })
          local texts = {}
          for i = 1, 3 do
            local ok, reply, message = pcall(self.pool.request, self.pool, "x")
            texts[i] = tostring((ok and message or reply):find("/nowhere/ca.pem", 1, true) ~= nil)
            core.sleep(2)
          end
          return table.concat(texts, " ") .. " " .. self.pool:status().used
        end } }
      local client = tried:connect():send "x"
      tried:advance "30s"
      client:expect("true true true 0")
    end
  end)

  it("loses no connection of calls that are ended anywhere", function()
    backend(replying {})
    local app = net:app { listen = "tcp://127.0.0.1:9000", frame = "line", limits = { proceed = "10ms" },
      setup = function(app)
        local pool, n = core.pool("tcp://db:1", { frame = "line", size = 3, idle = 5, wait = 1 }), 0
        app:every(0.05, function()
          n = n + 1
          if n > 100 then return end
          app:spawn(function()
            pool:request "x"
            while true do pool:with(function() end) end
          end)
        end)
      end, agent = { proceed = function() end } }
    app:advance "60s"
    assert.equal(0, app:counters().outgoing)
  end)

  it("is none of datagrams", function()
    local app = net:app { listen = "tcp://127.0.0.1:9000", frame = "line", agent = {
      proceed = function() return (select(2, pcall(core.pool, "udp://db:1"))) end } }
    app:connect():send("x"):expect(perilune.pattern "perilune.pool: udp:// has no connections that a pool could keep")
  end)

  it("names the line of the script where it is misused", function()
    local app = net:app(asker({ frame = "line" }, function(pool) return pool:request({}) end))
    app:connect():send("x"):expect_closed("error")
    assert.is_truthy(app:faults()[1].place:find("pool_spec.lua", 1, true))
  end)
end)
