local command = require "spec.support.command"

local ECHO = [[
local Echo = {}
function Echo:proceed(frame) return frame end
return { listen = "tcp://127.0.0.1:0", agent = Echo%s }
]]

local folder

local function script(text, name) return command.write(folder .. "/" .. (name or "app.lua"), text) end
local function echo(extra) return script(ECHO:format(extra or "")) end

local function run(call)
  call.dir = call.dir or folder
  return command.run(call)
end

local function assert_code(expected, result)
  assert(result.code == expected, ("exit code %s instead of %d\nstdout: %s\nstderr: %s")
    :format(tostring(result.code), expected, result.out, result.err))
end

local function assert_has(part, text)
  assert(text:find(part, 1, true), ("no %q in:\n%s"):format(part, text))
end

local function assert_lacks(part, text)
  assert(not text:find(part, 1, true), ("unexpected %q in:\n%s"):format(part, text))
end

-- One line, and nothing after it.
local function assert_one_line(text)
  assert(text:find("^[^\n]+\n$"), "not one line: " .. text)
end

-- { code, out, err } of `check --print`, and the value and origin of one key, as printed.
local function printed(key, call)
  table.insert(call, 1, "check")
  table.insert(call, "--print")
  local result = run(call)
  assert_code(0, result)
  local value, origin = ("\n" .. result.out):match("\n%s*" .. key:gsub("%.", "%%.") .. "%s+= (.-)%s+%(([^\n]*)%)\n")
  return value, origin
end

describe("the command line", function()
  before_each(function() folder = command.folder() end)
  after_each(function() command.remove(folder) end)

  describe("help", function()
    it("lists the commands", function()
      for _, word in ipairs { "--help", "-h", "help" } do
        local result = run { word }
        assert_code(0, result)
        assert.equal("", result.err)
        for _, part in ipairs { "run ", "check ", "status ", "generations ", "reload ", "stop ", "drain ", "kick ",
          "help ", "--version" } do assert_has(part, result.out) end
      end
    end)

    it("goes to standard error when no command was given", function()
      local result = run {}
      assert_code(2, result)
      assert.equal("", result.out)
      assert_has("usage: perilune", result.err)
    end)

    it("tells a command's options, environment, exit codes and an example", function()
      for _, name in ipairs { "run", "check" } do
        for _, call in ipairs { { name, "--help" }, { name, "-h" }, { "help", name }, { name, "x.lua", "--help" } } do
          local result = run(call)
          assert_code(0, result)
          assert.equal("", result.err)
          for _, part in ipairs { "usage: perilune " .. name, "--workers N", "--set KEY=VALUE", "PERILUNE_WORKERS",
            "Exit codes:", "78", "Example:" } do
            assert_has(part, result.out)
          end
        end
      end
      assert_has("Signals:", run({ "run", "--help" }).out)
    end)

    it("shows options only where they apply", function()
      assert_has("--json", run({ "check", "--help" }).out)
      assert_lacks("--json", run({ "run", "--help" }).out)
    end)

    it("needs no Lua modules", function()
      local env = { PERILUNE_LUA_PATH = "/nowhere" }
      assert_code(0, run { "--help", env = env })
      assert_code(0, run { "--version", env = env })
      assert_code(0, run { "run", "--help", env = env })
    end)

    it("fits a terminal of 110 columns", function()
      for line in (run({ "run", "--help" }).out .. run({ "check", "--help" }).out):gmatch("[^\n]+") do
        assert.is_true(#line <= 110, line)
      end
    end)
  end)

  it("tells the versions", function()
    local result = run { "--version" }
    assert_code(0, result)
    assert.equal("", result.err)
    assert.truthy(result.out:find("^perilune %d+%.%d+%.%d+%S* %(LuaJIT 2%.%S+, libuv 1%.%d+%.%d+%)\n$"), result.out)
  end)

  describe("refuses with code 2 and a suggestion", function()
    local cases = {
      { "an unknown command", { "chekc" }, "unknown command 'chekc' (did you mean 'check'?)" },
      { "another program's word for a command", { "serve" }, "unknown command 'serve' (did you mean 'run'?)" },
      { "another's for an upgrade", { "restart" }, "unknown command 'restart' (did you mean 'upgrade'?)" },
      { "a script in place of a command", { "echo.lua" }, "(did you mean 'perilune run echo.lua'?)" },
      { "an unknown first option", { "--versoin" }, "unknown option '--versoin' (did you mean '--version'?)" },
      { "help on an unknown command", { "help", "rnu" }, "(did you mean 'run'?)" },
      { "an unknown option", { "run", "app.lua", "--worker", "2" },
        "unknown option --worker (did you mean --workers?)" },
      { "an unknown option with a value", { "run", "--lisen=tcp://:1" }, "--lisen (did you mean --listen?)" },
      { "another command's option", { "run", "--json" }, "unknown option --json" },
      { "an unknown letter", { "check", "-x" }, "unknown option -x" },
      { "an option without its value", { "check", "--workers" }, "--workers needs a value: --workers N" },
      { "an option whose value was forgotten", { "check", "--workers", "--json" }, "--workers needs a value" },
      { "a value that is not taken", { "check", "--json=yes" }, "--json takes no value" },
      { "--set without a value", { "check", "--set", "workers" }, "--set expects KEY=VALUE, got 'workers'" },
      { "--set without a key", { "check", "--set", "=3" }, "--set expects KEY=VALUE" },
      { "an empty server", { "stop", "" }, "perilune stop: the server is empty" },
      { "an empty server's id", { "status", "--json", "" }, "perilune status: the server is empty" },
      { "an empty server of an option", { "stop", "--control", "" }, "--control needs a value: --control SERVER" },
      { "an empty server after =", { "reload", "--control=" }, "--control needs a value: --control SERVER" },
      { "an empty script", { "check", "" }, "perilune check: the script is empty" },
      { "an empty script to serve", { "run", "" }, "perilune run: the script is empty" },
      { "an empty script to run", { "exec", "", "x" }, "perilune exec: the script is empty" },
      { "an empty name", { "new", "" }, "perilune new: the name is empty" },
      { "an empty template", { "new", "x", "--template=" }, "--template needs a value: --template TEMPLATE" },
      { "an empty listener", { "record", "--listener", "" }, "--listener needs a value: --listener NAME" },
      { "an empty file", { "record", "--out=" }, "--out needs a value: --out PATH" },
      { "two scripts", { "check", "a.lua", "b.lua" }, "takes one script, got 'a.lua' and 'b.lua'" },
      { "two forms of output", { "check", "--json", "--print" }, "exclude each other" },
    }
    for _, case in ipairs(cases) do
      it(case[1], function()
        echo()
        local result = run(case[2])
        assert_code(2, result)
        assert.equal("", result.out)
        assert_has(case[3], result.err)
        assert_has("see 'perilune", result.err)
      end)
    end

    it("but none where nothing is near", function()
      assert_lacks("did you mean", run({ "frobnicate" }).err)
      assert_lacks("did you mean", run({ "run", "--frobnicate" }).err)
    end)
  end)

  describe("check", function()
    it("says in one line that a script is fine", function()
      echo(", workers = 4")
      local result = run { "check", "app.lua" }
      assert_code(0, result)
      assert.equal("app.lua: ok (1 listener, 4 workers)\n", result.out)
      assert.equal("", result.err)
    end)

    it("counts listeners and workers", function()
      script [[
        return {
          listen = { "tcp://127.0.0.1:0", "unix://a.sock" }, workers = 1,
          agent = function() return { proceed = function() end } end,
        }]]
      assert.equal("app.lua: ok (2 listeners, 1 worker)\n", run({ "check" }).out)
    end)

    it("takes app.lua in the current folder by default", function()
      echo()
      assert_has("app.lua: ok", run({ "check" }).out)
    end)

    it("takes options before and after the script, and a -- before it", function()
      echo()
      for _, call in ipairs {
        { "check", "app.lua", "--workers", "3" }, { "check", "--workers", "3", "app.lua" },
        { "check", "--workers=3", "app.lua" }, { "check", "--workers=3", "--", "app.lua" },
      } do
        assert.equal("app.lua: ok (1 listener, 3 workers)\n", run(call).out)
      end
    end)

    it("listens nowhere", function()
      script [[return { listen = "unix://here.sock", agent = { proceed = function() end } }]]
      assert_code(0, run { "check" })
      assert.is_nil(io.open(folder .. "/here.sock"))
    end)

    it("finds modules beside the script, wherever it is called from", function()
      script("return { proceed = function() end }", "handler.lua")
      local path = script [[return { listen = "tcp://127.0.0.1:0", agent = require "handler" }]]
      assert_code(0, run { "check", path, dir = "/" })
    end)

    it("keeps what the script prints out of the verdict", function()
      script([[print "loud"; io.write "louder\n"; ]] .. ECHO:format(""))
      local result = run { "check" }
      assert_code(0, result)
      assert_lacks("loud", result.out)
      assert_has("loud\nlouder\n", result.err)
    end)

    it("fails when the verdict cannot be written", function()
      echo()
      local result = run { "check", stdout = "/dev/full" }
      assert_code(1, result)
      assert_has("cannot write to standard output", result.err)
    end)

    it("works with its standard streams closed", function()
      echo()
      assert_code(0, run { "check", redirect = "<&- >&- 2>&-" })
    end)
  end)

  describe("check --print", function()
    it("shows every value with its origin", function()
      echo(", workers = 4, limits = { connections = 7 }")
      local result = run { "check", "--print", env = { PERILUNE_TIMEOUT_IDLE = "5m" } }
      assert_code(0, result)
      for _, part in ipairs { "listener 1: tcp://127.0.0.1:0", "(script)", "(default)",
        "(env PERILUNE_TIMEOUT_IDLE)" } do
        assert_has(part, result.out)
      end
    end)

    -- All but those that need certificates, which their own specifications make.
    it("shows every example", function()
      local count, folder_of_examples = 0, require("lfs").currentdir() .. "/examples"
      for name in require("lfs").dir(folder_of_examples) do
        if name:find "%.lua$" and not name:find "_spec%.lua$" and name ~= "mtls.lua" and name ~= "tls_echo.lua" then
          local result = command.run { "check", folder_of_examples .. "/" .. name, "--print" }
          assert_code(0, result)
          assert_has("listener 1: ", result.out)
          count = count + 1
        end
      end
      assert.is_true(count >= 20, count)
    end)

    it("prefers flags to the environment, that to the script, that to defaults", function()
      local env = { PERILUNE_WORKERS = "5", PERILUNE_LIMITS_CONNECTIONS = "50" }
      local function settles(key, value, origin, call)
        assert.same({ value, origin }, { printed(key, call) })
      end
      echo()
      settles("limits.connections", "10000", "default", {})
      echo(", workers = 4, limits = { connections = 40 }")
      settles("workers", "4", "script", {})
      settles("limits.connections", "40", "script", {})
      settles("workers", "5", "env PERILUNE_WORKERS", { env = env })
      settles("limits.connections", "50", "env PERILUNE_LIMITS_CONNECTIONS", { env = env })
      settles("workers", "6", "flag --workers", { "--workers", "6", env = env })
      settles("limits.connections", "60", "flag --set limits.connections",
        { "--set", "limits.connections=60", env = env })
    end)

    it("shows whatever a flag has set", function()
      local VALUES = {
        listen = "tcp://127.0.0.1:1", workers = "3", modules = "lpeg", unsafe = "ffi", ["log.format"] = "json",
        ["log.file"] = "x.log", ["log.level"] = "debug", ["log.frame_bytes"] = "7b", jit = "false",
        ["limits.memory"] = "8m", ["limits.garbage"] = "0.75", ["limits.snapshot"] = "64k",
        ["limits.handshakes"] = "10", ["limits.outgoing"] = "10", ["limits.deflate"] = "5m",
        ["limits.buffers"] = "9m", name = "front",
        backlog = "5", keepalive = "70s", nodelay = "false",
        reuse_port = "true",
        frame = "u16be max=1m empty=error", ["limits.connections"] = "11", ["limits.per_ip"] = "12",
        ["limits.accept_rate"] = "13", ["limits.frame"] = "14k", ["limits.inbox"] = "15",
        ["limits.mailbox"] = "18",
        ["limits.send_buffer"] = "16k", ["limits.proceed"] = "17ms", ["limits.allocation"] = "1m",
        ["limits.slow_consumer"] = "drop", ["limits.reject"] = '"x"', ["timeout.read"] = "21s",
        ["timeout.write"] = "22s", ["timeout.idle"] = "23s", ["timeout.first_frame"] = "24s", ["timeout.drain"] = "25s",
        ["timeout.handshake"] = "28s", ["timeout.proceed"] = "29s", proxy = "false", trust = "10.0.0.0/8, unix",
        ["timeout.upgrade"] = "26s", control = "off", ["reload.keep"] = "4",
        ["reload.when_full"] = "drain", ["reload.policy"] = "migrate",
        ["reload.canary"] = "0.05", ["reload.window"] = "27s", ["reload.max_errors"] = "0.02",
        protocol = "http", ["limits.uri"] = "1k", ["limits.headers"] = "2k", ["limits.fields"] = "3",
        ["limits.body"] = "4k", ["limits.upload"] = "2m",
        ["limits.requests"] = "7", ["timeout.header"] = "5s", ["timeout.body"] = "6s",
        ["limits.message"] = "2k", ping = "35s", pong = "36s", compress = "alone",
        origins = "https://a.example, https://b.example", subprotocols = "chat.v2, chat.v1",
        amplification = "7", compat = "ngx, socket", shared = "counts=64k, rates=1m",
        ["jobs.workers"] = "3", ["jobs.queue"] = "30", ["jobs.when_full"] = "shed", ["jobs.lanes"] = "fast, slow=1",
        ["jobs.timeout"] = "31s", ["jobs.proceed"] = "32s", ["jobs.memory"] = "33m", ["jobs.message"] = "34k",
        ["jobs.buffers"] = "35m", ["jobs.unsafe"] = "io.popen",
        ["hub.policy"] = "latest", ["hub.messages"] = "37", ["hub.bytes"] = "38k", ["hub.inbox"] = "39",
      }
      local OF_HTTP = { "--listen=http://127.0.0.1:1" }
      local OF_WS = { "--listen=ws://127.0.0.1:1" }
      local NEEDS = {
        ["limits.message"] = OF_HTTP, ping = OF_HTTP, pong = { OF_HTTP[1], "--set=ping=30s" },
        compress = OF_HTTP, origins = OF_WS, subprotocols = OF_WS,
        protocol = { "--listen=unix://x.sock" }, ["limits.uri"] = OF_HTTP, ["limits.headers"] = OF_HTTP,
        ["limits.fields"] = OF_HTTP, ["limits.body"] = OF_HTTP, ["limits.upload"] = OF_HTTP,
        ["limits.requests"] = OF_HTTP, ["timeout.header"] = OF_HTTP, ["timeout.body"] = OF_HTTP,
        trust = { "--set=proxy=true" }, amplification = { "--listen=udp://127.0.0.1:1", "--set=frame=datagram" },
      }
      echo()
      for _, key in ipairs(require("perilune.config").paths()) do
        local value = key == "mode" or assert(VALUES[key], "no value for " .. key)
        local given = key == "frame" and "u16be" or key == "limits.reject" and "x" or value
        if key == "listen" then
          assert_has("address              = " .. value, run({ "check", "--print", "--set", key .. "=" .. given }).out)
        elseif key ~= "mode" then
          local call = { "--set", key .. "=" .. given, unpack(NEEDS[key] or {}) }
          assert.same({ value, "flag --set " .. key }, { printed(key, call) })
        end
      end
    end)

    it("lets the later of two flags win", function()
      echo()
      assert.equal("3", (printed("workers", { "--set", "workers=2", "--workers", "3" })))
      assert.equal("2", (printed("workers", { "--workers", "3", "--set", "workers=2" })))
    end)

    it("knows each flag's key", function()
      echo()
      local flags = {
        { "--listen", "tcp://127.0.0.1:7000", "address", "tcp://127.0.0.1:7000" },
        { "--workers", "3", "workers", "3" }, { "--drain", "3", "timeout.drain", "3s" },
        { "--log-file", "/x/y.log", "log.file", "/x/y.log" },
        { "--log-format", "json", "log.format", "json" }, { "--log-level", "debug", "log.level", "debug" },
      }
      for _, flag in ipairs(flags) do
        assert.same({ flag[4], "flag " .. flag[1] }, { printed(flag[3], { flag[1], flag[2] }) })
      end
    end)

    it("takes any key from the environment", function()
      echo()
      local variables = {
        { "PERILUNE_LISTEN", "unix://x.sock", "address", "unix://x.sock" },
        { "PERILUNE_LIMITS_PER_IP", "9", "limits.per_ip", "9" },
        { "PERILUNE_LIMITS_SLOW_CONSUMER", "drop", "limits.slow_consumer", "drop" },
        { "PERILUNE_TIMEOUT_FIRST_FRAME", "2", "timeout.first_frame", "2s" },
        { "PERILUNE_LOG_FILE", "a b.log", "log.file", "a b.log" },
        { "PERILUNE_LOG_LEVEL", "warn", "log.level", "warn" }, { "PERILUNE_NODELAY", "no", "nodelay", "false" },
        { "PERILUNE_FRAME", "line", "frame", "line" },
      }
      for _, case in ipairs(variables) do
        local value, origin = printed(case[3], { env = { [case[1]] = case[2] } })
        assert.equal("env " .. case[1], origin)
        assert_has(case[4], value)
      end
    end)

    it("takes an empty variable as not set", function()
      echo()
      local value, origin = printed("limits.connections", { env = { PERILUNE_LIMITS_CONNECTIONS = "" } })
      assert.same({ "10000", "default" }, { value, origin })
    end)
  end)

  describe("check --json", function()
    -- The object as Python reads it, printed by an expression over `o`.
    local function ask(json, expression)
      if not command.has("python3") then pending("python3 is not installed") end
      local path = script(json, "out.json")
      local pipe = io.popen(("python3 -c 'import json, sys; o = json.load(open(sys.argv[1])); print(%s)' %s 2>&1")
        :format(expression, path))
      local answer = pipe:read("*a")
      pipe:close()
      return (answer:gsub("\n$", ""))
    end

    it("gives one valid object for a good script", function()
      script([[print "noise"; ]] .. ECHO:format(', workers = 3, limits = { reject = "b\\0\\n\\255" }'))
      local result = run { "check", "--json" }
      assert_code(0, result)
      assert.equal("True 3 tcp://127.0.0.1:0 60000",
        ask(result.out, [[o["ok"], o["workers"], o["listeners"][0]["address"],
          o["listeners"][0]["timeout"]["idle"]  ]]))
    end)

    it("lists the errors with path, message and origin", function()
      echo(", limits = { conections = 3 }")
      local result = run { "check", "--json", "--workers", "many" }
      assert_code(2, result)
      assert.equal("", result.err)
      assert.equal("False 2 limits.conections None workers flag --workers", ask(result.out,
        [[o["ok"], len(o["errors"]), o["errors"][0]["path"], o["errors"][0].get("origin"),
          o["errors"][1]["path"], o["errors"][1]["origin"]  ]]))
    end)

    it("gives a message where there is no configuration at all", function()
      for _, text in ipairs { "return {", "error {}", "local x = nil + 1", "x = 1" } do
        script(text)
        local result = run { "check", "--json" }
        assert_code(78, result)
        assert.equal("False True", ask(result.out, [[o["ok"], len(o["message"]) > 10]]))
      end
      assert.equal("False True",
        ask(run({ "check", "--json", "no.lua" }).out, [[o["ok"], "no.lua" in o["message"] ]]))
    end)
  end)

  describe("a broken script", function()
    -- Each is refused alike by check and by run, which then opens nothing.
    local function refused(call)
      local result
      for _, name in ipairs { "check", "run" } do
        local copy = { name, env = call and call.env }
        for _, word in ipairs(call or {}) do copy[#copy + 1] = word end
        result = run(copy)
        assert_code(78, result)
        assert.equal("", result.out)
      end
      return result.err
    end

    it("with a syntax error is shown with its line", function()
      script("local a = 1\nlocal b = = 2\nreturn {}\n")
      local err = refused()
      assert_has("app.lua:2", err)
      assert_has("2 | local b = = 2", err)
    end)

    it("that fails at the top level is shown with the culprit underlined", function()
      script("local user\nlocal name = user.name\nreturn {}\n")
      local err = refused()
      assert_has("attempt to index local 'user' (a nil value)", err)
      assert_has("--> app.lua:2", err)
      assert_has("^^^^ nil here", err)
    end)

    it("in another folder is shown by its path", function()
      local path = script("local a\na.b = 1\n")
      local result = run { "check", path, dir = "/" }
      assert_code(78, result)
      assert_has("--> " .. path .. ":2", result.err)
      assert_has("2 | a.b = 1", result.err)
    end)

    it("whose module is broken is shown in the module", function()
      script("return (nil)()", "part.lua")
      script([[return require "part"]])
      assert_has("--> part.lua:1", refused())
    end)

    it("without an agent is told so in one line", function()
      script [[return { listen = "unix://here.sock" }]]
      local err = refused()
      assert_one_line(err)
      assert_has("app.lua: agent: no agent: set agent = function(conn)", err)
      assert.is_nil(io.open(folder .. "/here.sock"))
    end)

    it("that returns nothing is told what to return", function()
      script [[local x = 1]]
      local err = refused()
      assert_one_line(err)
      assert_has("the script must end in return { listen = …, agent = … }; it returned nothing", err)
    end)

    it("that returns something else is told what it returned", function()
      script [[return "hello"]]
      assert_has('it returned "hello"', refused())
    end)

    it("with an unknown key is told the nearest one", function()
      echo(", limits = { conections = 3 }")
      local err = refused()
      assert_one_line(err)
      assert_has('app.lua:3: limits.conections: unknown key "conections" (did you mean "connections"?)', err)
    end)

    it("is told the line only where there is no doubt of it", function()
      script [[
        local workers = 0
        -- timeout = { idle = 1 }
        return {
          listen = { { "tcp://127.0.0.1:0", frame = "u16" }, { "tcp://127.0.0.1:0", frame = "u8" } },
          agent = { proceed = function() end }, timeout = { idle = "soon" }, workers = workers, limits = { inbox = 0 },
        }]]
      local err = refused()
      assert_has("app.lua: listen[1].frame: unknown framing", err)
      assert_has("app.lua:5: timeout.idle: ", err)
      assert_has("app.lua: workers: ", err)
      assert_has("app.lua:5: limits.inbox: ", err)
      assert_has('"line":5', run({ "check", "--json" }).out)
    end)

    it("with several mistakes is told all of them", function()
      echo(', workers = 0, timeout = { idle = "soon" }, nonsense = 1')
      local _, lines = refused():gsub("\n", "")
      assert.equal(3, lines)
    end)

    it("that assigns a global at the top level is told its name", function()
      script("count = 0\nreturn {}\n")
      local err = refused()
      assert_has("assignment to global 'count'", err)
      assert_has("--> app.lua:1", err)
    end)

    it("that reads an undefined global is told its name", function()
      script("return { listen = adress }\n")
      assert_has("undefined global 'adress'", refused())
    end)

    it("that raises nil, a table or a huge text is refused all the same", function()
      for _, text in ipairs { "error()", "error {}", "error(('x'):rep(1e6))",
        "error(setmetatable({}, { __tostring = error }))" } do
        script(text)
        local err = refused()
        assert.is_true(#err > 5 and #err < 5000, err)
      end
    end)

    it("that raises a multi-line text with control characters cannot forge the terminal", function()
      script([[error("a\27[2Jb\nc")]])
      assert_lacks("\27", refused())
    end)

    -- What `run` says of a script whose setup() does this, on a terminal.
    local function failed_setup(body)
      echo((", setup = function()\n%s\nend"):format(body))
      local result = run { "run", "app.lua", "--log-format=text", "--workers=1", "--control=off" }
      assert_code(78, result)
      return result.err
    end

    it("whose setup() raises text with control characters cannot forge the terminal", function()
      local err = failed_setup([[error("a\27[2Jb\n19:00:00.000 info  forged\rc\0d", 0)]])
      assert_has([[a\x1b[2Jb\n19:00:00.000 info  forged\rc\x00d]], err)
      assert.is_nil(err:find("[%z\1-\9\11-\31\127]"), err)
    end)

    it("whose setup() fails is shown where, as any other", function()
      local err = failed_setup("local t = nil\nt.x = 1")
      assert_has("error: attempt to index local 't' (a nil value)\n  --> app.lua:5 in setup\n", err)
      assert_has("5 | t.x = 1\n  | ^", err)
    end)

    it("whose setup() raises something other than text is shown its definition", function()
      for _, raised in ipairs { "error()", "error {}", "error(setmetatable({}, { __tostring = error }))" } do
        local err = failed_setup(raised)
        assert_has("--> in setup, defined at app.lua:3\n2 | function Echo:proceed", err)
        assert.is_true(#err < 5000, err)
      end
      assert_has("error: no database", failed_setup [[error { message = "no database" }]])
    end)

    it("that yields at the top level is refused", function()
      script [[coroutine.yield() return {}]]
      assert_has("yield", refused())
    end)

    it("that eats the stack is refused", function()
      script [[local function f() return 1 + f() end f()]]
      assert_has("stack overflow", refused())
    end)

    it("of bytecode is refused", function()
      script("\27LJ\2\0")
      assert_has("bytecode", refused())
    end)

    it("that is empty is refused", function()
      script("")
      assert_has("app.lua", refused())
    end)

    it("that does not exist is named, with the way out", function()
      local err = refused { "nope.lua" }
      assert_has("nope.lua: No such file or directory", err)
      assert_has("path/to/app.lua'", err)
      err = refused {}
      assert_has("app.lua: No such file or directory", err)
      assert_has("no script was named", err)
    end)

    it("that is a folder is named, with the script in it", function()
      os.execute("mkdir '" .. folder .. "/sub'")
      assert_has("it is a folder", refused { "sub" })
      script("return {}", "sub/app.lua")
      assert_has(" sub/app.lua'", refused { "sub" })
    end)
  end)

  describe("a bad override", function()
    before_each(function() echo() end)

    it("is named as it was given", function()
      local result = run { "check", env = { PERILUNE_LOG_LEVEL = "loud" } }
      assert_code(78, result)
      assert_one_line(result.err)
      assert_has("env PERILUNE_LOG_LEVEL: expects \"debug\"", result.err)
    end)

    -- As any other word of the command line that cannot be used.
    for given, said in pairs {
      ["--workers=abc"] = "flag --workers: expects a whole number from 1 to 256",
      ["--workers=0"] = "flag --workers: expects a whole number from 1 to 256",
      ["--listen=9000"] = "flag --listen: expects an address",
      ["--listen=tcp://[fe80::1]:1"] = "flag --listen: a link-local address needs",
      ["--drain=soon"] = "flag --drain: ", ["--log-format=xml"] = "flag --log-format: expects",
      ["--log-level=loud"] = "flag --log-level: expects", ["--control="] = "flag --control: expects",
      ["--set=timeout.idle=soon"] = "flag --set timeout.idle: ", ["--set=limits.conections=1"] = "unknown key",
      ["--set=agent=x"] = "can only be set in the script", ["--set=workers"] = "--set expects KEY=VALUE",
      ["--log-level"] = "--log-level needs a value", ["--watch=1"] = "--watch takes no value",
      ["--max-size=x"] = "--max-size expects", ["--wrokers=1"] = "unknown option --wrokers",
    } do
      it("of the command line is wrong usage: " .. given, function()
        for _, name in ipairs { "run", "check" } do
          if name == "run" or not given:find "watch" and not given:find "max%-size" then
            local result = run { name, given }
            assert_code(2, result)
            assert.equal("", result.out)
            assert_has(said, result.err)
            assert_has(("\nsee 'perilune %s --help'\n"):format(name), result.err)
            local _, lines = result.err:gsub("\n", "")
            assert.equal(2, lines, result.err)
          end
        end
      end)
    end

    it("of an unknown key is told the nearest one", function()
      local result = run { "check", "--set", "limits.conections=3" }
      assert_code(2, result)
      assert_has('unknown key "limits.conections" (did you mean "limits.connections"?)', result.err)
    end)

    it("of what only a script can say is refused", function()
      assert_has("can only be set in the script", run({ "check", "--set", "agent=x" }).err)
    end)
  end)

  describe("an option that other programs have", function()
    for given, meant in pairs {
      ["run --port=1"] = "--listen tcp://127.0.0.1:9000", ["run -p"] = "--listen tcp://127.0.0.1:9000",
      ["check --host=x"] = "--listen tcp://127.0.0.1:9000", ["run --bind"] = "--listen tcp://127.0.0.1:9000",
      ["run --threads=2"] = "--workers", ["run -j"] = "--workers", ["run --verbose"] = "--log-level debug",
      ["run --loglevel"] = "--log-level", ["run --logfile=x"] = "--log-file", ["run --reload"] = "--watch",
      ["run --limits.connections=3"] = "--set limits.connections=…", ["kick --message=x"] = "--reason",
      ["stop --force"] = "--now", ["record --overwrite"] = "--force", ["record --output=x"] = "--out",
      ["record --duration=3"] = "--seconds", ["new --type=chat"] = "--template", ["exec --execute"] = "--eval",
      ["status --sock=x"] = "--control",
    } do
      it("is told ours: " .. given, function()
        local result = run { given:match "^%S+", given:match "%S+$" }
        assert_code(2, result)
        assert_has("(did you mean " .. meant .. "?)", result.err)
      end)
    end

    it("is told none where the command has none like it", function()
      for _, given in ipairs { "status --port=1", "run --xyzzy", "new --threads=3" } do
        local result = run { given:match "^%S+", given:match "%S+$" }
        assert_code(2, result)
        assert_lacks("did you mean", result.err)
      end
    end)

    it("and an address that is only a part of one is told the whole", function()
      echo()
      for given, meant in pairs {
        ["9000"] = "tcp://127.0.0.1:9000", ["localhost"] = "tcp://localhost:9000", ["10.0.0.1"] = "tcp://10.0.0.1:9000",
        [":9000"] = "tcp://:9000", ["localhost:9000"] = "tcp://localhost:9000", ["/run/a.sock"] = "unix:///run/a.sock",
      } do
        local result = run { "run", "--listen", given }
        assert_code(2, result)
        assert_has(('(did you mean "%s"?)'):format(meant), result.err)
      end
    end)
  end)

  describe("an unknown variable", function()
    before_each(function() echo() end)

    local function warning(name)
      local result = run { "check", env = { [name] = "secret" } }
      assert_code(0, result)
      assert_lacks("secret", result.err)
      return result.err
    end

    it("is a warning that names the nearest one", function()
      assert.equal("perilune: warning: PERILUNE_WORKRES is no setting and is ignored "
        .. "(did you mean PERILUNE_WORKERS?)\n",
        warning "PERILUNE_WORKRES")
    end)

    it("is told what it is called here", function()
      assert_has("(did you mean PERILUNE_LISTEN?)", warning "PERILUNE_PORT")
      assert_has("(did you mean PERILUNE_WORKERS?)", warning "PERILUNE_THREADS")
    end)

    it("is told the group that it lacks", function()
      assert_has("(did you mean PERILUNE_LIMITS_CONNECTIONS?)", warning "PERILUNE_CONNECTIONS")
    end)

    it("has no suggestion when nothing is near", function()
      assert.equal("perilune: warning: PERILUNE_SERVICE_HOST is no setting and is ignored\n",
        warning "PERILUNE_SERVICE_HOST")
    end)

    it("is told of when the script is bad, too", function()
      script("return {")
      local result = run { "run", env = { PERILUNE_WORKRES = "1" } }
      assert_code(78, result)
      assert_has("PERILUNE_WORKRES", result.err)
    end)

    it("is none of those that our own tools use", function()
      assert.equal("", warning "PERILUNE")
      assert.equal("", warning "PERILUNE_TEST_SEED")
    end)
  end)

  it("says where it looked when its Lua modules are missing", function()
    echo()
    local result = run { "run", env = { PERILUNE_LUA_PATH = "/nowhere" } }
    assert_code(1, result)
    assert_one_line(result.err)
    assert_has("PERILUNE_LUA_PATH", result.err)
    assert_has("/nowhere/?.lua", result.err)
  end)
end)
