--- How a real server logs faults: as JSON, for people, whole lines in any case. All else:
--- spec/behaviour/fault_spec.lua.
local command = require "spec.support.command"
local has = require "spec.support.has"
local server = require "spec.support.server"
local wait = require "spec.support.wait"

local function fixture(name) return command.read("spec/behaviour/fixtures/" .. name .. ".lua") end

local function start(options)
  options = options or {}
  options.script, options.modules = fixture "faults", { handler = fixture "handler" }
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
end)

describe("a global", function()
  after_each(server.finish)

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
end)
