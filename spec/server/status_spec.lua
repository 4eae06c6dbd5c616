--- What `perilune status` tells of connections and faults, as counted while it happens.
local has = require "spec.support.has"
local operator = require "spec.support.operator"
local server = require "spec.support.server"
local wait = require "spec.support.wait"

local SCRIPT = server.NOTE .. [[
  local Agent = {}
  local BIG = ("x"):rep(65536)

  function Agent:proceed(line)
    if line == "sleep" then note "asleep" perilune.sleep(60) end
    if line == "pause" then note "pausing" self.conn:pause() end
    if line == "flood" then while self.conn:send(BIG) do end note "flooded" end
    if line == "flood and close" then while self.conn:send(BIG) do end note "closing" return nil, "close" end
    if line == "fail" then error "oh" end
    if line == "spin" then while true do end end
    if line == "hoard" then local all = {} for i = 1, 1e6 do all[i] = { i } end end
    return line
  end

  function Agent:drain() return true end

  return { listen = "unix://status.sock", frame = "line", agent = Agent, timeout = { write = 0, drain = "60s" },
    limits = { send_buffer = "256k", proceed = "100ms", allocation = "1m" } }
]]

local NOBODY = { open = 0, suspended = 0, paused = 0, choked = 0, draining = 0, closing = 0 }

local function states(some)
  local all = {}
  for name, n in pairs(NOBODY) do all[name] = some[name] or n end
  return all
end

local run, status = operator.run, operator.status

-- Counted when the event is over, which is after its reply or its entry.
local function expect_states(app, expected)
  local last
  local ok, message = pcall(wait.until_true, "these states", function()
    last = status(app).counters.states
    for name, n in pairs(states(expected)) do
      if last[name] ~= n then return false end
    end
    return true
  end)
  if not ok then assert.same(states(expected), last, message) end
end

local function start(options)
  local copy = { script = SCRIPT, control = "control.sock" }
  for key, value in pairs(options or {}) do copy[key] = value end
  local app = server.start(copy)
  app.path = app.folder .. "/status.sock"
  app.listeners[1].path = app.path
  return app
end

describe("perilune status", function()
  after_each(server.finish)

  it("counts connections by what they are at, until they are gone", function()
    local app = start { workers = 2 }
    local clients = { idle = app:connect():echo_line("x") }
    expect_states(app, { open = 1 })
    for name, message in pairs { sleep = "asleep", pause = "pausing", flood = "flooded",
      ["flood and close"] = "closing" } do
      clients[name] = app:connect():send(name .. "\n")
      app:wait_log(message)
    end
    expect_states(app, { open = 1, suspended = 1, paused = 1, choked = 1, closing = 1 })
    local now = status(app)
    local first, second = now.workers[1].states, now.workers[2].states
    for name, n in pairs(now.counters.states) do assert.equal(n, first[name] + second[name]) end
    assert.equal(5, now.counters.open)
    has("connections  5 now (open 1, paused 1, choked 1, suspended 1, closing 1)", run(app, "status").out)
    clients.sleep:close()
    clients.pause:reset()
    clients.flood:close()
    clients["flood and close"]:close()
    expect_states(app, { open = 1 })
    clients.idle:close()
    expect_states(app, {})
    assert.equal(5, status(app).counters.closed)
  end)

  it("tells who holds up a drain: handlers that wait, those that close by themselves", function()
    local app = start()
    local stays = app:connect():echo_line("x")
    local sleeps = app:connect():send("sleep\n")
    app:wait_log "asleep"
    assert.equal(0, run(app, "stop").code)
    expect_states(app, { draining = 1, suspended = 1 })
    sleeps:close()
    expect_states(app, { draining = 1 })
    stays:close()
    assert.equal(0, app:wait_end().code)
  end)

  it("moves a connection from one state to another, and back", function()
    local app = start()
    local one = app:connect():send("flood\n")
    app:wait_log "flooded"
    expect_states(app, { choked = 1 })
    while one:recv_exact(1) do
      if status(app).counters.states.choked == 0 then break end
      one:recv_exact(131072)
    end
    expect_states(app, { open = 1 })
  end)

  it("counts faults by their reason", function()
    local app = start()
    for _, line in ipairs { "fail", "fail", "spin", "hoard" } do app:connect():send(line .. "\n"):recv_all() end
    local counters
    wait.until_true("the faults", function()
      counters = status(app).counters
      return counters.faults == 4
    end)
    assert.same({ error = 2, proceed_timeout = 1, memory = 1 }, counters.fault_reasons)
    has("faults       4 (", run(app, "status").out)
  end)
end)
