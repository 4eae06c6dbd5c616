local has = require "spec.support.has"
local server = require "spec.support.server"
local wait = require "spec.support.wait"

local frame = require("spec.support.client").frame

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

describe("an agent", function()
  after_each(server.finish)

  describe("begins", function()
    it("with exactly one call of the factory for each connection", function()
      local app = start [[
        return { listen = "tcp://127.0.0.1:0", frame = "line", agent = function(conn)
          note("made")
          return { proceed = function(_, line) return line end }
        end }]]
      for i, client in ipairs(app:connect_many(20)) do client:echo_line("hello " .. i):echo_line("again") end
      local ids = {}
      for _, entry in ipairs(app:find_log "made") do ids[#ids + 1] = entry.conn end
      assert.equal(20, #ids)
      for i = 2, 20 do assert.is_true(ids[i] > ids[i - 1], "ids do not ascend") end
    end)

    it("as an object of its own: no state is shared", function()
      local app = start [[
        return { listen = "tcp://127.0.0.1:0", frame = "line", agent = function()
          local seen = 0
          return { proceed = function() seen = seen + 1 return tostring(seen) end }
        end }]]
      local first, second = app:connect(), app:connect()
      for i = 1, 3 do first:echo_line("x", tostring(i)) end
      second:echo_line("x", "1")
      first:echo_line("x", "4")
    end)

    it("as an instance of a prototype, with conn set and fields of its own", function()
      local app = start_lines [[
        Agent.greeting = "hello"
        function Agent:proceed(line)
          self.seen = (self.seen or 0) + 1
          return self.greeting .. " " .. self.conn.id .. " " .. self.seen
        end]]
      local first, second = app:connect(), app:connect()
      first:echo_line("x", "hello 1 1"):echo_line("x", "hello 1 2")
      second:echo_line("x", "hello 2 1")
    end)

    it("with metamethods of a prototype that is its own __index", function()
      local app = start_lines [[
        Agent.__index = Agent
        function Agent:__tostring() return "agent " .. self.conn.id end
        function Agent:proceed() return tostring(self) end]]
      app:connect():echo_line("x", "agent 1")
    end)

    it("by opened(), whose reply is the first thing that the client reads", function()
      local app = start_lines [[
        function Agent:opened() return "welcome" end
        function Agent:proceed(line) return line end]]
      local client = app:connect()
      assert.equal("welcome", client:recv_line())
      client:echo_line("x")
    end)

    it("and ends at once when opened() says so", function()
      local app = start_lines [[
        function Agent:opened() return "not today", "close" end
        function Agent:proceed(line) return line end]]
      local client = app:connect()
      assert.equal("not today", client:recv_line())
      client:expect_closed()
    end)
  end)

  describe("proceeds", function()
    it("once for each frame, in order, however many arrive in one piece", function()
      local app = start_lines [[
        function Agent:proceed(line)
          self.seen = (self.seen or 0) + 1
          return line .. "=" .. self.seen
        end]]
      local client = app:connect():send(numbers(1, 1500))
      assert.equal(numbers(1, 1500, "%d=%d\n"), client:recv_exact(#numbers(1, 1500, "%d=%d\n")))
    end)

    it("never again after the close that it asked for", function()
      local app = start_lines [[
        function Agent:proceed(line)
          note("got " .. line)
          if line == "quit" then return "bye", "close" end
          return line
        end]]
      local client = app:connect():send("a\nquit\nb\nc\n")
      assert.equal("a\nbye\n", (client:recv_all()))
      assert.equal("agent=1", app:stop().summary.reasons)
      assert.same({ "got a", "got quit" }, app:notes(1))
    end)

    it("never again after it failed", function()
      local app = start_lines [[
        function Agent:proceed(line)
          note("got " .. line)
          if line == "bad" then error("no") end
          return line
        end]]
      local client = app:connect():send("a\nbad\nb\nc\n")
      assert.equal("a\n", (client:recv_all()))
      assert.equal("error=1", app:stop().summary.reasons)
      assert.same({ "got a", "got bad" }, app:notes(1))
    end)
  end)

  describe("that closes in the normal way", function()
    it("delivers everything first", function()
      local app = start_lines [[function Agent:proceed(line) return line:rep(5e6), "close" end]]
      local client = app:connect { receive_buffer = 4096 }
      local bytes, how = client:send("x\n"):recv_all()
      assert.equal("closed", how)
      assert.equal(5e6 + 1, #bytes)
    end)

    it("has not failed: nothing is logged or counted as such", function()
      local app = start_lines [[function Agent:proceed() return "bye", "close" end]]
      app:connect():send("x\n"):recv_all()
      local summary = app:stop().summary
      assert.equal(0, summary.faults)
      assert.equal("agent=1", summary.reasons)
      for _, entry in ipairs(app:log()) do assert.equal("info", entry.level) end
    end)

    it("may say so without a reply", function()
      local app = start_lines [[function Agent:proceed() return nil, "close" end]]
      app:connect():send("x\n"):expect_closed()
    end)
  end)

  describe("that cannot be made ends only its connection, logged with its id:", function()
    local cases = {
      { "the factory fails", [[error("no more agents")]], "no more agents" },
      { "the factory returns nil", [[return nil]], "the agent factory returned nil" },
      { "the factory returns no object", [[return 42]], "the agent factory returned a number" },
      { "the agent has no proceed", [[return { procede = 1 }]], "the agent has no method proceed" },
    }
    for _, case in ipairs(cases) do
      it(case[1], function()
        local app = start([[
          local made = 0
          return { listen = "tcp://127.0.0.1:0", frame = "line", agent = function()
            made = made + 1
            if made == 2 then ]] .. case[2] .. [[ end
            return { proceed = function(_, line) return line end }
          end }]])
        local first, second, third = app:connect(), app:connect(), app:connect()
        second:expect_closed()
        first:echo_line("still here")
        third:echo_line("and so am I")
        local entry = app:wait_log "handler failed"
        assert.equal(2, entry.conn)
        has(case[3], entry.error)
      end)
    end
  end)

  it("that fails ends only its own connection", function()
    local app = start_lines [[
      function Agent:proceed(line)
        if line == "fail" then error("as asked") end
        return line
      end]]
    local clients = app:connect_many(5)
    clients[3]:send("fail\n"):expect_closed()
    for i, client in ipairs(clients) do
      if i ~= 3 then client:echo_line("alive") end
    end
    local entry = app:wait_log "handler failed"
    assert.equal(3, entry.conn)
    has("as asked", entry.error)
    assert.equal(1, app:stop().summary.faults)
  end)

  describe("hears opened and closed(reason) once each, when", function()
    local SCRIPT = [[
      local Agent = {}
      function Agent:opened() note("opened") end
      function Agent:closed(reason) note("closed " .. reason) end
      function Agent:proceed(what)
        local conn = self.conn
        if what == "quit" then return "bye", "close" end
        if what == "close" then conn:close() end
        if what == "twice" then conn:close() conn:close() return "bye", "close" end
        if what == "kick" then conn:close("kick") end
        if what == "abort" then conn:abort() end
        if what == "fail" then error("as asked") end
        if what == "sleep" then perilune.sleep(60) end
        if what == "big" then conn:send(("x"):rep(3e7)) end
        return what
      end
      return {
        listen = "tcp://127.0.0.1:0", agent = Agent, limits = { frame = "1k", send_buffer = "1m" }, %s
      }]]
    local function send(payload) return function(client) client:send_frame(payload) end end
    local function nothing() end
    local cases = {
      { "the peer closes", "peer", function(client) client:close() end },
      { "the peer closes in the middle of a frame", "peer", function(client) client:send("\0\0\0"):close() end },
      { "the peer resets", "reset", function(client) client:reset() end },
      { "the peer resets while the agent sleeps", "reset", function(client, app)
        client:send_frame("sleep")
        app:wait_log("opened")
        client:reset()
      end },
      { "the agent returns close", "agent", send "quit" },
      { "the agent calls close", "agent", send "close" },
      { "the agent closes again and again", "agent", send "twice" },
      { "the agent kicks", "kick", send "kick" },
      { "the agent aborts", "agent", send "abort" },
      { "the agent fails", "error", send "fail" },
      { "a frame is not completed in time", "read_timeout", function(client) client:send("\0\0") end,
        [[timeout = { read = "150ms" }]] },
      { "no frame comes", "idle_timeout", nothing, [[timeout = { idle = "150ms" }]] },
      { "not even a first frame comes", "idle_timeout", nothing, [[timeout = { first_frame = "150ms" }]] },
      { "the peer does not read", "write_timeout", send "big", [[timeout = { write = "200ms" }]] },
      { "a frame is empty", "frame_error", send "" },
      { "a frame is too large", "oversize", function(client) client:send("\0\0\4\1") end },
      { "the server drains", "drain", function(_, app) app:signal("TERM") end },
    }
    for _, case in ipairs(cases) do
      it(case[1], function()
        local app = start(SCRIPT:format(case[4] or ""))
        local client = app:connect()
        app:wait_log "opened"
        case[3](client, app)
        app:wait_log(function(entry) return entry.message:find("^closed") end)
        client:close()
        if case[2] == "drain" then app:wait_end() else app:stop() end
        assert.same({ "opened", "closed " .. case[2] }, app:notes(1))
      end)
    end

    it("the peer does not read and is not waited for", function()
      local app = start([[
        local Agent = {}
        function Agent:opened() note("opened") end
        function Agent:closed(reason) note("closed " .. reason) end
        function Agent:proceed() return ("x"):rep(3e7) end
        return { listen = "tcp://127.0.0.1:0", agent = Agent, limits = { slow_consumer = "close" } }]])
      app:connect():send_frame("x")
      app:wait_log "closed slow_consumer"
      app:stop()
      assert.same({ "opened", "closed slow_consumer" }, app:notes(1))
    end)

    it("opened() itself fails", function()
      local app = start_lines [[
        function Agent:opened() error("cannot open") end
        function Agent:proceed(line) return line end
        function Agent:closed(reason) note("closed " .. reason) end]]
      app:connect():expect_closed()
      app:wait_log "closed error"
      app:stop()
      assert.same({ "closed error" }, app:notes(1))
    end)

    it("closed() itself fails", function()
      local app = start_lines [[
        function Agent:proceed(line) return line, "close" end
        function Agent:closed(reason) note("closed " .. reason) error("in closed") end]]
      app:connect():send("x\n"):recv_all()
      has("in closed", app:wait_log("handler failed").error)
      local summary = app:stop().summary
      assert.same({ "closed agent" }, app:notes(1))
      assert.equal("agent=1", summary.reasons)
    end)
  end)

  describe("replies", function()
    local function start_replies()
      return start([[
        local Agent, WHAT = {}, {
          list = { "a", "b", "", "c" }, none = {}, number = 42, yes = true, no = false, nested = { "a", { "b" } },
          numbers = { "a", 1.5 }, func = function() end,
        }
        function Agent:proceed(what)
          if what == "nil" then return nil end
          if what == "empty" then return "" end
          if what == "misspelt" then return "x", "clsoe" end
          if what == "action" then return "x", 1 end
          local reply = WHAT[what]
          if reply == nil then return what end
          return reply
        end
        return { listen = "tcp://127.0.0.1:0", agent = Agent }]])
    end

    it("with a string, of any bytes", function()
      local client = start_replies():connect()
      for _, text in ipairs { "x", "\0\1\255", ("y"):rep(100000) } do client:echo_frame(text) end
    end)

    it("with a list of strings, a frame each", function()
      local client = start_replies():connect():send_frame("list"):send_frame("end")
      for _, text in ipairs { "a", "b", "", "c", "end" } do assert.equal(text, client:recv_frame()) end
    end)

    it("with nothing", function()
      local client = start_replies():connect()
      client:send_frame("nil"):send_frame("none"):send_frame("end")
      assert.equal("end", client:recv_frame())
    end)

    it("with a number, as Lua writes it", function()
      local client = start_replies():connect()
      client:send(frame("number") .. frame("numbers") .. frame("number"))
      for _, text in ipairs { "42", "a", "1.5", "42" } do assert.equal(text, client:recv_frame()) end
    end)

    it("with an empty frame", function()
      local client = start_replies():connect():send_frame("empty")
      assert.equal("", client:recv_frame())
    end)

    local wrong = {
      yes = "a reply is a string, a list of strings or nil, not a boolean", no = "not a boolean", func = "not a function",
      nested = "a list of replies holds strings; item 2 is a table",
      misspelt = "unknown action 'clsoe'", action = "the action after a reply is \"close\" or nothing, not a number",
    }
    for what, message in pairs(wrong) do
      it("are refused with a clear error: " .. what, function()
        local app = start_replies()
        app:connect():send_frame(what):recv_all()
        has(message, app:wait_log("handler failed").error)
      end)
      it("are refused in the middle of many frames, too: " .. what, function()
        local app = start_replies()
        local client = app:connect():send(frame("one") .. frame("two") .. frame(what) .. frame("three"))
        assert.equal("one", client:recv_frame())
        assert.equal("two", client:recv_frame())
        client:recv_all()
        has(message, app:wait_log("handler failed").error)
      end)
    end
  end)

  describe("that failed", function()
    it("may say a last word, and is told why", function()
      local app = start_lines [[
        function Agent:proceed() error({ code = 7 }) end
        function Agent:failed(err) return "sorry: " .. err.code end]]
      local client = app:connect():send("x\n")
      assert.equal("sorry: 7", client:recv_line())
      client:expect_closed()
      assert.equal(1, app:stop().summary.faults)
    end)

    it("says it after the replies before it", function()
      local app = start_lines [[
        function Agent:proceed(line) if line == "3" then error("no") end return line end
        function Agent:failed(err) return (err:match("no$")) end]]
      assert.equal("1\n2\nno\n", (app:connect():send("1\n2\n3\n4\n"):recv_all()))
    end)

    it("ends all the same when its last word fails", function()
      local app = start_lines [[
        function Agent:proceed() error("first") end
        function Agent:failed() error("second") end]]
      app:connect():send("x\n"):expect_closed()
      app:wait_log(function(entry) return entry.error and entry.error:find("second", 1, true) end)
      local summary = app:stop().summary
      assert.equal(2, summary.faults)
      assert.equal("error=1", summary.reasons)
    end)
  end)

  it("is collected once its connection has gone", function()
    local app = start_lines [[
      local alive = setmetatable({}, { __mode = "k" })
      function Agent:opened() alive[self] = true end
      function Agent:proceed(line)
        local garbage, n = 0, 0
        for i = 1, line == "count" and 2e5 or 0 do garbage = garbage + #("garbage " .. i) end
        for _ in pairs(alive) do n = n + 1 end
        return tostring(n)
      end]]
    for _, client in ipairs(app:connect_many(50)) do client:send("x\n"):recv_line() client:close() end
    local client = app:connect()
    wait.until_true("all agents but one collected", function()
      return client:send("count\n"):recv_line() == "1"
    end)
  end)
end)

describe("a worker", function()
  after_each(server.finish)

  it("runs setup and teardown once each, with its number", function()
    local app = start([[
      return {
        listen = "tcp://127.0.0.1:0", frame = "line", agent = { proceed = function(_, line) return line end },
        setup = function(app) note(("setup %d of %d"):format(app.worker, app.workers)) end,
        teardown = function(app) note(("teardown %d of %d"):format(app.worker, app.workers)) end,
      }]], { workers = 2 })
    app:connect():echo_line("x")
    app:stop()
    for _, message in ipairs { "setup 0 of 2", "setup 1 of 2", "teardown 0 of 2", "teardown 1 of 2" } do
      assert.equal(1, #app:find_log(message), message)
    end
  end)

  it("gets as many connections as the others", function()
    local app = start([[
      return { listen = "tcp://127.0.0.1:0", frame = "line", agent = function()
        note("made")
        return { proceed = function(_, line) return line end }
      end }]], { workers = 2 })
    for _, client in ipairs(app:connect_many(20)) do client:echo_line("x") end
    local counts = { [0] = 0, 0 }
    for _, entry in ipairs(app:find_log "made") do counts[entry.worker] = counts[entry.worker] + 1 end
    assert.same({ [0] = 10, 10 }, counts)
  end)
end)
