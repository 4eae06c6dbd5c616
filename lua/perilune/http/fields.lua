--- Middleware that gives responses header fields: http.cors, http.cache_control, http.request_id; and http.created.
local coding = require "perilune.http.coding"
local handshake = require "perilune.config.handshake"
local http = require "perilune.http"
local middleware = require "perilune.http.middleware"
local option_checks = require "perilune.http.option_checks"
local perilune = require "perilune"

local inner = getmetatable(http)

local M = {}

--- What was made, and where it is: 201.
---@param location string
---@param value any? as JSON
---@return perilune.http.response
function M.created(location, value)
  if type(location) ~= "string" or not location:find "^[!-~]+$" then
    option_checks.wrong("http.created", "location", "expects a path or an address without blanks", location, 2)
  end
  local response = inner.with(inner.made(value), 201, { Location = location }, 2)
  return response
end

--- A handler that tells what runs: a table as JSON, or a text as its `version`, which no cache keeps.
---@param what string|table
---@return function
function M.version(what)
  if type(what) == "string" then what = { version = what } end
  if type(what) ~= "table" or next(what) == nil then
    option_checks.wrong("http.version", "what", 'expects a text such as "1.2.0", or a table', what, 2)
  end
  local response = http.json(what, 200, { ["Cache-Control"] = "no-store" })
  return function() return response end
end

-- ---- CORS ----

local function list_of(name, key, value, default)
  if value == nil then return default end
  if type(value) == "string" then value = { value } end
  if type(value) ~= "table" then option_checks.wrong(name, key, "expects a text, or a list of them", value, 4) end
  for _, item in ipairs(value) do
    if type(item) ~= "string" or not item:find "^[!-~]+$" then
      option_checks.wrong(name, key, "expects texts without blanks", item, 4)
    end
  end
  return table.concat(value, ", ")
end

-- What may be in Access-Control-Allow-Origin, of an origin. The second result: it is the same for all.
local function origin_check(origins)
  if origins == nil or origins == "*" then return function() return "*" end, true end
  if type(origins) == "function" then
    return function(origin, request) return origins(origin, request) and origin or nil end
  end
  local list, wrong = handshake.list(type(origins) == "table" and origins or { origins }, handshake.is_origin)
  if not list then option_checks.wrong("http.cors", "origins", "expects " .. handshake.ORIGINS, wrong, 4) end
  if not list[1] then
    option_checks.wrong("http.cors", "origins", 'expects "*", a list of origins, or a function', origins, 4)
  end
  return function(origin) return handshake.is_listed(list, origin) and origin or nil end
end

local METHODS = "GET, HEAD, POST, PUT, PATCH, DELETE"

local function preflight(request, fields, options)
  local headers = { ["Access-Control-Allow-Methods"] = options.methods,
    ["Access-Control-Allow-Headers"] = options.headers, ["Access-Control-Max-Age"] = options.max_age }
  if options.headers == "*" then
    headers["Access-Control-Allow-Headers"] = request.headers["access-control-request-headers"]
  end
  for name, value in pairs(fields) do headers[name] = value end
  return http.response { status = 204, headers = headers }
end

local function seconds(name, key, value)
  if value == nil then return nil end
  local ms = value == 0 and 0 or option_checks.duration(value)
  if not ms then option_checks.wrong(name, key, 'expects a duration such as "10m"', value, 4) end
  return math.floor(ms / 1000)
end

local CORS_OPTIONS = { origins = true, methods = true, headers = true, expose = true, credentials = "boolean",
  max_age = true }

local function cors_options(options)
  options = option_checks.check("http.cors", options, CORS_OPTIONS, 3)
  local allowed, is_any = origin_check(options.origins)
  if options.credentials and is_any then
    error('http.cors: credentials go with a list of origins, and not with "*"', 3)
  end
  return { allowed = allowed, is_any = is_any, credentials = options.credentials and "true" or nil,
    methods = list_of("http.cors", "methods", options.methods, METHODS),
    headers = list_of("http.cors", "headers", options.headers, "Content-Type"),
    expose = list_of("http.cors", "expose", options.expose),
    max_age = seconds("http.cors", "max_age", options.max_age) }
end

--- Lets pages of other origins use the API: answers what browsers ask before, and says so in each response.
---@param options table?
---@return perilune.http.middleware
function M.cors(options)
  options = cors_options(options)
  local function fields_of(request)
    local origin = request.headers.origin
    local allowed = (origin or options.is_any) and options.allowed(origin, request)
    if not allowed then return nil end
    return { ["Access-Control-Allow-Origin"] = allowed, ["Access-Control-Allow-Credentials"] = options.credentials }
  end
  local rest = middleware.with_fields("cors", function(request, response)
    local fields = fields_of(request) or {}
    if next(fields) then fields["Access-Control-Expose-Headers"] = options.expose end
    if not options.is_any then fields.Vary = coding.vary(response.headers.vary, "Origin") end
    return next(fields) and fields
  end)
  return middleware.new("cors", function(next_handler)
    local plain = rest.wrap(next_handler)
    return function(request, value)
      local is_preflight = request.method == "OPTIONS" and request.headers.origin
        and request.headers["access-control-request-method"]
      if not is_preflight then return plain(request, value) end
      local fields = fields_of(request)
      if not fields then return inner.problem(403, "this origin is not allowed", { Vary = "Origin" }) end
      if not options.is_any then fields.Vary = "Origin" end
      return preflight(request, fields, options)
    end
  end)
end

-- ---- Cache-Control ----

local FLAGS = { "public", "private", "no_store", "no_cache", "no_transform", "must_revalidate", "proxy_revalidate",
  "must_understand", "immutable" }
local AGES = { "max_age", "s_maxage", "stale_while_revalidate", "stale_if_error" }
local AGAINST = { { "public", "private" }, { "no_store", "max_age" }, { "no_store", "s_maxage" },
  { "no_store", "immutable" }, { "private", "s_maxage" } }

local function directive(key) return key == "s_maxage" and "s-maxage" or (key:gsub("_", "-")) end

local function cache_text(options)
  local parts = {}
  for _, key in ipairs(FLAGS) do
    if options[key] then parts[#parts + 1] = directive(key) end
  end
  for _, key in ipairs(AGES) do
    local age = seconds("http.cache_control", key, options[key])
    if age then parts[#parts + 1] = ("%s=%d"):format(directive(key), age) end
  end
  return table.concat(parts, ", ")
end

local CACHE_OPTIONS = {}
for _, key in ipairs(FLAGS) do CACHE_OPTIONS[key] = "boolean" end
for _, key in ipairs(AGES) do CACHE_OPTIONS[key] = true end

local CACHED = { [200] = true, [203] = true, [204] = true, [206] = true, [301] = true, [304] = true, [308] = true }

--- Says how long responses may be kept: those of GET and HEAD that have not failed, and that do not say it themselves.
---@param options table
---@return perilune.http.middleware
function M.cache_control(options)
  options = option_checks.check("http.cache_control", options, CACHE_OPTIONS, 2)
  for _, pair in ipairs(AGAINST) do
    if options[pair[1]] and options[pair[2]] then
      error(("http.cache_control: %s and %s contradict each other"):format(pair[1], pair[2]), 2)
    end
  end
  local text = cache_text(options)
  if text == "" then error("http.cache_control: expects a directive, such as max_age = \"10m\"", 2) end
  return middleware.with_fields("cache_control", function(request, response)
    local is_asked = request.method == "GET" or request.method == "HEAD"
    if is_asked and CACHED[response.status] and not response.headers["cache-control"] then
      return { ["Cache-Control"] = text }
    end
  end)
end

-- ---- identifiers ----

--- Gives each request an identifier: `request.context.request_id`, and a field of the response. With `trust` that of
--- the client is kept, if it is a word of 128 characters at most.
---@param options { header: string?, trust: boolean? }?
---@return perilune.http.middleware
function M.request_id(options)
  options = option_checks.check("http.request_id", options, { header = true, trust = "boolean" }, 2)
  local header = options.header or "X-Request-Id"
  if type(header) ~= "string" or not header:find "^[%w-]+$" then
    option_checks.wrong("http.request_id", "header", "expects the name of a header field", header, 2)
  end
  inner.check_name(header, 2)
  if header:lower() == "connection" then
    option_checks.wrong("http.request_id", "header", "expects a field of its own", header, 2)
  end
  local rest = middleware.with_fields("request_id", function(request)
    return { [header] = request.context.request_id }
  end)
  return middleware.new("request_id", function(next_handler)
    local serve = rest.wrap(next_handler)
    return function(request, value)
      local given = options.trust and request.headers[header]
      local is_good = given and #given <= 128 and given:find "^[%w._-]+$"
      request.context.request_id = is_good and given or perilune.crypto.uuid()
      return serve(request, value)
    end
  end)
end

return M
