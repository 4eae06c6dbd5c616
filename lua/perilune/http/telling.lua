--- What is told of requests: http.logged, http.counted, http.timed, http.counts.
local middleware = require "perilune.http.middleware"
local option_checks = require "perilune.http.option_checks"
local perilune = require "perilune"
local printable = require "perilune.printable"

local M = {}

local function now() return perilune.now() end

-- ---- log lines ----

local SECRET = { authorization = true, cookie = true, ["set-cookie"] = true, ["proxy-authorization"] = true }

-- Nobody writes a line of their own, and nothing into a terminal.
local function clean(text)
  return (tostring(text):gsub('[%z\1-\31"\\\127-\255]', function(byte) return ("\\x%02X"):format(byte:byte()) end))
end

local function add_fields(lines, mark, fields)
  for _, field in ipairs(fields) do
    local value = SECRET[field[1]:lower()] and "…" or clean(field[2])
    lines[#lines + 1] = ("%s %s: %s"):format(mark, clean(field[1]), value)
  end
end

local function fields_of(response)
  local fields = {}
  for name, value in rawget(response, 2):gmatch "([^:\r\n]+): ?([^\r\n]*)\r\n" do
    fields[#fields + 1] = { name, value }
  end
  return fields
end

local formats = {}

function formats.lines(request, response)
  local lines = { ("> %s %s HTTP/%s"):format(request.method, clean(request.target), request.version) }
  add_fields(lines, ">", request:fields())
  lines[#lines + 1] = ("< %d"):format(response.status)
  add_fields(lines, "<", fields_of(response))
  return lines
end

-- Of the body that is sent. Those of a file or a stream are nowhere.
local function bytes_of(request, response)
  if request.method == "HEAD" then return 0 end
  return not rawget(response, 5) and #response.body or nil
end

function formats.json(request, response, seconds)
  return { perilune.json.encode({
    time = perilune.time(), method = request.method, path = clean(request.target), route = request.route,
    status = response.status, bytes = bytes_of(request, response), seconds = seconds, peer = request.peer,
    user = request.context.user and clean(request.context.user), request_id = request.context.request_id,
  }, { sorted = true }) }
end

local function quoted(value) return '"' .. (value and clean(value) or "-") .. '"' end

function formats.combined(request, response)
  local peer = request.peer or "-"
  return { ('%s - %s [%s] "%s %s HTTP/%s" %d %s %s %s'):format(
    peer:match "^(.*):%d+$" or peer, request.context.user and clean(request.context.user):gsub(" ", "\\x20") or "-",
    os.date("!%d/%b/%Y:%H:%M:%S +0000", math.floor(perilune.time())), request.method, clean(request.target),
    request.version, response.status, bytes_of(request, response) or "-", quoted(request.headers.referer),
    quoted(request.headers["user-agent"])) }
end

local function own_format(fn)
  return function(request, response, seconds)
    local line = fn(request, response, seconds)
    if type(line) == "table" then return line end
    return { line }
  end
end

local function write(line) perilune.log("info", line) end

--- A line, or several, for each response. Every line passes `redact`, and goes to `to`.
---@param options { format: string|function|nil, redact: function?, to: function? }?
---@return perilune.http.middleware
function M.logged(options)
  options = option_checks.check("http.logged", options, { format = true, redact = "function", to = "function" }, 2)
  local format = options.format or "combined"
  local make = type(format) == "function" and own_format(format) or formats[format]
  if not make then
    option_checks.wrong("http.logged", "format", 'expects "combined", "json", "lines" or a function', format, 2)
  end
  local redact, to = options.redact, options.to or write
  return middleware.observer("logged", now, function(request, response, start)
    for _, line in ipairs(make(request, response, perilune.now() - start)) do
      if redact then line = redact(line) end
      if line then to(line) end
    end
  end)
end

-- ---- counts ----

-- Of this worker: by method and route, so there are no more than the script has routes.
local counts = {}

local KNOWN = { GET = true, HEAD = true, POST = true, PUT = true, PATCH = true, DELETE = true, OPTIONS = true }

local function label_of(request)
  local method = KNOWN[request.method] and request.method or "other"
  return request.route and ("%s %s"):format(method, request.route) or "no route"
end

local function entry_of(label)
  local entry = counts[label]
  if not entry then
    entry = {}
    counts[label] = entry
  end
  return entry
end

local function add_here(label, name, by)
  local entry = entry_of(label)
  entry[name] = (entry[name] or 0) + by
end

local function raise_here(label, name, value)
  local entry = entry_of(label)
  entry[name] = math.max(entry[name] or 0, value)
end

-- Of all workers: in a dictionary, by keys that begin with this. A route has no zero byte in it.
local KEYS_MAX = 1000000 -- as many as a dictionary tells
local PREFIX, KEY = "http.counts\0", "^http%.counts%z(.*)%z(.*)$"

local function check_options(what, options)
  return option_checks.check(what, options, { shared = "shared" }, 3).shared
end

-- What adds to a figure of a route, and what keeps the largest. A dictionary that is full forgets what was used longest
-- ago.
local function counters(shared)
  if not shared then return add_here, raise_here end
  local function add(label, name, by) shared:incr(PREFIX .. label .. "\0" .. name, by) end
  local function raise(label, name, value)
    shared:update(PREFIX .. label .. "\0" .. name, function(old) return math.max(old or 0, value) end)
  end
  return add, raise
end

local function nothing() end

--- Counts responses by route and class of status: http.counts().
---@param options { shared: table? }? where all workers count together
---@return perilune.http.middleware
function M.counted(options)
  local add = counters(check_options("http.counted", options))
  return middleware.observer("counted", nothing, function(request, response)
    add(label_of(request), ("%dxx"):format(response.status / 100), 1)
  end)
end

--- Adds up how long responses take, by route: http.counts(). It is the clock of perilune.now(), which stands still
--- while a handler computes: what is measured is what a handler waits for.
---@param options { shared: table? }?
---@return perilune.http.middleware
function M.timed(options)
  local add, raise = counters(check_options("http.timed", options))
  return middleware.observer("timed", now, function(request, _, start)
    local label, seconds = label_of(request), perilune.now() - start
    add(label, "timed", 1)
    add(label, "seconds", seconds)
    raise(label, "longest", seconds)
  end)
end

local function counts_in(shared)
  local all = {}
  for _, key in ipairs(shared:keys(KEYS_MAX)) do
    local label, name = tostring(key):match(KEY)
    local value = label and shared:get(key)
    if value then
      all[label] = all[label] or {}
      all[label][name] = value
    end
  end
  return all
end

--- What was counted in this worker, or in a dictionary, a copy: { ["GET /users/{id}"] = { ["2xx"] = 3, timed = 3,
--- seconds = 0.2, longest = 0.1 }, ["no route"] = { ["4xx"] = 1 } }.
---@param shared table?
---@return table<string, table<string, number>>
function M.counts(shared)
  if shared ~= nil then
    if getmetatable(shared) ~= "shared dictionary" then
      error("http.counts: expects a dictionary, perilune.shared \"counts\", or nothing, got "
        .. printable.value(shared), 2)
    end
    return counts_in(shared)
  end
  local copy = {}
  for label, entry in pairs(counts) do
    copy[label] = {}
    for name, value in pairs(entry) do copy[label][name] = value end
  end
  return copy
end

return M
