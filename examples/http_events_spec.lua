local perilune = require "perilune.test"

describe("examples/http_events.lua", function()
  local app

  before_each(function() app = perilune.app "http_events.lua" end)
  after_each(function() app:close() end)

  it("ticks every second", function()
    local client = app:connect():ask "/ticks"
    client:expect_event { event = "tick", id = "1", retry = 2000, data = perilune.pattern '"time":"00:00:00"' }
    client:expect_nothing()
    app:advance "2s"
    client:expect_event { id = "2" }:expect_event { id = "3", data = perilune.pattern '"time":"00:00:02"' }
  end)

  it("goes on where the client was", function()
    app:connect():ask({ path = "/ticks", headers = { ["Last-Event-ID"] = "41" } }):expect_event { id = "42" }
  end)

  it("has a page that listens", function()
    local page = app:connect():get "/"
    assert.equal("text/html; charset=utf-8", page.headers["Content-Type"])
    assert.truthy(page.body:find('EventSource("/ticks")', 1, true))
    assert.equal(404, app:connect():get("/none").status)
  end)
end)
