--- perilune.shared among the workers and the generations of a real server.
local command = require "spec.support.command"
local has = require "spec.support.has"
local operator = require "spec.support.operator"
local reload = require "spec.support.reload"
local server = require "spec.support.server"
local wait = require "spec.support.wait"

local WORKERS = 3

-- Tells which worker it is, and does what it is told to.
local function script(version, settings)
  return ([[
    local perilune = require "perilune"
    local counts = perilune.shared "counts"
    local number
    local Agent = {}
    function Agent:proceed(line)
      if line == "worker" then return tostring(number) end
      if line == "version" then return %q end
      if line == "count" then return ("%%d"):format(counts:incr "n") end
      local add = tonumber(line:match "^add (%%d+)$")
      for _ = 1, add or 0 do
        counts:incr "sum"
        counts:update("list", function(list)
          list = list or { n = 0 }
          list.n = list.n + 1
          return list
        end)
      end
      if line == "sum" then return ("%%d %%d"):format(counts:get "sum", counts:get "list".n) end
      if line == "first" then return tostring(counts:add("first", number) or false) end
      return "done"
    end
    return { listen = "tcp://127.0.0.1:0", frame = "line", agent = Agent, setup = function(app) number = app.worker end,
      limits = { proceed = "1m" }, %s }]]):format(version, settings or 'shared = { counts = "1m" }')
end

local function ask(client, line)
  return client:send(line .. "\n"):recv_line()
end

-- A client of each worker.
local function client_of_each(app)
  local by_worker, n = {}, 0
  repeat
    local client = app:connect()
    local number = ask(client, "worker")
    if not by_worker[number] then
      by_worker[number], n = client, n + 1
    end
  until n == WORKERS
  return { by_worker["0"], by_worker["1"], by_worker["2"] }
end

local function start(settings)
  return server.start { script = script("1", settings), workers = WORKERS, control = "control.sock" }
end

describe("a dictionary shared by workers", function()
  after_each(server.finish)

  it("is one and the same for all of them", function()
    local clients = client_of_each(start())
    for i = 1, 3 * WORKERS do assert.equal(tostring(i), ask(clients[i % WORKERS + 1], "count")) end
  end)

  it("loses nothing of what they do at once", function()
    local clients, each = client_of_each(start()), server.scaled(20000, 2000)
    for _, client in ipairs(clients) do client:send(("add %d\n"):format(each)) end
    for _, client in ipairs(clients) do assert.equal("done", client:recv_line()) end
    assert.equal(("%d %d"):format(WORKERS * each, WORKERS * each), ask(clients[1], "sum"))
  end)

  it("lets one of them be the first", function()
    local clients, firsts = client_of_each(start()), 0
    for _, client in ipairs(clients) do client:send "first\n" end
    for _, client in ipairs(clients) do firsts = firsts + (client:recv_line() == "true" and 1 or 0) end
    assert.equal(1, firsts)
  end)

  it("survives a reload, and another may come with it", function()
    local app = start()
    local old = app:connect()
    assert.equal("1", ask(old, "count"))
    reload.reload_to(app, script("2", 'shared = { counts = "1m", other = "64k" }'))
    local new = app:connect()
    assert.same({ "2", "2" }, { ask(new, "version"), ask(new, "count") })
    assert.equal("3", ask(old, "count"))
  end)

  it("goes with the last who has it", function()
    local app = start()
    local old = app:connect()
    assert.equal("1", ask(old, "count"))
    reload.reload_to(app, script("2", 'shared = { counts = "1m", other = "64k" }'))
    assert.equal(2, #operator.status(app).shared)
    local bare = [[return { listen = "tcp://127.0.0.1:0", frame = "line", agent = { proceed = print } }]]
    reload.reload_to(app, bare)
    assert.equal("2", ask(old, "count"))
    old:close()
    wait.until_true("the dictionaries to be gone", function() return #operator.status(app).shared == 0 end)
  end)

  it("keeps its size: a reload that has another is refused, and changes nothing", function()
    local app = start()
    local client = app:connect()
    assert.equal("1", ask(client, "count"))
    reload.rewrite(app, script("2", 'shared = { counts = "2m" }'))
    local outcome = reload.reload(app)
    assert.equal("reload failed: the old generation serves on", outcome.message)
    has("shared.counts: it has 1048576 bytes since the process began", app:text())
    local other = app:connect()
    assert.same({ "1", "2" }, { ask(other, "version"), ask(other, "count") })
  end)

  it("begins empty in an upgrade", function()
    local app = start()
    assert.equal("1", ask(app:connect(), "count"))
    local successor = app:upgrade()
    assert.equal("1", ask(successor:connect(), "count"))
    app:wait_end()
    assert.equal(0, successor:stop().code)
  end)

  it("is told of by status", function()
    local app = start()
    local client = app:connect()
    for _ = 1, 3 do ask(client, "count") end
    local one = operator.status(app).shared[1]
    assert.same({ "counts", 1, 2 ^ 20, 0 }, { one.name, one.entries, one.limit, one.evicted })
    assert.is_true(one.bytes > 0 and one.bytes < one.limit)
    has("shared       counts: 1 entries, ", operator.run(app, "status").out)
  end)

  it("may be given on the command line", function()
    local app = server.start { script = script("1", 'workers = 1'), args = { "--set", "shared=counts=64k" } }
    assert.equal("1", ask(app:connect(), "count"))
    local shown = command.run { "check", app.folder .. "/app.lua", "--print", "--set", "shared=counts=64k,others=1m" }
    has("counts=64k, others=1m", shown.out)
    local wrong = command.run { "check", app.folder .. "/app.lua", "--set", "shared.counts=64k" }
    has("all of them are one text: shared=counts=1m,other=64k", wrong.err .. wrong.out)
    local failed = command.run { "check", app.folder .. "/app.lua" }
    assert.equal(78, failed.code)
    has('no dictionary "counts" is declared', failed.err .. failed.out)
  end)
end)
