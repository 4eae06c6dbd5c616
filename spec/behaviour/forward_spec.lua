--- pool:forward: a reply that is the handler's own, without a call that waits for it.
local core = require "perilune"
local perilune = require "perilune.test"

describe("pool:forward", function()
  local net

  before_each(function() net = perilune.net() end)
  after_each(function() net:close() end)

  -- "slow…" takes 100 ms; "hold" has no answer, "end" and "reset" end the connection.
  local function backend(address, mark)
    return net:serve(address or "tcp://db:1", { frame = "line", agent = { proceed = function(self, line)
      if line:find "^slow" then core.sleep "100ms" end
      if line == "hold" then return nil end
      if line == "end" then return nil, "close" end
      if line == "reset" then return self.conn:abort() end
      return (mark or "<") .. line .. ">"
    end } })
  end

  -- An app that forwards each line, but for "own…", which it answers itself.
  local function forwarder(options, answer, script)
    local pools = {}
    local function pool_of(address)
      local all = { frame = "line", pipeline = true }
      for key, value in pairs(options or {}) do all[key] = value end
      pools[address] = pools[address] or core.pool(address, all)
      return pools[address]
    end
    local Agent = {}
    function Agent:proceed(line)
      local own = answer and { answer(pool_of "tcp://db:1", line, self, pool_of) } or {}
      if own[1] ~= nil or own[2] ~= nil then return own[1], own[2] end
      if line:find "^own" then return line end
      return pool_of "tcp://db:1":forward(line)
    end
    local all = { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent }
    for key, value in pairs(script or {}) do all[key] = value end
    return net:app(all)
  end

  -- A client of one whose pool has a connection; its next frames are one batch.
  local function warm(app)
    local client = app:connect():send("warm"):expect("<warm>")
    return client:send("own"):expect("own"):send("own", "own"):expect("own", "own")
      :send("own", "own", "own", "own"):expect("own", "own", "own", "own")
  end

  it("returns the same whether there is a connection or not: what stands for the reply", function()
    backend()
    local app = forwarder({}, function(pool, line)
      local token, action = pool:forward(line)
      core.log("info", type(token))
      return token, action
    end)
    app:connect():send("a", "b", "c"):expect("<a>", "<b>", "<c>")
    assert.equal(3, #app:log "boolean")
  end)

  it("gives the client the replies, in the order of its frames", function()
    local db = backend()
    local app = forwarder()
    local client = warm(app)
    client:send("a", "own 1", "b", "c", "own 2", "own 3", "d")
    client:expect("<a>", "own 1", "<b>", "<c>", "own 2", "own 3", "<d>")
    client:send("e"):expect("<e>")
    assert.equal(1, db:counters().accepted)
    assert.equal(1, app:counters().suspensions) -- the call that has connected
  end)

  it("does so however a client's bytes are cut", function()
    backend()
    local app = forwarder()
    warm(app)
    for seed = 1, 30 do
      app:connect():send_split({ "a", "own", "b", "c" }, seed):expect("<a>", "own", "<b>", "<c>")
    end
  end)

  it("waits for those before where several backends answer", function()
    backend()
    backend("tcp://other:1", "{")
    local app = forwarder({}, function(_, line, _, pool_of)
      if line:find "^other" then return pool_of "tcp://other:1":forward(line) end
    end)
    local client = warm(app):send("other"):expect("{other>")
    client:send("slow", "other a", "own", "other b", "last")
    app:advance "99ms"
    client:expect_nothing()
    app:advance "1ms"
    client:expect("<slow>", "{other a>", "own", "{other b>", "<last>")
  end)

  it("gives out what is there while others are still to come", function()
    backend()
    local app = forwarder()
    local client = warm(app):send("own 1", "a", "own 2", "slow", "own 3")
    client:expect("own 1", "<a>", "own 2")
    client:expect_nothing()
    app:advance "100ms"
    client:expect("<slow>", "own 3")
  end)

  it("gives the agent no frame before the replies are there", function()
    backend()
    local app = forwarder({}, function(_, line) core.log("info", "got " .. line) end)
    local client = warm(app)
    client:send("slow")
    client:send("a")
    assert.same({ 1, 0 }, { #app:log "got slow", #app:log "got a" })
    app:advance "100ms"
    client:expect("<slow>", "<a>")
    assert.equal(1, #app:log "got a")
  end)

  it("goes on with a batch in which another frame waits", function()
    backend()
    local app = forwarder({}, function(_, line)
      if line ~= "wait" then return end
      core.sleep "1s" -- the replies to those before come meanwhile
      return "waited"
    end)
    local client = warm(app)
    client:send("a", "b", "wait", "c")
    client:expect_nothing()
    app:advance "1s"
    client:expect("<a>", "<b>", "waited", "<c>")
  end)

  it("goes on with one that has waited before it forwards", function()
    backend()
    local app = forwarder({}, function(pool, line)
      if line ~= "late" then return end
      core.sleep "1s"
      return pool:forward(line)
    end)
    local client = warm(app):send("a", "late", "b")
    app:advance "1s"
    client:expect("<a>", "<late>", "<b>")
  end)

  for what, frames in pairs { ["a frame"] = {}, ["a batch"] = { "a", "b" } } do
    it("takes a reply that comes before its handler has returned, in " .. what, function()
      backend()
      local app = forwarder({}, function(pool, line)
        local token = (line == "early" or line == "end") and pool:forward(line)
        if token then core.sleep "1s" end
        return token or nil
      end)
      local client = warm(app)
      local lines, wanted = { "early" }, { "<early>" }
      for i, frame in ipairs(frames) do
        table.insert(lines, i, frame)
        lines[#lines + 1] = frame
        table.insert(wanted, i, "<" .. frame .. ">")
        wanted[#wanted + 1] = "<" .. frame .. ">"
      end
      client:send(unpack(lines))
      app:advance "999ms"
      client:expect_nothing()
      app:advance "1ms"
      client:expect(unpack(wanted))
      lines[#frames + 1] = "end"
      client:send(unpack(lines))
      app:advance "1s"
      client:skip(#frames):expect_closed("agent")
    end)
  end

  it("keeps what is sent by conn:send where it was sent: at once", function()
    backend()
    local app = forwarder({}, function(_, line, self)
      if line == "push" then self.conn:send "pushed" return false end
    end)
    local client = warm(app):send("own", "a", "push")
    client:expect("own", "pushed", "<a>")
  end)

  it("ends the connection after the reply where the handler asks for that", function()
    backend()
    local app = forwarder({}, function(pool, line)
      if line == "last" then return pool:forward(line), "close" end
    end)
    local client = warm(app):send("a", "slow", "last", "b")
    app:advance "100ms"
    client:expect("<a>", "<slow>", "<last>"):expect_closed("agent")
  end)

  for what, frames in pairs { ["a frame"] = { "tell" }, ["a batch"] = { "a", "tell", "b" } } do
    it("is a fault where the handler returns something else: a forgotten return, in " .. what, function()
      backend()
      local app = forwarder({}, function(pool, line)
        if line == "tell" then pool:forward(line) return false end
      end)
      local client, other = warm(app), app:connect()
      client:send(unpack(frames)):expect_closed("error")
      assert.truthy(app:faults()[1].error:find("write return pool:forward", 1, true))
      other:send("c"):expect("<c>")
    end)
  end

  it("refuses a frame in which its delimiter is: the second reply would be another's", function()
    net:serve("tcp://db:1", { frame = "line", agent = { proceed = function(_, line) return "<" .. line .. ">" end } })
    local pools = {}
    local app = net:app { listen = "tcp://127.0.0.1:9000", frame = "u32be", agent = { proceed = function(_, frame)
      pools[1] = pools[1] or core.pool("tcp://db:1", { frame = "line", pipeline = true })
      if frame == "request\nfor two" then return tostring(select(2, pcall(pools[1].request, pools[1], frame))) end
      return pools[1]:forward(frame)
    end } }
    local bad, good = app:connect(), app:connect()
    good:send("a"):expect("<a>")
    bad:send("b\nsecret"):expect_closed("error")
    assert.truthy(app:faults()[1].error:find("contains its delimiter", 1, true))
    good:send("c"):expect("<c>"):send("d"):expect("<d>")
    local asker = app:connect():send("request\nfor two")
    assert.truthy(asker:receive():find("contains its delimiter", 1, true))
    good:send("e"):expect("<e>")
  end)

  it("answers a client that has ended its side", function()
    backend()
    local app = forwarder()
    local client = warm(app):send("a", "slow")
    client:half_close()
    app:advance "100ms"
    client:expect("<a>", "<slow>"):expect_closed("peer")
  end)

  it("gives nobody the replies of a client that has left", function()
    backend()
    local app = forwarder()
    local one, two = warm(app), app:connect()
    one:send("slow 1", "b")
    two:send("c")
    one:reset()
    app:advance "100ms"
    two:expect("<c>")
    two:send("d"):expect("<d>")
  end)

  it("keeps up the order over many clients, connections and batches", function()
    local db = backend()
    local app = forwarder { size = 3 }
    local clients = {}
    for i = 1, 20 do clients[i] = app:connect() end
    for round = 1, 30 do
      for i, client in ipairs(clients) do
        local lines, wanted = {}, {}
        for k = 1, (i * round) % 17 do
          local line = ("%d %d %d"):format(i, round, k)
          local is_own = k % 5 == 0
          lines[k], wanted[k] = is_own and "own " .. line or line, is_own and "own " .. line or "<" .. line .. ">"
        end
        if lines[1] then client:send(unpack(lines)):expect(unpack(wanted)) end
      end
    end
    assert.is_true(db:counters().accepted <= 3)
  end)

  -- Backends that say which of their connections was asked.
  local function telling(address)
    return net:serve(address, { frame = "line", agent = { proceed = function(self, line)
      if line == "slow" then core.sleep "100ms" end
      return line .. " by " .. self.conn.id
    end } })
  end

  -- As many connections to each backend, all of them asked before.
  local function widen(app, addresses, n)
    for _ = 1, n do
      for _, address in ipairs(addresses) do app:connect():send(address .. " slow") end
      app:advance "10ms"
    end
    app:advance "10s"
  end

  for what, addresses in pairs { ["one pool"] = { "tcp://db:1" }, ["two pools"] = { "tcp://db:1", "tcp://db:2" } } do
    it("asks one connection of " .. what .. " for all that has come together, so that the order is kept", function()
      local backends = {}
      for i, address in ipairs(addresses) do backends[i] = telling(address) end
      local app = forwarder({ size = 3 }, function(_, line, self, pool_of)
        local address, text = line:match "^(tcp%S+) (.*)"
        if address then return pool_of(address):request(text) end
        self.n = (self.n or 0) + 1
        return pool_of(addresses[self.n % #addresses + 1]):forward(line)
      end)
      widen(app, addresses, 5)
      for i in ipairs(addresses) do assert.equal(3, backends[i]:counters().accepted) end
      local lines, askers = {}, {}
      for i = 1, 100 do lines[i] = tostring(i) end
      local client = app:connect()
      for _ = 1, 3 do client:send(unpack(lines)) end -- more and more of them are a batch
      for k = 1, 300 do
        local text, by = client:receive():match "^(%d+) by (%d+)$"
        assert.equal(lines[(k - 1) % 100 + 1], text)
        local which = k % #addresses + 1
        if k > 200 then
          askers[which] = askers[which] or by
          assert.equal(askers[which], by, "of frame " .. k)
        end
      end
    end)
  end

  it("spreads those that wait over the connections of the pool", function()
    local db = backend()
    local app = forwarder { size = 4 }
    warm(app)
    for _ = 1, 200 do app:connect():send("slow") end
    app:advance "30s"
    assert.equal(4, db:counters().accepted)
  end)

  -- ---- where none comes ----

  local FAILURES = {
    ["has ended"] = { "end" }, -- what it has answered before is delivered
    ["has reset"] = { "reset" },
    ["does not answer"] = { "hold", "10s" },
  }
  for what, how in pairs(FAILURES) do
    describe("where the backend " .. what, function()
      it("gives the client what it was told to", function()
        backend()
        local otherwise = { otherwise = "sorry" }
        local app = forwarder({}, function(pool, line)
          if not line:find "^own" then return pool:forward(line, otherwise) end
        end)
        local client = warm(app):send("a"):send(how[1], "own", how[1])
        app:advance(how[2] or "1ms")
        app:advance(how[2] or "1s") -- the second one was forwarded after the first
        client:expect("<a>", "sorry", "own", "sorry")
        app:advance "1s"
        client:send("b"):expect("<b>")
      end)

      it("ends the client's connection, after the replies before it, where it was told nothing", function()
        backend()
        local app = forwarder()
        local client, other = warm(app), app:connect()
        client:send("own 1", "a"):send(how[1], "own 2", "b")
        app:advance(how[2] or "1ms")
        client:expect("own 1", "<a>"):expect_closed("agent")
        app:advance "1s"
        other:send("c"):expect("<c>")
        assert.same({}, app:faults())
      end)
    end)
  end

  it("does the same where there is no backend", function()
    local app = forwarder({}, function(pool, line)
      if line ~= "bare" then return pool:forward(line, { otherwise = "sorry" }) end
    end)
    app:connect():send("a", "b"):expect("sorry", "sorry")
    app:connect():send("bare"):expect_closed("agent")
    assert.same({}, app:faults())
  end)

  it("ends a connection that does not answer, and not one that does", function()
    local db = backend()
    local app = forwarder({}, function(pool, line)
      return pool:forward(line, { otherwise = "sorry", timeout = line:find "^hurried" and "50ms" or nil })
    end)
    local client = app:connect():send("warm"):expect("<warm>")
    client:send("hurried hold") -- is answered at once
    client:expect("<hurried hold>")
    client:send("slow"):expect_nothing()
    app:advance "100ms"
    client:expect("<slow>")
    assert.equal(1, db:counters().accepted)
    client:send("hold")
    app:advance "9999ms"
    client:expect_nothing()
    app:advance "1ms"
    client:expect("sorry"):send("b"):expect("<b>")
    assert.equal(2, db:counters().accepted)
  end)

  it("waits no longer than `timeout` says, and gives nobody the late reply", function()
    backend()
    local app = forwarder({}, function(pool, line)
      return pool:forward(line, { otherwise = "sorry", timeout = "80ms" })
    end)
    local client = app:connect():send("warm"):expect("<warm>")
    client:send("slow")
    app:advance "79ms"
    client:expect_nothing()
    app:advance "1ms"
    client:expect("sorry"):send("b")
    app:advance "20ms"
    client:expect("<b>")
  end)

  it("gives `otherwise` where the queue is full", function()
    backend()
    local app = forwarder({ depth = 2, size = 1 }, function(pool, line)
      return pool:forward(line, { otherwise = "busy" })
    end)
    local client = app:connect():send("warm"):expect("<warm>")
    client:send("a", "b", "c"):expect("<a>", "<b>", "<c>")
    client:send("a", "b", "c", "d"):expect("<a>", "<b>", "busy", "busy")
  end)

  it("gives up only what has not come in its own time", function()
    backend()
    net:serve("tcp://late:1", { frame = "line", agent = { proceed = function(_, line)
      core.sleep "2s"
      return "{" .. line .. "}"
    end } })
    local late
    local app = forwarder({ timeout = { read = "1s" } }, function(_, line)
      late = late or core.pool("tcp://late:1", { frame = "line", pipeline = true, timeout = { read = "30s" } })
      if line:find "^late" then return late:forward(line) end
    end)
    local client = warm(app):send("late"):expect_nothing()
    app:advance "2s"
    client:expect("{late}"):send("own", "own"):expect("own", "own")
    client:send("a", "late", "hold", "own")
    app:advance "1s"
    client:expect("<a>"):expect_nothing()
    app:advance "1s"
    client:expect("{late}"):expect_closed("agent")
  end)

  it("ends by timeout.proceed as any call that waits", function()
    backend()
    local app = forwarder({}, nil, { timeout = { proceed = "1s" } })
    local client = warm(app):send("hold")
    app:advance "1s"
    client:expect_closed("proceed_timeout")
    assert.equal(1, #app:faults())
  end)

  it("has failed() asked where what stands behind it is no reply", function()
    backend()
    local pool
    local Agent = { failed = function(_, message) return "sorry: " .. message:match "'(.-)'" end }
    function Agent.proceed(_, line)
      pool = pool or core.pool("tcp://db:1", { frame = "line", pipeline = true })
      if line == "bogus" then return "x", "bogus" end
      if line == "own" then return line end
      return pool:forward(line)
    end
    local app = net:app { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent }
    local client = warm(app):send("slow", "bogus")
    app:advance "100ms"
    client:expect("<slow>", "sorry: bogus"):expect_closed("error")
  end)

  for method, call in pairs {
    set_frame = function(conn) conn:set_frame "u8" end,
    shutdown = function(conn) conn:shutdown() end,
    pipe = function(conn) conn:pipe(assert(core.connect "tcp://db:1")) end,
  } do
    it("comes before conn:" .. method .. ", which is refused while a reply is owed", function()
      backend()
      local app = forwarder({}, function(_, line, self)
        if line ~= "now" then return end
        local ok, why = pcall(call, self.conn)
        return tostring(ok) .. " " .. tostring(why):match "replies.*"
      end)
      local client = warm(app):send("slow", "now")
      app:advance "100ms"
      client:expect("<slow>", "false replies of pool:forward are still owed to earlier frames")
      client:send("a"):expect("<a>")
    end)
  end

  it("reads on where a backend cannot take more: both would wait for each other", function()
    local n, large = 100, ("x"):rep(30000)
    local db = net:serve("tcp://db:1", { frame = "line", agent = { proceed = function(_, line) return line end } })
    for _, method in ipairs { "forward", "request" } do
      local pool
      local app = net:app { listen = "tcp://127.0.0.1:0", frame = "line", limits = { connections = n }, agent = {
        proceed = function(_, line)
          pool = pool or core.pool("tcp://db:1", { frame = "line", pipeline = true, size = 1 })
          return (pool[method](pool, line))
        end } }
      app:connect():send("warm"):expect("warm"):close()
      net:stall(db)
      local clients = {}
      for i = 1, n do clients[i] = app:connect():send(i .. large) end
      net:resume(db)
      app:advance "1s"
      for i, client in ipairs(clients) do client:expect(i .. large):close() end
      app:close()
    end
  end)

  it("loses no more than is its own where a later frame of the batch fails", function()
    backend()
    local app = forwarder({}, function(_, line) if line == "fault" then error "as asked" end end)
    local client, other = warm(app), app:connect()
    client:send("own", "a", "fault"):expect("own"):expect_closed("error")
    other:send("b"):expect("<b>")
    assert.equal(1, #app:faults())
  end)

  -- ---- other framings ----

  local function between(front, back, proceed, is_served)
    local Echo = { proceed = function(_, frame) return "<" .. frame .. ">" end }
    if not is_served then net:serve("tcp://db:1", { frame = back, agent = Echo }) end
    local pool
    return net:app { listen = "tcp://127.0.0.1:9000", frame = front, agent = { proceed = function(_, frame)
      pool = pool or core.pool("tcp://db:1", { frame = back, pipeline = true })
      return proceed(pool, frame)
    end } }
  end

  local function decode_line(bytes)
    local at = bytes:find("\n", 1, true)
    if at then return bytes:sub(1, at - 1), at + 1 end
  end

  local FRONTS = {
    ["frames of a length"] = "u32be",
    ["views"] = { "u16be", view = true },
    ["frames behind a header"] = { "u16be", offset = 2 },
    ["a codec in Lua"] = { decode = decode_line, encode = function(text) return text .. "\n" end },
  }
  for name, front in pairs(FRONTS) do
    it("works between " .. name .. " and lines", function()
      local app = between(front, "line", function(pool, frame) return pool:forward(tostring(frame)) end)
      local client = app:connect()
      client:send("abc"):expect("<abc>")
      client:send("def", "ghi"):expect("<def>", "<ghi>")
    end)
  end

  it("is a fault where a reply does not fit the client's framing", function()
    backend()
    local app = between("u8", "line", function(pool, frame) return pool:forward(frame:rep(10)) end, true)
    local client = app:connect()
    client:send("abc"):expect("<" .. ("abc"):rep(10) .. ">")
    client:send(("a"):rep(40)):expect_closed("error")
    assert.truthy(app:faults()[1].error:find("a reply of 402 bytes does not fit a u8 frame", 1, true))
  end)

  -- ---- mistakes ----

  local function fault_of(answer)
    backend()
    local app = forwarder({}, answer)
    local client = warm(app)
    client:send("x"):expect_closed("error")
    return app:faults()[1].error
  end

  local function only_x(answer)
    return function(pool, line, self) if line == "x" then return answer(pool, line, self) end end
  end

  it("is done once for a frame", function()
    local message = fault_of(only_x(function(pool, line)
      pool:forward(line)
      return pool:forward(line)
    end))
    assert.truthy(message:find("a frame has one reply", 1, true), message)
  end)

  it("is not the same as returning `true`", function()
    local message = fault_of(only_x(function() return true end))
    assert.truthy(message:find("a reply is a string", 1, true), message)
  end)

  local MISTAKES = {
    ["options are a table"] = function(pool) return pool:forward("x", "y") end,
    ['unknown option "idempotent" %(there are otherwise and timeout%)'] = function(pool)
      return pool:forward("x", { idempotent = true })
    end,
    ["expects the frame that is to be sent, got nothing"] = function(pool) return pool:forward() end,
    ["otherwise: expects a reply, got a function"] = function(pool)
      return pool:forward("x", { otherwise = function() end })
    end,
    ["timeout: expects a duration such as"] = function(pool) return pool:forward("x", { timeout = "soon" }) end,
    ["write it with a colon"] = function(pool) return pool.forward("x") end,
  }
  for message, call in pairs(MISTAKES) do
    it("says: " .. message, function()
      local got = fault_of(only_x(call))
      assert.truthy(got:find(message), got)
    end)
  end

  it("is for pools that pipeline", function()
    net:serve("tcp://db:1", { frame = "line", agent = { proceed = function(_, line) return line end } })
    local app = forwarder { pipeline = false }
    app:connect():send("a"):expect_closed("error")
    assert.truthy(app:faults()[1].error:find("pipeline = true, or pool:request", 1, true))
  end)

  it("waits like a request in a task, which has no reply to give", function()
    backend()
    local app = forwarder({}, function(pool, line)
      if line == "task" then return core.spawn(function() return pool:forward "in a task" end):join() end
    end)
    warm(app):send("task"):expect("<in a task>")
  end)

  -- ---- the end ----

  it("is waited for while the app drains", function()
    backend()
    local app = forwarder()
    local client = warm(app):send("slow")
    app:begin_drain()
    app:advance "100ms"
    client:expect("<slow>"):expect_closed("drain")
  end)

  it("says what the connection waits for", function()
    backend()
    local app = forwarder()
    local client = warm(app):send("hold")
    local ok, message = pcall(client.expect, client, "never")
    assert.is_false(ok)
    assert.truthy(tostring(message):find("replies of pool:forward", 1, true), tostring(message))
  end)
end)
