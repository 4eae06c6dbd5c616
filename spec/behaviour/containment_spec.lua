--- What one connection does wrong, and what its neighbours must not notice.
local has = require "spec.support.has"
local memory = require "spec.support.memory"

local core = require "perilune"

local lines, note, notes, error_of = memory.lines, memory.note, memory.notes, memory.error_of

describe("a neighbour", function()
  after_each(memory.finish)

  it("keeps its buffers when somebody else's reply is larger than all of them", function()
    local Agent = {}
    function Agent:proceed(line)
      if line == "huge" then return ("x"):rep(12 * 1024 * 1024) end
      return line
    end
    local app = lines(Agent, { limits = { buffers = "8m" } })
    local neighbours = {}
    for i = 1, 5 do neighbours[i] = app:connect():send_raw("part") end
    app:connect():send("huge"):expect_closed("memory")
    for _, neighbour in ipairs(neighbours) do neighbour:send_raw("ial\n"):expect("partial") end
  end)

  it("is served after coroutines were nested without end", function()
    local function deep(n) return coroutine.wrap(function() return deep(n + 1) end)() end
    local Agent = {}
    function Agent:proceed(line)
      if line == "deep" then return tostring(select(2, pcall(deep, 1))) end
      return line
    end
    local app = lines(Agent)
    local one, other = app:connect(), app:connect()
    has("nested too deep", one:send("deep"):receive())
    one:send("still here"):expect("still here")
    other:send("and here"):expect("and here")
  end)

  it("is served after sorts were nested without end", function()
    local function deep(a, b)
      table.sort({ 3, 2, 1 }, deep)
      return a < b
    end
    local Agent = {}
    function Agent:proceed(line)
      if line == "deep" then return tostring(select(2, pcall(deep, 1, 2))) end
      local list = { 1, 3, 2 }
      table.sort(list, function(a, b) return a > b end)
      return table.concat(list)
    end
    local app = lines(Agent)
    local one, other = app:connect(), app:connect()
    for _ = 1, 3 do has("table.sort: nested too deep", one:send("deep"):receive()) end
    other:send("a"):expect("321")
    one:send("b"):expect("321")
  end)

  it("is not resumed by somebody else's handler", function()
    local sleeper
    local Agent = {}
    function Agent:proceed(line)
      if line == "sleep" then
        sleeper = coroutine.running()
        core.sleep("200ms")
        return "slept"
      end
      return tostring(select(2, pcall(coroutine.resume, sleeper)))
    end
    local app = lines(Agent)
    local one, other = app:connect():send("sleep"), app:connect()
    has("resumed by the server", other:send("wake"):receive())
    one:expect_nothing()
    app:advance("200ms")
    one:expect("slept")
  end)
end)

describe("a reply that cannot be sent", function()
  after_each(memory.finish)

  local function start()
    local Agent = {}
    function Agent:proceed(line)
      if line == "bad" then return true end
      self.conn:send("sent " .. line)
    end
    return lines(Agent)
  end

  it("is a fault, whatever follows it in the same piece", function()
    local app = start()
    app:connect():send("bad", "hello"):expect_nothing():expect_closed("error")
    has("a reply is a string", error_of(app))
  end)

  it("is a fault after the replies before it", function()
    local app = start()
    app:connect():send("a", "b", "bad", "hello"):expect("sent a", "sent b"):expect_nothing():expect_closed("error")
    assert.equal(1, #app:faults())
  end)
end)

describe("an agent whose end was decided", function()
  after_each(memory.finish)

  it("gets no further frame of the same piece", function()
    local calls = 0
    local Agent = {}
    function Agent:proceed()
      calls = calls + 1
      note("call " .. calls)
      self.conn:send(("x"):rep(2e6))
    end
    function Agent:closed(reason) note("closed " .. reason) end
    local app = lines(Agent, { limits = { slow_consumer = "close", send_buffer = "64k" } })
    app:connect():stall():send("1", "2", "3", "4"):expect_closed("slow_consumer")
    assert.same({ "call 1", "closed slow_consumer" }, notes(app, 1))
  end)
end)

describe("memory", function()
  after_each(memory.finish)

  it("does not end a call for its garbage", function()
    local Agent = {}
    function Agent:proceed()
      local big, n = ("x"):rep(2 ^ 20), 0
      for i = 1, 200 do n = n + #(big .. i) end
      return tostring(n)
    end
    local client = lines(Agent, { limits = { memory = "24m", proceed = "30s" } }):connect()
    for _ = 1, memory.scaled(5, 1) do client:send("x"):expect("209715692") end
  end)

  it("ends who fills the memory, and nobody after", function()
    local Agent = {}
    function Agent:proceed(line)
      if line == "fill" then
        local all = {} -- luacheck: ignore 241
        for i = 1, 1e9 do pcall(function() all[i] = ("x"):rep(1000) .. i end) end
      end
      return (line:rep(100000):sub(1, 5))
    end
    local app = lines(Agent, { limits = { memory = "24m", proceed = "30s" } })
    local neighbour = app:connect()
    for _ = 1, 3 do
      app:connect():send("fill"):expect_nothing():expect_closed("memory")
      neighbour:send("hello"):expect("hello")
    end
  end)

  it("ends a call that allocates too much in one step and then waits", function()
    local Agent = {}
    function Agent:proceed(line)
      if line == "much" then
        local big = ("x"):rep(2 ^ 21)
        core.sleep(0.01)
        return tostring(#big)
      end
      return line
    end
    local app = lines(Agent, { limits = { allocation = "1m" } })
    app:connect():send("much"):expect_nothing():expect_closed("memory")
    app:connect():send("x"):expect("x")
    has("it allocated too much in one call (limits.allocation is 1m)", error_of(app))
  end)

  it("names the limits that end calls, and their values", function()
    local Agent = {}
    function Agent:proceed(line)
      local kept = {} -- luacheck: ignore 241
      while true do
        if line == "fill" then kept[#kept + 1] = { #kept } end
      end
    end
    -- Filling is given the time that it takes, with a sanitizer too.
    for line, case in pairs {
      fill = { "30s", "memory", "the worker's memory is used up (limits.memory is 24m)" },
      loop = { "1100ms", "proceed_timeout", "it ran for over 1.1 s of CPU time without waiting (limits.proceed)" },
    } do
      local app = lines(Agent, { limits = { memory = "24m", proceed = case[1] } })
      app:connect():send(line):expect_closed(case[2])
      assert.equal(case[3], error_of(app))
    end
  end)
end)

describe("frames that come together", function()
  after_each(memory.finish)

  local function work()
    local Agent = {}
    function Agent:proceed(line)
      if line == "loop" then while true do end end -- luacheck: ignore 542
      local began = os.clock()
      repeat until os.clock() - began > 0.005
      return line
    end
    return lines(Agent, { limits = { proceed = "50ms" } })
  end

  local function numbers(n)
    local all = {}
    for i = 1, n do all[i] = tostring(i) end
    return all
  end

  it("have a budget each", function()
    assert.same(numbers(60), work():connect():send(unpack(numbers(60))):frames())
  end)

  it("are answered before one that does not return is ended", function()
    local sent = numbers(30)
    sent[31], sent[32] = "loop", "lost"
    local client = work():connect():send(unpack(sent))
    assert.same(numbers(30), client:frames())
    client:expect_closed("proceed_timeout")
  end)
end)

describe("what is left of a connection that has overrun", function()
  after_each(memory.finish)

  it("has a tenth of the budget for each call", function()
    local Agent = {}
    function Agent:opened() self.conn:defer(function() while true do end end) end
    function Agent:proceed() while true do end end
    function Agent:failed() while true do end end
    function Agent:closed() while true do end end
    local app = lines(Agent, { limits = { proceed = "500ms" } })
    local client, from = app:connect(), os.clock()
    client:send("go"):expect_nothing():expect_closed("proceed_timeout")
    local used = os.clock() - from
    assert.is_true(used > 0.6 and used < memory.scaled(1, 1.5), used)
    local callbacks = {}
    for i, entry in ipairs(app:faults()) do callbacks[i] = entry.callback end
    assert.same({ "proceed", "failed", "closed", "defer" }, callbacks)
  end)

  it("has a tenth also where a codec in Lua has overrun", function()
    local Agent = memory.echo()
    function Agent:closed() while true do end end
    local frame = { decode = function() while true do end end, encode = function(text) return text end }
    local app = memory.start(Agent, { frame = frame, limits = { proceed = "500ms" } })
    local client, from = memory.raw(app), os.clock()
    client:send("go"):expect_nothing():expect_closed("proceed_timeout")
    local used = os.clock() - from
    assert.is_true(used > 0.5 and used < memory.scaled(0.8, 0.95), used)
    assert.equal("closed", app:faults()[#app:faults()].callback)
  end)

  it("is logged with place, connection and listener", function()
    local Agent = {}
    function Agent:proceed(line)
      if line == "loop" then
        while true do end
      end
      return line
    end
    local app = lines(Agent, { name = "loops", limits = { proceed = "10ms" } })
    app:connect():send("the first"):expect("the first")
    app:connect():send("loop"):expect_closed("proceed_timeout")
    local failed = app:faults()[1]
    assert.matches("containment_spec.lua:%d+$", failed.place)
    has("while true do end", failed.excerpt)
    assert.same({ 2, "loops", "proceed" }, { failed.conn, failed.listener, failed.callback })
    has("it ran for over 10 ms of CPU time", failed.error)
  end)

  it("is enough for a last word and to tidy up", function()
    local Agent = {}
    function Agent:opened() self.conn:defer(function() note("deferred") end) end
    function Agent:proceed() while true do end end
    function Agent:failed(err) return "sorry: " .. err end
    function Agent:closed(reason) note("closed " .. reason) end
    local app = lines(Agent, { limits = { proceed = "5ms" } })
    local client = app:connect():send("go")
    has("it ran for over 5 ms of CPU time without waiting (limits.proceed)", client:receive())
    client:expect_closed("proceed_timeout")
    assert.same({ "closed proceed_timeout", "deferred" }, notes(app, 1))
  end)
end)

describe("memory that is kept", function()
  after_each(memory.finish)

  local STAYS = "memory stays over the limit"

  -- Fills a list that keep(agent) gives, until it is ended, or returns.
  local function start_filling(keep)
    local n = 0
    local Agent = {}
    function Agent:proceed(line)
      if line ~= "fill" then return line end
      self.kept = {}
      for _ = 1, 500 do
        n = n + 1
        table.insert(keep(self), (n .. "x"):rep(20000))
      end
    end
    return lines(Agent, { limits = { memory = "24m", proceed = "30s" } })
  end

  -- The collector's work is done turn by turn.
  local function fill(app, times)
    for _ = 1, times do
      app:connect():send("fill"):close()
      local neighbour = app:connect()
      for _ = 1, 100 do neighbour:send("turn"):expect("turn") end
      neighbour:close()
    end
  end

  it("is told of once, with what there is, what may be and what to do", function()
    local kept = {}
    local app = start_filling(function() return kept end)
    fill(app, 6)
    local entry = app:log(STAYS)[1]
    assert.equal("warn", entry.level)
    assert.equal(24 * 2 ^ 20, entry.limit_bytes)
    assert.is_true(entry.live_bytes > entry.limit_bytes, entry.live_bytes)
    assert.equal(0, entry.worker)
    assert.equal(1, entry.generation)
    has("limits.memory", entry.hint)
    fill(app, 4)
    assert.equal(1, #app:log(STAYS))
    assert.is_true(#app:faults() > 0)
  end)

  it("by the agents that were ended is no matter", function()
    local app = start_filling(function(agent) return agent.kept end)
    fill(app, 6)
    assert.equal(0, #app:log(STAYS))
    assert.equal(1, #app:faults())
    has("table.insert(keep(self)", app:faults()[1].excerpt)
  end)
end)
