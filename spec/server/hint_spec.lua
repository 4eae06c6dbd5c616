--- What fails at load, and methods that nothing calls, as the commands show them. Hints: spec/behaviour/hint_spec.lua.
local command = require "spec.support.command"
local has = require "spec.support.has"
local server = require "spec.support.server"

-- What fails while it is loaded.
local BROKEN = 'local Agent = {}\nfunction Agent:proceed(line) return line end\nlocal n = "x" .. Agent.name\n'
  .. 'return { listen = "tcp://127.0.0.1:0", frame = "line", agent = Agent }\n'
local SHOWN = '3 | local n = "x" .. Agent.name\n  |                        ^^^^ nil here\n'
  .. 'hint: (Agent.name or "") leaves it out;'

describe("what fails at load is shown in the same way", function()
  local folder
  before_each(function() folder = command.folder() end)
  after_each(function()
    server.finish()
    command.remove(folder)
  end)

  for _, name in ipairs { "check", "run" } do
    it("by perilune " .. name, function()
      command.write(folder .. "/app.lua", BROKEN)
      local result = command.run { name, dir = folder }
      assert.equal(78, result.code)
      has(SHOWN, result.err)
    end)
  end

  it("by --watch", function()
    local whole = BROKEN:gsub("[^\n]*Agent%.name\n", "")
    local app = server.start { script = whole, args = { "--watch" } }
    command.write(app.folder .. "/app.lua", BROKEN)
    has(SHOWN, app:wait_log("reload failed: the old generation serves on").excerpt)
    app:connect():echo_line("still there")
  end)

  it("with the token where the syntax is wrong", function()
    command.write(folder .. "/app.lua", "local x = 1\nlocal y = x +* 2\nreturn {}\n")
    local result = command.run { "check", dir = folder }
    has("error: unexpected symbol near '*'\n  --> app.lua:2\n", result.err)
    has("2 | local y = x +* 2\n  |              ^\n", result.err)
  end)

  it("by perilune exec, where globals are plain", function()
    has("hint: did you mean 'print'?", command.run({ "exec", "-e", "pritn(1)" }).err)
    has("hint: 'f' is a local from line 2 on, which is below: move its declaration up",
      command.run({ "exec", "-e", "f()\nlocal function f() return 1 end return f" }).err)
  end)

  it("by perilune exec", function()
    local result = command.run { "exec", "-e", "local t = {}\nprint('x' .. t.name)" }
    has("2 | print('x' .. t.name)\n  |                ^^^^ nil here\nhint: (t.name or \"\")", result.err)
  end)
end)

describe("a method that nothing calls, and whose name is nearly one of the server's,", function()
  local STRAY = [[
    local Base, Agent = {}, {}
    function Base:drian() end
    function Base.opened() end
    function Agent:proceed(line) self.conn:close() self:open() return line end
    function Agent:close() return self end
    function Agent:open() return self end
    function Agent:opend() return self end
    function Agent:messages() return self end
    return { listen = "tcp://127.0.0.1:0", frame = "line", agent = setmetatable(Agent, { __index = Base }) }]]
  local TOLD = '"close" (did you mean "closed"?), "drian" (did you mean "drain"?)'

  after_each(server.finish)

  it("is told of by perilune check, which accepts the script all the same", function()
    local folder = command.folder()
    command.write(folder .. "/app.lua", STRAY)
    local result = command.run { "check", dir = folder }
    assert.equal(0, result.code)
    assert.equal("perilune: warning: app.lua: nothing calls these methods of the agent: " .. TOLD .. "\n", result.err)
    has("app.lua: ok", result.out)
    command.remove(folder)
  end)

  it("is in the log, at the start and after a reload", function()
    local app = server.start { script = STRAY }
    local message = "the agent has methods that nothing calls"
    assert.same({ "warn", TOLD }, { app:wait_log(message).level, app:wait_log(message).methods })
    command.write(app.folder .. "/app.lua", (STRAY:gsub("Base:drian", "Base:drain")))
    app:signal "HUP"
    app:wait_log "reloaded"
    assert.equal('"close" (did you mean "closed"?)', app:wait_log(message, nil, 2).methods)
  end)

  -- Each has its own way of saying that a client has come, has gone, is silent …
  it("is known by the names that other servers have for it", function()
    local folder = command.folder()
    for name, meant in pairs {
      on_close = "closed", onClose = "closed", connectionLost = "closed", disconnected = "closed", terminate = "closed",
      channelInactive = "closed", connected = "opened", connectionMade = "opened", init = "opened", on_open = "opened",
      channelActive = "opened", tick = "timeout", on_timer = "timeout", on_idle = "timeout", error = "failed",
      exceptionCaught = "failed", frame_error = "malformed", bad_frame = "malformed", lineLengthExceeded = "oversize",
      on_drain = "writable", eof_received = "eof", shutdown = "drain", on_save = "snapshot", code_change = "upgrade",
    } do
      command.write(folder .. "/app.lua", ([[local A = {}
        function A:proceed(line) return line end
        function A:%s() end
        return { listen = "tcp://:0", frame = "line", agent = A }]]):format(name))
      local result = command.run { "check", dir = folder }
      assert.equal(0, result.code)
      has(('nothing calls these methods of the agent: "%s" (did you mean "%s"?)'):format(name, meant), result.err)
    end
    command.write(folder .. "/app.lua", [[local A = {}
      function A:proceed(line) return line end
      function A:message(line) return line end
      return { listen = "tcp://:0", frame = "line", agent = A }]])
    has('"message" (it takes what is sent to a name, and nothing calls perilune.register: frames come to proceed)',
      command.run({ "check", dir = folder }).err)
    for _, name in ipairs { "on_data", "receive", "dataReceived", "handle", "channelRead", "on_message" } do
      command.write(folder .. "/app.lua",
        ('local A = { %s = function() end }\nreturn { listen = "tcp://:0", agent = A }'):format(name))
      local result = command.run { "check", dir = folder }
      assert.equal(78, result.code)
      has(('no proceed: the table has no function proceed; it has "%s" (did you mean "proceed"?)'):format(name),
        result.err)
    end
    command.remove(folder)
  end)

  it("is no matter where the script calls it, or has the server's as well", function()
    local calm = STRAY:gsub("self:open%(%)", "self:open() self.close(self)"):gsub("drian", "drain")
    local app = server.start { script = calm }
    app:connect():send "x\n"
    app:stop()
    assert.same({}, app:find_log "the agent has methods that nothing calls")
  end)
end)

describe("a method that was written without self", function()
  after_each(server.finish)

  local SCRIPT = [[
    local A = {}
    function A.proceed(line) return line end
    A.closed = function(reason) return reason end
    function A.timeout(self) return true end
    function A:failed() return "sorry" end
    return { listen = "tcp://127.0.0.1:0", frame = "line", agent = A }]]

  it("is told of by perilune check, and in the log", function()
    local app = server.start { script = SCRIPT }
    local result = command.run { "check", app.folder .. "/app.lua" }
    assert.equal(0, result.code)
    assert.equal("perilune: warning: app.lua:2: proceed has no self: write function A:proceed(line)\n"
      .. "perilune: warning: app.lua:3: closed has no self: write closed = function(self, reason)\n", result.err)
    local told = app:find_log "the script has what is hardly meant"
    assert.equal(2, #told)
    assert.equal("app.lua:2: proceed has no self: write function A:proceed(line)", told[1].error)
  end)
end)

describe("an agent that is to migrate and cannot", function()
  after_each(server.finish)

  it("is told of by perilune check, unless it inherits what it needs", function()
    local app = server.start { script = [[
      local Base = { upgrade = function() end }
      local A = setmetatable({}, { __index = Base })
      function A:proceed(line) return line end
      return { listen = "tcp://127.0.0.1:0", frame = "line", agent = A, reload = "migrate" }]] }
    local result = command.run { "check", app.folder .. "/app.lua" }
    assert.equal('perilune: warning: reload = "migrate", but the agent has no method snapshot: at a reload '
      .. "its connections stay with the old code\n", result.err)
    assert.equal(1, #app:find_log "the script has what is hardly meant")
  end)

  it("is told of for a kind of agents without a socket, which is named", function()
    local app = server.start { script = [[
      local A = { snapshot = function() end, upgrade = function() end }
      function A:proceed(line) return require("perilune").call("room:1", line) end
      local Room = { message = function() return 1 end, upgrade = function() end }
      return { listen = "tcp://127.0.0.1:0", frame = "line", agent = A, reload = "migrate",
        agents = { room = { agent = Room } } }]] }
    local result = command.run { "check", app.folder .. "/app.lua" }
    assert.equal('perilune: warning: agents.room: reload = "migrate", of its own or of the top level, but the agent has'
      .. " no method snapshot: at a reload those that there are stay with the old code\n", result.err)
  end)
end)

describe("a script that keeps what it does not take", function()
  local function warnings_of(settings)
    local folder = command.folder()
    finally(function() command.remove(folder) end)
    command.write(folder .. "/app.lua", ([[local function none(app) return app.worker end
      return { listen = "tcp://127.0.0.1:0", agent = { proceed = function() end }, snapshot = none,
        %s }]]):format(settings))
    return command.run({ "check", folder .. "/app.lua" }).err
  end

  it("is told of by perilune check", function()
    local TEXT = "perilune: warning: snapshot(app) keeps what the next generation's setup(app, data) is given, but "
      .. "setup "
    assert.equal(TEXT .. "is missing\n", warnings_of "")
    assert.equal(TEXT .. "takes no data\n", warnings_of "setup = none")
    assert.equal("", warnings_of "setup = function(_, data) return data end")
    assert.equal("", warnings_of "setup = function(...) return ... end")
  end)
end)
