local perilune = require "perilune.test"

describe("examples/browser.lua", function()
  local app

  before_each(function() app = perilune.app "browser.lua" end)
  after_each(function() app:close() end)

  local function post(path, body)
    return app:connect():request { method = "POST", path = path, body = body }
  end

  it("has a page, which reports what it has seen", function()
    local page = app:connect():get "/"
    assert.equal("text/html; charset=utf-8", page.headers["Content-Type"])
    assert.truthy(page.body:find('EventSource("/steps")', 1, true))
    assert.equal(204, post("/report", '["one","two"]').status)
    assert.equal("one; two", app:log("a page has seen this")[1].seen)
    assert.equal(404, app:connect():get("/none").status)
  end)

  it("adds up", function() assert.equal('{"sum":6}', post("/sum", "[1,2,3]").body) end)

  it("goes on with the events where the browser was", function()
    app:connect():ask "/steps":expect_event { id = "1", event = "step", retry = 50 }:expect_event { id = "2" }
    local last = app:connect():ask { path = "/steps", headers = { ["Last-Event-ID"] = "4" } }
    last:expect_event { id = "5", data = perilune.pattern '"after":4' }:expect_event { event = "end" }
  end)

  it("echoes over a WebSocket, and says goodbye", function()
    local ws = app:connect():websocket "/echo"
    ws:send "hello":expect "hello"
    ws:send("\0\255", "binary"):expect_binary "\0\255"
    ws:send "bye":expect_close(4000, "bye"):expect_closed "agent"
    assert.same({}, app:log "handler failed")
  end)
end)
