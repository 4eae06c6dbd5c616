--- Requests of clients of http:// listeners as bytes, and responses of bytes. Internal.
local failing = require "perilune.test.fail"
local json = require "perilune.json"
local transcript = require "perilune.test.transcript"

local M = {}

---@class perilune.test.response
local response = {}
response.__index = response

--- The body as JSON; fails where it is none.
function response:json()
  local value, message = require("perilune.json_core").decode(self.body)
  if message then failing.fail(("the body is no JSON: %s: %s"):format(message, transcript.show(self.body))) end
  return value
end

local headers_meta = {}

function headers_meta.__index(headers, name)
  local lower = type(name) == "string" and name:lower()
  return lower and lower ~= name and rawget(headers, lower) or nil
end

local function read_headers(head)
  local headers = setmetatable({}, headers_meta)
  for name, value in head:gmatch "\r\n([^:\r\n]+):[ \t]*([^\r\n]*)" do
    name = name:lower()
    headers[name] = headers[name] and headers[name] .. ", " .. value or value
  end
  return headers
end

-- How many bytes of a body follow the head; nil: all there are up to the end.
local function body_bytes(status, headers, method)
  if method == "HEAD" or status == 101 or status == 204 or status == 304 then return 0 end
  return tonumber(headers["content-length"])
end

--- The response at the beginning of the bytes, behind what says that it is to come, and where it ends; nil: it is not
--- whole. Fails where there is none.
---@param bytes string
---@param method string? of the request
---@return perilune.test.response?
---@return integer? bytes
function M.parse(bytes, method)
  local from = 1
  while bytes:find("^HTTP/1%.1 100 [^\r]*\r\n\r\n", from) do
    from = select(2, bytes:find("\r\n\r\n", from, true)) + 1
  end
  local _, head_end = bytes:find("\r\n\r\n", from, true)
  if not head_end then return nil end
  local head = bytes:sub(from, head_end)
  local status = tonumber(head:match "^HTTP/1%.1 (%d%d%d) ")
  if not status then failing.fail("what came is no HTTP response: " .. transcript.show(head)) end
  local headers = read_headers(head)
  local n = body_bytes(status, headers, method)
  if not n then failing.fail("the response has no Content-Length: " .. transcript.show(head)) end
  if #bytes < head_end + n then return nil end
  local body = bytes:sub(head_end + 1, head_end + n)
  return setmetatable({ status = status, headers = headers, body = body }, response), head_end + n
end

local function header_lines(options, body)
  local given, lines = {}, {}
  for name in pairs(options.headers or {}) do given[#given + 1] = name end
  table.sort(given)
  local has = {}
  for _, name in ipairs(given) do
    has[name:lower()] = true
    lines[#lines + 1] = ("%s: %s\r\n"):format(name, tostring(options.headers[name]))
  end
  if not has.host then table.insert(lines, 1, "Host: localhost\r\n") end
  if body and not has["content-length"] and not has["transfer-encoding"] then
    lines[#lines + 1] = ("Content-Length: %d\r\n"):format(#body)
  end
  if type(options.body) == "table" and not has["content-type"] then
    lines[#lines + 1] = "Content-Type: application/json\r\n"
  end
  return table.concat(lines)
end

local OPTIONS = { method = true, path = true, headers = true, body = true }

--- The bytes of a request.
---@param options perilune.test.request
---@return string
function M.request(options)
  for key in pairs(options) do
    if not OPTIONS[key] then
      failing.misuse(("request: unknown option %s (there are: body, headers, method, path)"):format(tostring(key)))
    end
  end
  local body = options.body
  if type(body) == "table" then body = json.encode(body) end
  return ("%s %s HTTP/1.1\r\n%s\r\n%s"):format(options.method or "GET", options.path or "/",
    header_lines(options, body), body or "")
end

return M
