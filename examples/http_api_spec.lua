local perilune = require "perilune.test"

local OPS = "Basic b3BzOnNlY3JldA==" -- ops:secret

describe("http_api", function()
  local app, client

  before_each(function()
    app = perilune.app "examples/http_api.lua"
    client = app:connect()
  end)

  after_each(function() app:close() end)

  local function post(body, headers)
    headers = headers or { Authorization = OPS }
    return client:request { method = "POST", path = "/users", headers = headers, body = body }
  end

  it("keeps users", function()
    local made = post { name = "Ann", age = 30, address = { street = "High Street", kind = "home" } }
    assert.same({ 201, "/users/1" }, { made.status, made.headers.Location })
    local found = client:get "/users/1"
    assert.equal("Ann", found:json().name)
    assert.equal("private, max-age=10", found.headers["Cache-Control"])
    assert.equal(36, #found.headers["X-Request-Id"])
    assert.equal(404, client:get("/users/2").status)
    assert.equal(404, client:get("/users/x").status)
    local gone = { method = "DELETE", path = "/users/1", headers = { Authorization = OPS } }
    assert.equal(204, client:request(gone).status)
    assert.equal(404, client:request(gone).status)
  end)

  it("says what is wrong with one", function()
    for message, body in pairs {
      ["name: is missing"] = { age = 30 },
      ["age: a whole number from 0 to 150 is expected, got 200"] = { name = "Ann", age = 200 },
      ["address.kind: one of \"home\", \"work\" is expected, got \"x\""] = {
        name = "Ann", address = { street = "y", kind = "x" } },
      ["nmae: unknown field (did you mean \"name\"?)"] = { nmae = "Ann", name = "Ann" },
    } do
      local response = post(body)
      assert.same({ 422, message }, { response.status, response:json().description })
    end
    assert.equal(400, post("{", { Authorization = OPS, ["Content-Type"] = "application/json" }).status)
    assert.equal(415, post("name=Ann", { Authorization = OPS }).status)
  end)

  it("lets nobody change anything who is not known", function()
    local response = post({ name = "Ann" }, {})
    assert.equal(401, response.status)
    assert.equal('Basic realm="users", charset="UTF-8"', response.headers["WWW-Authenticate"])
    assert.equal(401, client:get("/admin/counts").status)
  end)

  it("knows by its cookie who has logged in", function()
    assert.equal(401, client:get("/me").status)
    local login = client:request { method = "POST", path = "/login", headers = { Authorization = OPS } }
    local cookie = login.headers["Set-Cookie"]:match "^[^;]*"
    assert.equal("ops", client:get("/me", { Cookie = cookie }):json().name)
    assert.equal(401, client:get("/me", { Cookie = cookie:gsub("=.", "=x") }).status)
    app:advance "1h"
    assert.equal(401, app:connect():get("/me", { Cookie = cookie }).status)
  end)

  it("takes files", function()
    local body = '--b\r\nContent-Disposition: form-data; name="avatar"; filename="ann.png"\r\n'
      .. "Content-Type: image/png\r\n\r\n\137PNG\r\n--b--\r\n"
    local response = client:request { method = "POST", path = "/avatars", body = body,
      headers = { Authorization = OPS, ["Content-Type"] = "multipart/form-data; boundary=b" } }
    assert.same({ { name = "avatar", file = "ann.png", type = "image/png", bytes = 4 } }, response:json())
  end)

  it("counts", function()
    client:get "/users/1"
    client:get "/users/2"
    local counts = client:get("/admin/counts", { Authorization = OPS }):json()
    assert.equal(2, counts["GET /users/{id:%d+}"]["4xx"])
  end)

  it("lets a page of the app's origin ask", function()
    local response = client:request { method = "OPTIONS", path = "/users",
      headers = { Origin = "https://app.example.org", ["Access-Control-Request-Method"] = "POST" } }
    assert.equal(204, response.status)
    assert.equal("https://app.example.org", response.headers["Access-Control-Allow-Origin"])
  end)
end)
