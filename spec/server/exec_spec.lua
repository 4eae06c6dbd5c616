--- perilune exec: a Lua file that may wait, with an exit code that tells how it went.
local command = require "spec.support.command"
local has = require "spec.support.has"
local server = require "spec.support.server"
local wait = require "spec.support.wait"

local folder
before_each(function() folder = command.folder() end)
after_each(function() command.remove(folder) end)

local function exec(...) return command.run { "exec", dir = folder, ... } end

local function exec_file(text, ...)
  command.write(folder .. "/tool.lua", text)
  return exec("tool.lua", ...)
end

-- For a shell: until process $p catches SIGTERM and waits in a call of the system. Sooner, and under ThreadSanitizer,
-- a signal's handler has to wait until that call returns.
local AWAIT_ASLEEP = [[for i in $(seq 3000); do
      [ $(grep -c -e "^State:.S" -e "^SigCgt:.*[4-7c-f]...$" /proc/$p/status) = 2 ] && break; sleep 0.02
    done]]

-- What a shell says of a run that is sent a signal once it has written "ready", and waits if it is to.
local function signalled(signal, code)
  local is_there = code:find "while" and "true" or 'grep -q "^State:.S" /proc/$p/status'
  command.write(folder .. "/tool.lua", "io.write('ready') io.flush() local perilune = require 'perilune' " .. code)
  local line = ([[cd %s; mkfifo in; exec 9<>in; %s exec tool.lua <in >out 2>err & p=$!
    for i in $(seq 500); do [ -s out ] && %s && break; sleep 0.01; done
    kill -%s $p; wait $p; echo $?]]):format(folder, command.binary, is_there, signal)
  local code_text = command.shell("timeout 20 bash -c '" .. line:gsub("'", [['\'']]) .. "'")
  return tonumber(code_text), command.read(folder .. "/err")
end

describe("perilune exec", function()
  it("that is interrupted before it has all of the script says that, and no place of ours", function()
    local line = ([[cd %s; mkfifo in; exec 9<>in; %s exec - <in >out 2>err & p=$!
      %s; kill -TERM $p; wait $p; echo $?]]):format(folder, command.binary, AWAIT_ASLEEP)
    assert.equal(143, tonumber(command.shell("timeout 100 bash -c '" .. line .. "'")))
    assert.equal("perilune exec: interrupted before it ran\n", command.read(folder .. "/err"))
  end)

  it("runs a file with its arguments", function()
    local result = exec_file("#!/usr/bin/env -S perilune exec\nprint(arg[0], arg[1], arg[2], ...)", "-x", "--set")
    assert.same({ 0, "tool.lua\t-x\t--set\t-x\t--set\n", "" }, { result.code, result.out, result.err })
  end)

  it("runs a text", function()
    for _, flag in ipairs { "-e", "--eval" } do
      local result = exec(flag, "print(arg[0], ...)", "a", "-b")
      assert.same({ 0, "-e\ta\t-b\n", "" }, { result.code, result.out, result.err })
    end
  end)

  it("runs standard input", function()
    local line = ("echo 'print(1, ...)' | %s exec - a"):format(command.binary)
    assert.equal("1\ta\n", command.shell(line))
  end)

  it("has all of LuaJIT, and modules beside the file", function()
    command.write(folder .. "/lib.lua", "return 42")
    local result = exec_file [[
      made = require "lib" + require("ffi").sizeof "int"
      print(made, io.popen("echo shell"):read(), debug.getinfo(1).what)]]
    assert.same({ 0, "46\tshell\tmain\n", "" }, { result.code, result.out, result.err })
  end)

  it("may wait, and ends when it is done", function()
    local began = wait.now()
    local result = exec("-e", [[
      local perilune = require "perilune"
      local began = perilune.now()
      perilune.sleep("150ms")
      pcall(perilune.sleep, 0.15)
      print(perilune.now() - began >= 0.3)]])
    assert.same({ 0, "true\n", "" }, { result.code, result.out, result.err })
    assert.is_true(wait.now() - began >= 0.3)
  end)

  it("writes log entries", function()
    local result = exec("-e", [[require("perilune").log("warn", "hello")]])
    assert.equal(0, result.code)
    has('"level":"warn","message":"hello"', result.err)
    result = exec("-e", [[require("perilune").log("warn", "hello", { to = "you", n = 0.5, ok = true })]])
    has('"message":"hello","n":0.5,"ok":true,"to":"you"}', result.err)
    result = exec("-e", [[require("perilune").log("warn", "hello", "you")]])
    assert.equal(1, result.code)
    has("fields are a table", result.err)
  end)

  describe("honours os.exit", function()
    for what, case in pairs {
      ["with a number"] = { "os.exit(7)", 7 }, ["without one"] = { "os.exit()", 0 },
      ["with true"] = { "os.exit(true)", 0 }, ["with false"] = { "os.exit(false)", 1 },
      ["whatever the script catches"] =
        { "while true do pcall(os.exit, 3) end", 3 },
      ["in a coroutine"] = { "coroutine.wrap(function() os.exit(4) end)() print 'not here'", 4 },
      ["after a wait"] = { "require('perilune').sleep(0.01) os.exit(5)", 5 },
    } do
      it(what, function()
        local result = exec("-e", "io.write 'flushed ' " .. case[1])
        assert.same({ case[2], "flushed ", "" }, { result.code, result.out, result.err })
      end)
    end
  end)

  describe("shows an error with its line, the culprit underlined, and ends with 1:", function()
    it("of a file", function()
      local result = exec_file "local function greet(user)\n  return 'hello ' .. user.name\nend\nprint(greet())"
      assert.same({ 1, "" }, { result.code, result.out })
      has("error: attempt to index local 'user' (a nil value)\n  --> tool.lua:2 in greet\n", result.err)
      has("2 |   return 'hello ' .. user.name\n  |                      ^^^^ nil here\n", result.err)
      has("    tool.lua:4: in main chunk\n", result.err)
    end)

    it("of a text", function()
      local result = exec("-e", "local t\nprint(t.x)")
      assert.equal(1, result.code)
      has("  --> -e:2 in main chunk\n1 | local t\n2 | print(t.x)\n  |       ^ nil here\n", result.err)
    end)

    it("of a module", function()
      command.write(folder .. "/lib.lua", "return { fail = function() error('in the module') end }")
      local result = exec_file "require('lib').fail()"
      assert.equal(1, result.code)
      has("  --> ./lib.lua:1 in fail\n1 | return", result.err)
    end)

    it("after a wait", function()
      local result = exec_file "require('perilune').sleep(0.01)\nerror 'late'"
      assert.equal(1, result.code)
      has("error: late\n  --> tool.lua:2", result.err)
    end)

    it("that is no text", function()
      assert.equal(1, exec("-e", "error {}").code)
      has("(error object is a table)", exec("-e", "error {}").err)
    end)

    it("in the syntax", function()
      local result = exec_file "local x = 1\nlocal y = = 2"
      assert.equal(1, result.code)
      has("error: unexpected symbol near '='\n  --> tool.lua:2\n1 | local x = 1\n2 | local y = = 2\n", result.err)
    end)

    it("that it waits for what never comes", function()
      local result = exec("-e", "\ncoroutine.yield()")
      assert.equal(1, result.code)
      has("deadlock: the script waits for what never comes", result.err)
      has("--> -e:2", result.err)
    end)

    it("that it would wait inside a coroutine of its own", function()
      local result = exec("-e", "coroutine.wrap(function() require('perilune').sleep(1) end)()")
      assert.equal(1, result.code)
      has("perilune.sleep: cannot wait inside a coroutine of the script's own", result.err)
    end)

    it("that there is no such file", function()
      local result = exec "nowhere.lua"
      assert.same({ 1, "" }, { result.code, result.out })
      assert.equal("perilune exec: cannot read nowhere.lua: No such file or directory\n", result.err)
    end)

    it("that it is bytecode", function()
      local result = exec_file(string.dump(function() end))
      assert.equal(1, result.code)
      has("tool.lua is bytecode; only text is run", result.err)
    end)
  end)

  describe("refuses with 2", function()
    for what, case in pairs {
      ["nothing to run"] = { {}, "expects a Lua file, as in 'perilune exec tool.lua'" },
      ["a text that is missing"] = { { "-e" }, "--eval needs a value: --eval CODE" },
      ["an unknown option"] = { { "--evil", "x" }, "unknown option --evil (did you mean --eval?)" },
    } do
      it(what, function()
        local result = exec(unpack(case[1]))
        assert.same({ 2, "" }, { result.code, result.out })
        has(case[2], result.err)
      end)
    end
  end)

  describe("is ended by a signal, and says where it was:", function()
    for what, case in pairs {
      ["in a loop"] = { "INT", "while true do end", 130 },
      ["in a loop that catches all"] = { "INT", "while true do pcall(error) end", 130 },
      ["while it waits"] = { "TERM", "perilune.sleep(60)", 143 },
      ["in a read"] = { "INT", "io.read()", 130 },
    } do
      it(what, function()
        -- ThreadSanitizer holds a signal back until the program calls the system.
        if server.sanitizer == "thread" and case[2]:find "while" then return pending "not with ThreadSanitizer" end
        local code, err = signalled(case[1], case[2])
        assert.equal(case[3], code)
        -- A read that is cut short may let the script come to its end before it is told.
        has("error: interrupted\n  --> " .. (case[2] == "io.read()" and "" or "tool.lua:1"), err)
      end)
    end
  end)
end)
