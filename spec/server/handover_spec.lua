--- What a reload tells of connections that were to migrate, and who is asked again.
local command = require "spec.support.command"
local has = require "spec.support.has"
local json_decode = require "spec.support.json_decode"
local operator = require "spec.support.operator"
local server = require "spec.support.server"
local support = require "spec.support.reload"
local wait = require "spec.support.wait"

local run = operator.run

-- Answers with `version`, the line and how many there have been, which migrating takes along.
local function script(version, more, policy)
  return support.HEAD .. ([[
    function Agent:opened() self.n = 0 end
    function Agent:proceed(line)
      if line == "defer" then self.conn:defer(function() end) end
      if line == "wait" then self.conn:read() end
      self.n = self.n + 1
      return ("%s %%s %%d"):format(line, self.n)
    end
    function Agent:snapshot() return { n = self.n } end
    function Agent:upgrade(data) self.n = data.n end
    %s
    return { listen = "tcp://127.0.0.1:0", frame = "line", agent = Agent, reload = { policy = %q } }]]):format(version,
    more or "", policy or "migrate")
end

-- A misspelt field.
local TYPO = "function Agent:upgrade(data)\n self.n = data.m + 0 end"

local function start(workers)
  return server.start { script = script "one", workers = workers, control = "control.sock" }
end

local function connect(app, n)
  local clients = app:connect_many(n)
  for _, one in ipairs(clients) do one:echo_line("a", "one a 1") end
  return clients
end

local function reload_to(app, text, ...)
  support.rewrite(app, text)
  return run(app, "reload", "--wait", ...)
end

local function outcome(result) return json_decode(result.out).reload end

local function generation(app, number)
  for _, one in ipairs(json_decode(run(app, "generations", "--json").out).generations) do
    if one.generation == number then return one end
  end
end

describe("a reload that lets connections migrate", function()
  after_each(server.finish)

  it("tells with --wait how many stay, where and why", function()
    local app = start(2)
    local clients = connect(app, 20)
    local result = reload_to(app, script("two", TYPO))
    assert.equal(0, result.code)
    has("reloaded: generation 2\n", result.out)
    has("connections: 0 migrated, 20 stay with the old code\n", result.out)
    has("  20 failed, the first in upgrade, app.lua#g2:", result.out)
    has("attempt to perform arithmetic on field 'm' (a nil value)", result.out)
    has("  generation 1 has 20 still\n", result.out)
    local entry = app:wait_log "connections stay with the old code"
    assert.same({ 2, 0, 20, "warn" }, { entry.generation, entry.migrated, entry.not_migrated, entry.level })
    has("upgrade, app.lua#g2:", entry.error)
    for _, one in ipairs(clients) do one:echo_line("b", "one b 2") end
  end)

  it("tells it as JSON, as do status and generations", function()
    local app = start()
    connect(app, 3)
    local answer = outcome(reload_to(app, script("two", [[
      local asked = 0
      function Agent:upgrade(data) asked = asked + 1
        if asked == 2 then error "no" end self.n = data.n end]]), "--json"))
    assert.same({ "reloaded", 2, 1, 0 }, { answer.outcome, answer.migrated, answer.not_migrated, answer.waiting })
    assert.same({ 1, 0, 0 }, { answer.stay.failed, answer.stay.deferred, answer.stay.removed })
    has("no", answer.error)
    local old = generation(app, 1)
    assert.same({ 1, 2, 1 }, { old.connections, old.migrated, old.not_migrated })
    local status = json_decode(run(app, "status", "--json").out)
    assert.same({ 2, 1 }, { status.counters.migrated, status.counters.not_migrated })
    assert.same({ 2, 1 }, { status.last_reload.migrated, status.last_reload.not_migrated })
    has("2 migrated, 1 could not", run(app, "generations").out)
    has("\n             2 migrated, 1 could not\nframes ", run(app, "status").out)
  end)

  it("fails with --strict where some stay, and not where all go", function()
    local app = start()
    local client = connect(app, 1)[1]
    local result = reload_to(app, script("two", TYPO), "--strict")
    assert.equal(1, result.code)
    has("0 migrated, 1 stay", result.out)
    app:connect():echo_line("x", "two x 1"):close()
    result = reload_to(app, script "three", "--strict")
    assert.equal(0, result.code)
    has("connections: 1 migrated, 0 stay", result.out)
    client:echo_line("b", "three b 2")
  end)

  it("says nothing of WebSockets that HTTP's handlers have accepted: they are not to migrate", function()
    local text = [[local http = require "perilune.http"
      local Chat = { proceed = function(_, message) return message .. " one\n" end }
      return { listen = "http://127.0.0.1:0", agent = { proceed = function() return http.websocket(Chat) end } }]]
    local app = server.start { script = text, control = "control.sock" }
    local client = app:connect()
    client:send("GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
      .. "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
    has("101", client:recv_line())
    while not client:recv_line():find "^%s*$" do end
    local result = reload_to(app, text:gsub(" one", " two"), "--strict")
    assert.same({ 0, "reloaded: generation 2\n" }, { result.code, result.out })
    assert.equal(1, generation(app, 1).connections)
    client:send "\129\129\0\0\0\0x"
    assert.equal("\129\6x one", client:recv_line())
  end)

  it("says the callback where a file has its name", function()
    local folder = command.folder()
    local path = command.write(folder .. "/upgrade.lua", script "one")
    local app = server.start { file = path, folder = folder, control = "control.sock" }
    connect(app, 1)
    support.rewrite(app, script("two", TYPO), "upgrade.lua")
    has("1 failed, the first in upgrade, upgrade.lua#g2:", run(app, "reload", "--wait").out)
  end)

  it("fails with --strict for as long as some stay, though nothing has changed", function()
    local app = start(2)
    local clients = connect(app, 20)
    assert.equal(1, reload_to(app, script("two", TYPO), "--strict").code)
    local again = run(app, "reload", "--strict")
    assert.equal(1, again.code)
    has("nothing has changed; generation 2 serves on\nconnections: 0 migrated, 20 stay with the old code\n", again.out)
    has("  20 failed, the first in upgrade, app.lua#g2:", again.out)
    assert.equal(20, json_decode(run(app, "status", "--json").out).last_reload.not_migrated)
    clients[1]:close()
    clients[2]:close()
    wait.until_true("the two that left", function() return generation(app, 1).connections == 18 end)
    assert.equal(18, outcome(run(app, "reload", "--strict", "--json")).not_migrated)
    local pinned = run(app, "reload", "--strict", "--policy", "pin")
    assert.same({ 0, "nothing has changed; generation 2 serves on\n" }, { pinned.code, pinned.out })
  end)

  it("fails with --strict for those, too, that waited when they were asked, and could not follow", function()
    local app = start()
    local clients = connect(app, 2)
    clients[1]:send "wait\n"
    clients[2]:echo_line("defer", "one defer 2")
    local answer = outcome(reload_to(app, script("two", TYPO), "--json"))
    assert.same({ 1, 1 }, { answer.not_migrated, answer.waiting })
    clients[1]:send "go\n"
    assert.equal("one wait 2", clients[1]:recv_line())
    clients[1]:echo_line("b", "one b 3")
    local again = run(app, "reload", "--strict", "--json")
    answer = outcome(again)
    assert.same({ 1, 2, 0 }, { again.code, answer.not_migrated, answer.waiting })
    assert.same({ 1, 1 }, { answer.stay.failed, answer.stay.deferred })
    has("upgrade, app.lua#g2:", answer.error)
  end)

  it("asks those again that an older generation could not take over", function()
    local app = start(2)
    local clients = connect(app, 20)
    reload_to(app, script("two", TYPO))
    assert.equal(20, generation(app, 1).not_migrated)
    local answer = outcome(reload_to(app, script "three", "--json"))
    assert.same({ 20, 0 }, { answer.migrated, answer.not_migrated })
    for _, one in ipairs(clients) do one:echo_line("b", "three b 2") end
    app:wait_log({ message = "generation retired", generation = 1 }, nil, 2)
    assert.is_nil(generation(app, 1))
  end)

  it("asks each once: not at each frame, nor when the same generation is asked for again", function()
    local app = start()
    local client = connect(app, 1)[1]
    reload_to(app, script("two", [[function Agent:upgrade() note "asked" error "no" end]]))
    for i = 2, 5 do client:echo_line("b", "one b " .. i) end
    assert.equal("nothing has changed", outcome(run(app, "reload", "--wait", "--json", "--policy", "migrate")).message)
    client:echo_line("c", "one c 6")
    assert.equal(1, #app:find_log "asked")
    reload_to(app, script("three", [[function Agent:upgrade() note "asked" error "no" end]]))
    client:echo_line("d", "one d 7")
    assert.equal(2, #app:find_log "asked")
    assert.equal(2, app:stop().summary.not_migrated)
  end)

  it("tells of those with deferred functions, and of those that wait", function()
    local app = start()
    local clients = connect(app, 4)
    clients[1]:echo_line("defer", "one defer 2")
    clients[2]:send "wait\n"
    clients[3]:send "wait\n"
    clients[4]:echo_line("b", "one b 2")
    local result = reload_to(app, script "two")
    has("connections: 1 migrated, 1 stay with the old code, 2 wait in a handler and follow after it\n", result.out)
    has("  1 with functions of conn:defer", result.out)
    clients[2]:send "go\n"
    assert.equal("one wait 2", clients[2]:recv_line())
    clients[2]:echo_line("c", "two c 3")
    assert.equal(2, generation(app, 1).migrated)
  end)

  it("tells of a policy that was asked for with a script that has not changed", function()
    local app = server.start { script = script("one", "", "pin"), control = "control.sock" }
    local clients = connect(app, 5)
    local pinned = reload_to(app, script("two", "", "pin"))
    assert.equal("reloaded: generation 2\n", pinned.out)
    has("nothing has changed; generation 2 serves on\nconnections: 5 migrated, 0 stay",
      run(app, "reload", "--wait", "--policy", "migrate").out)
    clients[1]:echo_line("b", "two b 2")
  end)

  it("tells of the earlier reload before a later one", function()
    local app = start(2)
    connect(app, 20)
    local asking = {}
    for i = 1, 4 do
      -- At once, as the one before may be reading it.
      assert(os.rename(command.write(app.folder .. "/next", script("v" .. i)), app.folder .. "/app.lua"))
      asking[i] = app:connect { path = app.folder .. "/control.sock" }
      asking[i]:send '{"command":"reload","wait":true}\n'
      app:connect({ path = app.folder .. "/control.sock" }):send('{"command":"status"}\n'):recv_line()
    end
    for i = 1, 4 do assert.equal("reloaded", json_decode(asking[i]:recv_line()).reload.outcome) end
    assert.equal(0, app:stop().code)
  end)

  describe("and takes long over it", function()
    -- A server whose one connection is asked for its snapshot until there is a gate; and who waits for that reload.
    local function start_asking()
      local folder = command.folder()
      local app = server.start { folder = folder, control = "control.sock", script = script("one", ([[
        function Agent:snapshot()
          note "asked"
          repeat local gate = io.open("%s/gate") until gate
          return { n = self.n }
        end]]):format(folder)):gsub(
        "frame = ", [[limits = { proceed = "300s" }, frame = ]]) }
      app.own_folder = true
      connect(app, 1)
      support.rewrite(app, script "two")
      local waits = operator.client(app):send '{"command":"reload","wait":true}\n'
      app:wait_log "asked"
      return app, waits
    end

    it("leaves status with what became of the newest reload, though an earlier one ends later", function()
      local app, waits = start_asking()
      local failed = reload_to(app, "this is broken (")
      assert.equal(1, failed.code)
      assert.equal("failed", operator.status(app).last_reload.outcome)
      command.write(app.folder .. "/gate", "")
      assert.equal("reloaded", json_decode(waits:recv_line()).reload.outcome)
      local last = operator.status(app).last_reload
      assert.same({ 2, "failed", 2 }, { last.number, last.outcome, last.generation })
    end)

    it("tells the generation that it loaded, though another serves by then", function()
      local app, waits = start_asking()
      support.rewrite(app, script "three")
      local later = operator.client(app):send '{"command":"reload","wait":true}\n'
      wait.until_true("generation 3", function() return operator.status(app).generation == 3 end)
      command.write(app.folder .. "/gate", "")
      assert.equal(2, json_decode(waits:recv_line()).reload.generation)
      assert.equal(3, json_decode(later:recv_line()).reload.generation)
      assert.equal(3, operator.status(app).last_reload.generation)
    end)
  end)

  it("answers who waits when the server stops in the midst of it", function()
    local app = start()
    connect(app, 40)
    support.rewrite(app, script "two")
    local operator_client = app:connect { path = app.folder .. "/control.sock" }
    operator_client:send '{"command":"reload","wait":true}\n'
    app:wait_log "reloaded"
    assert.equal(0, app:stop().code)
    assert.equal("reloaded", json_decode(operator_client:recv_line()).reload.outcome)
  end)
end)
