--- HTTP responses: what a handler of an http:// listener may return beside a string, a table and nil.
---
---     local http = require "perilune.http"
---     return http.response { status = 201, headers = { Location = "/users/7" }, body = "made" }
---
--- A response is checked where it is made, so that an error names the line of the script. It may be kept and returned
--- again and again.
local M = {}

local require = require -- while handlers run, the global one is the script's
local core -- in C: src/bind/http.c
local field_table = require "perilune.headers"
local printable = require "perilune.printable"

local STATUS_MIN, STATUS_MAX = 200, 599
local FIELDS_MAX = 64 * 1024

-- What is made by the core, and what the core could not keep.
local MADE = {
  ["content-length"] = "it is made from the body",
  date = "it is made here",
  ["keep-alive"] = "connections are kept here",
  ["transfer-encoding"] = "bodies are framed here",
  trailer = "trailers are sent without an announcement",
  upgrade = "the only other protocol is that of http.websocket(…)",
}

local NO_BODY = { [204] = true, [304] = true }

local POSITIONS = { status = 1, body = 3 }

-- Positions: status, fields as they are sent, body, whether the connection ends. Those of lua/perilune/http/ have more:
-- 5, a function (response, request, closes) that answers by itself, and from 6 on what that needs.
local response = { __metatable = "http.response" }
local response_methods = {}

function response.__index(self, key)
  local position = POSITIONS[key]
  if position then return rawget(self, position) end
  if key == "headers" then return field_table.read("\r\n" .. rawget(self, 2)) end
  return response_methods[key]
end

function response.__newindex(_, key)
  error(("a response is made whole, by http.response{ … }, and not changed: %s"):format(printable.key(key)), 2)
end

function response.__tostring(self) return ("HTTP response %d"):format(rawget(self, 1)) end

local function check_status(status, level)
  if type(status) == "number" and status == math.floor(status) and status >= STATUS_MIN and status <= STATUS_MAX then
    return status
  end
  error(("http: a status is a whole number from %d to %d, got %s"):format(STATUS_MIN, STATUS_MAX,
    printable.value(status)), level + 1)
end

local function check_name(name, level)
  if not field_table.is_token(name) then
    error("http: the name of a header field is a word such as Cache-Control, got " .. printable.value(name), level + 1)
  end
  local why = MADE[name:lower()]
  if why then error(("http: header field %s: %s"):format(name, why), level + 1) end
end

local function field_line(name, value, level)
  if type(value) == "number" then value = tostring(value) end
  if type(value) ~= "string" then
    error(("http: header field %s: expects a text, or a list of them, got %s"):format(name, printable.value(value)),
      level + 1)
  end
  -- Whoever can end a line can write the rest of the response.
  if value:find "[%z\1-\8\10-\31\127]" then
    error(("http: header field %s: its value has a control character, at byte %d"):format(name,
      value:find "[%z\1-\8\10-\31\127]"), level + 1)
  end
  return name .. ": " .. value .. "\r\n"
end

local function sorted_names(headers, level)
  local names = {}
  for name in next, headers do
    check_name(name, level + 1)
    names[#names + 1] = name
  end
  table.sort(names)
  return names
end

-- Connection: close is the one that says something of its own.
local function closes_by(value, level)
  if type(value) == "string" and value:lower() == "close" then return true end
  error("http: header field Connection: the only value is \"close\", got " .. printable.value(value), level + 1)
end

--- The lines of the fields; has it this one?; does the connection end?
local function field_lines(headers, level)
  local lines, has_type, closes = {}, false, false
  for _, name in ipairs(sorted_names(headers, level + 1)) do
    local value, lower = rawget(headers, name), name:lower()
    if lower == "connection" then
      closes = closes_by(value, level + 1)
    else
      has_type = has_type or lower == "content-type"
      for _, item in ipairs(type(value) == "table" and value or { value }) do
        lines[#lines + 1] = field_line(name, item, level + 1)
      end
    end
  end
  return lines, has_type, closes
end

local function encode(value, level)
  local ok, text = pcall(require("perilune.json_core").encode, value)
  if ok then return text end
  error("http: " .. tostring(text):gsub("^json%.encode: ", ""), level + 1)
end

-- The body as bytes, and what it is where nobody says so.
local function body_of(body, level)
  if body == nil then return "", nil end
  if type(body) == "number" then body = tostring(body) end
  if type(body) == "string" then return body, "text/plain; charset=utf-8" end
  if type(body) == "table" then return encode(body, level + 1), "application/json" end
  error("http: a body is a string, or a table for JSON, got " .. printable.value(body), level + 1)
end

local function make(status, headers, body, kind, level)
  status = check_status(status, level + 1)
  if headers ~= nil and type(headers) ~= "table" then
    error("http: headers: expects a table such as { Location = \"/\" }, got " .. printable.value(headers), level + 1)
  end
  local bytes, default_kind = body_of(body, level + 1)
  if bytes ~= "" and NO_BODY[status] then error(("http: a %d has no body"):format(status), level + 1) end
  local lines, has_type, closes = field_lines(headers or {}, level + 1)
  kind = kind or default_kind
  if kind and not has_type and not NO_BODY[status] then table.insert(lines, 1, "Content-Type: " .. kind .. "\r\n") end
  local fields = table.concat(lines)
  if #fields > FIELDS_MAX then
    error(("http: the header fields have %d bytes, at most %d are sent"):format(#fields, FIELDS_MAX), level + 1)
  end
  return setmetatable({ status, fields, bytes, closes }, response)
end

-- The lines of the fields without those of the names in `gone`.
local function lines_without(fields, gone)
  local kept = {}
  for line, name in fields:gmatch "(([^:\r\n]+):[^\r\n]*\r\n)" do
    if not gone[name:lower()] then kept[#kept + 1] = line end
  end
  return table.concat(kept)
end

-- The names of header fields to be set anew, in lower case, and those that have a value.
local function split_fields(headers)
  local gone, given = {}, {}
  for name, value in next, headers do
    if type(name) == "string" then gone[name:lower()] = true end
    if value ~= false then given[name] = value end
  end
  return gone, given
end

local CHANGES = { status = true, headers = true }

local function check_changes(changes, level)
  if type(changes) ~= "table" then
    error("response:with: expects a table such as { headers = { Vary = \"Accept\" } }, got "
      .. printable.value(changes), level + 1)
  end
  for key in next, changes do
    if not CHANGES[key] then
      error(("response:with: unknown key %s; it has status, headers"):format(printable.key(key)), level + 1)
    end
  end
end

-- A copy with another status, and with these fields in place of those of the same names; false takes one away.
local function with(old, status, headers, level)
  local new = {}
  for position, value in next, old do new[position] = value end
  if status ~= nil then new[1] = check_status(status, level + 1) end
  if new[3] and new[3] ~= "" and NO_BODY[new[1]] then error(("http: a %d has no body"):format(new[1]), level + 1) end
  if headers ~= nil then
    local gone, given = split_fields(headers)
    for name in next, headers do check_name(name, level + 1) end
    local lines, _, closes = field_lines(given, level + 1)
    new[2] = lines_without(old[2], gone) .. table.concat(lines)
    if #new[2] > FIELDS_MAX then
      error(("http: the header fields have %d bytes, at most %d are sent"):format(#new[2], FIELDS_MAX), level + 1)
    end
    new[4] = closes or new[4] and not gone.connection
  end
  return setmetatable(new, response)
end

--- The same response with another status, or with other header fields: each takes the place of those of its name, and
--- `false` takes one away.
function response_methods.with(self, changes)
  if getmetatable(self) ~= "http.response" then error("response.with(…) must be response:with(…)", 2) end
  check_changes(changes, 2)
  local headers = rawget(changes, "headers")
  if headers ~= nil and type(headers) ~= "table" then
    error("response:with: headers: expects a table, got " .. printable.value(headers), 2)
  end
  return (with(self, rawget(changes, "status"), headers, 2)) -- no tail call: its errors name the line of who calls
end

local OPTIONS = { status = true, headers = true, body = true }
-- As others call them.
local MEANT = { code = "status", statusCode = "status", status_code = "status", fields = "headers", content = "body",
  data = "body", text = "body" }

-- In these functions no call of make() is a tail call, which would leave no frame: errors name the line of who calls.

--- Any response.
---@param options { status: integer?, headers: table<string, string|number|string[]>?, body: string|number|table|nil }
---@return perilune.http.response
function M.response(options)
  if type(options) ~= "table" then
    error("http.response: expects a table such as { status = 201, body = \"…\" }, got " .. printable.value(options), 2)
  end
  for key in next, options do
    if not OPTIONS[key] then
      local hint = MEANT[key] and (" (it is called %s)"):format(MEANT[key])
        or require("perilune.suggest").hint(key, { "status", "headers", "body" })
      error(("http.response: unknown key %s%s; it has status, headers, body"):format(printable.key(key), hint), 2)
    end
  end
  return (make(rawget(options, "status") or 200, rawget(options, "headers"), rawget(options, "body"), nil, 2))
end

local function text_body(name, body)
  if type(body) == "string" or type(body) == "number" then return body end
  error(("http.%s: expects a text, got %s"):format(name, printable.value(body)), 3)
end

--- Plain text.
---@param body string
---@param status integer? default: 200
---@param headers table?
---@return perilune.http.response
function M.text(body, status, headers)
  return (make(status or 200, headers, text_body("text", body), nil, 2))
end

--- HTML.
---@param body string
---@param status integer? default: 200
---@param headers table?
---@return perilune.http.response
function M.html(body, status, headers)
  return (make(status or 200, headers, text_body("html", body), "text/html; charset=utf-8", 2))
end

--- JSON of any value, as perilune.json.encode() has it.
---@param value any
---@param status integer? default: 200
---@param headers table?
---@return perilune.http.response
function M.json(value, status, headers)
  if getmetatable(value) == "http.schema" then return (require("perilune.http.takes").json(value, status)) end
  return (make(status or 200, headers, encode(value, 2), "application/json", 2))
end

local REDIRECTS = { [301] = true, [302] = true, [303] = true, [307] = true, [308] = true }

--- Sends the client elsewhere.
---@param location string a path or an address, percent-encoded where need be
---@param status integer? 301, 302, 303, 307 or 308; default: 302
---@return perilune.http.response
function M.redirect(location, status)
  if type(location) ~= "string" or not location:find "^[!-~]+$" then
    error("http.redirect: expects a path or an address without blanks, got " .. printable.value(location), 2)
  end
  if status ~= nil and not REDIRECTS[status] then
    error("http.redirect: the status is 301, 302, 303, 307 or 308, got " .. printable.value(status), 2)
  end
  return (make(status or 302, { Location = location }, "", nil, 2))
end

--- What went wrong, as JSON: {"error":"no such user"}.
---@param status integer 400 to 599
---@param message string? default: the status in words
---@param headers table?
---@return perilune.http.response
function M.error(status, message, headers)
  if type(status) ~= "number" or status < 400 then
    error("http.error: expects a status from 400 to 599, got " .. printable.value(status), 2)
  end
  if message ~= nil and type(message) ~= "string" then
    error("http.error: expects a text, got " .. printable.value(message), 2)
  end
  core = core or require "perilune.http_core"
  local phrase = core.phrase(check_status(status, 2))
  return (make(status, headers, encode({ error = message or phrase }, 2), "application/json", 2))
end

-- What is loaded when it is first asked for, and costs nobody else anything: which module has it, under its name.
local LATE = {}
for module, names in pairs {
  ["perilune.http.client"] = { "client", "get", "post", "request" },
  ["perilune.http.router"] = { "router" },
  ["perilune.http.middleware"] = { "before", "after", "around", "when" },
  ["perilune.http.schema"] = { "schema" },
  ["perilune.http.cookies"] = { "cookie", "signed_cookies" },
  ["perilune.http.guards"] = { "basic_auth", "bearer", "rate_limit" },
  ["perilune.http.fields"] = { "created", "version", "cors", "cache_control", "request_id" },
  ["perilune.http.compress"] = { "compress" },
  ["perilune.http.telling"] = { "logged", "counted", "timed", "counts" },
  ["perilune.http.stream"] = { "stream" },
  ["perilune.http.websocket"] = { "websocket" },
  ["perilune.http.events"] = { "events" },
  ["perilune.http.files"] = { "file", "files" },
} do
  for _, name in ipairs(names) do LATE[name] = module end
end

-- Tables that are no data.
local REFUSED = { conn = "a conn", ["http.websocket"] = "a WebSocket, which only proceed accepts",
  ["http.request"] = "a request", ["http.headers"] = "the headers of a request",
  ["http.received"] = "what a client has received: http.response { status = r.status, body = r.body } passes it on" }

local EXPECTED = "a reply of an HTTP agent is a string, a table (which is sent as JSON), nil, or made by "
  .. 'require "perilune.http"; it is %s'

local JSON_FIELD = "Content-Type: application/json\r\n"

-- Raises for what is no response, as the core does.
local function refuse(value) error(EXPECTED:format(REFUSED[getmetatable(value)] or "a " .. type(value)), 0) end

--- What a handler's value is as a response. For modules of perilune.http.
local function made(value)
  if value == nil or value == false then return make(204, nil, nil, nil, 1) end
  local meta = getmetatable(value)
  if meta == "http.response" then return value end
  if REFUSED[meta] then refuse(value) end
  local kind = type(value)
  if kind == "table" then return setmetatable({ 200, JSON_FIELD, encode(value, 1), false }, response) end
  return make(200, nil, value, nil, 1)
end

--- Errors of the toolkit: {"error":"Not Found","description":"…"}. For modules of perilune.http.
local function problem(status, description, headers)
  core = core or require "perilune.http_core"
  local text = encode({ error = core.phrase(status), description = description }, 1)
  return make(status, headers, text, "application/json", 1)
end

-- What stands for the answer to a WebSocket's handshake where responses are told of.
local switching = setmetatable({ 101, "", "", false }, response)

-- All but the first are for modules of perilune.http.
local late = {
  late = { LATE }, made = made, problem = problem, with = with, switching = switching, make = make,
  refused = REFUSED, refuse = refuse, response = response, field_line = field_line, check_name = check_name,
  json_field = JSON_FIELD,
}
-- late.protect, set by perilune.app, makes a library read-only for scripts.

function late.__index(_, name)
  if LATE[name] then M[name] = require(LATE[name])[name] end
  return rawget(M, name)
end

return setmetatable(M, late)
