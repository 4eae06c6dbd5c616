-- A small HTTP service: a counter for each connection, an echo of JSON, a redirect, and what goes wrong.
--
--     perilune run examples/http_hello.lua
--     curl -i http://127.0.0.1:8080/
--     curl -i -d '{"name":"Ann"}' http://127.0.0.1:8080/greetings
local http = require "perilune.http"

local Hello = {}

function Hello:opened() self.requests = 0 end

local pages = {}

pages["/"] = {
  GET = function() return http.html "<h1>hello</h1>\n" end,
}

pages["/requests"] = {
  GET = function(self) return { requests = self.requests, peer = self.conn.peer } end,
}

pages["/greetings"] = {
  GET = function(_, request) return "hello " .. (request.args.name or "world") .. "\n" end,
  POST = function(_, request)
    local person, message = request:json()
    if message then return http.error(400, message) end
    local name = type(person) == "table" and person.name
    if type(name) ~= "string" then return http.error(422, "name: a text is expected") end
    return http.json({ greeting = "hello " .. name }, 201)
  end,
}

pages["/old"] = {
  GET = function() return http.redirect "/greetings" end,
}

function Hello:proceed(request)
  self.requests = self.requests + 1
  local page = pages[request.path]
  if not page then return http.error(404) end
  local handler = page[request.method] or request.method == "HEAD" and page.GET
  if handler then return handler(self, request) end
  local allowed = {}
  for method in pairs(page) do allowed[#allowed + 1] = method end
  table.sort(allowed)
  return http.error(405, nil, { Allow = table.concat(allowed, ", ") })
end

return { listen = "http://127.0.0.1:8080", agent = Hello }
