--- The requests that handlers of http:// listeners get, and what becomes of what they return. Internal: the core calls
--- it (src/agent/http.c).
---
--- A request is a table. Its method, path, query and body are there; all else is made of its head when it is looked
--- at: [1] is the head as it came, [2] the id of the connection, [3] the agent, [4] the route that a router has found,
--- [5] its parameters; [6] is there within a namespace: the prefixes that were stripped; [7] behind one: those of
--- the route that was found; [8] the lines of trailers; and [9] where the body did not come with the head, or is read
--- in pieces all the same: "unread", "read" while it is being read, "over", or the message of what went wrong, whose
--- code is [10], and [11] the number of the request.
local core = require "perilune.http_core" -- in C: src/bind/http.c
local field_table = require "perilune.headers"
local http = require "perilune.http"
local percent = require "perilune.percent"

local inner = getmetatable(http)

local M = {}

-- Of a name that is there several times, the first counts.
local function make_args(request)
  local args = {}
  for name, value in percent.pairs(request.query or "") do
    if args[name] == nil then args[name] = value end
  end
  return args
end

local function make_target(request) return (request[1]:match "^%S+ (%S+) ") end
local function make_version(request) return (request[1]:match "^%S+ %S+ HTTP/(%d%.%d)\r\n") end

-- That of the target counts, where it has one.
local function make_host(request)
  return request.target:match "^%a+://([^/?]*)" or request.headers.host
end

-- A body that did not come with the head. Who asks for it waits, and goes on only if it comes.
local function read_body(request)
  local state = rawget(request, 9)
  if not state then return nil end
  if state ~= "unread" then
    error("request.body: this body is being read in pieces, by request:read(), and is nowhere whole", 3)
  end
  local body, why = core.read(request[2], request[11], true)
  if not body then error("request.body: the connection is " .. why, 3) end
  rawset(request, 9, nil)
  rawset(request, 8, core.trailers(request[2], request[11]))
  return body
end

-- Of a body that is not whole they are not there yet.
local function read_trailers(request)
  local state = rawget(request, 9)
  if state and state ~= "over" then
    error("request.trailers: they come behind the body, which is to be read first", 3)
  end
  return field_table.read("\r\n" .. (rawget(request, 8) or ""))
end

local MAKERS = {
  body = read_body, trailers = read_trailers,
  headers = function(request) return field_table.read(request[1]) end,
  args = make_args, target = make_target, version = make_version, host = make_host,
  peer = function(request) return core.peer(request[2]) end,
  tls = function(request) return core.tls(request[2]) end,
  conn = function(request) return (request[3] or {}).conn end,
  context = function() return {} end,
  params = function() return {} end,
  cookies = function(request) return require("perilune.http.cookies").read(request.headers.cookie) end,
}

local methods = {}

--- The body as JSON: its value, or nil and what is wrong with it.
function methods.json(request, options)
  if getmetatable(request) ~= "http.request" then error("request.json(…) must be request:json(…)", 2) end
  return require("perilune.json_core").decode(request.body, options)
end

local function fail_reading(request, message, code)
  rawset(request, 9, message)
  rawset(request, 10, code)
  return nil, message, code
end

--- The next piece of the body; nil: that was all of it, or with a message and a code: it does not come whole.
function methods.read(request)
  if getmetatable(request) ~= "http.request" then error("request.read() must be request:read()", 2) end
  local state = rawget(request, 9)
  if not state then -- it is there
    rawset(request, 9, "over")
    return request.body ~= "" and request.body or nil
  end
  if state == "over" then return nil end
  if state ~= "unread" and state ~= "read" then return nil, state, rawget(request, 10) end
  rawset(request, 9, "read")
  local piece, message, code = core.read(request[2], request[11], false)
  if not piece then return fail_reading(request, message, code) end
  if piece ~= "" then return piece end
  rawset(request, 9, "over")
  rawset(request, 8, core.trailers(request[2], request[11]))
  return nil
end

--- The header fields as they came, in order: { { "Host", "example.org" }, … }.
function methods.fields(request)
  if getmetatable(request) ~= "http.request" then error("request.fields() must be request:fields()", 2) end
  local fields = {}
  for name, value in field_table.each(request[1]) do fields[#fields + 1] = { name, value } end
  return fields
end

--- A form of the body, as a browser sends it: names and values.
function methods.form(request, options)
  if getmetatable(request) ~= "http.request" then error("request.form(…) must be request:form(…)", 2) end
  return require("perilune.http.forms").form(request, options)
end

--- The parts of a multipart body.
function methods.multipart(request, options)
  if getmetatable(request) ~= "http.request" then error("request.multipart(…) must be request:multipart(…)", 2) end
  return require("perilune.http.multipart").parts(request, options)
end

local request_meta = { __metatable = "http.request" }

-- What a router has found is in the request already, and looked up there, since a field more would make it grow.
local FOUND = {
  agent = function(request) return request[3] or nil end,
  params = function(request) return request[5] or nil end,
  route = function(request)
    local route = request[4]
    return route and (request[7] or request[6] or "") .. route.pattern or nil
  end,
}

function request_meta.__index(request, key)
  local found = FOUND[key]
  local there = found and found(request)
  if there ~= nil then return there end
  local maker = MAKERS[key]
  if not maker then return methods[key] end
  local value = maker(request)
  if value ~= nil then rawset(request, key, value) end
  return value
end

function request_meta.__tostring(request) return ("HTTP request %s %s"):format(request.method, request.path) end

local ONLY_PROCEED = "a response in pieces can be returned by proceed, and not be sent otherwise"

-- One that is written in pieces is written here and now: the next request waits as it does for any handler that waits.
local function ready_response(response, request, action)
  local answers = rawget(response, 5)
  if not answers then return response end
  if not request then error(ONLY_PROCEED, 0) end
  return answers(response, request, action == "close")
end

-- A table as JSON: what the core takes for a response, and reads at once, before any other is made. What is large is
-- not kept until then.
local KEPT_BYTES = 65536
local of_table = { 200, inner.json_field, "", false }

local function ready_table(value)
  local text = core.encode_reply(value)
  if #text > KEPT_BYTES then return { 200, inner.json_field, text, false } end
  of_table[3] = text
  return of_table
end

--- What the core takes for a response: a string, or what perilune.http makes. nil: the request is answered.
---@param value any what a handler has returned; not nil
---@param request table? that it is for, where proceed has returned it
---@param action any
---@return string|table|nil
function M.ready(value, request, action)
  local kind = type(value)
  if kind == "string" then return value end
  if kind == "number" then return tostring(value) end
  local meta = getmetatable(value)
  if not meta and kind == "table" then return ready_table(value) end
  if meta == "http.response" then return ready_response(value, request, action) end
  if meta == "http.websocket" and request then
    if rawget(request, 9) == "unread" then request.body = read_body(request) end -- what follows it is no HTTP
    return require("perilune.http.websocket").answer(value, request)
  end
  if kind ~= "table" or inner.refused[meta] then inner.refuse(value) end
  return ready_table(value)
end

-- ---- whose fault ----

-- What calls a handler has names for it that say nothing to who wrote it.
local CALLED_AS = { proceed = true, serve = true, next_handler = true, handler = true }

-- Of the handler that a router has found; nil: there is none.
local function blamed(request)
  local route = rawget(request, 4)
  if not route then return nil end
  local method = route.method == "*" and request.method or route.method
  return { called = route.own, called_name = ("the handler of %s %s"):format(method, request.route),
    called_as = CALLED_AS, made_at = route.place }
end

-- The handlers of routers that have returned something odd, by agent, until the core has looked at it.
local odd = setmetatable({}, { __mode = "k" })

-- It is an action that is none, or too much: what the core says of that comes when the request is gone.
local function note_odd(agent, request) odd[agent] = blamed(request) end

local LEVELS_MAX, LOCALS_MAX = 60, 100

-- The request of a call that has failed: a local of the loop below, which is on the stack whatever has left it.
local function failed_request(co)
  for level = 0, LEVELS_MAX do
    local info = debug.getinfo(co, level, "S")
    if not info then return nil end
    for i = 1, info.source == "=(frame)" and LOCALS_MAX or 0 do
      local name, value = debug.getlocal(co, level, i)
      if not name then break end
      if getmetatable(value) == "http.request" then return value end
    end
  end
end

--- The handler of a router in place of the router's proceed, for a fault whose stack has no line of it.
---@param options perilune.blame_options is changed
---@param co thread
---@param agent any
function M.blame(options, co, agent)
  local request = failed_request(co)
  local found = request and blamed(request) or agent ~= nil and not request and odd[agent]
  for key, value in pairs(found or {}) do options[key] = value end
end

--- A request that no client has sent, for specifications of handlers.
---@param head string as it would have come
---@param fields table method, path, query, body, peer
---@param agent any
---@return perilune.http.request
function M.made(head, fields, agent)
  local request = { head, 0, agent or false, false, false }
  for name, value in pairs(fields) do request[name] = value end
  return setmetatable(request, request_meta)
end

-- One with trailers, or whose body is still to be read.
local function begin(head, id, agent, method, path, query, body, rest)
  local request = { head, id, agent, false, false, method = method, path = path, query = query }
  if type(rest) == "number" then
    request[9], request[11] = "unread", rest
  else
    request[8], request.body = rest, body or ""
  end
  return request
end

local SINGLE = [[
local meta, ready, note_odd, begin, setmetatable, type, compress = ...
return function(_, agent, head, id, method, path, query, body, rest)
  local request
  if rest then
    request = begin(head, id, agent, method or "GET", path, query, body, rest)
  else
    request = { head, id, agent, false, false,
      method = method or "GET", path = path, query = query, body = body or "" }
  end
  local reply, action, more = agent:proceed(setmetatable(request, meta))
  %s
  if reply and type(reply) ~= "string" then reply = ready(reply, request, action) end
  if action == nil and more == nil then return reply end
  if action ~= "close" or more ~= nil then note_odd(agent, request) end
  return reply, action, more
end]]

local COMPRESSED = "if reply then reply = compress(reply, request) end"

--- Hands one request to the agent. Each listener has a copy of its own, as with the loops of lua/perilune/runtime.lua.
---@param compresses boolean the listener's `compress`
---@return function
function M.single(compresses)
  local source = SINGLE:format(compresses and COMPRESSED or "")
  return assert(loadstring(source, "=(frame)"))(request_meta, M.ready, note_odd, begin, setmetatable, type,
    compresses and require("perilune.http.compress").reply or nil)
end

return M
