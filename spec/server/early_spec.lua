--- Signals that come while the script is being loaded, before there is a server to take them.
local command = require "spec.support.command"
local reload = require "spec.support.reload"
local server = require "spec.support.server"
local wait = require "spec.support.wait"

-- It computes while it is loaded, first by the command line ("a"), then by the worker ("b"), until somebody lets it go
-- on. It says so with a file, "at a", then "at b".
local GATE = [[
  local function exists(path) return io.open(path) ~= nil end
  local function gate(name)
    io.open("%s/at " .. name, "w"):close()
    while not exists("%s/go " .. name) do end
  end
  if not exists "%s/at a" then gate "a" elseif not exists "%s/at b" then gate "b" end
]]

local function pass(app, name) command.write(app.folder .. "/go " .. name, "") end

local function wait_at(app, name)
  wait.until_true("the script to be loaded", function() return command.exists(app.folder .. "/at " .. name) end)
end

-- It is being loaded by the command line.
local function launch(options)
  options = options or {}
  options.folder = command.folder()
  local gate = GATE:gsub("%%s", options.folder)
  options.script = gate .. reload.script "one"
  local app = server.launch(options)
  app.own_folder = true
  wait_at(app, "a")
  return app, gate
end

local function serve(app)
  pass(app, "a")
  wait_at(app, "b")
  pass(app, "b")
  app.port = tonumber(app:wait_log("listening").address:match ":(%d+)$")
  app.listeners = { { host = "127.0.0.1", port = app.port } }
  app:wait_log "serving"
end

describe("while the script is being loaded,", function()
  after_each(server.finish)

  it("HUP is a reload as soon as the server serves", function()
    local app = launch()
    app:signal "HUP"
    serve(app)
    assert.equal("reload: nothing has changed", reload.outcome(app, 1).message)
    app:connect():echo_line("a", "one a")
  end)

  it("HUP means what was written before it", function()
    local app, gate = launch()
    reload.rewrite(app, gate .. reload.script "two")
    app:signal "HUP"
    serve(app)
    assert.equal("reloaded", reload.outcome(app, 1).message)
    app:connect():echo_line("a", "two a")
  end)

  it("HUP is remembered when a worker loads it, too", function()
    local app = launch()
    pass(app, "a")
    wait_at(app, "b")
    app:signal "HUP"
    app:wait_log "a reload begins once the server serves"
    pass(app, "b")
    assert.equal("reload: nothing has changed", reload.outcome(app, 1).message)
  end)

  it("USR1 opens the log file anew afterwards", function()
    local app = launch { log_file = "app.log" }
    app:signal "USR1"
    serve(app)
    app:wait_log "log reopened"
  end)

  it("USR2 is refused afterwards", function()
    local app = launch()
    app:signal "USR2"
    pass(app, "a")
    wait_at(app, "b")
    app:wait_log "upgrade refused: the server is not serving"
    pass(app, "b")
    app:wait_log "serving"
  end)

  for _, name in ipairs { "TERM", "INT", "QUIT" } do
    it(name .. " ends it at once, and says so", function()
      local app = launch()
      app:signal(name)
      wait.until_true("its end", function() return app:has_ended() end)
      app.stopped = true
      assert.same({ how = "exited", code = 0 }, app.ended)
      assert.equal("perilune: stopped by a signal before it served\n", app:text())
    end)
  end
end)
