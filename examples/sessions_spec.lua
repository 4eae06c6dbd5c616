local perilune = require "perilune.test"

describe("examples/sessions.lua", function()
  local app
  before_each(function() app = perilune.app("examples/sessions.lua", nil, { workers = 2 }) end)
  after_each(function() app:close() end)

  local function login(user) return app:connect():send("login " .. user):expect("hello " .. user) end

  it("keeps a user's basket from one connection to the next", function()
    login("42"):send("put apple"):expect("apple"):close()
    login("42"):send("put pear"):expect("apple, pear"):close()
    for _ = 1, 3 do login("42"):send("show"):expect("apple, pear") end
  end)

  it("has one for each user", function()
    login("42"):send("put apple"):expect("apple")
    login("43"):send("show"):expect("nothing yet")
  end)

  it("forgets a basket whose user was away for half an hour", function()
    login("42"):send("put apple"):expect("apple"):close()
    app:advance "29m"
    login("42"):send("show"):expect("apple"):close()
    app:advance "31m"
    login("42"):send("show"):expect("nothing yet")
    assert.equal(1, app:counters().residents_ended)
  end)

  it("ends a basket that is emptied", function()
    local client = login("42"):send("put apple"):expect("apple")
    client:send("empty"):expect("emptied")
    client:send("show"):expect("nothing yet")
  end)

  it("wants to know who it is", function()
    app:connect():send("put apple"):expect("first: login NAME")
  end)
end)
