--- `perilune test` as a command: what it says and how it ends.
local command = require "spec.support.command"
local json_decode = require "spec.support.json_decode"
local wait = require "spec.support.wait"

local folder

setup(function() folder = command.folder() end)
teardown(function() command.remove(folder) end)

local ECHO = 'return { listen = "tcp://127.0.0.1:9000", frame = "line", '
  .. 'agent = { proceed = function(_, l) return l end } }'

local function run(call)
  table.insert(call, 1, "test")
  call.dir = call.dir or folder
  return command.run(call)
end

-- Runs the body of a describe, in a file of that name.
local function spec(name, body, ...)
  local text = 'local perilune = require "perilune.test"\ndescribe("' .. name .. '", function()\n' .. body .. "\nend)\n"
  command.write(folder .. "/" .. name .. "_spec.lua", text)
  return run { name .. "_spec.lua", "-o", "gtest", ... }
end

local function assert_has(part, result)
  local text = result.out .. result.err
  assert(text:find(part, 1, true), ("no %q in:\n%s"):format(part, text))
end

local function assert_code(code, result)
  assert(result.code == code, ("exit code %s\n%s%s"):format(tostring(result.code), result.out, result.err))
end

describe("perilune test", function()
  setup(function() command.write(folder .. "/echo.lua", ECHO) end)

  it("passes what passes", function()
    local result = spec("good", [[
      it("echoes", function()
        local app = perilune.app("echo.lua")
        app:connect():send("x"):expect("x"):close()
      end)
      it("waits", function()
        local core = require "perilune"
        local from = core.now()
        core.sleep("20ms")
        assert.is_true(core.now() - from >= 0.02)
      end)
      pending("later")]])
    assert_code(0, result)
    assert_has("[  PASSED  ] 2 tests.", result)
  end)

  it("fails with 1, and goes on", function()
    local result = spec("bad", [[
      it("is wrong", function() assert.equal(1, 2) end)
      it("raises", function() error("ouch") end)
      it("is right", function() assert.equal(1, 1) end)]])
    assert_code(1, result)
    assert_has("bad_spec.lua:3: Expected objects to be equal", result)
    assert_has("ouch", result)
    assert_has("[  PASSED  ] 1 test.", result)
  end)

  it("ends what never ends, by name, and goes on", function()
    local result = spec("endless", [[
      it("loops", function() while true do end end)
      it("loops in pcall", function() while true do pcall(function() while true do end end) end end)
      it("loops in a coroutine", function()
        coroutine.wrap(function() local t = {} while true do t[#t % 10 + 1] = 1 end end)()
      end)
      it("sleeps", function() require("perilune").sleep("1h") end)
      describe("with a setup", function()
        before_each(function() while true do end end)
        it("is never reached", function() end)
      end)
      it("is right", function() assert.equal(1, 1) end)]], "--timeout", "300ms")
    assert_code(1, result)
    for _, name in ipairs { "loops", "loops in pcall", "loops in a coroutine", "sleeps" } do
      assert_has("endless " .. name .. "\n", result)
    end
    assert_has("the test did not end within 300ms (--timeout): it was at endless_spec.lua:3", result)
    assert_has("it waits at endless_spec.lua:8", result)
    assert_has("before_each did not end within 300ms", result)
    assert_has("endless is right", result)
    assert_has("[  PASSED  ] 1 test.", result)
  end)

  it("ends patterns that never end, by name, and goes on", function()
    local result = spec("patterns", [[
      local endless = ("a*"):rep(30) .. "b"
      it("finds", function() local _ = ("a"):rep(100):find(endless) end)
      it("matches", function() local _ = string.match(("a"):rep(100), endless) end)
      it("replaces", function() local _ = ("a"):rep(100):gsub(endless, "") end)
      it("iterates", function() for _ in ("a"):rep(100):gmatch(endless) do end end)
      it("has patterns all the same", function()
        assert.equal("b a", (("a b"):gsub("(%w) (%w)", "%2 %1")))
        assert.equal(2, ("aba"):find("b"))
        local upper = string.upper
        local find = string.find
        local app = perilune.app { listen = "tcp://:0", frame = "line",
          agent = { proceed = function(_, line) return upper(line):sub(find(line, "%w")) end } }
        app:connect():send("  x"):expect("X"):close()
      end)]], "--timeout", "5s")
    assert_code(1, result)
    for _, name in ipairs { "finds", "matches", "replaces", "iterates" } do
      assert_has("patterns " .. name .. "\n", result)
    end
    assert_has("patterns_spec.lua:4: pattern too complex: over", result)
    assert_has("[  PASSED  ] 1 test.", result)
  end)

  it("tells of a deadlock, by name, and goes on", function()
    local result = spec("deadlock", [[
      it("yields", function() coroutine.yield() end)
      it("is right", function() assert.equal(1, 1) end)]])
    assert_code(1, result)
    assert_has("deadlock yields", result)
    assert_has("deadlock: the test yields, and nothing will ever resume it: it is at deadlock_spec.lua:3", result)
    assert_has("[  PASSED  ] 1 test.", result)
  end)

  it("fails a test that leaves something behind, and says what", function()
    local result = spec("leak", [[
      it("leaves a connection", function()
        perilune.app("echo.lua"):connect { name = "ann" }
      end)
      it("leaves a coroutine and its timer", function()
        local core = require "perilune"
        local app = perilune.app { listen = "tcp://:0", frame = "line",
          agent = { proceed = function() core.sleep("3s") end } }
        app:connect():send("x")
      end)
      it("leaves a server", function() perilune.start("echo.lua") end)
      it("is right", function()
        local app = perilune.app("echo.lua")
        app:connect()
        app:close()
      end)
      describe("with an app for all", function()
        local app
        setup(function() app = perilune.app("echo.lua") end)
        it("leaves it to the file", function() app:connect { name = "bob" } end)
      end)]])
    assert_code(1, result)
    assert_has("leak leaves a connection\necho.lua was left behind with 1 connection\n  ann (conn 1): open", result)
    assert_has("its proceed() waits in perilune.sleep, with a timer at 3s", result)
    assert_has("echo.lua was left running (started with perilune.start)", result)
    assert_has("bob (conn 1): open", result)
    assert_has("[  PASSED  ] 2 tests.", result)
  end)

  it("is not confused by os.exit in a test", function()
    local result = spec("exits", [[
      it("exits", function() os.exit(0) end)
      it("is right", function() assert.equal(1, 1) end)]])
    assert_code(1, result)
    assert_has("os.exit() was called", result)
  end)

  it("fails where no test was run, and says why", function()
    local result = spec("few", 'it("has one", function() end)', "--filter", "nothing like it")
    assert_code(1, result)
    assert_has("perilune test: no test was run: none is left by --filter nothing like it", result)
    result = spec("few", 'it("has one", function() end)', "--tags", "slow")
    assert_code(1, result)
    assert_has("no test was run: none is left by --tags slow", result)
    result = spec("none", "")
    assert_code(1, result)
    assert_has("no test was run: the specifications have no tests", result)
    assert_code(0, spec("later", 'pending("later")'))
    assert_code(0, spec("few", 'it("has one", function() end)', "--list"))
  end)

  it("fails where there are no specifications, and names the place", function()
    os.execute(("mkdir -p '%s/empty'"):format(folder))
    local result = run { "empty" }
    assert_code(1, result)
    assert_has("no specifications in empty: no file there has _spec in its name (--pattern)", result)
  end)

  it("says by itself that there is no such specification, and what may be meant", function()
    os.execute(("mkdir -p '%s/spec'"):format(folder))
    command.write(folder .. "/spec/there_spec.lua", 'it("is", function() end)')
    command.write(folder .. "/here_spec.lua", 'it("is", function() end)')
    for given, said in pairs {
      nosuch = "there is no nosuch: name a specification, or a folder of some\n",
      ["there_spec.lua"] = "there is no there_spec.lua (did you mean spec/there_spec.lua?)\n",
      here_spec = "there is no here_spec (did you mean here_spec.lua?)\n",
      ["here.lua"] = "there is no here.lua (did you mean here_spec.lua?)\n",
    } do
      for _, output in ipairs { "gtest", "json", "TAP", "junit", "plainTerminal" } do
        local result = run { "here_spec.lua", given, "-o", output }
        assert_code(1, result)
        assert.equal("perilune test: " .. said, result.err)
        assert.equal("", result.out)
      end
    end
    assert_code(0, run { "there_spec.lua", "-C", "spec" })
    assert_code(0, run { "-C", "spec" })
  end)

  it("has JSON of whatever becomes of a test", function()
    local text = [[
      it("passes", function() end)
      pending("is pending", function() end)
      it("becomes pending", function() pending "not yet" end)]]
    local passed = spec("pending", text, "-o", "json")
    assert_code(0, passed)
    local failed = spec("strange", text .. [[
      it("compares", function() assert.equal("a\255\27[2J", 0/0) end)
      it("raises a table", function() error { code = 5, fn = print, within = {}, n = 1 / 0 } end)
      it("raises itself", function() local t = {} t.t = t error(t) end)
      it("raises nothing", function() error() end)]], "-o", "json")
    assert_code(1, failed)
    local counts = {}
    for i, result in ipairs { passed, failed } do
      local read = json_decode(result.out)
      counts[i] = { #read.successes, #read.pendings, #read.failures, #read.errors }
      assert.equal("pending is pending", (read.pendings[1].name:gsub("^%a+", "pending")))
      assert_has("pending_spec.lua:5: not yet", { out = json_decode(passed.out).pendings[2].message, err = "" })
    end
    assert.same({ { 1, 2, 0, 0 }, { 1, 2, 1, 3 } }, counts)
  end)

  it("shows strings of others as they are shown anywhere", function()
    local result = spec("hostile", [[
      it("compares", function() assert.equal("a\27[2J", "b\155") end)
      it("compares tables", function() assert.same({ "a\27[2J" }, { "b\155" }) end)
      it("raises", function() error "a\27[2J" end)]])
    assert_code(1, result)
    assert_has("'b\\x9b'", result)
    assert_has("a\\x1b[2J", result)
    assert.is_nil(result.out:find "[%z\1-\8\11-\31\127-\255]")
  end)

  it("shows with what fails what handlers of its own app have failed with, once", function()
    command.write(folder .. "/web.lua", [[return { listen = "http://127.0.0.1:0", agent = {
      proceed = function(_, request) return request.nothing.at_all end } }]])
    local result = spec("faults", [[
      local app
      before_each(function() app = perilune.app "web.lua" end)
      after_each(function() app:close() end)
      it("asks", function() assert.equal(200, app:connect():get("/").status) end)
      it("ends", function() app:connect():get("/") app:connect():ask "/":expect_nothing() end)
      it("asks nothing", function() assert.equal(1, 2) end)]])
    assert_code(1, result)
    local _, times = result.out:gsub("web.lua:2 in proceed", "")
    assert.equal(2, times, result.out)
    assert_has("return request.nothing.at_all end", result)
    assert.truthy(result.out:find("the app's log\n%s+0s  handler failed  error="), result.out)
  end)

  it("tells once why nothing could be prepared, and nothing of what cleans up after it", function()
    command.write(folder .. "/broken.lua", "local x = 1 +")
    local result = spec("unprepared", [[
      describe("each", function()
        local app
        before_each(function() app = perilune.app "broken.lua" end)
        after_each(function() app:close() end)
        for i = 1, 5 do it("has one " .. i, function() end) end
      end)
      describe("once", function()
        local app
        setup(function() app = perilune.app "broken.lua" end)
        teardown(function() app:close() end)
        it("has it", function() end)
      end)
      describe("the rest", function()
        local n = 0
        before_each(function() n = n + 1 assert(n ~= 1, "the first is bad") end)
        after_each(function() error "cannot clean up" end)
        it("is not prepared", function() end)
        it("is", function() end)
      end)
      describe("another", function()
        after_each(function() error "nor here" end)
        it("is", function() end)
      end)]], "-o", "plainTerminal")
    assert_code(1, result)
    assert_has("2 successes / 0 failures / 5 errors", result)
    local _, excerpts = result.out:gsub("local x = 1 %+", "")
    assert.equal(2, excerpts, result.out) -- of before_each, and of setup
    local _, first = result.out:gsub("unprepared_spec.lua:5: broken.lua cannot be loaded", "")
    assert.equal(1, first, result.out)
    assert_has("perilune test: 4 more tests were not run: ", result)
    assert.truthy(result.err:find("unprepared_spec.lua:5: broken.lua cannot be loaded\n", 1, true), result.err)
    assert.is_nil(result.out:find("a nil value", 1, true), result.out)
    for _, part in ipairs { "the first is bad", "cannot clean up", "nor here" } do assert_has(part, result) end
  end)

  it("tells once of a script that there is not", function()
    local result = spec("missing", [[
      it("in memory", function() perilune.app("nofile.lua") end)
      it("over sockets", function() perilune.start("nofile.lua") end)]])
    assert_code(1, result)
    assert_has("missing_spec.lua:3: nofile.lua: No such file or directory\n", result)
    assert_has("missing_spec.lua:4: nofile.lua: No such file or directory\n", result)
  end)

  it("asks what was meant by a misspelt option of busted's", function()
    for given, meant in pairs {
      ["--fliter"] = "--filter", ["--suffle"] = "--shuffle", ["--no-keep-goin"] = "--no-keep-going",
      ["--exclude-tag=x"] = "--exclude-tags", ["--ouput=gtest"] = "--output",
    } do
      local result = run { given }
      assert_code(2, result)
      assert_has("(did you mean " .. meant .. "?)", result)
    end
    local result = run { "--xyzzy" }
    assert_code(2, result)
    assert.is_nil(result.err:find("did you mean", 1, true))
  end)

  it("says so where a method is called with a dot", function()
    local result = spec("dotted", [[
      it("of a client", function() local client = perilune.app("echo.lua"):connect() client.send "x" end)
      it("of an app", function() perilune.app("echo.lua").connect() end)
      it("of a net", function() perilune.net().app "echo.lua" end)
      it("of a server", function() perilune.start("echo.lua").connect() end)]])
    assert_code(1, result)
    assert_has("dotted_spec.lua:3: send: call it with a colon, as in client:send(…)", result)
    assert_has("dotted_spec.lua:4: connect: call it with a colon, as in app:connect(…)", result)
    assert_has("dotted_spec.lua:5: app: call it with a colon, as in net:app(…)", result)
    assert_has("dotted_spec.lua:6: connect: call it with a colon, as in app:connect(…)", result)
  end)

  it("asks what was meant by a misspelt method", function()
    local result = spec("misspelt", [[
      it("of a client", function() perilune.app("echo.lua"):connect():expct("x") end)
      it("of an app", function() perilune.app("echo.lua"):conect() end)
      it("of the module", function() perilune.ap("echo.lua") end)
      it("of nothing known", function() perilune.app("echo.lua"):xyzzy() end)]])
    assert_code(1, result)
    assert_has("misspelt_spec.lua:3: a client has no 'expct': did you mean 'expect'?", result)
    assert_has("misspelt_spec.lua:4: an app has no 'conect': did you mean 'connect'?", result)
    assert_has("misspelt_spec.lua:5: perilune.test has no 'ap': did you mean 'app'?", result)
    assert_has("misspelt_spec.lua:6: attempt to call method 'xyzzy' (a nil value)", result)
  end)

  it("takes busted's options", function()
    command.write(folder .. "/tags_spec.lua", [[
      describe("tags", function()
        it("has one #fast", function() end)
        it("has none", function() error("run") end)
      end)]])
    assert_code(0, run { "tags_spec.lua", "--tags=fast" })
    assert_code(0, run { "tags_spec.lua", "--filter", "has one" })
    assert_code(0, run { "tags_spec.lua", "--filter-out", "none" })
    assert_code(1, run { "tags_spec.lua" })
    assert_has("ok 1", run { "tags_spec.lua", "-o", "TAP", "-t", "fast" })
    assert_has('"successes"', run { "tags_spec.lua", "--output=json", "-t", "fast" })
    assert_has("tags has none", run { "tags_spec.lua", "--list" })
  end)

  it("finds modules and specifications in the folder", function()
    local own = command.folder()
    command.write(own .. "/words.lua", 'return { hello = "hi" }')
    command.write(own .. "/app_spec.lua", [[
      it("requires", function() assert.equal("hi", require("words").hello) end)]])
    local result = run { dir = own, "-o", "gtest" }
    assert_code(0, result)
    assert_has("[  PASSED  ] 1 test.", result)
    command.remove(own)
  end)

  it("counts which lines were run", function()
    command.write(folder .. "/covered.lua", [[
local Agent = {}

function Agent:proceed(line)
  if line == "never" then
    local words = "not run"
    return words
  end
  return self.conn.id .. line
end

function Agent:timeout()
  return true
end

return { listen = "tcp://:0", frame = "line", agent = Agent }
]])
    local result = spec("coverage", [[
      it("echoes", function()
        local app = perilune.app("covered.lua")
        app:connect():send("x", "y"):expect("1x", "1y"):close()
      end)]], "--coverage=out.info")
    assert_code(0, result)
    assert_has("covered.lua", result)
    assert_has("5-6, 12", result)
    local lcov = command.read(folder .. "/out.info")
    for _, part in ipairs { "SF:covered.lua\n", "DA:4,2\n", "DA:5,0\n", "DA:8,", "end_of_record" } do
      assert(lcov:find(part, 1, true), ("no %q in:\n%s"):format(part, lcov))
    end
  end)

  it("runs again what a change concerns", function()
    local own = command.folder()
    command.write(own .. "/app.lua", ECHO)
    for _, name in ipairs { "one", "two" } do
      command.write(own .. "/" .. name .. "_spec.lua", 'it("' .. name .. '", function() end)')
    end
    local pid = command.shell(("cd '%s' && { '%s' test --watch -o TAP >out 2>&1 & echo $!; }"):format(own,
      command.binary))
    finally(function()
      os.execute("kill " .. pid)
      command.remove(own)
    end)
    local function said(pattern) return function() return command.read(own .. "/out"):find(pattern) end end
    wait.until_true("the first run", said "two[^\n]*\n1%.%.2")
    command.write(own .. "/one_spec.lua", 'it("is new", function() end)')
    wait.until_true("a run of one of them", said "one_spec%.lua changed\nok 1 [^\n]*is new[^\n]*\n1%.%.1")
    command.write(own .. "/app.lua", ECHO .. " -- changed")
    wait.until_true("a run of all", said "app%.lua changed\nok 1.-1%.%.2")
  end)

  -- Each of the ways that a specification may come to ask for a file.
  local ANYWHERE = [[
    local perilune = require "perilune.test"
    local function open() return perilune.app "app.lua" end -- a tail call leaves no trace
    describe("an app", function()
      local app
      local function tell(one) one:connect():send("x"):expect "mine: x" one:close() end
      before_each(function() app = open() end)
      it("is found by its specification", function() tell(app) tell(open()) tell(perilune.start "app.lua") end)
      it("is found by what that calls", function() tell(require("spec.helper")()) app:close() end)
      it("is found by its path", function() tell(perilune.app(HERE .. "/app.lua")) app:close() end)
      before_each(open)
      after_each(function() end)
    end)]]

  it("finds the files that specifications name, wherever it is started", function()
    local base = command.folder()
    finally(function() command.remove(base) end)
    os.execute(("mkdir -p %s/mine/spec %s/other"):format(base, base))
    local function app(whose)
      local agent = ("{ proceed = function(_, l) return '%s: ' .. l end }"):format(whose)
      command.write(("%s/%s/app.lua"):format(base, whose),
        ("return { listen = 'tcp://127.0.0.1:9000', frame = 'line', agent = %s }"):format(agent))
    end
    app "mine"
    app "other"
    local here = ("local HERE = %q\n"):format(base .. "/mine")
    local path = ("package.path = HERE .. '/?.lua;' .. package.path\n")
    command.write(base .. "/mine/spec/app_spec.lua", here .. path .. ANYWHERE:gsub("before_each%(open%)", ""))
    command.write(base .. "/mine/spec/helper.lua",
      "return function() local app = require('perilune.test').app 'app.lua' return app end")
    for _, dir in ipairs { base .. "/mine", base .. "/mine/spec", base .. "/other", "/" } do
      assert_code(0, command.run { "test", base .. "/mine/spec/app_spec.lua", dir = dir })
    end
    -- Where there is none above it, the current folder has it, as ever.
    command.write(base .. "/lone_spec.lua",
      "it('is there', function() local app = require('perilune.test').app 'app.lua' app:close() end)")
    assert_code(0, command.run { "test", base .. "/lone_spec.lua", dir = base .. "/other" })
    assert_code(1, command.run { "test", base .. "/lone_spec.lua", dir = "/" })
  end)

  it("runs the examples from anywhere", function()
    local examples = command.shell("realpath examples"):gsub("\n", "")
    assert_code(0, command.run { "test", examples, dir = "/" })
  end)

  it("explains itself, and refuses what it does not know", function()
    local help = run { "--help" }
    assert_code(0, help)
    assert_has("usage: perilune test", help)
    assert_has("--timeout TIME", help)
    assert.equal(help.out, command.run({ "help", "test" }).out)
    local unknown = run { "--tiemout=3" }
    assert_code(2, unknown)
    assert_has("did you mean --timeout?", unknown)
    assert_code(2, run { "--timeout" })
    assert_code(2, run { "--timeout", "soon" })
    assert_code(1, run { "no_such_spec.lua" })
  end)

  it("says why its output cannot be written, but not to a reader that has seen enough", function()
    command.write(folder .. "/long_spec.lua",
      [[for i = 1, 2000 do it("is a test whose name makes the output long, number " .. i, function() end) end]])
    local result = run { "long_spec.lua", "-o", "gtest", stdout = "/dev/full" }
    assert_code(1, result)
    assert.equal("perilune: cannot write to standard output: No space left on device\n", result.err)
    local said = command.shell(("cd '%s'; '%s' test long_spec.lua -o gtest 2>err | true; cat err")
      :format(folder, command.binary))
    assert.equal("", said)
  end)

  it("says which package is missing", function()
    local result = run { "good_spec.lua", env = { LUA_PATH = "/nowhere/?.lua" } }
    assert_code(1, result)
    assert_has("apt-get install lua-busted", result)
  end)

  it("is what perilune.test wants", function()
    local path = folder .. "/alone.lua"
    command.write(path, 'require "perilune.test"\nreturn {}')
    assert_has("internal to Perilune", command.run { "check", path })
  end)
end)
