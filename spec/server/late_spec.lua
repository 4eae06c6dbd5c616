--- What had arrived while the worker could not look: it was busy, or the whole process stood still. Nothing here
--- depends on
--- how long anything takes: peers send while nobody looks, and time-outs have run out before somebody does. The rest:
--- spec/unit/conn_late_test.c and conn_reset_test.c.
local command = require "spec.support.command"
local posix_signal = require "posix.signal"
local server = require "spec.support.server"
local wait = require "spec.support.wait"

-- Time enough to get there on a busy machine, before it has to run out.
local TIMEOUT_S = 5

-- More than a poll tells of (256).
local MANY = server.scaled(600, 300)

local function state_of(pid) return command.read("/proc/" .. pid .. "/stat"):match "%) (%S)" end

-- Calls of the system that wait for others or for a time: of x86-64, and of AArch64.
local WAITS = {}
for _, number in ipairs { 7, 35, 202, 230, 232, 271, 281, 22, 73, 98, 101, 115 } do WAITS[tostring(number)] = true end

-- Is each thread in a call of the system that waits? One that may not be looked at is taken to be.
local function waits(pid)
  for thread in command.shell("ls /proc/" .. pid .. "/task"):gmatch "%d+" do
    local ok, text = pcall(command.read, ("/proc/%d/task/%s/syscall"):format(pid, thread))
    local call = ok and text and text:match "^%-?%d+"
    if call and not WAITS[call] then return false end
  end
  return true
end

-- Stops it while it waits for something: how long anything else is to take, it does not know itself.
local function stop_waiting(pid)
  wait.until_true("the process waits, and stands still", function()
    posix_signal.kill(pid, posix_signal.SIGSTOP)
    wait.until_true("the process stands still", function() return state_of(pid) == "T" end)
    if waits(pid) then return true end
    posix_signal.kill(pid, posix_signal.SIGCONT)
  end)
end

-- The process stands still while act() is called.
local function while_stopped(app, act)
  stop_waiting(app.pid)
  local ok, why = pcall(act)
  posix_signal.kill(app.pid, posix_signal.SIGCONT)
  if not ok then error(why, 0) end
end

-- It stands still while send() is called, and then until all time-outs have run out.
local function stand_still(app, send)
  while_stopped(app, function()
    send()
    wait.pause(TIMEOUT_S + 0.2)
  end)
end

-- block() is a handler that is busy until the specification says so.
local BLOCK = [[
  local function block()
    note "busy"
    local file
    repeat file = io.open(%q) until file
    file:close()
  end ]]

local function start_blocking(body, settings)
  local folder = command.folder()
  local app = server.start_lines(BLOCK:format(folder .. "/go") .. body, nil,
    'limits = { proceed = "1h", connections = 2000 }, ' .. (settings or ""))
  -- The worker is busy from here on, and until release() is called.
  local function hold()
    local blocker = app:connect():send "block\n"
    app:wait_log "busy"
    return blocker
  end
  local function release() command.write(folder .. "/go", "") end
  return app, hold, release
end

local function echo_all(clients)
  for _, client in ipairs(clients) do client:echo_line "first" end
end

describe("a time-out", function()
  after_each(server.finish)

  it("ends none of many who had sent a frame while the process stood still", function()
    local app = server.start_lines("function Agent:proceed(line) return line end", nil,
      ('limits = { connections = 2000 }, timeout = { idle = "%ds" }'):format(TIMEOUT_S))
    local clients = app:connect_many(MANY)
    echo_all(clients)
    stand_still(app, function()
      for i, client in ipairs(clients) do client:send("second " .. i .. "\n") end
    end)
    for i, client in ipairs(clients) do assert.equal("second " .. i, client:recv_line()) end
  end)

  it("of a frame begun, or of the first one, waits for what had arrived", function()
    local app = server.start_lines("function Agent:proceed(line) return line end", nil,
      ('timeout = { read = "%ds", first_frame = "%ds" }'):format(TIMEOUT_S, TIMEOUT_S))
    local begun, silent = app:connect():send "be", app:connect()
    stand_still(app, function()
      begun:send "gun\n"
      silent:send "first\n"
    end)
    assert.equal("begun", begun:recv_line())
    assert.equal("first", silent:recv_line())
  end)

  it("ends none of many who had sent a frame while the worker was busy", function()
    local app, hold, release = start_blocking([[
      function Agent:proceed(line)
        if line == "block" then block() end
        return line
      end ]], ('timeout = { idle = "%ds" }'):format(TIMEOUT_S))
    local clients = app:connect_many(MANY)
    echo_all(clients)
    local blocker = hold()
    for i, client in ipairs(clients) do client:send("second " .. i .. "\n") end
    wait.pause(TIMEOUT_S + 0.2)
    release()
    for i, client in ipairs(clients) do assert.equal("second " .. i, client:recv_line()) end
    blocker:echo_line("third", "block")
  end)

  it("of conn:read looks first", function()
    local app = server.start_lines(([[
      function Agent:proceed(line)
        note "reads"
        return (tostring(self.conn:read("line", "%ds")))
      end ]]):format(TIMEOUT_S))
    local client = app:connect():send "read\n"
    app:wait_log "reads"
    stand_still(app, function() client:send "it\n" end)
    assert.equal("it", client:recv_line())
  end)

  it("of what is asked of a backend waits for as long again as the process stood still", function()
    local backend, hold, release = start_blocking [[
      function Agent:proceed(line)
        if line == "block" then block() end
        return "<" .. line .. ">"
      end ]]
    hold()
    local app = server.start { script = ([[
      local perilune = require "perilune"
      local OPTIONS = { frame = "line", timeout = { read = "%ds" } }
      local function pool(pipeline)
        return perilune.pool("tcp://127.0.0.1:%d", { frame = "line", timeout = OPTIONS.timeout, pipeline = pipeline })
      end
      local shared, alone = pool(true), pool(false)
      local ASK = {
        shared = function(line) return shared:request(line) end,
        alone = function(line) return alone:request(line) end,
        forward = function(line) return shared:forward(line) end,
        overdue = function(line) return shared:request(line, { timeout = 3600 }) end,
        channel = function(line)
          local channel = perilune.channel(1)
          perilune.spawn(function() channel:send((shared:request(line, { timeout = 3600 }))) end)
          return channel:receive(OPTIONS.timeout.read)
        end,
      }
      return { listen = { { address = "tcp://127.0.0.1:0" },
          { address = "tcp://127.0.0.1:0", timeout = { proceed = "%ds" } } }, frame = "line",
        setup = function(app) app:every("100ms", function() end) end, -- so often it looks, or should have looked
        agent = { proceed = function(_, line)
          perilune.log("info", "asks " .. line)
          local reply, message = ASK[line](line)
          return reply or "none: " .. message
        end } }
    ]]):format(TIMEOUT_S, backend.port, TIMEOUT_S) }
    local clients = {}
    for _, kind in ipairs { "shared", "alone", "forward", "channel", "overdue" } do
      clients[kind] = app:connect { listener = kind == "overdue" and 2 or 1 }:send(kind .. "\n")
      app:wait_log("asks " .. kind)
    end
    stand_still(app, function() end)
    release()
    for kind, client in pairs(clients) do assert.equal("<" .. kind .. ">", client:recv_line()) end
  end)

  it("is none for who had hung up in time", function()
    local app = server.start_lines("function Agent:proceed(line) return line end", nil,
      ('timeout = { idle = "%ds" }'):format(TIMEOUT_S))
    local client = app:connect()
    client:echo_line "first"
    stand_still(app, function() client:shutdown "send" end)
    assert.equal("", client:recv_all())
    assert.equal("peer=1", app:stop().summary.reasons)
  end)
end)

describe("a reset", function()
  after_each(server.finish)

  local LINES = 3000

  -- How many lines came before the client was gone, as its agent saw it.
  local COUNT = [[
    function Agent:closed(reason) note(reason .. " after " .. (self.n or 0)) end
    function Agent:proceed(line)
      if line == "block" then block() end
      self.n = (self.n or 0) + 1
      %s
    end ]]

  for what, reply in pairs { ["are handed up"] = "",
    ["are handed up, though their replies go nowhere"] = "return line" } do
    it("comes after the frames that had arrived: they " .. what, function()
      local app, hold, release = start_blocking(COUNT:format(reply))
      local client = app:connect()
      hold()
      client:send(("line\n"):rep(LINES))
      client:reset()
      release()
      app:wait_log("reset after " .. LINES)
      local summary = app:stop().summary
      assert.same({ LINES + 1, 0 }, { summary.frames_in, summary.discarded_bytes })
    end)
  end

  it("leaves what its agent does not take, counted", function()
    local app, hold, release = start_blocking(COUNT:format 'if self.n == 1000 then return nil, "close" end')
    local client = app:connect()
    hold()
    client:send(("line\n"):rep(LINES))
    client:reset()
    release()
    app:wait_log("agent after 1000")
    local summary = app:stop().summary
    assert.same({ 1001, 5 * (LINES - 1000) }, { summary.frames_in, summary.discarded_bytes })
  end)
end)

describe("a connection that has ended in this poll", function()
  after_each(server.finish)

  local ASK = [[
    local kept
    function Agent:proceed(line)
      if line == "keep" then
        kept = self.conn
        kept:set_frame "u8"
        return ""
      end
      return tostring(select(2, kept:send(%s)))
    end ]]

  for _, data in ipairs { "line", "false", "{ line }" } do
    it("is closed to others, with the framing that it had of its own: send " .. data, function()
      local app = server.start_lines(ASK:format(data))
      local kept = app:connect():send "keep\n"
      assert.equal("\0", kept:recv_exact(1))
      local other = app:connect()
      while_stopped(app, function()
        kept:close()
        other:send "now\n"
      end)
      assert.equal("closed", other:recv_line())
    end)
  end
end)
