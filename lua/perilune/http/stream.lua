--- Responses that are written in pieces: http.stream. The producer runs in the call of proceed, once that has returned,
--- and waits where the client does not keep up: no more than 128 KiB are pending (src/agent/http_pieces.c).
local core = require "perilune.http_core"
local http = require "perilune.http"
local option_checks = require "perilune.http.option_checks"
local printable = require "perilune.printable"

local inner = getmetatable(http)

local M = {}

local TRAILERS_MAX = 16 * 1024

-- What must be known before the body is (RFC 9110, 6.5.1).
local NO_TRAILERS = {
  authorization = true, ["cache-control"] = true, connection = true, ["content-encoding"] = true,
  ["content-range"] = true, ["content-type"] = true, host = true, ["set-cookie"] = true, te = true, vary = true,
  location = true, age = true, expires = true, ["retry-after"] = true, etag = false,
}

-- id: of the connection, nil once the response is over. response: until it has begun. closes. silent: it has no body.
-- lock: a semaphore, once somebody had to wait. trailers, trailer_bytes. has_length.
local methods = {}
local meta = { __index = methods, __metatable = "http.stream" }

function meta.__tostring() return "HTTP stream" end

function meta.__newindex() error("a stream cannot be written to: out:write(data) sends", 2) end

local function check_out(out, method)
  if getmetatable(out) == "http.stream" then return end
  error(("http.stream: write it with a colon, as in out:%s(…)"):format(method), 3)
end

local function begin(out)
  local response = rawget(out, "response")
  if not response then return true end
  local ok, why = core.begin(out.id, response[1], response[2], response[4] or out.closes, rawget(response, 7),
    rawget(response, 8))
  if ok then rawset(out, "response", nil) end
  return ok, why
end

-- All of it from `at` on.
local function go_on(out, data, at)
  while at < #data do
    local ok, why = core.flush(out.id)
    if not ok then return nil, why end
    if not out.id then return nil, "closed" end -- its producer has returned meanwhile
    at, why = core.write(out.id, data, at)
    if not at then return nil, why end
  end
  return true
end

-- Several tasks may write: what one of them writes is not torn apart by others.
local function put(out, data)
  local lock, at = rawget(out, "lock"), 0
  if not lock or lock:count() == 1 then
    at = core.write(out.id, data, 0)
    if not at then return nil, "closed" end
    if at == #data then return true end
    if not lock then
      lock = require("perilune.waiting").semaphore(1)
      rawset(out, "lock", lock)
    end
  end
  return lock:with(go_on, out, data, at)
end

local function check_open(out, method, level)
  if not out.id then error(("http.stream: out:%s: this response is over"):format(method), level + 1) end
end

--- Sends data, or has it wait to be sent; waits while the client has yet to take what was written before.
---@param ... string|number
---@return boolean? ok
---@return string? why "closed": the connection has ended
function methods.write(out, ...)
  check_out(out, "write")
  check_open(out, "write", 2)
  local n, data = select("#", ...), ...
  for i = 1, n do
    local kind = type((select(i, ...)))
    if kind ~= "string" and kind ~= "number" then
      error("http.stream: out:write: a text is expected, got " .. printable.value((select(i, ...))), 2)
    end
  end
  data = n == 1 and tostring(data) or table.concat { ... }
  local ok, why = begin(out)
  if ok and data ~= "" then return put(out, data) end
  return ok, why
end

--- Waits until all that was written is handed to the system. The first call sends the head, if nothing else has.
---@return boolean? ok
---@return string? why "closed"
function methods.flush(out)
  check_out(out, "flush")
  check_open(out, "flush", 2)
  local ok, why = begin(out)
  if not ok then return nil, why end
  return core.flush(out.id)
end

--- A trailer, which follows the body; HTTP/1.0 has none, and it is left out.
---@param name string
---@param value string|number
function methods.trailer(out, name, value)
  check_out(out, "trailer")
  check_open(out, "trailer", 2)
  if rawget(out, "has_length") then
    error("http.stream: out:trailer: a response with a `length` has no trailers", 2)
  end
  inner.check_name(name, 2)
  if NO_TRAILERS[name:lower()] then
    error(("http.stream: out:trailer: %s is of no use behind a body"):format(name), 2)
  end
  local line = inner.field_line(name, value, 2)
  local bytes = (rawget(out, "trailer_bytes") or 0) + #line
  if bytes > TRAILERS_MAX then error("http.stream: out:trailer: trailers have 16 KiB at most", 2) end
  rawset(out, "trailer_bytes", bytes)
  rawset(out, "trailers", (rawget(out, "trailers") or "") .. line)
end

local NO_BODY = { [204] = true, [304] = true }

-- Answers the request: position 5 of such a response.
local function answer(response, request, closes)
  local out = setmetatable({ id = request[2], response = response, closes = closes, has_length = response[7] ~= nil },
    meta)
  local is_silent = request.method == "HEAD" or NO_BODY[response[1]]
  if not is_silent then response[6](out) end
  local lock = rawget(out, "lock")
  if lock then lock:with(function() end) end -- a task that is writing comes to the end of what it writes
  if begin(out) then core.finish(request[2], rawget(out, "trailers") or "") end
  rawset(out, "id", nil)
  return nil
end

local OPTIONS = { status = true, headers = "table", length = true }

local function is_length(value) return type(value) == "number" and value >= 0 and value < 2 ^ 53 and value % 1 == 0 end

--- A response that the producer writes.
---@param producer fun(out: perilune.http.stream)
---@param options { status: integer?, headers: table?, length: integer? }?
---@return perilune.http.response
function M.stream(producer, options)
  if type(producer) ~= "function" then
    error("http.stream: expects a function that gets the stream, got " .. printable.value(producer), 2)
  end
  options = option_checks.check("http.stream", options, OPTIONS, 2)
  local length = options.length
  if length ~= nil and not is_length(length) then
    option_checks.wrong("http.stream", "length", "expects the number of bytes", length, 2)
  end
  local response = inner.make(options.status or 200, options.headers, nil, "text/plain; charset=utf-8", 2)
  rawset(response, 5, answer)
  rawset(response, 6, producer)
  rawset(response, 7, length)
  return response
end

return M
