--- A server that was started in a terminal, and the terminal is closed.
local fcntl = require "posix.fcntl"
local reload = require "spec.support.reload"
local server = require "spec.support.server"
local stdlib = require "posix.stdlib"
local unistd = require "posix.unistd"

-- A terminal: our side of it, and the path of the other.
local function open_terminal()
  local master = assert(stdlib.openpt(fcntl.O_RDWR + fcntl.O_NOCTTY))
  assert(stdlib.grantpt(master))
  assert(stdlib.unlockpt(master))
  return master, assert(stdlib.ptsname(master))
end

local function start(owns)
  local master, path = open_terminal()
  return server.start { script = reload.script "one", terminal = { path = path, owns = owns } }, master
end

describe("a server in a terminal", function()
  after_each(server.finish)

  it("ends with it, as by TERM", function()
    local app, master = start(true)
    app:connect():echo_line("a", "one a"):close()
    unistd.close(master)
    assert.equal(0, app:wait_end().code)
    assert.equal("Hangup", app:wait_log("draining").signal)
    assert.same({}, reload.outcomes(app))
  end)

  it("cuts nobody when it is told twice", function()
    local app, master = start(true)
    local client = app:connect():echo_line("a", "one a"):send "hal"
    unistd.close(master)
    app:wait_log "draining"
    app:signal "HUP"
    client:send "f\n"
    assert.equal("one half", client:recv_line())
    assert.equal(0, app:wait_end().code)
  end)

  it("reloads at HUP while it is open", function()
    local app, master = start(true)
    assert.equal("reload: nothing has changed", reload.reload(app).message)
    unistd.close(master)
    assert.equal(0, app:wait_end().code)
  end)

  it("outlives it where it has left its foreground, and reloads at HUP", function()
    local app, master = start(false)
    unistd.close(master)
    assert.equal("reload: nothing has changed", reload.reload(app).message)
    app:connect():echo_line("a", "one a")
  end)
end)
