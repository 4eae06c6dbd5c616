--- A script that is being loaded keeps nobody waiting who has no use for it any more: a stop, an upgrade.
local command = require "spec.support.command"
local json_decode = require "spec.support.json_decode"
local server = require "spec.support.server"
local support = require "spec.support.reload"
local unistd = require "posix.unistd"
local wait = require "spec.support.wait"

-- What a script does while it is loaded, and a file `spins` is beside it: longer than the 10 s that it may. It says so
-- with a file `loads`.
local SPINS = [[
  local function spin()
    if not io.open "%s/spins" then return end
    io.open("%s/loads", "w"):close()
    while true do pcall(function() while true do end end) end
  end
]]

local function script(folder, version, where, settings)
  local head = SPINS:gsub("%%s", folder)
  if where == "top level" then head = head .. "spin()\n" end
  if where == "setup" then settings = "setup = spin, " .. (settings or "") end
  return head .. support.script(version, settings)
end

-- Serves "one" and loads "two", which spins.
local function start_loading(where, settings, options)
  options = options or {}
  options.folder = command.folder()
  options.script, options.control = script(options.folder, "one", nil, settings), "control.sock"
  local app = server.start(options)
  app.own_folder = true
  command.write(app.folder .. "/spins", "")
  support.rewrite(app, script(app.folder, "two", where, settings))
  local operator = app:connect { path = app.folder .. "/control.sock" }
  operator:send '{"command":"reload","wait":true}\n'
  wait.until_true("the start of loading", function() return command.exists(app.folder .. "/loads") end)
  return app, operator
end

-- The loader was ended, and not by its budget; nobody is blamed.
local function assert_called_off(app, operator, reason)
  assert.equal(reason, app:wait_log("reload called off").reason)
  assert.same({ "reload called off" }, { support.outcomes(app)[1].message, support.outcomes(app)[2] })
  local answer = json_decode(operator:recv_line())
  assert.same({ "reload_refused", reason }, { answer.code, answer.error })
  assert.same({}, app:find_log { level = "error" })
end

describe("a script that is being loaded", function()
  after_each(server.finish)

  for _, where in ipairs { "top level", "setup" } do
    for name, case in pairs {
      ["TERM, whose drain may take less"] = { '"1s"', 1 }, ["TERM, whose drain may take long"] = { '"60s"', 1 },
      ["TERM, whose drain may take any time"] = { "0", 1 }, ["two TERMs"] = { '"60s"', 2 },
    } do
      it("is called off in its " .. where .. " by " .. name, function()
        local app, operator = start_loading(where, ("timeout = { drain = %s },"):format(case[1]), { workers = 2 })
        for _ = 1, case[2] do app:signal "TERM" end
        assert.equal(0, app:wait_end().code)
        assert_called_off(app, operator, "the server is stopping")
        assert.is_false(command.exists(app.folder .. "/control.sock"))
      end)
    end
  end

  it("is called off by a stop together with the reload that is to follow it", function()
    local app, operator = start_loading "top level"
    local next = app:connect { path = app.folder .. "/control.sock" }
    next:send '{"command":"reload","wait":true}\n'
    app:connect({ path = app.folder .. "/control.sock" }):send('{"command":"status"}\n'):recv_line()
    assert.equal(0, app:stop().code)
    assert_called_off(app, operator, "the server is stopping")
    assert.equal("reload_refused", json_decode(next:recv_line()).code)
  end)

  it("is called off while connections are drained, which have their time", function()
    local app = start_loading("top level", 'timeout = { drain = "60s" },')
    local client = app:connect():echo_line("a", "one a"):send "hal"
    app:signal "TERM"
    app:wait_log "reload called off"
    client:send "f\n"
    assert.equal("one half", client:recv_line())
    assert.equal(0, app:wait_end().code)
  end)

  it("that waits in the system is left behind by a stop", function()
    local app = server.start { script = support.script "one", control = "control.sock", asan = "detect_leaks=0" }
    -- The child says so once a thread of the server waits in read(2), whose number is 0, or 63 on ARM.
    local says = "until grep -qs '^\\(0\\|63\\) ' /proc/$PPID/task/*/syscall; do :; done; >loads; exec sleep 60"
    support.rewrite(app, ([[local perilune = require "perilune"
      io.popen(%q):read()
      ]]):format(says) .. support.script("two", [[timeout = { drain = "60s" }, unsafe = { "io.popen" }]]))
    app:signal "HUP"
    wait.until_true("the start of loading", function() return command.exists(app.folder .. "/loads") end)
    assert.equal(1, app:stop().code)
    app:wait_log "a script that is being loaded does not return: it is left behind"
    assert.is_false(command.exists(app.folder .. "/control.sock"))
  end)

  it("is called off by an upgrade: the new process loads it as it is", function()
    local app, operator = start_loading "top level"
    os.remove(app.folder .. "/spins")
    local successor = app:upgrade()
    assert_called_off(app, operator, "an upgrade is under way")
    successor:connect():echo_line("x", "two x")
    assert.equal(0, app:wait_end().code)
  end)

  it("is called off by an upgrade that then fails; what served serves, and can be reloaded", function()
    local folder = command.folder()
    local binary = folder .. "/perilune"
    assert(os.execute(("cp %s %s"):format(command.binary, binary)) == 0)
    local env = { PERILUNE_LUA_PATH = os.getenv("PERILUNE_LUA_PATH") or unistd.getcwd() .. "/lua" }
    local app = start_loading("setup", nil, { binary = binary, env = env })
    os.remove(app.folder .. "/spins")
    os.remove(binary)
    assert.truthy(app:try_upgrade().message:find "^upgrade failed")
    app:connect():echo_line("x", "one x")
    support.reload(app)
    app:connect():echo_line("y", "two y")
    app:stop()
    command.remove(folder)
  end)

  it("is called off by TERM when the server starts", function()
    local folder = command.folder()
    local path = command.write(folder .. "/app.lua", script(folder, "one", "setup"))
    command.write(folder .. "/spins", "")
    local app = server.launch { folder = folder, file = path, workers = 2, control = "control.sock" }
    app.own_folder = true
    wait.until_true("the start of loading", function() return command.exists(folder .. "/loads") end)
    assert.equal(0, app:stop().code)
    assert.same({}, app:find_log { level = "error" })
    assert.is_false(command.exists(folder .. "/control.sock"))
  end)
end)

describe("a handler that never returns", function()
  after_each(server.finish)

  it("is left behind by a stop, which tells what there was, and removes the control socket", function()
    local app = server.start_lines([[
      function Agent:proceed() note("spinning") while true do end end]],
      { asan = "detect_leaks=0", control = "control.sock" },
      [[timeout = { drain = "100ms" }, limits = { proceed = false }]])
    app:connect():send("x\n")
    app:wait_log "spinning"
    app:signal("TERM")
    wait.until_true("the server's end", function() return app:has_ended() end)
    app.stopped = true
    app:wait_log "a worker does not stop: its handler never returns"
    assert.equal(1, app:wait_log("stopped").open)
    assert.is_false(command.exists(app.folder .. "/control.sock"))
  end)
end)
