local perilune = require "perilune.test"

describe("@NAME@", function()
  local app
  before_each(function() app = perilune.app "app.lua" end)
  after_each(function() app:close() end)

  local function join(name, others)
    local client = app:connect()
    local all = {}
    for i, other in ipairs(others or {}) do all[i] = other end
    all[#all + 1] = name
    table.sort(all)
    return client:expect("your name?"):send(name):expect("you are in lobby with: " .. table.concat(all, " "))
  end

  it("tells those in a room who comes, what is said, and who leaves", function()
    local ann = join("ann")
    local bob = join("bob", { "ann" })
    ann:expect("* bob is here")
    bob:send("hello"):send("/quit"):expect("bye")
    ann:expect("bob: hello"):expect("* bob has left")
    assert.equal("agent", bob:closed())
  end)

  it("keeps rooms apart", function()
    local ann = join("ann")
    local bob = join("bob", { "ann" })
    ann:expect("* bob is here")
    bob:send("/join attic"):expect("you are in attic with: bob"):send("is anybody here?")
    ann:expect("* bob has left"):send("/who"):expect("ann")
    ann:send("/join attic"):expect("you are in attic with: ann bob")
    bob:expect("* ann is here")
  end)

  it("refuses a name that is taken or malformed, and frees it when its owner leaves", function()
    local ann = join("ann")
    local other = app:connect():expect("your name?")
    other:send("ann"):expect("that name is taken")
    other:send("a b"):expect("letters, digits, _ and - only, at most 20")
    ann:reset()
    app:settle()
    other:send("ann"):expect("you are in lobby with: ann")
  end)

  it("says goodbye to the silent ones after five minutes", function()
    local ann = join("ann")
    app:advance("5m")
    ann:expect("you have been silent for too long")
    assert.equal("idle_timeout", ann:closed())
  end)

  it("does not wait long for a name", function()
    local nobody = app:connect():expect("your name?")
    app:advance("30s")
    assert.equal("idle_timeout", nobody:closed())
  end)
end)
