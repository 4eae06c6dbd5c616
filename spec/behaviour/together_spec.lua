--- perilune.all, any and timeout: several tasks at once, and one for so long.
local memory = require "spec.support.memory"

local noted = memory.noted
local app_of = memory.script_lines

local function app_replying(body) return app_of("function Agent:proceed(line) " .. body .. " end") end

describe("perilune.all", function()
  after_each(memory.finish)

  it("returns the first result of each, in their order, when the last has ended", function()
    local app = app_replying [[
      local began = perilune.now()
      local a, b, c = perilune.all {
        function() perilune.sleep "30ms" return "a", "more" end,
        function() return nil, "refused" end,
        function() perilune.sleep "10ms" return "c" end,
      }
      return ("%s %s %s %.2f %d"):format(a, tostring(b), c, perilune.now() - began, select("#", perilune.all {}))]]
    local client = app:connect():send "x"
    app:advance "1s"
    client:expect "a nil c 0.03 0"
  end)

  it("raises the first fault, and cancels the others", function()
    local app = app_replying [[
      local ok, err = pcall(perilune.all, {
        function() perilune.defer(function() note "cancelled" end) perilune.sleep "1h" end,
        function() perilune.sleep "1ms" error "boom" end,
      })
      return tostring(ok) .. " " .. err:gsub("^.-: ", "")]]
    local client = app:connect():send "x"
    app:advance "1ms"
    client:expect "false boom"
    assert.same({ "cancelled" }, noted(app))
  end)
end)

describe("perilune.all, any and timeout", function()
  after_each(memory.finish)

  for call, message in pairs {
    ["perilune.all { a = print }"] = "perilune.all expects a list of functions, without holes and names",
    ["perilune.any { print, nil, print }"] = "without holes and names",
    ["local t = {} for i = 1, 1001 do t[i] = print end perilune.all(t)"] =
      "perilune.all takes at most 1000 functions, got 1001",
    ["perilune.timeout('2 secnds', begun)"] = "2 secnds",
    ["coroutine.wrap(function() perilune.all { begun } end)()"] = "perilune.all: cannot wait inside a coroutine",
    ["for _ = 1, 9999 do perilune.spawn(perilune.sleep, 60) end perilune.any { begun, begun }"] =
      "perilune.any: there are too many tasks already",
  } do
    it("begin nothing where they cannot end it: " .. call, function()
      local app = app_of(([[
        function Agent:proceed()
          local function begun() note "begun" end
          local ok, why = pcall(function() %s end)
          perilune.sleep "1ms"
          return why
        end]]):format(call))
      local client = app:connect():send "x"
      app:advance "1ms"
      local said = client:receive()
      assert.truthy(said:find(message, 1, true), said)
      assert.same({}, noted(app))
    end)
  end

  it("begin nothing in a callback that must not wait", function()
    local app = app_of([[
      function Agent:timeout()
        local ok, why = pcall(perilune.all, { function() note "begun" end })
        note(why)
      end
      function Agent:proceed() end]], "timeout = { idle = '1s' }")
    app:connect()
    app:advance "1s"
    assert.same({ "perilune.all: timeout() must not wait" }, noted(app))
  end)
end)

describe("perilune.any", function()
  after_each(memory.finish)

  it("returns the results of the first that has one, and cancels the others", function()
    local app = app_replying [[
      local function after(duration, ...)
        local results = { ... }
        return function()
          perilune.defer(function() note(duration) end)
          perilune.sleep(duration)
          return unpack(results)
        end
      end
      local began = perilune.now()
      local a, b = perilune.any { after("30ms", "slow"), after("10ms", nil, "refused"), after("20ms", "quick", 2) }
      return ("%s %d %.2f"):format(a, b, perilune.now() - began)]]
    local client = app:connect():send "x"
    app:advance "1s"
    client:expect "quick 2 0.02"
    assert.same({ "10ms", "20ms", "30ms" }, noted(app))
  end)

  it("of none that has one returns what the last says", function()
    local app = app_replying [[
      local function refuse(duration) return function() perilune.sleep(duration) return nil, duration, "ECODE" end end
      return table.concat({ select(2, perilune.any { refuse "20ms", refuse "10ms" }) }, " ") ..
        select("#", perilune.any {})]]
    local client = app:connect():send "x"
    app:advance "1s"
    client:expect "20ms ECODE0"
  end)

  it("raises a fault, and cancels the others", function()
    local app = app_replying [[
      local ok, err = pcall(perilune.any, {
        function() perilune.sleep "1ms" error "boom" end, function() perilune.sleep "1h" return 1 end,
      })
      return tostring(ok) .. " " .. err:gsub("^.-: ", "")]]
    local client = app:connect():send "x"
    app:advance "1ms"
    client:expect "false boom"
  end)
end)

describe("perilune.timeout", function()
  after_each(memory.finish)

  it("returns what the function does, if it is in time", function()
    local app = app_replying [[
      local a, b, c = perilune.timeout("1s", function(x) perilune.sleep "999ms" return x, nil, 3 end, line)
      return ("%s %s %d"):format(a, tostring(b), c)]]
    local client = app:connect():send "x"
    app:advance "999ms"
    client:expect "x nil 3"
  end)

  it("says so if it is not, and ends it", function()
    local app = app_replying [[
      local result, why, code = perilune.timeout("1s", function()
        perilune.defer(function() note "ended" end)
        perilune.sleep "1001ms"
        note "never"
      end)
      return table.concat({ tostring(result), why, code }, " ")]]
    local client = app:connect():send "x"
    app:advance "1s"
    client:expect "nil timeout ETIMEDOUT"
    app:advance "5s"
    assert.same({ "ended" }, noted(app))
  end)

  it("lets the function read the agent's frames", function()
    local app = app_replying [[
      if line ~= "ask" then return "proceed " .. line end
      return perilune.timeout("1s", function() return "got " .. self.conn:read() end) or "nothing"]]
    local client = app:connect():send("ask", "answer"):expect("got answer"):send "ask"
    app:advance "1s"
    client:expect("nothing"):send("late"):expect "proceed late"
  end)

  it("raises what the function does", function()
    local app = app_replying [[return tostring(pcall(perilune.timeout, "1s", error, "boom"))]]
    app:connect():send("x"):expect "false"
  end)
end)
