--- Routers at load, and clients of others.
local command = require "spec.support.command"
local has = require "spec.support.has"
local server = require "spec.support.server"

local folder
before_each(function() folder = command.folder() end)
after_each(function()
  server.finish()
  command.remove(folder)
end)

local HEAD = [[
local http = require "perilune.http"
local api = http.router()
api:get("/users/{id}", function() end)
]]

local function check(lines, ...)
  command.write(folder .. "/app.lua", HEAD .. lines .. '\nreturn { listen = "http://127.0.0.1:0", agent = api }\n')
  return command.run { "check", folder .. "/app.lua", ... }
end

describe("perilune check", function()
  it("lists the routes, those of routers within included", function()
    local result = check([[
      local admin, tenant = http.router(), http.router()
      admin:any("/x", function() end)
      tenant:on("PROPFIND", "/", function() end)
      api:namespace("/admin", admin):namespace("/fn", function() end):host("*.example.org", tenant)]], "--print")
    assert.equal(0, result.code, result.err)
    has("  routes:\n", result.out)
    for method, path in pairs { GET = "/users/{id}", any = "/admin/x", PROPFIND = "*.example.org/" } do
      assert.truthy(result.out:find("\n    " .. method .. " +" .. path:gsub("%p", "%%%0") .. " +app.lua:%d+\n"),
        result.out)
    end
    assert.truthy(result.out:find "\n    any +/fn/… +app.lua:7\n", result.out)
  end)

  for message, line in pairs {
    ['router:get: "/users/{name}" is there already as /users/{id}: app.lua:3'] = 'api:get("/users/{name}", print)',
    ['"/admin/x" is never reached: the namespace /admin of app.lua:4 has all that is below it']
      = 'api:namespace("/admin", print):get("/admin/x", print)',
    ["hint: did you mean 'router'?"] = "http.roter()",
    ["hint: did you mean 'get'?"] = 'api:gett("/", print)',
    ["http.schema: name: expects a type"] = 'http.schema { name = "strnig" }',
  } do
    it("says: " .. message, function()
      local result = check(line)
      assert.equal(78, result.code)
      has(message, result.err)
      has("app.lua:4", result.err)
    end)
  end
end)

describe("curl", function()
  it("talks to examples/http_api.lua", function()
    if not command.has "curl" then return pending "curl is not there" end
    local app = server.start {
      script = command.read "examples/http_api.lua", args = { "--listen=http://127.0.0.1:0" },
    }
    local url = "http://127.0.0.1:" .. app.port
    local function curl(line)
      return command.shell(("cd '%s' && curl -sS %s"):format(folder, (line:gsub("{url}", url))))
    end
    local json = "-H 'Content-Type: application/json'"
    has("201", curl("-o /dev/null -w '%{http_code}' -u ops:secret " .. json .. " -d '{\"name\":\"Ann\"}' {url}/users"))
    has('"name":"Ann"', curl "{url}/users/1")
    has("422", curl("-o /dev/null -w '%{http_code}' -u ops:secret " .. json .. " -d '{}' {url}/users"))
    has("415", curl "-o /dev/null -w '%{http_code}' -u ops:secret -d a=b {url}/users")
    has("401", curl("-o /dev/null -w '%{http_code}' -u ops:wrong " .. json .. " -d '{}' {url}/users"))
    has("private, max-age=10", curl "-I {url}/users/1")
    has("Allow: DELETE, GET, HEAD, OPTIONS", curl "-i -X PATCH {url}/users/1")
    has("204", curl "-o /dev/null -w '%{http_code}' -c jar -u ops:secret -X POST {url}/login")
    assert.equal('{"name":"ops"}', curl "-b jar {url}/me")
    command.write(folder .. "/a b.bin", "\0\1\r\n--x\r\n")
    local parts = curl "-u ops:secret -F 'text=hello' -F 'file=@a b.bin;type=application/x-a' {url}/avatars"
    for _, text in ipairs { '"name":"text"', '"bytes":5', '"file":"a b.bin"', '"type":"application/x-a"',
      '"bytes":9' } do
      has(text, parts)
    end
  end)
end)
