--- The requests that handlers of http:// listeners get, and what becomes of what they return. Internal: the core calls
--- it (src/agent/http.c).
---
--- A request is a table. Its method, path, query and body are there; all else is made of its head when it is looked
--- at: [1] is the head as it came, [2] the id of the connection.
local core = require "perilune.http_core" -- in C: src/bind/http.c
local http = require "perilune.http"

local M = {}

-- Without the blanks behind it. A pattern would look at each of them again and again.
local function trim_end(text)
  local n = #text
  while n > 0 do
    local byte = text:byte(n)
    if byte ~= 32 and byte ~= 9 then break end
    n = n - 1
  end
  return n < #text and text:sub(1, n) or text
end

-- Each field of the head, in order.
local function each_field(request)
  local next_field = request[1]:gmatch "\r\n([^:\r\n]+):[ \t]*([^\r\n]*)"
  return function()
    local name, value = next_field()
    if name then return name, trim_end(value) end
  end
end

local headers_meta = { __metatable = "http.headers" }

-- Names are lower-case in the table, and in any case when they are asked for.
function headers_meta.__index(headers, name)
  local lower = type(name) == "string" and name:lower()
  return lower and lower ~= name and rawget(headers, lower) or nil
end

local function make_headers(request)
  local headers = {}
  for name, value in each_field(request) do
    name = name:lower()
    local before = headers[name]
    headers[name] = before and before .. (name == "cookie" and "; " or ", ") .. value or value
  end
  return setmetatable(headers, headers_meta)
end

local function unescape(text)
  if not text:find "[+%%]" then return text end
  return (text:gsub("+", " "):gsub("%%(%x%x)", function(digits) return string.char(tonumber(digits, 16)) end))
end

-- Of a name that is there several times, the first counts.
local function make_args(request)
  local args = {}
  for pair in (request.query or ""):gmatch "[^&]+" do
    local at = pair:find("=", 1, true)
    local name = unescape(at and pair:sub(1, at - 1) or pair)
    if args[name] == nil then args[name] = at and unescape(pair:sub(at + 1)) or "" end
  end
  return args
end

local function make_target(request) return (request[1]:match "^%S+ (%S+) ") end
local function make_version(request) return (request[1]:match "^%S+ %S+ HTTP/(%d%.%d)\r\n") end

-- That of the target counts, where it has one.
local function make_host(request)
  return request.target:match "^%a+://([^/?]*)" or request.headers.host
end

local MAKERS = {
  headers = make_headers, args = make_args, target = make_target, version = make_version, host = make_host,
  peer = function(request) return core.peer(request[2]) end,
  tls = function(request) return core.tls(request[2]) end,
}

local methods = {}

--- The body as JSON: its value, or nil and what is wrong with it.
function methods.json(request, options)
  if getmetatable(request) ~= "http.request" then error("request.json(…) must be request:json(…)", 2) end
  return require("perilune.json_core").decode(request.body, options)
end

--- The header fields as they came, in order: { { "Host", "example.org" }, … }.
function methods.fields(request)
  if getmetatable(request) ~= "http.request" then error("request.fields() must be request:fields()", 2) end
  local fields = {}
  for name, value in each_field(request) do fields[#fields + 1] = { name, value } end
  return fields
end

local request_meta = { __metatable = "http.request" }

function request_meta.__index(request, key)
  local maker = MAKERS[key]
  if not maker then return methods[key] end
  local value = maker(request)
  if value ~= nil then rawset(request, key, value) end
  return value
end

function request_meta.__tostring(request) return ("HTTP request %s %s"):format(request.method, request.path) end

local REFUSED = { conn = "a conn", ["http.websocket"] = "a WebSocket, which only proceed accepts",
  ["http.request"] = "a request", ["http.headers"] = "the headers of a request" }

local EXPECTED = "a reply of an HTTP agent is a string, a table (which is sent as JSON), nil, or made by "
  .. 'require "perilune.http"; it is %s'

--- What the core takes for a response: a string, or what perilune.http makes.
---@param value any what a handler has returned; not nil
---@param request perilune.http.request? that it answers; nil: it is none of a handler's own
---@return string|table
function M.ready(value, request)
  local kind = type(value)
  if kind == "string" then return value end
  if kind == "number" then return tostring(value) end
  local meta = getmetatable(value)
  if meta == "http.response" then return value end
  if meta == "http.websocket" and request then return require("perilune.http.websocket").answer(value, request) end
  if kind ~= "table" or REFUSED[meta] then error(EXPECTED:format(REFUSED[meta] or "a " .. kind), 0) end
  return http.json(value)
end

local SINGLE = [[
local meta, ready, setmetatable, type = ...
return function(_, agent, head, id, method, path, query, body)
  local request = { head, id, method = method or "GET", path = path, query = query, body = body or "" }
  local reply, action, more = agent:proceed(setmetatable(request, meta))
  if reply and type(reply) ~= "string" then reply = ready(reply, request) end
  if action == nil and more == nil then return reply end
  return reply, action, more
end]]

--- Hands one request to the agent. Each listener has a copy of its own, as with the loops of lua/perilune/runtime.lua.
---@return function
function M.single() return assert(loadstring(SINGLE, "=(frame)"))(request_meta, M.ready, setmetatable, type) end

return M
