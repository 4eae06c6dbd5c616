local perilune = require "perilune.test"

describe("websocket_chat", function()
  local app

  before_each(function() app = perilune.app "examples/websocket_chat.lua" end)
  after_each(function() app:close() end)

  local function join(name)
    return app:connect():websocket("/chat?name=" .. name, { origin = "http://localhost:8080" })
  end

  it("has a page", function()
    local response = app:connect():get "/"
    assert.equal(200, response.status)
    assert.truthy(response.body:find("new WebSocket", 1, true))
  end)

  it("tells everybody what somebody says, and who comes and goes", function()
    local ann = join "ann":expect "* here are ann"
    local bob = join "bob":expect "* here are ann, bob"
    ann:expect "* bob has joined"
    bob:send "hello":expect "bob: hello"
    ann:expect "bob: hello"
    bob:close(1000):expect_close(1000)
    ann:expect "* bob has left"
  end)

  it("says why it takes no more of somebody", function()
    join "ann":expect "* here are ann"
    join "ann":expect_close(4001, "this name is taken")
    join "a%20b":expect_close(4000)
    join "bob":expect "* here are ann, bob":send("\0", "binary"):expect_close(4002):expect_closed "agent"
  end)

  it("is not for pages from elsewhere", function()
    local response = app:connect():get("/chat?name=ann", {
      Upgrade = "websocket", Connection = "Upgrade", ["Sec-WebSocket-Version"] = 13,
      ["Sec-WebSocket-Key"] = "dGhlIHNhbXBsZSBub25jZQ==", Origin = "https://example.com",
    })
    assert.equal(403, response.status)
  end)
end)
