local perilune = require "perilune.test"

local function digest(text) return "\1" .. text end
local function primes(text) return "\2" .. text end

describe("@NAME@", function()
  local app
  local function open(overrides) app = perilune.app("app.lua", overrides) end
  after_each(function() app:close() end)

  it("answers with what the work comes to, in order", function()
    open()
    app:connect():send(primes "10", primes "100", primes "2"):expect("\0004", "\00025", "\0001")
  end)

  it("refuses what is no request, and goes on", function()
    open()
    local client = app:connect()
    client:send "\9x":expect "\1there is no such operation"
    client:send(primes "many"):expect "\1a number up to 1000000, please"
    client:send(digest ""):expect "\1there is nothing to digest"
    client:send(primes "3"):expect "\0002"
  end)

  it("says at once that it is busy when too much waits, and is not busy later", function()
    open { ["jobs.workers"] = 1, ["jobs.queue"] = 1 }
    app:hold_jobs() -- as if the thread was at work for long
    local clients = {}
    for i = 1, 3 do clients[i] = app:connect():send(primes "10") end
    clients[3]:expect "\3busy"
    clients[1]:expect_nothing()
    app:run_jobs(2)
    clients[1]:expect "\0004"
    clients[2]:expect "\0004"
  end)

  it("does not keep the others waiting while one waits for its job", function()
    open()
    app:hold_jobs()
    app:connect():send(primes "10"):expect_nothing()
    app:connect():send "\9":expect "\1there is no such operation"
    app:run_jobs(1)
  end)

  it("does no work for a client that has gone", function()
    open()
    app:hold_jobs()
    app:connect():send(primes "10"):reset()
    assert.equal(1, app:counters().jobs_cancelled)
  end)

  it("says when it has taken too long", function()
    open()
    app:hold_jobs()
    local client = app:connect():send(primes "10")
    app:advance "10s"
    client:expect "\2it took too long"
  end)
end)
