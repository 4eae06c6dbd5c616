--- perilune.spawn and what stands on it: tasks beside an agent's callbacks, their end, their faults.
local memory = require "spec.support.memory"

local noted = memory.noted
local app_of = memory.script_lines

local function app_replying(body) return app_of("function Agent:proceed(line) " .. body .. " end") end

describe("perilune.spawn", function()
  after_each(memory.finish)

  it("runs a function once its caller waits or has returned, with its arguments", function()
    local app = app_of [[
      function Agent:proceed(line)
        perilune.spawn(function(a, b, c) note(("task %s %s %s"):format(a, tostring(b), c)) end, line, nil, 3)
        note "proceed"
      end]]
    app:connect():send "x"
    assert.same({ "proceed", "task x nil 3" }, noted(app))
  end)

  it("lets proceed() and tasks go on beside each other", function()
    local app = app_of [[
      function Agent:proceed(line)
        if line == "slow" then
          perilune.spawn(function() perilune.sleep "1s" self.conn:send "slow done" end)
          return "begun"
        end
        return line
      end]]
    local client = app:connect():send("slow", "a"):expect("begun", "a")
    app:advance "500ms"
    client:send("b"):expect "b"
    app:advance "500ms"
    client:expect "slow done"
  end)

  it("begins them in order, and each goes on when what it waits for is over", function()
    local app = app_of [[
      function Agent:proceed()
        for i = 1, 5 do
          perilune.spawn(function() note("begins " .. i) perilune.sleep((6 - i) / 100) note("ends " .. i) end)
        end
      end]]
    app:connect():send "x"
    app:advance "1s"
    assert.same({ "begins 1", "begins 2", "begins 3", "begins 4", "begins 5",
      "ends 5", "ends 4", "ends 3", "ends 2", "ends 1" }, noted(app))
  end)

  it("from a task begins another", function()
    local app = app_of [[
      function Agent:proceed(line)
        local function down(n)
          if n == 0 then return "bottom" end
          return perilune.spawn(down, n - 1):join()
        end
        return down(tonumber(line))
      end]]
    app:connect():send("50"):expect "bottom"
  end)

  it("of many at once runs each", function()
    local app = app_of [[
      function Agent:proceed(line)
        local n, tasks = 0, {}
        for i = 1, tonumber(line) do
          tasks[i] = perilune.spawn(function() perilune.sleep(i % 10 / 100) n = n + 1 return i end)
        end
        local sum = 0
        for i = 1, #tasks do sum = sum + tasks[i]:join() end
        return n .. " " .. sum
      end]]
    local client = app:connect():send "3000"
    app:advance "1s"
    client:expect "3000 4501500"
  end)

  it("is bounded for an agent", function()
    local app = app_of [[
      function Agent:proceed() for i = 1, 10001 do self.last = i perilune.spawn(perilune.sleep, "1h") end end
      function Agent:failed(err) return self.last .. " " .. err:gsub("^.-: ", "") end]]
    app:connect():send("x"):expect "10001 there are 10000 tasks already, which is the most"
  end)
end)

describe("task:join", function()
  after_each(memory.finish)

  it("returns what the task does: nothing, nil among others, much", function()
    local app = app_replying [[
      local task = perilune.spawn(function() perilune.sleep "10ms" return unpack({ 1, nil, "c", false, nil }, 1, 5) end)
      local function show(...) return select("#", ...) .. " " .. tostring((select(3, ...))) end
      local none = select("#", perilune.spawn(function() end):join())
      local many = select("#", perilune.spawn(function() return unpack({}, 1, 200) end):join())
      return { show(task:join()), show(task:join()), tostring(none), tostring(many) }]]
    local client = app:connect():send "x"
    app:advance "1s"
    client:expect("5 c", "5 c", "0", "200")
  end)

  it("of one that has ended returns at once, also in a later call", function()
    local app = app_replying [[
      if line == "begin" then
        self.task = perilune.spawn(function() return "result" end)
      else
        return self.task:status() .. " " .. self.task:join()
      end]]
    app:connect():send("begin"):send("join"):expect "done result"
  end)

  it("by several gives each the results, in the order in which they came", function()
    local app = app_replying [[
      local task = perilune.spawn(function() perilune.sleep "10ms" return "result" end)
      for i = 1, 3 do perilune.spawn(function() self.conn:send(i .. " " .. task:join()) end) end]]
    local client = app:connect():send "x"
    app:advance "1s"
    client:expect("1 result", "2 result", "3 result")
  end)

  it("gives up after its time-out, and the task goes on", function()
    local app = app_replying [[
      local task = perilune.spawn(function() perilune.sleep "1s" return "result" end)
      self.conn:send(table.concat({ tostring((task:join "100ms")), select(2, task:join "100ms") }, " "))
      return task:join()]]
    local client = app:connect():send "x"
    app:advance "200ms"
    client:expect "nil timeout ETIMEDOUT"
    app:advance "800ms"
    client:expect "result"
  end)

  it("across agents of a worker", function()
    local app = assert(memory.script [[
      local perilune = require "perilune"
      local shared
      local Agent = {}
      function Agent:proceed(line)
        if line == "begin" then
          shared = perilune.spawn(function() perilune.sleep "1s" return "result" end)
          return "begun"
        end
        return table.concat({ tostring((shared:join())), select(2, shared:join()) }, " ")
      end
      return { listen = "tcp://127.0.0.1:0", frame = "line", agent = Agent }]])
    local one, other = app:connect():send("begin"):expect "begun", app:connect():send "join"
    app:advance "1s"
    other:expect "result"
    one:send("begin"):expect "begun"
    other:send "join"
    one:close():expect_closed "peer"
    other:expect "nil cancelled ECANCELED"
  end)

  it("refuses a task that waits for itself, and what is no task", function()
    local app = app_replying [[
      local task
      task = perilune.spawn(function() return select(2, pcall(task.join, task)) end)
      return { task:join(), (select(2, pcall(task.join, {}))) }]]
    app:connect():send("x"):expect("task:join: a task cannot wait for its own end",
      "task:join: write it with a colon, as in task:join(…)")
  end)
end)

describe("task:cancel", function()
  after_each(memory.finish)

  it("ends it where it waits, or before it begins, and tells who joins", function()
    local app = app_of [[
      function Agent:proceed()
        local waits = perilune.spawn(function() perilune.sleep "1h" note "never" end)
        perilune.sleep "1ms"
        local begins = perilune.spawn(function() note "never" end)
        local done = perilune.spawn(function() return 1 end)
        local said = { tostring(waits:cancel()), tostring(begins:cancel()), tostring(waits:cancel()) }
        said[#said + 1] = table.concat({ tostring((waits:join())), select(2, waits:join()) }, " ")
        said[#said + 1] = begins:status() .. " " .. done:join() .. " " .. tostring(done:cancel())
        return said
      end]]
    local client = app:connect():send "x"
    app:advance "1ms"
    client:expect("true", "true", "false", "nil cancelled ECANCELED", "cancelled 1 false")
    app:advance "50s"
    assert.same({}, noted(app))
  end)

  it("runs what the task has deferred, the latest first, and only then tells", function()
    local app = app_of [[
      function Agent:proceed()
        local task = perilune.spawn(function()
          perilune.defer(function() note "first" end)
          perilune.defer(function() note "second" end)
          pcall(perilune.sleep, "1h")
          note "never"
        end)
        perilune.sleep "1ms"
        task:cancel()
        note "cancelled"
        task:join()
        note "joined"
      end]]
    app:connect():send "x"
    app:advance "1ms"
    assert.same({ "cancelled", "second", "first", "joined" }, noted(app))
  end)

  it("takes those along that the task has begun, and theirs, and nobody else's", function()
    local app = app_of [[
      function Agent:proceed()
        local function sleeper(name)
          perilune.defer(function() note(name) end)
          perilune.sleep "1h"
        end
        local other = perilune.spawn(sleeper, "other")
        local task = perilune.spawn(function()
          perilune.spawn(function() perilune.spawn(sleeper, "grandchild") sleeper "child" end)
          sleeper "task"
        end)
        perilune.sleep "1ms"
        task:cancel()
        perilune.sleep "1ms"
        return other:status()
      end]]
    local client = app:connect():send "x"
    app:advance "2ms"
    client:expect "running"
    local ended = noted(app)
    table.sort(ended)
    assert.same({ "child", "grandchild", "task" }, ended)
  end)

  it("in conn:read, conn:flush, a channel or a semaphore leaves nobody behind", function()
    local app = app_of [[
      function Agent:proceed(line)
        if line ~= "cancel" then return "proceed " .. line end
        local channel, semaphore = perilune.channel(), perilune.semaphore(0)
        local tasks = {
          perilune.spawn(function() self.conn:read() end), perilune.spawn(channel.receive, channel),
          perilune.spawn(semaphore.acquire, semaphore),
          perilune.spawn(function() perilune.spawn(perilune.sleep, 1):join() end),
        }
        perilune.sleep "1ms"
        for _, task in ipairs(tasks) do task:cancel() end
        for _, task in ipairs(tasks) do note(task:status()) task:join() note(task:status()) end
        return tostring(channel:try_send "x") .. " " .. tostring(semaphore:try_acquire())
      end]]
    local client = app:connect():send "cancel"
    app:advance "1ms"
    client:expect("false false"):send("a", "b"):expect("proceed a", "proceed b")
  end)

  for what, wait in pairs {
    ["in a channel"] = "perilune.channel():receive()", ["in conn:read"] = "self.conn:read()",
    ["in perilune.sleep"] = "perilune.sleep(1)", ["in join"] = "perilune.spawn(perilune.sleep, 1):join()",
    ["in perilune.all"] = "perilune.all { function() perilune.sleep(1) end }",
  } do
    it("of who has begun it ends both, the one that runs where it waits next: " .. what, function()
      local app = app_of(([[
        function Agent:proceed(line)
          if line ~= "x" then return line end
          local parent, child
          parent = perilune.spawn(function()
            child = perilune.spawn(function()
              perilune.defer(function() note "child" end)
              parent:cancel()
              note "goes on"
              %s
              note "never"
            end)
            perilune.defer(function() note "parent" end)
            perilune.sleep "1h"
          end)
          parent:join()
          perilune.sleep "1ms"
          return parent:status() .. " " .. child:status()
        end]]):format(wait))
      local client = app:connect():send "x"
      app:advance "2s"
      client:expect("cancelled cancelled"):send("y"):expect "y"
      local said = noted(app)
      table.sort(said)
      assert.same({ "child", "goes on", "parent" }, said)
    end)
  end

  it("of who has begun it, by one that then fails, leaves that fault to the agent", function()
    local app = app_of [[
      function Agent:proceed()
        local parent
        parent = perilune.spawn(function()
          perilune.spawn(function() parent:cancel() error "boom" end)
          perilune.sleep "1h"
        end)
      end]]
    app:connect():send("x"):expect_closed "error"
    assert.equal("boom", app:log("handler failed")[1].error)
    assert.equal("app.lua:4: in task\napp.lua:4: begins the task\napp.lua:3: begins the task",
      app:log("handler failed")[1].traceback)
  end)

  it("of who has begun it, by what a failed one has deferred, ends in order", function()
    local app = app_of [[
      function Agent:proceed()
        local parent, child
        parent = perilune.spawn(function()
          child = perilune.spawn(function()
            for i = 1, 3 do
              perilune.defer(function()
                note "deferred"
                parent:cancel()
                for _ = 1, 1e7 do end
              end)
            end
            error "boom"
          end)
          perilune.sleep "1h"
        end)
        perilune.spawn(function() note("caught " .. tostring(pcall(child.join, child))) end)
        perilune.sleep "1s"
        return "served"
      end]]
    local client = app:connect():send "x"
    app:advance "1s"
    client:expect "served"
    assert.same({ "deferred", "deferred", "deferred", "caught false" }, noted(app))
  end)

  it("takes along what those have begun that have returned, and lets a cancelled one begin nothing", function()
    local app = app_of [[
      function Agent:proceed()
        local grandchild, parent
        parent = perilune.spawn(function()
          perilune.spawn(function() grandchild = perilune.spawn(perilune.sleep, "1h") end)
          perilune.spawn(function()
            perilune.sleep "1ms"
            parent:cancel()
            note(perilune.spawn(function() note "never" end):status())
          end)
          perilune.sleep "1h"
        end)
        parent:join()
        perilune.sleep "1ms"
        return grandchild:status()
      end]]
    local client = app:connect():send "x"
    app:advance "2ms"
    client:expect "cancelled"
    assert.same({ "cancelled" }, noted(app))
  end)

  it("takes along what one has begun that has returned, and runs what it has deferred", function()
    local app = app_of [[
      function Agent:proceed()
        local outer
        outer = perilune.spawn(function()
          perilune.spawn(function()
            perilune.spawn(function()
              perilune.defer(function() note "ends" end)
              perilune.sleep "5s"
              note "goes on"
            end)
            perilune.defer(function() outer:cancel() end)
            perilune.sleep "1s"
          end)
          perilune.sleep "1h"
        end)
      end]]
    app:connect():send "x"
    app:advance "1s"
    assert.same({ "ends" }, noted(app))
    app:advance "10s"
    assert.same({ "ends" }, noted(app))
  end)

  it("of itself is refused", function()
    local app = app_of [[
      function Agent:proceed()
        local task
        task = perilune.spawn(function() return select(2, pcall(task.cancel, task)) end)
        return task:join()
      end]]
    app:connect():send("x"):expect "task:cancel: a task that wants to end returns"
  end)
end)

describe("a task", function()
  after_each(memory.finish)

  it("ends with its agent, before closed(), and what it has deferred runs", function()
    local app = app_of [[
      function Agent:proceed()
        for i = 1, 3 do
          perilune.spawn(function()
            perilune.defer(function() note("deferred " .. i) end)
            self.conn:defer(function() note("conn deferred " .. i) end)
            perilune.sleep "1s"
            note "never"
          end)
        end
        perilune.spawn(function() note "never" end):cancel()
      end
      function Agent:closed(reason) note("closed " .. reason) end]]
    local client = app:connect():send "x"
    client:close():expect_closed "peer"
    app:advance "5s"
    assert.same({ "deferred 1", "deferred 2", "deferred 3", "closed peer", "conn deferred 3", "conn deferred 2",
      "conn deferred 1" }, noted(app))
  end)

  it("may close its connection", function()
    local app = app_of [[
      function Agent:proceed() perilune.spawn(function() self.conn:send "bye" self.conn:close() end) end]]
    app:connect():send("x"):expect("bye"):expect_closed "agent"
  end)

  it("defers only its own functions, whatever becomes of it", function()
    local app = app_of [[
      function Agent:proceed()
        local function deferring(name, fn)
          return function() perilune.defer(function() note(name) end) return fn() end
        end
        perilune.spawn(deferring("returned", function() return 1 end))
        local failing = perilune.spawn(deferring("failed", function() error "boom" end))
        note(tostring(pcall(failing.join, failing)))
      end]]
    app:connect():send "x"
    assert.same({ "returned", "failed", "false" }, noted(app))
    assert.equal(0, #app:faults())
  end)

  it("reads what the agent would get, while it waits for that", function()
    local app = app_of [[
      function Agent:opened()
        perilune.spawn(function()
          for _ = 1, 2 do self.conn:send("task " .. self.conn:read()) end
          local frame, why, code = self.conn:read(nil, "1s")
          self.conn:send(table.concat({ tostring(frame), why, code }, " "))
        end)
      end
      function Agent:proceed(line) return "proceed " .. line end]]
    local client = app:connect():send("a", "b"):expect("task a", "task b")
    app:advance "1s"
    client:expect("nil timeout ETIMEDOUT"):send("c", "d"):expect("proceed c", "proceed d")
  end)

  it("is the only one that reads", function()
    local app = app_of [[
      function Agent:proceed(line)
        local task = perilune.spawn(function() return self.conn:read() end)
        perilune.sleep "1ms"
        local ok, why = pcall(self.conn.read, self.conn)
        return { why, task:join() }
      end]]
    local client = app:connect():send "x"
    app:advance "1ms"
    client:send("y"):expect("conn:read: another call of this agent reads already", "y")
  end)

  it("that cannot read goes on, and ends, as if it had not tried", function()
    local app = app_of [[
      function Agent:proceed(line)
        if line ~= "x" then return line end
        local said = {}
        for i, try in ipairs {
          function() self.conn:read("datagram") end, function() self.conn:read("lines") end,
          function() string.gsub("x", "x", function() return self.conn:read() end) end,
        } do
          perilune.spawn(function() said[i] = tostring(pcall(try)) perilune.sleep "1ms" end)
          perilune.spawn(function() said[i] = tostring(pcall(try)) end):join()
        end
        perilune.sleep "2ms"
        return table.concat(said, " ")
      end]]
    local client = app:connect():send "x"
    app:advance "2ms"
    client:expect("false false false"):send("y"):expect "y"
  end)

  it("that has read the end of the stream keeps no agent that ends then", function()
    local app = app_of [[
      function Agent:proceed()
        perilune.spawn(function()
          local _, why = self.conn:read()
          note(why)
          self.conn:send "last words"
        end)
        perilune.sleep "1h"
      end]]
    app:connect():send("x"):half_close():expect("last words"):expect_closed "peer"
    assert.same({ "end of stream" }, noted(app))
  end)

  it("meets the end of the stream where it reads", function()
    local app = app_of [[
      function Agent:opened()
        perilune.spawn(function()
          local frame, why, code = self.conn:read()
          note(table.concat({ tostring(frame), why, code }, " "))
        end)
      end
      function Agent:proceed() end]]
    app:connect():close():expect_closed "peer"
    assert.same({ "nil end of stream EOF" }, noted(app))
  end)

  it("waits until its output is gone, beside the callback that does", function()
    local app = app_of([[
      function Agent:proceed(line)
        local big = ("x"):rep(100000)
        for i = 1, 2 do perilune.spawn(function() self.conn:send(big) self.conn:flush() note("flushed " .. i) end) end
        perilune.sleep "1ms"
        self.conn:flush()
        note "flushed"
      end]], "limits = { send_buffer = '1m' }")
    local client = app:connect():stall():send "x"
    app:advance "10ms"
    assert.same({}, noted(app))
    client:unstall()
    local flushed = noted(app)
    table.sort(flushed)
    assert.same({ "flushed", "flushed 1", "flushed 2" }, flushed)
  end)

  it("that computes for too long is ended, and its agent", function()
    local app = app_of([[
      function Agent:proceed() perilune.spawn(function() while true do end end) return "begun" end]],
      "limits = { proceed = '20ms' }")
    local client, other = app:connect():send("x"):expect "begun", app:connect()
    client:expect_closed "proceed_timeout"
    other:send("x"):expect "begun"
  end)

  it("that computes for too long ends its agent, though that catches what it raises", function()
    local app = app_of([[
      function Agent:proceed()
        while true do
          pcall(function() perilune.spawn(function() while true do end end):join() end)
          perilune.sleep(0)
        end
      end]], "limits = { proceed = '20ms' }")
    app:connect():send("x"):expect_closed "proceed_timeout"
    assert.equal(1, app:counters().faults)
  end)

  it("has coroutines of its own, which cannot wait", function()
    local app = app_of [[
      function Agent:proceed()
        return perilune.spawn(function()
          return select(2, coroutine.resume(coroutine.create(function() perilune.sleep(1) end)))
        end):join()
      end]]
    app:connect():send("x"):expect "app.lua:3: perilune.sleep: cannot wait inside a coroutine of the handler's own"
  end)
end)

it("a task is no conn", function()
  local app = app_of [[
    function Agent:proceed()
      local tasks, said = {}, {}
      for i = 1, 20 do tasks[i] = perilune.spawn(function() end) end
      for i = 1, 20 do said[i] = tostring(pcall(self.conn.send, tasks[i], "to somebody else")) end
      return (table.concat(said):gsub("false", ""))
    end]]
  local others = memory.connect_many(app, 30)
  app:connect():send("x"):expect ""
  for _, other in ipairs(others) do other:expect_nothing() end
  memory.finish()
end)
