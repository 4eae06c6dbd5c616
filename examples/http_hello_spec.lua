local perilune = require "perilune.test"

describe("http_hello", function()
  local app, client

  before_each(function()
    app = perilune.app "examples/http_hello.lua"
    client = app:connect()
  end)

  after_each(function() app:close() end)

  it("has a page", function()
    local response = client:get "/"
    assert.equal(200, response.status)
    assert.equal("text/html; charset=utf-8", response.headers["Content-Type"])
    assert.equal("<h1>hello</h1>\n", response.body)
  end)

  it("counts the requests of a connection", function()
    assert.equal(1, client:get("/requests"):json().requests)
    assert.equal(2, client:get("/requests"):json().requests)
    assert.equal(1, app:connect():get("/requests"):json().requests)
  end)

  it("greets", function()
    assert.equal("hello world\n", client:get("/greetings").body)
    assert.equal("hello Ann & Bob\n", client:get("/greetings?name=Ann+%26+Bob").body)
    local response = client:request { method = "POST", path = "/greetings", body = { name = "Ann" } }
    assert.equal(201, response.status)
    assert.same({ greeting = "hello Ann" }, response:json())
  end)

  it("says what is wrong", function()
    assert.equal(404, client:get("/nowhere").status)
    local response = client:request { method = "DELETE", path = "/greetings" }
    assert.equal(405, response.status)
    assert.equal("GET, POST", response.headers.Allow)
    assert.equal(400, client:request({ method = "POST", path = "/greetings", body = "{" }).status)
    assert.same({ error = "name: a text is expected" },
      client:request({ method = "POST", path = "/greetings", body = {} }):json())
  end)

  it("leads elsewhere", function()
    local response = client:get "/old"
    assert.equal(302, response.status)
    assert.equal("/greetings", response.headers.location)
  end)

  it("answers HEAD without a body", function()
    local response = client:request { method = "HEAD" }
    assert.equal("15", response.headers["Content-Length"])
    assert.equal("", response.body)
  end)
end)
