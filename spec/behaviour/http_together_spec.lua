--- What perilune.http has, used together: routes and middleware around responses of each kind.
local memory = require "spec.support.memory"

local FIXTURE = "spec/behaviour/fixtures/http_together.lua"

describe("behind a router's namespace and its middleware", function()
  local app

  before_each(function() app = memory.open(FIXTURE) end)
  after_each(memory.finish)

  local function get(path, headers)
    local client = app:connect()
    local response = client:get(path, headers)
    client:close()
    return response
  end

  it("a file is served, and a folder leads to itself with a slash", function()
    local index, file, folder = get "/v1/docs/", get "/v1/docs/index.html", get "/v1/docs/a?b=c"
    assert.same({ 200, "<p>index", "yes" }, { index.status, index.body, index.headers["X-Seen"] })
    assert.same({ 200, "<p>index" }, { file.status, file.body })
    assert.same({ 301, "/v1/docs/a/?b=c" }, { folder.status, folder.headers.Location })
    assert.equal("<p>a", get("/v1/docs/a/").body)
    assert.equal(404, get("/v1/docs/none").status)
    assert.equal(404, get("/v1/docs/%2e%2e/http_together.lua").status)
  end)

  it("a response in pieces gets fields of the middleware, and knows its request", function()
    local response = get("/v1/stream", { ["X-User"] = "Ann", Origin = "https://a.example" })
    assert.same({ 200, "one Ann two", "1", "yes", "https://a.example" }, { response.status, response.body,
      response.headers["X-Own"], response.headers["X-Seen"], response.headers["Access-Control-Allow-Origin"] })
    assert.truthy(response.headers["X-Id"])
  end)

  it("one of HEAD has its fields and no body", function()
    local client = app:connect()
    local response = client:request { method = "HEAD", path = "/v1/stream" }
    assert.same({ 200, "", "1" }, { response.status, response.body, response.headers["X-Own"] })
    assert.equal("<p>index", client:get("/v1/docs/").body)
    client:close()
  end)

  it("events come with the fields, too", function()
    local client = app:connect():ask { path = "/v1/events" }
    local head = client:head()
    assert.same({ 200, "yes" }, { head.status, head.headers["X-Seen"] })
    client:expect_event { data = '{"n":1}', id = "7" }
    client:close()
  end)

  it("a producer that fails before it writes is a 500", function()
    local response = get "/v1/broken"
    assert.equal(500, response.status)
    assert.equal(1, #app:faults())
  end)

  it("a WebSocket is opened, and has the route's parameters", function()
    local socket = app:connect():websocket "/v1/chat/blue"
    socket:send("hello"):expect "blue hello"
    socket:send("\1", "binary"):expect_binary "\1"
    socket:close(1000):expect_close(1000)
    assert.equal(404, get("/v1/chat").status)
  end)

  it("each is counted by its route", function()
    get "/v1/stream"
    get "/v1/docs/"
    get "/v1/docs/none"
    local counts = get("/counts"):json()
    assert.equal(1, counts["GET /v1/stream"]["2xx"])
    assert.same({ 1, 1 }, { counts["GET /v1/docs/{path*}"]["2xx"], counts["GET /v1/docs/{path*}"]["4xx"] })
  end)
end)
