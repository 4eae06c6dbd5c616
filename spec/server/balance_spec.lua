--- Which worker a client goes to.
local command = require "spec.support.command"
local operator = require "spec.support.operator"
local poll = require "posix.poll"
local server = require "spec.support.server"
local wait = require "spec.support.wait"

-- "block" waits in the system, until the specification opens the gate; other lines come back with the worker's number.
local BLOCKS = [[
  local number
  function Agent:proceed(line)
    if line == "block" then
      note "blocks"
      io.popen("until [ -e gate ]; do sleep 0.01; done"):read()
    end
    return number .. " " .. line
  end]]
local SETTINGS = [[setup = function(app) number = app.worker end, unsafe = { "io.popen" }]]

local function start(workers)
  local app = server.start_lines(BLOCKS, { workers = workers }, SETTINGS)
  function app:open_gate() command.write(self.folder .. "/gate", "") end
  return app
end

local function numbers_of(clients)
  local found = {}
  for _, one in ipairs(clients) do
    local number = one:recv_line():match "^(%d) x$"
    found[number] = (found[number] or 0) + 1
  end
  return found
end

describe("a worker that is held up", function()
  after_each(server.finish)

  it("gets no new clients while others turn, and what it had been given goes to them", function()
    local app = start(3)
    local blocker = app:connect():send "block\n"
    local number = app:wait_log("blocks").worker
    local clients = {}
    -- A third of the first ones is given to the blocked worker, which nobody takes for one yet.
    for i = 1, 30 do clients[i] = app:connect():send "x\n" end
    local found = numbers_of(clients)
    assert.is_nil(found[tostring(number)])
    -- Of these none: the others have far more connections by now.
    for i = 1, 30 do clients[i] = app:connect():send "x\n" end
    assert.is_nil(numbers_of(clients)[tostring(number)])
    app:open_gate()
    assert.equal(number .. " block", blocker:recv_line())
    wait.until_true("a client to come to it again", function()
      return app:connect():send("x\n"):recv_line() == number .. " x"
    end)
    assert.equal(0, app:stop().code)
  end)

  it("gives away what it has been told of, and had no time for", function()
    local app = server.start_lines([[
      local number, holds
      local function wait_for(gate) io.popen("until [ -e " .. gate .. " ]; do sleep 0.01; done"):read() end
      function Agent:opened()
        if not holds or number == 1 then return end
        note("stuck " .. self.conn.peer:match("%d+$"))
        wait_for "second"
      end
      function Agent:proceed(line)
        if line == "hold" then
          note("holds")
          holds = true
          wait_for "first"
        end
        return number .. " " .. line
      end]], { workers = 2, control = "control.sock" }, SETTINGS)
    for _ = 1, 2 do app:connect():send "hold\n" end
    app:wait_log("holds", nil, 2)
    local clients, by_port = {}, {}
    for i = 1, 20 do
      clients[i] = app:connect():send "x\n"
      by_port[clients[i].port] = clients[i]
    end
    wait.until_true("all of them to be accepted", function() return operator.status(app).counters.accepted == 22 end)
    command.write(app.folder .. "/first", "")
    -- Nobody is where the two began to hold so far apart that worker 1 was given all before it was held up itself.
    local function stuck()
      local entry = app:find_log(function(one) return one.message:find "^stuck" end)[1]
      return entry and by_port[tonumber(entry.message:match "%d+")]
    end
    for _, one in ipairs(clients) do
      wait.until_true("an answer", function() return one == stuck() or poll.rpoll(one.fd, 0) == 1 end)
      if one ~= stuck() then assert.equal("1 x", one:recv_line()) end
    end
    command.write(app.folder .. "/second", "")
    if stuck() then assert.equal("0 x", stuck():recv_line()) end
    assert.equal(0, app:stop().code)
  end)

  it("gets its share where all are", function()
    local app = start(2)
    local blockers = { app:connect():send "block\n", app:connect():send "block\n" }
    app:wait_log("blocks", nil, 2)
    local clients = {}
    for i = 1, 20 do clients[i] = app:connect():send "x\n" end
    clients[1]:expect_silence(0.8) -- so long that both are taken for what they are
    for i = 21, 40 do clients[i] = app:connect():send "x\n" end
    clients[40]:expect_silence(0.05)
    app:open_gate()
    numbers_of(clients)
    for _, one in ipairs(blockers) do assert.truthy(one:recv_line():find "block") end
    assert.equal(0, app:stop().code)
  end)

  it("keeps clients of a listener that the others have since been told is no more", function()
    local function script(listeners)
      return ("%slocal Agent = {} %s return { frame = 'line', agent = Agent, listen = { %s }, %s }"):format(server.NOTE,
        BLOCKS, listeners, SETTINGS)
    end
    local A, B = "{ 'tcp://127.0.0.1:0', name = 'a' }", "{ 'tcp://127.0.0.1:0', name = 'b' }"
    local app = server.start { script = script(A .. "," .. B), workers = 2 }
    local blocker = app:connect({ listener = 1 }):send "block\n"
    app:wait_log "blocks"
    local clients = {}
    for i = 1, 10 do clients[i] = app:connect({ listener = 2 }):send "x\n" end
    command.write(app.folder .. "/app.lua", script(A))
    app:signal "HUP"
    app:wait_log "no longer listening"
    blocker:expect_silence(0.8)
    command.write(app.folder .. "/gate", "")
    numbers_of(clients)
    assert.equal(0, app:stop().code)
  end)
end)
