--- Who may come in, and how often: http.basic_auth, http.bearer, http.rate_limit.
local http = require "perilune.http"
local middleware = require "perilune.http.middleware"
local option_checks = require "perilune.http.option_checks"
local perilune = require "perilune"
local printable = require "perilune.printable"

local inner = getmetatable(http)

local M = {}

local REALM = 'expects a text without quotes, such as "accounts"'

local function realm_of(name, realm)
  if realm == nil then return "restricted" end
  if type(realm) == "string" and realm:find "^[ !#-[%]^-~]*$" then return realm end
  option_checks.wrong(name, "realm", REALM, realm, 3)
end

local function digest(text) return perilune.crypto.digest("sha256", text) end

-- The map's keys and values are texts, and not empty.
local function check_texts(name, key, map)
  if type(map) ~= "table" then option_checks.wrong(name, key, "expects a table of texts by texts", map, 3) end
  for text, value in next, map do
    if type(text) ~= "string" or text == "" then option_checks.wrong(name, key, "a key is a text", text, 3) end
    if value == nil or value == "" then option_checks.wrong(name, key, "a value is a text", value, 3) end
  end
end

-- One of the two says who may come in.
local function either(name, options, key, level)
  if (options.check == nil) == (options[key] == nil) then
    error(("%s: expects check, a function, or %s, a table"):format(name, key), level + 1)
  end
end

local function challenge(scheme, realm, more)
  return inner.problem(401, "who asks is not known", {
    ["WWW-Authenticate"] = ('%s realm="%s"%s'):format(scheme, realm, more),
  })
end

-- ---- Basic ----

local UNKNOWN = "\0" -- a password that nobody has

-- Digests are compared, so that neither the text nor its length takes a time of its own; and for a user that there is
-- not, one is compared as well.
local function password_check(users)
  local digests = {}
  for user, password in next, users do
    if type(password) ~= "string" then
      option_checks.wrong("http.basic_auth", "users", "a password is a text", password, 3)
    end
    if user:find(":", 1, true) then
      option_checks.wrong("http.basic_auth", "users", "a name has no colon, which ends it", user, 3)
    end
    digests[user] = digest(password)
  end
  local nobody = digest(UNKNOWN .. perilune.crypto.random(16))
  return function(user, password)
    local is_right = perilune.crypto.equal(digests[user] or nobody, digest(password))
    return is_right and digests[user] ~= nil and user or nil
  end
end

local function credentials(request)
  local text = (request.headers.authorization or ""):match "^[Bb][Aa][Ss][Ii][Cc] +([%w+/=]+)$"
  local decoded = text and perilune.encoding.decode_base64(text)
  if decoded then return decoded:match "^([^:]*):(.*)$" end
end

--- HTTP Basic. Who is let in is `request.context.user`.
---@param options { realm: string?, users: table<string, string>?, check: function? }
---@return perilune.http.middleware
function M.basic_auth(options)
  options = option_checks.check("http.basic_auth", options, { realm = true, users = true, check = "function" }, 2)
  either("http.basic_auth", options, "users", 2)
  local refusal = challenge("Basic", realm_of("http.basic_auth", options.realm), ', charset="UTF-8"')
  if options.users ~= nil then check_texts("http.basic_auth", "users", options.users) end
  local check = options.check or password_check(options.users)
  return middleware.new("basic_auth", function(next_handler)
    return function(request, value)
      local user, password = credentials(request)
      local known = user and check(user, password, request)
      if not known then return refusal end
      request.context.user = known == true and user or known
      return next_handler(request, value)
    end
  end)
end

-- ---- Bearer ----

-- Found by its digest: how far two tokens agree takes no time that anybody could measure.
local function token_check(tokens)
  local users = {}
  for token, user in next, tokens do users[digest(token)] = user end
  return function(token) return users[digest(token)] end
end

--- Bearer tokens (RFC 6750). What the check returns, or the table has, is `request.context.user`.
---@param options { realm: string?, tokens: table<string, any>?, check: function? }
---@return perilune.http.middleware
function M.bearer(options)
  options = option_checks.check("http.bearer", options, { realm = true, tokens = true, check = "function" }, 2)
  either("http.bearer", options, "tokens", 2)
  local realm = realm_of("http.bearer", options.realm)
  local missing = challenge("Bearer", realm, "")
  local invalid = challenge("Bearer", realm, ', error="invalid_token"')
  if options.tokens ~= nil then check_texts("http.bearer", "tokens", options.tokens) end
  local check = options.check or token_check(options.tokens)
  return middleware.new("bearer", function(next_handler)
    return function(request, value)
      local header = request.headers.authorization
      if not header then return missing end
      local token = header:match "^[Bb][Ee][Aa][Rr][Ee][Rr] +([%w._~+/-]+=*)$"
      local user = token and check(token, request)
      if not user then return invalid end
      request.context.user = user
      return next_handler(request, value)
    end
  end)
end

-- ---- how often ----

-- Of IPv6 the network, /64, in which whoever has one address has all of them.
local function peer_of(request)
  local peer = request.peer or ""
  local address = peer:match "^%[([^%]]*)%]"
  if not address then return peer:match "^(.*):%d+$" or peer end
  local before, behind = address:match "^(.-)::(.*)$"
  local groups = {}
  for group in (before or address):gmatch "[^:]+" do groups[#groups + 1] = group end
  local _, n = (behind or ""):gsub("[^:]+", "")
  local _, dots = (behind or ""):gsub("%d%.", "") -- such as ::ffff:10.0.0.1, which has two groups in one
  if dots > 0 then return address end
  for i = #groups + 1, before and 8 - n or 8 do groups[i] = "0" end
  for group in (behind or ""):gmatch "[^:]+" do groups[#groups + 1] = group end
  return table.concat(groups, ":", 1, math.min(4, #groups))
end

-- Seconds between two requests that are let through for ever.
local function interval_of(rate)
  local n, per = rate, 1
  if type(rate) == "string" then
    local left, right = rate:match "^(%d+)/(%w+)$"
    local ms = right and option_checks.duration(right:find "^%d" and right or "1" .. right)
    n, per = tonumber(left), ms and ms / 1000
  end
  if type(n) ~= "number" or not per or not (n > 0 and n < 1e9) or per <= 0 then
    option_checks.wrong("http.rate_limit", "rate", 'expects requests a second, or such as "100/1m"', rate, 3)
  end
  return per / n
end

-- A token bucket in one number: when it will be full again. What is taken moves that time on by an interval, and it is
-- never further away than the bucket is deep.
local function take(shared, key, interval, burst)
  local now, wait = perilune.time(), 0
  local depth = interval * burst
  shared:update(key, function(full_at)
    full_at = type(full_at) == "number" and full_at or now
    if full_at > now + depth then full_at = now + depth end -- the clock was put back
    local moved = (full_at > now and full_at or now) + interval
    wait = moved - now - depth
    if wait > 1e-9 then return full_at end
    wait = 0
    return moved
  end, depth + 1)
  return wait
end

local RATE_OPTIONS = { rate = true, burst = "count", shared = true, key = "function" }

--- Lets so many requests of each key through: `burst` at once, and `rate` a second in the long run; to the others it
--- says 429 and when to come back. All workers count together, in the dictionary. If that has no room they let through.
---@param options { rate: number|string, burst: integer?, shared: table, key: function? }
---@return perilune.http.middleware
function M.rate_limit(options)
  options = option_checks.check("http.rate_limit", options, RATE_OPTIONS, 2)
  local interval, key_of = interval_of(options.rate), options.key or peer_of
  local burst = options.burst or math.max(1, math.floor(1 / interval))
  local shared = options.shared
  if getmetatable(shared) ~= "shared dictionary" then
    option_checks.wrong("http.rate_limit", "shared", 'expects a dictionary, perilune.shared "rates"', shared, 2)
  end
  local prefix = ("rate %.14g %d "):format(interval, burst)
  return middleware.new("rate_limit", function(next_handler)
    return function(request, value)
      local key = key_of(request)
      if key == nil then return next_handler(request, value) end
      if type(key) ~= "string" and type(key) ~= "number" then
        error("http.rate_limit: key: the function is to return a text, or nil, got " .. printable.value(key), 0)
      end
      local wait = take(shared, prefix .. key, interval, burst)
      if wait == 0 then return next_handler(request, value) end
      return inner.problem(429, "too many requests", { ["Retry-After"] = math.ceil(wait) })
    end
  end)
end

return M
