--- Where the modules of an app may come from: its own folder, whatever links lead there. Those that are loaded late:
--- spec/behaviour/require_spec.lua.
local command = require "spec.support.command"
local has = require "spec.support.has"
local server = require "spec.support.server"
local unistd = require "posix.unistd"

local MODULE = [[return "read %s"]]
local SCRIPT = [[local text = require %q
  return { listen = "tcp://127.0.0.1:0", frame = "line",
    agent = { text = text, proceed = function() return text end } }]]

describe("require", function()
  local folder

  local function link(target, name) assert(unistd.link(target, folder .. "/" .. name, true)) end

  local function write(name, text)
    os.execute(("mkdir -p '%s/%s'"):format(folder, name:match("^(.*)/") or "."))
    return command.write(folder .. "/" .. name, text)
  end

  local function script(name, module) return write(name, SCRIPT:format(module or "mod")) end

  local function check(path) return command.run { "check", path, dir = folder } end

  local function assert_loads(path)
    local result = check(path)
    assert.equal(0, result.code, result.err)
  end

  local function refusal(path)
    local result = check(path)
    assert.equal(78, result.code, result.out)
    return result.err
  end

  before_each(function()
    folder = command.folder()
    script("app/app.lua")
    write("out/mod.lua", MODULE:format("outside"))
  end)

  after_each(function()
    server.finish()
    command.remove(folder)
  end)

  describe("refuses", function()
    it("a link to a file outside of the app's folder: says which, where to, and what to do", function()
      link("../out/mod.lua", "app/mod.lua")
      local message = refusal("app/app.lua")
      has("'mod' is not in the app's folder: app/mod.lua is a symbolic link to " .. folder .. "/out/mod.lua", message)
      has("copy it into " .. folder .. "/app", message)
      has("--> app/app.lua:1", message)
    end)

    it("a link from an absolute place", function()
      link(folder .. "/out/mod.lua", "app/mod.lua")
      has("app/mod.lua is a symbolic link to", refusal(folder .. "/app/app.lua"))
    end)

    it("a file in a folder that is such a link, and names the folder", function()
      script("app/app.lua", "lib.mod")
      link("../out", "app/lib")
      has("app/lib is a symbolic link to " .. folder .. "/out", refusal("app/app.lua"))
    end)

    it("an init.lua in such a folder", function()
      write("out/init.lua", MODULE:format("outside"))
      link("../out", "app/mod")
      has("app/mod is a symbolic link to " .. folder .. "/out", refusal("app/app.lua"))
    end)

    it("a link to a link that leads out", function()
      link("../out/mod.lua", "app/other.lua")
      link("other.lua", "app/mod.lua")
      has("a symbolic link to " .. folder .. "/out/mod.lua", refusal("app/app.lua"))
    end)

    it("a folder whose name only begins like the app's", function()
      write("app2/mod.lua", MODULE:format("outside"))
      link("../app2/mod.lua", "app/mod.lua")
      has("is a symbolic link to " .. folder .. "/app2/mod.lua", refusal("app/app.lua"))
    end)

    it("such a link in --json", function()
      link("../out/mod.lua", "app/mod.lua")
      local result = command.run { "check", "--json", "app/app.lua", dir = folder }
      assert.equal(78, result.code)
      has("app/mod.lua is a symbolic link to", result.out)
    end)

    it("such a link in a running server, for the one connection that asks", function()
      link("../out/mod.lua", "app/mod.lua")
      write("app/app.lua", [[local Agent = {}
        function Agent:proceed(line) return line == "load" and require "mod" or line end
        return { listen = "tcp://127.0.0.1:0", frame = "line", agent = Agent }]])
      local app = server.start { file = folder .. "/app/app.lua" }
      app:connect():send("load\n"):expect_closed()
      local entry = app:wait_log "handler failed"
      has("app/mod.lua is a symbolic link to " .. folder .. "/out/mod.lua", entry.error)
      assert.equal("app.lua:2", entry.place)
      app:connect():echo_line("others")
    end)
  end)

  describe("of a module in C", function()
    local APP = [[local module = require %q
      return { listen = "tcp://127.0.0.1:0", frame = "line", %s
        agent = { proceed = function() return type(module) end } }]]

    local function use(name, settings) return check(write("app/app.lua", APP:format(name, settings))) end

    it("takes what is installed, if it is named in modules", function()
      has('add modules = { "posix.unistd" }', use("posix.unistd", "").err)
      local result = use("posix.unistd", [[modules = { "posix.unistd" },]])
      assert.equal(0, result.code, result.err)
      local app = server.start { file = folder .. "/app/app.lua" }
      assert.equal("table", app:connect():send("x\n"):recv_line())
    end)

    it("takes none that lies beside the script, named or not, wherever the server is started", function()
      local installed = assert(package.searchpath("lfs", package.cpath), "lfs is not installed")
      os.execute(("cp '%s' '%s/app/lfs.so'"):format(installed, folder))
      -- The installed one is taken instead: its address is not in what is mapped of ours.
      local maps = [[
        local lfs = require "lfs"
        for line in io.lines "/proc/self/maps" do assert(not line:find("app/lfs.so", 1, true), line) end
        local settings = { listen = "tcp://127.0.0.1:0", frame = "line", modules = { "lfs" },
          unsafe = { "io.special" }, agent = function() end }
        assert(lfs.attributes) return settings]]
      for _, place in ipairs { "", "/app" } do
        write("app/app.lua", maps)
        local result = command.run { "check", folder .. "/app/app.lua", dir = folder .. place }
        assert.equal(0, result.code, result.err)
        os.execute(("cp '%s' '%s/app/only_here.so'"):format(installed, folder))
        for _, settings in ipairs { "", [[modules = { "only_here" },]] } do
          write("app/app.lua", APP:format("only_here", settings))
          result = command.run { "check", folder .. "/app/app.lua", dir = folder .. place }
          assert.equal(78, result.code, settings .. place)
          has("no module 'only_here' beside the script", result.err)
        end
      end
    end)

    it("takes no Lua from where the server is started, but from beside the script", function()
      write("elsewhere/stray.lua", "return 1")
      write("app/app.lua", APP:format("stray", [[modules = { "stray" },]]))
      local result = command.run { "check", folder .. "/app/app.lua", dir = folder .. "/elsewhere" }
      assert.equal(78, result.code)
      has("no module 'stray' beside the script", result.err)
    end)
  end)

  describe("follows", function()
    it("links that stay inside, of files and of folders", function()
      write("app/lib/real.lua", MODULE:format("inside"))
      link("lib/real.lua", "app/mod.lua")
      assert_loads("app/app.lua")
      script("app/app.lua", "alias.real")
      link("lib", "app/alias")
      assert_loads("app/app.lua")
    end)

    it("links out of the folder and back", function()
      write("app/real.lua", MODULE:format("inside"))
      link("../app/real.lua", "app/mod.lua")
      assert_loads("app/app.lua")
      os.remove(folder .. "/app/mod.lua")
      link(folder .. "/app/real.lua", "app/mod.lua")
      assert_loads("app/app.lua")
    end)

    it("the link that the app's own folder is reached by", function()
      script("releases/42/app.lua")
      write("releases/42/mod.lua", MODULE:format("42"))
      link("releases/42", "current")
      assert_loads("current/app.lua")
      assert_loads(folder .. "/current/app.lua")
      assert.equal(0, command.run({ "check", dir = folder .. "/current" }).code)
    end)

    it("what a script that is a link itself has beside it", function()
      link("../app/app.lua", "out/app.lua")
      assert_loads("out/app.lua")
    end)
  end)

  it("stays with the folder that the script came from when a link to it is turned", function()
    for _, release in ipairs { "42", "43" } do
      write("releases/" .. release .. "/mod.lua", MODULE:format(release))
      write("releases/" .. release .. "/app.lua", [[local Agent = {}
        function Agent:proceed() return require "mod" end
        return { listen = "tcp://127.0.0.1:0", frame = "line", agent = Agent }]])
    end
    link("releases/42", "current")
    local app = server.start { file = folder .. "/current/app.lua" }
    os.remove(folder .. "/current")
    link("releases/43", "current")
    assert.equal("read 42", app:connect():send("x\n"):recv_line())
  end)

  it("finds nothing behind a link that leads nowhere", function()
    link("nowhere.lua", "app/mod.lua")
    has("no module 'mod' beside the script", refusal("app/app.lua"))
  end)
end)
