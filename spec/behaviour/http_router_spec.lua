--- Routers and middleware: which handler a request finds, and what is around it.
local http = require "perilune.http"
local memory = require "spec.support.memory"
local perilune = require "perilune.test"
local random = require "perilune.test.random"

local HERE = "http_router_spec.lua:%d+"

local function name(text)
  return function(request)
    local params = {}
    for key, value in pairs(request.params) do params[#params + 1] = key .. "=" .. value end
    table.sort(params)
    return text .. (params[1] and " " .. table.concat(params, " ") or "")
  end
end

local function ask(api, line, headers)
  local method, path = line:match "^(%u+) (.*)$"
  return perilune.respond(api, { method = method or "GET", path = path or line, headers = headers })
end

-- What each of the lines gets, by its body, or its status where that is not 200.
local function check(api, wanted)
  for line, body in pairs(wanted) do
    local response = ask(api, line)
    assert.equal(body, response.status == 200 and response.body or response.status, line)
  end
end

local function refusal(fn)
  local ok, message = pcall(fn)
  assert.is_false(ok)
  return message
end

describe("a router", function()
  it("finds routes by method and path", function()
    local api = http.router()
    for _, method in ipairs { "get", "post", "put", "patch", "delete", "head", "options" } do
      api[method](api, "/x", name(method))
    end
    api:on("PROPFIND", "/x", name "propfind"):any("/y", name "any"):get("/y", name "get y")
    check(api, { ["/x"] = "get", ["POST /x"] = "post", ["PUT /x"] = "put", ["PATCH /x"] = "patch",
      ["DELETE /x"] = "delete", ["OPTIONS /x"] = "options", ["PROPFIND /x"] = "propfind", ["BREW /y"] = "any",
      ["/y"] = "get y", ["BREW /x"] = 405, ["/"] = 404, ["/x/"] = 404, ["/X"] = 404 })
  end)

  it("has parameters of a segment, of a pattern, and of the rest", function()
    local api = http.router()
    api:get("/users/{id:%d+}", name "number")
    api:get("/users/{name}", name "name")
    api:get("/users/{name}/posts/{post}", name "post")
    api:get("/files/{rest*}", name "files")
    api:get("/odd/{x:[^}]+}/y", name "odd")
    check(api, { ["/users/7"] = "number id=7", ["/users/7a"] = "name name=7a", ["/users/"] = 404, ["/users"] = 404,
      ["/users/7/posts/1"] = "post name=7 post=1", ["/users/7/posts"] = 404, ["/users//posts/1"] = 404,
      ["/files/a/b"] = "files rest=a/b", ["/files/"] = "files rest=", ["/files"] = 404, ["/files//"] = "files rest=/",
      ["/odd/ab/y"] = "odd x=ab" })
  end)

  it("takes literals before patterns, these before any text, the rest last, and goes back", function()
    local api = http.router()
    api:get("/{a*}", name "rest")
    api:get("/{a}/c", name "any")
    api:get("/{a:%l+}/d", name "pattern")
    api:get("/b/e", name "literal")
    api:post("/b/{x}", name "post")
    check(api, { ["/b/e"] = "literal", ["/b/d"] = "pattern a=b", ["/b/c"] = "any a=b", ["/b/f"] = "rest a=b/f",
      ["/7/d"] = "rest a=7/d", ["/b"] = "rest a=b", ["/"] = "rest a=", ["POST /b/e"] = "post x=e",
      ["POST /b/c"] = "post x=c", ["POST /7"] = 405 })
  end)

  it("decodes percent signs, and a slash among them does not split", function()
    local api = http.router()
    api:get("/a/{x}", name "x"):get("/a%2Fb", name "slash"):get("/caf\195\169/{x}", name "caf")
    api:get("/r/{x*}", name "rest")
    check(api, { ["/a/b%2Fc%20d"] = "x x=b/c d", ["/%61/b"] = "x x=b", ["/a%2fb"] = "slash", ["/a%2Fb"] = "slash",
      ["/caf%C3%A9/%7b"] = "caf x={", ["/r/%61/b"] = "rest x=a/b", ["/a/b+c"] = "x x=b+c", ["/a/%"] = 400,
      ["/a/%4"] = 400, ["/a/%zz"] = 400 })
  end)

  it("answers HEAD by the route of GET, or by its own", function()
    local api = http.router()
    api:get("/x", name "get"):get("/y/{a}", function() return http.text("y", 201) end)
    api:head("/z", function() return http.text("", 202) end):get("/z", name "get")
    for path, status in pairs { ["/x"] = 200, ["/y/1"] = 201, ["/z"] = 202, ["/w"] = 404 } do
      local response = ask(api, "HEAD " .. path)
      assert.same({ status, "" }, { response.status, response.body })
    end
  end)

  it("answers OPTIONS, and 405 with the methods that there are, sorted", function()
    local api = http.router()
    api:put("/x/{a}", name "put"):get("/x/b", name "get"):delete("/{all*}", name "delete"):post("/p", name "post")
    local options = ask(api, "OPTIONS /x/b")
    assert.same({ 204, "DELETE, GET, HEAD, OPTIONS, PUT" }, { options.status, options.headers.Allow })
    local response = ask(api, "PATCH /p")
    assert.same({ 405, "DELETE, OPTIONS, POST" }, { response.status, response.headers.Allow })
    assert.same({ error = "Method Not Allowed", description = "this path has DELETE, OPTIONS, POST" }, response:json())
    assert.equal(204, ask(api, "OPTIONS *").status)
  end)

  it("says 404, also in the midst of a path, or what not_found says", function()
    local api = http.router()
    api:get("/a/b/c", name "c")
    assert.same({ error = "Not Found", description = "there is nothing at this path" }, ask(api, "/a/b"):json())
    assert.equal(404, ask(api, "POST /a").status)
    local other = http.router()
    other:get("/a", name "a"):not_found(function(request) return http.text(request.path, 404) end)
    assert.equal("/b", ask(other, "/b").body)
    assert.equal(405, ask(other, "POST /a").status)
  end)

  it("tells the pattern", function()
    local api, seen = http.router(), {}
    api:use(http.after(function(request) seen[#seen + 1] = request.route or "none" end))
    api:get("/a", name "a"):get("/a/{id:%d+}", name "id")
    for _, path in ipairs { "/a", "/a/1", "/b" } do ask(api, path) end
    assert.same({ "/a", "/a/{id:%d+}", "none" }, seen)
  end)

  it("agrees with a plain search through all of its routes", function()
    local numbers = random.new(7)
    local SEGMENTS = { "a", "b", "{p}", "{p:a+}", "{r*}" }
    local RANKS = { a = 1, b = 1, ["{p:a+}"] = 2, ["{p}"] = 3, ["{r*}"] = 4 }
    local function better(one, other)
      for i = 1, math.max(#one, #other) do
        local x, y = RANKS[one[i]] or 0, RANKS[other[i]] or 0
        if x ~= y then return x < y end
      end
    end
    for _ = 1, 60 do
      local api, all = http.router(), {}
      for _ = 1, 12 do
        local route = {}
        for i = 1, numbers:next(4) do
          route[i] = SEGMENTS[numbers:next(i == 1 and 4 or 5)]
          if route[i] == "{r*}" then break end
        end
        local text, n = "", 0
        for _, segment in ipairs(route) do
          n = n + 1
          text = text .. "/" .. segment:gsub("^{%l", "%0" .. n)
        end
        route.text = text
        if pcall(api.get, api, text, function() return text end) then all[#all + 1] = route end
      end
      for _ = 1, 40 do
        local path, segments = "", {}
        for i = 1, numbers:next(4) do
          segments[i] = ({ "a", "b", "aa", "c" })[numbers:next(4)]
          path = path .. "/" .. segments[i]
        end
        local best
        for _, route in ipairs(all) do
          local fits = #route == #segments or route[#route] == "{r*}" and #segments >= #route
          for i, segment in ipairs(route) do
            local is = segments[i]
            fits = fits and is and (segment == "{r*}" or segment == "{p}" or segment == is
              or segment == "{p:a+}" and is:find "^a+$") and true or false
          end
          if fits and (not best or better(route, best)) then best = route end
        end
        local response = ask(api, path)
        assert.equal(best and best.text or 404, response.status == 200 and response.body or response.status, path)
      end
    end
  end)

  describe("refuses at load", function()
    local api
    before_each(function()
      api = http.router()
      api:get("/users/{id}", name "id")
    end)

    for text, case in pairs {
      ["/users/{name}\" is there already as /users/{id}: .*" .. HERE]
        = function() api:get("/users/{name}", name "") end,
      ["/users/{id}\" is there already: .*" .. HERE] = function() api:get("/users/{id}", name "") end,
      ["/users/{x:.+}\" is there already as"] = function() api:get("/users/{x:.+}", name "") end,
      ["does not begin with a slash"] = function() api:get("users", name "") end,
      ["expects a path such as"] = function() api:get(nil, name "") end,
      ["expects a handler, function%(request%), got nothing"] = function() api:get "/x" end,
      ["got 7"] = function() api:get("/x", 7) end,
      ["a route has one handler, which comes last; for what goes before it write http.before"] = function()
        api:get("/x", name "", name "")
      end,
      ["got a function: http.cors is called, as in http.cors%(…%)"] = function() api:get("/x", http.cors, name "") end,
      ["got a function: http.compress is called"] = function() api:use(http.compress) end,
      ["middleware comes first, as in router:post%(path, http.cors { … }, handler%)"] = function()
        api:post("/x", name "", http.cors())
      end,
      ["middleware stands in front of a handler, which is missing"] = function() api:get("/x", http.cors()) end,
      ["got a table: http.json%(http.schema { … }%) checks the body"] = function()
        api:post("/x", http.json { name = "string" }, name "")
      end,
      ["in front of the handler"] = function() api:post("/x", name "", http.json { name = "string" }) end,
      ["got \"hello\": write function%(request%) return … end"] = function() api:get("/x", "hello") end,
      ["http.cors: an option has a name, as in { credentials = … }; it has"] = function()
        http.cors { "https://a.example" }
      end,
      ["options: expects a table such as { credentials = … }, got \"%*\""] = function() http.cors "*" end,
      ["http.response: unknown key code %(it is called status%)"] = function() http.response { code = 200 } end,
      ["unknown key header %(did you mean \"headers\"%?%); it has"] = function() http.response { header = {} } end,
      ["{a}.json: a parameter is a whole segment"] = function() api:get("/{a}.json", name "") end,
      ["has v{a}: a parameter is a whole segment"] = function() api:get("/v{a}/b", name "") end,
      ["has {a twice"] = function() api:get("/{a", name "") end,
      ["has {a} twice"] = function() api:get("/{a}/{a}", name "") end,
      ["has {a%*} in its midst"] = function() api:get("/{a*}/b", name "") end,
      ["has {2}: a parameter's name"] = function() api:get("/{2}", name "") end,
      ["expects {name}, {name:%%d%+} or {name%*}"] = function() api:get("/{a?}", name "") end,
      ["has no valid Lua pattern"] = function() api:get("/{a:[}", name "") end,
      ["anchored already"] = function() api:get("/{a:^%d+}", name "") end,
      ["write %%25"] = function() api:get("/100%", name "") end,
      ["has a blank, %? or #"] = function() api:get("/a?b=1", name "") end,
      ["the namespace /admin of .*" .. HERE .. " has all that is below it"] = function()
        api:namespace("/admin", http.router()):get("/admin/{x}", name "")
      end,
      ["takes all requests of the route /users/{id} of .*" .. HERE] = function()
        api:namespace("/users", http.router())
      end,
      ["\"/admin\" is there already: .*" .. HERE] = function()
        api:namespace("/admin", http.router()):namespace("/admin", http.router())
      end,
      ["has parameters, and a namespace's prefix has none"] = function() api:namespace("/{a}", http.router()) end,
      ["ends in a slash"] = function() api:namespace("/a/", http.router()) end,
      ["expects a router or a function%(request%), got a table"] = function() api:namespace("/a", {}) end,
      ["a router cannot hold itself"] = function() api:namespace("/a", api) end,
      ["without a port, got \"a.b:80\""] = function() api:host("a.b:80", http.router()) end,
      ["a.b is there already: .*" .. HERE] = function() api:host("A.b", http.router()):host("a.b", http.router()) end,
      ["router.get%(…%) must be router:get"] = function() api.get("/x", name "") end,
      ["expects a method such as"] = function() api:on("GE T", "/x", name "") end,
      ["there is a handler already"] = function() api:not_found(name ""):not_found(name "") end,
      ["router:use: expects middleware"] = function() api:use(name "") end,
      ["http.before: expects function%(request%), got nothing"] = function() http.before() end,
      ["http.when: expects middleware"] = function() http.when(name "", name "") end,
    } do
      it(text, function()
        if text == "has {a twice" then text = "has {a: a parameter is a whole segment" end
        local message = refusal(case)
        assert.truthy(message:find(HERE .. ": "), message)
        assert.truthy(message:find(text), message)
      end)
    end

    it("routes that come after the first request", function()
      ask(api, "/users/7")
      assert.truthy(refusal(function() api:get("/x", name "") end):find("a router is whole when", 1, true))
    end)
  end)

  describe("hands requests to others", function()
    it("by a prefix, which it strips; the longest wins", function()
      local api, admin, reports = http.router(), http.router(), http.router()
      local function tell(request)
        return ("%s %s %s"):format(request.path, request.route, request.params.id or "")
      end
      admin:get("/", tell):get("/{id}", tell)
      reports:get("/{id}", tell)
      api:get("/{any*}", name "outer"):namespace("/admin", admin):namespace("/admin/reports", reports)
      api:namespace("/fn", function(request) return request.path end)
      check(api, { ["/admin"] = "/ /admin/ ", ["/admin/"] = "/ /admin/ ", ["/admin/7"] = "/7 /admin/{id} 7",
        ["/admin/reports/7"] = "/7 /admin/reports/{id} 7", ["/admin/reports/7/8"] = 404, ["/admin/x/y"] = 404,
        ["/%61dmin/7"] = "/7 /admin/{id} 7", ["/administrator"] = "outer any=administrator", ["/fn/a/b"] = "/a/b",
        ["/fn"] = "/", ["POST /admin/7"] = 405 })
    end)

    it("and puts the path back for who looks at it afterwards", function()
      local api, admin, seen = http.router(), http.router(), nil
      admin:get("/x", name "x")
      api:namespace("/a", admin):use(http.after(function(request) seen = request.path .. " " .. request.route end))
      ask(api, "/a/x")
      assert.equal("/a/x /a/x", seen)
    end)

    it("by a host, whatever its port", function()
      local api = http.router()
      local function of(text) return http.router():get("/", name(text)) end
      api:get("/", name "plain"):host("api.example.org", of "api"):host("*.example.org", of "below")
      api:host("*.dev.example.org", of "dev"):host("[::1]", of "v6")
      for host, text in pairs { ["api.example.org"] = "api", ["API.example.org:8443"] = "api",
        ["api.example.org."] = "api", ["x.example.org"] = "below", ["a.b.example.org:80"] = "below",
        ["a.dev.example.org"] = "dev", ["example.org"] = "plain", ["xexample.org"] = "plain", ["[::1]:80"] = "v6" } do
        assert.equal(text, ask(api, "/", { Host = host }).body, host)
      end
    end)
  end)
end)

describe("a router's routes to what others make", function()
  -- What they are handed is of interest here, and not what they make of it.
  local function with(key, fn, test)
    local before = rawget(http, key)
    rawset(http, key, fn)
    local ok, message = pcall(test)
    rawset(http, key, before)
    assert(ok, message)
  end

  it("are files below a prefix, whose path is handed on as it was sent", function()
    local folders = {}
    local function files(folder, options)
      if folder == "none" then error("http.files: there is no folder none", 2) end
      folders[#folders + 1] = { folder, options }
      return function(_, path) return "file " .. path end
    end
    with("files", files, function()
      local api = http.router():get("/x", name "x"):files("/", "public"):files("/a/b/", "more", { index = false })
      check(api, { ["/x"] = "x", ["/"] = "file ", ["/c%2Fd/e"] = "file c%2Fd/e", ["/a/b/c%20d"] = "file c%20d",
        ["/%61/b/c/d"] = "file c/d", ["HEAD /a/b/"] = "", ["POST /a/b/"] = 405 })
      assert.same({ { "public" }, { "more", { index = false } } }, folders)
      local static = http.router():get("/own", name "own"):files("/own", "x")
      static:files("/other", "x"):any("/other", name "any")
      static:files("/static/a", "x")
      check(static, { ["/own"] = "own", ["/own/"] = "file ", ["/other"] = "any", ["/static"] = 404,
        ["/static/a"] = 301 })
      local response = perilune.respond(http.router():namespace("/v1", static), { path = "/v1/static/a?b=1" })
      assert.equal("/v1/static/a/?b=1", response.headers.Location)
      local message = refusal(function() api:namespace("/n", http.router():files("/", "none")) end)
      assert.truthy(message:find(HERE .. ": http.files: there is no folder none"), message)
    end)
  end)

  it("are WebSockets, which pass what is around them as they are", function()
    local accepted, seen = setmetatable({}, { __metatable = "http.websocket" }), {}
    with("websocket", function(agent, options) return agent == "A" and options == "O" and accepted end, function()
      local api = http.router():use(http.counted(), http.request_id())
      api:use(http.after(function() seen[#seen + 1] = "after" end))
      api:use(http.logged { format = function(_, response) return tostring(response.status) end,
        to = function(line) seen[#seen + 1] = line end })
      api:websocket("/chat", "A", "O")
      local agent = setmetatable({}, { __index = api })
      assert.equal(accepted, agent:proceed(perilune.request { path = "/chat" }))
      assert.same({ "426" }, seen) -- this request asks for none
    end)
  end)
end)

describe("middleware", function()
  it("runs in order, the first outermost, and the first that answers ends it", function()
    local api, order = http.router(), {}
    local function step(text, reply)
      return http.before(function()
        order[#order + 1] = text
        return reply
      end)
    end
    local function after(text) return http.after(function() order[#order + 1] = text end) end
    api:use(step "1", after "6"):use(step "2")
    api:get("/", step "3", after "5", function()
      order[#order + 1] = "4"
      return "x"
    end)
    api:get("/stop", step("3", "stopped"), step "never", name "never")
    assert.equal("x", ask(api, "/").body)
    assert.equal("123456", table.concat(order))
    order = {}
    assert.equal("stopped", ask(api, "/stop").body)
    assert.equal("1236", table.concat(order))
    order = {}
    ask(api, "/nowhere")
    assert.equal("126", table.concat(order))
  end)

  it("may change the response, and what it is called with", function()
    local api = http.router()
    api:get("/with", http.after(function(_, response)
      return response:with { status = 201, headers = { ["X-A"] = "1", ["content-type"] = "text/x", Gone = false } }
    end), function()
      return http.response { headers = { Gone = "1", ["Content-Type"] = "text/y", B = { "1", "2" } } }
    end)
    api:get("/around", http.around(function(_, next_handler) return next_handler "value" .. "!" end),
      function(_, value) return value end)
    local response = ask(api, "/with")
    assert.same({ 201, "1", "text/x", "1, 2" },
      { response.status, response.headers["x-a"], response.headers["Content-Type"], response.headers.b })
    assert.is_nil(response.headers.Gone)
    assert.equal("value!", ask(api, "/around").body)
  end)

  it("sees each response as one", function()
    local api, seen = http.router(), {}
    api:use(http.after(function(_, response)
      seen[#seen + 1] = ("%d %s %s"):format(response.status, response.headers["content-type"] or "-", response.body)
    end))
    api:get("/text", name "a"):get("/table", function() return { 1 } end):get("/nil", function() end)
    api:get("/number", function() return 7 end)
    for _, path in ipairs { "/text", "/table", "/nil", "/number" } do ask(api, path) end
    assert.same({ "200 text/plain; charset=utf-8 a", "200 application/json [1]", "204 - ",
      "200 text/plain; charset=utf-8 7" }, seen)
  end)

  it("is one or the other", function()
    local api = http.router()
    local function say(text) return http.before(function() return text end) end
    local function is_admin(request) return request.args.admin == "1" end
    api:get("/both", http.when(is_admin, say "yes", say "no"), name "never")
    api:get("/one", http.when(is_admin, say "yes"), name "plain")
    check(api, { ["/both?admin=1"] = "yes", ["/both"] = "no", ["/one?admin=1"] = "yes", ["/one"] = "plain" })
  end)

  it("has a table for what it knows of the request", function()
    local api = http.router()
    api:use(http.before(function(request) request.context.user = request.args.user end))
    api:get("/", function(request) return request.context.user or "nobody" end)
    check(api, { ["/?user=ann"] = "ann", ["/"] = "nobody" })
  end)
end)

describe("a response", function()
  it("has its headers, and is copied with others", function()
    local response = http.json({ 1 }, 201, { Location = "/a" })
    assert.same({ "/a", "application/json" }, { response.headers.location, response.headers["Content-Type"] })
    local other = response:with { headers = { Location = "/b", Connection = "close" } }
    assert.same({ "/a", "/b", 201, "[1]" },
      { response.headers.Location, other.headers.Location, other.status, other.body })
  end)

  for text, changes in pairs {
    ["response:with: unknown key body"] = { body = "x" },
    ["a 204 has no body"] = { status = 204 },
    ["header field X: its value has a control character"] = { headers = { X = "a\r\nb" } },
    ["Content%-Length: it is made from the body"] = { headers = { ["Content-Length"] = false } },
    ["a status is a whole number"] = { status = 99 },
  } do
    it("refuses: " .. text, function()
      local message = refusal(function() http.text("x"):with(changes) end)
      assert.truthy(message:find("^.*" .. HERE .. ": ") and message:find(text), message)
    end)
  end
end)

describe("a router as an agent", function()
  local FIXTURE = "spec/behaviour/fixtures/router.lua"
  after_each(memory.finish)

  it("has a state for each connection", function()
    local app = memory.open(FIXTURE)
    local client = app:connect { from = "10.0.0.7:5060" }
    assert.same({ seen = 1, peer = "10.0.0.7:5060" }, client:get("/seen"):json())
    assert.equal(2, client:get("/seen"):json().seen)
    assert.equal(1, app:connect():get("/seen"):json().seen)
  end)

  it("has namespaces and hosts, and its middleware is around them", function()
    local client = memory.open(FIXTURE):connect()
    local response = client:get "/admin/users/7"
    assert.same({ path = "/users/7", id = "7" }, response:json())
    assert.equal("/admin/users/{id}", response.headers["X-Route"])
    assert.equal("tenant a.example.org", client:get("/", { Host = "a.example.org" }).body)
    response = client:get("/admin/users/7", { ["X-Stop"] = "1" })
    assert.same({ 403, "stopped" }, { response.status, response.body })
  end)

  it("waits in handlers and in middleware", function()
    local app = memory.open(FIXTURE)
    local client = app:connect()
    client:ask("/slow/1"):ask("/slow_before"):ask("/slow/2")
    client:expect_nothing()
    app:advance "1s"
    assert.equal("1", client:response().body)
    app:advance "1s"
    assert.equal("late", client:response().body)
    app:advance "1s"
    assert.equal("2", client:response().body)
  end)

  it("says 500 as JSON where a handler or middleware fails, and that connection ends", function()
    local app = memory.open(FIXTURE)
    for path, why in pairs { ["/boom"] = "boom", ["/boom_before"] = "in middleware", ["/wrong"] = "no such user",
      ["/late_route"] = "a router is whole when the first request comes" } do
      local client = app:connect()
      local response = client:get(path)
      assert.same({ error = "Internal Server Error", description = "the handler has failed" }, response:json())
      assert.equal(500, response.status)
      client:expect_closed "error"
      local faults = app:faults()
      assert.truthy(faults[#faults].error:find(why, 1, true), faults[#faults].error)
      assert.equal(#faults, app:counters().http_500)
    end
  end)

  it("names the handler whose line is not on the stack any more, and nothing of ours", function()
    local app = assert(memory.script [[
      local http = require "perilune.http"
      local api = http.router():use(http.before(function() end))
      api:get("/a", function() return http.response { stauts = 201 } end)
      api:get("/b", http.request_id(), function() return { f = print } end)
      api:get("/c", function() return true end)
      api:get("/d", function() return 201, { a = 1 } end)
      api:get("/e", function()
        return string.rep()
      end)
      api:any("/f/{x}", function(request)
        if request.args.x then return "", {} end
        return "", {}
      end)
      return { listen = "http://127.0.0.1:0", agent = http.router():namespace("/v1", api) }
    ]])
    for _, path in ipairs { "/a", "/b", "/c", "/d", "/e", "/f/1" } do
      app:connect():send(("GET /v1%s HTTP/1.1\r\nHost: x\r\n\r\n"):format(path))
    end
    local places = {}
    for i, fault in ipairs(app:faults()) do
      assert.is_nil(fault.excerpt:find("lua/perilune", 1, true))
      places[i] = fault.place
    end
    assert.same({ "app.lua:3", "app.lua:4", "app.lua:5", "app.lua:6", "app.lua:8",
      "the handler of GET /v1/f/{x}, defined at app.lua:10" }, places)
    assert.truthy(app:faults()[1].excerpt:find("in the handler of GET /v1/a", 1, true))
    assert.equal("bad argument to what is called at a return (string expected, got no value)", app:faults()[5].error)
  end)

  it("is told apart from an app, and a handler from what makes agents", function()
    local _, message = memory.script 'return require("perilune.http").router():get("/", print)'
    assert.truthy(message:find('this is a router: return { listen = "http://127.0.0.1:8080", agent = api }', 1, true))
    local app = memory.script 'return { listen = "http://127.0.0.1:0", agent = function(request) return "x" end }'
    app:connect():send "GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    assert.truthy(app:faults()[1].error:find("a function that is called with requests is a handler", 1, true))
  end)

  it("closes where the handler says so, and answers 204 for nothing", function()
    local client = memory.open(FIXTURE):connect()
    assert.equal(204, client:get("/nothing").status)
    assert.equal("close", client:get("/bye").headers.Connection)
    client:expect_closed "agent"
  end)
end)
