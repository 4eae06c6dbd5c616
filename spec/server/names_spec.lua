--- Names among the workers and the generations of a real server: what is sent arrives once, in the order of each
--- sender.
local command = require "spec.support.command"
local has = require "spec.support.has"
local operator = require "spec.support.operator"
local reload = require "spec.support.reload"
local server = require "spec.support.server"
local wait = require "spec.support.wait"

local WORKERS, CLIENTS = 3, 9

-- Every agent has a name by its connection. "flood 1000 n1 n2": a task sends so many messages, to these in turn; what
-- comes of each sender has to come in its order. "call": the same, waiting for each reply. A target that has gone is
-- left out.
local function script(version, settings)
  return ([[
    local perilune = require "perilune"
    local VERSION = %q
    local Agent = {}

    function Agent:opened()
      self.last, self.got = {}, 0
      assert(perilune.register("n" .. self.conn.id))
    end

    function Agent:snapshot() return { last = self.last, got = self.got } end
    function Agent:upgrade(data) self.last, self.got = data.last, data.got end

    local function names_in(text)
      local names = {}
      for name in text:gmatch "%%S+" do names[#names + 1] = name end
      return names
    end

    local function patiently(send, name, data)
      local result, message, code
      repeat
        result, message, code = send(name, data)
        if code == "EBUSY" then perilune.sleep("1ms") end
      until code ~= "EBUSY"
      if result == nil then return nil, code end
      return result
    end

    local function call(name, data) return perilune.call(name, data, "1m") end

    function Agent:flood(send, n, targets)
      local failed = 0
      for i = 1, n do
        local data = i %% 3 == 0 and { n = i, text = "x" } or i
        local result, code = patiently(send, targets[i %% #targets + 1], data)
        failed = failed + (result == nil and 1 or 0)
        if failed > 100 then break end -- all have gone
        if result == nil and code ~= "ENOENT" and code ~= "ECANCELED" then error(code) end
        if send == call and result ~= nil and result ~= i then error("a reply of another") end
      end
      return "failed " .. failed
    end

    function Agent:proceed(line)
      if line == "name" then return "n" .. self.conn.id end
      if line == "got" then return tostring(self.got) end
      if line == "version" then return VERSION end
      local what, n, names = line:match "^(%%a+) (%%d+) (.*)$"
      local send = what == "flood" and perilune.send or call
      perilune.spawn(function() self.conn:send(self:flood(send, tonumber(n), names_in(names))) end)
    end

    function Agent:message(_, data, from)
      local n = type(data) == "table" and data.n or data
      if n <= (self.last[from] or 0) then error("out of order: " .. n .. " after " .. self.last[from]) end
      self.last[from] = n
      self.got = self.got + 1
      if n %% 50 == 0 then perilune.sleep(0) end
      return n
    end

    return { listen = "tcp://127.0.0.1:0", frame = "line", agent = Agent, limits = { proceed = "1m" }, %s }
  ]]):format(version, settings or "")
end

local function ask(client, line)
  return client:send(line .. "\n"):recv_line(60)
end

local function start(settings)
  local app = server.start { script = script("1", settings), workers = WORKERS, control = "control.sock" }
  local clients, names = {}, {}
  for i = 1, CLIENTS do
    clients[i] = app:connect()
    names[i] = ask(clients[i], "name")
  end
  return app, clients, names
end

local function all_of(clients, line)
  for _, client in ipairs(clients) do client:send(line .. "\n") end
  local answers = {}
  for i, client in ipairs(clients) do answers[i] = client:recv_line(60) end
  return answers
end

local function each(n, text)
  local list = {}
  for i = 1, n do list[i] = text end
  return list
end

local function sum(list)
  local total = 0
  for _, text in ipairs(list) do total = total + tonumber(text) end
  return total
end

local function counters(app) return operator.status(app).counters end

describe("names of several workers", function()
  after_each(server.finish)

  it("get all that is sent, in the order of each sender", function()
    local app, clients, names = start()
    local n = server.scaled(9000, 900)
    assert.same(each(CLIENTS, "failed 0"), all_of(clients, ("flood %d %s"):format(n, table.concat(names, " "))))
    wait.until_true("all messages to arrive", function() return sum(all_of(clients, "got")) == CLIENTS * n end, 60)
    local c = counters(app)
    assert.same({ CLIENTS * n, CLIENTS * n, 0 }, { c.messages_sent, c.messages_delivered, c.messages_dropped })
    assert.equal(CLIENTS, operator.status(app).names)
    app:stop()
  end)

  it("answer calls, each its own", function()
    local app, clients, names = start()
    local n = server.scaled(2000, 200)
    -- Nobody calls itself.
    for i, client in ipairs(clients) do
      local others = {}
      for k, name in ipairs(names) do others[#others + 1] = k ~= i and name or nil end
      client:send(("call %d %s\n"):format(n, table.concat(others, " ")))
    end
    for _, client in ipairs(clients) do assert.equal("failed 0", client:recv_line(60)) end
    assert.equal(CLIENTS * n, sum(all_of(clients, "got")))
    assert.same({ 0, 0 }, { counters(app).calls_timed_out, counters(app).replies_dropped })
  end)

  it("lose nothing when agents go to a new generation meanwhile", function()
    local app, clients, names = start 'reload = "migrate"'
    local n = server.scaled(9000, 900)
    for _, client in ipairs(clients) do
      client:send(("flood %d %s\n"):format(n, table.concat(names, " ")))
    end
    for version = 2, 4 do reload.reload_to(app, script(tostring(version), 'reload = "migrate"')) end
    for _, client in ipairs(clients) do assert.equal("failed 0", client:recv_line(60)) end
    wait.until_true("all messages to arrive", function() return sum(all_of(clients, "got")) == CLIENTS * n end, 60)
    wait.until_true("all agents to have gone there", function()
      return table.concat(all_of(clients, "version")) == ("4"):rep(CLIENTS)
    end, 60)
    assert.equal(CLIENTS, operator.status(app).names)
    assert.same({}, app:find_log "handler failed")
  end)

  it("account for what is lost with those who end", function()
    local app, clients, names = start()
    for _, client in ipairs(clients) do
      client:send(("flood 1000000 %s\n"):format(table.concat(names, " ")))
    end
    wait.until_true("many messages", function() return counters(app).messages_sent > 1000 end)
    for i = 1, CLIENTS, 2 do clients[i]:close() end
    wait.until_true("names to be given up", function() return operator.status(app).names < CLIENTS end)
    app:stop() -- server.lua adds up
  end)

  it("do so as well when the server stops in the middle of calls", function()
    local app, clients, names = start()
    for i, client in ipairs(clients) do
      client:send(("call 1000000 %s\n"):format(names[i % CLIENTS + 1]))
    end
    wait.until_true("many calls", function() return counters(app).messages_delivered > 1000 end)
    app:stop()
  end)

  it("begin anew in an upgrade", function()
    local app, clients, names = start()
    local successor = app:upgrade()
    local other = successor:connect()
    assert.equal("failed 0", ask(other, "flood 1 " .. ask(other, "name")))
    assert.same({ 1, 1 }, { operator.status(successor).names, counters(successor).messages_sent })
    assert.equal("failed 0", ask(clients[2], "flood 1 " .. names[1]))
    for _, client in ipairs(clients) do client:close() end
    app:wait_end()
    other:close()
    assert.equal(0, successor:stop().code)
  end)

  it("are told of by status", function()
    local app, clients, names = start()
    ask(clients[1], "flood 10 " .. names[2])
    wait.until_true("all messages to arrive", function() return ask(clients[2], "got") == "10" end)
    has(("names        %d, 10 messages sent, 10 delivered, 0 dropped, 0 waiting"):format(CLIENTS),
      operator.run(app, "status").out)
    assert.equal(0, command.run({ "check", app.folder .. "/app.lua" }).code)
  end)
end)
