--- Addresses of HTTP: what is in one, what a Location leads to, and what a query is made of. Internal.
local address = require "perilune.config.address"
local encoding = require "perilune.encoding_core"
local printable = require "perilune.printable"

local M = {}

local PORTS = { http = 80, https = 443 }
local BYTES_MAX = 8192

---@class perilune.http.url
---@field scheme "http"|"https"
---@field host string lower-case, without brackets
---@field port integer
---@field authority string as in a Host field: the port is left out where it is the usual one
---@field target string the path, and the query behind "?"; it begins with "/"

local function bracketed(host) return host:find(":", 1, true) and "[" .. host .. "]" or host end

local function authority_of(scheme, host, port)
  local name = bracketed(host)
  return port == PORTS[scheme] and name or ("%s:%d"):format(name, port)
end

local CREDENTIALS = 'a name and a password in an address end up in logs: leave them out, and write '
  .. 'auth = { "name", "password" }'

-- "host", "host:8080", "[::1]:8080" → host, port; or nil, message
local function parse_authority(scheme, text)
  if text:find("@", 1, true) then return nil, CREDENTIALS end
  if text == "" then return nil, "there is no host in it" end
  local has_port = text:find "^%[[^%]]*%]:" or not text:find "^%[" and text:find(":", 1, true)
  if text:sub(-1) == ":" then return nil, "there is no port behind the colon" end
  local parsed, message = address.parse("tcp://" .. text .. (has_port and "" or ":" .. PORTS[scheme]))
  if not parsed then return nil, message end
  if parsed.host == "" then return nil, "there is no host in it" end
  if parsed.port == 0 then return nil, "a port is a number from 1 to 65535" end
  if parsed.host:find("%", 1, true) then return nil, "an address of one link has no place in it" end
  return parsed.host:lower(), parsed.port
end

-- What must be percent-encoded.
local function check_target(target)
  local at = target:find "[^!-~]"
  if not at then return true end
  local byte = target:byte(at)
  local what = byte == 32 and "a blank" or byte < 32 and "a control character" or byte == 127 and "a control character"
    or "a byte that is not ASCII"
  return nil, ("its path or query has %s, at byte %d of them: percent-encode the parts with "
    .. "perilune.encoding.encode_url(…), or give the query as query = { … }"):format(what, at)
end

local function split_fragment(text) return (text:gsub("#.*$", "")) end

local NO_SCHEME = 'expects an address such as "http://example.org/path", got %s'

--- Reads an address.
---@param text any
---@return perilune.http.url? url nil: it is none
---@return string? message
function M.parse(text)
  if type(text) ~= "string" then return nil, NO_SCHEME:format(printable.value(text)) end
  if #text > BYTES_MAX then return nil, ("the address has %d bytes, at most %d are sent"):format(#text, BYTES_MAX) end
  local scheme, rest = text:match "^(%a[%w+.-]*)://(.*)$"
  if not scheme then return nil, NO_SCHEME:format(printable.quote(text)) end
  scheme = scheme:lower()
  if not PORTS[scheme] then
    return nil, ("expects http:// or https://, got %s"):format(printable.quote(text))
  end
  rest = split_fragment(rest)
  local authority, target = rest:match "^([^/?]*)(.*)$"
  local host, port = parse_authority(scheme, authority)
  if not host then return nil, ("%s: %s"):format(printable.quote(text), port) end
  local ok, message = check_target(target)
  if not ok then return nil, ("%s: %s"):format(printable.quote(text), message) end
  if target:sub(1, 1) ~= "/" then target = "/" .. target end
  return { scheme = scheme, host = host, port = port, target = target, authority = authority_of(scheme, host, port) }
end

--- As text.
---@param url perilune.http.url
---@return string
function M.text(url) return ("%s://%s%s"):format(url.scheme, url.authority, url.target) end

--- Do they lead to the same server, in the same way?
function M.same_origin(a, b) return a.scheme == b.scheme and a.host == b.host and a.port == b.port end

--- What perilune.connect() calls the server.
function M.address(url)
  return ("%s://%s:%d"):format(url.scheme == "https" and "tls" or "tcp", bracketed(url.host), url.port)
end

-- RFC 3986, 5.2.4.
local function remove_dots(path)
  local out = {}
  for segment, slash in path:sub(2):gmatch "([^/]*)(/?)" do
    local is_last = slash == ""
    if segment == ".." then
      out[#out] = nil
      if is_last then out[#out + 1] = "" end
    elseif segment ~= "." then
      out[#out + 1] = segment
    elseif is_last then
      out[#out + 1] = ""
    end
    if is_last then break end
  end
  return "/" .. table.concat(out, "/")
end

local function merge(base, target)
  local path = base.target:match "^[^?]*"
  if target == "" then return base.target end
  if target:sub(1, 1) == "?" then return path .. target end
  local relative, query = target:match "^([^?]*)(.*)$"
  if relative:sub(1, 1) ~= "/" then relative = path:match "^(.*/)" .. relative end
  return remove_dots(relative) .. query
end

--- Where a reference leads to that came from `base`: RFC 3986, 5.2.
---@param base perilune.http.url
---@param reference string
---@return perilune.http.url? url
---@return string? message
function M.resolve(base, reference)
  reference = split_fragment(reference)
  if reference:find "^%a[%w+.-]*:" then return M.parse(reference) end
  if reference:sub(1, 2) == "//" then return M.parse(base.scheme .. ":" .. reference) end
  local ok, message = check_target(reference)
  if not ok then return nil, message end
  return M.parse(("%s://%s%s"):format(base.scheme, base.authority, merge(base, reference)))
end

-- ---- queries and forms -------------------------------------------------------------

local SCALARS = { string = true, number = true, boolean = true }

local function add_pair(out, what, name, value, encode)
  if not SCALARS[type(value)] then
    error(("%s: %s: expects a text, a number, true or false, or a list of them, got %s"):format(what,
      printable.key(name), printable.value(value)), 0)
  end
  out[#out + 1] = encode(name) .. "=" .. encode(tostring(value))
end

local function encode_plus(text) return (encoding.encode_url(text):gsub("%%20", "+")) end

--- { a = 1, b = { "x", "y" } } → "a=1&b=x&b=y", in the order of the names. Raises, without a position.
---@param what string whose it is, for messages
---@param values any
---@param is_form boolean? a blank is "+"
---@return string
function M.pairs(what, values, is_form)
  if type(values) ~= "table" then
    error(("%s: expects a table such as { a = 1 }, got %s"):format(what, printable.value(values)), 0)
  end
  local names, out, encode = {}, {}, is_form and encode_plus or encoding.encode_url
  for name in next, values do
    if type(name) ~= "string" then error(("%s: a name is a text, got %s"):format(what, printable.value(name)), 0) end
    names[#names + 1] = name
  end
  table.sort(names)
  for _, name in ipairs(names) do
    local value = values[name]
    for _, item in ipairs(type(value) == "table" and value or { value }) do
      add_pair(out, what, name, item, encode)
    end
  end
  return table.concat(out, "&")
end

--- With more behind its query.
function M.with_query(url, query)
  if query == "" then return url end
  local copy = {}
  for key, value in pairs(url) do copy[key] = value end
  copy.target = url.target .. (url.target:find("?", 1, true) and "&" or "?") .. query
  return copy
end

return M
