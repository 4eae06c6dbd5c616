--- Channels and semaphores: who waits is served in the order of coming, and nobody who has gone swallows anything.
local memory = require "spec.support.memory"

local noted = memory.noted
local app_of = memory.script_lines

local function app_replying(body) return app_of("function Agent:proceed(line) " .. body .. " end") end

describe("a channel", function()
  after_each(memory.finish)

  it("keeps so many values in order, and then lets senders wait", function()
    local app = app_replying [[
      local channel = perilune.channel(2)
      local sender = perilune.spawn(function()
        for i = 1, 4 do channel:send(i) note("sent " .. i) end
      end)
      perilune.sleep "1ms"
      note("count " .. channel:count())
      for i = 1, 4 do note("received " .. channel:receive()) end
      sender:join()]]
    app:connect():send "x"
    app:advance "1ms"
    assert.same({ "sent 1", "sent 2", "count 2", "received 1", "received 2", "received 3", "sent 3", "sent 4",
      "received 4" }, noted(app))
  end)

  it("of no capacity hands over from call to call", function()
    local app = app_replying [[
      local channel = perilune.channel()
      local function show(...) return table.concat({ tostring((...)), select(2, ...) }, " ") end
      local said = { tostring(channel:try_send "x"), show(channel:try_receive()) }
      local receiver = perilune.spawn(function() return channel:receive() end)
      perilune.sleep "1ms"
      said[3] = tostring(channel:try_send "first") .. tostring(channel:try_send "second")
      perilune.spawn(function() channel:send "third" end)
      perilune.sleep "1ms"
      said[4] = receiver:join() .. " " .. channel:try_receive() .. " " .. channel:count()
      return said]]
    local client = app:connect():send "x"
    app:advance "2ms"
    client:expect("false", "nil empty EAGAIN", "truefalse", "first third 0")
  end)

  it("carries any value but nil, false among them", function()
    local app = app_replying [[
      local channel, t = perilune.channel(3), {}
      channel:send(false) channel:send(t) channel:send(self)
      return tostring(channel:receive()) .. tostring(channel:receive() == t) .. tostring(channel:receive() == self)]]
    app:connect():send("x"):expect "falsetruetrue"
  end)

  it("serves those who wait in the order in which they came", function()
    local app = app_replying [[
      local channel = perilune.channel()
      for i = 1, 4 do perilune.spawn(function() note(i .. " got " .. channel:receive()) end) end
      perilune.sleep "1ms"
      for i = 1, 4 do channel:send("value " .. i) end
      perilune.sleep "1ms"
      for i = 1, 4 do perilune.spawn(function() channel:send("value " .. i) note(i .. " sent") end) end
      perilune.sleep "1ms"
      for _ = 1, 4 do note("got " .. channel:receive()) end]]
    app:connect():send "x"
    app:advance "3ms"
    assert.same({
      "1 got value 1", "2 got value 2", "3 got value 3", "4 got value 4",
      "got value 1", "got value 2", "got value 3", "got value 4", "1 sent", "2 sent", "3 sent", "4 sent",
    }, noted(app))
  end)

  it("gives up after a time-out, and what was not taken is not sent", function()
    local app = app_replying [[
      local channel = perilune.channel(1)
      local function show(...) return table.concat({ tostring((...)), select(2, ...) }, " ") end
      local said = { show(channel:receive "10ms") }
      channel:send "a"
      said[2] = show(channel:send("b", "10ms"))
      said[3] = show(channel:receive()) .. " " .. show(channel:receive "1ms")
      return said]]
    local client = app:connect():send "x"
    app:advance "30ms"
    client:expect("nil timeout ETIMEDOUT", "nil timeout ETIMEDOUT", "a nil timeout ETIMEDOUT")
  end)

  it("gives what a cancelled receiver was called for to the next, or keeps it first", function()
    local app = app_replying [[
      local channel = perilune.channel(5)
      local function receiver(name) return perilune.spawn(function() note(name .. " got " .. channel:receive()) end) end
      local a, b = receiver "a", receiver "b"
      perilune.sleep "1ms"
      channel:send "first"                  -- a's, which has not gone on yet
      a:cancel()
      perilune.sleep "1ms"                  -- b has it
      local c = receiver "c"
      perilune.sleep "1ms"
      channel:send "second"                 -- c's
      channel:send "third"                  -- waits
      c:cancel()
      c:join()
      note(channel:receive() .. " " .. channel:receive())]]
    app:connect():send "x"
    app:advance "10ms"
    assert.same({ "b got first", "second third" }, noted(app))
  end)

  it("has those back in their order that many cancelled receivers were called for", function()
    local app = app_replying [[
      local channel, tasks = perilune.channel(5), {}
      for i = 1, 3 do tasks[i] = perilune.spawn(channel.receive, channel) end
      perilune.sleep "1ms"
      for i = 1, 5 do channel:send("v" .. i) end
      tasks[2]:cancel() tasks[1]:cancel() tasks[3]:cancel()
      for i = 1, 3 do tasks[i]:join() end
      local got = {}
      while channel:count() > 0 do got[#got + 1] = channel:receive() end
      channel:send "w"
      return table.concat(got, " ") .. " " .. channel:receive()]]
    local client = app:connect():send "x"
    app:advance "1ms"
    client:expect "v1 v2 v3 v4 v5 w"
  end)

  it("tells those who wait when it is closed, and lets them take what is there", function()
    local app = app_replying [[
      local channel, other = perilune.channel(2), perilune.channel()
      local function show(...) return table.concat({ tostring((...)), select(2, ...) }, " ") end
      local function tells(name, fn, ...) perilune.spawn(function(...) note(name .. " " .. show(fn(...))) end, ...) end
      channel:send "a"
      channel:send "b"
      tells("sends", channel.send, channel, "c")
      tells("receives", other.receive, other)
      perilune.sleep "1ms"
      channel:close()
      other:close()
      other:close()
      perilune.sleep "1ms"
      note(show(channel:send "d") .. " " .. show(channel:try_send "d"))
      note(channel:receive() .. channel:receive() .. " " .. show(channel:receive()) .. " "
        .. show(channel:try_receive()))]]
    app:connect():send "x"
    app:advance "2ms"
    assert.same({ "sends nil closed EPIPE", "receives nil closed EOF", "nil closed EPIPE nil closed EPIPE",
      "ab nil closed EOF nil closed EOF" }, noted(app))
  end)

  it("that only those know who wait in it is not collected under them", function()
    local app = app_replying [[
      local task
      do
        local channel = perilune.channel()
        task = perilune.spawn(function() return channel:receive() end)
        perilune.spawn(function() perilune.sleep "1s" channel:send "kept" end)
      end
      perilune.spawn(function() perilune.channel():receive() end)
      for _ = 1, 5 do
        for i = 1, 30000 do local garbage = { i } garbage[2] = garbage end
        perilune.sleep "100ms"
      end
      return task:join()]]
    local client = app:connect():send "x"
    app:advance "1s"
    client:expect "kept"
    client:close():expect_closed "peer"
  end)

  it("cannot be waited for where nothing can", function()
    local app = app_of [[
      function Agent:closed() local ok, why = pcall(function() perilune.channel():receive() end) note(why) end
      function Agent:proceed() return nil, "close" end]]
    app:connect():send("x"):expect_closed "agent"
    assert.same({ "app.lua:1: channel:receive: closed() must not wait" }, noted(app))
  end)

  it("can be told of where nothing can wait", function()
    local app = app_of [[
      function Agent:opened() self.channel = perilune.channel(1) end
      function Agent:closed() note(tostring(self.channel:try_send(1))) self.channel:close() end
      function Agent:proceed() return nil, "close" end]]
    app:connect():send("x"):expect_closed "agent"
    assert.same({ "true" }, noted(app))
  end)
end)

describe("a semaphore", function()
  after_each(memory.finish)

  it("lets so many through at once, in order", function()
    local app = app_replying [[
      local semaphore, inside, most = perilune.semaphore(3), 0, 0
      local tasks = {}
      for i = 1, 10 do
        tasks[i] = perilune.spawn(function()
          semaphore:acquire()
          inside = inside + 1
          most = math.max(most, inside)
          note(tostring(i))
          perilune.sleep "10ms"
          inside = inside - 1
          semaphore:release()
        end)
      end
      for i = 1, 10 do tasks[i]:join() end
      return most .. " " .. semaphore:count()]]
    local client = app:connect():send "x"
    app:advance "40ms"
    client:expect "3 3"
    assert.same({ "1", "2", "3", "4", "5", "6", "7", "8", "9", "10" }, noted(app))
  end)

  it("gives up after a time-out, and its place to the next", function()
    local app = app_replying [[
      local semaphore = perilune.semaphore(0)
      local function show(...) return table.concat({ tostring((...)), select(2, ...) }, " ") end
      perilune.spawn(function() note("short " .. show(semaphore:acquire "10ms")) end)
      perilune.spawn(function() note("long " .. show(semaphore:acquire "1s")) end)
      perilune.sleep "20ms"
      semaphore:release()
      perilune.sleep "1ms"
      return tostring(semaphore:try_acquire()) ]]
    local client = app:connect():send "x"
    app:advance "30ms"
    client:expect "false"
    assert.same({ "short nil timeout ETIMEDOUT", "long true" }, noted(app))
  end)

  it("signals: a release may come before the acquire, and from anybody", function()
    local app = app_replying [[
      local semaphore = perilune.semaphore(0)
      semaphore:release()
      semaphore:release()
      return tostring(semaphore:acquire()) .. semaphore:count() .. tostring(semaphore:try_acquire()) ..
        tostring(semaphore:try_acquire())]]
    app:connect():send("x"):expect "true1truefalse"
  end)

  it("gives the permit of a call that was cancelled before it went on to the next", function()
    local app = app_replying [[
      local semaphore = perilune.semaphore(0)
      local function waiter(name) return perilune.spawn(function() semaphore:acquire() note(name) end) end
      local a = waiter "a"
      waiter "b"
      perilune.sleep "1ms"
      semaphore:release()
      a:cancel()
      perilune.sleep "1ms"
      local c = waiter "c"
      perilune.sleep "1ms"
      semaphore:release()
      c:cancel()
      c:join()
      return tostring(semaphore:count())]]
    local client = app:connect():send "x"
    app:advance "5ms"
    client:expect "1"
    assert.same({ "b" }, noted(app))
  end)

  describe(":with", function()
    it("returns what the function does, and gives the permit back", function()
      local app = app_replying [[
        local semaphore = perilune.semaphore(1)
        local a, b, c = semaphore:with(function(x) return x, nil, semaphore:count() end, line)
        return ("%s %s %d %d"):format(a, tostring(b), c, semaphore:count())]]
      app:connect():send("x"):expect "x nil 0 1"
    end)

    it("gives it back after an error", function()
      local app = app_replying [[
        local semaphore = perilune.semaphore(1)
        local ok, why = pcall(semaphore.with, semaphore, function() error("boom", 0) end)
        return ("%s %s %d"):format(tostring(ok), why, semaphore:count())]]
      app:connect():send("x"):expect "false boom 1"
    end)

    for how, ends in pairs {
      ["is cancelled"] = "holder:cancel()", ["fails where nothing catches it"] = "fails = true",
      ["computes for too long"] = "loops = true",
    } do
      it("gives it back when the call " .. how, function()
        local app = assert(memory.script(([[
          local perilune = require "perilune"
          local semaphore = perilune.semaphore(1)
          local Agent = {}
          function Agent:proceed(line)
            if line == "count" then return tostring(semaphore:count()) end
            local holder, fails, loops
            holder = perilune.spawn(function()
              return semaphore:with(function()
                perilune.sleep "10ms"
                while loops do end
                return fails and error "boom"
              end)
            end)
            perilune.sleep "1ms"
            %s
            perilune.sleep "1s"
          end
          return { listen = "tcp://127.0.0.1:0", frame = "line", agent = Agent, limits = { proceed = "20ms" } }]])
          :format(ends)))
        local client, other = app:connect():send "hold", app:connect()
        app:advance "1ms"
        if how ~= "is cancelled" then other:send("count"):expect "0" end
        app:advance "2s"
        other:send("count"):expect "1"
        client:close()
      end)
    end

    it("gives it back when the agent ends that has it, or waits for it", function()
      local app = assert(memory.script [[
        local perilune = require "perilune"
        local semaphore = perilune.semaphore(1)
        local Agent = {}
        function Agent:proceed(line)
          if line == "count" then return tostring(semaphore:count()) end
          return semaphore:with(function() self.conn:send "inside" perilune.sleep "1h" end)
        end
        return { listen = "tcp://127.0.0.1:0", frame = "line", agent = Agent }]])
      local holds, waits = app:connect():send("x"):expect "inside", app:connect():send "x"
      local third, asks = app:connect():send "x", app:connect()
      waits:close():expect_closed "peer"
      asks:send("count"):expect "0"
      holds:close():expect_closed "peer"
      third:expect("inside")
      asks:send("count"):expect "0"
      third:close():expect_closed "peer"
      asks:send("count"):expect "1"
    end)

    it("nested holds as many", function()
      local app = app_replying [[
        local semaphore = perilune.semaphore(3)
        local function down(n) return n == 0 and semaphore:count() or (semaphore:with(down, n - 1)) end
        return down(3) .. " " .. semaphore:count()]]
      app:connect():send("x"):expect "0 3"
    end)
  end)
end)

-- Random programs of tasks that send, receive, acquire, wait and cancel each other. Whatever happens: each value that
-- was sent is received once or is still there, one that was not is not, and all permits come back.
local MODEL = [[
  local rng = %d
  local function random(n) rng = (rng * 16807) %% 2147483647 return rng %% n + 1 end

  function Agent:proceed(line)
    rng = tonumber(line)
    local channel, semaphore = perilune.channel(random(4) - 1), perilune.semaphore(2)
    local sent, received, inside = {}, {}, 0
    local tasks, moves = {}, {}
    local function wait() perilune.sleep(random(5) / 1000) end
    local function take(value)
      assert(not received[value], "received twice")
      received[value] = true
    end
    moves[1] = function(name)
      for i = 1, random(5) do
        local value = name .. "/" .. i
        sent[value] = "maybe" -- a sender that is cancelled may have sent it
        local ok, _, code = channel:send(value, random(2) == 1 and random(6) / 1000 or nil)
        sent[value] = ok and "yes" or "no"
        assert(ok or code == "ETIMEDOUT")
      end
    end
    moves[2] = function()
      for _ = 1, random(5) do
        local value, _, code = channel:receive(random(2) == 1 and random(6) / 1000 or nil)
        if value then take(value) else assert(code == "ETIMEDOUT") end
        if random(3) == 1 then wait() end
      end
    end
    moves[3] = function()
      for _ = 1, random(4) do
        semaphore:with(function()
          local is_inside = true
          local function leave()
            if is_inside then inside = inside - 1 end
            is_inside = false
          end
          inside = inside + 1
          perilune.defer(leave)
          assert(inside <= 2, "too many inside")
          wait()
          leave()
        end)
      end
    end
    moves[4] = function() wait() pcall(tasks[1].join, tasks[random(#tasks)], random(6) / 1000) end
    moves[5] = function()
      for _ = 1, random(3) do
        wait()
        local victim = tasks[random(#tasks)]
        pcall(victim.cancel, victim) -- it may be the task itself
      end
    end
    for i = 1, 12 + random(12) do tasks[i] = perilune.spawn(moves[random(5)], tostring(i)) end
    perilune.sleep "200ms"
    for _, task in ipairs(tasks) do task:cancel() end
    for _, task in ipairs(tasks) do task:join() end
    while true do
      local value = channel:try_receive()
      if not value then break end
      take(value)
    end
    for value, state in pairs(sent) do
      assert(state ~= "yes" or received[value], "lost " .. value)
      assert(state ~= "no" or not received[value], "came though it was not sent: " .. value)
    end
    assert(semaphore:count() == 2, "permits: " .. semaphore:count())
    return "fine"
  end]]

describe("random programs of tasks", function()
  after_each(memory.finish)

  it("lose nothing and double nothing", function()
    local app = app_of(MODEL:format(1))
    local client = app:connect()
    local rounds = memory.scaled(2500, 100)
    for seed = 1, rounds do
      client:send(tostring(seed * 7919 % 2147483646 + 1))
      app:advance "300ms"
      client:expect "fine"
    end
  end)
end)
