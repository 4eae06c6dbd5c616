--- snapshot(app) and setup(app, data): what a script keeps when another generation of it is loaded.
local core = require "perilune"
local memory = require "memory"
local perilune = require "perilune.test"

local has = require "has"

-- Answers each line with its name and how many lines there were, in all generations.
local function version(name, settings)
  local state = { n = 0 }
  local Agent = {}
  function Agent:proceed() -- luacheck: ignore self
    state.n = state.n + 1
    return ("%s %d"):format(name, state.n)
  end
  local script = { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent,
    setup = function(_, data) state = data or state end,
    snapshot = function() return state end }
  for key, value in pairs(settings or {}) do script[key] = value end
  return script
end

-- What setup() of the next generation is given, as another script has returned it from snapshot().
local function handed_on(snapshot, check)
  local app = memory.open(version("one", { snapshot = snapshot }))
  app:reload(version("two", { setup = function(_, data) check(data) core.log("info", "checked") end }))
  assert.same({ "checked" }, memory.noted(app))
end

describe("snapshot(app)", function()
  after_each(memory.finish)

  it("goes on in the next generation, and in the one after that", function()
    local app = memory.open(version "one")
    app:connect():send("a", "b"):expect("one 1", "one 2")
    app:reload(version "two"):connect():send("a"):expect("two 3")
    app:reload(version "three"):connect():send("a", "b"):expect("three 4", "three 5")
  end)

  it("has what connections of the old generation have done until then, and no more", function()
    local app = memory.open(version "one")
    local old = app:connect():send("a"):expect("one 1")
    app:reload(version "two")
    old:send("a", "b", "c"):expect("one 2", "one 3", "one 4")
    app:connect():send("a"):expect("two 2")
  end)

  it("is each worker's own", function()
    local function numbered(name)
      local mine
      return version(name, {
        setup = function(app, data)
          core.log("info", ("%s %d %s"):format(name, app.worker, data and data.worker or "none"))
          mine = app.worker
        end,
        snapshot = function(app) return { worker = app.worker == mine and mine } end,
      })
    end
    local app = perilune.app(numbered "one", nil, { workers = 3 })
    finally(function() app:close() end)
    app:reload(numbered "two")
    assert.same({ "one 0 none", "one 1 none", "one 2 none", "two 0 0", "two 1 1", "two 2 2" }, memory.noted(app))
  end)

  it("hands on all that is plain data", function()
    handed_on(function()
      return { list = { 1, 2.5, "three", true, false }, map = { [true] = "yes", [1.5] = "no" }, empty = {},
        text = "\0\255", large = 2 ^ 53 }
    end, function(data)
      assert(data.list[2] == 2.5 and data.list[3] == "three" and data.list[5] == false and #data.list == 5)
      assert(data.map[true] == "yes" and data.map[1.5] == "no" and next(data.empty) == nil)
      assert(data.text == "\0\255" and data.large == 2 ^ 53)
    end)
    handed_on(function() return "alone" end, function(data) assert(data == "alone") end)
    handed_on(function() return false end, function(data) assert(data == false) end)
    handed_on(function() return (string.unpack("<i8", "\1\0\0\0\0\0\0\128")) end, function(data)
      assert(tostring(data) == "-9223372036854775807LL", tostring(data))
    end)
  end)

  it("is nothing where there is none, or it returns nothing", function()
    local function check(data) assert(data == nil) end
    handed_on(function() end, check)
    handed_on(function() return nil end, check)
    local script = version "one"
    script.snapshot, script.setup = nil, function(_, data) assert(data == nil) end
    local app = memory.open(script)
    app:reload(script):reload(script)
  end)

  it("is not asked for where the next script does not take it", function()
    local function fails() error "not asked" end
    local app = memory.open(version("one", { snapshot = fails }))
    local script = version("two", { snapshot = fails })
    script.setup = nil
    app:reload(script):connect():send("a"):expect("two 1")
    app:reload(version("three", { setup = function(given) assert(given.worker) end, snapshot = fails }))
    app:connect():send("a"):expect("three 1")
    -- One that takes whatever comes would be given it.
    assert.is_false((pcall(app.reload, app, version("four", { setup = function(...) return ... end }))))
  end)

  it("is bounded by the script that takes it", function()
    local app = memory.open(version("one", { snapshot = function() return ("x"):rep(5000) end,
      limits = { snapshot = "1k" } }))
    assert.is_false((pcall(app.reload, app, version("two", { limits = { snapshot = "4k" } }))))
    app:reload(version("two", { limits = { snapshot = "5k" }, setup = function(_, data) assert(#data == 5000) end }))
  end)

  local LOOP = memory.scaled("it ran for over 1 s of CPU time (snapshot may take 1 s)", "it ran for over 1 s")
  for name, case in pairs {
    ["raises"] = { function() error "not today" end, "error: not today" },
    ["raises what is no text"] = { function() error {} end, "error: " },
    ["has a function"] = { function() return { a = { print } } end,
      'snapshot(): only plain data can be kept: the value["a"][1] is a function' },
    ["has a metatable"] = { function() return setmetatable({}, {}) end, "has a metatable" },
    ["refers to itself"] = { function()
      local t = {}
      t.t = t
      return t
    end, "has tables within each other, more than 100" },
    ["is too large"] = { function() return ("x"):rep(4096) end,
      "snapshot(): the data has more than 4k packed (limits.snapshot)" },
    ["is too large in small pieces"] = { function()
      local list = {}
      for i = 1, 3000 do list[i] = i end
      return list
    end, "snapshot(): the data has more than 4k packed (limits.snapshot)" },
    ["does not return"] = { function() while true do end end, LOOP },
    ["waits"] = { function() core.sleep(1) end, "perilune.sleep: only a running handler can" },
    ["begins a timer"] = { function(app) app:after(1, print) end, "app:after: snapshot() must not begin anything" },
    ["begins a task"] = { function(app) app:spawn(print) end, "app:spawn: snapshot() must not begin anything" },
  } do
    it("keeps the old generation where it " .. name, function()
      local app = memory.open(version("one", { snapshot = case[1] }))
      local client = app:connect():send("a"):expect("one 1")
      local ok, message = pcall(app.reload, app, version("two", { limits = { snapshot = "4k" } }))
      assert.is_false(ok)
      has(case[2], tostring(message))
      has("in snapshot", tostring(message))
      client:send("a"):expect("one 2")
      app:connect():send("a"):expect("one 3")
    end)
  end

  it("may send to connections, which go on", function()
    local conn
    local Agent = { opened = function(self) conn = self.conn end, proceed = function(_, line) return line end }
    local app = memory.open(version("one", { agent = Agent, snapshot = function() conn:send "kept" end }))
    local client = app:connect()
    app:reload(version "two")
    client:expect("kept"):send("a"):expect("a")
  end)

  it("loses nothing where setup() fails, and teardown() of what has failed runs once it had begun", function()
    local app = memory.open(version "one")
    app:connect():send("a"):expect("one 1")
    assert.is_false((pcall(app.reload, app, version("two", { setup = function() error "no" end,
      teardown = function() core.log("info", "torn down") end }))))
    assert.same({ "torn down" }, memory.noted(app))
    app:connect():send("a"):expect("one 2")
    app:reload(version "three"):connect():send("a"):expect("three 3")
  end)

  it("that fails runs no teardown() of what has not been set up", function()
    local app = memory.open(version("one", { snapshot = function() error "no" end }))
    assert.is_false((pcall(app.reload, app, version("two", {
      teardown = function() core.log("info", "torn down") end }))))
    assert.same({}, memory.noted(app))
  end)

  it("is a function, as the script is told when it is loaded", function()
    local ok, message = pcall(memory.open, version("one", { snapshot = { 1 } }))
    assert.is_false(ok)
    has("snapshot: expects a function, got a table", tostring(message))
  end)
end)
