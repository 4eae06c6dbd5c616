--- Faults of tasks: to whom they go, what the log tells of them, and that none is lost.
local memory = require "spec.support.memory"

local noted = memory.noted
local app_of = memory.script_lines

describe("the fault of a task", function()
  after_each(memory.finish)

  it("is its agent's where nobody can join it, and tells who began it", function()
    local app = app_of [[
      function Agent:proceed()
        perilune.spawn(function()
          perilune.spawn(function() perilune.sleep "1ms" error "boom" end)
          perilune.sleep "1s"
        end)
      end
      function Agent:failed(_, callback) note(callback) end
      function Agent:closed(reason) note(reason) end]]
    local client = app:connect():send "x"
    app:advance "2s"
    client:expect_closed "error"
    local fault = app:log("handler failed")[1]
    assert.equal("boom", fault.error)
    assert.equal("task", fault.callback)
    assert.equal("app.lua:3: in task\napp.lua:3: begins the task\napp.lua:2: begins the task", fault.traceback)
    assert.same({ "task", "error" }, noted(app))
  end)

  it("is raised where it is joined, with the place where it was", function()
    local app = app_of [[
      local function deep() local nothing = nil return nothing.field end
      function Agent:proceed(line)
        local task = perilune.spawn(function() perilune.sleep "1ms" return (deep()) end)
        if line == "catch" then return tostring(pcall(task.join, task)) end
        return task:join()
      end]]
    local client = app:connect():send "catch"
    app:advance "1ms"
    client:expect "false"
    assert.equal(0, app:counters().faults)
    client:send "x"
    app:advance "1ms"
    client:expect_closed "error"
    local fault = app:log("handler failed")[1]
    assert.equal("app.lua:1", fault.place)
    assert.equal("proceed", fault.callback)
    assert.equal("app.lua:1: in deep\napp.lua:3: in task\napp.lua:3: begins the task", fault.traceback)
    assert.equal(1, app:counters().faults)
  end)

  it("is the agent's where nobody waits for the task, though somebody might have joined it later", function()
    local app = app_of [[
      function Agent:proceed()
        local task = perilune.spawn(function() error "boom" end)
        perilune.sleep "1s"
        note(tostring(pcall(task.join, task)))
      end
      function Agent:failed() note "failed" end]]
    app:connect():send("x"):expect_closed "error"
    assert.same({}, noted(app))
    assert.equal(1, app:counters().faults)
  end)

  it("is found though the call that began it waits for what never comes now", function()
    local app = app_of [[
      function Agent:proceed()
        local channel = perilune.channel()
        perilune.spawn(function() error "boom" channel:send "value" end)
        return (perilune.all { function() return channel:receive() end })
      end]]
    app:connect():send("x"):expect_closed "error"
    assert.equal("boom", app:log("handler failed")[1].error)
  end)

  it("is the app's, and logged, where the app begins tasks for ever", function()
    local app = assert(memory.script [[
      local perilune = require "perilune"
      local jobs = perilune.channel()
      local Agent = {}
      function Agent:proceed(line) jobs:send(line) return "sent" end
      local function setup(app)
        app:spawn(function()
          while true do
            local job = jobs:receive()
            perilune.spawn(function() error(job, 0) end)
          end
        end)
      end
      return { listen = "tcp://127.0.0.1:0", frame = "line", agent = Agent, setup = setup }]])
    local client = app:connect()
    for i = 1, 20 do client:send("job " .. i):expect "sent" end
    assert.equal(20, app:counters().faults)
    assert.equal("job 1", app:log("handler failed")[1].error)
  end)

  it("begun in opened(), which never returns, is found as well", function()
    local app = app_of [[
      function Agent:opened()
        while true do
          local line = self.conn:read()
          perilune.spawn(function() if line == "fail" then error "boom" end end)
        end
      end
      function Agent:proceed() end]]
    app:connect():send("a", "fail"):expect_closed "error"
  end)

  it("begun for the app by a handler is the app's", function()
    local app = assert(memory.script [[
      local the_app
      local Agent = {}
      function Agent:proceed() the_app:spawn(function() error "boom" end) return "begun" end
      return { listen = "tcp://127.0.0.1:0", frame = "line", agent = Agent, setup = function(app) the_app = app end }]])
    local client = app:connect():send("x", "x"):expect("begun", "begun")
    assert.equal(2, app:counters().faults)
    client:send("x"):expect "begun"
  end)

  for what, body in pairs {
    ["a child of a task that is cancelled"] = [[
      local parent = perilune.spawn(function()
        perilune.spawn(function() error "boom" end)
        perilune.spawn(perilune.sleep, "1h"):join()
      end)
      perilune.sleep "1ms"
      parent:cancel()
      perilune.sleep "1ms"]],
    ["a child of a task that fails"] = [[
      local parent = perilune.spawn(function()
        perilune.spawn(function() error "boom" end)
        local other = perilune.spawn(perilune.sleep, "1ms")
        other:join()
        error "caught"
      end)
      pcall(parent.join, parent)
      perilune.sleep "1ms"]],
    ["one whose joiner is cancelled before it hears of that"] = [[
      local failing = perilune.spawn(function() perilune.sleep "1ms" error "boom" end)
      local joiner = perilune.spawn(function() failing:join() end)
      local killer = perilune.spawn(function() perilune.sleep "1ms" joiner:cancel() end)
      killer:join()
      perilune.sleep "1ms"]],
  } do
    it("of " .. what .. " is not lost", function()
      local app = app_of("function Agent:proceed() " .. body .. " end")
      local client = app:connect():send "x"
      app:advance "10ms"
      client:expect_closed "error"
      assert.equal("boom", app:log("handler failed")[1].error)
    end)
  end

  it("of one that perilune.any or all needs no more is logged, and ends nobody", function()
    local app = app_of [[
      function Agent:proceed(line)
        if line == "any" then
          return perilune.any { function() return "won" end, function() error "boom" end }
        end
        local fail = function() error("boom " .. line) end
        return tostring(pcall(perilune.all, { fail, fail, fail }))
      end]]
    app:connect():send("any"):expect("won"):send("all"):expect "false"
    assert.equal(3, app:counters().faults)
  end)

  it("of another connection with the same words has a place of its own", function()
    local app = app_of [[
      function Agent:proceed(line)
        if line == "caught" then
          local task = perilune.spawn(function() error("closed", 0) end)
          return tostring(pcall(task.join, task))
        end
        error("closed", 0)
      end]]
    app:connect():send("caught"):expect "false"
    app:connect():send("x"):expect_closed "error"
    assert.is_nil(app:log("handler failed")[1].traceback:find("task", 1, true))
  end)

  it("of any value reaches who joins, and who reads the log", function()
    local app = app_of [[
      function Agent:proceed(line)
        local value = ({ table = { code = 7 }, ["nil"] = nil, number = 42 })[line]
        local task = perilune.spawn(function() error(value, 0) end)
        local _, err = pcall(task.join, task)
        return tostring(rawequal(err, value))
      end]]
    app:connect():send("table", "nil", "number"):expect("true", "true", "true")
  end)

  it("ends those that the task has begun", function()
    local app = app_of [[
      function Agent:proceed()
        local task = perilune.spawn(function()
          perilune.spawn(function() perilune.defer(function() note "child" end) perilune.sleep "1h" end)
          perilune.sleep "1ms"
          error "boom"
        end)
        note(tostring(pcall(task.join, task)))
        perilune.sleep "1ms"
        return "served"
      end]]
    local client = app:connect():send "x"
    app:advance "2ms"
    client:expect "served"
    local said = noted(app)
    table.sort(said)
    assert.same({ "child", "false" }, said)
  end)
end)
