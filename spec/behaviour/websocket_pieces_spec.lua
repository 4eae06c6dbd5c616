--- Messages of WebSockets that are sent in pieces: conn:begin().
local core = require "perilune"
local memory = require "spec.support.memory"
local perilune = require "perilune.test"

local has = require "spec.support.has"

describe("conn:begin", function()
  after_each(memory.finish)

  -- A client of an app whose handler does this with each message.
  local function open(use, more)
    local Agent = { failed = function() return nil end }
    function Agent:proceed(message, meta) return use(self.conn, message, self, meta) end
    function Agent:closed(reason) core.log("info", "ended", { reason = reason }) end
    local script = { listen = "ws://127.0.0.1:0/", agent = Agent }
    for key, value in pairs(more or {}) do script[key] = value end
    local app = memory.open(script)
    return app:connect():websocket("/", { answers = false }), app
  end

  -- The next frame, as "opcode last data".
  local function frame(ws)
    local got = ws:frame()
    return ("%s %s %s"):format(got.opcode, tostring(got.last), got.data)
  end

  it("sends a text in pieces, each when it is written", function()
    local ws, app = open(function(conn)
      local message = conn:begin "text"
      assert(message:write "one " == true)
      core.sleep(1)
      message:write ""
      message:write "two"
      core.sleep(1)
      return message:finish " three" == true and nil
    end)
    ws:send "go"
    assert.equal("text false one ", frame(ws))
    app:advance(1)
    assert.equal("more false two", frame(ws))
    app:advance(1)
    assert.equal("more true  three", frame(ws))
    ws:send "again"
    app:advance(2)
    ws:expect "one two three"
  end)

  for what, row in pairs {
    ["a text, if nothing else is said"] = { {}, { "\195", "\164" }, "text", "\195\164" },
    ["bytes"] = { { "binary" }, { "\255", "\0" }, "binary", "\255\0" },
    ["nothing"] = { { "binary" }, {}, "binary", "" },
  } do
    it("sends " .. what .. ", which is one message", function()
      local ws = open(function(conn)
        local message = conn:begin(unpack(row[1]))
        for _, piece in ipairs(row[2]) do message:write(piece) end
        message:finish()
        conn:send "and then"
      end)
      ws:send "go"
      local data, kind = ws:receive()
      assert.same({ row[4], row[3] }, { data, kind })
      ws:expect "and then"
    end)
  end

  it("lets pings and pongs between", function()
    local ws, app = open(function(conn)
      local message = conn:begin()
      message:write "a"
      core.sleep(10)
      message:finish "b"
    end)
    ws:send "go"
    assert.equal("text false a", frame(ws))
    ws:ping "x"
    assert.equal("pong true x", frame(ws))
    app:advance(10)
    assert.equal("more true b", frame(ws))
  end)

  it("refuses other messages between, with an error that says so", function()
    local BETWEEN = "a message is being sent in pieces (conn:begin): others may follow once it is finished"
    local ws = open(function(conn)
      local message = conn:begin()
      local whys = {}
      for i, send in ipairs { function() conn:send "x" end, function() conn:send("x", "binary") end,
        function() conn:begin() end } do
        whys[i] = select(2, pcall(send)):gsub("^.-:%d+: ", "")
      end
      message:finish(table.concat(whys, "\n"))
    end)
    ws:send "go":expect("conn:send: " .. BETWEEN .. "\nconn:send: " .. BETWEEN
      .. "\nconn:begin: a message is being sent in pieces already: finish it first")
  end)

  it("refuses a reply between: that is a fault, and the end is 1011", function()
    local ws, app = open(function(conn)
      conn:begin():write "a"
      return "reply"
    end)
    ws:send "go"
    assert.equal("text false a", frame(ws))
    ws:expect_close(1011)
    has("a message is being sent in pieces", app:log()[1].error)
  end)

  for what, row in pairs {
    ["a fault"] = { function() error "boom" end, 1011 },
    ["conn:close()"] = { function(conn) conn:close() end, 1011 },
    ["a code of the script's"] = { function(conn) conn:close(4000, "enough") end, 4000 },
  } do
    it("that was not finished ends by " .. what .. " with " .. row[2], function()
      local ws = open(function(conn)
        conn:begin():write "a"
        row[1](conn)
      end)
      ws:send "go"
      assert.equal("text false a", frame(ws))
      ws:expect_close(row[2])
    end)
  end

  it("goes on from call to call, and from others of its agent", function()
    local ws, app = open(function(conn, message, self)
      if message == "begin" then
        self.message = conn:begin()
        core.after(1, function() self.message:write "timer " end)
      elseif message == "finish" then
        self.message:finish "end"
      else
        self.message:write(message)
      end
    end)
    ws:send "begin":send "a "
    app:advance(1)
    ws:send "finish":expect "a timer end"
  end)

  it("says what is wrong", function()
    local tries = {
      kind = function(conn) conn:begin "bytes" end,
      more = function(conn) conn:begin("text", 1) end,
      no_data = function(conn) conn:begin():write() end,
      utf8 = function(conn) conn:begin():write "\255" end,
      half = function(conn) conn:begin():finish "\195" end,
      twice = function(conn)
        local message = conn:begin()
        message:finish()
        message:finish()
      end,
      unknown = function(conn) conn:begin():send "x" end,
      set = function(conn) conn:begin().x = 1 end,
      dot = function(conn) conn:begin().write "x" end,
    }
    for name, wanted in pairs {
      kind = 'expects "text" or "binary"', more = "conn:begin takes", no_data = "string expected",
      utf8 = 'message:write: a text is no UTF-8; bytes are sent by conn:begin "binary"',
      half = "message:finish: a text is no UTF-8", twice = "message:finish: the message is finished",
      unknown = "a message has no send: it has write(data) and finish([data])", set = "attempt to index",
      dot = "expected",
    } do
      local ws, app = open(function(conn)
        local ok, why = pcall(tries[name], conn)
        core.log("info", "tried", { why = tostring(ok) .. tostring(why) })
      end)
      ws:send "go"
      has(wanted, app:log()[1].why)
    end
  end)

  it("is for WebSockets alone, and not for those that drop messages", function()
    local app = memory.open { listen = "tcp://127.0.0.1:0", frame = "line", agent = { proceed = function(self)
      return (select(2, pcall(self.conn.begin, self.conn)))
    end } }
    has("conn:begin: only a WebSocket has messages", app:connect():send "x":receive())
    local ws = open(function(conn) return (select(2, pcall(conn.begin, conn))) end,
      { limits = { slow_consumer = "drop" } })
    ws:send "go"
    has('with limits.slow_consumer = "drop" a message could lose pieces', (ws:receive()))
  end)

  it("tells of the end of its connection", function()
    local ws, app = open(function(conn, _, self)
      self.message = conn:begin()
      core.spawn(function()
        local message = self.message
        core.defer(function()
          core.log("info", "told", { write = tostring(select(2, message:write "x")),
            begin = tostring(select(2, conn:begin())) })
        end)
        core.sleep(10)
      end)
    end)
    ws:send "go"
    ws:hang_up()
    app:advance(1)
    local entry = app:log()[1]
    assert.same({ "closed", "closed" }, { entry.write, entry.begin })
  end)

  it("is told when the client does not keep up", function()
    local ws, app = open(function(conn)
      local message, below = conn:begin "binary", true
      for _ = 1, 100 do below = below and message:write(("x"):rep(1000)) end
      core.log("info", "below", { below = tostring(below) })
      conn:flush()
      message:finish()
    end, { limits = { send_buffer = 10000 } })
    ws.client:stall()
    ws:send "go"
    assert.equal("false", app:log()[1].below)
    ws.client:unstall()
    app:advance(1)
    local got = ws:receive()
    assert.same({ true, 0 }, { #got >= 10000, #got % 1000 })
  end)

  for _, name in ipairs { "snapshot", "upgrade" } do
    it("does not begin in " .. name .. "(), and the connection goes on", function()
      local Agent = { proceed = function(_, message) return message end }
      function Agent.snapshot() return {} end
      function Agent.upgrade() end
      Agent[name] = function(self) self.conn:begin "text" end
      local app = memory.open { listen = "ws://127.0.0.1:0/", agent = Agent, reload = { policy = "migrate" } }
      local ws = app:connect():websocket "/"
      app:reload()
      ws:send("a"):expect("a")
      assert.truthy(app:faults()[1].error:find("conn:begin: " .. name .. "() must not begin anything", 1, true))
    end)
  end

  it("keeps a connection from migrating until it is finished", function()
    local Agent = {}
    function Agent:proceed(message)
      if message == "begin" then
        self.message = self.conn:begin()
      elseif message == "finish" then
        self.message:finish "whole"
        self.message = nil
      else
        return tostring(self.came)
      end
    end
    function Agent:snapshot() return { self.message ~= nil } end
    function Agent:upgrade() self.came = true end
    local app = memory.open { listen = "ws://127.0.0.1:0/", agent = Agent, reload = { policy = "migrate" } }
    local ws = app:connect():websocket "/"
    ws:send "begin"
    app:reload()
    ws:send "finish":expect "whole"
    ws:send "who?":expect "true"
  end)

  it("is one of a client's, too, with a mask for each piece", function()
    local net = perilune.net()
    finally(function() net:close() end)
    net:serve("ws://db:80", { agent = { proceed = function(_, message, meta)
      return ("%s %s"):format(message, tostring(meta.binary))
    end } })
    local app = net:app { listen = "tcp://127.0.0.1:9000", frame = "line", agent = { proceed = function(_, line)
      local ws = assert(core.connect("ws://db", { compress = true }))
      local message = ws:begin "binary"
      for char in line:gmatch "." do message:write(char) end
      message:finish()
      return (ws:read())
    end } }
    app:connect():send "hello":expect "hello true"
  end)
end)
