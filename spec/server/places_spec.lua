--- What spec/behaviour/places_spec.lua has, of the places that need generations, threads or a recording.
local places = require "spec.support.places"
local server = require "spec.support.server"
local support = require "spec.support.reload"
local trace = require "spec.support.trace"
local wait = require "spec.support.wait"

local ROWS = places.read()

local number_of = {}
for i, name in ipairs(places.LISTENERS) do number_of[name] = i end

local function connect(app, listener) return app:connect { listener = number_of[listener] } end

local function start()
  return server.start { script = places.script(), control = "control.sock", args = { "--log-level", "debug" } }
end

local CELLS, SPARES = 0, 0
for _, method in places.cells() do
  CELLS = CELLS + 1
  if method == "link" or method == "pipe" then SPARES = SPARES + 1 end
end

-- A control of the newest generation, and what can be tried on in it: others for each cell, and one that has ended.
local function prepare(app)
  local control, others = connect(app, "control"), {}
  for i = 1, CELLS + SPARES do others[i] = connect(app, "kept"):echo_line("x", "x") end
  connect(app, "kept"):echo_line("x", "x"):close()
  app:wait_log { listener = "kept", message = "closed", reason = "peer" }
  return control, others
end

-- For each cell a connection that goes to the next generation when it is told to.
local function hold_all(app)
  local held = {}
  for i = 1, CELLS do held[i] = connect(app, "moving"):send "hold\n" end
  wait.until_true("all to be held", function() return #app:find_log "held" == CELLS end)
  return held
end

local function ask(control, line)
  control:send(line .. "\n")
  return control:recv_line()
end

local function outcome_of(control)
  return wait.until_true("the outcome of what is tried", function()
    local got = ask(control, "outcome")
    return got ~= "not tried" and got
  end)
end

-- Tries all of a row. go(i) comes to the place for the i-th time.
local function try_row(place, control, go)
  local got, i = {}, 0
  for target, method in places.cells() do
    i = i + 1
    assert.equal("ready", ask(control, ("try %s %s %s"):format(place, target, method)))
    go(i)
    got[method] = (got[method] or "") .. outcome_of(control)
    assert.equal("forgotten", ask(control, "forget"))
  end
  assert.same(ROWS[place], got)
end

describe("whoever calls", function()
  after_each(server.finish)

  it("from redact gets what the table says", function()
    local app = start()
    local control, recording = prepare(app), trace.record(app)
    try_row("redact", control, function() connect(app, "redacted"):send "redact\n" end)
    assert.equal(0, recording:stop().code)
  end)

  it("from snapshot gets what the table says", function()
    local app = start()
    local control, held = prepare(app), hold_all(app)
    support.reload_to(app, places.script "-- another\n")
    try_row("snapshot", control, function(i) held[i]:send "go\n" end)
  end)

  it("from upgrade gets what the table says", function()
    local app = start()
    local held = hold_all(app)
    support.reload_to(app, places.script "-- another\n")
    local control = prepare(app)
    try_row("upgrade", control, function(i) held[i]:send "go\n" end)
  end)

  it("from the script's own snapshot() gets what the table says", function()
    local app = start()
    local control = prepare(app)
    try_row("keeping", control, function(i)
      connect(app, "lines"):echo_line("mine", "mine")
      support.rewrite(app, places.script(("-- version %d\n"):format(i)))
      assert.equal("reload failed: the old generation serves on", support.reload(app).message)
    end)
  end)

  it("from a teardown gets what the table says", function()
    local app = start()
    local control, others = prepare(app)
    local moving = connect(app, "moving"):echo_line("x", "x")
    ask(control, "try nowhere own send")
    support.reload_to(app, places.script "-- another\n")
    app:wait_log "upgraded"
    control:close()
    for _, other in ipairs(others) do other:close() end
    app:wait_log { message = "generation retired", generation = 1 }
    local got = {}
    for _, target in ipairs(places.TARGETS) do
      for method in pairs(ROWS.teardown) do
        local entry = app:wait_log(function(entry)
          return entry.generation == 1 and entry.message:find(("outcome %s %s "):format(target, method), 1, true) ~= nil
        end)
        got[method] = (got[method] or "") .. entry.message:match "%S+$"
      end
    end
    for _, name in ipairs(places.FUNCTIONS) do got[name] = got[name]:sub(1, 1) end
    assert.same(ROWS.teardown, got)
    moving:echo_line("x", "x")
  end)
end)

describe("a teardown", function()
  after_each(server.finish)

  it("that uses all connections there were finds them closed, while clients come and go", function()
    local script = [[
      local perilune = require "perilune"
      local kept, M = {}, {}
      function M:opened() kept[#kept %% 20 + 1] = self.conn end
      function M:proceed(line) return line end
      local function teardown()
        local found = 0
        for _ = 1, %d do
          for i = 1, #kept do
            local ok, why = kept[i]:send "bye"
            if ok ~= nil or why ~= "closed" or kept[i].peer then found = found + 1 end
          end
        end
        perilune.log("info", ("%%d of %%d were found"):format(found, #kept))
      end
      return { listen = "tcp://127.0.0.1:0", frame = "line", reload = "drain", agent = M, teardown = teardown } -- %d]]
    local ROUNDS = server.scaled(3000, 300)
    local app = server.start { script = script:format(ROUNDS, 0), workers = 1 }
    for i = 1, 3 do
      for _ = 1, 20 do app:connect():echo_line("a", "a"):close() end
      support.reload_to(app, script:format(ROUNDS, i))
      -- Those of the new generation come and go meanwhile.
      local entry = wait.until_true("the end of teardown()", function()
        app:connect():echo_line("b", "b"):close()
        return app:find_log(function(entry) return entry.generation == i and entry.message:find "were found$" end)[1]
      end)
      assert.equal("0 of 20 were found", entry.message)
    end
  end)
end)
