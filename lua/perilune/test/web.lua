--- Requests of clients of http:// listeners as bytes, and responses of bytes. Internal.
local failing = require "perilune.test.fail"
local field_table = require "perilune.headers"
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

--- A response that no socket has carried.
---@param status integer
---@param head string its header fields, as headers.read() takes them
---@param body string
---@return perilune.test.response
function M.made(status, head, body)
  return setmetatable({ status = status, headers = field_table.read(head), body = body }, response)
end

-- ---- reading ----

local reader = {}
reader.__index = reader

--- Reads one response, in whatever pieces it comes.
---@param method string? of the request
---@return table reader `response` once its head has come, `is_over` once all has; `buffer` is what is behind it
function M.reader(method)
  return setmetatable({ method = method, buffer = "", at = 1, parts = {}, stage = "head", is_over = false }, reader)
end

local NO_BODY = { [101] = true, [204] = true, [304] = true }

local function is_bodiless(self, status) return self.method == "HEAD" or NO_BODY[status] == true end

-- What says that it is to come stands before it.
local function skip_continue(self)
  while self.buffer:find "^HTTP/1%.1 100 [^\r]*\r\n\r\n" do
    self.buffer = self.buffer:match "^.-\r\n\r\n(.*)$"
  end
end

local function body_stage(self, status, headers, head)
  if is_bodiless(self, status) then return "over" end
  if headers["transfer-encoding"] == "chunked" then return "size" end
  self.left = tonumber(headers["content-length"])
  if self.left then return self.left > 0 and "length" or "over" end
  if headers.connection ~= "close" then
    failing.fail("the response has neither a Content-Length nor an end: " .. transcript.show(head))
  end
  return "end"
end

local stages = {}

function stages.head(self)
  skip_continue(self)
  local head, rest = self.buffer:match "^(.-\r\n\r\n)(.*)$"
  if not head then return false end
  local status = tonumber(head:match "^HTTP/1%.1 (%d%d%d) ")
  if not status then failing.fail("what came is no HTTP response: " .. transcript.show(head)) end
  local headers = field_table.read(head)
  self.response = setmetatable({ status = status, headers = headers, body = "" }, response)
  self.buffer, self.at = rest, 1
  self.stage = body_stage(self, status, headers, head)
  return true
end

-- Of what is in the buffer and not read yet.
local function unread(self) return #self.buffer - self.at + 1 end

local function take_body(self, n)
  local piece = self.buffer:sub(self.at, self.at + n - 1)
  self.parts[#self.parts + 1] = piece
  self.at = self.at + #piece
  self.left = self.left and self.left - #piece
end

function stages.length(self)
  if unread(self) == 0 then return false end
  take_body(self, self.left)
  if self.left == 0 then self.stage = "over" end
  return true
end

stages["end"] = function(self)
  if unread(self) > 0 then take_body(self, unread(self)) end
  return false
end

function stages.size(self)
  local size, behind = self.buffer:match("^(%x+)\r\n()", self.at)
  if not size then
    if unread(self) > 18 then
      failing.fail("what came is no chunk: " .. transcript.show(self.buffer:sub(self.at, self.at + 40)))
    end
    return false
  end
  self.left, self.at = tonumber(size, 16), behind
  self.stage = self.left > 0 and "chunk" or "trailers"
  return true
end

function stages.chunk(self)
  if self.left > 0 and unread(self) > 0 then take_body(self, self.left) end
  if self.left > 0 or unread(self) < 2 then return false end
  if self.buffer:sub(self.at, self.at + 1) ~= "\r\n" then
    failing.fail "a chunk of the response does not end where it should"
  end
  self.at, self.stage = self.at + 2, "size"
  return true
end

function stages.trailers(self)
  local trailers, behind = "", self.buffer:match("^\r\n()", self.at)
  if not behind then trailers, behind = self.buffer:match("^(.-\r\n)\r\n()", self.at) end
  if not behind then return false end
  self.response.trailers, self.at, self.stage = field_table.read("\r\n" .. trailers), behind, "over"
  return true
end

function stages.over(self)
  self.is_over = true
  return false
end

--- More of what has come.
---@param bytes string
function reader:feed(bytes)
  self.buffer = self.buffer .. bytes
  repeat until not stages[self.stage](self)
  self.buffer, self.at = self.buffer:sub(self.at), 1
end

--- The connection has ended. Was that the end of the response?
---@return boolean
function reader:finish()
  self.is_over = self.is_over or self.stage == "end"
  return self.is_over
end

--- What of the body has come since this was last asked for.
---@return string
function reader:take()
  local piece = table.concat(self.parts)
  self.parts = {}
  return piece
end

--- An event of a stream of server-sent events; nil: it is but a comment.
---@param text string without the empty line behind it
---@return table?
function M.event(text)
  local event, data = {}, nil
  for line in (text .. "\n"):gmatch "([^\n]*)\n" do
    local name, value = line:match "^(%a+):? ?(.*)$"
    if name == "data" then
      data = data and data .. "\n" .. value or value
    elseif name then
      event[name] = name == "retry" and tonumber(value) or value
    end
  end
  if data == nil and next(event) == nil then return nil end
  event.data = data or ""
  return event
end

-- ---- asking ----

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
