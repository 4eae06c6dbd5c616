--- The collector calls finalisers when it comes to them, in the midst of anything.
local has = require "spec.support.has"
local memory = require "spec.support.memory"

describe("a finaliser that raises", function()
  after_each(memory.finish)

  local FAILED = "a finaliser failed"

  -- One that leaves another behind, each time that it is called.
  local function leave()
    getmetatable(newproxy(true)).__gc = function()
      leave()
      error "not even in its finaliser"
    end
  end

  -- Where compiled code is left by such an error, LuaJIT crashes now and then, whatever calls it.
  local function start(agent)
    return memory.start(agent, { frame = "u32be", unsafe = { "newproxy" }, jit = false, limits = { frame = "1m" } })
  end

  it("ends nothing while frames come in, and is told of", function()
    local Agent = {}
    function Agent:opened() leave() end
    function Agent:proceed(frame) return frame end
    local app = start(Agent)
    local client = app:connect()
    for i = 1, 300 do
      local frame = ("%d"):format(i):rep(30000):sub(1, 60000)
      client:send(frame):expect(frame)
    end
    assert.equal(0, #app:faults())
    local entries = app:log(FAILED)
    assert.equal(1, #entries)
    assert.equal("warn", entries[1].level)
    has("not even in its finaliser", entries[1].error)
    app:advance("61s")
    client = app:connect()
    for _ = 1, 300 do client:send(("x"):rep(60000)):receive() end
    assert.equal(2, #app:log(FAILED))
    assert.is_true(app:log(FAILED)[2].times > 1)
  end)

  it("is an error of the call that it is called in", function()
    local Agent = {}
    function Agent:proceed(frame)
      leave()
      local kept = {}
      for i = 1, 1e6 do kept[i % 100] = { frame } end
      return kept[1][1]
    end
    local app = start(Agent)
    app:connect():send("go"):expect_closed("error")
    has("not even in its finaliser", app:faults()[1].error)
  end)

  it("ends nobody else where many wait, leave and defer", function()
    local core = require "perilune"
    local calm_s
    local Agent = {}
    local function leave_until_calm()
      getmetatable(newproxy(true)).__gc = function()
        calm_s = calm_s or core.now() + 60
        if core.now() > calm_s then return end
        leave_until_calm()
        error "not even in its finaliser"
      end
    end
    function Agent:opened() leave_until_calm() end
    function Agent:proceed(frame)
      if frame == "still here?" then return frame end
      self.conn:defer(leave_until_calm)
      core.sleep(1)
      return frame
    end
    function Agent:closed() leave_until_calm() end
    local app = start(Agent)
    for round = 1, 30 do
      local clients = {}
      for i = 1, 10 do clients[i] = app:connect():send(("%d %d "):format(round, i):rep(10000)) end
      app:advance("1s")
      for i = 1, 10 do clients[i]:close() end
    end
    assert.is_true(#app:log(FAILED) + #app:faults() > 0)
    app:advance("90s")
    app:connect():send("still here?"):expect("still here?")
  end)
end)

describe("a finaliser that does not return", function()
  after_each(memory.finish)

  local function leave(n)
    for _ = 1, n do
      getmetatable(newproxy(true)).__gc = function() while true do end end
    end
  end

  local function start(agent, jit)
    return memory.start(agent, {
      frame = "u32be", unsafe = { "newproxy" }, jit = jit, limits = { frame = "1m", proceed = "20ms" },
    })
  end

  -- That there is an end at all is what is shown: each of these would take for ever.
  for _, jit in ipairs { false, true } do
    it("is ended between calls, and is told of" .. (jit and ", with the compiler" or ""), function()
      local Agent = {}
      function Agent:opened() leave(10) end
      function Agent:proceed(frame) return frame end
      local app = start(Agent, jit)
      local client = app:connect()
      for i = 1, 300 do
        local frame = ("%d"):format(i):rep(30000):sub(1, 60000)
        client:send(frame):expect(frame)
      end
      assert.equal(0, #app:faults())
      local entries = app:log "a finaliser failed"
      assert.equal(1, #entries)
      assert.truthy(entries[1].error:find "a finaliser %(__gc%) did not return in %d+ ms of CPU time")
      has("finaliser_spec.lua:", entries[1].error)
    end)
  end

  it("is the end of the call that it is called in", function()
    local Agent = {}
    function Agent:proceed(frame)
      leave(1)
      local kept = {}
      for i = 1, 1e6 do kept[i % 100] = { frame } end
      return kept[1][1]
    end
    local app = start(Agent, false)
    app:connect():send("go"):expect_closed("proceed_timeout")
  end)

  it("does not keep an app from its end", function()
    local Agent = {}
    function Agent:proceed(frame)
      leave(20)
      return frame
    end
    local app = start(Agent)
    app:connect():send("a"):expect("a")
    app:close()
  end)
end)
