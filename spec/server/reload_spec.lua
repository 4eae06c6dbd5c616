--- HUP loads the script anew: new connections get the new generation, those there are keep theirs, and what cannot be
--- loaded changes nothing.
local command = require "spec.support.command"
local has = require "spec.support.has"
local server = require "spec.support.server"
local support = require "spec.support.reload"
local wait = require "spec.support.wait"

local HEAD, script, rewrite, reload, reload_to = support.HEAD, support.script, support.rewrite, support.reload,
  support.reload_to

describe("a reload", function()
  after_each(server.finish)

  it("gives new connections the new script, and leaves the old ones theirs", function()
    local app = server.start { script = script "one", workers = 2 }
    local old = app:connect():echo_line("a", "one a")
    assert.equal(2, reload_to(app, script "two").generation)
    old:echo_line("b", "one b")
    for i = 1, 6 do app:connect():echo_line("c" .. i, "two c" .. i) end
    old:echo_line("d", "one d")
  end)

  it("loads the modules of the app anew, for each generation its own", function()
    local MAIN = HEAD .. [[
      local words = require "words"
      words.count = 0
      function Agent:proceed(line) words.count = words.count + 1 return words.text .. " " .. words.count end
      return { listen = "tcp://127.0.0.1:0", frame = "line", agent = Agent }]]
    local app = server.start { script = MAIN, modules = { words = [[return { text = "old" }]] } }
    local old = app:connect():echo_line("", "old 1"):echo_line("", "old 2")
    rewrite(app, [[return { text = "new" }]], "words.lua")
    assert.equal("reloaded", reload(app).message)
    app:connect():echo_line("", "new 1")
    old:echo_line("", "old 3")
  end)

  it("runs setup() of the new and teardown() of the old, when its last connection has gone", function()
    local function with_hooks(version)
      return script(version, ([[
        setup = function(app) note("setup %s " .. app.generation) end,
        teardown = function(app) note("teardown %s " .. app.generation) end]]):format(version, version))
    end
    local app = server.start { script = with_hooks "one" }
    local old = app:connect():echo_line("a", "one a")
    reload_to(app, with_hooks "two")
    app:wait_log "setup two 2"
    app:connect():echo_line("a", "two a")
    assert.is_nil(app:find_log("teardown one 1")[1])
    old:close()
    app:wait_log "teardown one 1"
    app:wait_log { message = "generation retired", generation = 1 }
    assert.is_nil(app:find_log("teardown two 2")[1])
    app:stop()
    app:wait_log "teardown two 2"
  end)

  it("keeps what an old connection is in the middle of", function()
    local app = server.start { script = HEAD .. [[
      function Agent:proceed(line)
        if line == "sleep" then perilune.sleep(0.3) return "woke" end
        if line == "read" then return "read " .. self.conn:read() end
        return "old " .. line
      end
      return { listen = "tcp://127.0.0.1:0", frame = "line", agent = Agent }]] }
    local sleeper, reader, half = app:connect(), app:connect(), app:connect()
    sleeper:send("sleep\nafter\n")
    reader:send("read\n")
    half:echo_line("x", "old x"):send("hal")
    reload_to(app, script "new")
    half:send("f\n")
    assert.equal("old half", half:recv_line())
    reader:send("it\n")
    assert.equal("read it", reader:recv_line())
    assert.equal("woke", sleeper:recv_line())
    assert.equal("old after", sleeper:recv_line())
    app:connect():echo_line("y", "new y")
  end)

  it("changes limits and time-outs for new connections", function()
    local app = server.start { script = script("one", [[limits = { connections = 1 }]]) }
    local old = app:connect():echo_line("a", "one a")
    assert.equal("", (app:connect():recv_all()))
    reload_to(app, script("two", [[limits = { connections = 3, frame = 8 }, timeout = { idle = "50ms" }]]))
    local new = app:connect():echo_line("a", "two a")
    assert.equal("", (app:connect():send("longer than eight\n"):recv_all()))
    assert.equal("", (new:recv_all()))
    app:wait_log "closed idle_timeout"
    old:echo_line("longer than eight", "one longer than eight")
  end)

  local BROKEN = {
    ["whose syntax is wrong"] = { "return {", "unexpected symbol" },
    ["that throws"] = { "error 'no luck'", "no luck" },
    ["that returns nothing"] = { "", "the script must end in return" },
    ["with an unknown key"] = { script("x", "limts = {}"), "did you mean" },
    ["without proceed"] = { [[return { listen = "tcp://127.0.0.1:0", agent = {} }]], "proceed" },
    ["whose setup() throws"] = { script("x", [[setup = function() error "not today" end]]), "not today" },
    ["that requires a module that is not there"] = { [[require "nowhere"]], "nowhere" },
  }
  for what, case in pairs(BROKEN) do
    it("to a script " .. what .. " changes nothing, and says why", function()
      local app = server.start { script = script "one", workers = 2 }
      local old = app:connect():echo_line("a", "one a")
      rewrite(app, case[1])
      local entry = reload(app)
      assert.equal("reload failed: the old generation serves on", entry.message)
      assert.equal(1, entry.generation)
      has(case[2], entry.excerpt)
      old:echo_line("b", "one b")
      app:connect():echo_line("c", "one c")
      assert.equal(2, reload_to(app, script "two").generation)
      app:connect():echo_line("d", "two d")
    end)
  end

  it("to a script whose setup() raises control characters forges nothing, and names no generation", function()
    local app = server.start { script = script "one", format = "text", control = "control.sock" }
    local function reload_told(setup)
      rewrite(app, script("x", ("setup = function() %s end"):format(setup)))
      local told = command.run { "reload", "--wait", "--control=" .. app.folder .. "/control.sock" }
      assert.equal(1, told.code)
      return told.out .. told.err
    end
    local told = reload_told [[error("a\27[2Jb\n19:00:00.000 info  forged\rc\0d", 0)]]
    for _, text in ipairs { told, app:text() } do
      has([[a\x1b[2Jb\n19:00:00.000 info  forged\rc\x00d]], text)
      assert.is_nil(text:find "[%z\1-\9\11-\31\127]")
    end
    told = reload_told [[error "not today"]]
    has("error: not today", told)
    has("/app.lua:4 in setup\n", told)
  end)

  it("to a script whose setup() does not return keeps nobody waiting", function()
    local app = server.start { script = script "one" }
    local client = app:connect():echo_line("a", "one a")
    rewrite(app, script("x", "setup = function() while true do end end"))
    app:signal "HUP"
    -- What setup() computed while an answer was waited for.
    local waited, failed = {}
    repeat
      local before = app:cpu()
      client:echo_line("b", "one b")
      waited[#waited + 1] = app:cpu() - before
      wait.pause(0.01) -- or we would take the time that it runs out of
      failed = app:find_log(function(entry) return entry.message:find "^reload failed" end)[1]
    until failed
    has("it ran for over 10 s of CPU time (the most that loading and setup may take)", failed.excerpt)
    table.sort(waited)
    local median = waited[math.ceil(#waited / 2)]
    assert.is_true(#waited > 10, #waited .. " answers meanwhile")
    assert.is_true(median < 0.2 * server.SLOWER, ("an answer took %.2f s of it"):format(median))
    app:connect():echo_line("c", "one c")
  end)

  it("to a script that fills the memory leaves the server's memory alone", function()
    local app = server.start { script = script("one", "limits = { memory = '8m' }") }
    local client, before = app:connect():echo_line("a", "one a"), app:rss()
    rewrite(app, "local t = {} while true do t[#t + 1] = ('x'):rep(1e5) .. #t end")
    has("memory", reload(app).excerpt)
    client:echo_line("b", "one b")
    if not server.sanitizer then assert.is_true(app:rss() - before < 200 * 2 ^ 20) end
  end)

  it("names what cannot change without a restart, and changes nothing", function()
    local app = server.start { script = script "one" }
    for setting, name in pairs {
      [ [[limits = { buffers = "100m" }]] ] = "limits.buffers",
      [ [[log = { level = "debug" }]] ] = "log.level", [ [[log = { file = "x" }]] ] = "log.file",
      [ [[limits = { per_ip = 3 }]] ] = "limits.per_ip",
    } do
      rewrite(app, script("two", setting))
      has("cannot change without a restart: " .. name, reload(app).excerpt)
    end
    app:connect():echo_line("c", "one c")
  end)

  it("names of these what is usually said on the command line", function()
    local function settings(workers, format, control)
      return script("one", ("workers = %d, control = %q, log = { format = %q }"):format(workers, control, format))
    end
    local app = server.start { script = settings(2, "json", "off"), scripts_own = true }
    for name, text in pairs {
      workers = settings(3, "json", "off"), ["log.format"] = settings(2, "text", "off"),
      control = settings(2, "json", app.folder .. "/control"),
    } do
      rewrite(app, text)
      local entry = reload(app)
      assert.equal("reload failed: the old generation serves on", entry.message)
      has("cannot change without a restart: " .. name, entry.excerpt)
    end
    app:connect():echo_line("c", "one c")
  end)

  it("whose setup() throws for one worker only is discarded for all", function()
    local app = server.start { script = script "one", workers = 3 }
    local clients = app:connect_many(6)
    rewrite(app, script("two", [[setup = function(app) if app.worker == 2 then error "not on the third" end end,
      teardown = function(app) note("torn down " .. app.worker) end]]))
    local entry = reload(app)
    assert.equal("reload failed: the old generation serves on", entry.message)
    has("not on the third", entry.excerpt)
    for _, worker in ipairs { 0, 1 } do app:wait_log("torn down " .. worker) end
    for _, client in ipairs(clients) do client:echo_line("a", "one a") end
    for _ = 1, 6 do app:connect():echo_line("b", "one b") end
    assert.equal(2, reload_to(app, script "two").generation)
    for _ = 1, 6 do app:connect():echo_line("c", "two c") end
  end)

  it("is refused while too many old generations have connections", function()
    local app = server.start { script = script("g1", "reload = { keep = 2 }") }
    local clients = {}
    for i = 1, 3 do
      clients[i] = app:connect():echo_line("a", "g" .. i .. " a")
      if i < 3 then reload_to(app, script("g" .. i + 1, "reload = { keep = 2 }")) end
    end
    rewrite(app, script("g4", "reload = { keep = 2 }"))
    has("reload refused", reload(app).message)
    for i = 1, 3 do clients[i]:echo_line("b", "g" .. i .. " b") end
    clients[1]:close()
    app:wait_log { message = "generation retired", generation = 1 }
    assert.equal("reloaded", reload(app).message)
    app:connect():echo_line("c", "g4 c")
    clients[2]:echo_line("d", "g2 d")
  end)

  it("asked for while another is under way is done after it", function()
    local app = server.start { script = script "one" }
    rewrite(app, "local t = os.clock() while os.clock() - t < 0.2 do end " .. script "two")
    app:signal "HUP"
    app:signal "HUP"
    rewrite(app, script "three")
    app:signal "HUP"
    wait.until_true("the last script", function()
      local client = app:connect():send("x\n")
      return client:recv_line() == "three x"
    end)
  end)

  describe("while a worker is in a long call", function()
    -- "spin" keeps a worker until the gate is there.
    local function gated(version, app_folder)
      return (script(version, [[limits = { proceed = "30s" }]]):gsub("function Agent:proceed%(line%)", [[%0
        if line == "spin" then
          note "spins"
          repeat local gate = io.open("]] .. app_folder .. [[/gate") until gate
          note "spun"
        end]]))
    end

    -- A server one of whose two workers spins, and the other serves generation 2.
    local function start_half(options)
      options = options or {}
      options.folder, options.workers = command.folder(), 2
      options.script = gated("one", options.folder)
      local app = server.start(options)
      app.own_folder = true
      local spinner = app:connect():send("spin\n")
      app:wait_log "spins"
      rewrite(app, gated("two", app.folder))
      app:signal "HUP"
      app:wait_log { message = "generation retired", generation = 1 } -- by the other, which has no connection
      assert.same({}, support.outcomes(app))
      return app, spinner
    end

    local function open_gate(app) rewrite(app, "", "gate") end

    it("is reported once that has come back, and has adopted it", function()
      local app, spinner = start_half()
      open_gate(app)
      assert.equal("reloaded", support.outcome(app, 1).message)
      assert.equal("one spin", spinner:recv_line())
      spinner:echo_line("y", "one y")
      for i = 1, 4 do app:connect():echo_line("z" .. i, "two z" .. i) end
    end)

    it("another is done after it", function()
      local app = start_half()
      rewrite(app, script "three")
      app:signal "HUP"
      open_gate(app)
      assert.equal(2, support.outcome(app, 1).generation)
      assert.equal(3, support.outcome(app, 2).generation)
      for i = 1, 4 do app:connect():echo_line("z" .. i, "three z" .. i) end
    end)

    it("the server can be stopped", function()
      local app, spinner = start_half()
      rewrite(app, script "three")
      app:signal "HUP"
      app:signal "TERM"
      app:wait_log "draining"
      open_gate(app)
      assert.equal("one spin\n", (spinner:recv_all()))
      assert.equal(0, app:wait_end().code)
      assert.equal(1, #app:find_log "reloaded")
    end)
  end)

  it("that is under way when the server is told to stop is dropped", function()
    local app = server.start { script = script "one" }
    app:connect():echo_line("a", "one a")
    rewrite(app, "local t = os.clock() while os.clock() - t < 0.3 do end " .. script "two")
    app:signal "HUP"
    local ended = app:stop()
    assert.equal(0, ended.code)
    assert.is_nil(app:find_log("reloaded")[1])
  end)

  it("again and again leaves no compiled traces behind", function()
    local COUNTING = HEAD .. [[
      local util = require "jit.util"
      local VERSION = "%s"
      function Agent:proceed(line)
        if line == "collect" then -- by garbage: some cycles' worth
          for i = 1, 200 do line = ("x"):rep(1e5) .. i end
        end
        local sum, traces = 0, 0
        for i = 1, 1000 do sum = sum + i end
        for i = 1, 1000 do sum = sum + #tostring(i) end
        for i = 1, 2000 do if util.traceinfo(i) then traces = traces + 1 end end
        return VERSION .. " " .. traces
      end
      return { listen = "tcp://127.0.0.1:0", frame = "line", agent = Agent, unsafe = { "jit" } }]]
    local app = server.start { script = COUNTING:format "v0" }
    local seen = {}
    for round = 1, server.scaled(60, 20) do
      local version = "v" .. round
      reload_to(app, COUNTING:format(version))
      app:wait_log { message = "generation retired", generation = round }
      local client = app:connect()
      for _ = 1, 3 do client:send("x\n"):recv_line() end
      seen[round] = tonumber(client:send("collect\n"):recv_line():match("^" .. version .. " (%d+)$"))
      client:close()
    end
    -- How much of the last generations is left differs from round to round; what nobody frees is there in each.
    local quarter = #seen / 4
    local first, last = math.max(unpack(seen, 1, quarter)), math.min(unpack(seen, #seen - quarter + 1))
    assert.is_true(first >= 3, "nothing was compiled: " .. first)
    assert.is_true(last <= first + 3, ("%d traces at most, at last %d at least"):format(first, last))
  end)

  it("again and again loses no reply, and leaves no memory behind", function()
    local rounds, bunch = server.scaled(200, 40), server.scaled(40, 10)
    local app = server.start { script = script "v0", workers = 2 }
    local clients, sent = {}, {}
    for i = 1, bunch do
      clients[i], sent[i] = app:connect(), 0
    end
    -- Each client has frames in flight all the time; each reply has its number, in order, from one version.
    local function ask(i, n)
      local lines = {}
      for k = 1, n do lines[k] = ("%d\n"):format(sent[i] + k) end
      clients[i]:send(table.concat(lines))
    end
    local function answer(i, n)
      for k = 1, n do
        local version, number = clients[i]:recv_line():match("^(v%d+) (%d+)$")
        assert.equal(sent[i] + k, tonumber(number))
        clients[i].version = clients[i].version or version
        assert.equal(clients[i].version, version)
      end
      sent[i] = sent[i] + n
    end
    local function load_of(path)
      for line in io.lines(path) do
        local kb = line:match "^VmRSS:%s+(%d+)"
        if kb then return tonumber(kb) end
      end
    end
    local half
    for round = 1, rounds do
      for i = 1, bunch do ask(i, 8) end
      local broken = round % 10 == 0
      rewrite(app, broken and "return {" or script("v" .. round, "reload = { keep = 1000 }"))
      local outcome = reload(app).message
      assert.equal(broken and "reload failed: the old generation serves on" or "reloaded", outcome)
      for i = 1, bunch do answer(i, 8) end
      -- The oldest go, others come: generations retire.
      local i = 1 + round % bunch
      clients[i]:close()
      clients[i], sent[i] = app:connect(), 0
      if round == rounds / 2 then half = load_of("/proc/" .. app.pid .. "/status") end
    end
    local grown = load_of("/proc/" .. app.pid .. "/status") - half
    if server.measures_memory and not server.sanitizer then assert.is_true(grown < 8 * 1024, grown .. " KiB more") end
    local summary = app:stop().summary
    assert.equal(0, summary.cut)
    assert.equal(summary.accepted, summary.closed)
  end)
end)
