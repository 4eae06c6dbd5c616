--- What fails at load, and methods that nothing calls, as the commands show them. Hints: spec/behaviour/hint_spec.lua.
local command = require "spec.support.command"
local has = require "spec.support.has"
local server = require "spec.support.server"

-- What fails while it is loaded.
local BROKEN = 'local Agent = {}\nfunction Agent:proceed(line) return line end\nlocal n = "x" .. Agent.name\n'
  .. 'return { listen = "tcp://127.0.0.1:0", frame = "line", agent = Agent }\n'
local SHOWN = '3 | local n = "x" .. Agent.name\n  |                        ^^^^ nil here\nhint: (name or "") leaves it out;'

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
    has("2 | print('x' .. t.name)\n  |                ^^^^ nil here\nhint: (name or \"\")", result.err)
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

  it("is no matter where the script calls it, or has the server's as well", function()
    local calm = STRAY:gsub("self:open%(%)", "self:open() self.close(self)"):gsub("drian", "drain")
    local app = server.start { script = calm }
    app:connect():send "x\n"
    app:stop()
    assert.same({}, app:find_log "the agent has methods that nothing calls")
  end)
end)
