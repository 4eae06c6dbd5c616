local has = require "spec.support.has"
local server = require "spec.support.server"

local function start(script, options)
  options = options or {}
  options.script = server.NOTE .. script
  return server.start(options)
end

local start_lines = server.start_lines

local function numbers(from, to, pattern)
  local lines = {}
  for i = from, to do lines[#lines + 1] = (pattern or "%d\n"):format(i, i) end
  return table.concat(lines)
end

describe("conn", function()
  after_each(server.finish)

  it("tells who it is", function()
    local app = start_lines [[
      function Agent:proceed()
        local conn = self.conn
        return ("%d %s %s %s"):format(conn.id, conn.peer, conn.local_addr, conn.listener)
      end]]
    local client = app:connect()
    client:echo_line("x", ("1 127.0.0.1:%d 127.0.0.1:%d tcp://127.0.0.1:0"):format(client.port, app.port))
  end)

  it("has an id that is unique and ascends, over all listeners and workers", function()
    local app = start([[
      local function agent(conn)
        return { proceed = function() return tostring(conn.id) end }
      end
      return { listen = { "tcp://127.0.0.1:0", "tcp://127.0.0.1:0" }, frame = "line", agent = agent }]], { workers = 2 })
    local last = 0
    for i = 1, 30 do
      local id = tonumber(app:connect({ listener = 1 + i % 2 }):send("x\n"):recv_line())
      assert.is_true(id > last, "ids do not ascend")
      last = id
    end
  end)

  it("tells what its handler has used", function()
    local app = start_lines [[
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
      end]]
    local function usage(client)
      local frames, seconds, bytes = client:send("usage\n"):recv_line():match("^(%d+) (%S+) (%d+)$")
      return tonumber(frames), tonumber(seconds), tonumber(bytes)
    end
    local client, other = app:connect(), app:connect()
    client:echo_line("work", "worked")
    local frames, seconds, bytes = usage(client)
    assert.equal(1, frames)
    assert.is_true(seconds >= 0.015, seconds)
    assert.is_true(bytes < 2 ^ 20, bytes)
    client:echo_line("allocate", "xxxxxxxxx")
    frames, seconds, bytes = usage(client)
    assert.equal(3, frames)
    assert.is_true(seconds < 10, seconds)
    assert.is_true(bytes >= 2 ^ 20, bytes)
    frames, seconds, bytes = usage(other)
    assert.equal(0, frames)
    assert.is_true(seconds < 0.05 and bytes < 2 ^ 20)
  end)

  it("counts the work of a codec in Lua for whom it decodes and encodes", function()
    local app = server.start { script = [[
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
      return { listen = "tcp://127.0.0.1:0", frame = { decode = decode, encode = encode }, agent = Agent }]] }
    local function usage(client)
      local seconds, bytes = client:send("usage\n"):recv_line():match("^(%S+) (%d+)$")
      return tonumber(seconds), tonumber(bytes)
    end
    local other = app:connect():echo_line("hello")
    for _, line in ipairs { "decode", "encode", "send encode" } do
      local client = app:connect()
      client:send(line .. " busy\n"):recv_line()
      local seconds, bytes = usage(client)
      assert.is_true(seconds >= 0.05 and seconds < 10, line .. " took " .. seconds)
      assert.is_true(bytes < 2 ^ 20, line .. " took " .. bytes)
      client:send(line .. " big\n"):recv_line()
      seconds, bytes = usage(client)
      assert.is_true(seconds < 10 and bytes >= 2 ^ 20 and bytes < 2 ^ 23, line .. " took " .. bytes)
    end
    local partial = app:connect():echo_line("hello"):send("decode big")
    local seconds, bytes = usage(other)
    assert.is_true(seconds < 0.05 and bytes < 2 ^ 20, "what others took")
    partial:send("\n"):recv_line()
    assert.is_true(select(2, usage(partial)) >= 2 ^ 21)
  end)

  it("refuses fields that do not exist, and changes", function()
    local app = start_lines [[
      function Agent:proceed(line)
        if line == "read" then return self.conn.adress end
        self.conn.user = "me"
      end]]
    app:connect():send("read\n"):expect_closed()
    has("conn has no field or method 'adress'", app:wait_log("handler failed").error)
    app:connect():send("write\n"):expect_closed()
    has("conn is read-only: keep 'user' in the agent", app:wait_log("handler failed", nil, 2).error)
  end)

  it("called with a dot instead of a colon says so", function()
    local app = start_lines [[function Agent:proceed(line) self.conn.send(line) end]]
    app:connect():send("x\n"):expect_closed()
    has("conn:send", app:wait_log("handler failed").error)
  end)

  describe(":send", function()
    it("keeps its order with the replies, in one piece of many frames", function()
      local app = start_lines [[
        function Agent:proceed(line)
          if tonumber(line) % 3 == 0 then return "r" .. line end
          if tonumber(line) % 3 == 1 then self.conn:send("s" .. line) return { "r" .. line, "q" .. line } end
          self.conn:send({ "s" .. line, "t" .. line })
        end]]
      local expected = {}
      for i = 1, 600 do
        expected[i] = i % 3 == 0 and ("r%d\n"):format(i) or i % 3 == 1 and ("s%d\nr%d\nq%d\n"):format(i, i, i)
          or ("s%d\nt%d\n"):format(i, i)
      end
      expected = table.concat(expected)
      assert.equal(expected, app:connect():send(numbers(1, 600)):recv_exact(#expected))
    end)

    it("answers true while the output is below its mark", function()
      local app = start_lines [[function Agent:proceed(line) return tostring(self.conn:send(line)) end]]
      local client = app:connect():send("x\n")
      assert.equal("x", client:recv_line())
      assert.equal("true", client:recv_line())
    end)

    it("refuses nil and other things that are no reply", function()
      local app = start_lines [[
        function Agent:proceed(line)
          local what = { ["nil"] = nil, func = print, boolean = true }
          return tostring(select(2, pcall(self.conn.send, self.conn, what[line])))
        end]]
      local client = app:connect()
      has("data expected, got nil", client:send("nil\n"):recv_line())
      has("not a function", client:send("func\n"):recv_line())
      has("not a boolean", client:send("boolean\n"):recv_line())
    end)

    it("refuses what the framing cannot carry", function()
      local app = start [[
        local Agent = {}
        function Agent:proceed(frame) return ("x"):rep(256) end
        function Agent:failed(err) return (err:match("a reply of .*")) end
        return { listen = "tcp://127.0.0.1:0", frame = "u8", agent = Agent }]]
      local client = app:connect():send("\1a")
      has("a reply of 256 bytes does not fit", (client:recv_all()))
    end)
  end)

  it(":flush waits until the system has taken all output", function()
    local app = start_lines [[
      function Agent:proceed()
        self.conn:send(("x"):rep(4e6))
        local flushed = self.conn:flush()
        note("flushed " .. tostring(flushed))
        return "done"
      end]]
    local client = app:connect { receive_buffer = 4096, seconds = 2 }
    client:send("go\n")
    client:recv_exact(1)
    client:recv_exact(4e6)
    app:wait_log "flushed true"
    assert.equal("done", client:recv_line())
  end)

  describe(":close", function()
    it("in the middle of many frames is where they end; the reply at hand is delivered", function()
      local app = start_lines [[
        function Agent:proceed(line)
          note("got " .. line)
          if line == "3" then self.conn:close() end
          return "r" .. line
        end]]
      assert.equal("r1\nr2\nr3\n", (app:connect():send("1\n2\n3\n4\n5\n"):recv_all()))
      app:stop()
      assert.same({ "got 1", "got 2", "got 3" }, app:notes(1))
    end)

    it("takes no reason but agent and kick", function()
      local app = start_lines [[
        function Agent:proceed() return tostring(select(2, pcall(self.conn.close, self.conn, "bored"))) end]]
      has([[the reason is "agent"]], app:connect():send("x\n"):recv_line())
    end)
  end)

  it(":abort drops the output and lets the client see a reset", function()
    local app = start_lines [[
      function Agent:proceed(line)
        self.conn:abort()
        return line
      end]]
    app:connect():send("x\n"):expect_reset()
    assert.equal("agent=1", app:stop().summary.reasons)
  end)

  it(":shutdown ends what we send and goes on to receive", function()
    local app = start_lines [[
      function Agent:closed(reason) note("closed " .. reason) end
      function Agent:proceed(line)
        note("got " .. line)
        if line == "bye" then self.conn:shutdown() end
        local sent, why = self.conn:send("s" .. line)
        if line == "bye" then note(tostring(sent) .. " " .. tostring(why)) return nil end
        return "r" .. line
      end]]
    local client = app:connect():send("1\nbye\n")
    assert.equal("s1\nr1\n", (client:recv_all()))
    client:send("more\n")
    app:wait_log "got more"
    client:close()
    app:wait_log "closed peer"
    assert.equal("nil closed", app:notes(1)[3])
  end)

  describe(":pause", function()
    local SCRIPT = [[
      local paused
      function Agent:proceed(line)
        if line == "pause" then
          paused = self.conn
          self.conn:pause()
        elseif line == "resume" then
          paused:resume()
        end
        return line
      end]]

    it("holds frames back until :resume, none lost, none out of order", function()
      local app = start_lines(SCRIPT)
      local held, other = app:connect(), app:connect()
      held:send("a\npause\nb\nc\n")
      assert.equal("a", held:recv_line())
      assert.equal("pause", held:recv_line())
      held:send("d\n")
      other:echo_line("x"):echo_line("y")
      held:expect_silence(0.1)
      other:echo_line("resume")
      for _, line in ipairs { "b", "c", "d" } do assert.equal(line, held:recv_line()) end
    end)

    it("does not hide that the peer has reset", function()
      local app = start_lines(SCRIPT .. [[
        function Agent:closed(reason) note("closed " .. reason) end]])
      local held = app:connect()
      held:echo_line("pause")
      held:reset()
      app:wait_log "closed reset"
    end)
  end)

  describe(":defer", function()
    it("runs after closed(), the latest first, whatever ended the connection", function()
      local app = start_lines [[
        function Agent:opened()
          self.conn:defer(function() note("first") end)
          self.conn:defer(function() note("second") end)
        end
        function Agent:closed() note("closed") end
        function Agent:proceed(line)
          if line == "fail" then error("as asked") end
          return line, "close"
        end]]
      app:connect():send("x\n"):recv_all()
      app:connect():send("fail\n"):recv_all()
      app:connect():reset()
      for conn = 1, 3 do
        app:wait_log { message = "first", conn = conn }
        assert.same({ "closed", "second", "first" }, app:notes(conn))
      end
    end)

    it("goes on with the others after one that failed", function()
      local app = start_lines [[
        function Agent:proceed(line)
          self.conn:defer(function() note("first") end)
          self.conn:defer(function() error("in defer") end)
          return line, "close"
        end]]
      app:connect():send("x\n"):recv_all()
      app:wait_log "first"
      has("in defer", app:wait_log("handler failed").error)
    end)

    it("takes functions only", function()
      local app = start_lines [[
        function Agent:proceed() return tostring(select(2, pcall(self.conn.defer, self.conn, "x"))) end]]
      has("function expected, got string", app:connect():send("x\n"):recv_line())
    end)
  end)

  describe("of another agent", function()
    local SCRIPT = [[
      local all = {}
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
      end]]

    it("can be sent to", function()
      local app = start_lines(SCRIPT)
      local first, second = app:connect(), app:connect()
      second:echo_line("send 1 hello", "true")
      assert.equal("hello", first:recv_line())
      second:echo_line("send 2 to myself", "to myself")
      assert.equal("true", second:recv_line())
    end)

    it("can be closed, what is pending delivered", function()
      local app = start_lines(SCRIPT)
      local first, second = app:connect(), app:connect()
      second:send("send 1 bye\nclose 1\n")
      assert.equal("true", second:recv_line())
      assert.equal("true", second:recv_line())
      assert.equal("bye\n", (first:recv_all()))
      app:wait_log { message = "closed agent", conn = 1 }
      second:echo_line("send 2 x", "x")
    end)

    it("can be aborted", function()
      local app = start_lines(SCRIPT)
      local first, second = app:connect(), app:connect()
      second:echo_line("abort 1", "true")
      first:expect_reset()
    end)

    it("that has gone answers nil and \"closed\", and keeps its id", function()
      local app = start_lines(SCRIPT)
      local first, second = app:connect(), app:connect()
      first:close()
      app:wait_log { message = "closed peer", conn = 1 }
      local answer = second:send("ask 1\n"):recv_line()
      has("1; nil; ", answer)
      for _, method in ipairs { "send", "flush", "close", "abort", "shutdown", "pause", "resume" } do
        has(method .. ": true nil closed", answer)
      end
    end)
  end)
end)
