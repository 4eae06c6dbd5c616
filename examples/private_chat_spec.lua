local perilune = require "perilune.test"

describe("examples/private_chat.lua", function()
  local app
  before_each(function() app = perilune.app("examples/private_chat.lua", nil, { workers = 3 }) end)
  after_each(function() app:close() end)

  local function login(name)
    return app:connect { name = name }:send("login " .. name):expect("welcome, " .. name)
  end

  it("carries messages between clients of all workers", function()
    local clients = {}
    for i, name in ipairs { "ann", "bob", "cid", "dan" } do clients[i] = login(name) end
    local ann, bob, cid, dan = unpack(clients)
    assert.same({ 0, 1, 2, 0 }, { ann:worker(), bob:worker(), cid:worker(), dan:worker() })
    for _, client in ipairs { bob, cid, dan } do
      client:send("msg ann hello"):expect("told ann")
    end
    ann:expect("bob: hello", "cid: hello", "dan: hello")
    ann:send("msg cid are you there?"):expect("told cid")
    cid:expect("ann: are you there?")
  end)

  it("says who is not here", function()
    local ann = login "ann"
    ann:send("msg bob hello"):expect("bob is not here")
    local bob = login "bob"
    ann:send("msg bob hello"):expect("told bob")
    bob:expect("ann: hello"):send("quit"):expect("bye")
    ann:send("msg bob hello"):expect("bob is not here")
    ann:send("msg ann hello"):expect("that is you")
  end)

  it("lets a name be one client's, until another takes it", function()
    local ann, old, new = login "ann", login "bob", app:connect()
    new:send("msg ann hello"):expect("login first")
    new:send("login bob"):expect("bob is logged in already: take bob")
    new:send("take bob"):expect("welcome, bob")
    ann:send("msg bob hello"):expect("told bob")
    new:expect("ann: hello")
    assert.same({}, old:frames())
    new:send("login eve"):expect("you are bob")
    login "cid":send("login a b"):expect("letters, digits, _ and - only, at most 20")
  end)

  it("keeps names over a reload", function()
    local ann, bob = login "ann", login "bob"
    app:reload()
    ann:send("msg bob still there?"):expect("told bob")
    bob:expect("ann: still there?")
  end)
end)
