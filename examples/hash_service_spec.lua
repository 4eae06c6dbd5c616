local perilune = require "perilune.test"

-- PBKDF2-HMAC-SHA-256 of "password" and "salt", from the drafts that test vectors were published in.
local KEYS = {
  [1] = "120fb6cffcf8b32c43e7225256c4f837a86548c92ccc35480805987cb70be17b",
  [2] = "ae4d0c95af6b46d32d0adff928f06dd02a303f8ef3c251dfd6e2d85a95474c43",
  [4096] = "c5e478d59288c841aa530db6845c4c8d962893a001ce4e11a4963873aa98134a",
}

describe("examples/hash_service.lua", function()
  local app
  before_each(function() app = perilune.app("examples/hash_service.lua") end)
  after_each(function()
    app:hold_jobs(false)
    app:close()
  end)

  local function ask(rounds) return app:connect():send(("key salt %d password"):format(rounds)) end

  it("derives keys", function()
    for rounds, key in pairs(KEYS) do ask(rounds):expect(key) end
  end)

  it("answers others while it does", function()
    app:hold_jobs()
    local slow = ask(1)
    app:connect():send("time"):expect "1767225600"
    app:run_jobs()
    slow:expect(KEYS[1])
  end)

  it("says that it is busy when too many ask, and serves those that wait", function()
    app:hold_jobs()
    local clients = {}
    for i = 1, 12 do clients[i] = ask(1) end
    for i = 11, 12 do clients[i]:expect "busy: ask again later" end
    assert.equal(2, app:counters().jobs_shed)
    app:hold_jobs(false)
    for i = 1, 10 do clients[i]:expect(KEYS[1]) end
    clients[11]:send("key salt 2 password"):expect(KEYS[2])
  end)

  it("does nothing for who has gone, or waited for too long", function()
    app:hold_jobs()
    local gone, late = ask(1), ask(2)
    gone:reset()
    app:advance "10s"
    late:expect "busy: it took too long"
    assert.equal(0, app:run_jobs(10))
    assert.equal(2, app:counters().jobs_cancelled)
  end)

  it("answers who has ended its side", function()
    app:hold_jobs()
    local client = ask(1):half_close()
    app:run_jobs()
    client:expect(KEYS[1])
    assert.equal("agent", client:closed())
  end)

  it("refuses what it does not know", function()
    app:connect():send("key salt x y"):expect "usage: key SALT ROUNDS PASSWORD"
    app:connect():send("key salt 0 y"):expect "usage: key SALT ROUNDS PASSWORD"
    app:connect():send("hello"):expect "usage: key SALT ROUNDS PASSWORD, or time"
  end)
end)
