--- Topics among the workers and the generations of a real server, with clients that we did not write.
local command = require "spec.support.command"
local has = require "spec.support.has"
local operator = require "spec.support.operator"
local reload = require "spec.support.reload"
local server = require "spec.support.server"
local wait = require "spec.support.wait"

local WORKERS, MEMBERS, PUBLISHERS = 3, 6, 3

-- "join TOPIC", "leave TOPIC", "count TOPIC"; "flood N TOPIC": a task publishes so many messages, each again until
-- there is room for it everywhere: so it may come twice, and never too late. At /events and as a WebSocket one is a
-- member.
local function script(version, settings)
  return ([[
    local http = require "perilune.http"
    local perilune = require "perilune"
    local VERSION = %q
    local Agent = {}

    local ROOMY = { messages = 1000000, bytes = "512m" }

    function Agent:flood(n, topic)
      for i = 1, n do
        local text = ("%%d %%d"):format(self.conn.id, i)
        while not self.conn:publish(topic, text) do perilune.sleep "1ms" end
        if i %% 50 == 0 then perilune.sleep(0) end
      end
      self.conn:send "flooded"
    end

    function Agent:proceed(line)
      local what, rest = line:match "^(%%a+) ?(.*)$"
      if what == "version" then return VERSION end
      if what == "join" then return tostring(self.conn:join(rest, ROOMY)) end
      if what == "slow" then return tostring(self.conn:join(rest, { messages = 16 })) end
      if what == "leave" then return tostring(self.conn:leave(rest)) end
      if what == "count" then return tostring(perilune.hub.count(rest)) end
      if what == "say" then return tostring(self.conn:publish(rest:match "^(%%S+) (.*)$")) end
      local n, topic = rest:match "^(%%d+) (%%S+)$"
      perilune.spawn(self.flood, self, tonumber(n), topic)
    end

    function Agent:snapshot() end
    function Agent:upgrade() end

    local Socket = {}
    function Socket:opened() self.conn:join "news" return "welcome" end
    function Socket:proceed() end

    local site = http.router()
    site:websocket("/socket", Socket)
    site:get("/events", function()
      return http.events(function(events)
        events:join "news"
        events:send "welcome"
        events:wait()
      end)
    end)

    return { listen = { { "tcp://127.0.0.1:0", frame = "line", agent = Agent, name = "lines" },
        { "http://127.0.0.1:0", agent = site, name = "http" } },
      timeout = { idle = false }, limits = { proceed = "1m" }, hub = { inbox = 1000 }, %s }
  ]]):format(version, settings or "")
end

local ROOMS = [[
  local Agent = {}
  function Agent:proceed(line)
    if line == "join" then return self.conn:join "room" and "here" end
    self.conn:publish("room", line, { others = true })
  end
  return { listen = "tcp://127.0.0.1:0", frame = "line", agent = Agent }]]

local function ask(client, line) return client:send(line .. "\n"):recv_line(60) end

local function start(settings)
  return server.start { script = script("1", settings), workers = WORKERS, control = "control.sock" }
end

local function connect(app, n)
  local clients = {}
  for i = 1, n do clients[i] = app:connect() end
  return clients
end

local function counters(app) return operator.status(app).counters end

-- What comes of each publisher is in its order, and nothing is left out.
local function read_all(client, total, n)
  local last, got = {}, 0
  while got < total do
    local from, i = client:recv_line(60):match "^(%d+) (%d+)$"
    i = tonumber(i)
    assert(i <= (last[from] or 0) + 1, ("%d after %d"):format(i, last[from] or 0))
    if i == (last[from] or 0) + 1 then
      last[from] = i
      got = got + 1
    end
  end
  for _, i in pairs(last) do assert.equal(n, i) end
end

local function flood(publishers, n, topic)
  for _, client in ipairs(publishers) do client:send(("flood %d %s\n"):format(n, topic)) end
end

describe("topics of several workers", function()
  after_each(server.finish)

  it("bring all lines that one client says in one breath, with the settings as they are", function()
    local app = server.start { script = ROOMS, workers = 2 }
    local clients, n = connect(app, 4), 4000
    for _, client in ipairs(clients) do assert.equal("here", ask(client, "join")) end
    local lines = {}
    for i = 1, n do lines[i] = i .. "\n" end
    clients[1]:send(table.concat(lines))
    for i = 2, 4 do
      for line = 1, n do assert.equal(tostring(line), clients[i]:recv_line(60)) end
    end
  end)

  it("bring all that is published to all members, in the order of each publisher", function()
    local app = start()
    local n = server.scaled(4000, 400)
    local members, publishers = connect(app, MEMBERS), connect(app, PUBLISHERS)
    for i, client in ipairs(members) do assert.equal("true", ask(client, "join " .. (i % 2 == 0 and "news" or "*"))) end
    assert.equal(tostring(MEMBERS), ask(publishers[1], "count news"))
    flood(publishers, n, "news")
    for _, client in ipairs(members) do read_all(client, PUBLISHERS * n, n) end
    for _, client in ipairs(publishers) do assert.equal("flooded", client:recv_line(60)) end
    assert.equal(0, counters(app).hub_evicted)
    app:stop()
  end)

  it("account for everything when members come and go meanwhile", function()
    local app = start()
    local members, publishers = connect(app, MEMBERS), connect(app, PUBLISHERS)
    for _, client in ipairs(members) do ask(client, "join room.1") end
    flood(publishers, 1000000, "room.1")
    wait.until_true("many messages", function() return counters(app).hub_delivered > 1000 end)
    for i = 1, MEMBERS, 2 do members[i]:close() end
    for _, client in ipairs(connect(app, MEMBERS)) do client:send "join room.*\nleave room.*\njoin room.>\n" end
    wait.until_true("others to join", function() return counters(app).hub_joined >= 3 * MEMBERS end)
    app:stop() -- server.lua adds up
  end)

  it("do not wait for a member that does not read", function()
    local app = start 'log = { level = "info" }'
    local n = server.scaled(3000, 600)
    local slow, quick, publisher = unpack(connect(app, 3))
    assert.equal("true", ask(slow, "slow news"))
    assert.equal("true", ask(quick, "join news"))
    -- What the system takes for a client that does not read is a few megabytes.
    local text, sent = ("x"):rep(60000), 0
    while counters(app).hub_evicted == 0 do
      for _ = 1, 10 do
        assert.equal("true", ask(publisher, "say news " .. text))
        assert.equal(text, quick:recv_line(60))
        sent = sent + 1
      end
      assert.is_true(sent < 5000)
    end
    assert.equal("1", ask(publisher, "count news"))
    flood({ publisher }, n, "news")
    read_all(quick, n, n)
    wait.until_true("the slow one to be ended", function()
      return #app:find_log "slow consumer: a member of a topic was disconnected" == 1
    end)
    slow:close()
    app:stop()
  end)

  it("stay over reloads, while messages come", function()
    local app = start 'reload = "migrate"'
    local n = server.scaled(4000, 400)
    local members, publishers = connect(app, MEMBERS), connect(app, PUBLISHERS)
    for _, client in ipairs(members) do ask(client, "join news") end
    flood(publishers, n, "news")
    for version = 2, 3 do reload.reload_to(app, script(tostring(version), 'reload = "migrate"')) end
    for _, client in ipairs(members) do read_all(client, PUBLISHERS * n, n) end
    wait.until_true("all members to have gone there", function() return ask(members[1], "version") == "3" end, 60)
    assert.equal(tostring(MEMBERS), ask(members[1], "count news"))
    assert.same({}, app:find_log "handler failed")
  end)

  it("reach WebSockets and event streams of others' clients", function()
    command.needs_python("websockets", "python3-websockets")
    local app = start()
    local publisher = app:connect()
    command.write(app.folder .. "/client.py", [[
import asyncio, socket, sys, urllib.request, websockets
lines, http = sys.argv[1:]
async def main():
    async with websockets.connect("ws://127.0.0.1:%s/socket" % http) as ws:
        assert await ws.recv() == "welcome"
        stream = urllib.request.urlopen("http://127.0.0.1:%s/events" % http, timeout=300)
        assert stream.readline() == b"data: welcome\n" and stream.readline() == b"\n"
        with socket.create_connection(("127.0.0.1", int(lines))) as publisher:
            publisher.sendall(b"count news\nsay news hello\n")
            assert publisher.makefile().readline() == "2\n"
            assert await ws.recv() == "hello"
            assert stream.readline() == b"data: hello\n" and stream.readline() == b"\n"
        print("got")
asyncio.run(main())
]])
    local call = ("timeout 300 %s %s/client.py %d %d 2>&1"):format(command.PYTHON, app.folder, app.listeners[1].port,
      app.listeners[2].port)
    assert.equal("got\n", command.shell(call))
    wait.until_true("both to have left", function() return ask(publisher, "count news") == "0" end, 60)
  end)

  it("begin anew in an upgrade", function()
    local app = start()
    local member = app:connect()
    ask(member, "join news")
    local successor = app:upgrade()
    local other = successor:connect()
    assert.equal("0", ask(other, "count news"))
    assert.equal("1", ask(member, "count news"))
    member:close()
    app:wait_end()
    other:close()
    assert.equal(0, successor:stop().code)
  end)

  it("are told of by status", function()
    local app = start()
    local member, publisher = unpack(connect(app, 2))
    ask(member, "join news")
    ask(publisher, "say news hello")
    assert.equal("hello", member:recv_line(60))
    has("hub          1 topics, 1 members, 1 messages published, 1 delivered, 0 dropped, 0 waiting",
      operator.run(app, "status").out)
    assert.equal(1, operator.status(app).topics)
  end)
end)
