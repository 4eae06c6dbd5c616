--- What becomes of members of topics where something else ends, fails or waits on their connections: hub_spec.lua has
--- what topics do.
local core = require "perilune"
local http = require "perilune.http"
local memory = require "spec.support.memory"
local perilune = require "perilune.test"
local shell = require "spec.support.shell"

local ask = shell.ask

describe("members of topics", function()
  local app

  after_each(function()
    if app then app:close() end
    app = nil
    memory.finish()
  end)

  describe("whose response of http.events has an event that is not whole", function()
    local EVENT = ("A"):rep(200000)

    -- The producer's client takes nothing; who publishes.
    local function open(produce)
      local Site = { proceed = function() return http.events(produce, { heartbeat = false }) end }
      app = perilune.app({
        listen = { { "tcp://127.0.0.1:9000", frame = "line", agent = shell.agent() },
          { "http://127.0.0.1:9001", name = "site", agent = Site } },
        limits = { send_buffer = "2k" }, timeout = { idle = false, write = false },
      }, nil, { workers = 1 })
      local from, client = app:connect(), app:connect { listener = "site" }
      client:stall(3000)
      client:ask "/"
      return from, client
    end

    -- What is published while the writer waits has to wait as well; then it is cancelled.
    local function publish_and_cancel(from)
      app:advance "1s"
      ask(from, "core.hub.publish('news', 'one')")
      assert.equal("1", ask(from, "core.hub.stats('news').waiting"))
      app:advance "2s"
    end

    it("get a message behind it, if they have joined meanwhile", function()
      local from, client = open(function(events)
        core.spawn(function() events:send(EVENT) end)
        core.sleep(1)
        events:join "news"
        events:wait()
      end)
      app:advance "2s"
      ask(from, "core.hub.publish('news', 'one')")
      client:unstall()
      for _, text in ipairs { EVENT, "one" } do assert.is_true(text == client:event().data) end
    end)

    it("end with it when its writer is cancelled: nothing can follow half an event", function()
      local from, client = open(function(events)
        events:join "news"
        local task = core.spawn(function() events:send(EVENT) end)
        core.sleep(2)
        task:cancel()
        events:wait()
      end)
      publish_and_cancel(from)
      assert.equal("0", ask(from, "core.hub.count 'news'"))
      assert.equal(1, app:counters().hub_left)
      client:unstall()
      client:head()
      assert.is_false(pcall(function() repeat until not client:piece() end)) -- it was cut, and did not end
    end)

    it("get what waits when its writer is cancelled before any of it has gone", function()
      local from, client = open(function(events)
        events:join "news"
        events:send(("B"):rep(3060))
        events:send(("D"):rep(900)) -- as much is pending now as may
        local task = core.spawn(function() events:send "C" end)
        core.sleep(2)
        task:cancel()
        events:wait()
      end)
      publish_and_cancel(from)
      client:unstall()
      for _, text in ipairs { ("B"):rep(3060), ("D"):rep(900), "one" } do assert.equal(text, client:event().data) end
      assert.equal("1", ask(from, "core.hub.count 'news'"))
    end)
  end)

  it("that are HTTP agents stay when a response in pieces is over, if what is published is for the agent", function()
    local Site, heard = {}, {}
    function Site:message(topic, text) heard[#heard + 1] = topic .. " " .. text end
    function Site:proceed(request)
      if request.path == "/join" then return tostring(self.conn:join("t", { deliver = "agent" })) end
      if request.path == "/stream" then return http.stream(function(out) out:write "x" end) end
      if request.path == "/events" then
        return http.events(function(events)
          events:join "u"
          events:send "x"
        end)
      end
      core.hub.publish("t", request.path)
      return core.hub.count "t" .. " " .. core.hub.count "u"
    end
    app = perilune.app({ listen = "http://127.0.0.1:9000", agent = Site }, nil, { workers = 1 })
    local client = app:connect()
    assert.equal("true", client:get("/join").body)
    assert.equal("x", client:get("/stream").body)
    assert.equal("data: x\n\n", (client:get("/events").body:gsub("^:\n\n", "")))
    assert.equal("1 0", client:get("/count").body)
    app:advance "1s"
    assert.equal("1 0", client:get("/again").body)
    assert.equal(2, app:counters().hub_delivered)
  end)

  describe("whose upgrade() leaves topics and joins them with other rules", function()
    local function script(upgrade)
      local Shell = shell.agent { snapshot = function() return 1 end, upgrade = upgrade or function() end }
      function Shell:message(_, text) self.conn:send("agent: " .. text) end
      return { listen = "tcp://127.0.0.1:9000", frame = "line", reload = "migrate", agent = Shell }
    end

    local function upgrade_by(fails)
      return function(self)
        assert(self.conn:leave "left" and not self.conn:leave "left")
        assert(self.conn:leave "back" and self.conn:join "back")
        assert(self.conn:join("other", { deliver = "agent" }) and self.conn:join "new")
        assert(self.conn:join "brief" and self.conn:leave "brief")
        if fails then error "not me" end
      end
    end

    local COUNTS = "(function() local t = {} for i, n in ipairs { 'left', 'back', 'other', 'new', 'brief' } do "
      .. "t[i] = core.hub.count(n) end return table.concat(t, ' ') end)()"

    local function reloaded(fails)
      app = perilune.app(script(), nil, { workers = 1 })
      local client = app:connect()
      ask(client, "conn:join 'left', conn:join 'back', conn:join 'other'")
      app:reload(script(upgrade_by(fails)))
      assert.equal(fails and 1 or 0, app:counters().not_migrated)
      return client, ask(client, COUNTS)
    end

    it("are what they were, if it fails", function()
      local client, counts = reloaded(true)
      assert.equal("1 1 1 0 0", counts)
      client:send "conn:publish('other', 'x')"
      client:expect("true"):expect "x"
      app:reload(script(upgrade_by(true))) -- once more: nothing is left of the first time
      assert.equal("1 1 1 0 0", ask(client, COUNTS))
      assert.equal("true", ask(client, "conn:leave 'left'"))
      assert.equal("0 1 1 0 0", ask(client, COUNTS))
    end)

    it("are what it made them, if it succeeds", function()
      local client, counts = reloaded(false)
      assert.equal("0 1 1 1 0", counts)
      client:send "conn:publish('other', 'x')"
      client:expect("true"):expect "agent: x"
    end)

    it("may all be left", function()
      app = perilune.app(script(), nil, { workers = 1 })
      local client = app:connect()
      ask(client, "conn:join 'left'")
      app:reload(script(function(self) self.conn:leave "left" end))
      assert.equal("0 0 0 0 0", ask(client, COUNTS))
      assert.equal("true", ask(client, "conn:join 'left'"))
      assert.equal("1 0 0 0 0", ask(client, COUNTS))
    end)
  end)

  it("have a message wait that does not fit behind what is pending, however little that is", function()
    app = perilune.app({ listen = "tcp://127.0.0.1:9000", frame = "line", agent = shell.agent(),
      limits = { send_buffer = "4k" }, timeout = { idle = false, write = false } }, nil, { workers = 1 })
    local slow, from = app:connect(), app:connect()
    ask(slow, "conn:join 't'")
    slow:stall()
    local function waiting() return tonumber(ask(from, "core.hub.stats('t').waiting")) end
    ask(from, "conn:publish('t', ('a'):rep(1000))")
    ask(from, "conn:publish('t', ('b'):rep(1000))")
    assert.equal(0, waiting()) -- half of 4k
    ask(from, "conn:publish('t', ('c'):rep(1000))")
    assert.equal(1, waiting())
    slow:unstall()
    assert.equal(3, #slow:frames())
    slow:stall()
    ask(from, "conn:publish('t', 'small')")
    ask(from, "conn:publish('t', ('d'):rep(3000))")
    ask(from, "conn:publish('t', 'behind')")
    assert.equal(2, waiting())
    slow:unstall()
    assert.same({ "small", ("d"):rep(3000), "behind" }, slow:frames())
    from:send "conn:publish('t', ('e'):rep(1200)), conn:publish('t', ('f'):rep(1200))"
    assert.same({ ("e"):rep(1200), ("f"):rep(1200) }, slow:frames())
  end)

  it("that have shut down their side do not count any more, and cannot join to be sent something", function()
    local Shell = shell.agent { eof = function() return true end }
    local told = {}
    function Shell:message(_, text) told[#told + 1] = text end
    app = perilune.app({ listen = "tcp://127.0.0.1:9000", frame = "line", agent = Shell }, nil, { workers = 1 })
    local client, from = app:connect(), app:connect()
    ask(client, "conn:join 't', conn:join('u', { deliver = 'agent' })")
    client:send "conn:shutdown()"
    assert.equal("0 1", ask(from, "core.hub.count 't' .. ' ' .. core.hub.count 'u'"))
    client:send "conn:join 't'"
    client:send "conn:join('v', { deliver = 'agent' })"
    assert.equal("0 1", ask(from, "core.hub.count 't' .. ' ' .. core.hub.count 'v'"))
    assert.equal("true", ask(from, "conn:publish('u', 'x')"))
    assert.equal(1, app:counters().hub_delivered)
  end)

  it("keep their memberships when what has failed is an upgrade() that shut down their side", function()
    local function script(upgrade)
      return { listen = "tcp://127.0.0.1:9000", frame = "line", reload = "migrate",
        agent = shell.agent { snapshot = function() return 1 end, upgrade = upgrade } }
    end
    app = perilune.app(script(function() end), nil, { workers = 1 })
    local client = app:connect()
    ask(client, "conn:join 't'")
    app:reload(script(function(self)
      self.conn:shutdown()
      error "not me"
    end))
    assert.equal("1", ask(client, "core.hub.count 't'"))
  end)

  it("whose codec fails are told of in the log once a second", function()
    local codec = { decode = function(bytes, at) if at <= #bytes then return bytes:sub(at), #bytes + 1 end end,
      encode = function() error "not this" end }
    local Member = { proceed = function() end }
    function Member:opened() self.conn:join "t" end
    app = perilune.app({ listen = { { "tcp://127.0.0.1:9000", frame = "line", agent = shell.agent() },
      { "tcp://127.0.0.1:9001", name = "m", frame = codec, agent = Member } } }, nil, { workers = 1 })
    local from = app:connect()
    app:connect { listener = "m", frame = "raw" }
    app:advance "1s"
    for _ = 1, 5 do ask(from, "conn:publish('t', 'x')") end
    app:advance "1s"
    ask(from, "conn:publish('t', 'x')")
    local entries = app:log "a message to a topic was not sent: the codec's encode failed"
    assert.same({ 2, 0, 4 }, { #entries, entries[1].more, entries[2].more })
    assert.equal(6, app:counters().hub_unfit)
  end)
end)
