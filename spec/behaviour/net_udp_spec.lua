--- perilune.connect "udp://…" in memory: datagrams between apps, and what a network does to them.
local core = require "perilune"
local memory = require "memory"
local perilune = require "perilune.test"

local has = require "has"

local Echo = {}
function Echo:proceed(datagram)
  if datagram == "who" then return self.conn.peer end
  if datagram == "quit" then return "bye", "close" end
  if datagram == "count" then
    self.n = (self.n or 0) + 1
    return tostring(self.n)
  end
  local n = tonumber(datagram)
  for i = 1, n or 0 do self.conn:send("no " .. i) end
  return not n and "<" .. datagram .. ">"
end

-- Sends each line, and answers with the reply to it.
local Asker = {}
function Asker:proceed(line)
  self.db = self.db or assert(core.connect("udp://db:1", { timeout = { read = "1s" } }))
  local ok, message, code = self.db:send(line)
  if ok == nil then return ("not sent: %s %s"):format(message, code) end
  local reply, why, why_code = self.db:read()
  return reply or ("no reply: %s %s"):format(why, why_code)
end

describe("udp:// between apps in memory", function()
  local net

  before_each(function() net = perilune.net { seed = 7 } end)
  after_each(function() net:close() end)

  local function serve(more)
    local script = { agent = Echo, amplification = false }
    for key, value in pairs(more or {}) do script[key] = value end
    return net:serve("udp://db:1", script, { name = "db" })
  end

  local function app_of(proceed)
    return net:app({ listen = "tcp://127.0.0.1:9000", frame = "line",
      agent = type(proceed) == "function" and { proceed = proceed } or proceed or Asker }, nil, { name = "web" })
  end

  -- A backend, and an app that asks it.
  local function pair(more)
    local db = serve(more)
    return app_of(), db
  end

  -- An app that sends so many numbered datagrams at once, of so many bytes, and a backend that takes them; how many
  -- came.
  local function flood()
    local db = serve { agent = { proceed = function() end } }
    local app = app_of(function(self, line)
      local count, bytes = line:match "(%d+) (%d+)"
      self.db = self.db or assert(core.connect "udp://db:1")
      local list = {}
      for i = 1, tonumber(count) do list[i] = i .. ("."):rep(bytes - #tostring(i)) end
      self.db:send(list)
      return "sent"
    end)
    return app, db, function() return db:counters().frames_in end
  end

  it("sends each frame as a datagram, and reads each datagram as a frame", function()
    serve()
    local large = ("abcdefghij"):rep(6550)
    local app = app_of(function(_, line)
      local db = assert(core.connect "udp://db:1")
      if line == "list" then
        db:send { "a", "", "c" }
        return db:read() .. db:read() .. db:read()
      elseif line == "names" then
        db:send "who"
        return ("%s %s"):format(db.listener, db.local_addr == db:read())
      end
      local text = ("abcdefghij"):rep(tonumber(line))
      local ok, message, code = db:send(text)
      return ok == nil and ("%s %s"):format(message, code) or tostring(db:read() == "<" .. text .. ">")
    end)
    assert.is_true(#large > 65000)
    app:connect():send("list"):expect("<a><><c>"):send("names"):expect("udp://db:1 true"):send("6550"):expect("true")
      :send("6551"):expect "a datagram has at most 65507 bytes, this one has 65510 EMSGSIZE"
  end)

  it("is shown by the history, byte for byte", function()
    local app = pair()
    app:connect():send("a\1b"):expect "<a\1b>"
    assert.equal([[
       0ms  db  is up
       0ms  web  is up
       0ms  #1  a client → web  connects
       0ms  #1  a client → web  "a\x01b\n"
       0ms  #2  web → db  "a\x01b"
       0ms  #2  web ← db  "<a\x01b>"
       0ms  #1  a client ← web  "<a\x01b>\n"]], net:history())
  end)

  it("has no end that a peer would see: the flow ends by itself, and begins anew with the next datagram", function()
    local app, db = pair { timeout = { idle = "5s" } }
    local client = app:connect():send("count"):expect("1"):send("count"):expect "2"
    net:advance "6s"
    assert.equal(1, db:counters().closed)
    client:send("count"):expect("1"):send("quit"):expect("bye"):send("count"):expect("1"):close()
    assert.equal(0, app:counters().outgoing)
    assert.equal(2, db:counters().closed)
    net:advance "6s"
    assert.equal(3, db:counters().closed)
  end)

  it("delivers what was sent before the end", function()
    local db = serve()
    local app = app_of(function()
      local conn = assert(core.connect "udp://db:1")
      conn:send "last"
      conn:close()
      return "done"
    end)
    net:link(app, db, { latency = "5ms" })
    app:connect():send("x"):expect "done"
    assert.equal(0, db:counters().frames_in)
    net:advance "5ms"
    assert.equal(1, db:counters().frames_in)
    net:advance "5ms"
    has('10ms  #2  web ← db  "<last>"  lost: nobody is there', net:history())
  end)

  it("comes to agents of connections out, too", function()
    serve()
    local app = app_of(function(self, line)
      local client = self.conn
      self.db = self.db or assert(core.connect("udp://db:1", { agent = {
        proceed = function(_, datagram)
          client:send(datagram)
          if datagram == "<a>" then return "from proceed" end
        end,
      } }))
      self.db:send(line)
    end)
    app:connect():send("a"):expect("<a>", "<from proceed>")
  end)

  it("would not amplify", function()
    local app, db = pair { amplification = 3 }
    app:connect():send "100"
    net:advance "1s"
    assert.is_true(db:counters().unsent_datagrams > 90)
  end)

  it("reaches an app that is alone, by itself", function()
    local app = perilune.app { listen = { { "udp://127.0.0.1:1", agent = Echo },
      { "tcp://127.0.0.1:9000", frame = "line", agent = { proceed = function(_, line)
        local conn = assert(core.connect "udp://127.0.0.1:1")
        conn:send(line)
        return conn:read()
      end } } } }
    app:connect({ listener = 2 }):send("a"):expect "<a>"
    app:close()
  end)

  describe("where nobody listens", function()
    it("is refused: a read is told, or the next call", function()
      local app = app_of(function(self, line)
        self.db = self.db or assert(core.connect "udp://db:1")
        self.db:send(line)
        if line == "later" then
          core.sleep "1ms"
          local ok, message, code = self.db:send "y"
          return ("%s %s %s"):format(ok, message, code)
        end
        local reply, why, code = self.db:read()
        return reply or why .. " " .. code
      end)
      local client = app:connect():send("a"):expect "connection refused ECONNREFUSED"
      client:send("later")
      net:advance "1ms"
      client:expect("nil connection refused ECONNREFUSED"):send("b"):expect "connection refused ECONNREFUSED"
      assert.equal(1, app:counters().outgoing)
      has("#2  web ← db  refuses db:1: nobody in this test serves it", net:history())
      serve()
      client:send("c"):expect "<c>"
    end)

    it("is heard of after the way there and back", function()
      local app, db = pair()
      net:link(app, db, { latency = "10ms" })
      net:kill(db)
      local client = app:connect():send("a")
      net:advance "19ms"
      client:expect_nothing()
      net:advance "1ms"
      client:expect "no reply: connection refused ECONNREFUSED"
    end)

    it("is not told where a machine is gone", function()
      local app, db = pair()
      net:kill(db, { silent = true })
      local client = app:connect():send("a")
      net:advance "1s"
      client:expect "no reply: timeout ETIMEDOUT"
      has('#1  web → db  "a"  lost: nobody is there', (net:history():gsub("#2", "#1")))
    end)
  end)

  it("goes on when its peer comes back, from the same port", function()
    local app, db = pair()
    local client = app:connect():send("who")
    local who = client:receive()
    client:send("count"):expect "1"
    net:kill(db)
    client:send("count"):expect "no reply: connection refused ECONNREFUSED"
    net:restart(db)
    client:send("count"):expect("1"):send("who"):expect(who)
    assert.equal(1, db:counters().accepted)
  end)

  it("says nothing of a killed app's any more, but for what was under way", function()
    local db = serve()
    local app = app_of { proceed = Asker.proceed, closed = function(self) self.db:send "goodbye" end }
    net:link(app, db, { latency = "5ms" })
    app:connect():send "a"
    net:kill(app)
    net:advance "1s"
    assert.equal(1, db:counters().frames_in)
  end)

  it("goes on through reloads at either end, and is refused by an app that stops", function()
    local function version(text)
      return { reload = "migrate", amplification = false, agent = {
        proceed = function(_, datagram) return text .. datagram end,
        snapshot = function() end, upgrade = function() end } }
    end
    local db = serve(version "1")
    local app = app_of()
    local client = app:connect():send("a"):expect "1a"
    db:reload(version "2")
    client:send("b"):expect "2b"
    assert.equal(1, db:memory().generations)
    app:reload()
    client:send("c"):expect "2c"
    db:begin_drain()
    client:send("d"):expect "no reply: connection refused ECONNREFUSED"
  end)

  it("is not reset", function()
    local app, db = pair()
    local client = app:connect():send("a"):expect "<a>"
    assert.equal(0, net:reset(app, db))
    client:send("b"):expect "<b>"
  end)

  describe("a link", function()
    it("loses a share of them", function()
      local app, db, came = flood()
      net:link(app, db, { loss = 0.3 })
      app:connect():send("500 3"):expect "sent"
      assert.is_true(came() > 300 and came() < 400, came())
      net:link(app, db, { loss = 1 })
      local before = came()
      app:connect():send("10 3"):expect "sent"
      assert.equal(before, came())
      local _, count = net:history():gsub("lost", "")
      assert.equal(510 - before, count)
    end)

    it("loses refusals as well", function()
      local app, db = pair()
      net:link(db, app, { loss = 1, one_way = true })
      net:kill(db)
      local client = app:connect():send("a")
      net:advance "1s"
      client:expect "no reply: timeout ETIMEDOUT"
      has("refuses db:1  lost", net:history())
    end)

    it("lets later ones overtake, where its latency is drawn", function()
      local order = {}
      local db = serve { agent = { proceed = function(_, datagram) core.log("info", datagram) end } }
      local app = app_of(function()
        local conn = assert(core.connect "udp://db:1")
        for i = 1, 50 do conn:send(tostring(i)) end
        return "sent"
      end)
      net:link(app, db, { latency = { "1ms", "50ms" } })
      app:connect():send "x"
      net:advance "1s"
      local overtaken = 0
      for i, entry in ipairs(db:log()) do
        order[i] = tonumber(entry.message)
        if i > 1 and order[i] < order[i - 1] then overtaken = overtaken + 1 end
      end
      assert.is_true(overtaken > 10, table.concat(order, " "))
      table.sort(order)
      assert.equal(50, #order)
      for i = 1, 50 do assert.equal(i, order[i]) end
    end)

    it("keeps their order where its latency is fixed", function()
      local db = serve()
      local app = app_of(function()
        local conn = assert(core.connect "udp://db:1")
        conn:send { "1", "2", "3" }
        return conn:read() .. conn:read() .. conn:read()
      end)
      net:link(app, db, { latency = "5ms" })
      local client = app:connect():send "x"
      net:advance "10ms"
      client:expect "no 1no 1no 2"
    end)

    it("passes on as many bytes a second as it says, and loses what does not fit before it", function()
      local app, db, came = flood()
      net:link(app, db, { rate = 1000 })
      app:connect():send("9 92"):expect "sent" -- a hundred bytes each, with their headers
      net:advance "800ms"
      assert.equal(8, came())
      net:advance "100ms"
      assert.equal(9, came())
      app:connect():send("100 992"):expect "sent"
      has("lost: the link is full", net:history())
      net:advance "200s"
      assert.equal(65, came() - 9)
    end)
  end)

  it("is lost in a partition, silently, and does not come later", function()
    local app, db = pair()
    local client = app:connect():send("a"):expect "<a>"
    net:partition(app, db)
    client:send "b"
    net:advance "1s"
    client:expect "no reply: timeout ETIMEDOUT"
    net:partition(app, db):heal(app, db)
    client:send("c"):expect "<c>"
    assert.equal(2, db:counters().frames_in)
    net:partition(db, app, { one_way = true })
    client:send "d"
    net:advance "1s"
    client:expect "no reply: timeout ETIMEDOUT"
    assert.equal(3, db:counters().frames_in)
    has('#2  web → db  "b"  lost: parted', net:history())
    has('#2  web ← db  "<d>"  lost: parted', net:history())
  end)

  describe("an app that is stalled", function()
    it("gets what has come when it goes on", function()
      local app, db = pair()
      local client = app:connect():send("a"):expect "<a>"
      net:stall(db)
      client:send("b"):expect_nothing()
      net:resume(db)
      client:expect "<b>"
      net:stall(app)
      client:send "c"
      net:resume(app)
      client:expect "<c>"
    end)

    it("loses what its system has no room for", function()
      local app, db, came = flood()
      net:stall(db)
      local client = app:connect():send("300 992"):expect "sent"
      net:resume(db)
      assert.equal(212, came())
      assert.equal(88, db:counters().lost_datagrams)
      client:send("1 992"):expect "sent"
      assert.equal(213, came())
    end)

    it("does not hear of refusals, nor connect, meanwhile", function()
      local app, db = pair()
      local client = app:connect()
      client:send "a"
      client:expect "<a>"
      net:link(app, db, { latency = "5ms" })
      net:kill(db)
      client:send "b"
      net:stall(app)
      net:advance "1s"
      net:resume(app)
      client:expect(perilune.pattern "^no reply: ")
    end)
  end)

  describe("who does not read", function()
    it("keeps as many as limits.inbox says", function()
      serve()
      local app = app_of(function(self, line)
        self.db = self.db or assert(core.connect("udp://db:1", { limits = { inbox = 10 } }))
        if line ~= "read" then
          self.db:send(line)
          return "asked"
        end
        local text = {}
        while true do
          local datagram = self.db:read(nil, "1ms")
          if not datagram then return table.concat(text, " ") end
          text[#text + 1] = datagram
        end
      end)
      local client = app:connect():send("100"):expect("asked"):send "read"
      net:advance "1s"
      local _, count = client:receive():gsub("no %d+", "")
      assert.is_true(count >= 10 and count <= 20, count)
      assert.equal(100 - count, app:counters().dropped_datagrams)
    end)

    it("or has a smaller `max` drops and counts", function()
      serve()
      local app = app_of(function()
        local db = assert(core.connect("udp://db:1", { frame = { "datagram", max = 4 } }))
        db:send { "abc", "x" }
        return db:read()
      end)
      app:connect():send("go"):expect "<x>"
      assert.equal(1, app:counters().truncated_datagrams)
    end)
  end)

  it("is dropped and counted where a limit refuses its flow", function()
    local app, db = pair { limits = { connections = 1 } }
    app:connect():send("a"):expect "<a>"
    local other = app:connect():send "b"
    net:advance "1s"
    other:expect "no reply: timeout ETIMEDOUT"
    assert.equal(1, db:counters().dropped_datagrams)
  end)

  it("leaves nothing behind that a test has to end", function()
    local other = perilune.net()
    local db = other:serve("udp://db:2", { agent = Echo })
    local app = other:app { listen = "tcp://127.0.0.1:9000", frame = "line", agent = { proceed = function()
      local conn = assert(core.connect "udp://db:2")
      conn:send "a"
      return conn:read()
    end } }
    app:connect():send("x"):expect("<a>"):close()
    assert.equal(1, db:counters().accepted - db:counters().closed)
    assert.is_nil(db:left())
    other:close()
  end)

  -- All kinds of faults, as they are drawn; returns the history.
  local function run(seed)
    local one = perilune.net { seed = seed }
    local db = one:serve("udp://db:1", { agent = Echo, amplification = false }, { name = "db" })
    local app = one:app({ listen = "tcp://127.0.0.1:9000", frame = "line", agent = Asker }, nil, { name = "web" })
    local clients, asked, told = {}, {}, {}
    local faults = {
      function() one:link(app, db, { latency = { "1ms", ("%dms"):format(one:random(900)) }, loss = 0.1 }) end,
      function() one:link(app, db, { rate = 20 * one:random(20), loss = one:random(5) / 10 }) end,
      function() one:partition(app, db, { one_way = one:random(2) == 1 }) end,
      function() one:heal() end,
      function() one:reset(0.5) end,
      function() if not db.is_closed then one:stall(db) end end,
      function() one:resume(db) end,
      function() if not db.is_closed then one:kill(db, { silent = one:random(2) == 1 }) end end,
      function() one:restart(db) end,
    }
    for i = 1, 4 do clients[i], asked[i], told[i] = app:connect(), 0, 0 end
    for step = 1, 40 do
      local i = one:random(4)
      clients[i]:send("n" .. step)
      asked[i] = asked[i] + 1
      if one:random(3) == 1 then faults[one:random(#faults)]() end
      one:advance(("%dms"):format(one:random(900)))
    end
    one:advance "60s"
    for i, client in ipairs(clients) do
      for _, frame in ipairs(client:frames()) do
        assert.is_truthy(frame:find "^<n%d+>$" or frame:find "^no reply: " or frame:find "^not sent: ", frame)
        told[i] = told[i] + 1
      end
      assert.equal(asked[i], told[i])
      client:close()
    end
    one:heal()
    if not db.is_closed then one:resume(db) end
    one:advance "60s"
    for _, each in ipairs(db.is_closed and { app } or { app, db }) do
      local counters = each:counters()
      assert.equal(counters.accepted, counters.closed)
      assert.equal(0, counters.outgoing)
      assert.equal(0, each:memory().buffers)
    end
    local history = one:history()
    one:close()
    return history
  end

  it("has the same history with the same seed, byte for byte, and with another another", function()
    local seen = {}
    for seed = 1, memory.scaled(40, 10) do
      local history = run(seed)
      assert.equal(history, run(seed))
      assert.is_nil(seen[history])
      seen[history] = true
    end
  end)
end)
