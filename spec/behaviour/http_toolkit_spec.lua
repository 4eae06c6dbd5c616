--- What stands around handlers: schemas, cookies, forms, who may come in, what is told.
local http = require "perilune.http"
local memory = require "spec.support.memory"
local perilune = require "perilune.test"
local random = require "perilune.test.random"

local core = require "perilune"

local HERE = "http_toolkit_spec.lua:%d+: "

local function refusal(fn)
  local ok, message = pcall(fn)
  assert.is_false(ok)
  assert.truthy(message:find(HERE), message)
  return message
end

local function refuses(cases)
  for text, fn in pairs(cases) do
    local message = refusal(fn)
    assert.truthy(message:find(text, 1, true), message)
  end
end

-- A router of one route at "/", behind this.
local function behind(...)
  local api = http.router()
  local steps = { ... }
  steps[#steps + 1] = function(request, value) return value or request.context.user or "ok" end
  return api:any("/", unpack(steps))
end

local function ask(api, headers, options)
  options = options or {}
  options.headers = headers
  return perilune.respond(api, options)
end

describe("http.schema", function()
  local function check(spec, value, options) return select(2, http.schema(spec, options):check(value)) end

  it("names the field and says what is expected", function()
    local spec = { name = "string", age = "integer?", tags = { "string" },
      address = { street = "string", no = "integer" } }
    local function user(change)
      local value = { name = "Ann", tags = { "a" }, address = { street = "x", no = 1 } }
      change(value)
      return check(spec, value)
    end
    for message, change in pairs {
      ["name: is missing"] = function(v) v.name = nil end,
      ["name: a string is expected, got 5"] = function(v) v.name = 5 end,
      ["age: a whole number is expected, got 1.5"] = function(v) v.age = 1.5 end,
      ["tags: a list is expected, got \"a\""] = function(v) v.tags = "a" end,
      ["tags[2]: a string is expected, got true"] = function(v) v.tags = { "a", true } end,
      ["address.street: a string is expected, got 5"] = function(v) v.address.street = 5 end,
      ["address: an object is expected, got a list"] = function(v) v.address = { "a" } end,
      ["address.no: is missing"] = function(v) v.address.no = core.json.null end,
      ["name: a string is expected, got an object"] = function(v) v.name = { a = 1 } end,
      ["nmae: unknown field (did you mean \"name\"?)"] = function(v) v.nmae = 1 end,
      ["address.zip: unknown field"] = function(v) v.address.zip = 1 end,
    } do
      assert.equal(message, user(change))
    end
    assert.equal('nmae: unknown field (did you mean "name"?)', user(function(v) v.name, v.nmae = nil, "Ann" end))
    assert.is_nil(user(function(v) v.age = core.json.null end))
    assert.is_nil(user(function(v) v.tags = {} end))
    assert.equal("an object is expected, got 5", check(spec, 5))
  end)

  it("has ranges, enums, optional fields, functions, and schemas within schemas", function()
    local Color = http.schema "enum(red, green)"
    local function even(n) return type(n) == "number" and n % 2 == 0, "an even number is expected" end
    local spec = { s = "string(2..3)?", n = "number(..1.5)?", i = "integer(0..)?", e = Color, ["o?"] = { a = "any" },
      l = { "integer", min = 1, max = 2 }, ["f?"] = even, ["b?"] = "boolean" }
    for message, value in pairs {
      ["s: a string from 2 to 3 bytes is expected, got \"a\""] = { e = "red", l = { 1 }, s = "a" },
      ["n: a number of 1.5 at most is expected, got 2"] = { e = "red", l = { 1 }, n = 2 },
      ["i: a whole number of 0 or more is expected, got -1"] = { e = "red", l = { 1 }, i = -1 },
      ["e: one of \"red\", \"green\" is expected, got \"blue\""] = { e = "blue", l = { 1 } },
      ["o.a: is missing"] = { e = "red", l = { 1 }, o = { b = 1 } },
      ["l: a list from 1 to 2 items is expected, got 3 items"] = { e = "red", l = { 1, 2, 3 } },
      ["l: a list from 1 to 2 items is expected, got 0 items"] = { e = "red", l = {} },
      ["f: an even number is expected"] = { e = "red", l = { 1 }, f = 3 },
      ["b: true or false is expected, got 0"] = { e = "red", l = { 1 }, b = 0 },
    } do
      assert.equal(message, check(spec, value))
    end
    local value = { e = "green", l = { 1LL, 2 }, s = "ab", n = -1, i = 0, o = { a = false }, f = 2, b = false }
    assert.equal(value, (http.schema(spec):check(value)))
  end)

  it("refuses, drops or keeps unknown fields", function()
    local value = { a = 1, b = 2, c = { d = 1 } }
    local spec = { a = "integer", c = { ["d?"] = "integer" } }
    assert.equal("b: unknown field", check(spec, value))
    assert.is_nil(check(spec, value, { unknown = "keep" }))
    assert.equal(2, value.b)
    value.c.e = 1
    assert.is_nil(check(spec, value, { unknown = "drop" }))
    assert.same({ a = 1, c = { d = 1 } }, value)
  end)

  it("refuses what is no schema, where it is made", function()
    local endless = {}
    endless.a = endless
    refuses {
      ['name: expects a type such as "string", "integer(0..)?" or "enum(red, green)", got "strnig" (did you mean']
        = function() http.schema { name = "strnig" } end,
      ["a.b[]: expects a type"] = function() http.schema { a = { b = { "x" } } } end,
      ["a: string (2) is no range"] = function() http.schema { a = "string(2)" } end,
      ["a: integer (9..1) is no range"] = function() http.schema { a = "integer(9..1)" } end,
      ["a: boolean has no bounds"] = function() http.schema { a = "boolean(1..2)" } end,
      ["a: enum lists its texts"] = function() http.schema { a = "enum" } end,
      ["a: a list has one schema, and min, max: unknown key [2]"]
        = function() http.schema { a = { "string", "any" } } end,
      ["a: min: expects a whole number, got -1"] = function() http.schema { a = { "string", min = -1 } } end,
      ["a: expects a type, a table of fields"] = function() http.schema { a = 5 } end,
      ["has \"a\" twice"] = function() http.schema { a = "any", ["a?"] = "any" } end,
      ["is nested too deep, or within itself"] = function() http.schema(endless) end,
      ["unknown option unkown"] = function() http.schema({}, { unkown = "keep" }) end,
      ["unknown: expects"] = function() http.schema({}, { unknown = "x" }) end,
    }
  end)
end)

describe("http.json(schema)", function()
  local api
  before_each(function() api = behind(http.json(http.schema { name = "string" })) end)

  local function post(body, headers)
    headers = headers or { ["Content-Type"] = "application/json" }
    return ask(api, headers, { method = "POST", body = body })
  end

  it("hands the handler what was checked", function()
    assert.same({ name = "Ann" }, post('{"name":"Ann"}'):json())
    assert.equal(200, post('{"name":"Ann"}', { ["Content-Type"] = "Application/problem+JSON; charset=utf-8" }).status)
  end)

  it("says 400 where the body is none, and where", function()
    assert.same({ error = "Bad Request", description = "the body is no JSON: a value is expected at byte 9" },
      post('{"name":}'):json())
    assert.equal(400, post("").status)
  end)

  it("says 415, 406 and 422", function()
    for _, kind in ipairs { "text/plain", "application/x-www-form-urlencoded", "application/jsonx", "text/json" } do
      assert.equal(415, post("{}", { ["Content-Type"] = kind }).status)
    end
    assert.equal(415, post("{}", {}).status)
    assert.same({ error = "Unprocessable Content", description = "name: is missing" }, post("{}"):json())
    for accept, status in pairs { ["*/*"] = 200, ["application/*"] = 200, ["text/html"] = 406, [""] = 200,
      ["text/html, application/json;q=0.1"] = 200, ["application/json;q=0"] = 406,
      ["application/json; q=0.0, */*"] = 406,
      ["*/*;q=0, application/json"] = 200, ["APPLICATION/JSON"] = 200 } do
      local headers = { Accept = accept, ["Content-Type"] = "application/json" }
      assert.equal(status, post('{"name":"a"}', headers).status, accept)
    end
  end)

  it("takes nothing besides", function()
    refuses { ["with a schema it takes nothing else"] = function() http.json(http.schema {}, 200) end }
  end)
end)

describe("cookies", function()
  it("are read", function()
    local request = perilune.request { headers = { Cookie = 'a=1; b="x y";c; =d; a=2; e==f;  g = h ' } }
    assert.same({ a = "1", b = "x y", e = "=f", g = "h" }, request.cookies)
    assert.same({}, perilune.request({}).cookies)
    local blanks = (" "):rep(15000)
    assert.same({ a = "x" .. blanks .. "y", b = "" }, perilune.request({
      headers = { Cookie = "a=" .. blanks .. "x" .. blanks .. "y" .. blanks .. ";b=" .. blanks } }).cookies)
  end)

  it("are written", function()
    assert.equal("a=1; Path=/; HttpOnly; SameSite=Lax", http.cookie("a", 1))
    assert.equal("a=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax", http.cookie "a")
    assert.equal("a=b; Path=/x; Domain=example.org; Max-Age=3600; Secure; SameSite=None; Partitioned",
      http.cookie("a", "b", { path = "/x", domain = "example.org", max_age = "1h", secure = true, http_only = false,
        same_site = "none", partitioned = true }))
    assert.equal("a=b", http.cookie("a", "b", { path = false, same_site = false, http_only = false }))
    assert.equal("__Host-a=b; Path=/; Secure; HttpOnly; SameSite=Strict",
      http.cookie("__Host-a", "b", { secure = true, same_site = "Strict" }))
  end)

  it("are refused where browsers would", function()
    refuses {
      ["the name is a word"] = function() http.cookie("a b", "c") end,
      ["the value has \";\" at byte 2, which no cookie has: encode it"] = function() http.cookie("a", "b; Path=/x") end,
      ["the value has \" \" at byte 2"] = function() http.cookie("a", "b c") end,
      ["the value has \",\" at byte 1"] = function() http.cookie("a", ",") end,
      ["path: expects a path"] = function() http.cookie("a", "b", { path = "/; Domain=x" }) end,
      ["domain: expects a name"] = function() http.cookie("a", "b", { domain = "x; y" }) end,
      ["same_site = \"none\" needs secure"] = function() http.cookie("a", "b", { same_site = "none" }) end,
      ["__Host-a needs secure"] = function() http.cookie("__Host-a", "b") end,
      ["__secure-a needs secure"] = function() http.cookie("__secure-a", "b") end,
      ["has path = \"/\" and no domain"]
        = function() http.cookie("__Host-a", "b", { secure = true, domain = "x.y" }) end,
      ["(it is called max_age)"] = function() http.cookie("a", "b", { expires = 1 }) end,
      ["secure: expects true or false"] = function() http.cookie("a", "b", { secure = 1 }) end,
      ["max_age: "] = function() http.cookie("a", "b", { max_age = "soon" }) end,
      ["browsers keep 4096"] = function() http.cookie("a", ("b"):rep(5000)) end,
    }
  end)

  it("are signed, and only what is signed is read", function()
    local signed = http.signed_cookies "0123456789abcdef"
    local text = signed:cookie("user", "ann \0;")
    local value = text:match "^user=([^;]*); Path=/; HttpOnly; SameSite=Lax$"
    local function read(by, name, cookie)
      return by:read(perilune.request { headers = { Cookie = name .. "=" .. cookie } }, name)
    end
    assert.equal("ann \0;", read(signed, "user", value))
    assert.is_nil(read(signed, "admin", value))
    for i = 1, #value do -- any other byte in any place
      local other = value:sub(1, i - 1) .. (value:sub(i, i) == "A" and "B" or "A") .. value:sub(i + 1)
      assert.is_nil(read(signed, "user", other), other)
      assert.is_nil(read(signed, "user", value:sub(1, i - 1)))
    end
    local rotated = http.signed_cookies { "another secret of ours", "0123456789abcdef" }
    assert.equal("ann \0;", read(rotated, "user", value))
    assert.is_nil(read(http.signed_cookies "another secret of ours", "user", value))
    assert.equal("signed cookies", tostring(signed))
  end)

  it("are signed with secrets that are some", function()
    refuses {
      ["a secret is a string of 16 bytes or more"] = function() http.signed_cookies "short" end,
      ["expects a secret, or a list"] = function() http.signed_cookies {} end,
    }
  end)
end)

describe("request:form()", function()
  local function form(body, options, kind)
    return perilune.request({ method = "POST", body = body,
      headers = { ["Content-Type"] = kind or "application/x-www-form-urlencoded" } }):form(options)
  end

  it("has names and values", function()
    assert.same({ a = "1 2", b = "&=", c = "", ["d e"] = "" }, form "a=1+2&b=%26%3D&c&a=3&d%20e=&&")
    assert.same({ a = { "1", "3" }, b = { "2" } }, form("a=1&b=2&a=3", { all = true }))
    assert.same({}, form "")
  end)

  it("says what is wrong", function()
    assert.equal("the body is to be application/x-www-form-urlencoded", select(2, form("", nil, "text/plain")))
    assert.truthy(select(2, form("", nil, "multipart/form-data; boundary=x")):find("request:multipart()", 1, true))
    assert.equal("the form has more than 1000 fields", select(2, form(("a=1&"):rep(1001))))
    assert.equal("the form has more than 1 fields", select(2, form("a=1&a=1", { fields = 1 })))
    refuses { ["unknown option most"] = function() form("", { most = 1 }) end }
  end)
end)

describe("request:multipart()", function()
  local KIND = "multipart/form-data; boundary=XX"
  local SAMPLE = '--XX\r\nContent-Disposition: form-data; name="a"\r\n\r\none\r\n'
    .. '--XX\r\ncontent-disposition: form-data; name="f\\"ile"; filename="C:\\x;y.txt"\r\n'
    .. 'Content-Type: text/plain\r\n\r\n'
    .. "line\r\n--X\r\n\0\255\r\n--XX\r\nContent-Disposition: form-data; name=empty\r\n\r\n\r\n--XX--\r\n"

  local function parts(body, kind, options)
    return perilune.request({ method = "POST", body = body, headers = { ["Content-Type"] = kind or KIND } })
      :multipart(options)
  end

  it("has the parts in order, with their names, files and headers", function()
    local list = assert(parts(SAMPLE))
    assert.equal(3, #list)
    assert.same({ "a", "one" }, { list[1].name, list[1].body })
    assert.same({ 'f"ile', "C:\\x;y.txt", "text/plain", "line\r\n--X\r\n\0\255" },
      { list[2].name, list[2].filename, list[2].type, list[2].body })
    assert.equal("text/plain", list[2].headers["content-TYPE"])
    assert.same({ "empty", "" }, { list[3].name, list[3].body })
    assert.same({}, parts "--XX--")
    assert.equal("x", parts('--a b\r\nContent-Disposition: form-data; name=x\r\n\r\nx\r\n--a b--',
      'Multipart/Form-Data; charset=x; boundary="a b"')[1].body)
  end)

  it("is nothing where it is cut, wherever that is", function()
    for n = 0, #SAMPLE - 3 do assert.is_nil((parts(SAMPLE:sub(1, n))), n) end
    assert.truthy(parts(SAMPLE:sub(1, #SAMPLE - 2)))
    assert.is_nil((parts(SAMPLE:sub(1, #SAMPLE - 1))))
  end)

  it("survives any bytes", function()
    local numbers = random.new(1)
    local PIECES = { "--XX", "--XX--", "\r\n", "\r", "\n", "\r\n\r\n", 'Content-Disposition: form-data; name="a"',
      "name=",
      '"', "\\", ";", ":", "\0", "\255", "x", "--", "Content-Disposition", " " }
    for _ = 1, 3000 do
      local text = {}
      for i = 1, numbers:next(14) do text[i] = PIECES[numbers:next(#PIECES)] end
      local list, message = parts("--XX" .. table.concat(text))
      assert.truthy(list or type(message) == "string")
    end
  end)

  local ONE = '--XX\r\nContent-Disposition: form-data; name="a"\r\n\r\none\r\n'
  for message, case in pairs {
    ["Content-Type has no boundary"] = { ONE, "multipart/form-data" },
    ["Content-Type has no boundary "] = { ONE, "multipart/form-data; boundary=" },
    ["the boundary has other characters"] = { ONE, 'multipart/form-data; boundary="a;b"' },
    ["the boundary has other characters "] = { ONE, "multipart/form-data; boundary=" .. ("x"):rep(71) },
    ["the body is to be multipart/form-data"] = { ONE, "multipart/mixed; boundary=XX" },
    ["this one is for request:form()"] = { "a=1", "application/x-www-form-urlencoded" },
    ["the body does not begin with its boundary"] = { "\r\n" .. ONE .. "--XX--" },
    ["the body does not begin with its boundary "] = { "preamble\r\n" .. ONE .. "--XX--" },
    ["something follows the last boundary"] = { ONE .. "--XX--\r\nepilogue" },
    ["the body ends before its last boundary"] = { ONE },
    ["a boundary goes on where its line should end"] = { ONE .. "--XXY\r\n--XX--" },
    ["a boundary goes on where its line should end "] = { ONE .. "--XX \r\n--XX--" },
    ["a part has no Content-Disposition: form-data"] = { "--XX\r\n\r\none\r\n--XX--" },
    ["a part has no Content-Disposition: form-data "] = {
      "--XX\r\nContent-Disposition: attachment; name=a\r\n\r\none\r\n--XX--" },
    ["a part has no name"] = { "--XX\r\nContent-Disposition: form-data\r\n\r\none\r\n--XX--" },
    ["a part has no name "] = { '--XX\r\nContent-Disposition: form-data; name="a\r\n\r\none\r\n--XX--' },
    ["a part has no name  "] = { "--XX\r\nContent-Disposition: form-data; name=a; name=b\r\n\r\none\r\n--XX--" },
    ["a part has a line that is no header field"] = { "--XX\r\nContent-Disposition : form-data\r\n\r\none\r\n--XX--" },
    ["a header of a part has a control character"] = {
      "--XX\r\nContent-Disposition: form-data; name=a\nX: b\r\n\r\none\r\n--XX--" },
    ["bytes are to come as they are"] = {
      "--XX\r\nContent-Disposition: form-data; name=a\r\nContent-Transfer-Encoding: base64\r\n\r\none\r\n--XX--" },
    ["a part has more than 16 header fields"] = {
      "--XX\r\nContent-Disposition: form-data; name=a\r\n" .. ("X: y\r\n"):rep(16) .. "\r\none\r\n--XX--" },
    ["a part has no head, or one that is too long"] = { "--XX\r\nX: " .. ("y"):rep(9000) .. "\r\n\r\none\r\n--XX--" },
    ["there are more than 100 parts"] = { ONE:rep(101) .. "--XX--" },
  } do
    it("refuses: " .. message, function()
      local list, why = parts(case[1], case[2])
      assert.is_nil(list)
      assert.truthy(why:find(message:gsub(" +$", ""), 1, true), why)
    end)
  end

  it("has bounds of its own", function()
    assert.equal(2, #parts(ONE:rep(2) .. "--XX--", KIND, { parts = 2 }))
    assert.equal("there are more than 2 parts", select(2, parts(ONE:rep(3) .. "--XX--", KIND, { parts = 2 })))
    refuses { ["parts: expects a whole number"] = function() parts("", KIND, { parts = 0 }) end }
  end)
end)

describe("who may come in", function()
  local function basic(text) return { Authorization = "Basic " .. core.encoding.encode_base64(text) } end

  it("is known by name and password", function()
    local api = behind(http.basic_auth { realm = "accounts", users = { ann = "a:b", bob = "c" } })
    assert.equal("ann", ask(api, basic "ann:a:b").body)
    assert.equal("bob", ask(api, { Authorization = "bAsIc " .. core.encoding.encode_base64 "bob:c" }).body)
    for _, headers in ipairs { basic "ann:c", basic "cat:c", basic "ann", basic "ann:a:bc", basic "ann:", basic ":",
      basic ":\0", { Authorization = "Basic ?" }, { Authorization = "Bearer x" }, {} } do
      local response = ask(api, headers)
      assert.same({ 401, 'Basic realm="accounts", charset="UTF-8"' },
        { response.status, response.headers["WWW-Authenticate"] })
    end
    api = behind(http.basic_auth { check = function(user, password) return user == password and "known " .. user end })
    assert.equal("known x", ask(api, basic "x:x").body)
    assert.equal(401, ask(api, basic "x:y").status)
  end)

  it("is known by a token", function()
    local api = behind(http.bearer { tokens = { ["t-1"] = "ann" } })
    assert.equal("ann", ask(api, { Authorization = "Bearer t-1" }).body)
    local invalid = ask(api, { Authorization = "Bearer t-2" })
    assert.same({ 401, 'Bearer realm="restricted", error="invalid_token"' },
      { invalid.status, invalid.headers["www-authenticate"] })
    assert.equal('Bearer realm="restricted"', ask(api, {}).headers["www-authenticate"])
    assert.equal(401, ask(api, { Authorization = "Bearer t-1 x" }).status)
    api = behind(http.bearer { check = function(token, request) return token == "x" and request.path end })
    assert.equal("/", ask(api, { Authorization = "Bearer x" }).body)
  end)

  it("is said in full, or not at all", function()
    refuses {
      ["expects check, a function, or users, a table"] = function() http.basic_auth {} end,
      ["realm: expects a text without quotes"] = function() http.basic_auth { realm = 'a"b', users = {} } end,
      ["a password is a text, got 5"] = function() http.basic_auth { users = { a = 5 } } end,
      ["unknown option user (did you mean \"users\"?)"] = function() http.basic_auth { user = {} } end,
      ["expects check, a function, or tokens, a table"] = function() http.bearer { check = print, tokens = {} } end,
      ["http.bearer: expects check, a function, or tokens, a table"] = function() http.bearer() end,
      ["rate: expects requests a second"] = function() http.rate_limit { rate = "x" } end,
      ["shared: expects a dictionary"] = function() http.rate_limit { rate = 1, shared = {} } end,
      ["burst: expects a whole number"] = function() http.rate_limit { rate = 1, burst = 0 } end,
    }
  end)
end)

describe("header fields", function()
  it("let other origins in", function()
    local api = http.router()
    api:use(http.cors { origins = { "https://a.example" }, headers = { "X-A", "X-B" }, expose = "X-C", max_age = "10m",
      credentials = true })
    api:get("/", function() return http.text("x", 200, { Vary = "Accept" }) end)
    local response = ask(api, { Origin = "https://a.example" })
    assert.same({ "https://a.example", "true", "X-C", "Accept, Origin" }, {
      response.headers["Access-Control-Allow-Origin"], response.headers["Access-Control-Allow-Credentials"],
      response.headers["Access-Control-Expose-Headers"], response.headers.Vary })
    assert.equal("https://A.example", ask(api, { Origin = "https://A.example" }).headers["Access-Control-Allow-Origin"])
    response = ask(api, { Origin = "https://b.example" })
    assert.is_nil(response.headers["Access-Control-Allow-Origin"])
    assert.equal("Accept, Origin", response.headers.Vary)
    local asks = { Origin = "https://a.example", ["Access-Control-Request-Method"] = "PUT" }
    response = ask(api, asks, { method = "OPTIONS", path = "/nowhere" })
    assert.same({ 204, "GET, HEAD, POST, PUT, PATCH, DELETE", "X-A, X-B", "600", "Origin" }, { response.status,
      response.headers["Access-Control-Allow-Methods"], response.headers["Access-Control-Allow-Headers"],
      response.headers["Access-Control-Max-Age"], response.headers.Vary })
    asks.Origin = "https://b.example"
    assert.equal(403, ask(api, asks, { method = "OPTIONS" }).status)
    assert.equal("GET, HEAD, OPTIONS", ask(api, {}, { method = "OPTIONS" }).headers.Allow)
    local all = http.router():use(http.cors()):get("/", function() end)
    response = ask(all, { Origin = "https://c.example" })
    assert.same({ 204, "*" }, { response.status, response.headers["Access-Control-Allow-Origin"] })
    assert.is_nil(response.headers.Vary)
    -- It is the same for all, and a cache may keep what it was told without an Origin.
    assert.equal("*", ask(all).headers["Access-Control-Allow-Origin"])
    refuses {
      ["credentials go with a list of origins"] = function() http.cors { credentials = true } end,
      ["origins: expects a list of origins such as"] = function() http.cors { origins = { "a.example/" } } end,
      ["max_age: expects a duration"] = function() http.cors { max_age = "x" } end,
    }
  end)

  it("say how long responses may be kept", function()
    local api = http.router():use(http.cache_control { public = true, max_age = "1h", stale_if_error = 60 })
    api:get("/", function() return "x" end):post("/", function() return "x" end)
    api:get("/own", function() return http.text("x", 200, { ["Cache-Control"] = "no-store" }) end)
    assert.equal("public, max-age=3600, stale-if-error=60", ask(api).headers["cache-control"])
    assert.is_nil(ask(api, nil, { method = "POST" }).headers["cache-control"])
    assert.is_nil(ask(api, nil, { path = "/nowhere" }).headers["cache-control"])
    assert.equal("no-store", ask(api, nil, { path = "/own" }).headers["cache-control"])
    refuses {
      ["public and private contradict"] = function() http.cache_control { public = true, private = true } end,
      ["no_store and max_age contradict"] = function() http.cache_control { no_store = true, max_age = 1 } end,
      ["expects a directive"] = function() http.cache_control {} end,
      ["unknown option maxage (did you mean"] = function() http.cache_control { maxage = 1 } end,
    }
  end)

  it("name the request", function()
    local api = http.router():use(http.request_id()):get("/", function(request) return request.context.request_id end)
    local response = ask(api, { ["X-Request-Id"] = "mine" })
    assert.matches("^%x+%-%x+%-4%x+%-%x+%-%x+$", response.body)
    assert.equal(response.body, response.headers["X-Request-Id"])
    api = behind(http.request_id { header = "X-Trace", trust = true })
    assert.equal("mine", ask(api, { ["X-Trace"] = "mine" }).headers["x-trace"])
    assert.equal(36, #ask(api, { ["X-Trace"] = "mine " .. ("x"):rep(130) }).headers["x-trace"])
  end)

  it("tell what runs", function()
    local api = http.router():get("/", http.version "1.2"):get("/more", http.version { version = "1.3", commit = "a" })
    assert.same({ '{"version":"1.2"}', "no-store" }, { ask(api).body, ask(api).headers["Cache-Control"] })
    assert.same({ version = "1.3", commit = "a" }, ask(api, nil, { path = "/more" }):json())
    refuses { ["what: expects a text"] = function() http.version() end }
  end)

  it("are made by http.created", function()
    local response = ask(http.router():get("/", function() return http.created("/users/7", { id = 7 }) end))
    assert.same({ 201, "/users/7", '{"id":7}' }, { response.status, response.headers.location, response.body })
    refuses { ["location: expects a path"] = function() http.created("a b") end }
  end)
end)

describe("http.logged", function()
  local function lines(options, headers, target, method)
    local told = {}
    options.to = function(line) told[#told + 1] = line end
    local api = http.router():use(http.logged(options)):get("/users/{id}", function(request)
      request.context.user = "ann"
      return http.text("x", 200, { ["Set-Cookie"] = "a=b" })
    end)
    ask(api, headers, { method = method, path = target or "/users/7?a=1", peer = "10.0.0.7:99" })
    return told
  end

  it("has a line as Apache has it", function()
    local told = lines({}, { Referer = "http://r/", ["User-Agent"] = 'a"b' })
    assert.equal(1, #told)
    assert.matches('^10%.0%.0%.7 %- ann %[%d%d/%a%a%a/%d%d%d%d:%d%d:%d%d:%d%d %+0000%] '
      .. '"GET /users/7%?a=1 HTTP/1%.1" 200 1'
      .. ' "http://r/" "a\\x22b"$', told[1])
  end)

  it("has JSON", function()
    local told = core.json.decode(lines({ format = "json" })[1])
    told.time, told.seconds = nil, nil
    assert.same({ method = "GET", path = "/users/7?a=1", route = "/users/{id}", status = 200, bytes = 1,
      peer = "10.0.0.7:99", user = "ann" }, told)
  end)

  it("has no bytes of a HEAD, whose response has no body", function()
    assert.equal(0, core.json.decode(lines({ format = "json" }, nil, nil, "HEAD")[1]).bytes)
    assert.matches('" 200 0 "%-" "%-"$', lines({}, nil, nil, "HEAD")[1])
  end)

  it("has all of a request in lines, without its secrets", function()
    assert.same({ "> GET /users/7?a=1 HTTP/1.1", "> Host: localhost", "> Authorization: …", "> X: y", "< 200",
      "< Content-Type: text/plain; charset=utf-8", "< Set-Cookie: …" },
      lines({ format = "lines" }, { Authorization = "Basic xyz", X = "y" }))
  end)

  it("has what a function makes, and every line passes the redactor", function()
    local function redact(line) return line ~= "drop" and line:gsub("7", "*") or nil end
    assert.same({ "200 /users/*" }, lines { redact = redact, format = function(request, response)
      return { response.status .. " " .. request.path, "drop" }
    end })
    refuses {
      ["format: expects"] = function() http.logged { format = "apache" } end,
      ["Date: it is made here"] = function() http.request_id { header = "Date" } end,
      ["request_id: trust: expects true or false"] = function() http.request_id { trust = "no" } end,
      ["without a path or the usual port, got \"https://Example.org\""]
        = function() http.cors { origins = { "https://Example.org" } } end,
      ["got \"https://example.org:443\""] = function() http.cors { origins = "https://example.org:443" } end,
      ["a name has no colon"] = function() http.basic_auth { users = { ["a:b"] = "x" } } end,
      ["fields: expects a whole number, got \"5\""]
        = function() perilune.request({ body = "a=1" }):form { fields = "5" } end,
      ["has :id: a parameter is {id}"] = function() http.router():get("/a/:id", print) end,
      ["redact: expects a function"] = function() http.logged { redact = "x" } end,
    }
  end)
end)

describe("in an app", function()
  local FIXTURE = "spec/behaviour/fixtures/toolkit.lua"
  after_each(memory.finish)

  it("the rate of each peer is limited, in all workers together", function()
    local app = memory.open(FIXTURE, nil, { workers = 2 })
    local clients = { app:connect { worker = 0, from = "10.0.0.1:1" }, app:connect { worker = 1, from = "10.0.0.1:2" } }
    for i = 1, 3 do assert.equal(200, clients[i % 2 + 1]:get("/limited").status) end
    for _, client in ipairs(clients) do
      local response = client:get "/limited"
      assert.same({ 429, "1" }, { response.status, response.headers["Retry-After"] })
    end
    assert.equal(200, app:connect({ from = "10.0.0.2:1" }):get("/limited").status)
    app:advance "500ms"
    assert.equal(200, clients[1]:get("/limited").status)
    assert.equal(429, clients[2]:get("/limited").status)
    app:advance "30s"
    for i = 1, 3 do assert.equal(200, clients[i % 2 + 1]:get("/limited").status) end
    assert.equal(429, clients[1]:get("/limited").status)
  end)

  it("the rate of a network of IPv6 is limited as one", function()
    local app = memory.open(FIXTURE)
    local from = { "[2001:db8::1]:1", "[2001:db8:0:0:1::]:2", "[2001:db8:0:0:ffff:ffff:ffff:ffff]:3" }
    for _, peer in ipairs(from) do assert.equal(200, app:connect({ from = peer }):get("/limited").status) end
    assert.equal(429, app:connect({ from = "[2001:db8::2:3]:1" }):get("/limited").status)
    assert.equal(200, app:connect({ from = "[2001:db8:0:1::1]:1" }):get("/limited").status)
  end)

  it("the rate of a key is limited, and where there is none it is not", function()
    local client = memory.open(FIXTURE):connect()
    for _ = 1, 3 do assert.equal(200, client:get("/by_key").status) end
    assert.equal(200, client:get("/by_key", { ["X-Key"] = "a" }).status)
    assert.equal("10", client:get("/by_key", { ["X-Key"] = "a" }).headers["Retry-After"])
    assert.equal(200, client:get("/by_key", { ["X-Key"] = "b" }).status)
  end)

  it("each response is logged, redacted, and that of a failed handler too", function()
    local app = memory.open(FIXTURE)
    app:connect():get "/nowhere?key=secret"
    app:connect():get "/boom/7"
    local lines = {}
    for _, entry in ipairs(app:log()) do
      local line = entry.message:match '%] (".* HTTP/1.1" %d+)'
      if line then lines[#lines + 1] = line end
    end
    assert.same({ '"GET /nowhere?key=*** HTTP/1.1" 404', '"GET /boom/7 HTTP/1.1" 500' }, lines)
  end)

  it("what is logged is what the client gets, whatever answers it", function()
    local app = assert(memory.script [[
      local http = require "perilune.http"
      local function logged(mark)
        return http.logged {
          to = function(line) require("perilune").log("info", mark .. line:match '%] "%u+ (/.*)$') end }
      end
      local api = http.router():use(logged "1", http.request_id(), logged "2")
      api:get("/gone", function() return http.file "none.txt" end)
      api:get("/stream", function() return http.stream(function(out) out:write "x" end) end)
      api:get("/raises", function() return http.stream(function() error "no" end) end)
      api:websocket("/ws", { proceed = print })
      api:get("/wrong", function() return { f = print } end)
      api:get("/odd", function() return 201, {} end)
      api:get("/back", function(request) return request.headers end)
      return { listen = "http://127.0.0.1:0", agent = api }
    ]])
    local wanted = { ["/gone"] = "404 %d+", ["/stream"] = "200 %-", ["/raises"] = "500 %d+", ["/ws"] = "426 %d+",
      ["/wrong"] = "500 %d+", ["/odd"] = "500 %d+", ["/back"] = "500 %d+" }
    for path, status in pairs(wanted) do
      local client = app:connect()
      local response = client:get(path)
      assert.equal(status:match "^%d+", tostring(response.status))
      local told = {}
      for _, entry in ipairs(app:log()) do
        local mark, rest = entry.message:match("^(%d)" .. path .. ' HTTP/1.1" (%d+ [%d-]+) ')
        if mark then
          told[#told + 1] = mark
          assert.matches("^" .. status .. "$", rest)
        end
      end
      assert.same({ "2", "1" }, told, path)
    end
  end)

  it("a failed handler's response has the fields of all others", function()
    local app = assert(memory.script [[
      local http = require "perilune.http"
      local seen = {}
      local api = http.router():use(http.cors { origins = function(origin)
        if origin == "https://raises" then error "not now" end
        return true
      end }, http.logged { to = function(line) require("perilune").log("info", line:match '1" (%d+)') end },
        http.request_id { trust = true })
      api:get("/raises", function() error "no" end)
      api:get("/stream", function() return http.stream(function() error "no" end) end)
      api:get("/begun", function() return http.stream(function(out) out:write "x" end) end)
      api:get("/odd", function() return 201, {} end)
      return { listen = "http://127.0.0.1:0", agent = api }
    ]])
    local function told(path, origin)
      local client = app:connect()
      client:get("/begun", { ["X-Request-Id"] = "earlier", Origin = "https://earlier" })
      local response = client:get(path, { ["X-Request-Id"] = "seven", Origin = origin })
      return ("%d %s %s"):format(response.status, response.headers["X-Request-Id"],
        response.headers["Access-Control-Allow-Origin"] or "nobody")
    end
    for _, path in ipairs { "/raises", "/stream", "/odd" } do
      assert.equal("500 seven https://a", told(path, "https://a"), path)
    end
    assert.equal("500 seven nobody", told("/raises", "https://raises"))
    assert.equal("200,500,200,500,200,500,200,500", table.concat(memory.noted(app), ","))
  end)

  it("responses are counted and timed by their routes", function()
    local app = memory.open(FIXTURE)
    local client = app:connect()
    client:get "/nowhere"
    client:ask("/slow")
    app:advance "2s"
    assert.equal(204, client:response().status)
    app:connect():get "/boom/7"
    app:connect():get "/boom/8"
    local counts = client:get("/counts"):json()
    assert.same({ ["2xx"] = 1, timed = 1, seconds = 2, longest = 2 }, counts["GET /slow"])
    assert.equal(2, counts["GET /boom/{id}"]["5xx"])
    assert.equal(1, counts["no route"]["4xx"])
  end)

  it("no figure of many routes is left out", function()
    local app = assert(memory.script [[
      local http, perilune = require "perilune.http", require "perilune"
      local counts, api = perilune.shared "counts", http.router()
      api:use(http.counted { shared = counts }, http.timed { shared = counts })
      for i = 1, 300 do api:get("/r" .. i, function() return "" end) end
      api:get("/counts", function() return http.counts(counts) end)
      return { listen = "http://127.0.0.1:0", shared = { counts = "1m" }, agent = api }]])
    local client = app:connect()
    for i = 1, 300 do client:get("/r" .. i) end
    local told = client:get("/counts"):json()
    for i = 1, 300 do
      assert.same({ ["2xx"] = 1, timed = 1, seconds = 0, longest = 0 }, told["GET /r" .. i])
    end
  end)

  it("responses of all workers are counted together in a dictionary", function()
    local app = assert(memory.script([[
      local http, perilune = require "perilune.http", require "perilune"
      local counts, api = perilune.shared "counts", http.router()
      api:use(http.counted { shared = counts }, http.timed { shared = counts }, http.counted())
      api:get("/slow/{n}", function(request) perilune.sleep(tonumber(request.params.n)) end)
      api:get("/counts", function(request) return request.args.own and http.counts() or http.counts(counts) end)
      return { listen = "http://127.0.0.1:0", workers = 2, shared = { counts = "64k" }, agent = api }]], nil,
      { workers = 2 }))
    for worker = 0, 1 do
      app:connect({ worker = worker }):ask("/slow/" .. worker + 1)
      app:connect({ worker = worker }):get "/none"
    end
    app:advance "3s"
    for worker = 0, 1 do
      local client = app:connect { worker = worker }
      local told = client:get("/counts"):json()
      assert.same({ ["2xx"] = 2, timed = 2, seconds = 3, longest = 2 }, told["GET /slow/{n}"])
      assert.same({ ["4xx"] = 2, timed = 2, seconds = 0, longest = 0 }, told["no route"])
      assert.same({ ["2xx"] = 1 }, client:get("/counts?own=1"):json()["GET /slow/{n}"])
    end
    assert.has_error(function() http.counted { shared = {} } end)
    assert.has_error(function() http.counts(5) end)
  end)

  it("a body is checked, at every split", function()
    local client = memory.open(FIXTURE):connect { read_max = 1 }
    local response = client:request { method = "POST", path = "/users",
      body = { name = "Ann", tags = { "a" }, address = { street = "x" } } }
    assert.same({ 201, "/users/7" }, { response.status, response.headers.Location })
    assert.equal("address.street: a string is expected, got 5", client:request({ method = "POST", path = "/users",
      body = { name = "Ann", tags = { "a" }, address = { street = 5 } } }):json().description)
  end)

  it("a signed cookie is of no use after its time", function()
    local app = memory.open(FIXTURE)
    local client = app:connect()
    local cookie = client:get("/sign").headers["Set-Cookie"]:match "^[^;]*"
    assert.equal("ann", client:get("/user", { Cookie = cookie }).body)
    app:advance "59s"
    assert.equal("ann", client:get("/user", { Cookie = cookie }).body)
    app:advance "1s"
    assert.equal(401, client:get("/user", { Cookie = cookie }).status)
  end)

  it("forms and files come in pieces as whole", function()
    local client = memory.open(FIXTURE):connect { read_max = 7 }
    assert.same({ a = { "1", "2" } }, client:request({ method = "POST", path = "/form", body = "a=1&a=2",
      headers = { ["Content-Type"] = "application/x-www-form-urlencoded" } }):json())
    local body = '--b\r\nContent-Disposition: form-data; name="f"; filename="x"\r\n\r\n' .. ("\0\r\n"):rep(1000)
      .. "\r\n--b--\r\n"
    local part = client:request({ method = "POST", path = "/parts", body = body,
      headers = { ["Content-Type"] = "multipart/form-data; boundary=b" } }):json()[1]
    assert.same({ "f", "x", 3000 }, { part.name, part.filename, part.bytes })
  end)
end)
