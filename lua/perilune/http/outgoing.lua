--- Requests as they are sent: the method, the fields, the body, checked where the script makes them. Internal. What is
--- wrong raises, without a position: client.lua says whose line it is.
local encoding = require "perilune.encoding_core"
local field_table = require "perilune.headers"
local json = require "perilune.json_core"
local printable = require "perilune.printable"
local urls = require "perilune.http.url"

local M = {}

local FIELDS_MAX = 64 * 1024

-- What is made here, and what could not be kept.
local MADE = {
  ["content-length"] = "it is made from the body",
  expect = "a body is sent at once",
  ["keep-alive"] = "connections are kept by the pool",
  te = "trailers are always taken",
  trailer = "bodies are sent without trailers",
  ["transfer-encoding"] = "it is made from the body",
  upgrade = "connections speak HTTP/1.1 to their end",
}

---@class perilune.http.fields what is set of the header of a request: by lower-case name, the lines of it
---@field [string] string

local function check_name(name)
  if not field_table.is_token(name) then
    error("headers: the name of a field is a word such as Accept, got " .. printable.value(name), 0)
  end
  local why = MADE[name:lower()]
  if why then error(("headers: %s: %s"):format(name, why), 0) end
end

-- Whoever can end a line can write the rest of the request.
local function line_of(name, value)
  if type(value) == "number" then value = tostring(value) end
  if type(value) ~= "string" then
    error(("headers: %s: expects a text, or a list of them, got %s"):format(name, printable.value(value)), 0)
  end
  local at = value:find "[%z\1-\8\10-\31\127]"
  if at then error(("headers: %s: its value has a control character, at byte %d"):format(name, at), 0) end
  return name .. ": " .. value .. "\r\n"
end

local function lines_of(name, value)
  if type(value) ~= "table" then return line_of(name, value) end
  local lines = {}
  for i, item in ipairs(value) do lines[i] = line_of(name, item) end
  return table.concat(lines)
end

local function check_connection(value)
  if type(value) == "string" and value:lower() == "close" then return end
  error('headers: Connection: the only value is "close", got ' .. printable.value(value), 0)
end

local function check_host(value)
  if type(value) == "string" and value:find "^[%w._:%[%]-]+$" then return end
  error('headers: Host: expects a host such as "example.org" or "example.org:8080", got ' .. printable.value(value), 0)
end

--- The fields of a table of headers, over those of `base`. `false` leaves one of base's out.
---@param headers any
---@param base perilune.http.fields?
---@return perilune.http.fields
function M.fields(headers, base)
  local fields = {}
  for name, lines in next, base or {} do fields[name] = lines end
  if headers == nil then return fields end
  if type(headers) ~= "table" then
    error("headers: expects a table such as { Accept = \"application/json\" }, got " .. printable.value(headers), 0)
  end
  for name, value in next, headers do
    check_name(name)
    local lower = name:lower()
    if lower == "connection" and value then check_connection(value) end
    if lower == "host" and value then check_host(value) end
    fields[lower] = value ~= false and lines_of(name, value) or nil
  end
  return fields
end

--- { "name", "password" } as a field.
function M.authorization(auth)
  local user, password = type(auth) == "table" and auth[1], type(auth) == "table" and auth[2]
  if type(user) ~= "string" or type(password) ~= "string" then
    error('auth: expects { "name", "password" }, got ' .. printable.value(auth), 0)
  end
  if user:find "[%z\1-\31\127:]" or password:find "[%z\1-\31\127]" then
    error("auth: a name has no colon, and neither of them a control character", 0)
  end
  return "Authorization: Basic " .. encoding.encode_base64(user .. ":" .. password) .. "\r\n"
end

--- A method, in capitals as servers expect it.
function M.method(method)
  if not field_table.is_token(method) or #method > 32 then
    error('method: expects a word such as "GET", got ' .. printable.value(method), 0)
  end
  local upper = method:upper()
  if upper == "CONNECT" then error("method: CONNECT is for proxies, and leads to bytes: perilune.connect", 0) end
  return upper
end

---@class perilune.http.body
---@field bytes string?
---@field pieces (fun(): string?)?
---@field kind string? what it is where no header says so

--- What is to be sent behind the head; nil: nothing.
---@return perilune.http.body?
function M.body(body, form)
  if form ~= nil then
    if body ~= nil then error("body, form: a request has one of them", 0) end
    return { bytes = urls.pairs("form", form, true), kind = "application/x-www-form-urlencoded" }
  end
  if body == nil then return nil end
  local kind = type(body)
  if kind == "number" then body, kind = tostring(body), "string" end
  if kind == "string" then return { bytes = body } end
  if kind == "function" then return { pieces = body } end
  if kind ~= "table" then
    error("body: expects a text, a table for JSON, or a function that returns pieces, got " .. printable.value(body), 0)
  end
  local ok, text = pcall(json.encode, body)
  if not ok then error("body: " .. tostring(text):gsub("^json%.encode: ", ""), 0) end
  return { bytes = text, kind = "application/json" }
end

local EXPECTS_BODY = { POST = true, PUT = true, PATCH = true }

local function add_body_fields(out, request)
  local body = request.body
  if body and body.kind and not request.fields["content-type"] then
    out[#out + 1] = "Content-Type: " .. body.kind .. "\r\n"
  end
  if body and body.pieces then
    out[#out + 1] = "Transfer-Encoding: chunked\r\n"
  elseif body or EXPECTS_BODY[request.method] then
    out[#out + 1] = ("Content-Length: %d\r\n"):format(body and #body.bytes or 0)
  end
end

-- Those of a client are the same for most of its requests.
local kept_lines = setmetatable({}, { __mode = "k" })

-- All but Host, in the order of their names.
local function field_lines(fields)
  local kept = kept_lines[fields]
  if kept then return kept end
  local names = {}
  for name in next, fields do
    if name ~= "host" then names[#names + 1] = name end
  end
  table.sort(names)
  for i, name in ipairs(names) do names[i] = fields[name] end
  kept_lines[fields] = table.concat(names)
  return kept_lines[fields]
end

--- The head of a request. `through`: it goes to a proxy, which is told all of the address.
---@param request perilune.http.outgoing
---@return string
function M.head(request, through)
  local url, fields = request.url, request.fields
  local out = { ("%s %s HTTP/1.1\r\n"):format(request.method, through and urls.text(url) or url.target) }
  out[2] = fields.host or ("Host: %s\r\n"):format(url.authority)
  if request.compress and not fields["accept-encoding"] then out[#out + 1] = "Accept-Encoding: gzip\r\n" end
  out[#out + 1] = field_lines(fields)
  add_body_fields(out, request)
  out[#out + 1] = "\r\n"
  local head = table.concat(out)
  if #head > FIELDS_MAX then
    error(("headers: the head has %d bytes, at most %d are sent"):format(#head, FIELDS_MAX), 0)
  end
  return head
end

return M
