local client = require "spec.support.client"
local command = require "spec.support.command"
local fcntl = require "posix.fcntl"
local json_decode = require "spec.support.json_decode"
local posix_signal = require "posix.signal"
local posix_wait = require "posix.sys.wait"
local unistd = require "posix.unistd"
local wait = require "spec.support.wait"

-- A frame of no bytes is a bad one: each client of this kind makes an entry.
local SCRIPT = [[
  local perilune = require "perilune"
  local Agent = {}
  function Agent:proceed(line)
    local n = tonumber(line:match("^log (%%d+)$"))
    for i = 1, n or 0 do perilune.log("info", i .. (" and so on"):rep(%d)) end
    return line
  end
  return { listen = "unix://%s", frame = "line", agent = Agent, limits = { proceed = "60s" } } ]]

local app

-- The binary with a pipe for standard error, which only this specification reads. `full`: nothing fits any more.
local function start(options)
  local folder = command.folder()
  local path = folder .. "/socket"
  local script = command.write(folder .. "/app.lua", SCRIPT:format(options.words or 0, path))
  local output, input = unistd.pipe()
  fcntl.fcntl(output, fcntl.F_SETFD, fcntl.FD_CLOEXEC)
  if options.full then
    fcntl.fcntl(input, fcntl.F_SETFL, fcntl.O_NONBLOCK)
    while unistd.write(input, ("x"):rep(4095) .. "\n") do end
    fcntl.fcntl(input, fcntl.F_SETFL, 0)
  end
  local pid = assert(unistd.fork())
  if pid == 0 then
    unistd.dup2(input, 2)
    unistd.close(input)
    unistd.close(0)
    fcntl.open("/dev/null", fcntl.O_RDONLY)
    unistd.execp(command.binary, { [0] = command.binary, "run", script, "--log-format", "json", "--workers=1" })
    unistd._exit(127)
  end
  app = { pid = pid, folder = folder, path = path, output = output, input = input }
  app.client = wait.until_true("the server to serve", function() return (client.try_connect { path = path }) end)
end

-- Whether anything has set O_NONBLOCK on the pipe that the server shares with us.
local function is_shared_blocking()
  return fcntl.fcntl(app.input, fcntl.F_GETFL) % (2 * fcntl.O_NONBLOCK) < fcntl.O_NONBLOCK
end

-- All entries that are in the pipe now.
local function read_entries()
  fcntl.fcntl(app.output, fcntl.F_SETFL, fcntl.O_NONBLOCK)
  while true do
    local bytes = unistd.read(app.output, 65536)
    if not bytes or bytes == "" then break end
    app.text = (app.text or "") .. bytes
  end
  local entries = {}
  for line in app.text:gmatch("([^\n]*)\n") do
    if not line:find("^x+$") then entries[#entries + 1] = json_decode(line) end
  end
  return entries
end

local function find(entries, message)
  for _, entry in ipairs(entries) do
    if entry.message == message then return entry end
  end
end

local function stop()
  posix_signal.kill(app.pid, posix_signal.SIGTERM)
  local code
  wait.until_true("the server's end", function()
    local pid, how, status = posix_wait.wait(app.pid, posix_wait.WNOHANG)
    if pid ~= app.pid or how == "running" then return false end
    code = how == "exited" and status or how
    return true
  end)
  app.pid = nil
  return code
end

local function finish()
  if app.pid then
    posix_signal.kill(app.pid, posix_signal.SIGKILL)
    posix_wait.wait(app.pid)
  end
  app.client:close()
  unistd.close(app.output)
  unistd.close(app.input)
  command.remove(app.folder)
end

describe("a log that nobody reads", function()
  after_each(finish)

  it("stops neither the worker nor the end", function()
    start { words = 40 }
    app.client:send("log 1000\n")
    assert.equal("log 1000", app.client:recv_line())
    local other = client.connect { path = app.path }
    other:send("still served\n")
    assert.equal("still served", other:recv_line())
    other:close()
    assert.is_true(is_shared_blocking())
    assert.equal(0, stop())
  end)

  it("does not keep a server from starting", function()
    start { full = true }
    app.client:send("served\n")
    assert.equal("served", app.client:recv_line())
    assert.equal(0, stop())
  end)

  -- Entries of 9 kB are longer than what a pipe takes whole.
  for name, words in pairs { short = 1, long = 300 } do
    it("is told what it lacks once it reads, and finds no torn line: " .. name .. " entries", function()
      start { words = words }
      app.client:send("log 3000\n")
      assert.equal("log 3000", app.client:recv_line())
      local first = read_entries()
      app.client:send("log 1\n")
      assert.equal("log 1", app.client:recv_line())
      assert.equal(0, stop())
      local entries = read_entries()
      assert.is_true(#entries > #first)
      local lack, summary = find(entries, "log entries were dropped"), find(entries, "stopped")
      assert.is_true(lack.dropped > 100)
      assert.equal(lack.dropped, summary.log_dropped)
      local written = 0
      for _, entry in ipairs(entries) do written = written + (entry.message:find("^%d+ and so on") and 1 or 0) end
      assert.equal(3001, written + summary.log_dropped)
      assert.is_nil(app.text:match("[^\n]$"), "the last line is not whole")
    end)
  end
end)

describe("a log on a terminal", function()
  it("is text, unless told otherwise", function()
    local folder = command.folder()
    local path = folder .. "/socket"
    local script = command.write(folder .. "/app.lua", SCRIPT:format(1, path))
    -- script(1) gives its child a terminal, writes down what that shows, and ends with its exit code.
    local pid = assert(unistd.fork())
    if pid == 0 then
      unistd.dup2(fcntl.open("/dev/null", fcntl.O_RDWR), 0)
      unistd.dup2(0, 1)
      local line = ("exec '%s' run '%s' --workers=1 --control=off"):format(command.binary, script)
      unistd.execp("script",
        { [0] = "script", "--quiet", "--return", "--flush", "--command", line, folder .. "/shown" })
      unistd._exit(127)
    end
    local function shown() return command.shell("cat " .. folder .. "/shown 2>/dev/null") end
    local text = wait.until_true("the server to serve", function()
      local so_far = shown()
      return so_far:find("serving", 1, true) and so_far
    end)
    local own_pid = tonumber(text:match("serving .-pid=(%d+)"))
    local one = client.connect { path = path }
    one:send("log 1\n")
    assert.equal("log 1", one:recv_line())
    posix_signal.kill(own_pid, posix_signal.SIGTERM)
    local _, how, code = posix_wait.wait(pid)
    text = shown()
    command.remove(folder)
    assert.same({ "exited", 0 }, { how, code })
    assert.truthy(text:find("%d%d:%d%d:%d%d%.%d%d%d info  serving  script="), text)
    assert.truthy(text:find("info  1 and so on.-  conn=1"), text)
    assert.is_nil(text:find("{\"time\"", 1, true))
    one:close()
  end)
end)
