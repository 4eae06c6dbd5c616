--- Handlers that wait in the system: what is told of them, and when. They wait until the specification opens the gate,
--- which it does once the server has told of them; nothing here depends on how long anything takes.
local command = require "spec.support.command"
local has = require "spec.support.has"
local operator = require "spec.support.operator"
local posix_signal = require "posix.signal"
local reloading = require "spec.support.reload"
local server = require "spec.support.server"
local wait = require "spec.support.wait"

-- hold() waits for the gate, in a system call of ours: that of reading from a program.
local HOLD = [[
  local function hold() note "holds"
    local program = io.popen("until [ -e gate ]; do sleep 0.01; done")
    program:read()
    program:close()
  end
]]

local AGENT = [[
  local Agent = {}
  function Agent:proceed(line) return line end
  %s
  return { listen = "tcp://127.0.0.1:0", frame = "line", agent = Agent, unsafe = { "io.popen", "io.special" }, %s }]]

local function script(body, settings) return server.NOTE .. "\n" .. HOLD .. AGENT:format(body, settings or "") end

-- "app.lua:4": where a text stands in a script.
local function place_of(text, wanted)
  local before = text:sub(1, assert(text:find(wanted, 1, true)))
  return "app.lua:" .. select(2, before:gsub("\n", "")) + 1
end

local function start(body, settings, options)
  options = options or {}
  options.script, options.control = options.script or script(body, settings), "control.sock"
  local app = server.start(options)
  function app:open_gate() command.write(self.folder .. "/gate", "") end
  return app
end

local function find(app, pattern)
  return app:find_log(function(entry) return entry.message:find(pattern) end)
end

local function await(app, pattern)
  return app:wait_log(function(entry) return entry.message:find(pattern) end)
end

describe("a handler that waits in the system", function()
  after_each(server.finish)

  it("is told of while it does, and when it has done so: where, how long", function()
    local app = start [[function Agent:proceed(line) if line == "hold" then hold() end return line end]]
    local client = app:connect():send "hold\n"
    local entry = app:wait_log "worker 0 is held up by proceed of conn 1"
    assert.same({ "warn", 0, "proceed", 1, 1 },
      { entry.level, entry.worker, entry.callback, entry.conn, entry.generation })
    local worker = operator.status(app).workers[1]
    assert.same({ 1, "proceed", 1 }, { worker.held_up, worker.held_up_by.callback, worker.held_up_by.conn })
    has(", held up 1 time, now for ", operator.run(app, "status").out)
    app:open_gate()
    assert.equal("hold", client:recv_line())
    local over = await(app, "^worker 0 was held up for %d+%.%d s by proceed of conn 1, app%.lua:%d+$")
    assert.same({ "warn", 0, "proceed", 1, place_of(script "", "program:read") },
      { over.level, over.worker, over.callback, over.conn, over.place })
    assert.is_true(over.duration_ms >= 1000 and over.duration_ms >= entry.duration_ms)
    local status = operator.status(app)
    assert.same({ 1, 1, nil }, { status.workers[1].held_up, status.counters.held_up, status.workers[1].held_up_by })
    client:echo_line "another"
    assert.equal(1, app:stop().summary.held_up)
    assert.equal(2, #find(app, "held up"))
  end)

  it("has no line where it waits in a tail call, though frames came with it", function()
    local app = start [[
      function Agent:proceed(line)
        if line ~= "hold" then return line end
        local program = io.popen("until [ -e gate ]; do sleep 0.01; done; echo held")
        return program:read "*l"
      end]]
    local client = app:connect():send "a\nhold\n"
    app:wait_log "worker 0 is held up by proceed of conn 1"
    app:open_gate()
    assert.same({ "a", "held" }, { client:recv_line(), client:recv_line() })
    await(app, "^worker 0 was held up for %d+%.%d s by proceed of conn 1$")
  end)

  -- What each does with a client, until hold() is called; then the gate is opened.
  local CALLBACKS = {
    opened = { "function Agent:opened() hold() end" },
    proceed = { "function Agent:proceed() hold() end", send = "x\n" },
    eof = { "function Agent:eof() hold() end", finish = true },
    timeout = { "function Agent:timeout() hold() end", "timeout = { idle = '10ms' }" },
    failed = { "function Agent:proceed() error 'x' end function Agent:failed() hold() end", send = "x\n" },
    oversize = { "function Agent:oversize() hold() end", "limits = { frame = 10 }", send = ("x"):rep(100) },
    closed = { "function Agent:closed() hold() end", finish = true },
    defer = { "function Agent:opened() self.conn:defer(hold) end", finish = true },
    drain = { "function Agent:drain() hold() end", "timeout = { drain = '1h' }", signal = "TERM" },
    decode = { "", "frame = { decode = function() hold() return false, 'x' end, encode = tostring }", send = "x" },
    encode = {
      "function Agent:proceed() return 'x' end",
      "frame = { decode = function(bytes, at) return 'x', #bytes + 1 end, encode = function(x) hold() return x end }",
      send = "x",
    },
    snapshot = {
      "function Agent:snapshot() hold() end function Agent:upgrade() end", "reload = 'migrate'", reload = true,
    },
    upgrade = {
      "function Agent:snapshot() end function Agent:upgrade() hold() end", "reload = 'migrate'", reload = true,
    },
  }
  for name, case in pairs(CALLBACKS) do
    it("is told of by its name: " .. name, function()
      local text = server.NOTE .. "\n" .. HOLD .. AGENT:format(case[1], case[2] or "")
      if case[2] and case[2]:find "^frame" then text = text:gsub('frame = "line", ', "") end
      local app = start(nil, nil, { script = text })
      local client = app:connect()
      if case.reload then client:echo_line("x", "x") end
      if case.send then client:send(case.send) end
      if case.finish then client:shutdown "send" end
      if case.signal then
        wait.until_true("the client", function() return operator.status(app).counters.open == 1 end)
        app:signal(case.signal)
      end
      if case.reload then
        reloading.rewrite(app, text .. "\n-- another")
        app:signal "HUP"
      end
      await(app, "^worker 0 is held up by " .. name .. " of conn 1$")
      app:open_gate()
      await(app, "^worker 0 was held up for %d+%.%d s by " .. name .. " of conn 1, app%.lua")
      assert.equal(0, (case.signal and app:wait_end() or app:stop()).code)
      assert.equal(1, #find(app, "is held up"))
    end)
  end

  it("is told of where a FIFO is opened, and in a module of the system", function()
    local text = script([[
      local unistd, fcntl = require "posix.unistd", require "posix.fcntl"
      function Agent:proceed(line)
        if line == "fifo" then
          local file = io.open "pipe"
          file:close()
        else
          local fd = fcntl.open("pipe", fcntl.O_RDWR)
          unistd.read(fd, 1)
          unistd.close(fd)
        end
        return line
      end]], [[modules = { "posix.unistd", "posix.fcntl" }]])
    local app = start(nil, nil, { script = text })
    assert(os.execute("mkfifo " .. app.folder .. "/pipe") == 0)
    for i, line in ipairs { "fifo", "module" } do
      local client = app:connect():send(line .. "\n")
      app:wait_log("worker 0 is held up by proceed of conn " .. i)
      local pipe = io.open(app.folder .. "/pipe", "w")
      pipe:write "x"
      pipe:flush()
      assert.equal(line, client:recv_line())
      pipe:close()
      local over = await(app, "was held up for .* of conn " .. i)
      assert.equal(place_of(text, i == 1 and "io.open" or "unistd.read"), over.place)
    end
  end)

  it("is told of in setup, of a reload, and in teardown", function()
    local app = start("", "teardown = function() hold() end")
    local old = app:connect():echo_line "x"
    reloading.rewrite(app, script("", "setup = function() hold() end"))
    app:signal "HUP"
    local entry = app:wait_log "setup is held up"
    assert.same({ 0, 2 }, { entry.worker, entry.generation })
    app:connect():echo_line("served meanwhile"):close()
    app:open_gate()
    await(app, "^setup was held up for %d+%.%d s, app.lua#g2:%d+$")
    app:wait_log "reloaded"
    os.remove(app.folder .. "/gate")
    old:close()
    await(app, "^teardown is held up$")
    app:open_gate()
    await(app, "^teardown was held up for %d+%.%d s, app%.lua:%d+$")
    assert.equal(2, app:stop().summary.held_up)
  end)

  it("is not one that computes, nor one that is not let compute", function()
    local app = start([[
      function Agent:proceed(line)
        if line == "compute" then
          note "computes"
          local file, n = nil, 0
          repeat
            n = n + 1
            if n % 100000 == 0 then file = io.open "gate" end
          until file
        end
        return line
      end]], "limits = { proceed = '1h' }")
    local client = app:connect():send "compute\n"
    app:wait_log "computes"
    local cpu = app:cpu()
    wait.until_true("more CPU time than would be too long", function() return app:cpu() > cpu + 1.3 end)
    posix_signal.kill(app.pid, posix_signal.SIGSTOP)
    wait.pause(1.5)
    posix_signal.kill(app.pid, posix_signal.SIGCONT)
    app:open_gate()
    assert.equal("compute", client:recv_line())
    assert.equal(0, app:stop().summary.held_up)
    assert.same({}, find(app, "held up"))
  end)
end)
