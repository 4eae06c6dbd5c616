--- Agents without a socket among the workers and the generations of a real server.
local command = require "spec.support.command"
local has = require "spec.support.has"
local operator = require "spec.support.operator"
local reload = require "spec.support.reload"
local server = require "spec.support.server"
local wait = require "spec.support.wait"

local WORKERS = 3

-- A client's line goes to the agent that it names, and what that says comes back.
local function script(version, kind)
  return ([[
    local perilune = require "perilune"
    local User = {}
    function User:opened()
      self.n = 0
      perilune.log("info", "opened " .. self.key)
    end
    function User:message(_, data, from)
      if data == "version" then return %q end
      if data == "end" then return "bye", "close" end
      if data == "sleep" then perilune.sleep(3600) end
      if data == "sleep 1" then -- whose client goes on, though the others have gone
        perilune.sleep(1)
        for key = 1, 10 do assert(perilune.call("user:" .. key, "count") == 1) end
      end
      self.n = self.n + 1
      return self.n
    end
    function User:drain() perilune.log("info", "draining " .. self.key) end
    function User:closed(reason) perilune.log("info", "closed " .. self.key .. " " .. reason) end
    function User:snapshot() return self.n end
    function User:upgrade(n) self.n = n end
    local Agent = {}
    function Agent:proceed(line)
      local n = tonumber(line:match "^send (%%d+)$")
      for i = 1, n or 0 do
        while not perilune.send("user:" .. i %% 10, "count") do perilune.sleep(0) end
      end
      if n then return "sent" end
      local key, data = line:match "^(%%S+) (.*)$"
      local reply, why, code = perilune.call("user:" .. key, data)
      return tostring(reply) .. (code and " " .. code or "")
    end
    return { listen = "tcp://127.0.0.1:0", frame = "line", agent = Agent, limits = { proceed = "1m" },
      timeout = { idle = false, drain = "2s" },
      agents = { user = { agent = User, %s } } }]]):format(version, kind or "")
end

local function ask(client, line) return client:send(line .. "\n"):recv_line() end

local function start(kind)
  return server.start { script = script("1", kind), workers = WORKERS, control = "control.sock" }
end

local function residents(app) return operator.status(app).residents end

local function check_sums(app)
  local status = operator.status(app)
  local counters, found = status.counters, status.residents
  assert.equal(counters.messages_sent, counters.messages_delivered + counters.messages_dropped)
  assert.equal(found.begun, found.ended + found.open)
  assert.equal(found.begun, counters.residents_begun)
end

-- What one sends last does not come after what others have sent before: only those of one sender have an order.
local function wait_for_all(app, count)
  wait.until_true("all messages to have come", function()
    local counters = operator.status(app).counters
    return counters.messages_delivered + counters.messages_dropped == count
  end)
end

describe("an agent without a socket", function()
  after_each(server.finish)

  it("is the same for the clients of all workers", function()
    local app = start()
    for i = 1, 4 * WORKERS do assert.equal(tostring(i), ask(app:connect(), "42 x")) end
    assert.same({ begun = 1, ended = 0, open = 1, reasons = {} }, residents(app))
    check_sums(app)
  end)

  it("gets all that workers send at once", function()
    local app, clients, each = start(), {}, server.scaled(20000, 2000)
    for i = 1, 4 * WORKERS do clients[i] = app:connect():send(("send %d\n"):format(each)) end
    for _, client in ipairs(clients) do assert.equal("sent", client:recv_line()) end
    wait_for_all(app, 4 * WORKERS * each)
    local n = 0
    for key = 0, 9 do n = n + ask(clients[1], key .. " x") - 1 end
    assert.equal(4 * WORKERS * each, n)
    check_sums(app)
  end)

  it("loses nothing to its end, and begins anew", function()
    local app, clients, each = start 'idle = "10ms"', {}, server.scaled(2000, 200)
    for i = 1, 2 * WORKERS do clients[i] = app:connect():send(("send %d\n"):format(each)) end
    for _, client in ipairs(clients) do assert.equal("sent", client:recv_line()) end
    wait_for_all(app, 2 * WORKERS * each)
    wait.until_true("all to have ended", function() return residents(app).open == 0 end)
    assert.equal(0, operator.status(app).counters.messages_dropped)
    check_sums(app)
  end)

  it("has a method message that is not said to be in vain", function()
    local path = os.tmpname()
    command.write(path, script "1")
    local result = command.run { "check", path }
    os.remove(path)
    assert.same({ 0, "" }, { result.code, result.err })
  end)

  it("is counted, and shown by status", function()
    local app = start()
    local client = app:connect()
    assert.equal("1", ask(client, "1 x"))
    assert.equal("1", ask(client, "2 x"))
    assert.equal("bye", ask(client, "1 end"))
    wait.until_true("one to have ended", function() return residents(app).ended == 1 end)
    assert.same({ begun = 2, ended = 1, open = 1, reasons = { agent = 1 } }, residents(app))
    has("agents       1 without a socket now\n             2 begun, 1 ended (agent 1)\n",
      operator.run(app, "status").out)
  end)

  it("is ended by kick, with its id", function()
    local app = start()
    local client = app:connect():send "1 sleep\n"
    local id = app:wait_log("opened 1").conn
    assert.equal(0, operator.run(app, "kick", ("%d"):format(id)).code)
    assert.equal("nil ECANCELED", client:recv_line())
    assert.equal("user:1", app:wait_log("closed 1 kick").agent)
    assert.equal(1, operator.run(app, "kick", ("%d"):format(id)).code)
    assert.equal("1", ask(client, "1 x"))
    assert.same({ kick = 1 }, residents(app).reasons)
    check_sums(app)
  end)

  it("ends with the server, after its drain()", function()
    local app = start()
    local client = app:connect()
    for key = 1, 10 do assert.equal("1", ask(client, key .. " x")) end
    app:stop()
    for key = 1, 10 do
      app:wait_log("draining " .. key)
      app:wait_log(("closed %d drain"):format(key))
    end
  end)

  it("is there for the connections of all workers, to the last", function()
    local app = start()
    local clients = {}
    for i = 1, WORKERS do clients[i] = app:connect() end
    clients[1]:send "0 sleep 1\n"
    wait.until_true("it to sleep", function() return residents(app).open == 1 end)
    app:signal "TERM"
    app:wait_log "draining"
    assert.equal("1", clients[1]:recv_line())
    app:wait_end()
    for key = 1, 10 do app:wait_log(("closed %d drain"):format(key)) end
  end)

  it("does not keep the server by what it says at its end to those that are not made any more", function()
    for _ = 1, server.scaled(5, 2) do
      local app = server.start { workers = WORKERS, control = "control.sock", script = [[
        local perilune = require "perilune"
        local User = {}
        function User:message() return "here" end
        function User:closed() for i = 1, 9 do perilune.send("user:x" .. i, "farewell") end end
        local Agent = {}
        function Agent:proceed(line) return perilune.call("user:" .. line, "x") end
        return { listen = "tcp://127.0.0.1:0", frame = "line", agent = Agent,
          timeout = { idle = false, drain = false }, agents = { user = { agent = User } } }]] }
      local client = app:connect()
      assert.equal("here", ask(client, "a"))
      client:close()
      wait.until_true("the client to be gone", function() return operator.status(app).counters.open == 0 end)
      app:stop()
      server.finish()
    end
  end)

  it("is cut by a stop that does not wait", function()
    local app = start 'idle = false'
    local client = app:connect()
    client:send "1 sleep\n"
    wait.until_true("it to sleep", function() return residents(app).open == 1 end)
    operator.run(app, "stop", "--now")
    app:wait_log "closed 1 drain"
    app:wait_end()
  end)

  for policy, outcome in pairs {
    pin = { "3", "1", "2" }, migrate = { "3", "2", "2" }, drain = { "1", "2", "2" },
  } do
    it(("is of the old code, or of the new one, as its kind says: %s"):format(policy), function()
      local app = start(('reload = %q'):format(policy))
      local client = app:connect()
      assert.same({ "1", "2" }, { ask(client, "1 x"), ask(client, "1 x") })
      reload.reload_to(app, script("2", ('reload = %q'):format(policy)))
      if policy ~= "pin" then
        wait.until_true("it to have gone", function()
          return ask(client, "1 version") == "2"
        end)
      end
      assert.same(outcome, { ask(client, "1 x"), ask(client, "1 version"), ask(client, "2 version") })
      check_sums(app)
    end)
  end

  it("keeps its generation while it is pinned, and lets it go when it ends", function()
    local app = start()
    local client = app:connect()
    assert.equal("1", ask(client, "1 x"))
    client:close()
    reload.reload_to(app, script "2")
    wait.until_true("the client to be gone", function() return operator.status(app).counters.open == 0 end)
    client = app:connect()
    assert.equal("1", ask(client, "1 version"))
    assert.equal(2, #operator.status(app).generations)
    has("0 connections, 1 agent without a socket, since", operator.run(app, "generations").out)
    ask(client, "1 end")
    wait.until_true("the generation to be gone", function() return #operator.status(app).generations == 1 end)
    assert.equal("2", ask(client, "1 version"))
  end)

  it("is refused where there are as many as there may be, of each worker", function()
    local app = start "most = 2"
    local client, refused = app:connect(), 0
    for key = 1, 20 do refused = refused + (ask(client, key .. " x") == "nil EBUSY" and 1 or 0) end
    assert.is_true(refused >= 20 - 2 * WORKERS)
    assert.equal(20 - refused, residents(app).open)
  end)
end)
