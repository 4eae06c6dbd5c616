--- What goes wrong in handlers of a router, and is caught, and what middleware makes of it.
local core = require "perilune"
local http = require "perilune.http"
local memory = require "spec.support.memory"
local perilune = require "perilune.test"

describe("a router", function()
  local app

  before_each(function() app = memory.open "spec/behaviour/fixtures/http_mistakes.lua" end)
  after_each(memory.finish)

  it("tries again in the namespace where a handler has failed, and not outside of it", function()
    local client = app:connect()
    assert.equal("admin's", client:get("/admin/users?again=1").body)
    assert.equal("everybody's", client:get("/users").body)
    client:close()
  end)

  it("lets limiters share a dictionary, and none of them lets in more for it", function()
    local client, let_in = app:connect(), 0
    for _ = 1, 20 do
      if client:get("/strict").status == 200 then let_in = let_in + 1 end
      client:get "/loose"
    end
    assert.equal(5, let_in)
    client:close()
  end)

  it("forgets who looked on, where an error was caught", function()
    local client = app:connect()
    for _ = 1, 5 do assert.equal("caught", client:get("/caught").body) end
    client:close()
    client = app:connect()
    client:get "/fails"
    client:close()
    client = app:connect()
    assert.equal(6, client:get("/seen"):json().n)
    client:close()
  end)

  it("sends a file with the status and the fields that it was given", function()
    local client = app:connect():send "GET /page HTTP/1.1\r\nHost: a\r\n\r\n"
    local response = client:response()
    assert.same({ 404, "<p>index", "text/x-mine" },
      { response.status, response.body, response.headers["Content-Type"] })
    client:close()
  end)

  it("ends a stream once all has been written that a task was about to write", function()
    local client = app:connect()
    client:stall()
    client:send "GET /torn HTTP/1.1\r\nHost: a\r\n\r\nGET /users HTTP/1.1\r\nHost: a\r\n\r\n"
    app:advance "2s"
    client:unstall()
    assert.equal(1000000, #client:response().body)
    assert.equal("everybody's", client:response().body)
    client:close()
  end)
end)

describe("a client of HTTP", function()
  local net

  before_each(function() net = perilune.net() end)
  after_each(function() net:close() end)

  -- What a handler's call of act() returns.
  local function ask(act)
    local app = net:app { listen = "tcp://127.0.0.1:9000", frame = "line",
      agent = { proceed = function() return tostring(act()) end } }
    local client = app:connect():send "go"
    app:advance "10s"
    return client:receive()
  end

  for what, interim in pairs { ["100 Continue"] = "HTTP/1.1 100 Continue\r\n\r\n",
    ["103 Early Hints"] = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" } do
    it("goes on with its body where the server says " .. what, function()
      local Raw = {}
      function Raw:proceed(data)
        self.bytes = (self.bytes or 0) + #data
        if self.bytes == #data then self.conn:send(interim) end
        if data:find "0\r\n\r\n$" then return "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi" end
      end
      net:serve("tcp://raw:80", { frame = "raw", agent = Raw })
      assert.equal("200 hi 40", ask(function()
        local n = 0
        local response, message = http.post("http://raw/", function()
          if n == 40 then return nil end
          n = n + 1
          core.sleep "10ms"
          return ("x"):rep(1000)
        end)
        return response and ("%d %s %d"):format(response.status, response.body, n) or message
      end))
    end)
  end

  it("leads nowhere but below its base", function()
    for _, path in ipairs { "/../admin", "/a/%2e%2E/b", "/a/./b", "/.." } do
      local ok, message = pcall(ask, function()
        return select(2, pcall(function() return http.client { base = "http://raw/v1" }:get(path) end))
      end)
      assert.truthy(ok and message:find("has no `.` and `..` in it", 1, true), path .. ": " .. tostring(message))
    end
  end)

  it("has no time for connecting in a request", function()
    assert.truthy(ask(function()
      return select(2, pcall(http.get, "http://raw/", { timeout = { connect = "1s" } }))
    end):find("timeout: connect: it is of a client", 1, true))
  end)
end)

describe("http.cors", function()
  it("takes true or false for credentials", function()
    local ok, message = pcall(http.cors, { origins = { "https://a.example" }, credentials = "no" })
    assert.is_false(ok)
    assert.truthy(message:find("credentials: expects true or false", 1, true), message)
  end)
end)

describe("a schema", function()
  it("has whole numbers that can be ones, and options that may be none", function()
    local schema = http.schema({ n = "integer" }, {})
    assert.truthy(schema:check { n = 2 ^ 53 })
    assert.is_nil((schema:check { n = 1e300 }))
  end)
end)
