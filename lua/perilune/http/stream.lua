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
-- lock: a semaphore, once somebody had to wait. trailers, trailer_bytes. has_length. coder: compresses (compress.lua).
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

-- Data as it is sent.
local function coded(out, data)
  local coder = rawget(out, "coder")
  return coder and coder:add(data) or data
end

-- All of it from `at` on; nil: it is not coded yet, as what is sent before it was to be coded first.
local function go_on(out, data, at)
  if not out.id then return nil, "closed" end -- its producer has returned meanwhile
  if not at then data, at = coded(out, data), 0 end
  while at < #data do
    local ok, why = core.flush(out.id, at)
    if not ok then return nil, why end
    if not out.id then return nil, "closed" end
    at, why = core.write(out.id, data, at)
    if not at then return nil, why end
  end
  return true
end

local function lock_of(out)
  local lock = rawget(out, "lock")
  if not lock then
    lock = require("perilune.waiting").semaphore(1)
    rawset(out, "lock", lock)
  end
  return lock
end

-- Several tasks may write: what one of them writes is not torn apart by others.
local function put(out, data)
  local lock, at = rawget(out, "lock"), nil
  if not lock or lock:count() == 1 then
    data = coded(out, data)
    at = core.write(out.id, data, 0)
    if not at then return nil, "closed" end
    if at == #data then return true end
  end
  return lock_of(out):with(go_on, out, data, at)
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

local compress -- perilune.http.compress, where a response is to be compressed

-- Where its pieces are to be compressed: what does that, and the response with the fields for it. Nil: all of those are
-- in use, and it is sent as it is.
local function begin_coding(response)
  compress = compress or require "perilune.http.compress"
  local coder = compress.take_coder(response[9])
  if not coder then return response end
  return compress.coded_head(response), coder
end

-- What comes last. Nobody writes meanwhile, or later.
local function finish(out, is_silent)
  local coder, has_begun = rawget(out, "coder"), begin(out)
  if coder then
    coder:leave()
    has_begun = has_begun and (is_silent or go_on(out, ""))
  end
  if has_begun then core.finish(out.id, rawget(out, "trailers") or "") end
  rawset(out, "id", nil)
end

-- Answers the request: position 5 of such a response.
local function answer(response, request, closes)
  local coder
  if response[9] then response, coder = begin_coding(response) end
  local out = setmetatable({ id = request[2], response = response, closes = closes, has_length = response[7] ~= nil,
    coder = coder }, meta)
  local is_silent = request.method == "HEAD" or NO_BODY[response[1]]
  if not is_silent then response[6](out) end
  if coder or rawget(out, "lock") then
    lock_of(out):with(finish, out, is_silent) -- a task that is writing comes to the end of what it writes
  else
    finish(out, is_silent)
  end
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
  rawset(response, 10, length == nil) -- it may be compressed: position 9 is the level
  return response
end

return M
