--- HTTP responses: what a handler of an http:// listener may return beside a string, a table and nil.
---
---     local http = require "perilune.http"
---     return http.response { status = 201, headers = { Location = "/users/7" }, body = "made" }
---
--- A response is checked where it is made, so that an error names the line of the script. It may be kept and returned
--- again and again.
local M = {}

local core -- in C: src/bind/http.c
local printable = require "perilune.printable"

local STATUS_MIN, STATUS_MAX = 200, 599
local FIELDS_MAX = 64 * 1024

-- What is made by the core, and what the core could not keep.
local MADE = {
  ["content-length"] = "it is made from the body",
  date = "it is made here",
  ["keep-alive"] = "connections are kept here",
  ["transfer-encoding"] = "bodies are sent whole",
  trailer = "bodies are sent whole",
  upgrade = "the only other protocol is that of http.websocket(…)",
}

local NO_BODY = { [204] = true, [304] = true }

local POSITIONS = { status = 1, body = 3 }

-- Positions: status, fields as they are sent, body, whether the connection ends.
local response = { __metatable = "http.response" }

function response.__index(self, key)
  local position = POSITIONS[key]
  return position and rawget(self, position)
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
  if type(name) ~= "string" or not name:find "^[%w!#$%%&'*+.^_`|~-]+$" then
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

local OPTIONS = { status = true, headers = true, body = true }

--- Any response.
---@param options { status: integer?, headers: table<string, string|number|string[]>?, body: string|number|table|nil }
---@return perilune.http.response
function M.response(options)
  if type(options) ~= "table" then
    error("http.response: expects a table such as { status = 201, body = \"…\" }, got " .. printable.value(options), 2)
  end
  for key in next, options do
    if not OPTIONS[key] then
      error(("http.response: unknown key %s; it has status, headers, body"):format(printable.key(key)), 2)
    end
  end
  return make(rawget(options, "status") or 200, rawget(options, "headers"), rawget(options, "body"), nil, 2)
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
  return make(status or 200, headers, text_body("text", body), nil, 2)
end

--- HTML.
---@param body string
---@param status integer? default: 200
---@param headers table?
---@return perilune.http.response
function M.html(body, status, headers)
  return make(status or 200, headers, text_body("html", body), "text/html; charset=utf-8", 2)
end

--- JSON of any value, as perilune.json.encode() has it.
---@param value any
---@param status integer? default: 200
---@param headers table?
---@return perilune.http.response
function M.json(value, status, headers)
  return make(status or 200, headers, encode(value, 2), "application/json", 2)
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
  return make(status or 302, { Location = location }, "", nil, 2)
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
  return make(status, headers, encode({ error = message or phrase }, 2), "application/json", 2)
end

-- What is loaded when it is first asked for, and costs nobody else anything: which module has it, under its name.
local LATE = {
  websocket = "perilune.http.websocket",
}
local late = { late = { LATE } }
-- late.protect, set by perilune.app, makes a library read-only for scripts.

function late.__index(_, name)
  if LATE[name] then M[name] = require(LATE[name])[name] end
  return rawget(M, name)
end

return setmetatable(M, late)
