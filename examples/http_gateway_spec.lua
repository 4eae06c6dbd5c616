local perilune = require "perilune.test"

describe("http_gateway", function()
  local net, app, client

  before_each(function()
    net = perilune.net()
    app = net:app "examples/http_gateway.lua"
    client = app:connect()
  end)

  after_each(function() net:close() end)

  -- The backend: users, and what is done about recommendations.
  local function backend(recommend)
    local http = require "perilune.http"
    return net:serve("http://127.0.0.1:8081", { agent = { proceed = function(_, request)
      if request.path == "/users/7" then return { name = "Ann" } end
      if request.path == "/users/7/recommended" then return recommend() end
      return http.error(404)
    end } })
  end

  it("makes a page of two answers", function()
    local server = backend(function() return { "tea", "bread" } end)
    local response = client:get "/users/7"
    assert.equal(200, response.status)
    assert.same({ name = "Ann", recommended = { "tea", "bread" } }, response:json())
    client:get "/users/7"
    assert.equal(2, server:counters().accepted) -- two at once, and kept
  end)

  it("does not wait for what it can be without", function()
    local sleep = require("perilune").sleep
    backend(function()
      sleep "1s"
      return { "too late" }
    end)
    client:ask { path = "/users/7" }
    app:advance "200ms"
    assert.same({ name = "Ann", recommended = { "bestsellers" } }, client:response():json())
    net:advance "1s"
  end)

  it("says that there is no such user", function()
    backend(function() return {} end)
    assert.equal(404, client:get("/users/8").status)
    assert.equal(404, client:get("/elsewhere").status)
    assert.equal(405, client:request({ method = "POST", path = "/users/7" }).status)
  end)

  it("says so where nobody answers", function()
    client:ask { path = "/users/7" }
    app:advance "1s" -- it asks twice
    assert.equal(502, client:response().status)
  end)
end)
