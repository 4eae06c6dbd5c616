--- Compressed responses of HTTP, in memory.
local memory = require "spec.support.memory"
local perilune = require "perilune"

local TEXT = ("a line of a text that can be compressed\n"):rep(100)

local function open() return memory.open "spec/behaviour/fixtures/http_compress.lua" end

local function begin(client, path, accept)
  return client:ask({ path = path, headers = { ["Accept-Encoding"] = accept } }):head()
end

local function ask(client, path, accept, method)
  return client:request { method = method or "GET", path = path, headers = { ["Accept-Encoding"] = accept } }
end

local function inflated(body) return perilune.inflate(body, { format = "gzip" }) end

-- The coding, the body as it was, the fields that tell of it.
local function told(response)
  local coding = response.headers["Content-Encoding"]
  return { coding or "plain", coding and inflated(response.body) or response.body, response.headers.Vary or "" }
end

describe("a listener that compresses", function()
  after_each(memory.finish)

  local app, client
  before_each(function()
    app = open()
    client = app:connect { listener = "all" }
  end)

  it("compresses what is worth it, for who takes gzip", function()
    local response = ask(client, "/text", "deflate, gzip;q=0.8, br")
    assert.same({ "gzip", TEXT, "Accept-Encoding" }, told(response))
    assert.equal(tostring(#response.body), response.headers["Content-Length"])
    assert.is_true(#response.body < 200, #response.body)
    response = ask(client, "/json", "gzip")
    assert.same({ text = TEXT }, perilune.json.decode(inflated(response.body)))
    assert.same({ "gzip", ("j"):rep(1024), "Accept-Encoding" }, told(ask(client, "/just", "gzip")))
    assert.same({ "gzip", TEXT, "Accept-Encoding" }, told(ask(client, "/failure", "gzip")))
  end)

  for accept, coding in pairs {
    ["gzip"] = "gzip", ["GZIP"] = "gzip", ["x-gzip"] = "gzip", ["*"] = "gzip", ["gzip;q=0.001"] = "gzip",
    ["gzip; q=1.0, *;q=0"] = "gzip", ["identity;q=0.5, gzip"] = "gzip", ["identity;q=0, *;q=0.5"] = "gzip",
    [""] = "plain", ["br"] = "plain", ["gzip;q=0"] = "plain", ["gzip;q=0.000"] = "plain", ["*;q=0"] = "plain",
    ["gzip;q=0, *"] = "plain", ["identity"] = "plain", ["identity, gzip;q=0.5"] = "plain", ["gzipped"] = "plain",
  } do
    it(("gives %s to who takes %q"):format(coding, accept), function()
      assert.same({ coding, TEXT, "Accept-Encoding" }, told(ask(client, "/text", accept)))
    end)
  end

  it("leaves what is small, compressed already, a part, or not to be changed", function()
    for _, path in ipairs { "/small", "/image", "/model", "/untyped", "/part", "/fixed" } do
      local response = ask(client, path, "gzip")
      assert.same({ path }, { path, response.headers["Content-Encoding"] })
      assert.is_nil(response.headers.Vary, path)
      assert.is_true(#response.body > 1000, path)
    end
    assert.equal("br", ask(client, "/coded", "gzip").headers["Content-Encoding"])
    assert.equal(TEXT, ask(client, "/coded").body)
    local none = ask(client, "/none", "gzip")
    assert.same({ 204 }, { none.status, none.headers["Content-Encoding"], none.headers.Vary })
  end)

  it("leaves what becomes no smaller", function()
    local response = ask(client, "/random", "gzip")
    assert.same({ 2000 }, { #response.body, response.headers["Content-Encoding"] })
    assert.equal("Accept-Encoding", response.headers.Vary)
  end)

  it("leaves what would take long", function()
    assert.equal("gzip", ask(client, "/most", "gzip").headers["Content-Encoding"])
    assert.is_nil(ask(client, "/more", "gzip").headers["Content-Encoding"])
  end)

  it("compresses whatever there is for who takes nothing else", function()
    for _, path in ipairs { "/small", "/image", "/random" } do
      assert.equal("gzip", told(ask(client, path, "gzip, identity;q=0"))[1], path)
    end
    assert.equal("plain", told(ask(client, "/fixed", "gzip, identity;q=0"))[1])
    assert.equal("plain", told(ask(client, "/text", "br, identity;q=0"))[1])
  end)

  it("makes strong tags weak, and adds to Vary what is not there", function()
    local tagged, weak = ask(client, "/tagged", "gzip"), ask(client, "/weak", "gzip")
    assert.same({ 'W/"a"', "Origin, Accept-Encoding" }, { tagged.headers.ETag, tagged.headers.Vary })
    assert.same({ 'W/"a"', "accept-encoding, Origin" }, { weak.headers.ETag, weak.headers.Vary })
    assert.equal("*", ask(client, "/any", "gzip").headers.Vary)
    assert.same({ '"a"', "Origin, Accept-Encoding" },
      { ask(client, "/tagged").headers.ETag, ask(client, "/tagged").headers.Vary })
  end)

  it("answers HEAD with the same fields", function()
    for _, path in ipairs { "/text", "/tagged", "/empty", "/small" } do
      local get = ask(client, path, "gzip")
      local head = ask(client, path, "gzip", "HEAD")
      assert.equal("", head.body)
      for _, name in ipairs { "Content-Length", "Content-Encoding", "Vary", "ETag", "Content-Type" } do
        assert.equal(get.headers[name], head.headers[name], path .. " " .. name)
      end
    end
  end)

  it("leaves what conn:send sends", function()
    assert.same({ "plain", TEXT, "" }, told(ask(client, "/sent", "gzip")))
  end)

  it("is off unless it is asked for", function()
    assert.same({ "plain", TEXT, "" }, told(ask(app:connect { listener = "none" }, "/text", "gzip")))
  end)
end)

describe("a compressed response in pieces", function()
  after_each(memory.finish)

  local function connect() return open():connect { listener = "all" } end

  it("can be read piece by piece", function()
    local app = open()
    local client = app:connect { listener = "all" }
    local head = begin(client, "/pieces", "gzip")
    assert.same({ "gzip", "chunked", "Accept-Encoding", 'W/"p"' }, { head.headers["Content-Encoding"],
      head.headers["Transfer-Encoding"], head.headers.Vary, head.headers.ETag })
    local bytes = ""
    for i = 1, 3 do
      bytes = bytes .. client:piece()
      -- What has come is cut short, and yet all of the piece: an empty last block makes it whole.
      local raw = bytes:sub(11) .. "\3\0"
      assert.equal(("piece 1\npiece 2\npiece 3\n"):sub(1, 8 * i), perilune.inflate(raw, { format = "raw" }))
      app:advance "1s"
    end
    bytes = bytes .. client:piece()
    assert.is_nil(client:piece())
    assert.equal("piece 1\npiece 2\npiece 3\n", inflated(bytes))
    assert.equal("3", head.trailers["X-Sum"])
  end)

  it("may be empty, large, or written by several tasks", function()
    local client = connect()
    assert.same({ "gzip", "", "Accept-Encoding" }, told(ask(client, "/empty", "gzip")))
    assert.equal(1000000, #inflated(ask(client, "/large", "gzip").body))
    local body = inflated(ask(client, "/tasks", "gzip").body)
    assert.same({ 600003, 300001 }, { #body, #body:match(("b"):rep(100) .. "b+B") })
    assert.equal(TEXT, ask(client, "/text").body)
  end)

  it("ends whole, though a task would write when it is over", function()
    local app = memory.open { listen = "http://127.0.0.1:0", compress = true, agent = {
      proceed = function()
        return require("perilune.http").stream(function(out)
          for i = 1, 2 do
            perilune.spawn(function()
              perilune.sleep(i == 1 and 0 or 0.5)
              local numbers = {}
              for n = 1, 100000 do numbers[n] = tostring(math.random()) end
              local text = table.concat(numbers)
              local ok, why = out:write(text)
              memory.note(ok and tostring(#text) or why)
            end)
          end
          perilune.sleep(0.01)
        end)
      end,
    } }
    local client = app:connect():stall()
    client:ask { path = "/", headers = { ["Accept-Encoding"] = "gzip" } }
    app:advance "1s"
    client:unstall()
    app:advance "1s"
    assert.same({ tostring(#inflated(client:response().body)), "closed" }, memory.noted(app))
  end)

  it("is left as it is where its length is known, for events, and where it is not wanted", function()
    local client = connect()
    assert.same({ "plain", TEXT, "" }, told(ask(client, "/length", "gzip")))
    assert.equal("plain", told(ask(client, "/empty", "br"))[1])
    local events = begin(client, "/events", "gzip")
    assert.same({ "text/event-stream" }, { events.headers["Content-Type"], events.headers["Content-Encoding"] })
  end)

  it("is cut where its producer fails", function()
    local app = open()
    local client = app:connect { listener = "all", frame = "raw" }
    client:send "GET /fails HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n"
    client:expect_closed "error"
    assert.is_nil(memory.bytes(client):find("\r\n0\r\n\r\n", 1, true))
  end)

  it("is sent as it is where there are too many", function()
    local app = open()
    local codings = {}
    for i = 1, 258 do
      local head = begin(app:connect { listener = "all" }, "/pieces", "gzip")
      codings[i] = head.headers["Content-Encoding"] or "plain"
    end
    assert.same({ "gzip", "gzip", "plain", "plain" }, { codings[1], codings[256], codings[257], codings[258] })
    app:advance "10s"
    assert.equal("gzip", told(ask(app:connect { listener = "all" }, "/empty", "gzip"))[1])
  end)
end)

describe("http.compress", function()
  after_each(memory.finish)

  it("is around some routes, with settings of their own", function()
    local app = open()
    local client = app:connect { listener = "routes" }
    assert.equal("gzip", told(ask(client, "/own?page=/small", "gzip"))[1])
    assert.equal("gzip", told(ask(client, "/own?page=/model", "gzip"))[1])
    assert.same({ "plain", TEXT, "" }, told(ask(client, "/plain", "gzip")))
    assert.equal(204, ask(client, "/own?page=/nothing", "gzip").status)
    assert.same({ "gzip", "gzip", "nil", "nil" }, memory.noted(app))
  end)

  it("compresses once where the listener does as well", function()
    local client = open():connect { listener = "both" }
    assert.equal(TEXT, told(ask(client, "/own?page=/text", "gzip"))[2])
    assert.equal(TEXT, told(ask(client, "/plain", "gzip"))[2])
    assert.equal("", told(ask(client, "/own?page=/empty", "gzip"))[2])
  end)

  it("says what is wrong with its options", function()
    local http = require "perilune.http"
    for _, case in ipairs {
      { { min = "1x" }, 'http.compress: min: expects a size such as "1k", got "1x"' },
      { { level = 0 }, "http.compress: level: expects 1 (fast) to 9 (small), got 0" },
      { { types = "text" }, 'http.compress: types: expects a list such as { "model/obj" }, got "text"' },
      { { types = { "text" } }, 'http.compress: types: expects types such as "model/obj", got "text"' },
      { { mim = 5 }, 'http.compress: unknown option mim (did you mean "min"?)' },
      { 5, "http.compress: options: expects a table such as { level = … }, got 5" },
    } do
      local ok, message = pcall(http.compress, case[1])
      assert.same({ false, case[2] }, { ok, (tostring(message):gsub("^[^ ]*:%d+: ", "")) })
    end
  end)
end)
