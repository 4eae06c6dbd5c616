local has = require "spec.support.has"
local server = require "spec.support.server"
local wait = require "spec.support.wait"

-- Line numbers count, so this script begins in its own first line.
local CHAT = [[
local perilune = require "perilune"
local users = {}
local Chat = {}

local function greet(id)
  local user = users[id]
  return "hello " .. user.name
end

function Chat:proceed(line)
  if line == "global" then return counter end
  if line == "write" then counter = 1 end
  if line == "module" then local text = require("handler").fail() return text end
  if line == "table" then error({ code = 7, message = "a table" }) end
  if line == "nil" then error() end
  if line == "huge" then error(("x"):rep(1e6)) end
  if line == "control" then error("a\27[2Jb\nc\0d") end
  if line == "utf8" then error("caf\233 \226\130\172") end
  if line == "object" then error(setmetatable({}, { __tostring = function() error("again") end })) end
  if line == "deep" then local function f() return 1 + f() end f() end
  if line == "sleep" then perilune.sleep("1ms") error("after the sleep") end
  if line == "ping" then return "pong" end
  if line:find("^fail ") then error(line) end if line:find("^place ") then error(line .. ":1: x", 0) end
  local text = greet(line) return text
end

function Chat:failed() return "sorry" end

return { listen = "tcp://127.0.0.1:0", frame = "line", agent = Chat, log = { frame_bytes = %d } }
]]

local function start(options)
  options = options or {}
  options.script = CHAT:format(options.frame_bytes or 0)
  options.modules = { handler = 'return { fail = function() error("in the module") end }' }
  return server.start(options)
end

-- Makes an agent fail and gives the log entry.
local function fault(app, line)
  assert.equal("sorry\n", (app:connect():send(line .. "\n"):recv_all()))
  return app:wait_log { message = "handler failed" }
end

describe("a fault", function()
  after_each(server.finish)

  it("is logged with its place, its traceback and whose it was", function()
    local app = start()
    app:connect():echo_line("ping", "pong")
    local one = app:connect():send("ann\n")
    one:recv_all()
    local entry = app:wait_log "handler failed"
    assert.same({ "error", "attempt to index local 'user' (a nil value)", "app.lua:7", "proceed", 2, 0, 1 }, {
      entry.level, entry.error, entry.place, entry.callback, entry.conn, entry.worker, entry.generation })
    assert.equal("127.0.0.1:" .. one.port, entry.peer)
    assert.equal("tcp://127.0.0.1:0", entry.listener)
    has("app.lua:7: in greet", entry.traceback)
    has("app.lua:24: in proceed", entry.traceback)
    assert.is_nil(entry.traceback:find("perilune/", 1, true), "the runtime's own lines are in the traceback")
  end)

  it("in a module of the app is shown there, with who called it", function()
    local entry = fault(start(), "module")
    assert.equal("handler.lua:1", entry.place)
    has("handler.lua:1: in fail", entry.traceback)
    has("app.lua:13", entry.traceback)
  end)

  it("after a sleep has its place all the same", function()
    local entry = fault(start(), "sleep")
    assert.equal("app.lua:21", entry.place)
    has("after the sleep", entry.error)
  end)

  it("among many frames of one piece has its place all the same", function()
    local app = start()
    assert.equal("pong\npong\nsorry\n", (app:connect():send("ping\nping\nann\nping\n"):recv_all()))
    assert.equal("app.lua:7", app:wait_log("handler failed").place)
  end)

  local texts = {
    table = "a table", ["nil"] = "nil", huge = "xxxxx", control = "a", utf8 = "caf", object = "__tostring failed",
    deep = "stack overflow",
  }
  for line, text in pairs(texts) do
    it("that raises something odd is one whole log line: " .. line, function()
      local app = start()
      local entry = fault(app, line)
      has(text, entry.error)
      assert.is_true(#entry.error < 2000)
      assert.is_nil(entry.error:find("%c"), "a control character came through")
      app:connect():echo_line("ping", "pong")
    end)
  end

  it("shows the first bytes of the frame only where the script asks for them", function()
    assert.is_nil(fault(start(), "ann").frame)
    server.finish()
    assert.equal("ann\\xff\\x00b", fault(start { frame_bytes = 6 }, "ann\255\0bcd").frame)
  end)

  describe("that repeats", function()
    it("is logged once and its repeats are counted", function()
      local app = start()
      for _ = 1, 30 do app:connect():send("ann\n"):recv_all() end
      app:connect():send("fail differently\n"):recv_all()
      local summary = app:stop().summary
      assert.equal(31, summary.faults)
      assert.equal(2, #app:find_log "handler failed")
      local again = app:find_log "handler failed again"
      assert.equal(1, #again)
      has("×30 in ", again[1].repeats)
      has("attempt to index local 'user'", again[1].error)
    end)

    it("with ever other words does not flood memory", function()
      local app = start()
      for i = 1, 300 do app:connect():send("fail " .. i .. "\n"):recv_all() end
      assert.equal(300, app:stop().summary.faults)
      assert.equal(5, #app:find_log "handler failed")
      local again = app:find_log "handler failed again"
      assert.equal(1, #again)
      assert.same({ "other errors at this place", "app.lua:23" }, { again[1].error, again[1].place })
      has("×300 in ", again[1].repeats)
    end)

    it("and claims ever other places has few entries as well", function()
      local app = start()
      for i = 1, 300 do app:connect():send("place " .. i .. "\n"):recv_all() end
      assert.equal(300, app:stop().summary.faults)
      assert.equal(32, #app:find_log "handler failed")
      local again = app:find_log "handler failed again"
      assert.same({ 1, "other errors of this listener", "tcp://127.0.0.1:0" },
        { #again, again[1].error, again[1].listener })
      has("×300 in ", again[1].repeats)
    end)

    it("is told with the time that it really took", function()
      local app = start()
      local began = wait.now()
      for _ = 1, 3 do app:connect():send("ann\n"):recv_all() end
      app:stop()
      local ms = tonumber(app:find_log("handler failed again")[1].repeats:match("^×3 in (%d+) ms$"))
      assert.is_true(ms <= 1000 * (wait.now() - began) + 1)
    end)
  end)

  it("for people is shown with the source line and the culprit underlined", function()
    local app = start { format = "text" }
    local one = app:connect():send("ann\n")
    one:recv_all()
    app:stop()
    local text = app:text()
    has("error: attempt to index local 'user' (a nil value)\n", text)
    local place = text:match("\n(  %-%-> [^\n]*)\n")
    has("app.lua:7 in greet    conn 1  127.0.0.1:" .. one.port .. " → ", place)
    has("  generation 1", place)
    assert.equal(1, select(2, text:gsub("app%.lua:7", "")))
    has("\n    app.lua:24: in proceed\n", text)
    has("6 |   local user = users[id]\n7 |   return \"hello \" .. user.name\n", text)
    local source, marks = text:match("7 | ([^\n]*)\n  | ([^\n]*)\n")
    assert.equal(source:find("user.name", 1, true), marks:find("^^^^ nil here", 1, true))
  end)

  it("disturbs nobody else: not a frame is lost", function()
    local app = start()
    local neighbours = app:connect_many(10)
    for round = 1, 10 do
      for _, one in ipairs(neighbours) do one:send("ping\nping\n") end
      app:connect():send("fail " .. round .. "\n"):recv_all()
      for _, one in ipairs(neighbours) do assert.equal("pong\npong\n", one:recv_exact(10)) end
    end
  end)
end)

-- Each in a line of its own: what is in the log is where proceed begins, line 2.
local WITHOUT_A_LINE = [[
local Agent = {}
function Agent:proceed(line)
  if line == "assert" then return assert(tonumber(line), "not a number") end
  if line == "level" then return error("of who called", 2) end
  if line == "action" then return line, "clse" end
  if line == "reply" then return true end
  if line == "list" then return { "a", "b", {} } end
  return line
end
return { listen = "tcp://127.0.0.1:0", frame = "line", agent = Agent }
]]

describe("a fault that has left no line", function()
  after_each(server.finish)

  for line, text in pairs {
    assert = "not a number", level = "of who called", action = "unknown action 'clse'", reply = "a reply is a string",
    list = "item 3 is a table",
  } do
    for _, batch in ipairs { "", "ping\n" } do
      it("is shown where the method is defined: " .. line .. (batch == "" and "" or ", in a batch"), function()
        local app = server.start { script = WITHOUT_A_LINE }
        app:connect():send(batch .. line .. "\n"):recv_all()
        local entry = app:wait_log "handler failed"
        has(text, entry.error)
        assert.equal("proceed, defined at app.lua:2", entry.place)
        has("in proceed, defined at ", entry.excerpt)
        has("2 | function Agent:proceed(line)", entry.excerpt)
      end)
    end
  end

  it("is not folded with others of the same method", function()
    local app = server.start { script = WITHOUT_A_LINE }
    for _ = 1, 20 do app:connect():send("action\n"):recv_all() end
    for _, line in ipairs { "reply", "list", "assert" } do app:connect():send(line .. "\n"):recv_all() end
    app:stop()
    assert.equal(4, #app:find_log "handler failed")
  end)

  it("names the factory that gives no agent", function()
    local app = server.start { script = 'return { listen = "tcp://127.0.0.1:0",\nagent = function() end }' }
    app:connect():recv_all()
    assert.equal("agent, defined at app.lua:2", app:wait_log("handler failed").place)
  end)
end)

describe("bad frames", function()
  after_each(server.finish)

  it("have few log entries, and are counted by listener and kind", function()
    local app = server.start { script = [[
      local Agent = {}
      function Agent:proceed(line) return line end
      local frame = { "line", max = 4 }
      return { agent = Agent, listen = {
        { "tcp://127.0.0.1:0", name = "one", frame = frame },
        { "tcp://127.0.0.1:0", name = "two", frame = frame } } }]] }
    for _ = 1, 300 do app:connect():send("too long\n"):expect_closed() end
    for _ = 1, 3 do app:connect({ listener = 2 }):send("too long\n"):expect_closed() end
    app:stop()
    assert.equal(5, #app:find_log { message = "bad frame", listener = "one" })
    assert.equal(3, #app:find_log { message = "bad frame", listener = "two" })
    local again = app:find_log "bad frame again"
    assert.same({ 1, "one", "frame too large" }, { #again, again[1].listener, again[1].error })
    has("×300 in ", again[1].repeats)
  end)
end)

describe("a global", function()
  after_each(server.finish)

  it("that is not defined is named when it is read", function()
    local entry = fault(start(), "global")
    has("undefined global 'counter'", entry.error)
    assert.equal("app.lua:11", entry.place)
  end)

  it("is named when it is written", function()
    local entry = fault(start(), "write")
    has("assignment to global 'counter'", entry.error)
    assert.equal("app.lua:12", entry.place)
  end)

  it("that is underlined in the report for people", function()
    local app = start { format = "text" }
    app:connect():send("global\n"):recv_all()
    has("^^^^^^^", app:text())
  end)
end)

describe("perilune.log", function()
  after_each(server.finish)

  it("writes whole lines, whatever the text", function()
    local app = server.start { script = [[
      local perilune = require "perilune"
      local Agent = {}
      function Agent:proceed(line)
        perilune.log("warn", line)
        return line
      end
      return { listen = "tcp://127.0.0.1:0", frame = { "line", max = "64k" }, agent = Agent }]] }
    local one = app:connect()
    for _, text in ipairs { 'quotes " and \\', "tab\t bell\7", "\255\254", "€ ünïcödé", ("long "):rep(10000) } do
      one:echo_line(text)
    end
    local entries = app:find_log { level = "warn" }
    assert.equal(5, #entries)
    assert.equal('quotes " and \\', entries[1].message)
    assert.equal("tab\t bell\7", entries[2].message)
    assert.equal("€ ünïcödé", entries[4].message)
  end)

  it("says whose it is", function()
    local app = server.start_lines [[function Agent:proceed(line) note(line) return line end]]
    local one = app:connect():echo_line("hello")
    local entry = app:wait_log "hello"
    assert.same({ 1, "127.0.0.1:" .. one.port, "tcp://127.0.0.1:0", 0, 1 },
      { entry.conn, entry.peer, entry.listener, entry.worker, entry.generation })
  end)

  it("refuses a level that does not exist", function()
    local app = server.start_lines [[function Agent:proceed(line) perilune.log("loud", line) end]]
    app:connect():send("x\n"):expect_closed()
    has("invalid option 'loud'", app:wait_log("handler failed").error)
  end)
end)
