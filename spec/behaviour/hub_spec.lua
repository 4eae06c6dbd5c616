--- Topics: conn:join, conn:leave, conn:publish and perilune.hub, as handlers and clients see them. What the directory
--- does among threads: spec/unit/hub_test.c and spec/server/hub_spec.lua; whatever happens meanwhile:
--- hub_model_spec.lua.
local core = require "perilune"
local has = require "spec.support.has"
local memory = require "spec.support.memory"
local perilune = require "perilune.test"
local shell = require "spec.support.shell"

-- What is published comes to a client as it is, so that its answers begin with a sign.
local function agent(methods) return shell.agent(methods, "= ") end

local show, show_outcome = shell.show, shell.outcome

describe("topics", function()
  local app

  local function open(workers, methods, settings)
    local all = { listen = "tcp://127.0.0.1:9000", frame = "line", agent = agent(methods) }
    for key, value in pairs(settings or {}) do all[key] = value end
    app = perilune.app(all, nil, { workers = workers or 2 })
    return app
  end

  after_each(function()
    if app then app:close() end
    app = nil
    memory.finish()
  end)

  -- What a line comes to; what was published meanwhile comes after that.
  local function ask(client, line)
    client:send(line)
    local answer = client:receive()
    has("= ", answer)
    return answer:sub(3)
  end

  local function connect(n)
    local clients = {}
    for i = 1, n do clients[i] = app:connect() end
    return unpack(clients)
  end

  local function got(client) return table.concat(client:frames(), " ") end

  -- Of all there are, what is left when all that may wait has been counted.
  local function check_accounts()
    local c = app:counters()
    local settled = c.hub_delivered + c.hub_dropped_oldest + c.hub_dropped_newest + c.hub_replaced + c.hub_unfit
      + c.hub_evicted + c.hub_left
    return c.hub_addressed - settled
  end

  for workers = 1, 3 do
    describe(("with %d workers"):format(workers), function()
      it("have members from the moment that join returns", function()
        open(workers)
        local a, b, c = connect(3)
        assert.equal("true 1", ask(a, "conn:join 'room.7', core.hub.count 'room.7'"))
        assert.equal("true 2", ask(b, "conn:join 'room.7', core.hub.count 'room.7'"))
        assert.equal("2 0", ask(c, "core.hub.count 'room.7', core.hub.count 'room.8'"))
        assert.equal("true", ask(c, "conn:publish('room.7', 'hello')"))
        assert.same({ "hello", "hello", "" }, { got(a), got(b), got(c) })
        assert.equal("true false 1", ask(a, "conn:leave 'room.7', conn:leave 'room.7', core.hub.count 'room.7'"))
        assert.equal("true", ask(c, "core.hub.publish('room.7', 'again')"))
        assert.same({ "", "again" }, { got(a), got(b) })
      end)

      it("are told of in the order of each publisher", function()
        open(workers)
        local a, b, c = connect(3)
        ask(a, "conn:join 'n'")
        ask(b, "conn:join '*'")
        c:send "(function() for i = 1, 100 do assert(conn:publish('n', tostring(i))) end end)()"
        local wanted = {}
        for i = 1, 100 do wanted[i] = tostring(i) end
        assert.same(wanted, a:frames())
        assert.same(wanted, b:frames())
      end)

      it("are matched by patterns, one part or all the rest", function()
        open(workers)
        local a, b = connect(2)
        for _, pattern in ipairs { "a.b", "a.*", "a.>", "*.b", ">", "*", "a.*.c", "a.b.>", "x.y" } do
          assert.equal("true", ask(a, ("conn:join '%s'"):format(pattern)))
        end
        for topic, count in pairs { ["a"] = 2, ["a.b"] = 5, ["a.b.c"] = 4, ["a.x"] = 3, ["x.y"] = 2, ["q.w.e"] = 1 } do
          assert.equal(tostring(count), ask(b, ("core.hub.count '%s'"):format(topic)), topic)
          ask(b, ("conn:publish('%s', 'm')"):format(topic))
          assert.equal(count, #a:frames(), topic)
        end
      end)

      it("end with the connection", function()
        open(workers)
        local a, b = connect(2)
        ask(a, "conn:join 'room.7', conn:join 'room.*'")
        assert.equal("2", ask(b, "core.hub.count 'room.7'"))
        a:close()
        assert.equal("0", ask(b, "core.hub.count 'room.7'"))
        assert.equal("true", ask(b, "conn:publish('room.7', 'x')"))
        local c = app:counters()
        assert.same({ 2, 2, 0 }, { c.hub_joined, c.hub_parted, c.hub_addressed })
      end)
    end)
  end

  it("refuse what is no name, and never send that to anybody", function()
    open()
    local a, b = connect(2)
    ask(a, "conn:join '>'")
    local long = ("x"):rep(256)
    local cases = {
      ["''"] = "it is empty", ["'a..b'"] = "a part of it is empty", ["'.a'"] = "a part of it is empty",
      ["'a.'"] = "a part of it is empty", ["'a b'"] = "it has a blank or a control character",
      ["'a\\0b'"] = "it has a blank or a control character", ["'a*.b'"] = '"*" and ">" are whole parts',
      ["'$sys'"] = 'topics that begin with "$" are the core\'s own',
      ["'" .. long .. "'"] = "it has more than 255 bytes",
      ["'" .. ("a."):rep(16) .. "a'"] = "it has more than 16 parts",
      ["'*.*.a.*.*.*'"] = 'it has more than 4 times "*"',
    }
    for topic, why in pairs(cases) do
      local wanted = ("nil this is no topic: %s EINVAL"):format(why)
      for _, call in ipairs { "conn:join(%s)", "conn:leave(%s)", "conn:publish(%s, 'x')", "core.hub.publish(%s, 'x')",
        "core.hub.count(%s)", "core.hub.stats(%s)" } do
        assert.equal(wanted, ask(b, call:format(topic)), topic)
      end
    end
    assert.equal('nil this is no topic: ">" comes last EINVAL', ask(b, "conn:join('a.>.b')"))
    local pattern = 'nil this is no topic: "*" and ">" are for conn:join EINVAL'
    assert.equal(pattern, ask(b, "conn:publish('a.*', 'x')"))
    assert.equal(pattern, ask(b, "core.hub.count('>')"))
    for _, call in ipairs { "conn:join()", "conn:publish(nil, 'x')", "core.hub.publish({}, 'x')", "conn:leave(7)" } do
      has("the topic is a string, got ", ask(b, call))
    end
    assert.equal("", got(a))
    assert.equal(0, app:counters().hub_published)
  end)

  it("say what is wrong with options and data", function()
    open(1, { message = false })
    local a = connect(1)
    for call, why in pairs {
      ["conn:join('a', { polizy = 'latest' })"] = 'unknown option "polizy" (did you mean "policy"?)',
      ["conn:join('a', { policy = 'oldest' })"] = 'conn:join: policy expects "disconnect", "drop_newest"',
      ["conn:join('a', { messages = 0 })"] = "conn:join: messages: expects a whole number from 1 to 1000000",
      ["conn:join('a', { bytes = '1' })"] = "conn:join: bytes: expects a size from 1k to 1g",
      ["conn:join('a', { deliver = 'agent' })"] = "the agent has no method message, which takes what is published",
      ["conn:join('a', 7)"] = "its options",
      ["conn:publish('a')"] = "the data is a text, or a table, which is sent as JSON; got no value",
      ["conn:publish('a', true)"] = "got boolean",
      ["conn:publish('a', { f = print })"] = "conn:publish: the data is no JSON: ",
      ["conn:publish('a', 'x', { key = 7 })"] = "conn:publish: key: expects a text of at most 255 bytes",
      ["conn:publish('a', 'x', { others = 1 })"] = "conn:publish: others is true or false, got number",
      ["conn:publish('a', {}, { binary = true })"] = "binary: a table is sent as JSON, which is text",
    } do
      local answer = ask(a, call)
      has("raised ", answer)
      has(why, answer)
    end
    assert.equal("nil a message has at most 1 MiB EMSGSIZE", ask(a, "conn:publish('a', ('x'):rep(2^20 + 1))"))
    assert.equal("nil it has no members ENOENT", ask(a, "core.hub.stats 'a'"))
  end)

  it("can leave out who has published", function()
    open()
    local a, b = connect(2)
    ask(a, "conn:join 'room'")
    ask(b, "conn:join 'room'")
    ask(a, "conn:publish('room', 'hi', { others = true })")
    assert.same({ "", "hi" }, { got(a), got(b) })
    ask(a, "core.hub.publish('room', 'ho', { others = true })")
    assert.same({ "", "ho" }, { got(a), got(b) })
    assert.equal(2, app:counters().hub_addressed)
  end)

  it("deliver in the worker's turn, and never inside of publish", function()
    open(1)
    local a = app:connect()
    ask(a, "conn:join 'room'")
    a:send "(function() conn:publish('room', 'later') conn:send 'sooner' return 'done' end)()"
    assert.same({ "sooner", "= done", "later" }, a:frames())
  end)

  it("are as many for a connection as there may be", function()
    open(1)
    local a = app:connect()
    assert.equal("1000", ask(a, "(function() for i = 1, 1000 do assert(conn:join('t' .. i)) end return 1000 end)()"))
    assert.equal("nil a connection has at most 1000 topics EBUSY", ask(a, "conn:join 'one.more'"))
    assert.equal("true", ask(a, "conn:join 't7'"))
    assert.equal("1000", ask(a, "core.hub.stats().topics"))
    a:close()
    assert.equal("0 0", ask(app:connect(), "core.hub.stats().topics, core.hub.stats().members"))
  end)

  it("are joined and left by handlers alone", function()
    open(1, { snapshot = function(self) return pcall(self.conn.join, self.conn, "a") end, upgrade = function() end },
      { reload = "migrate" })
    local a = app:connect()
    app:reload()
    assert.equal("0", ask(a, "core.hub.count 'a'"))
    a:close()
    local script = { listen = "tcp://127.0.0.1:9000", agent = { proceed = function() end },
      setup = function() core.hub.publish("a", "x") end }
    local ok, why = pcall(memory.open, script)
    assert.is_false(ok)
    has("perilune.hub.publish: only a running handler can", tostring(why))
  end)

  -- ---- what members get ----

  describe("reach members", function()
    local Echo = { proceed = function() end }

    local function member(topic, options)
      local Agent = { proceed = Echo.proceed }
      function Agent:opened() assert(self.conn:join(topic, options)) end
      return Agent
    end

    local function publisher()
      local Agent = {}
      function Agent:proceed(line)
        local code = assert(loadstring("local conn, core = ... " .. line, "=line"))
        return show_outcome(pcall(code, self.conn, core))
      end
      return Agent
    end

    local function open_listeners(list, settings)
      local listen = { { "tcp://127.0.0.1:9000", name = "lines", frame = "line", agent = publisher() } }
      for i, one in ipairs(list) do
        one[1] = one[1] or ("tcp://127.0.0.1:%d"):format(9000 + i)
        one.name = "m" .. i
        listen[#listen + 1] = one
      end
      local script = { listen = listen }
      for key, value in pairs(settings or {}) do script[key] = value end
      app = perilune.app(script, nil, { workers = 2 })
      return app:connect { listener = "lines" }
    end

    local function publish(from, code)
      from:send("return conn:publish(" .. code .. ")")
      assert.equal("true", from:receive())
    end

    it("of any framing, each in its own", function()
      local framings = { "line", "u32be", "u16le", "netstring", "varint", { "delimiter", "\0" } }
      local list = {}
      for i, framing in ipairs(framings) do list[i] = { frame = framing, agent = member "news" } end
      local from = open_listeners(list)
      local clients = {}
      for i = 1, #framings do
        clients[2 * i - 1] = app:connect { listener = "m" .. i }
        clients[2 * i] = app:connect { listener = "m" .. i }
      end
      publish(from, "'news', 'hello'")
      publish(from, "'news', ('x'):rep(2000)")
      publish(from, "'news', 7")
      for _, client in ipairs(clients) do
        assert.same({ "hello", ("x"):rep(2000), "7" }, client:frames())
      end
      assert.equal(3 * #clients, app:counters().hub_delivered)
    end)

    it("by a codec in Lua, once for all of them", function()
      local codec = {
        decode = function(bytes, at)
          if at <= #bytes then return bytes:sub(at), #bytes + 1 end
        end,
        encode = (function()
          local n = 0
          return function(value)
            n = n + 1
            if value == "bad" then error "not this" end
            return ("<%s %d>"):format(type(value) == "table" and value.a or value, n)
          end
        end)(),
      }
      local from = open_listeners { { frame = codec, agent = member "news" } }
      local a, b = app:connect { listener = "m1", worker = 0, frame = "raw" },
        app:connect { listener = "m1", worker = 0, frame = "raw" }
      publish(from, "'news', { a = 7 }")
      assert.same({ "<7 1>", "<7 1>" }, { got(a), got(b) })
      publish(from, "'news', 'bad'")
      publish(from, "'news', 'good'")
      assert.same({ "<good 3>", "<good 3>" }, { got(a), got(b) })
      assert.equal(2, app:counters().hub_unfit)
      has("not this", app:log "a message to a topic was not sent: the codec's encode failed"[1].error)
    end)

    it("whose framing cannot carry it not at all, and count that", function()
      local from = open_listeners { { frame = "u8", agent = member "news" }, { frame = "line", agent = member "news" } }
      local a, b = app:connect { listener = "m1" }, app:connect { listener = "m2" }
      publish(from, "'news', ('x'):rep(300)")
      publish(from, "'news', 'short'")
      assert.same({ "short", ("x"):rep(300) .. " short" }, { got(a), got(b) })
      assert.equal(1, app:counters().hub_unfit)
    end)

    it("over UDP", function()
      local from = open_listeners { { "udp://127.0.0.1:9001", agent = member "news", amplification = false } }
      local a = app:connect { listener = "m1" }
      a:send "x"
      publish(from, "'news', 'one'")
      publish(from, "'news', 'two'")
      assert.same({ "one", "two" }, a:frames())
    end)

    it("that are WebSockets, as text or binary", function()
      local from = open_listeners { { "ws://127.0.0.1:9001/", agent = member "news" },
        { "ws://127.0.0.1:9002/", compress = false, agent = member "news" } }
      local list = {}
      for i = 1, 2 do
        list[#list + 1] = app:connect({ listener = "m" .. i }):websocket "/"
        list[#list + 1] = app:connect({ listener = "m" .. i }):websocket("/", { compress = true })
      end
      publish(from, "'news', 'hello'")
      publish(from, "'news', 'a\\0b', { binary = true }")
      publish(from, "'news', { text = ('ab'):rep(600) }")
      for i, ws in ipairs(list) do
        assert.equal("hello", ws:receive(), i)
        assert.equal("a\0b", ws:receive(), i)
        assert.equal(('{"text":"%s"}'):format(("ab"):rep(600)), ws:receive(), i)
      end
      publish(from, "'news', '\\255'") -- no text
      assert.equal(4, app:counters().hub_unfit)
    end)

    it("that are WebSockets, between messages and not within one", function()
      local Agent = member "news"
      function Agent:proceed(line)
        if line == "begin" then self.message = self.conn:begin() end
        if line == "more" then self.message:write "more " end
        if line == "end" then self.message:finish "end" end
      end
      local from = open_listeners { { "ws://127.0.0.1:9001/", agent = Agent } }
      local ws = app:connect({ listener = "m1" }):websocket "/"
      ws:send "begin"
      ws:send "more"
      publish(from, "'news', 'one'")
      publish(from, "'news', 'two'")
      ws:send "other" -- what waits is no reason to be served again and again
      ws:send "end"
      for _, text in ipairs { "more end", "one", "two" } do assert.equal(text, (ws:receive())) end
    end)

    local function site(options)
      local Site = {}
      local http = require "perilune.http"
      function Site:proceed(request)
        if request.path == "/plain" then return show_outcome(pcall(self.conn.join, self.conn, "news")) end
        return http.events(function(events)
          assert(events:join("news", options))
          events:send "welcome"
          if request.path == "/short" then return end
          if request.path == "/leave" then assert(events:leave "news") end
          events:wait()
        end, { heartbeat = false })
      end
      return Site
    end

    it("that have a response of http.events, as events", function()
      local from = open_listeners { { "http://127.0.0.1:9001", agent = site() } }
      local a = app:connect({ listener = "m1" }):ask "/"
      assert.equal(200, a:head().status)
      assert.equal("data: welcome\n\n", a:piece())
      publish(from, "'news', 'one\\ntwo\\r\\nthree\\r'")
      assert.equal("data: one\ndata: two\ndata: three\ndata: \n\n", a:piece())
      publish(from, "'news', { a = 1 }")
      assert.equal('data: {"a":1}\n\n', a:piece())
      publish(from, "'news', ''")
      assert.equal("data: \n\n", a:piece())
    end)

    it("no longer than such a response is there", function()
      local from = open_listeners { { "http://127.0.0.1:9001", agent = site() } }
      local a = app:connect({ listener = "m1" }):ask "/short"
      a:head()
      assert.equal("data: welcome\n\n", a:piece())
      assert.is_nil(a:piece())
      local b = app:connect({ listener = "m1" }):ask "/leave"
      b:head()
      assert.equal("data: welcome\n\n", b:piece())
      publish(from, "'news', 'x'")
      b:expect_nothing()
      assert.equal(0, app:counters().hub_addressed)
      has("of HTTP only a response of http.events can be a member", app:connect({ listener = "m1" }):get("/plain").body)
      local c = app:connect({ listener = "m1" }):ask "/"
      c:head()
      c:close()
      from:send "return core.hub.count 'news'"
      assert.equal("0", from:receive())
    end)
  end)

  -- ---- members that do not keep up ----

  describe("of a member that does not keep up", function()
    local SETTINGS = { limits = { send_buffer = "2k" }, timeout = { idle = false, write = false } }
    local FILL = ("x"):rep(2000)

    -- The slow one takes nothing; FILL is on its connection, and all that follows waits.
    local function slow_and_from(options, settings)
      local all = {}
      for key, value in pairs(SETTINGS) do all[key] = value end
      for key, value in pairs(settings or {}) do all[key] = value end
      open(2, nil, all)
      local slow, quick, from = connect(3)
      ask(slow, ("conn:join('t', %s)"):format(options))
      ask(quick, "conn:join 't'")
      slow:stall()
      ask(from, ("conn:publish('t', %q)"):format(FILL))
      assert.equal(FILL, got(quick))
      return slow, from, quick
    end

    local function publish_all(from, list)
      for _, one in ipairs(list) do
        local key, text = one:match "^(%w+)=(.*)$"
        assert.equal("true", ask(from, ("conn:publish('t', %q, { key = %q })"):format(text or one, key or "")))
      end
    end

    -- What it gets behind FILL once it takes it.
    local function taken(slow)
      slow:unstall()
      local frames = slow:frames()
      assert.equal(FILL, table.remove(frames, 1))
      return table.concat(frames, " ")
    end

    it("what fits waits, and comes in its order", function()
      local slow, from = slow_and_from "{ messages = 3 }"
      publish_all(from, { "a", "b", "c" })
      assert.equal(3, check_accounts())
      assert.equal("a b c", taken(slow))
      assert.equal(0, check_accounts())
      publish_all(from, { "d" })
      assert.equal("d", got(slow))
    end)

    it("drop_newest keeps what waits", function()
      local slow, from = slow_and_from "{ messages = 2, policy = 'drop_newest' }"
      publish_all(from, { "a", "b", "c", "d" })
      assert.equal("a b", taken(slow))
      assert.equal(2, app:counters().hub_dropped_newest)
      assert.equal(0, check_accounts())
    end)

    it("drop_oldest keeps what is new", function()
      local slow, from = slow_and_from "{ messages = 2, policy = 'drop_oldest' }"
      publish_all(from, { "a", "b", "c", "d" })
      assert.equal("c d", taken(slow))
      assert.equal(2, app:counters().hub_dropped_oldest)
      assert.equal(0, check_accounts())
    end)

    it("latest keeps the last of each key, in the order of the last", function()
      local slow, from = slow_and_from "{ messages = 3, policy = 'latest' }"
      publish_all(from, { "p=1", "q=1", "p=2", "q=2", "p=3" })
      assert.equal("2 3", taken(slow))
      assert.equal(3, app:counters().hub_replaced)
      slow:stall()
      publish_all(from, { FILL, "a=1", "b=2", "c=3", "d=4", "b=5" })
      slow:unstall()
      assert.equal(FILL .. " 3 4 5", got(slow))
      assert.equal(1, app:counters().hub_dropped_oldest)
      assert.equal(0, check_accounts())
    end)

    it("disconnect ends it, and nobody else", function()
      local slow, from, quick = slow_and_from "{ messages = 2 }"
      publish_all(from, { "a", "b", "c", "d" })
      assert.equal("a b c d", got(quick))
      slow:unstall()
      slow:expect_closed "slow_consumer"
      assert.equal(3, app:counters().hub_evicted)
      assert.equal(0, check_accounts())
      assert.equal("1", ask(from, "core.hub.count 't'"))
      local entry = app:log "slow consumer: a member of a topic was disconnected"[1]
      assert.same({ "warn", "t", 2 }, { entry.level, entry.topic, entry.waiting })
      assert.is_number(entry.conn)
    end)

    it("bytes are bounded as well", function()
      local slow, from = slow_and_from "{ bytes = '2k', policy = 'drop_oldest' }"
      local a, b, c = ("a"):rep(800), ("b"):rep(800), ("c"):rep(800)
      publish_all(from, { a, b, c })
      assert.equal(b .. " " .. c, taken(slow))
      slow:stall()
      publish_all(from, { FILL, "z", ("y"):rep(3000) })
      slow:unstall()
      assert.equal(FILL .. " " .. ("y"):rep(3000), got(slow)) -- alone a message may be larger
      assert.same({ 2, 0 }, { app:counters().hub_dropped_oldest, app:counters().hub_dropped_newest })
    end)

    it("a burst ends no member that takes what it is sent", function()
      open(2, { message = function(self) self.heard = (self.heard or 0) + 1 end })
      local a, b, from = app:connect { worker = 0 }, app:connect { worker = 1 }, app:connect { worker = 0 }
      for _, client in ipairs { a, b } do ask(client, "conn:join 't', conn:join('u', { deliver = 'agent' })") end
      for _, topic in ipairs { "t", "u" } do
        ask(from, ("(function() for i = 1, 1000 do conn:publish('%s', ('x'):rep(1000)) end end)()"):format(topic))
      end
      for _, client in ipairs { a, b } do
        assert.equal(1000, #client:frames())
        assert.equal("1000", ask(client, "self.heard"))
      end
      assert.equal(0, check_accounts())
    end)

    it("the largest message ends no member that is not behind", function()
      open(1, { message = function(self, _, data) self.conn:send("heard " .. #data) end },
        { limits = { frame = "2m" } })
      local a, b = connect(2)
      ask(a, "conn:join('t', { deliver = 'agent' })")
      ask(b, "conn:publish('t', ('x'):rep(2^20))")
      assert.equal("heard 1048576", got(a))
    end)

    it("all that is held is bounded by limits.buffers, and nobody else meets that", function()
      local slow, from, quick = slow_and_from("{ policy = 'drop_oldest', bytes = '1g', messages = 100000 }",
        { limits = { send_buffer = "2k", buffers = "1m" } })
      local text = ("x"):rep(100000)
      for i = 1, 30 do
        ask(from, ("conn:publish('t', %q)"):format(i .. text))
        assert.equal(i .. text, got(quick))
      end
      local c = app:counters()
      assert.is_true(c.hub_dropped_oldest + c.hub_dropped_newest >= 19)
      assert.is_true(check_accounts() <= 11)
      slow:unstall()
      assert.is_true(#slow:frames() <= 12)
      assert.equal(0, check_accounts())
    end)

    it("`hub` says what is done where join does not", function()
      local slow, from = slow_and_from("{}", { hub = { policy = "drop_oldest", messages = 1 } })
      publish_all(from, { "a", "b" })
      assert.equal("b", taken(slow))
    end)

    it("what waits goes with it", function()
      local slow, from = slow_and_from "{}"
      publish_all(from, { "a", "b" })
      assert.equal(2, check_accounts())
      slow:reset()
      assert.equal("1", ask(from, "core.hub.count 't'"))
      assert.equal(2, app:counters().hub_left)
      assert.equal(0, check_accounts())
    end)

    it("what it has left does not come any more", function()
      open(2, nil, SETTINGS)
      local slow, from = connect(2)
      ask(slow, "conn:join('t'), conn:join('u')")
      slow:stall()
      ask(from, ("conn:publish('t', %q)"):format(FILL))
      publish_all(from, { "a" })
      ask(from, "conn:publish('u', 'b')")
      publish_all(from, { "c" })
      slow:send "conn:leave 't'"
      slow:unstall()
      assert.same({ FILL, "= true", "b" }, slow:frames())
      assert.equal(2, app:counters().hub_left)
    end)

    it("its other topics keep their places", function()
      open(2, nil, SETTINGS)
      local slow, from = connect(2)
      ask(slow, "conn:join('t', { messages = 1, policy = 'drop_oldest' }), conn:join('u')")
      slow:stall()
      ask(from, ("conn:publish('u', %q)"):format(FILL))
      for i = 1, 3 do
        ask(from, ("conn:publish('t', 't%d')"):format(i))
        ask(from, ("conn:publish('u', 'u%d')"):format(i))
      end
      slow:unstall()
      assert.equal(FILL .. " u1 u2 t3 u3", got(slow))
    end)

    it("a ping does not wait behind what waits", function()
      local Member = { proceed = function() end }
      function Member:opened() self.conn:join("t", { messages = 1000 }) end
      app = perilune.app({ listen = { { "ws://127.0.0.1:9000/", agent = Member, ping = "5s", pong = "1h" },
        { "tcp://127.0.0.1:9001", name = "lines", frame = "line", agent = agent() } }, limits = { send_buffer = "2k" },
        timeout = { idle = false, write = false } })
      local ws, from = app:connect():websocket "/", app:connect { listener = "lines" }
      ws.client:stall()
      ask(from, ("conn:publish('t', %q)"):format(FILL))
      publish_all(from, { "a", "b", "c" })
      app:advance "6s"
      ws.client:unstall()
      ws:expect(FILL):expect_ping()
      ws:expect("a", "b", "c")
    end)
  end)

  -- ---- to agents ----

  describe("with deliver = \"agent\"", function()
    local function heard(self, topic, data, from)
      self.conn:send(show(topic, type(data) == "table" and "table " .. data.a or data, from))
    end

    it("come to its message(topic, data, from)", function()
      open(2, { message = heard })
      local a, b = connect(2)
      ask(a, "conn:join('room.*', { deliver = 'agent' })")
      ask(b, "conn:publish('room.7', 'hello')")
      has("room.7 hello @", got(a))
      ask(b, "core.register 'bob'")
      ask(b, "conn:publish('room.7', { a = 7 })")
      assert.equal("room.7 table 7 bob", got(a))
      ask(b, "core.spawn(function() core.hub.publish('room.8', '') end)")
      assert.equal("room.8  bob", got(a))
    end)

    it("wait for its calls, and are bounded", function()
      open(2, { message = function(self, _, data)
        core.sleep "1s"
        self.conn:send(data)
      end })
      local a, b = connect(2)
      ask(a, "conn:join('t', { deliver = 'agent', messages = 2, policy = 'drop_oldest' })")
      for i = 1, 5 do ask(b, ("conn:publish('t', '%d')"):format(i)) end
      assert.equal(2, check_accounts())
      app:advance "5s"
      assert.equal("1 4 5", got(a))
      assert.equal(0, check_accounts())
    end)

    it("disconnect an agent that does not keep up", function()
      open(2, { message = function() core.sleep "1s" end })
      local a, b = connect(2)
      ask(a, "conn:join('t', { deliver = 'agent', messages = 2 })")
      for i = 1, 4 do ask(b, ("conn:publish('t', '%d')"):format(i)) end
      app:advance "1s"
      a:expect_closed "slow_consumer"
      assert.equal(0, check_accounts())
    end)

    it("may end the connection, by a fault or an action", function()
      open(2, { message = function(_, _, data)
        if data == "fault" then error "oops" end
        return nil, "close"
      end })
      local a, b, c = connect(3)
      ask(a, "conn:join('t', { deliver = 'agent' })")
      ask(b, "conn:join('u', { deliver = 'agent' })")
      ask(c, "conn:publish('t', 'fault'), conn:publish('u', 'x')")
      a:expect_closed "error"
      b:expect_closed "agent"
      assert.equal("message", app:faults()[1].callback)
      assert.equal(0, check_accounts())
    end)

    it("take their turns with messages to names", function()
      open(1, { message = heard })
      local a, b = connect(2)
      ask(a, "core.register 'a', conn:join('t', { deliver = 'agent' })")
      ask(b, "core.send('a', '1'), conn:publish('t', '2'), core.send('a', '3')")
      local frames = a:frames()
      assert.equal(3, #frames)
    end)

    it("may leave, and join again, while it is called", function()
      open(2, { message = function(self, topic, data)
        self.conn:leave(topic)
        self.conn:send(data)
        if data == "again" then self.conn:join(topic, { deliver = "agent" }) end
      end })
      local a, b = connect(2)
      ask(a, "conn:join('t', { deliver = 'agent' })")
      ask(b, "conn:publish('t', 'again'), conn:publish('t', 'x')")
      assert.equal("again", got(a))
      ask(b, "conn:publish('t', 'y'), conn:publish('t', 'z')")
      assert.equal("y", got(a))
      assert.same({ 2, 0 }, { app:counters().hub_left, check_accounts() })
    end)
  end)

  -- ---- workers ----

  it("keep a member that has nothing more to say as long as something comes, however many others there are", function()
    open(1, { eof = function() return true end }, { timeout = { idle = "10s" } })
    local members, from = connect(40), app:connect()
    for _, client in ipairs(members) do ask(client, "conn:join 't'") end
    for _, client in ipairs(members) do client:half_close() end
    for _ = 1, 5 do
      app:advance "6s"
      ask(from, "conn:publish('t', 'x')")
    end
    for _, client in ipairs(members) do assert.same({ nil, 5 }, { client:closed(), #client:frames() }) end
    app:advance "11s"
    for _, client in ipairs(members) do assert.equal("idle_timeout", client:closed()) end
  end)

  it("are compressed once for all, and what a WebSocket is sent then refers to nothing before them", function()
    local text = ("a text that is long enough to be compressed "):rep(3)
    local Member = {}
    function Member:opened() self.conn:join "t" end
    function Member:proceed(what)
      if what == "publish" then self.conn:publish("t", text) end
      return what ~= "publish" and text .. what or nil
    end
    app = perilune.app { listen = "ws://127.0.0.1:9000/", agent = Member }
    local sockets = {}
    for i = 1, 40 do sockets[i] = app:connect():websocket("/", { compress = true }) end
    for _, ws in ipairs(sockets) do ws:send "1":expect(text .. "1"):send "2":expect(text .. "2") end
    sockets[1]:send "publish"
    for _, ws in ipairs(sockets) do ws:expect(text):send "3":expect(text .. "3"):send "4":expect(text .. "4") end
  end)

  it("find no room in the inbox of another worker that is full, and say so", function()
    open(2, nil, { hub = { inbox = 10 } })
    local a = app:connect { worker = 0 }
    local b = app:connect { worker = 1 }
    ask(a, "conn:join 't'")
    ask(b, "conn:join 't'")
    local answer = ask(b, (([[(function()
      local sent, code = 0
      for i = 1, 12 do
        local ok, _, why = conn:publish('t', tostring(i))
        sent, code = sent + (ok and 1 or 0), why or code
      end
      return sent .. code
    end)()]]):gsub("%s+", " ")))
    assert.equal("10EBUSY", answer)
    assert.same({ 10, 12 }, { #a:frames(), #b:frames() })
    assert.equal(2, app:counters().hub_missed)
  end)

  it("pass by a worker that is stuck", function()
    open(3, nil, { hub = { inbox = 2 } })
    local a, b, c = app:connect { worker = 0 }, app:connect { worker = 1 }, app:connect { worker = 2 }
    for _, client in ipairs { a, b, c } do ask(client, "conn:join 't'") end
    local from = app:connect { worker = 0 }
    app:stall(1)
    for i = 1, 5 do
      local wanted = i <= 2 and "true" or "nil too many messages wait on some worker"
      has(wanted, ask(from, ("conn:publish('t', '%d')"):format(i)))
    end
    assert.same({ "1 2 3 4 5", "1 2 3 4 5" }, { got(a), got(c) })
    local stats = ask(from, "core.hub.stats().inbox[2], core.hub.stats().missed")
    assert.equal("2 3", stats)
    app:resume(1)
    assert.equal("1 2", got(b))
    assert.equal(0, check_accounts())
  end)

  it("of an HTTP agent end where its connection becomes a WebSocket", function()
    local http = require "perilune.http"
    local Socket = { proceed = function() end }
    local Site = {}
    function Site:proceed(request)
      if request.path == "/socket" then return http.websocket(Socket) end
      return tostring(self.conn:join("t", { deliver = "agent" })) .. core.hub.count "t"
    end
    function Site:message(_, text) self.got = text end
    app = perilune.app { listen = "http://127.0.0.1:9000", agent = Site }
    local client = app:connect()
    assert.equal("true1", client:get("/").body)
    client:websocket "/socket"
    assert.equal("true1", app:connect():get("/").body)
  end)

  it("go round among many members in portions, in their order", function()
    open(2)
    local list = {}
    for i = 1, 3000 do
      list[i] = app:connect { worker = 1 }
      list[i]:send "conn:join 't'"
    end
    local from = app:connect { worker = 0 }
    assert.equal("3000", ask(from, "core.hub.count 't'"))
    ask(from, "conn:publish('t', 'one'), conn:publish('t', 'two')")
    for i = 1, 3000, 7 do assert.same({ "= true", "one", "two" }, list[i]:frames()) end
    assert.equal(6000, app:counters().hub_delivered)
  end)

  -- ---- generations ----

  describe("over a reload", function()
    local function methods(version, more)
      local all = { message = function(self, topic, data) self.conn:send(show(version, topic, data)) end,
        snapshot = function() end, upgrade = function() end }
      for key, value in pairs(more or {}) do all[key] = value or nil end
      return all
    end

    local function script(version, policy, more)
      return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = agent(methods(version, more)), reload = policy }
    end

    for _, policy in ipairs { "pin", "migrate" } do
      it("keep their members: " .. policy, function()
        app = perilune.app(script(1, policy), nil, { workers = 2 })
        local a, b = connect(2)
        ask(a, "conn:join 't', conn:join('u', { deliver = 'agent' })")
        app:reload(script(2, policy))
        assert.equal("1", ask(b, "core.hub.count 't'"))
        ask(b, "conn:publish('t', 'x'), conn:publish('u', 'y')")
        assert.equal(("x %d u y"):format(policy == "pin" and 1 or 2), got(a))
        ask(app:connect(), "conn:publish('t', 'z')")
        assert.equal("z", got(a))
      end)
    end

    it("leave what an agent without message cannot take", function()
      app = perilune.app(script(1, "migrate"), nil, { workers = 2 })
      local a, b = connect(2)
      ask(a, "conn:join 't', conn:join('u', { deliver = 'agent' })")
      app:reload(script(2, "migrate", { message = false }))
      assert.equal("1 0", ask(b, "core.hub.count 't', core.hub.count 'u'"))
      assert.equal("u", app:log "a topic is left: the agent has no method message any more"[1].topic)
    end)

    it("do not keep what a failed upgrade has joined", function()
      app = perilune.app(script(1, "migrate"), nil, { workers = 1 })
      local a = app:connect()
      ask(a, "conn:join 't'")
      app:reload(script(2, "migrate", { upgrade = function(self)
        self.conn:join "v"
        error "not me"
      end }))
      assert.equal("1 0", ask(a, "core.hub.count 't', core.hub.count 'v'"))
      app:reload(script(3, "migrate", { upgrade = function(self) self.conn:join "v" end }))
      assert.equal("1 1", ask(a, "core.hub.count 't', core.hub.count 'v'"))
    end)
  end)

  -- ---- accounts ----

  it("are counted, all of them, by topic, and by member", function()
    open(2, nil, { limits = { send_buffer = "2k" }, timeout = { idle = false, write = false } })
    local a, b, c = connect(3)
    ask(a, "conn:join('room.1', { policy = 'drop_newest', messages = 1 })")
    ask(b, "conn:join 'room.1', conn:join 'room.*'")
    a:stall()
    ask(c, "conn:publish('room.1', ('x'):rep(2000))")
    for _ = 1, 3 do ask(c, "conn:publish('room.1', 'y')") end
    ask(c, "conn:publish('nobody', 'y')")
    local function stats(code)
      return core.json.decode(ask(c, ("core.json.encode(%s)"):format(code)))
    end
    local all = stats "core.hub.stats()"
    assert.same({ members = 3, topics = 2, published = 5, missed = 0, addressed = 12, delivered = 9, waiting = 1,
      dropped = { oldest = 0, newest = 2, replaced = 0, unfit = 0 }, evicted = { slow = 0, left = 0 },
      inbox = { 0, 0 } }, all)
    local room = stats "core.hub.stats 'room.1'"
    assert.same({ 2, 8, 5, 1, 2 },
      { room.members, room.addressed, room.delivered, room.waiting, room.dropped.newest })
    local pattern = stats "core.hub.stats 'room.*'"
    assert.same({ 1, 4, 4 }, { pattern.members, pattern.addressed, pattern.delivered })
    a:unstall()
    a:frames()
    assert.equal("room.1 2 2 0", ask(a, (([[(function()
      local name, one = next(conn:topics())
      return ("%s %d %d %d"):format(name, one.delivered, one.dropped, one.waiting) end)()]]):gsub("%s+", " "))))
    assert.equal(0, check_accounts())
  end)
end)
