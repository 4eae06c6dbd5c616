--- A server in which calls of the system fail, and clients that see what comes of it.
---
---     faults.each("memory", function(result) … end)
---
--- Whatever fails: nobody crashes, nothing leaks, every connection is accounted for, and who was not hit is served.
local command = require "spec.support.command"
local luassert = require "luassert"
local operator = require "spec.support.operator"
local server = require "spec.support.server"
local wait = require "spec.support.wait"

local M = {}

local SCRIPT = [[
  local perilune = require "perilune"
  local Agent, Backend = {}, {}
  local BACKEND = "unix://]] .. "%s" .. [[/backend"
  local pools = {
    alone = perilune.pool(BACKEND, { frame = "line", idle = "50ms" }),
    shared = perilune.pool(BACKEND, { frame = "line", idle = "50ms", pipeline = true }),
  }
  function Backend:proceed(line) return "<" .. line .. ">" end
  function Agent:proceed(line)
    if line == "sleep" then
      perilune.sleep("1ms")
    elseif line == "change" then
      self.conn:set_timeout("idle", "50s")
      self.conn:set_frame("line")
    elseif line == "read" then
      return "read " .. tostring(self.conn:read())
    elseif line == "tasks" then
      local channel, semaphore = perilune.channel(), perilune.semaphore(1)
      perilune.after("1ms", function() end)
      perilune.spawn(function() perilune.defer(function() end) channel:send "value" end)
      return (perilune.all { function() return semaphore:with(channel.receive, channel) end })
    elseif line == "out" then
      local db = assert(perilune.connect(BACKEND, { frame = "line" }))
      self.conn:link(db)
      assert(db:send "out")
      return (assert(db:read()))
    elseif line == "alone" or line == "shared" then
      local reply = pools[line]:request(line)
      if reply then return reply end
      perilune.sleep "100ms" -- what has failed once is not tried again before that, by nobody
      return (assert(pools[line]:request(line)))
    elseif line == "names" then
      return (#assert(perilune.resolve "localhost") > 0 and "names")
    elseif line == "large" then
      return ("x"):rep(100000)
    end
    return line
  end
  return { frame = "line", agent = Agent, limits = { per_ip = 100 }, timeout = { idle = "60s", drain = "3s" },
    listen = { { address = "tcp://127.0.0.1:0" },
      { address = "unix://]] .. "%s" .. [[/socket", proxy = true, trust = { "unix" } },
      { address = BACKEND, agent = Backend } } }]]

-- What comes first on the second listener.
local HEADER = "PROXY TCP4 203.0.113.7 192.0.2.1 5060 9000\r\n"

-- What is sent, and what comes back; some of it by the first client alone, since each call of the system is tried.
local TALK = {
  { "hello\n", "hello\n" },
  { "sleep\n", "sleep\n" },
  { "par", "" },
  { "tial\none\ntwo\nthr", "partial\none\ntwo\n" },
  { "ee\nchange\n", "three\nchange\n" },
  { "read\n", "" },
  { "it\n", "read it\n" },
  { "tasks\n", "value\n" },
  { "out\n", "<out>\n", is_firsts = true },
  { "alone\n", "<alone>\n", is_firsts = true },
  { "shared\n", "<shared>\n", is_firsts = true },
  { "names\n", "names\n", is_firsts = true },
  { "large\n", ("x"):rep(100000) .. "\n" },
  { "bye\n", "bye\n" },
}

-- True; or false when the connection ended, which is fair where it was hit. Silence never is.
local function say(client, step)
  local ok, message = pcall(function()
    client:send(step[1])
    assert(client:recv_exact(#step[2]) == step[2], "a wrong answer to " .. step[1])
  end)
  message = tostring(message)
  if not ok and (message:find("timeout", 1, true) or message:find("wrong answer", 1, true)) then error(message, 0) end
  return ok
end

-- How many of the clients' connections ended before their time.
local function talk(clients)
  local lost = {}
  for _, step in ipairs(TALK) do
    for i, client in ipairs(clients) do
      if i == 1 or not step.is_firsts then lost[i] = lost[i] or not say(client, step) end
    end
  end
  local n = 0
  for _, was_lost in pairs(lost) do n = n + (was_lost and 1 or 0) end
  return n
end

local function leave(app, clients)
  -- One by a reset, the others as one does.
  clients[1]:reset()
  for _, client in ipairs(clients) do client:close() end
  app.clients = {}
end

local function lines_of(path)
  local file, lines = io.open(path), {}
  for line in file and file:lines() or function() end do lines[#lines + 1] = line end
  if file then file:close() end
  return lines
end

local function fired(app)
  for _, line in ipairs(lines_of(app.folder .. "/report")) do
    if line:find("^fired ") then return true end
  end
  return false
end

local function errors_of(app)
  local n = 0
  for line in app:text():gmatch("[^\n]+") do
    if line:find('"level":"error"', 1, true) or line:find("^perilune: ") then n = n + 1 end
  end
  return n
end

-- What a start that failed must look like.
local function check_failed_start(app, fault)
  local code, errors = app.ended.code, errors_of(app)
  if code ~= 1 or errors ~= 1 then
    error(("%s: code %d, %d lines of error; it said:\n%s"):format(fault, code, errors, app:text()), 0)
  end
end

-- Without the report, which the shim opens for a moment when something fails.
local function descriptors_of(app)
  local n = 0
  for _, what in pairs(app:descriptors()) do n = n + (what == app.folder .. "/report" and 0 or 1) end
  return n
end

local function serve(app)
  local before = descriptors_of(app)
  local clients = app:connect_many(2)
  clients[3] = app:connect { listener = 2 }
  pcall(clients[3].send, clients[3], HEADER)
  local lost = talk(clients)
  leave(app, clients)
  -- Whatever was hit, the next one is served.
  local probes = 0
  repeat
    local probe = app:connect()
    local served = say(probe, TALK[1])
    probe:close()
    probes = probes + 1
  until served or probes == 3
  lost = lost + probes - 1
  local function what() return ("descriptors back: %d, were %d"):format(descriptors_of(app), before) end
  wait.until_true(what, function() return descriptors_of(app) == before end)
  return lost
end

-- try_start() with a fault. With `late`, nothing fails before arm().
local function launch(fault, options)
  local folder = command.folder()
  local env = { FAULT = fault, FAULT_REPORT = folder .. "/report",
    FAULT_ARM = options.late and folder .. "/arm" or nil }
  return server.try_start {
    script = options.modules and options.script or (options.script or SCRIPT):format(folder, folder),
    modules = options.modules,
    folder = folder, env = env, workers = options.workers or 2, args = options.args,
    asan = server.SMALL_QUARANTINE, control = options.control,
  }
end

--- From now on it fails.
---@param app perilune.server
---@return perilune.server app
function M.arm(app)
  command.write(app.folder .. "/arm", "")
  return app
end

--- A server that serves, and in which this fails once it is armed. The specification has to end it.
---@param fault string as in spec/faults/shim.c
---@param options { control: string?, script: string?, modules: table?, args: string[]?, workers: integer? }? `script`:
--- "%s" in it is the folder, unless there are modules
---@return perilune.server
function M.start(fault, options)
  local all = { late = true }
  for name, value in pairs(options or {}) do all[name] = value end
  return launch(fault, all)
end

--- Has the fault of a server come to pass?
M.fired = fired

--- What `perilune status --json` says. Of a fault that comes once, who asks may be the one whom it hits: then again.
---@param app perilune.server with a control socket
---@return table
function M.status(app)
  local ok, status = pcall(operator.status, app)
  return ok and status.counters and status or operator.status(app)
end

--- Starts a server with a fault, talks to it and stops it.
---@param fault string
---@param options { late: boolean?, workers: integer? }? `late`: nothing fails before it serves
---@return { started: boolean, fired: boolean, lost: integer?, summary: table?, code: integer, log: table[] }
---@return string? message why it is not as it should be
function M.run(fault, options)
  options = options or {}
  local app
  local result = { started = false, fired = false }
  local ok, message = pcall(function()
    app = launch(fault, options)
    result.started = not app.ended
    if app.ended then
      result.code = app.ended.code
      check_failed_start(app, fault)
    else
      if options.late then M.arm(app) end
      result.lost = serve(app)
      local stopped = app:stop()
      result.code, result.summary, result.log = stopped.code, stopped.summary, app:log()
    end
  end)
  app = app or server.last()
  result.fired = fired(app)
  command.remove(app.folder)
  return result, not ok and ("with %s: %s"):format(fault, tostring(message)) or nil
end

local CALLS_MAX = 400

--- Lets the 1st, 2nd, 3rd … call of a kind fail, until there is none any more. `known` are patterns of failures that
--- we know of and cannot help (yet); they are counted.
---@param kind string
---@param how string? "short", "EINTR" …
---@param check fun(result: table, fault: string)?
---@param known table<string, string>? what is found in the message → what it is
---@return integer calls
---@return table<string, integer> met how many of the known failures, by what they are
function M.each(kind, how, check, known)
  local met = {}
  for number = 1, CALLS_MAX do
    local fault = ("%s:%d%s"):format(kind, number, how and ":" .. how or "")
    local result, message = M.run(fault)
    pcall(server.finish)
    if not result.fired then return number - 1, met end
    local excuse
    for pattern, what in pairs(message and known or {}) do
      if message:find(pattern, 1, true) then excuse = what end
    end
    if excuse then met[excuse] = (met[excuse] or 0) + 1
    elseif message then error(message, 0)
    elseif check then check(result, fault) end
  end
  error(kind .. ": there is no end of them", 2)
end

--- Lets each allocation in C fail once, in a server of its own: what it costs is said to clients, and the next talk is
--- whole again.
---@param options table as of M.start
---@param speak fun(app: perilune.server, fault: string): integer how many lines were answered
---@param whole integer so many, where nothing fails
---@return integer refused how often one has failed
function M.each_allocation(options, speak, whole)
  local number, refused = 0, 0
  repeat
    number = number + 1
    local fault = "memory:" .. number
    local app = M.start(fault, options)
    M.arm(app)
    local answered = speak(app, fault)
    local has_fired = M.fired(app)
    if has_fired then
      refused = refused + 1
      luassert.equal(whole, speak(app, fault), fault)
    end
    luassert.equal(0, app:stop().code, fault)
    command.remove(app.folder)
    luassert.is_true(answered > 0 or has_fired, fault)
  until not has_fired
  return refused
end

--- Of so many calls one fails.
M.SPREAD = 7

--- The faults in which one call of a kind fails, each SPREADth from the first on: for what ends a connection in one
--- place, whatever it fails with.
---@param kind string
---@param how string
---@return fun(): string?
function M.some(kind, how)
  local number = 1 - M.SPREAD
  return function()
    number = number + M.SPREAD
    return ("%s:%d:%s"):format(kind, number, how)
  end
end

--- The faults with which each call of a kind fails in one of SPREAD runs, and those around it do not: for what one
--- failure has no other consequences for than many.
---@param kind string
---@param how string
---@return string[]
function M.spread(kind, how)
  local all = {}
  for number = 1, M.SPREAD do all[number] = ("%s:%d/%d:%s"):format(kind, number, M.SPREAD, how) end
  return all
end

return M
