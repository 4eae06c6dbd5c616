--- A log file: who writes to it, and how it is rotated without a line lost.
local client = require "spec.support.client"
local command = require "spec.support.command"
local has = require "spec.support.has"
local json_decode = require "spec.support.json_decode"
local operator = require "spec.support.operator"
local posix_stat = require "posix.sys.stat"
local posix_wait = require "posix.sys.wait"
local server = require "spec.support.server"
local stdio = require "posix.stdio"
local unistd = require "posix.unistd"

local function script(settings)
  return server.NOTE .. ([[
    local Agent = {}
    function Agent:proceed(line) note("mark " .. line) return line end
    return { listen = "tcp://127.0.0.1:0", frame = "line", agent = Agent, %s }]]):format(settings or "")
end

local function start(options)
  local copy = { script = script(), control = "control.sock", log_file = "app.log" }
  for key, value in pairs(options or {}) do copy[key] = value end
  return server.start(copy)
end

local run, read = operator.run, command.read

-- How often each mark is in a file; fails on a line that is not whole.
local function count_marks(path, counts)
  local text = read(path)
  assert.truthy(text == "" or text:sub(-1) == "\n", "the last line of " .. path .. " is not whole")
  for line in text:gmatch("([^\n]*)\n") do
    local mark = json_decode(line).message:match "^mark (.*)$"
    if mark then counts[mark] = (counts[mark] or 0) + 1 end
  end
  return counts
end

-- The file of that name is a new one from now on.
local function rename(app, name)
  app:log()
  assert(stdio.rename(app.log_file, app.folder .. "/" .. name))
  app.at = 1
end

describe("a log file", function()
  after_each(server.finish)

  it("has what standard error would have, as JSON unless asked otherwise, for its owner and group", function()
    local before = posix_stat.umask(tonumber("22", 8))
    local app = start { format = "auto" }
    posix_stat.umask(before)
    app.format = "json"
    app:connect():echo_line("a")
    app:wait_log "mark a"
    assert.equal("", read(app.folder .. "/err"))
    assert.equal(tonumber("640", 8), posix_stat.stat(app.log_file).st_mode % 512)
    assert.equal("app.log", json_decode(run(app, "status", "--json").out).log_file)
  end)

  it("is appended to", function()
    local folder = command.folder()
    finally(function() command.remove(folder) end)
    command.write(folder .. "/kept.log", '{"message":"from before"}\n')
    start({ log_file = "kept.log", folder = folder }):stop()
    assert.truthy(read(folder .. "/kept.log"):find '^{"message":"from before"}\n{"time"')
  end)

  it("that cannot be opened fails the start, with its path and the reason", function()
    local folder = command.folder()
    finally(function() command.remove(folder) end)
    command.write(folder .. "/app.lua", script())
    for path, reason in pairs { ["nowhere/app.log"] = "No such file or directory", ["/"] = "Is a directory" } do
      local result = command.run { "run", "--log-file", path, dir = folder }
      assert.same({ 1, ("perilune: cannot open the log file %s: %s\n"):format(path, reason) },
        { result.code, result.err })
    end
  end)

  it("on a full disk drops entries and counts them", function()
    local app = start { fsize = 4096 }
    local one = app:connect()
    for i = 1, 100 do one:echo_line(tostring(i)) end
    local dropped = json_decode(run(app, "status", "--json").out).counters.log_dropped
    assert.is_true(dropped > 50)
    rename(app, "full.log")
    run(app, "reopen")
    local entry = app:wait_log "log entries were dropped"
    one:echo_line("a"):close()
    assert.equal(entry.dropped, app:stop().summary.log_dropped)
    local full = read(app.folder .. "/full.log")
    assert.equal(4096, #full)
    local _, whole = full:gsub("mark %d+[^\n]*\n", "")
    -- The entry for which the disk had half of the room is one of those that were dropped.
    assert.equal(100, whole + entry.dropped)
  end)

  it("is written to by both processes of an upgrade", function()
    local app = start()
    local old = app:connect():echo_line("a")
    local successor = app:upgrade()
    successor:connect():echo_line("b")
    old:echo_line("c"):close()
    assert.equal(0, app:wait_end().code)
    assert.same({ a = 1, b = 1, c = 1 }, count_marks(app.log_file, {}))
  end)

  it("that cannot be opened by the new process fails an upgrade, which says so", function()
    local app = start { log_file = "logs/app.log" }
    os.execute(("mv %s/logs %s/gone"):format(app.folder, app.folder))
    app.log_file = app.folder .. "/gone/app.log"
    local result
    app:try_upgrade(nil, function() result = run(app, "upgrade", "--wait") end)
    assert.equal(1, result.code)
    has("cannot open the log file logs/app.log: No such file or directory", result.err)
  end)
end)

describe("reopening the log", function()
  after_each(server.finish)

  for name, ask in pairs {
    ["by command"] = function(app)
      local result = run(app, "reopen")
      assert.same({ 0, "log reopened: app.log\n" }, { result.code, result.out })
    end,
    ["by signal"] = function(app) app:signal "USR1" end,
  } do
    it("goes on in a new file: " .. name, function()
      local app = start()
      local one = app:connect():echo_line("a")
      rename(app, "old.log")
      one:echo_line("b")
      ask(app)
      assert.equal("app.log", app:wait_log("log reopened").path)
      one:echo_line("c")
      assert.same({ a = 1, b = 1 }, count_marks(app.folder .. "/old.log", {}))
      assert.same({ c = 1 }, count_marks(app.log_file, {}))
    end)
  end

  it("keeps the old file where a new one cannot be had, and says so in it", function()
    local app = start { log_file = "logs/app.log" }
    local one = app:connect():echo_line("a")
    os.execute(("mv %s/logs %s/gone"):format(app.folder, app.folder))
    app.log_file = app.folder .. "/gone/app.log"
    local result = run(app, "reopen")
    assert.equal(1, result.code)
    has("perilune reopen: cannot reopen the log file, the old one is kept: logs/app.log: No such file", result.err)
    assert.equal("reopen_failed", json_decode(run(app, "reopen", "--json").out).code)
    app:wait_log { message = "cannot reopen the log file: the old one is kept", error = "No such file or directory" }
    one:echo_line("b")
    assert.same({ a = 1, b = 1 }, count_marks(app.log_file, {}))
    os.execute(("mkdir %s/logs"):format(app.folder))
    app.log_file, app.at = app.folder .. "/logs/app.log", 1
    assert.equal(0, run(app, "reopen").code)
    one:echo_line("c")
    assert.same({ c = 1 }, count_marks(app.log_file, {}))
  end)

  it("is an error where there is none", function()
    local app = server.start { script = script(), control = "control.sock" }
    local result = run(app, "reopen")
    assert.equal(1, result.code)
    has("perilune reopen: there is no log file to reopen: log.file is not set", result.err)
    assert.equal("no_log_file", json_decode(run(app, "reopen", "--json").out).code)
  end)

  -- Connects, sends a mark of its own, is answered and closes, until the file `stop` is there; then tells how often.
  local function mark_until_stopped(app, name, parent)
    local asked, failure = 0, "-"
    while not unistd.access(app.folder .. "/stop") and unistd.getppid() == parent and failure == "-" do
      local ok, message = pcall(function()
        local one = client.connect { port = app.listeners[1].port }
        one:echo_line(name .. "-" .. asked):close()
      end)
      if ok then asked = asked + 1 else failure = message end
    end
    command.write(app.folder .. "/" .. name, asked .. " " .. failure)
  end

  local function start_clients(app, count)
    local pids, parent = {}, unistd.getpid()
    for i = 1, count do
      pids[i] = assert(unistd.fork())
      if pids[i] == 0 then
        pcall(mark_until_stopped, app, "client" .. i, parent)
        unistd._exit(0)
      end
    end
    return pids
  end

  -- The marks that must be there, each once.
  local function stop_clients(app, pids)
    local wanted = {}
    command.write(app.folder .. "/stop", "")
    for i, pid in ipairs(pids) do
      posix_wait.wait(pid)
      local asked, failure = read(app.folder .. "/client" .. i):match("^(%d+) (.*)$")
      assert.equal("-", failure)
      for n = 0, asked - 1 do wanted[("client%d-%d"):format(i, n)] = 1 end
    end
    return wanted
  end

  it("loses and tears no line under load, while the process is replaced as well", function()
    local times = server.scaled(30, 8)
    local app = start { workers = 2 }
    local first, reopened = app, 0
    local clients = start_clients(app, 4)
    for i = 1, times do
      rename(app, "old" .. i .. ".log")
      if i % 2 == 0 then app:signal "USR1" else assert.equal(0, run(app, "reopen").code) end
      reopened = reopened + 1
      app:wait_log({ message = "log reopened", pid = app.pid }, nil, reopened)
      if i % 5 == 0 then
        local successor = app:upgrade()
        assert.equal(0, app:wait_end().code)
        app, reopened = successor, 0
      end
    end
    local wanted, counts, all = stop_clients(first, clients), {}, 0
    assert.equal(0, app:stop().code)
    count_marks(app.log_file, counts)
    for i = 1, times do count_marks(app.folder .. "/old" .. i .. ".log", counts) end
    for _ in pairs(wanted) do all = all + 1 end
    assert.is_true(all > 100, all .. " marks")
    assert.same(wanted, counts)
  end)
end)
