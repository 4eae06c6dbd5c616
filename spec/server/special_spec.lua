--- What is opened by name and is no file: a FIFO above all, which whoever opens it would wait for.
local command = require "spec.support.command"
local has = require "spec.support.has"
local operator = require "spec.support.operator"
local server = require "spec.support.server"

local SCRIPT = [[
  local Agent = {}
  %s
  function Agent:proceed(line) return line end
  return { listen = "tcp://127.0.0.1:0", frame = "line", agent = Agent, %s }]]

local function script(first, settings) return SCRIPT:format(first or "", settings or "") end

-- In place of the file that is there.
local function turn(path, into)
  local lines = {
    ["a FIFO"] = "rm -f %s && mkfifo %s", ["a folder"] = "rm -f %s && mkdir %s",
    ["a device"] = "rm -f %s && ln -s /dev/tty %s",
    ["a socket"] = "rm -f %s && python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"%s\")'",
    ["a file of the kernel's"] = "rm -f %s && ln -s /proc/self/mem %s",
  }
  assert(os.execute(lines[into]:format(path, path)) == 0)
end

local KINDS = { "a FIFO", "a folder", "a device", "a socket", "a file of the kernel's" }

-- The shell's exit code where a command hangs is 124.
local function check(path) return command.run { "check", path } end

describe("a script that is", function()
  after_each(server.finish)

  for _, kind in ipairs(KINDS) do
    it(kind .. " is refused at the start, and by check", function()
      local folder = command.folder()
      turn(folder .. "/app.lua", kind)
      for _, result in ipairs { check(folder .. "/app.lua"), command.run { "run", folder .. "/app.lua" } } do
        assert.equal(78, result.code, result.err)
        has(kind == "a folder" and "is a folder" or "app.lua: is " .. kind .. ", not a file", result.err)
      end
      command.remove(folder)
    end)

    it(kind .. " since fails the reload, and the next one works", function()
      local app = server.start { script = script(), control = "control.sock" }
      local path = app.folder .. "/app.lua"
      turn(path, kind)
      local result = operator.run(app, "reload", "--wait")
      assert.equal(1, result.code)
      has("is " .. kind .. ", not a file", result.err)
      app:connect():echo_line("x"):close()
      os.execute("rm -rf " .. path)
      command.write(path, script "-- changed")
      assert.equal(0, operator.run(app, "reload", "--wait").code)
      turn(path, kind)
      app:signal "HUP"
      assert.equal(0, app:stop().code)
    end)
  end

  it("a FIFO since fails an upgrade", function()
    local app = server.start { script = script() }
    turn(app.folder .. "/app.lua", "a FIFO")
    assert.equal("upgrade failed: this process serves on", app:try_upgrade().message)
    app:connect():echo_line("x"):close()
  end)
end)

describe("a module that is", function()
  after_each(server.finish)

  local function expect_refusal(result, text)
    assert.equal(78, result.code, result.err)
    has(text, result.err)
  end

  for _, kind in ipairs { "a FIFO", "a socket" } do
    it(kind .. " is refused, be it the app's or the system's", function()
      local folder = command.folder()
      command.write(folder .. "/app.lua", script([[require "words"]], [[modules = { "words" }]]))
      turn(folder .. "/words.lua", kind)
      expect_refusal(check(folder .. "/app.lua"), "words.lua is " .. kind .. ", not a file")
      os.execute(("mkdir %s/system && rm %s/words.lua"):format(folder, folder))
      turn(folder .. "/system/words.lua", kind)
      for _, variable in ipairs { "LUA_PATH", "LUA_CPATH" } do
        local env = { [variable] = folder .. "/system/?.lua;;" }
        expect_refusal(command.run { "check", folder .. "/app.lua", env = env },
          "system/words.lua is " .. kind .. ", not a file")
      end
      command.remove(folder)
    end)
  end

  it("a FIFO and that nobody requires does no harm", function()
    local app = server.start { script = script(), control = "control.sock" }
    turn(app.folder .. "/other.lua", "a FIFO")
    command.write(app.folder .. "/app.lua", script "-- changed")
    assert.equal(0, operator.run(app, "reload", "--wait").code)
    app:connect():echo_line("x"):close()
  end)
end)

describe("a log file that is", function()
  after_each(server.finish)

  for kind, text in pairs {
    ["a FIFO"] = "nobody reads this FIFO, or it is a socket",
    ["a socket"] = "nobody reads this FIFO, or it is a socket", ["a folder"] = "Is a directory",
  } do
    it(kind .. " is refused at the start, and kept out of a reopening", function()
      local folder = command.folder()
      turn(folder .. "/app.log", kind)
      command.write(folder .. "/app.lua", script())
      local result = command.run { "run", folder .. "/app.lua", "--log-file=" .. folder .. "/app.log" }
      assert.equal(1, result.code)
      has(text, result.err)
      command.remove(folder)
      local app = server.start { script = script(), log_file = "app.log" }
      os.execute(("mv %s/app.log %s/old"):format(app.folder, app.folder))
      turn(app.folder .. "/app.log", kind)
      app:signal "USR1"
      app:connect():echo_line("x"):close()
      app.log_file = app.folder .. "/old"
      has(text, app:wait_log("cannot reopen the log file: the old one is kept").error)
    end)
  end
end)

describe("a socket's path that is", function()
  after_each(server.finish)

  for _, kind in ipairs { "a FIFO", "a folder", "a device" } do
    it(kind .. " is left alone", function()
      local folder = command.folder()
      turn(folder .. "/socket", kind)
      for _, argument in ipairs { "--control=" .. folder .. "/socket", "--listen=unix://" .. folder .. "/socket" } do
        local result = server.start_failing { script = script(), args = { argument } }
        assert.equal(1, result.code)
        has("exists and is not a socket; it is left alone", result.text)
      end
      assert.equal(1, command.run({ "status", "--control=" .. folder .. "/socket" }).code)
      command.remove(folder)
    end)
  end
end)

describe("a FIFO on the command line", function()
  local folder
  before_each(function()
    folder = command.folder()
    turn(folder .. "/fifo", "a FIFO")
    turn(folder .. "/fifo.lua", "a FIFO")
  end)
  after_each(function() command.remove(folder) end)

  -- Arguments, exit code, what is said.
  local CASES = {
    { { "test", "fifo" }, 1, "perilune test: fifo: is a FIFO, not a file" },
    { { "test", "specs" }, 1, "c_spec.lua: is a FIFO, not a file" },
    { { "test", "specs/a_spec.lua", "--helper=./fifo.lua" }, 1, "fifo.lua: is a FIFO, not a file" },
    { { "test", "specs/a_spec.lua", "--coverage=fifo" }, 1, "--coverage: fifo: is a FIFO, not a file" },
    { { "replay", "fifo" }, 2, "cannot read the trace fifo: is a FIFO, not a file" },
    { { "exec", "fifo" }, 1, "perilune exec: cannot read fifo: is a FIFO, not a file" },
  }

  for _, case in ipairs(CASES) do
    it("is not waited for: " .. table.concat(case[1], " "), function()
      os.execute(("mkdir '%s/specs'"):format(folder))
      command.write(folder .. "/specs/a_spec.lua", 'it("passes", function() end)')
      if case[1][2] == "specs" then turn(folder .. "/specs/c_spec.lua", "a FIFO") end
      case[1].dir = folder
      local result = command.run(case[1])
      has(case[3], result.err .. result.out)
      assert.equal(case[2], result.code)
    end)
  end

  it("is read where a shell has opened it", function()
    local line = [[bash -c 'timeout 60 %s exec <(echo "print(1)"); timeout 60 %s replay <(echo no) 2>&1']]
    local out = command.shell(line:format(command.binary, command.binary))
    has("1\n", out)
    has("cannot be read", out:gsub("no trace", "cannot be read"):gsub(":1: ", "cannot be read"))
  end)
end)
