--- What a handler does with its connection, and with those of others.
local has = require "spec.support.has"
local memory = require "spec.support.memory"

local lines, note, notes = memory.lines, memory.note, memory.notes

describe("conn", function()
  after_each(memory.finish)

  it("tells who it is", function()
    local Agent = {}
    function Agent:proceed()
      local conn = self.conn
      return ("%d %s %s"):format(conn.id, conn.peer, conn.listener)
    end
    local app = lines(Agent)
    app:connect { from = "10.0.0.7:5060" }:send("x"):expect("1 10.0.0.7:5060 tcp://127.0.0.1:0")
  end)

  -- What it would not look at was meant all the same.
  for call, message in pairs {
    ['conn:send("a", "b")'] = "conn:send takes one argument, not 2",
    ['conn:send(("a"):gsub("a", "b"))'] = "conn:send takes one argument, not 2",
    ['conn:close("kick", "why")'] = "conn:close takes one argument, not 2",
    ['conn:abort("why")'] = "conn:abort takes no argument, not 1",
    ["conn:flush(1)"] = "conn:flush takes no argument, not 1",
    ["conn:shutdown(1)"] = "conn:shutdown takes no argument, not 1",
    ["conn:pause(1)"] = "conn:pause takes no argument, not 1",
    ["conn:resume(1)"] = "conn:resume takes no argument, not 1",
    ['conn:read("line", 1, 2)'] = "conn:read takes two arguments at most, not 3",
    ['conn:set_frame("line", 10)'] = "conn:set_frame takes one argument, not 2",
    ['conn:set_timeout("idle", 1, 2)'] = "conn:set_timeout takes two arguments at most, not 3",
    ["conn:defer(print, 1)"] = "conn:defer takes one argument, not 2",
    ["perilune.sleep(1, 2)"] = "perilune.sleep takes one argument, not 2",
    ["perilune.now(1)"] = "perilune.now takes no argument, not 1",
  } do
    it("refuses an argument too many: " .. call, function()
      local Agent = {}
      local try = loadstring("local conn, perilune = ... return " .. call)
      function Agent:proceed() return (select(2, pcall(try, self.conn, require "perilune"))) end
      lines(Agent):connect():send("x"):expect(message):send("y"):expect(message)
    end)
  end

  it("tells what its handler has used", function()
    local Agent = {}
    function Agent:proceed(line)
      if line == "work" then
        local began = os.clock()
        repeat until os.clock() - began > 0.06
        return "worked"
      elseif line == "allocate" then
        return ("x"):rep(2 ^ 20):sub(1, 9)
      end
      local usage = self.conn.usage
      return ("%d %.6f %d"):format(usage.frames, usage.seconds, usage.bytes)
    end
    local app = lines(Agent)
    local function usage(client)
      local frames, seconds, bytes = client:send("usage"):receive():match("^(%d+) (%S+) (%d+)$")
      return tonumber(frames), tonumber(seconds), tonumber(bytes)
    end
    local client, other = app:connect(), app:connect()
    client:send("work"):expect("worked")
    local frames, seconds, bytes = usage(client)
    assert.equal(1, frames)
    assert.is_true(seconds >= 0.015, seconds)
    assert.is_true(bytes < 2 ^ 20, bytes)
    client:send("allocate"):expect("xxxxxxxxx")
    frames, seconds, bytes = usage(client)
    assert.equal(3, frames)
    assert.is_true(seconds < 10, seconds)
    assert.is_true(bytes >= 2 ^ 20, bytes)
    frames, seconds, bytes = usage(other)
    assert.equal(0, frames)
    assert.is_true(seconds < 10 and bytes < 2 ^ 20) -- the clock also runs while others have the processor
  end)

  it("counts the work of a codec in Lua for whom it decodes and encodes", function()
    local shown, count = nil, 0
    local function work(line)
      if line:find("busy") then
        local began = os.clock()
        repeat until os.clock() - began > 0.06
      elseif line:find("big") then
        count = count + 1
        local _ = (count % 10 .. "x"):rep(2 ^ 19) -- each time another string
      end
      if shown then assert(shown.usage.seconds < 10 and shown.usage.bytes < 2 ^ 30) end
    end
    local function decode(bytes, at)
      local stop = bytes:find("\n", at, true)
      local line = bytes:sub(at, stop and stop - 1)
      if line:find("^decode") then work(line) end
      if stop then return line, stop + 1 end
    end
    local function encode(reply)
      if reply:find("^encode") then work(reply) end
      return reply .. "\n"
    end
    local Agent = {}
    function Agent:proceed(line)
      shown = self.conn
      if line:find("^send ") then self.conn:send(line:sub(6)) return end
      if line ~= "usage" then return line end
      return ("%.6f %d"):format(self.conn.usage.seconds, self.conn.usage.bytes)
    end
    local app = memory.start(Agent, { frame = { decode = decode, encode = encode } })
    -- The client's own framing is another, or its codec's work would be counted as well.
    local function connect() return app:connect { frame = "line" } end
    local function usage(client)
      local seconds, bytes = client:send("usage"):receive():match("^(%S+) (%d+)$")
      return tonumber(seconds), tonumber(bytes)
    end
    local other = connect():send("hello"):expect("hello")
    for _, line in ipairs { "decode", "encode", "send encode" } do
      local client = connect()
      client:send(line .. " busy"):skip()
      local seconds, bytes = usage(client)
      assert.is_true(seconds >= 0.05 and seconds < 10, line .. " took " .. seconds)
      assert.is_true(bytes < 2 ^ 20, line .. " took " .. bytes)
      client:send(line .. " big"):skip()
      seconds, bytes = usage(client)
      assert.is_true(seconds < 10 and bytes >= 2 ^ 20 and bytes < 2 ^ 23, line .. " took " .. bytes)
    end
    local partial = connect():send("hello"):expect("hello"):send_raw("decode big")
    local seconds, bytes = usage(other)
    assert.is_true(seconds < 10 and bytes < 2 ^ 20, "what others took")
    partial:send_raw("\n"):skip()
    assert.is_true(select(2, usage(partial)) >= 2 ^ 21)
  end)

  it("refuses fields that do not exist, and changes", function()
    local Agent = {}
    function Agent:proceed(line)
      if line == "read" then return self.conn.adress end
      self.conn.user = "me"
    end
    local app = lines(Agent)
    app:connect():send("read"):expect_closed("error")
    has("conn has no field or method 'adress'", memory.error_of(app, 1))
    app:connect():send("write"):expect_closed("error")
    has("conn is read-only: keep 'user' in the agent", memory.error_of(app, 2))
  end)

  it("takes a name by its length: a zero byte does not end it", function()
    local Agent = {}
    function Agent:proceed(line)
      if line == "read" then return self.conn["id\0\194\155"] end
      self.conn["us\0er\194\155"] = "me"
    end
    local app = lines(Agent)
    app:connect():send("read"):expect_closed("error")
    has([[conn has no field or method 'id\x00\u{9b}']], memory.error_of(app, 1))
    app:connect():send("write"):expect_closed("error")
    has([[conn is read-only: keep 'us\x00er\u{9b}' in the agent]], memory.error_of(app, 2))
  end)

  it("called with a dot instead of a colon says so", function()
    local app = lines { proceed = function(self, line) self.conn.send(line) end }
    app:connect():send("x"):expect_closed("error")
    has("conn:send", memory.error_of(app))
  end)

  describe(":send", function()
    it("keeps its order with the replies, in one piece of many frames", function()
      local Agent = {}
      function Agent:proceed(line)
        if tonumber(line) % 3 == 0 then return "r" .. line end
        if tonumber(line) % 3 == 1 then self.conn:send("s" .. line) return { "r" .. line, "q" .. line } end
        self.conn:send({ "s" .. line, "t" .. line })
      end
      local ANSWERS = { [0] = { "r" }, { "s", "r", "q" }, { "s", "t" } }
      local sent, expected = {}, {}
      for i = 1, 600 do
        sent[i] = tostring(i)
        for _, letter in ipairs(ANSWERS[i % 3]) do expected[#expected + 1] = letter .. i end
      end
      assert.same(expected, lines(Agent):connect():send(unpack(sent)):frames())
    end)

    it("answers true while the output is below its mark", function()
      local app = lines { proceed = function(self, line) return tostring(self.conn:send(line)) end }
      app:connect():send("x"):expect("x", "true")
    end)

    it("refuses nil and other things that are no reply", function()
      local Agent = {}
      function Agent:proceed(line)
        local what = { ["nil"] = nil, func = print, boolean = true, no = false }
        return tostring(select(2, pcall(self.conn.send, self.conn, what[line])))
      end
      local client = lines(Agent):connect()
      has("data expected, got nil", client:send("nil"):receive())
      has("data expected, got false", client:send("no"):receive())
      has("not a function", client:send("func"):receive())
      has("not a boolean", client:send("boolean"):receive())
    end)

    it("refuses what the framing cannot carry", function()
      local Agent = {}
      function Agent:proceed() return ("x"):rep(256) end
      function Agent:failed(err) return (err:match("a reply of .*")) end
      local client = memory.start(Agent, { frame = "u8" }):connect():send("a")
      has("a reply of 256 bytes does not fit", client:receive())
      client:expect_closed("error")
    end)
  end)

  it(":flush waits until the system has taken all output", function()
    local Agent = {}
    function Agent:proceed()
      self.conn:send(("x"):rep(4e6))
      note("flushed " .. tostring(self.conn:flush()))
      return "done"
    end
    local app = lines(Agent)
    local client = memory.raw(app):stall():send("go\n")
    client:stall(4e6 - 1)
    assert.equal(0, memory.count(app, "flushed true"))
    client:unstall()
    assert.equal(1, memory.count(app, "flushed true"))
    assert.equal("x\ndone\n", memory.bytes(client):sub(-7))
  end)

  describe(":close", function()
    it("in the middle of many frames is where they end; the reply at hand is delivered", function()
      local Agent = {}
      function Agent:proceed(line)
        note("got " .. line)
        if line == "3" then self.conn:close() end
        return "r" .. line
      end
      local app = lines(Agent)
      local client = app:connect():send("1", "2", "3", "4", "5")
      assert.same({ "r1", "r2", "r3" }, client:frames())
      client:expect_closed("agent")
      assert.same({ "got 1", "got 2", "got 3" }, notes(app, 1))
    end)

    it("takes no reason but agent and kick", function()
      local Agent = {}
      function Agent:proceed() return tostring(select(2, pcall(self.conn.close, self.conn, "bored"))) end
      has([[the reason is "agent"]], lines(Agent):connect():send("x"):receive())
    end)
  end)

  it(":abort drops the output and lets the client see a reset", function()
    local Agent = {}
    function Agent:proceed(line)
      self.conn:abort()
      return line
    end
    lines(Agent):connect():send("x"):expect_nothing():expect_reset():expect_closed("agent")
  end)

  it(":shutdown ends what we send and goes on to receive", function()
    local Agent = {}
    function Agent:closed(reason) note("closed " .. reason) end
    function Agent:proceed(line)
      note("got " .. line)
      if line == "bye" then self.conn:shutdown() end
      local sent, why = self.conn:send("s" .. line)
      if line == "bye" then note(tostring(sent) .. " " .. tostring(why)) return nil end
      return "r" .. line
    end
    local app = lines(Agent)
    local client = app:connect():send("1", "bye")
    assert.same({ "s1", "r1" }, client:frames())
    client:send("more")
    assert.is_nil(client:closed())
    client:close()
    assert.same({ "got 1", "got bye", "nil closed", "got more", "closed peer" }, notes(app, 1))
  end)

  describe(":pause", function()
    local function pauser()
      local paused
      local Agent = {}
      function Agent:closed(reason) note("closed " .. reason) end
      function Agent:proceed(line)
        if line == "pause" then
          paused = self.conn
          self.conn:pause()
        elseif line == "resume" then
          paused:resume()
        end
        return line
      end
      return Agent
    end

    it("holds frames back until :resume, none lost, none out of order", function()
      local app = lines(pauser())
      local held, other = app:connect(), app:connect()
      held:send("a", "pause", "b", "c"):expect("a", "pause"):send("d")
      other:send("x"):expect("x"):send("y"):expect("y")
      app:advance("1s")
      held:expect_nothing()
      other:send("resume"):expect("resume")
      held:expect("b", "c", "d")
    end)

    it("does not hide that the peer has reset", function()
      local app = lines(pauser())
      app:connect():send("pause"):expect("pause"):reset():expect_closed("reset")
      assert.same({ "closed reset" }, notes(app, 1))
    end)
  end)

  describe(":defer", function()
    it("runs after closed(), the latest first, whatever ended the connection", function()
      local Agent = {}
      function Agent:opened()
        self.conn:defer(function() note("first") end)
        self.conn:defer(function() note("second") end)
      end
      function Agent:closed() note("closed") end
      function Agent:proceed(line)
        if line == "fail" then error("as asked") end
        return line, "close"
      end
      local app = lines(Agent)
      app:connect():send("x"):expect_closed("agent")
      app:connect():send("fail"):expect_closed("error")
      app:connect():reset():expect_closed("reset")
      for conn = 1, 3 do assert.same({ "closed", "second", "first" }, notes(app, conn)) end
    end)

    it("goes on with the others after one that failed", function()
      local Agent = {}
      function Agent:proceed(line)
        self.conn:defer(function() note("first") end)
        self.conn:defer(function() error("in defer") end)
        return line, "close"
      end
      local app = lines(Agent)
      app:connect():send("x"):expect("x"):expect_closed("agent")
      assert.same({ "first" }, notes(app, 1))
      has("in defer", memory.error_of(app))
    end)

    it("takes functions only", function()
      local Agent = {}
      function Agent:proceed() return tostring(select(2, pcall(self.conn.defer, self.conn, "x"))) end
      has("function expected, got string", lines(Agent):connect():send("x"):receive())
    end)
  end)

  describe("of another agent", function()
    local function meddler()
      local all = {}
      local Agent = {}
      function Agent:opened() all[#all + 1] = self.conn end
      function Agent:closed(reason) note("closed " .. reason) end
      function Agent:proceed(line)
        local what, n, text = line:match("^(%a+) (%d+) ?(.*)$")
        local other = all[tonumber(n)]
        if what == "send" then return tostring(other:send(text)) end
        if what == "close" then return tostring(other:close()) end
        if what == "abort" then return tostring(other:abort()) end
        if what == "ask" then
          local results = { other.id, tostring(other.peer) }
          for _, method in ipairs { "send", "flush", "close", "abort", "shutdown", "pause", "resume", "defer" } do
            local argument = method == "send" and "x" or method == "defer" and function() end or nil
            local ok, result, why = pcall(other[method], other, argument)
            results[#results + 1] = ("%s: %s %s %s"):format(method, tostring(ok), tostring(result), tostring(why))
          end
          return table.concat(results, "; ")
        end
      end
      return Agent
    end

    it("can be sent to", function()
      local app = lines(meddler())
      local first, second = app:connect(), app:connect()
      second:send("send 1 hello"):expect("true")
      first:expect("hello")
      second:send("send 2 to myself"):expect("to myself", "true")
    end)

    it("can be closed, what is pending delivered", function()
      local app = lines(meddler())
      local first, second = app:connect(), app:connect()
      second:send("send 1 bye", "close 1"):expect("true", "true")
      first:expect("bye"):expect_closed("agent")
      assert.same({ "closed agent" }, notes(app, 1))
      second:send("send 2 x"):expect("x")
    end)

    it("can be aborted", function()
      local app = lines(meddler())
      local first, second = app:connect(), app:connect()
      second:send("abort 1"):expect("true")
      first:expect_reset()
    end)

    it("that has gone answers nil and \"closed\", and keeps its id", function()
      local app = lines(meddler())
      local first, second = app:connect(), app:connect()
      first:close():expect_closed("peer")
      local answer = second:send("ask 1"):receive()
      has("1; nil; ", answer)
      for _, method in ipairs { "send", "flush", "close", "abort", "shutdown", "pause", "resume" } do
        has(method .. ": true nil closed", answer)
      end
    end)
  end)
end)
