--- http.file and http.files, in memory.
local lfs = require "lfs"
local memory = require "spec.support.memory"
local served = require "spec.support.served"

local APP = [[
local http = require "perilune.http"
local all = http.files("public")
local packed = http.files("public", { precompressed = true, index = false, hidden = true, headers = { ["X-A"] = "b" },
  types = { zzz = "text/x-z" } })
local one = http.file("public/digits.txt", { type = "text/x-one", headers = { ["Cache-Control"] = "max-age=60" } })
local Agent = {}
local function why(...) return select(2, pcall(...)) end
function Agent:proceed(request)
  if request.path == "/one" then return one end
  if request.path == "/gone" then return http.file("public/none") end
  if request.path == "/twice" then
    self.kept = self.kept or all(request, "/digits.txt")
    return self.kept
  end
  if request.path == "/misuse" then
    return table.concat({ why(http.file), why(http.file, "../secret"), why(http.file, "a", { typ = 1 }),
      why(http.files, "none"), why(http.files, "public", { index = 1 }),
      why(http.files, "public", { headers = { ["a b"] = 1 } }), why(all, "/x"), why(all, request, 1) }, "\n")
  end
  if request.path:sub(1, 8) == "/packed/" then return packed(request, request.path:sub(8)) end
  return all(request)
end
return { listen = "http://127.0.0.1:0", agent = Agent }
]]

describe("files", function()
  local place, app, client

  setup(function()
    place = served.new()
    place:write("app.lua", APP)
  end)
  teardown(function() place:remove() end)
  before_each(function()
    app = memory.open(place.folder .. "/app.lua")
    client = app:connect()
  end)
  after_each(memory.finish)

  local function get(path, headers) return client:get(path, headers) end

  it("are looked at each time, however often they were asked for", function()
    place:write("public/often.txt", "one")
    local first = get "/often.txt"
    assert.same({ "one", first.headers.ETag }, { get("/often.txt").body, get("/often.txt").headers.ETag })
    assert.equal(304, get("/often.txt", { ["If-None-Match"] = first.headers.ETag }).status)
    assert.same({ 206, "ne" }, { get("/often.txt", { Range = "bytes=1-" }).status,
      get("/often.txt", { Range = "bytes=1-" }).body })
    assert.same({ 200, "" }, { client:request({ method = "HEAD", path = "/often.txt" }).status,
      client:request({ method = "HEAD", path = "/often.txt" }).body })
    place:write("public/often.txt", "two")
    lfs.touch(place.folder .. "/public/often.txt", 1e9, 1e9)
    local second = get "/often.txt"
    assert.same({ "two", "Sun, 09 Sep 2001 01:46:40 GMT" }, { second.body, second.headers["Last-Modified"] })
    assert.are_not.equal(first.headers.ETag, second.headers.ETag)
    place:write("public/often.txt", "three")
    assert.same({ "three", "5" }, { get("/often.txt").body, get("/often.txt").headers["Content-Length"] })
    os.remove(place.folder .. "/public/often.txt")
    assert.equal(404, get("/often.txt").status)
    for i = 0, 1023 do -- 1,024 spellings of one name: more than are remembered
      local bits = i
      local spelled = ("digits.txt"):gsub(".", function(char)
        local is_coded = bits % 2 == 1
        bits = math.floor(bits / 2)
        return is_coded and ("%%%02x"):format(char:byte()) or nil
      end)
      assert.equal("0123456789", get("/" .. spelled).body)
    end
  end)

  it("have a type, a length, a date and a tag", function()
    local response = get "/digits.txt"
    assert.same({ 200, "0123456789", "10", "text/plain; charset=utf-8", "bytes" },
      { response.status, response.body, response.headers["Content-Length"], response.headers["Content-Type"],
        response.headers["Accept-Ranges"] })
    assert.truthy(response.headers.ETag:find '^"%x+%-%x+%-a"$')
    assert.truthy(response.headers["Last-Modified"]:find "^%a%a%a, %d%d %a%a%a %d%d%d%d %d%d:%d%d:%d%d GMT$")
    assert.equal("text/css; charset=utf-8", get("/empty.css").headers["Content-Type"])
    assert.equal("", get("/empty.css").body)
    assert.equal("application/octet-stream", get("/odd.zzz").headers["Content-Type"])
    assert.equal("text/x-z", get("/packed/odd.zzz").headers["Content-Type"])
    assert.equal("odd name", get("/docs/a%20b%25.txt").body)
    assert.equal("0123456789", get("/inside").body)
  end)

  it("of a folder are its index, behind a slash", function()
    assert.equal("<p>index", get("/").body)
    assert.equal("<p>docs", get("/docs/").body)
    local response = get "/docs?a=b"
    assert.same({ 301, "/docs/?a=b" }, { response.status, response.headers.Location })
    assert.equal(404, get("/packed/").status)
    assert.equal(404, get("/packed/docs").status)
  end)

  for _, path in ipairs {
    "/none", "/../secret", "/docs/../../secret", "/%2e%2e/secret", "/..%2fsecret", "/.%2e/secret",
    "/docs/..%5c..%5csecret", "/out", "/absolute", "/up/secret", "/device", "/fifo",
    "/digits.txt%00.html", "/digits.txt/",
    "/digits.txt/x",
    "//docs", "/docs//index.html", "/./digits.txt", "/docs/.", "/.git/config", "/%2egit/config", "/%zz", "/%", "/%2",
    "/packed/..%2fsecret", "/packed/../secret", "/packed/%2e%2e/secret", "/packed//etc/passwd", "/%2fetc/passwd",
    "/" .. ("a"):rep(300),
  } do
    it("are not found outside of the folder, nor what is none: " .. path:sub(1, 40), function()
      local response = get(path)
      assert.equal(404, response.status)
      assert.is_nil(response.body:find "secret")
    end)
  end

  it("may be hidden, where that is asked for", function()
    assert.equal("hidden", get("/packed/.git/config").body)
  end)

  it("are read, and not written", function()
    for _, method in ipairs { "POST", "PUT", "DELETE", "OPTIONS" } do
      local response = client:request { method = method, path = "/digits.txt" }
      assert.same({ 405, "GET, HEAD" }, { response.status, response.headers.Allow })
      assert.equal(405, client:request({ method = method, path = "/one" }).status)
    end
    local head = client:request { method = "HEAD", path = "/digits.txt" }
    assert.same({ 200, "10", "" }, { head.status, head.headers["Content-Length"], head.body })
    assert.equal("0123456789", get("/digits.txt").body)
  end)

  describe("that a client has", function()
    it("are not sent again", function()
      local had = get("/digits.txt").headers
      for _, headers in ipairs {
        { ["If-None-Match"] = had.ETag }, { ["If-None-Match"] = '"x", W/' .. had.ETag }, { ["If-None-Match"] = "*" },
        { ["If-Modified-Since"] = had["Last-Modified"] },
        { ["If-Modified-Since"] = "Fri, 01 Jan 2100 00:00:00 GMT" },
      } do
        local response = get("/digits.txt", headers)
        assert.same({ 304, "", had.ETag }, { response.status, response.body, response.headers.ETag })
        assert.is_nil(response.headers["Content-Length"])
      end
    end)

    it("are sent where they have changed, or the condition says nothing", function()
      local had = get("/digits.txt").headers
      for _, headers in ipairs {
        { ["If-None-Match"] = '"x"' }, { ["If-Modified-Since"] = "Thu, 01 Jan 1970 00:00:00 GMT" },
        { ["If-Modified-Since"] = "yesterday" }, { ["If-Modified-Since"] = "Sun, 99 Nov 1994 08:49:37 GMT" },
        { ["If-None-Match"] = '"x"', ["If-Modified-Since"] = had["Last-Modified"] },
        { ["If-Match"] = had.ETag }, { ["If-Unmodified-Since"] = had["Last-Modified"] },
      } do
        assert.equal(200, get("/digits.txt", headers).status)
      end
    end)

    it("are refused to who wants another one", function()
      local had = get("/digits.txt").headers
      for _, headers in ipairs {
        { ["If-Match"] = '"x"' }, { ["If-Match"] = "W/" .. had.ETag },
        { ["If-Unmodified-Since"] = "Thu, 01 Jan 1970 00:00:00 GMT" },
      } do
        assert.equal(412, get("/digits.txt", headers).status)
      end
    end)
  end)

  describe("in ranges", function()
    for range, wanted in pairs {
      ["bytes=2-4"] = "234 2-4/10", ["bytes=7-"] = "789 7-9/10", ["bytes=-2"] = "89 8-9/10", ["bytes=0-0"] = "0 0-0/10",
      ["bytes=5-100"] = "56789 5-9/10", ["bytes=-100"] = "0123456789 0-9/10", ["Bytes= 1-1"] = "1 1-1/10",
    } do
      it("are sent: " .. range, function()
        local response = get("/digits.txt", { Range = range })
        assert.equal(206, response.status)
        assert.equal(wanted, response.body .. " " .. response.headers["Content-Range"]:match "^bytes (.*)$")
      end)
    end

    for _, range in ipairs { "bytes=4-2", "bytes=-", "bytes=a-b", "lines=1-2", "bytes=1-2,4-5", "bytes=1", "bytes=--1",
      "bytes=" .. ("9"):rep(30) .. "-" } do
      it("are whole where the range says nothing: " .. range:sub(1, 20), function()
        local response = get("/digits.txt", { Range = range })
        assert.same({ 200, "0123456789" }, { response.status, response.body })
      end)
    end

    it("are not had beyond their end", function()
      for _, range in ipairs { "bytes=10-", "bytes=99-100", "bytes=-0" } do
        local response = get("/digits.txt", { Range = range })
        assert.same({ 416, "bytes */10", "" }, { response.status, response.headers["Content-Range"], response.body })
      end
      assert.equal(416, get("/empty.css", { Range = "bytes=0-" }).status)
    end)

    it("are whole where the file has changed since", function()
      local had = get("/digits.txt").headers
      local function status(condition)
        return get("/digits.txt", { Range = "bytes=1-2", ["If-Range"] = condition }).status
      end
      assert.same({ 206, 206, 200, 200, 200 }, { status(had.ETag), status(had["Last-Modified"]), status '"x"',
        status("W/" .. had.ETag), status "Thu, 01 Jan 1970 00:00:00 GMT" })
      local head = client:request { method = "HEAD", path = "/digits.txt", headers = { Range = "bytes=1-2" } }
      assert.equal(200, head.status)
    end)
  end)

  it("that were compressed before are sent to who takes them", function()
    for accepted, wanted in pairs {
      ["gzip"] = "gzipped gzip", ["gzip, br"] = "brotli br", ["br;q=0, gzip"] = "gzipped gzip", ["*"] = "brotli br",
      ["gzip;q=0"] = "plain text of a script nil", ["identity"] = "plain text of a script nil",
      ["*;q=0, gzip;q=0.1"] = "gzipped gzip", ["GZIP; q=1.0"] = "gzipped gzip",
      ["br;q=0.5, gzip;q=0.8"] = "gzipped gzip", ["gzip;q=0.5, br;q=0.8"] = "brotli br",
      ["br;q=0.1, *"] = "gzipped gzip",
      ["gzip;q=0.5, br;q=0.5"] = "brotli br", ["gzip, br;q=0.999"] = "gzipped gzip",
    } do
      local response = get("/packed/page.js", { ["Accept-Encoding"] = accepted })
      assert.equal(wanted, response.body .. " " .. tostring(response.headers["Content-Encoding"]), accepted)
      assert.same({ "Accept-Encoding", "text/javascript; charset=utf-8", "b" },
        { response.headers.Vary, response.headers["Content-Type"], response.headers["X-A"] })
    end
    local plain, packed = get "/packed/page.js", get("/packed/page.js", { ["Accept-Encoding"] = "gzip" })
    assert.not_equal(plain.headers.ETag, packed.headers.ETag)
    assert.equal("png", get("/packed/picture.png", { ["Accept-Encoding"] = "gzip" }).body)
    assert.is_nil(get("/packed/picture.png").headers.Vary)
    local unpacked = get("/page.js", { ["Accept-Encoding"] = "gzip" })
    assert.same({ "plain text of a script" }, { unpacked.body, unpacked.headers.Vary })
  end)

  it("may be named by the script", function()
    local response = get "/one"
    assert.same({ "0123456789", "text/x-one", "max-age=60" },
      { response.body, response.headers["Content-Type"], response.headers["Cache-Control"] })
    assert.equal("12", get("/one", { Range = "bytes=1-2" }).body)
    assert.equal(304, get("/one", { ["If-None-Match"] = response.headers.ETag }).status)
    assert.equal(404, get("/gone").status)
  end)

  it("are opened for one request", function()
    assert.equal("0123456789", get("/twice").body)
    client:get "/twice"
    client:expect_closed()
    assert.truthy(memory.error_of(app):find("this file was sent already", 1, true))
  end)

  it("are sent in pieces, as the client takes them", function()
    local large = ("0123456789abcdef"):rep(65536)
    place:write("public/large.bin", large)
    client:stall():ask "/large.bin"
    app:advance "1s"
    client:unstall()
    assert.is_true(client:response().body == large)
    assert.is_true(get("/large.bin", { Range = "bytes=100000-900000" }).body == large:sub(100001, 900001))
    assert.equal("0123456789", get("/digits.txt").body)
  end)

  it("that become shorter meanwhile end the connection", function()
    place:write("public/shrinks.bin", ("x"):rep(1000000))
    client:stall():ask "/shrinks.bin"
    place:write("public/shrinks.bin", "x")
    client:unstall()
    client:expect_closed "error"
    assert.truthy(memory.error_of(app):find("the file has become shorter while it was sent: %d+ bytes are missing"))
  end)

  local function descriptors()
    local n = 0
    for _ in lfs.dir "/proc/self/fd" do n = n + 1 end
    return n
  end

  it("are closed when another response takes their place, at once", function()
    place:write("after.lua", [[
      local http = require "perilune.http"
      local api, site = http.router(), http.files("public")
      api:get("/changed", http.after(function(_, response)
        return response:with { status = 203, headers = { ["X-A"] = "b" } }
      end), function(request) return site(request, "/digits.txt") end)
      api:get("/replaced", http.after(function() return http.error(410) end),
        function(request) return site(request, "/digits.txt") end)
      api:get("/named", http.after(function() return "other" end), function() return http.file "public/digits.txt" end)
      return { listen = "http://127.0.0.1:0", agent = api }]])
    client = memory.open(place.folder .. "/after.lua"):connect()
    local changed = get "/changed"
    assert.same({ 203, "b", "0123456789" }, { changed.status, changed.headers["X-A"], changed.body })
    assert.equal("other", get("/named").body)
    local before = descriptors()
    for _ = 1, 5 do
      assert.equal(410, get("/replaced").status)
      assert.equal(before, descriptors())
    end
  end)

  it("are closed when the client leaves, at once", function()
    place:write("public/left.bin", ("x"):rep(1000000))
    client:get "/digits.txt"
    collectgarbage "stop"
    finally(function() collectgarbage "restart" end)
    local before = descriptors()
    for _ = 1, 10 do
      local other = app:connect():stall():ask "/left.bin"
      assert.equal(before + 1, descriptors())
      other:reset()
    end
    client:request { method = "HEAD", path = "/left.bin" }
    client:get("/left.bin", { ["If-None-Match"] = "*" })
    client:get("/left.bin", { Range = "bytes=9999999-" })
    assert.equal(before, descriptors())
  end)

  it("say what is wrong with their use", function()
    local lines = {}
    for line in get("/misuse").body:gmatch "[^\n]+" do lines[#lines + 1] = line end
    for i, why in ipairs {
      "http.file: expects a path, got nothing", "http.file: the path has `..` in it",
      "http.file: unknown option typ (did you mean \"type\"?)", "http.files: there is no folder",
      "http.files: index: expects a string, got 1", "the name of a header field is a word",
      "http.files: what it returns expects a request", "http.files: what it returns expects a path, got 1",
    } do
      assert.truthy(lines[i]:find(why, 1, true), lines[i])
    end
  end)
end)
