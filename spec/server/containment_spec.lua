--- What one connection does wrong, and what its neighbours must not notice.
local command = require "spec.support.command"
local has = require "spec.support.has"
local server = require "spec.support.server"
local support = require "spec.support.reload"
local wait = require "spec.support.wait"

local start_lines = server.start_lines

describe("a neighbour", function()
  after_each(server.finish)

  it("keeps its buffers when somebody else's reply is larger than all of them", function()
    local app = start_lines([[
      function Agent:closed(reason) note("closed " .. reason) end
      function Agent:proceed(line)
        if line == "huge" then return ("x"):rep(12 * 1024 * 1024) end
        return line
      end ]], nil, [[limits = { buffers = "8m" }]])
    local neighbours = {}
    for i = 1, 5 do neighbours[i] = app:connect():send("part") end
    app:connect():send("huge\n"):recv_all()
    app:wait_log "closed memory"
    for _, neighbour in ipairs(neighbours) do
      neighbour:send("ial\n")
      assert.equal("partial", neighbour:recv_line())
    end
  end)

  it("is served after coroutines were nested without end", function()
    local app = start_lines [[
      local function deep(n) return coroutine.wrap(function() return deep(n + 1) end)() end
      function Agent:proceed(line)
        if line == "deep" then return tostring(select(2, pcall(deep, 1))) end
        return line
      end ]]
    local one, other = app:connect(), app:connect()
    has("nested too deep", one:send("deep\n"):recv_line())
    one:echo_line("still here")
    other:echo_line("and here")
  end)

  it("is served after sorts were nested without end", function()
    local app = start_lines [[
      local function deep(a, b)
        table.sort({ 3, 2, 1 }, deep)
        return a < b
      end
      function Agent:proceed(line)
        if line == "deep" then return tostring(select(2, pcall(deep, 1, 2))) end
        local list = { 1, 3, 2 }
        table.sort(list, function(a, b) return a > b end)
        return table.concat(list)
      end ]]
    local one, other = app:connect(), app:connect()
    for _ = 1, 3 do has("table.sort: nested too deep", one:send("deep\n"):recv_line()) end
    assert.equal("321", other:send("a\n"):recv_line())
    assert.equal("321", one:send("b\n"):recv_line())
  end)

  it("is not resumed by somebody else's handler", function()
    local app = start_lines [[
      local perilune = require "perilune"
      local sleeper
      function Agent:proceed(line)
        if line == "sleep" then
          sleeper = coroutine.running()
          perilune.sleep("200ms")
          return "slept"
        end
        return tostring(select(2, pcall(coroutine.resume, sleeper)))
      end ]]
    local one, other = app:connect(), app:connect()
    one:send("sleep\n")
    has("resumed by the server", other:send("wake\n"):recv_line())
    assert.equal("slept", one:recv_line())
  end)
end)

describe("a reply that cannot be sent", function()
  after_each(server.finish)

  local SCRIPT = [[
    function Agent:proceed(line)
      if line == "bad" then return true end
      self.conn:send("sent " .. line)
    end ]]

  it("is a fault, whatever follows it in the same piece", function()
    local app = start_lines(SCRIPT)
    assert.equal("", (app:connect():send("bad\nhello\n"):recv_all()))
    local entry = app:wait_log "handler failed"
    has("a reply is a string", entry.error)
  end)

  it("is a fault after the replies before it", function()
    local app = start_lines(SCRIPT)
    assert.equal("sent a\nsent b\n", (app:connect():send("a\nb\nbad\nhello\n"):recv_all()))
    app:wait_log "handler failed"
  end)
end)

describe("an agent whose end was decided", function()
  after_each(server.finish)

  it("gets no further frame of the same piece", function()
    local app = start_lines([[
      local calls = 0
      function Agent:proceed()
        calls = calls + 1
        note("call " .. calls)
        self.conn:send(("x"):rep(2e7))
      end
      function Agent:closed(reason) note("closed " .. reason) end ]], nil,
      [[limits = { slow_consumer = "close", send_buffer = "64k" }]])
    app:connect({ receive_buffer = 4096 }):send("1\n2\n3\n4\n")
    app:wait_log "closed slow_consumer"
    assert.equal(0, #app:find_log "call 2")
  end)

  it("hears of the end of the stream even when that comes with the drain", function()
    local app = start_lines [[
      function Agent:drain() return true end
      function Agent:eof() note("eof") return "bye", "close" end
      function Agent:proceed(line) return line end ]]
    local client = app:connect()
    client:echo_line("a")
    app:signal("STOP")
    client:shutdown("send")
    app:signal("TERM")
    app:signal("CONT")
    assert.equal("bye\n", (client:recv_all()))
    assert.equal(0, app:wait_end().code)
  end)
end)

describe("a worker that cannot be started", function()
  after_each(server.finish)

  it("is a failure of the machine, not of the script", function()
    local failed = server.start_failing {
      script = [[return { listen = "tcp://127.0.0.1:0", agent = function() end }]], workers = 40, nofile = 40,
    }
    assert.equal(1, failed.code)
  end)
end)

describe("memory", function()
  after_each(server.finish)

  it("does not end a call for its garbage", function()
    local app = start_lines([[
      function Agent:proceed()
        local big, n = ("x"):rep(2 ^ 20), 0
        for i = 1, 200 do n = n + #(big .. i) end
        return tostring(n)
      end]], nil, [[limits = { memory = "24m", proceed = "30s" }]])
    local client = app:connect()
    for _ = 1, 5 do client:echo_line("x", "209715692") end
  end)

  it("ends who fills the memory, and nobody after", function()
    local app = start_lines([[
      function Agent:proceed(line)
        if line == "fill" then
          local all = {}
          for i = 1, 1e9 do pcall(function() all[i] = ("x"):rep(1000) .. i end) end
        end
        return (line:rep(100000):sub(1, 5))
      end]], nil, [[limits = { memory = "24m", proceed = "30s" }]])
    local neighbour = app:connect()
    for _ = 1, 3 do
      assert.equal("", (app:connect():send("fill\n"):recv_all()))
      neighbour:echo_line("hello", "hello")
    end
    neighbour:close()
    assert.equal("peer=1 memory=3", app:stop("TERM").summary.reasons)
  end)

  it("ends a call that allocates too much in one step and then waits", function()
    local app = start_lines([[
      function Agent:proceed(line)
        if line == "much" then
          local big = ("x"):rep(2 ^ 21)
          perilune.sleep(0.01)
          return tostring(#big)
        end
        return line
      end]], nil, [[limits = { allocation = "1m" }]])
    assert.equal("", (app:connect():send("much\n"):recv_all()))
    app:connect():echo_line("x", "x")
    has("it allocated too much in one call (limits.allocation is 1m)", app:wait_log("handler failed").error)
  end)

  it("names the limits that end calls, and their values", function()
    local app = start_lines([[
      function Agent:proceed(line)
        local kept = {}
        while true do
          if line == "fill" then kept[#kept + 1] = { #kept } end
        end
      end]], nil, [[limits = { memory = "24m", proceed = "1500ms" }]])
    app:connect():send("fill\nloop\n"):recv_all()
    app:connect():send("loop\n"):recv_all()
    local errors = {}
    for i, entry in ipairs(app:find_log "handler failed") do errors[i] = entry.error end
    assert.same({
      "the worker's memory is used up (limits.memory is 24m)",
      "it ran for over 1.5 s of CPU time without waiting (limits.proceed)",
    }, errors)
  end)
end)

describe("frames that come together", function()
  after_each(server.finish)

  local WORK = [[
      function Agent:proceed(line)
        if line == "loop" then while true do end end
        local began = os.clock()
        repeat until os.clock() - began > 0.005
        return line
      end]]

  it("have a budget each", function()
    local app = start_lines(WORK, nil, [[limits = { proceed = "50ms" }]])
    local client, sent = app:connect(), {}
    for i = 1, 60 do sent[i] = i .. "\n" end
    client:send(table.concat(sent))
    for i = 1, 60 do assert.equal(tostring(i), client:recv_line()) end
  end)

  it("are answered before one that does not return is ended", function()
    local app = start_lines(WORK, nil, [[limits = { proceed = "50ms" }]])
    local client, sent = app:connect(), {}
    for i = 1, 30 do sent[i] = i .. "\n" end
    client:send(table.concat(sent) .. "loop\nlost\n")
    for i = 1, 30 do assert.equal(tostring(i), client:recv_line()) end
    assert.equal("", (client:recv_all()))
    client:close()
    assert.equal("proceed_timeout=1", app:stop("TERM").summary.reasons)
  end)
end)

describe("what is left of a connection that has overrun", function()
  after_each(server.finish)

  it("has a tenth of the budget for each call", function()
    local app = start_lines([[
      function Agent:opened() self.conn:defer(function() while true do end end) end
      function Agent:proceed() while true do end end
      function Agent:failed() while true do end end
      function Agent:closed() while true do end end ]], nil, [[limits = { proceed = "1s" }]])
    local client = app:connect()
    local before = app:cpu()
    assert.equal("", (client:send("go\n"):recv_all()))
    app:wait_log("handler failed", nil, 4)
    local used = app:cpu() - before
    assert.is_true(used > 1.2 and used < 2, used)
    local entries = app:find_log "handler failed"
    local callbacks = {}
    for i, entry in ipairs(entries) do callbacks[i] = entry.callback end
    assert.same({ "proceed", "failed", "closed", "defer" }, callbacks)
  end)

  it("has a tenth also where a codec in Lua has overrun", function()
    local app = server.start { script = [[
      local Agent = {}
      function Agent:proceed(frame) return frame end
      function Agent:closed() while true do end end
      return { listen = "tcp://127.0.0.1:0", agent = Agent, limits = { proceed = "1s" },
        frame = { decode = function() while true do end end, encode = function(text) return text end } }]] }
    local client = app:connect()
    local before = app:cpu()
    assert.equal("", (client:send("go\n"):recv_all()))
    app:wait_log "handler failed"
    local used = app:cpu() - before
    assert.is_true(used > 1 and used < 1.6, used)
  end)

  it("is logged with place, connection and listener", function()
    local app = start_lines([[
      function Agent:proceed(line)
        if line == "loop" then
          while true do end
        end
        return line
      end ]], nil, [[name = "loops", limits = { proceed = "10ms" }]])
    app:connect():echo_line("the first")
    app:connect():send("loop\n"):recv_all()
    local failed = app:wait_log "handler failed"
    assert.same({ "app.lua:3", 2, "loops", "proceed" }, { failed.place, failed.conn, failed.listener, failed.callback })
    local closed = app:find_log({ message = "closed", conn = 2 })[1]
    if closed then assert.equal("proceed_timeout", closed.reason) end
    has("it ran for over 10 ms of CPU time", failed.error)
  end)

  it("is enough for a last word and to tidy up", function()
    local app = start_lines([[
      function Agent:opened() self.conn:defer(function() note("deferred") end) end
      function Agent:proceed() while true do end end
      function Agent:failed(err) return "sorry: " .. err end
      function Agent:closed(reason) note("closed " .. reason) end ]], nil, [[limits = { proceed = "5ms" }]])
    has("it ran for over 5 ms of CPU time without waiting (limits.proceed)", (app:connect():send("go\n"):recv_all()))
    app:wait_log "deferred"
    app:wait_log "closed proceed_timeout"
  end)
end)

describe("the entry serving", function()
  after_each(server.finish)

  it("names the way in which compiled code is interrupted", function()
    local ways = {}
    for way in command.read("docs/containment.md"):gmatch "\n| `([%w-]+)` | [^\n]+" do ways[way] = true end
    assert.is_true(ways["hook-mask"] and ways["no-jit"])
    local way = start_lines("function Agent:proceed(line) return line end"):wait_log("serving").interrupts
    assert.is_true(ways[way], way)
  end)
end)

describe("memory that is kept", function()
  after_each(server.finish)

  local STAYS = "memory stays over the limit"
  local SETTINGS = [[limits = { memory = "24m", proceed = "30s" }]]

  -- Fills what `place` names until it is ended, or returns.
  local function start_filling(place)
    return start_lines(([[
      local kept, n = {}, 0
      function Agent:proceed(line)
        if line ~= "fill" then return line end
        self.kept = {}
        for _ = 1, 500 do
          n = n + 1
          table.insert(%s, (n .. "x"):rep(20000))
        end
      end ]]):format(place), nil, SETTINGS)
  end

  -- The collector's work is done turn by turn.
  local function fill(app, times)
    for _ = 1, times do
      app:connect():send("fill\n"):recv_all()
      local neighbour = app:connect()
      for _ = 1, 100 do neighbour:echo_line("turn") end
      neighbour:close()
    end
  end

  it("is told of once, with what there is, what may be and what to do", function()
    local app = start_filling("kept")
    fill(app, 6)
    local entry = app:wait_log(STAYS)
    assert.equal("warn", entry.level)
    assert.equal(24 * 2 ^ 20, entry.limit_bytes)
    assert.is_true(entry.live_bytes > entry.limit_bytes, entry.live_bytes)
    assert.equal(0, entry.worker)
    assert.equal(1, entry.generation)
    has("limits.memory", entry.hint)
    fill(app, 4)
    assert.equal(1, #app:find_log(STAYS))
    assert.is_true(#app:find_log("handler failed") + #app:find_log("handler failed again") > 0)
  end)

  it("by the agents that were ended is no matter", function()
    local app = start_filling("self.kept")
    fill(app, 6)
    assert.equal(0, #app:find_log(STAYS))
    local faults = app:find_log("handler failed")
    assert.equal(1, #faults)
    assert.equal("app.lua:7", faults[1].place)
  end)
end)

describe("a script", function()
  after_each(server.finish)

  local ENDLESS = "function() while true do end end"
  local SETUP, TEARDOWN = "setup = " .. ENDLESS, "teardown = " .. ENDLESS

  local function teardowns(app) return app:find_log "teardown failed" end

  it("that does not return is told so, by run of its setup(), by check of its top level", function()
    local folder = command.folder()
    finally(function() command.remove(folder) end)
    command.write(folder .. "/app.lua", "\nwhile true do end")
    -- Both at once: it takes 10 s of processor time each. At a reload: reload_spec.lua.
    local check = assert(io.popen(("cd %s && %s check app.lua 2>&1; echo code $?"):format(folder, command.binary)))
    local failing = server.start_failing({ script = support.script("one", SETUP) }, 100 * wait.SCALE)
    local told = check:read "*a"
    check:close()
    assert.equal(78, failing.code)
    local WHY = "it ran for over 10 s of CPU time (the most that loading and setup may take)\n  --> "
    has("/app.lua:4 in setup\n", failing.log[#failing.log - 1].excerpt)
    has("error: " .. WHY, failing.log[#failing.log - 1].excerpt)
    has("error: " .. WHY .. "app.lua:2\n", told)
    has("code 78\n", told)
  end)

  it("whose teardown() does not return is told so, and holds up neither a reload nor the stop", function()
    local app = server.start { script = support.script("one", TEARDOWN), workers = 4 }
    support.reload_to(app, support.script "two")
    wait.until_true("four generations to retire", function() return #app:find_log "generation retired" == 4 end)
    support.reload_to(app, support.script "three")
    assert.is_true(#teardowns(app) <= 2, #teardowns(app) .. " teardowns went before the reload")
    local from = wait.now()
    app:stop()
    assert.is_true(wait.now() - from < 6 * wait.SCALE, "a stop of over 6 s") -- their budget is of processor time
    local failed, skipped = teardowns(app), app:find_log(function(entry)
      return entry.message:find "^teardown skipped"
    end)
    assert.equal(1, #skipped)
    assert.equal(4, #failed + skipped[1].generations)
    has("it ran for over 1 s of CPU time (teardown may take 1 s)", failed[1].error)
    assert.equal(1, failed[1].generation)
    assert.equal("app.lua:4", failed[1].place)
    has("app.lua:4 in teardown    generation 1\n", failed[1].excerpt)
  end)

  it("whose teardown() does not return is told so when the server stops", function()
    local app = server.start { script = support.script("one", TEARDOWN) }
    app:stop()
    assert.equal(1, #teardowns(app))
    has("(teardown may take 1 s)", teardowns(app)[1].error)
  end)
end)
