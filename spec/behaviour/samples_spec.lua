--- The samples of the pages about HTTP and WebSockets: each is put into a script that has what it leaves out, and is
--- asked. Those that are specifications run in spec/server/guide_spec.lua.
local lfs = require "lfs"
local memory = require "spec.support.memory"

local HEAD = 'local http, perilune = require "perilune.http", require "perilune"\n'
local API = HEAD .. "local api = http.router()\n"
local LISTEN = 'return { listen = "http://127.0.0.1:8081", agent = %s }'

-- In place of files: what is written is nowhere.
local NO_FILES = "local io = { open = function() return { write = function() end, close = function() end } end }\n"

local SIGNATURES, SPECIFICATION = "signatures", "specification" -- those are not run here

-- The sample as the top level of a script, before which and behind which stands more.
local function top(before, after) return function(sample) return before .. sample .. (after or "") end end

-- ... in a handler.
local function handler(before)
  return top(before .. "local Agent = {}\nfunction Agent:proceed(request)\n", "\nend\n" .. LISTEN:format "Agent")
end

local function status(app, ...) return app:connect():request(...).status end

local SAMPLES = {
  ["docs/http.md"] = {
    { top "", function(app)
      assert.equal("hello\n", app:connect():get("/").body)
      assert.equal("it", app:connect():get("/me", { ["User-Agent"] = "it" }):json().agent)
    end },
    { top(NO_FILES .. API .. 'local function may_write(r) return r.headers["X-Key"] end\n'), function(app)
      assert.equal(401, status(app, { method = "PUT", path = "/files/a", body = "x" }))
      assert.equal(201, status(app, { method = "PUT", path = "/files/a", body = "x", headers = { ["X-Key"] = "k" } }))
    end },
    { SIGNATURES },
    { handler(HEAD .. "local sum = 'x'\nlocal function rows() return ('1 2'):gmatch '%d' end\n"), function(app)
      local response = app:connect():get "/"
      assert.same({ "1\n2\n", "x" }, { response.body, response.trailers["X-Checksum"] })
    end },
    { handler(HEAD .. "local function news_since(n) return ipairs(n == 0 and { 'old', 'new' } or { 'new' }) end\n"),
      function(app)
        app:connect():ask("/"):expect_event { event = "news", id = "1", data = "old", retry = 5000 }
      end },
    { top(HEAD .. "local Agent = {}\n", LISTEN:format "Agent"), function(app)
      assert.equal(404, app:connect():get("/terms").status)
      assert.equal(200, app:connect():get("/http.md").status)
    end },
    { function(sample)
      local settings, route = sample:match "^(.-)\n\n(.*)$"
      local served = settings:gsub("^return", "local served =") .. "\nserved.agent = Agent and api\n"
      return API .. "local Agent = true\nlocal function report() return ('x'):rep(5000) end\n" .. route .. "\n"
        .. served .. "return served"
    end, function(app)
      assert.equal("gzip", app:connect():get("/report", { ["Accept-Encoding"] = "gzip" }).headers["Content-Encoding"])
    end },
    { SPECIFICATION },
  },
  ["docs/http-toolkit.md"] = {
    { top "", function(app)
      local response = app:connect():get "/users/7"
      assert.same({ '{"id":"7"}', "api" }, { response.body, response.headers.Server })
      assert.equal("the file a/b\n", app:connect():get("/files/a/b").body)
    end },
    { top(API, LISTEN:format "api"), function(app)
      local reader = app:connect():ask "/news"
      assert.equal(204, status(app, { method = "POST", path = "/news", body = "hi" }))
      reader:expect_event { data = "hi" }
    end },
    { top(API .. "local tenants = http.router():get('/', function() return 'tenant' end)\n", LISTEN:format "api"),
      function(app)
        assert.same({ "ann" }, app:connect():get("/admin/users"):json())
        assert.equal("tenant", app:connect():get("/", { Host = "a.example.org:8080" }).body)
      end },
    { top(API .. "local function report() return 'made' end\n", LISTEN:format "api"), function(app)
      assert.equal(401, app:connect():get("/report").status)
      assert.equal("made", app:connect():get("/report", { ["X-Key"] = "k" }).body)
      assert.equal("a report would be made", app:connect():get("/report?dry=1", { ["X-Key"] = "k" }).body)
    end },
    { top(API .. "local function store() return 7 end\n", LISTEN:format "api"), function(app)
      local user = { name = "Ann", tags = {}, address = { street = "x" } }
      local response = app:connect():request { method = "POST", path = "/users", body = user }
      assert.equal("/users/7", response.headers.Location)
      assert.equal(422, status(app, { method = "POST", path = "/users", body = { name = "" } }))
    end },
    { top(API .. [[
      local admin, os, password = http.router(), { getenv = function() return "secret" end }, "x"
      admin:get("/", function(request) return request.context.user end)
      api:namespace("/admin", admin)
    ]], 'return { listen = "http://:1", shared = { rates = "64k" }, agent = api }'), function(app)
      assert.equal(401, app:connect():get("/admin/").status)
      assert.equal(401, app:connect():get("/admin/", { Authorization = "Bearer secret" }).status) -- and no password
    end },
    { top(API, LISTEN:format "api"), function(app)
      app:connect():get "/counts"
      assert.equal(1, app:connect():get("/counts"):json()["GET /counts"]["2xx"])
    end },
    { top(API .. "local counts = perilune.shared 'counts'\napi:use(http.counted { shared = counts })\n",
      'return { listen = "http://:1", shared = { counts = "64k" }, agent = api }'), function(app)
      app:connect():get "/metrics"
      local text = app:connect():get("/metrics").body
      assert.truthy(text:find("perilune_http_2xx 1\n", 1, true), text)
      assert.truthy(text:find('perilune_route{route="GET /metrics",what="2xx"} 1.000\n', 1, true), text)
    end },
    { top(API .. "local new_secret, old_secret = ('n'):rep(16), ('o'):rep(16)\n", LISTEN:format "api"), function(app)
      local fields = app:connect():request({ method = "POST", path = "/login" }).headers
      local cookie = fields["Set-Cookie"]:match "user=[^;]*"
      assert.equal("ann", app:connect():get("/me", { Cookie = cookie }).body)
      assert.equal(401, app:connect():get("/me", { Cookie = "user=ann" }).status)
    end },
    { top(API .. "local function find(text) return text end\nlocal function keep() end\n", LISTEN:format "api"),
      function(app)
        local form = { ["Content-Type"] = "application/x-www-form-urlencoded" }
        assert.equal("a b", app:connect():request({ method = "POST", path = "/search", headers = form,
          body = "text=a+b" }).body)
        assert.equal(400, status(app, { method = "POST", path = "/upload", headers = form, body = "x" }))
      end },
    { function(sample)
      return NO_FILES .. HEAD .. "local function new_path() return 'x' end\nlocal Agent = {}\n"
        .. "function Agent:proceed(request)\n" .. sample .. "\nreturn parts and parts[1].filename or message .. code\n"
        .. "end\n" .. LISTEN:format "Agent"
    end, function(app)
      local body = '--b\r\nContent-Disposition: form-data; name="a"; filename="f.txt"\r\n\r\nhi\r\n--b--\r\n'
      assert.equal("f.txt", app:connect():request({ method = "POST", path = "/", body = body,
        headers = { ["Content-Type"] = "multipart/form-data; boundary=b" } }).body)
    end },
  },
  ["docs/websocket.md"] = {
    { top "", function(app) app:connect():websocket("/echo"):send("a"):expect "you said: a" end },
    { top(HEAD .. "local Site, Chat = {}, { proceed = function(_, text) return text end }\n", LISTEN:format "Site"),
      function(app)
        assert.equal(404, app:connect():get("/").status)
        app:connect():websocket("/chat", { origin = "https://example.org" }):send("a"):expect "a"
      end },
    { top("local Echo = {}\n", 'return { listen = "ws://:1", agent = Echo }'), function(app)
      app:connect():websocket("/"):send("a"):expect("a"):send("b", "binary"):expect_binary "b"
    end },
    { top("local Export = {}\nlocal function rows() return ('1 2 3'):gmatch '%d' end\n",
      'return { listen = "ws://:1", agent = Export }'),
      function(app) app:connect():websocket("/"):send("a"):expect "123" end },
    { handler(HEAD), function(app)
      assert.truthy(app:connect():get("/").body:find "^error: chat%.example:443: ")
    end },
    { SPECIFICATION },
  },
  ["docs/http-client.md"] = {
    { top "", function(app) assert.equal(502, app:connect():get("/").status) end },
    { SIGNATURES },
    { function(sample)
      return handler(HEAD .. "local token = 'x'\n")(sample .. "\nreturn why")
    end, function(app)
      local client = app:connect():ask "/"
      app:advance "10s"
      local body = client:response().body
      assert.truthy(body:find("api.example:443: connection refused", 1, true), body)
    end },
    { SIGNATURES }, -- whose certificate nobody has
    { function(sample)
      return handler(HEAD)("if request.path == '/export' then return ('x'):rep(1000) end\n" .. sample
        .. "return '' .. bytes")
    end, function(app) assert.equal("1000", app:connect():get("/").body) end },
    { function(sample)
      local before = "local io = { lines = function() return ('1 2'):gmatch '%d' end }\n"
      return handler(HEAD .. before)("if request.path == '/import' then perilune.log('info', request.body) return end\n"
        .. sample)
    end, function(app)
      app:connect():get "/"
      assert.equal(1, #app:log "1\n2\n")
    end },
    { top(API .. [[
      local backend = http.client { base = "http://127.0.0.1:8081/backend" }
      api:any("/backend/{name}", function(request)
        if request.method == "PUT" then return http.text(request.body, 201) end
        return "the file " .. request.params.name
      end)
    ]], 'return { listen = "http://127.0.0.1:8081", limits = { upload = "1m" }, agent = api }'), function(app)
      local response = app:connect():request { method = "PUT", path = "/files/a", body = "new" }
      assert.same({ 201, "new" }, { response.status, response.body })
      assert.equal("the file a", app:connect():get("/files/a").body)
    end },
    { SPECIFICATION },
  },
}

local function read(path)
  local file = assert(io.open(path))
  local text = file:read "*a"
  file:close()
  return text
end

for page, samples in pairs(SAMPLES) do
  describe("the samples of " .. page, function()
    after_each(memory.finish)

    local n = 0
    for sample in read(page):gmatch "\n```lua\n(.-\n)```" do
      n = n + 1
      local place, script, ask = n, unpack(samples[n] or {})
      if type(script) == "function" then
        it(("work: number %d"):format(n), function()
          local whole = script((sample:gsub('"public"', ("%q"):format(lfs.currentdir() .. "/docs"))))
          local app = assert(memory.script(whole))
          ask(app)
          assert.same({}, app:faults(), place)
        end)
      end
    end

    it("are all here", function() assert.equal(#samples, n) end)
  end)
end
