--- A script that is named by a relative path, and a deploy that puts another folder in the place of the one that the
--- server was started in.
local command = require "spec.support.command"
local server = require "spec.support.server"
local support = require "spec.support.reload"
local unistd = require "posix.unistd"
local wait = require "spec.support.wait"

local script, reload = support.script, support.reload

local REPLACED = "the working directory was replaced"

describe("a server whose working directory is replaced", function()
  local base
  before_each(function() base = command.folder() end)
  after_each(function()
    server.finish()
    command.remove(base)
  end)

  local function sh(line, ...) assert(os.execute(("cd %s && " .. line):format(base, ...)) == 0) end

  local function release(name, version)
    sh("mkdir -p %s", name)
    command.write(("%s/%s/app.lua"):format(base, name), script(version))
  end

  local function start(name, options)
    local all = { folder = base, dir = base .. "/" .. name, file = "app.lua" }
    for key, value in pairs(options or {}) do all[key] = value end
    return server.start(all)
  end

  -- Any new connection.
  local function answers(app, version) app:connect():echo_line("x", version .. " x") end

  it("reloads from the folder that has its name now", function()
    release("app", "one")
    release("next", "two")
    command.write(base .. "/next/words.lua", "return 1")
    local app = start "app"
    local old = app:connect():echo_line("a", "one a")
    sh "mv app old && mv next app"
    assert.equal("reloaded", reload(app).message)
    answers(app, "two")
    old:echo_line("b", "one b")
    assert.equal(base .. "/app", app:wait_log(REPLACED).folder)
    -- And once more, from where it is now, with the first one gone.
    release("next", "three")
    sh "rm -r old app && mv next app"
    assert.equal("reloaded", reload(app).message)
    answers(app, "three")
    app:wait_log(REPLACED, nil, 2)
  end)

  it("follows a link that it was started through, and that leads elsewhere now", function()
    release("1", "one")
    release("2", "two")
    sh "ln -s 1 current"
    local app = start("current", { env = { PWD = base .. "/current" } })
    answers(app, "one")
    sh "ln -sfn 2 current"
    assert.equal("reloaded", reload(app).message)
    answers(app, "two")
  end)

  it("makes a Unix socket with a relative path anew where its name leads now", function()
    release("app", "one")
    release("next", "two")
    local app = start("app", { args = { "--listen", "unix://app.sock" } })
    sh "mv app old && mv next app"
    assert.equal("reloaded", reload(app).message)
    app:connect({ path = base .. "/app/app.sock" }):echo_line("x", "two x")
  end)

  it("believes no $PWD that is another folder's", function()
    release("app", "one")
    release("next", "two")
    local app = start("app", { env = { PWD = base .. "/next" } })
    assert.equal("reload: nothing has changed", reload(app).message)
    assert.same({}, app:find_log(REPLACED))
    answers(app, "one")
  end)

  it("stays where it is while nothing has its name", function()
    release("app", "one")
    local app = start "app"
    sh "mv app old"
    assert.equal("reload: nothing has changed", reload(app).message)
    answers(app, "one")
    release("app", "two")
    assert.equal("reloaded", reload(app).message)
    answers(app, "two")
  end)

  it("is left where a script has gone", function()
    release("app", "one")
    release("next", "two")
    release("elsewhere", "three")
    local text = ("require('posix.unistd').chdir(%q) "):format(base .. "/elsewhere")
      .. script("one", [[modules = { "posix.unistd" }]])
    command.write(base .. "/app/app.lua", text)
    local app = start "app"
    sh "mv app old && mv next app"
    assert.equal("reloaded", reload(app).message)
    assert.same({}, app:find_log(REPLACED))
    answers(app, "three")
  end)

  it("watches the new folder", function()
    release("app", "one")
    local app = start("app", { args = { "--watch" } })
    app:wait_log "watching"
    sh "mv app old"
    release("app", "two")
    app:wait_log(REPLACED)
    app:wait_log "reloaded"
    answers(app, "two")
    release("app", "three")
    app:wait_log("reloaded", nil, 2)
    answers(app, "three")
  end)

  it("is upgraded to the script in the new folder", function()
    release("app", "one")
    release("next", "two")
    local app = start("app", { control = "off" })
    answers(app, "one")
    sh "mv app old && mv next app"
    local successor = app:upgrade()
    answers(successor, "two")
    assert.equal(base .. "/app", unistd.readlink(("/proc/%d/cwd"):format(successor.pid)))
  end)

  it("opens its log anew there", function()
    release("app", "one")
    release("next", "one")
    local app = start("app",
      { control = base .. "/control", args = { "--log-file=app.log" }, log_file = "app/app.log" })
    sh "mv app old && mv next app"
    app:signal "USR1"
    wait.until_true("the new log", function() return command.exists(base .. "/app/app.log") end)
    app.entries, app.at = {}, 1 -- what the fixture has read was the old one
  end)
end)
