--- Cookies both ways: request.cookies, http.cookie, http.signed_cookies.
local require = require -- while handlers run, the global one is the script's
local field_table = require "perilune.headers"
local option_checks = require "perilune.http.option_checks"
local printable = require "perilune.printable"
local units = require "perilune.units"

local M = {}

--- What a request's Cookie field has. Of a name that is there several times, the first counts.
---@param text string?
---@return table<string, string>
function M.read(text)
  local cookies = {}
  for pair in (text or ""):gmatch "[^;]+" do
    local at = pair:find("=", 1, true)
    local name = at and field_table.trim_end(pair:sub(1, at - 1)):match "^[ \t]*(%S*)$"
    if name and name ~= "" and cookies[name] == nil then
      local value = field_table.trim_end(pair:match("^%s*(.*)$", at + 1))
      cookies[name] = value:match '^"(.*)"$' or value
    end
  end
  return cookies
end

-- ---- Set-Cookie ----

local BYTES_MAX = 4096
local SAME_SITE = { strict = "Strict", lax = "Lax", none = "None" }
local OPTIONS = { path = true, domain = true, max_age = true, secure = "boolean", http_only = "boolean",
  same_site = true, partitioned = "boolean" }
local HINTS = { maxAge = "max_age", expires = "max_age", httponly = "http_only", httpOnly = "http_only",
  samesite = "same_site", sameSite = "same_site", HttpOnly = "http_only", SameSite = "same_site", Secure = "secure",
  Path = "path", Domain = "domain" }

local function wrong(level, text, ...) error("http.cookie: " .. text:format(...), level + 1) end

local function check_options(options, level)
  return (option_checks.check("http.cookie", options, OPTIONS, level + 1, HINTS))
end

local function check_name(name, level)
  if field_table.is_token(name) then return end
  wrong(level + 1, "the name is a word such as session, got %s", printable.value(name))
end

local function check_value(value, level)
  if type(value) == "number" then value = tostring(value) end
  if type(value) ~= "string" then wrong(level + 1, "the value is a text, got %s", printable.value(value)) end
  local at = value:find '[^!#-+%-.-:<-[%]^-~]'
  if at then
    wrong(level + 1, "the value has %s at byte %d, which no cookie has: encode it (perilune.encoding.encode_url)",
      printable.quote(value:sub(at, at)), at)
  end
  return value
end

local function seconds_of(value, level)
  if value == 0 then return 0 end
  local ms, message = units.duration(value)
  if not ms then wrong(level + 1, "max_age: %s", message) end
  return math.ceil(ms / 1000)
end

local function path_of(path, level)
  if path == nil then return "/" end
  if type(path) == "string" and path:find "^/[ -:<-~]*$" then return path end
  if path == false then return nil end
  wrong(level + 1, "path: expects a path such as \"/\" without a semicolon, got %s", printable.value(path))
end

local function domain_of(domain, level)
  if domain == nil or type(domain) == "string" and domain:find "^%.?%w[%w.-]*$" then return domain end
  wrong(level + 1, "domain: expects a name such as \"example.org\", got %s", printable.value(domain))
end

local function same_site_of(value, level)
  if value == nil then return "Lax" end
  if value == false then return nil end
  local known = type(value) == "string" and SAME_SITE[value:lower()]
  if known then return known end
  wrong(level + 1, "same_site: expects \"strict\", \"lax\", \"none\" or false, got %s", printable.value(value))
end

-- What browsers ask of names with these prefixes, in any case (RFC 6265bis).
local function check_prefix(name, parts, level)
  local lower = name:lower()
  local is_host = lower:find("__host-", 1, true) == 1
  if (is_host or lower:find("__secure-", 1, true) == 1) and not parts.secure then
    wrong(level + 1, "%s needs secure = true", name)
  end
  if is_host and (parts.domain or parts.path ~= "/") then
    wrong(level + 1, "%s has path = \"/\" and no domain", name)
  end
end

local function parts_of(name, options, level)
  local parts = {
    path = path_of(options.path, level + 1), domain = domain_of(options.domain, level + 1),
    same_site = same_site_of(options.same_site, level + 1), secure = options.secure == true,
    http_only = options.http_only ~= false, partitioned = options.partitioned == true,
    max_age = options.max_age ~= nil and seconds_of(options.max_age, level + 1) or nil,
  }
  if parts.same_site == "None" and not parts.secure then
    wrong(level + 1, "same_site = \"none\" needs secure = true")
  end
  if parts.partitioned and not parts.secure then wrong(level + 1, "partitioned needs secure = true") end
  check_prefix(name, parts, level + 1)
  return parts
end

local function text_of(name, value, parts)
  local text = name .. "=" .. value
  if parts.path then text = text .. "; Path=" .. parts.path end
  if parts.domain then text = text .. "; Domain=" .. parts.domain end
  if parts.max_age then text = ("%s; Max-Age=%d"):format(text, parts.max_age) end
  if parts.secure then text = text .. "; Secure" end
  if parts.http_only then text = text .. "; HttpOnly" end
  if parts.same_site then text = text .. "; SameSite=" .. parts.same_site end
  if parts.partitioned then text = text .. "; Partitioned" end
  return text
end

local function make(name, value, options, level)
  check_name(name, level + 1)
  options = check_options(options, level + 1)
  local parts = parts_of(name, options, level + 1)
  if value == nil then
    value, parts.max_age = "", 0
  else
    value = check_value(value, level + 1)
  end
  local text = text_of(name, value, parts)
  if #text > BYTES_MAX then wrong(level + 1, "%s has %d bytes, browsers keep %d", name, #text, BYTES_MAX) end
  return text
end

--- What Set-Cookie has. Without a value the client is to forget the cookie.
---@param name string
---@param value string|number|nil
---@param options table?
---@return string
function M.cookie(name, value, options) return (make(name, value, options, 2)) end

-- ---- signed cookies ----

local SECRET_MIN, SECRETS_MAX = 16, 16

local function check_secrets(secrets)
  local list = type(secrets) == "string" and { secrets } or secrets
  if type(list) ~= "table" or not list[1] or #list > SECRETS_MAX then
    error(("http.signed_cookies: expects a secret, or a list of up to %d, the newest first"):format(SECRETS_MAX), 3)
  end
  local copy = {}
  for i = 1, #list do
    if type(list[i]) ~= "string" or #list[i] < SECRET_MIN then
      error(("http.signed_cookies: a secret is a string of %d bytes or more"):format(SECRET_MIN), 3)
    end
    copy[i] = list[i]
  end
  return copy
end

local methods = {}
local metatable = { __index = methods, __metatable = "http.signed_cookies" }

function metatable.__tostring() return "signed cookies" end -- and none of the secrets
function metatable.__newindex() error("signed cookies are made whole, by http.signed_cookies(secret)", 2) end

local secrets_of = setmetatable({}, { __mode = "k" }) -- not in the object, where a log might show them

local function sign(secret, name, payload)
  local perilune = require "perilune"
  return perilune.encoding.encode_base64url(perilune.crypto.hmac("sha256", secret, name .. "=" .. payload))
end

local function own_secrets(self, name)
  local secrets = secrets_of[self]
  if not secrets then error(("signed_cookies.%s(…) must be signed_cookies:%s(…)"):format(name, name), 3) end
  return secrets
end

--- What Set-Cookie has for a value of any bytes. With `max_age` the value is refused after that time, whatever the
--- client says.
---@param name string
---@param value string
---@param options table?
---@return string
function methods.cookie(self, name, value, options)
  local secrets = own_secrets(self, "cookie")
  check_name(name, 2)
  if type(value) ~= "string" then wrong(2, "the value is a text, got %s", printable.value(value)) end
  local perilune = require "perilune"
  local max_age = check_options(options, 2).max_age
  local till = max_age and math.floor(perilune.time()) + seconds_of(max_age, 2) or 0
  local payload = ("%s.%d"):format(perilune.encoding.encode_base64url(value), till)
  return (make(name, payload .. "." .. sign(secrets[1], name, payload), options, 2))
end

--- The value of a request's cookie, if its signature is one of ours; nil: there is none, or none that is right.
---@param request perilune.http.request
---@param name string
---@return string?
function methods.read(self, request, name)
  local secrets = own_secrets(self, "read")
  if getmetatable(request) ~= "http.request" then
    error("signed_cookies:read: expects a request, got " .. printable.value(request), 2)
  end
  check_name(name, 2)
  local payload, mac = (request.cookies[name] or ""):match "^([%w_-]*%.%d+)%.([%w_-]+)$"
  if not payload then return nil end
  local perilune, is_right = require "perilune", false
  for i = 1, #secrets do
    if perilune.crypto.equal(sign(secrets[i], name, payload), mac) then is_right = true end
  end
  if not is_right then return nil end
  local text, till = payload:match "^(.*)%.(%d+)$"
  if till ~= "0" and perilune.time() >= tonumber(till) then return nil end
  return (perilune.encoding.decode_base64url(text))
end

--- Cookies whose values carry a signature (HMAC-SHA-256), so that no client can make one up. They can be read by all.
---@param secrets string|string[] the first signs, all are tried
---@return perilune.http.signed_cookies
function M.signed_cookies(secrets)
  local self = setmetatable({}, metatable)
  secrets_of[self] = check_secrets(secrets)
  return self
end

return M
