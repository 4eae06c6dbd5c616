--- Limits of connections, of output and of buffers.
local has = require "spec.support.has"
local http = require "perilune.http"
local memory = require "spec.support.memory"

local echo, lines, note, notes, count = memory.echo, memory.lines, memory.note, memory.notes, memory.count

local function refusals(app, limit)
  local found = {}
  for _, entry in ipairs(app:log "connection refused") do
    if entry.limit == limit then found[#found + 1] = entry end
  end
  return found
end

describe("limits.connections", function()
  after_each(memory.finish)

  it("closes the one too many, told why, logged and counted; the others are served", function()
    local app = lines(echo(), { limits = { connections = 2, reject = "busy\n" } })
    local first, second = app:connect():send("a"):expect("a"), app:connect():send("b"):expect("b")
    app:connect { from = "10.0.0.7:5060" }:expect("busy"):expect_nothing():expect_closed("limit")
    local entry = refusals(app, "connections")[1]
    assert.same({ "limit", "warn", "10.0.0.7:5060", "tcp://127.0.0.1:0" },
      { entry.reason, entry.level, entry.peer, entry.listener })
    first:send("still"):expect("still")
    second:send("here"):expect("here")
    local counters = app:counters()
    assert.same({ 3, 1 }, { counters.accepted, counters.closed })
  end)

  it("without limits.reject says nothing", function()
    local app = lines(echo(), { limits = { connections = 1 } })
    app:connect():send("x"):expect("x")
    app:connect():expect_nothing():expect_closed("limit")
  end)

  it("lets the next one in as soon as one has left", function()
    local Agent = { proceed = function() return "bye", "close" end }
    local app = lines(Agent, { limits = { connections = 1, per_ip = 1, reject = "busy\n" } })
    for _ = 1, 300 do app:connect():send("quit"):expect("bye"):expect_closed("agent") end
    assert.equal(0, count(app, "connection refused"))
  end)

  it("is each listener's own", function()
    local app = memory.open { frame = "line", agent = echo(), listen = {
      { "tcp://127.0.0.1:0", name = "a", limits = { connections = 1 } }, { "tcp://127.0.0.1:0", name = "b" },
    } }
    app:connect { listener = "a" }:send("x"):expect("x")
    app:connect { listener = "a" }:expect_closed("limit")
    for _ = 1, 5 do app:connect { listener = "b" }:send("x"):expect("x") end
  end)
end)

describe("limits.per_ip", function()
  after_each(memory.finish)

  it("counts each address by itself", function()
    local Agent = { proceed = function(_, line) return line, line == "quit" and "close" or nil end }
    local app = lines(Agent, { limits = { per_ip = 2, reject = "too many\n" } })
    local function from(host) return app:connect { from = host .. ":5060" } end
    local first = from("10.0.0.1")
    from("10.0.0.1"):send("b"):expect("b")
    from("10.0.0.1"):expect("too many"):expect_closed("limit")
    assert.equal(1, #refusals(app, "per_ip"))
    for _ = 1, 2 do from("10.0.0.2"):send("x"):expect("x") end
    from("10.0.0.2"):expect("too many")
    first:send("quit"):expect("quit"):expect_closed("agent")
    from("10.0.0.1"):send("in again"):expect("in again")
  end)

  it("counts the addresses of a /64 as one", function()
    local app = lines(echo(), { limits = { per_ip = 2 } })
    local results = {}
    for i, host in ipairs {
      "2001:db8::1", "2001:db8::ffff:2:3:4", "2001:db8::3", "2001:db8:0:1::1", "2001:db8:0:0:1::",
    } do results[i] = app:connect { from = "[" .. host .. "]:5060" }:closed() or "served" end
    assert.same({ "served", "served", "limit", "served", "limit" }, results)
  end)

  it("says nothing of Unix sockets", function()
    local app = memory.open { listen = "unix:///tmp/here.sock", frame = "line", limits = { per_ip = 1 },
      agent = echo() }
    for _ = 1, 5 do app:connect():send("x"):expect("x") end
  end)
end)

describe("limits.send_buffer", function()
  after_each(memory.finish)

  it("makes send answer false, stops reading, and calls writable() when the peer has caught up", function()
    local Agent = {}
    function Agent:writable() note("writable") end
    function Agent:proceed(line)
      if line ~= "fill" then return line end
      local sent = 0
      repeat
        local below = self.conn:send(("x"):rep(99999))
        sent = sent + 1
      until not below or sent > 1000
      note("full " .. sent)
    end
    local app = lines(Agent, { limits = { send_buffer = "1m" } })
    local client = memory.raw(app):stall():send("fill\nafter\n")
    assert.same({ "full 11" }, notes(app, 1)) -- the first that begins past the mark
    client:stall(500000)
    assert.equal(500000, #memory.bytes(client))
    assert.equal(0, count(app, "writable"))
    client:unstall()
    assert.same({ "full 11", "writable" }, notes(app, 1))
    local rest = memory.bytes(client)
    assert.equal(600000 + #"after\n", #rest)
    assert.equal("after\n", rest:sub(-6))
  end)

  it("bounds what a client can make the server hold that sends and does not read", function()
    local app = lines({ proceed = function(_, line) return line:rep(1000) end }, { limits = { send_buffer = "256k" } })
    local client = app:connect():stall()
    for _ = 1, 1000 do client:send("0123456789abcdef") end
    assert.is_true(app:counters().frames_in < 30, "it read on")
    client:reset():expect_closed("reset")
  end)

  it("with slow_consumer = \"close\" ends the connection at the mark", function()
    local Agent = {}
    function Agent:closed(reason) note("closed " .. reason) end
    function Agent:proceed(line)
      if line ~= "fill" then return line end
      local below
      repeat below = self.conn:send(("x"):rep(99999)) until not below
      note("full " .. tostring(below))
    end
    local app = lines(Agent, { limits = { send_buffer = "1m", slow_consumer = "close" } })
    local slow, other = app:connect():stall():send("fill"), app:connect()
    slow:expect_closed("slow_consumer")
    assert.equal("closed slow_consumer", notes(app, 1)[2])
    other:send("alive"):expect("alive")
  end)

  it("with slow_consumer = \"drop\" drops whole replies, counted, until the peer has caught up", function()
    local Agent = {}
    function Agent:writable() note("writable") end
    function Agent:proceed(line)
      if line ~= "fill" then return line end
      for i = 1, 400 do self.conn:send(("%06d"):format(i) .. ("x"):rep(99993)) end
      note("filled")
    end
    local app = lines(Agent, { limits = { send_buffer = "1m", slow_consumer = "drop" } })
    local client = app:connect():stall():send("fill")
    assert.same({ "filled" }, notes(app, 1))
    client:unstall()
    assert.same({ "filled", "writable" }, notes(app, 1))
    local frames = client:frames()
    assert.is_true(#frames > 5 and #frames < 400)
    for i, frame in ipairs(frames) do
      assert.truthy(frame:find("^%d%d%d%d%d%dx+$"))
      assert.same({ 99999, i }, { #frame, tonumber(frame:sub(1, 6)) })
    end
    assert.equal(400 - #frames, app:counters().dropped_frames)
    client:send("alive"):expect("alive")
  end)
end)

describe("limits.buffers", function()
  after_each(memory.finish)

  it("ends who holds most when all of it is used, and serves the others", function()
    local app = memory.start(echo(), { limits = { buffers = "2m", frame = "1m" } })
    local small, ended = app:connect(), 0
    local clients = memory.connect_many(app, 10)
    for _, client in ipairs(clients) do client:send_raw("\0\16\0\0" .. ("x"):rep(900000)) end
    for _, client in ipairs(clients) do ended = ended + (client:closed() == "memory" and 1 or 0) end
    assert.is_true(ended >= 7 and ended < 10, ended)
    small:send("alive"):expect("alive")
    app:connect():send("and served"):expect("and served")
  end)

  -- What has come of `kind` of a message with so many bytes in all, and how it ends.
  local begun = {
    ["of a WebSocket"] = function(client, n, bytes)
      local ws = client:websocket "/ws"
      ws:send_raw(("\130\255\0\0\0\0\0%s\0\0\0\0%s"):format(string.char(math.floor(n / 65536),
        math.floor(n / 256) % 256, n % 256), ("x"):rep(bytes)))
      return function() ws:send_raw(("x"):rep(n - bytes)):expect_binary(("x"):rep(n)) end
    end,
    ["of chunks"] = function(client, n, bytes)
      client:send_raw(("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s"):format(n,
        ("x"):rep(bytes)))
      return function()
        client:send_raw(("x"):rep(n - bytes) .. "\r\n0\r\n\r\n")
        assert.equal(n .. " bytes", client:response().body)
      end
    end,
  }

  local function messages(limits)
    local Echo = { proceed = function(self, message) self.conn:send(message, "binary") end }
    return memory.start({
      proceed = function(_, request)
        if request.path == "/ws" then return http.websocket(Echo) end
        return request.path == "/large" and ("x"):rep(40000) or #(request.body or "") .. " bytes"
      end,
    }, { listen = "http://127.0.0.1:0", limits = limits })
  end

  for kind, begin in pairs(begun) do
    it("counts what has come of a message " .. kind .. ", and ends nobody who holds less", function()
      local app = messages { buffers = "1m", message = "600k", body = "600k" }
      local slow, large, finish = app:connect(), app:connect(), {}
      slow:stall(0)
      slow:ask "/large"
      begin(large, 500000, 400000)
      for i = 1, 9 do finish[i] = begin(app:connect(), 70000, 60000) end
      large:expect_closed "memory"
      slow:unstall()
      assert.equal(40000, #slow:response().body)
      for _, done in ipairs(finish) do done() end
    end)
  end

  it("ends who holds most where a message is inflated", function()
    local app = messages { buffers = "2m", message = "600k", body = "600k" }
    for _, offer in ipairs { "permessage-deflate", "permessage-deflate; client_no_context_takeover" } do
      local ws, larges, ended = app:connect():websocket("/ws", { compress = offer }), memory.connect_many(app, 3), 0
      for _, large in ipairs(larges) do begun["of a WebSocket"](large, 500000, 400000) end
      ws:send_compressed(("x"):rep(300000), "binary")
      for _, large in ipairs(larges) do ended = ended + (large:closed() == "memory" and 1 or 0) end
      assert.equal(1, ended)
      ws:expect_binary(("x"):rep(300000))
      for _, large in ipairs(larges) do large:close() end
    end
  end)
end)

describe("an address of a client", function()
  after_each(memory.finish)

  it("of IPv6 is written as everywhere", function()
    local app = lines { proceed = function(self) return self.conn.peer end }
    app:connect { from = "[2001:db8::1]:5060" }:send("x"):expect("[2001:db8::1]:5060")
    has("an address such as", tostring(select(2, pcall(app.connect, app, { from = "[2001:db8::1:5060" }))))
  end)
end)
