local perilune = require "perilune.test"

describe("@NAME@", function()
  local app, client
  before_each(function()
    app = perilune.app "app.lua"
    client = app:connect()
  end)
  after_each(function() app:close() end)

  local function add(note) return client:request { method = "POST", path = "/notes", body = note } end

  it("keeps notes", function()
    local made = add { text = "buy milk", tags = { "shop" } }
    assert.equal(201, made.status)
    assert.equal("/notes/1", made.headers.Location)
    assert.equal("buy milk", client:get("/notes/1"):json().text)
  end)

  it("lists them, the newest first", function()
    assert.same({}, client:get("/notes"):json())
    add { text = "one" }
    add { text = "two" }
    local list = client:get("/notes"):json()
    assert.equal("two", list[1].text)
    assert.equal(1, list[2].id)
  end)

  it("forgets them", function()
    add { text = "one" }
    assert.equal(204, client:request({ method = "DELETE", path = "/notes/1" }).status)
    assert.equal(404, client:request({ method = "DELETE", path = "/notes/1" }).status)
    assert.equal(404, client:get("/notes/1").status)
  end)

  it("says what is wrong with one", function()
    local response = add { text = "", tags = {} }
    assert.equal(422, response.status)
    assert.equal("text: a string from 1 to 500 bytes is expected, got \"\"", response:json().description)
    assert.equal(400, client:request({ method = "POST", path = "/notes", body = "{",
      headers = { ["Content-Type"] = "application/json" } }).status)
    assert.equal(405, client:request({ method = "PUT", path = "/notes" }).status)
  end)
end)
