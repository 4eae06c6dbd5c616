--- http.router(): an agent for http:// listeners that hands each request to the handler of its route.
---
---     local api = http.router()
---     api:get("/users/{id}", function(request) return { id = request.params.id } end)
---     return { listen = "http://:8080", agent = api }
---
--- A router is a prototype, as any agent is: what is put into it beside routes (`function api:opened()`) is there for
--- each connection. Mistakes in routes raise where they are made, so the script does not load.
local field_table = require "perilune.headers"
local http = require "perilune.http"
local middleware = require "perilune.http.middleware"
local percent = require "perilune.percent"
local printable = require "perilune.printable"
local routes = require "perilune.http.routes"

local inner = getmetatable(http)
local find = string.find -- LuaJIT's own: what it searches for is plain, and compiled code can have it

local M = {}

local STATE = {} -- the key of a router's own data
local METHODS = { "get", "post", "put", "patch", "delete", "head", "options" }

local methods = {}
local metatable = { __metatable = "http.router" }

local function state_of(router, name, level)
  local state = getmetatable(router) == "http.router" and rawget(router, STATE)
  if not state then error(("router.%s(…) must be router:%s(…)"):format(name, name), level + 1) end
  if state.is_sealed then
    error(("router:%s: a router is whole when the first request comes: call it at the top level"):format(name),
      level + 1)
  end
  return state
end

-- "app.lua:12", of who calls. The number of a generation would only be in the way.
local function place_at(level)
  local info = debug.getinfo(level + 1, "Sl")
  local source = info.source:gsub("^@", ""):gsub("#g%d+$", "")
  return ("%s:%d"):format(source:sub(1, 1) == "=" and source:sub(2) or source, info.currentline)
end

-- ---- serving ----

local function allow(list) return { Allow = table.concat(list, ", ") } end

local NOT_FOUND, BAD_PATH, FAULT, OF_STAR

local function refusals()
  NOT_FOUND = inner.problem(404, "there is nothing at this path")
  BAD_PATH = inner.problem(400, "the path has a percent sign without two hexadecimal digits behind it")
  FAULT = inner.problem(500, "the handler has failed")
  OF_STAR = http.response { status = 204, headers = { Allow = "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT" } }
end

local function refuse_method(request, allowed)
  local list = table.concat(allowed, ", ")
  if request.method == "OPTIONS" then return http.response { status = 204, headers = { Allow = list } } end
  return inner.problem(405, ("this path has %s"):format(list), allow(allowed))
end

local function unmatched(state, request)
  local allowed = routes.allowed(state.routes, request.path)
  if allowed[1] then return refuse_method(request, allowed) end
  if state.not_found then return state.not_found(request) end
  return NOT_FOUND
end

local function give_back(request, path, base, ...)
  request[7] = request[7] or request[6] -- where its route is: the innermost namespace is the first to give back
  request.path, request[6] = path, base
  return ...
end

-- The inner one sees the path without the prefix, and it is put back when it has returned.
local function serve_namespace(namespace, request, rest)
  local path, base = request.path, request[6]
  request.path, request[6] = rest, (base or "") .. namespace.prefix
  return give_back(request, path, base, namespace.serve(request))
end

local function search(state, request)
  local path = request.path
  if path == "*" then return OF_STAR end
  if find(path, "%", 1, true) and not percent.is_sound(path) then return BAD_PATH end
  local found, captures = routes.find(state.routes, request.method, path)
  if not found then return unmatched(state, request) end
  if found.serve then return serve_namespace(found, request, captures[1]) end
  request[4], request[5] = found, found.make and found.make(captures) or false
  return found.handler(request)
end

local function dispatcher(state)
  local static = state.routes.static
  return function(request)
    local leaf, method = static[request.path], request.method
    local route = leaf and (leaf[method] or method == "HEAD" and leaf.GET or leaf["*"])
    if not route then return search(state, request) end
    request[4] = route
    return route.handler(request)
  end
end

-- "api.example.org" of "API.example.org:8443".
local function bare_host(host)
  return (host:match "^%[[^%]]*%]" or host:match "^[^:]*"):lower():gsub("%.$", "")
end

local function router_of_host(hosts, host)
  if not host then return nil end
  local name = bare_host(host)
  local found = hosts.exact[name]
  local dot = not found and name:find(".", 1, true)
  while dot do
    found = hosts.below[name:sub(dot)]
    dot = not found and name:find(".", dot + 1, true)
  end
  return found
end

local function host_dispatcher(state, dispatch)
  local hosts = state.hosts
  return function(request)
    local other = router_of_host(hosts, request.host)
    if other then return other.serve(request) end
    return dispatch(request)
  end
end

-- All that the router answers passes its middleware.
local function compose(state)
  local serve = dispatcher(state)
  if state.hosts then serve = host_dispatcher(state, serve) end
  return middleware.wrap(state.uses, serve)
end

-- The first request finds a router that is whole.
local function begin(state)
  state.is_sealed = true
  state.serve = compose(state)
end

-- ---- routes ----

-- Handlers may be followed by nothing, and preceded by middleware.
local function handler_of(name, path, level, ...)
  local n = select("#", ...)
  local handler = n > 0 and select(n, ...)
  if type(handler) ~= "function" then
    local is_behind_one = n > 1 and type((select(n - 1, ...))) == "function"
    local hint = require("perilune.http.meant").handler(handler, name, is_behind_one)
    error(("router:%s: %s: expects a handler, function(request), got %s%s"):format(name, printable.quote(path),
      n == 0 and "nothing" or printable.value(handler), hint), level + 1)
  end
  local steps = {}
  for i = 1, n - 1 do
    steps[i] = select(i, ...)
    middleware.check(("router:%s"):format(name), steps[i], level + 1, true)
  end
  return middleware.wrap(steps, handler)
end

local function check_path(name, path, level)
  if type(path) == "string" then return end
  error(("router:%s: expects a path such as \"/users/{id}\", got %s"):format(name, printable.value(path)), level + 1)
end

local function add(router, name, method, path, level, ...)
  local state = state_of(router, name, level + 1)
  check_path(name, path, level + 1)
  local route = { method = method, pattern = path, place = place_at(level + 1),
    handler = handler_of(name, path, level + 1, ...), own = select(-1, ...) } -- own: without what is around it
  local ok, message = routes.add(state.routes, route)
  if not ok then error(("router:%s: %s %s"):format(name, printable.quote(path), message), level + 1) end
  return router
end

for _, name in ipairs(METHODS) do
  local method = name:upper()
  methods[name] = function(router, path, ...)
    add(router, name, method, path, 2, ...)
    return router
  end
end

--- Any method that has no route of its own there.
function methods.any(router, path, ...)
  add(router, "any", "*", path, 2, ...)
  return router
end

--- A method by its name.
function methods.on(router, method, path, ...)
  if not field_table.is_token(method) or method == "*" then
    error("router:on: expects a method such as \"PROPFIND\", got " .. printable.value(method), 2)
  end
  add(router, "on", method, path, 2, ...)
  return router
end

--- Middleware for all that this router answers, those it hands requests to and its own refusals included. The first is
--- the outermost.
function methods.use(router, ...)
  local state = state_of(router, "use", 2)
  for i = 1, select("#", ...) do
    local one = select(i, ...)
    middleware.check("router:use", one, 2)
    state.uses[#state.uses + 1] = one
  end
  if select("#", ...) == 0 then error("router:use: expects middleware, such as http.before(fn), got nothing", 2) end
  return router
end

-- What serves in a router's place: another router, or a function.
local function server_of(name, router, other, level)
  if type(other) == "function" then return { serve = other } end
  local state = getmetatable(other) == "http.router" and rawget(other, STATE)
  if not state then
    error(("router:%s: expects a router or a function(request), got %s"):format(name, printable.value(other)),
      level + 1)
  end
  if rawequal(other, router) then error(("router:%s: a router cannot hold itself"):format(name), level + 1) end
  return { serve = function(request) return state.serve(request) end, router = other }
end

--- Hands all requests at and below a prefix to another router, or a function, which see the path without it.
function methods.namespace(router, prefix, other)
  local state = state_of(router, "namespace", 2)
  check_path("namespace", prefix, 2)
  local namespace = server_of("namespace", router, other, 2)
  namespace.prefix, namespace.place = prefix, place_at(2)
  local ok, message = routes.add_namespace(state.routes, namespace)
  if not ok then error(("router:namespace: %s %s"):format(printable.quote(prefix), message), 2) end
  state.inner[#state.inner + 1] = namespace
  return router
end

local function check_host(name)
  local bare = type(name) == "string" and name:gsub("^%*%.", "")
  local is_name = bare and bare:find "^[%w._-]+$" or bare and bare:find "^%[[%x:.]+%]$"
  if is_name then return end
  error("router:host: expects a name such as \"api.example.org\" or \"*.example.org\", without a port, got "
    .. printable.value(name), 3)
end

--- Hands the requests for a host to another router, or a function, whatever the port. `"*.example.org"` is for all
--- hosts below; the exact name comes first, then the longest.
function methods.host(router, name, other)
  local state = state_of(router, "host", 2)
  check_host(name)
  local server = server_of("host", router, other, 2)
  state.hosts = state.hosts or { exact = {}, below = {} }
  local is_below = name:sub(1, 2) == "*."
  local hosts, key = is_below and state.hosts.below or state.hosts.exact, bare_host(is_below and name:sub(2) or name)
  if hosts[key] then error(("router:host: %s is there already: %s"):format(name, hosts[key].place), 2) end
  server.host, server.place = name, place_at(2)
  hosts[key] = server
  state.inner[#state.inner + 1] = server
  return router
end

--- Answers requests that no route has the path of. Default: 404 as JSON.
function methods.not_found(router, handler)
  local state = state_of(router, "not_found", 2)
  if type(handler) ~= "function" then
    error("router:not_found: expects a handler, function(request), got " .. printable.value(handler), 2)
  end
  if state.not_found then error("router:not_found: there is a handler already", 2) end
  state.not_found = handler
  return router
end

-- ---- what other modules make ----

-- What fn returns; its errors are raised as those of who has called the router.
local function relay(level, fn, ...)
  local ok, value = pcall(fn, ...)
  if ok then return value end
  error(type(value) == "string" and value:gsub("^[^\n]-:%d+: ", "") or value, level + 1)
end

local ABSENT = "router:%s: this version has no http.%s"

--- A WebSocket: a GET that asks for one is answered by the upgrade, and the connection has an agent of `agent` from
--- then on. The options are those of http.websocket.
function methods.websocket(router, path, agent, options)
  local websocket = http.websocket
  if not websocket then error(ABSENT:format("websocket", "websocket"), 2) end
  local upgrade = relay(2, websocket, agent, options)
  add(router, "websocket", "GET", path, 2, function() return upgrade end)
  return router
end

--- The files of a folder, below a prefix.
function methods.files(router, prefix, folder, options)
  local files = http.files
  if not files then error(ABSENT:format("files", "files"), 2) end
  check_path("files", prefix, 2)
  local serve = relay(2, files, folder, options)
  local base = prefix:gsub("/$", "")
  -- As it was sent: a path is decoded once, by who looks for the file.
  local below = "^" .. ("/[^/]*"):rep(select(2, base:gsub("/", ""))) .. "/(.*)$"
  add(router, "files", "GET", base .. "/{path*}", 2, function(request)
    return serve(request, request.path:match(below))
  end)
  if base ~= "" and (options or {}).index ~= false then
    routes.add(state_of(router, "files", 2).routes, { method = "GET", pattern = base, place = place_at(2),
      handler = require("perilune.http.files").redirect, yields = true })
  end
  return router
end

-- ---- the router itself ----

--- What it can do, by name.
---@type string[]
M.NAMES = {}
for name in pairs(methods) do M.NAMES[#M.NAMES + 1] = name end
table.sort(M.NAMES)

metatable.__index = methods

function metatable.__tostring(router)
  return ("HTTP router of %d routes"):format(#rawget(router, STATE).routes.routes)
end

--- A router: an agent that answers each request by the handler of its route.
---@return perilune.http.router
function M.router()
  if not NOT_FOUND then refusals() end
  local state = { routes = routes.new(), uses = {}, inner = {} }
  function state.serve(request)
    begin(state)
    return state.serve(request)
  end
  local router = { [STATE] = state }
  function router.proceed(agent, request)
    middleware.begin(agent)
    return state.serve(request)
  end
  function router.failed(agent) return middleware.failed(agent, FAULT) end
  return setmetatable(router, metatable)
end

local NESTED_MAX = 8

local function list_into(rows, state, prefix, host, depth)
  for _, route in ipairs(state.routes.routes) do
    rows[#rows + 1] = { method = route.method == "*" and "any" or route.method, path = prefix .. route.pattern,
      host = host, place = route.place }
  end
  for _, one in ipairs(state.inner) do
    local path, name = prefix .. (one.prefix or ""), one.host or host
    if one.router and depth < NESTED_MAX then
      list_into(rows, rawget(one.router, STATE), path, name, depth + 1)
    else
      rows[#rows + 1] = { method = "any", path = path .. "/…", host = name, place = one.place }
    end
  end
end

--- All routes of a router and of those within it, for `perilune check --print`. nil: it is none.
---@param router any
---@return { method: string, path: string, host: string?, place: string }[]?
function M.list(router)
  if type(router) ~= "table" or getmetatable(router) ~= "http.router" then return nil end
  local rows = {}
  list_into(rows, rawget(router, STATE), "", nil, 1)
  return rows
end

return M
