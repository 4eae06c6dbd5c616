--- One request over one connection, and what comes back. Internal.
---
--- A connection has the framing "raw": each read gives what has come, and a reader in C (src/bind/http_reader.c) says
--- what it is. What nobody reads stays in the socket, and so a server that sends more than is wanted has to wait.
local require = require -- while handlers run, the global one is the script's
local core = package.loaded["perilune.core"] -- not where a script is only being checked
local http_core = require "perilune.http_core"
local outgoing = require "perilune.http.outgoing"
local pooling = require "perilune.pooling"
local received = require "perilune.http.received"
local text_pieces = require "perilune.pieces"

local M = {}

local HEADERS_MAX, FIELDS_MAX = 64 * 1024, 256
local AT_ONCE = 256 * 1024 -- bytes that are sent without waiting for the server to take them
local PIECE = 64 * 1024

-- ---- reading -----------------------------------------------------------------------

---@class perilune.http.exchange
---@field conn table
---@field entry table of the pool
---@field pool table
---@field reader userdata
---@field data string what has come, and is read from `at` on
---@field at integer
---@field deadline number? when the whole request has to be over
---@field patience number seconds without progress
---@field has_begun boolean something of the response has come
---@field is_over boolean the connection was given back
---@field watcher table? the task that reads while a body is sent
---@field early string? what it has read; nil, with a message and a code: nothing will come
---@field has_early boolean? it has come to its end
---@field closes boolean the request says that the connection ends
---@field call thread who has asked
local exchange = {}
exchange.__index = exchange

local function time_left(self)
  local left = self.deadline and self.deadline - core.now()
  if left and left <= 0 then return nil end
  if self.patience == 0 then return left or 0 end
  return left and math.min(left, self.patience) or self.patience
end

local function time_out(self)
  local is_late = self.deadline and core.now() >= self.deadline
  return nil, is_late and "timeout: the request has taken too long" or "timeout: the server has sent nothing more",
    "ETIMEDOUT"
end

-- While a large body is sent, a task reads: a server that wants no more of it says so, and may then hang up.
local function watch(self)
  local function read()
    self.early, self.early_message, self.early_code = self.conn:read(nil, 0)
    self.has_early = true
  end
  require "perilune.waiting"
  self.watcher = core.spawn(nil, read)
end

-- Interim responses say nothing of the body, which goes on.
local function is_interim(text)
  while text:find "^HTTP/1%.1 1%d%d[ \r]" do
    local _, stop = text:find("\r\n\r\n", 1, true)
    if not stop then return #text <= HEADERS_MAX end
    text = text:sub(stop + 1)
  end
  return text == ""
end

-- Data; or nil, message, code.
local function receive(self, left)
  local skipped = self.skipped
  if skipped then
    self.skipped = nil
    return skipped
  end
  local watcher = self.watcher
  if not watcher then return self.conn:read(nil, left) end
  if not self.has_early then
    local ok, message, code = core.wait(watcher, left)
    if not ok then return nil, message, code end
  end
  self.watcher = nil
  return self.early, self.early_message, self.early_code
end

-- What comes behind an unfinished line. A head that drips is put together once a line, not once a byte.
local function read_on(self)
  local rest = self.at > #self.data and "" or self.data:sub(self.at)
  local pieces, size = { rest }, #rest
  repeat
    local left = time_left(self)
    if not left then return time_out(self) end
    local data, message, code = receive(self, left)
    if not data then
      if code == "ETIMEDOUT" then return time_out(self) end
      return nil, message, code or "ECONNRESET"
    end
    self.has_begun = true
    pieces[#pieces + 1], size = data, size + #data
  until rest == "" or data:find("\n", 1, true) or size > HEADERS_MAX
  self.data, self.at = #pieces == 2 and rest == "" and pieces[2] or table.concat(pieces), 1
  return true
end

-- The next thing that there is: its name and what belongs to it; or nil, message, code.
local function next_event(self)
  while true do
    local event, at, a, b, c, d = http_core.reader_step(self.reader, self.data, self.at)
    self.at = at
    if event == "broken" then return nil, a, b end
    if event ~= "more" and event ~= "interim" then return event, a, b, c, d end
    if event == "more" then
      local ok, message, code = read_on(self)
      if not ok and code == "EOF" then
        local is_whole, why = http_core.reader_finish(self.reader)
        if is_whole then return "end" end
        return nil, why, "EOF"
      end
      if not ok then return nil, message, code end
    end
  end
end

-- ---- its end -------------------------------------------------------------------------

local running = coroutine.running

-- `keeps`: another request may follow. With the call that has asked, a connection goes by itself: another call that
-- comes across what is left of a response has nothing to give back.
local function finish(self, keeps)
  if self.is_over then return end
  self.is_over = true
  if running() ~= self.call then return self.conn:close() end
  pooling.give(self.pool, self.entry, keeps and not self.closes and self.at > #self.data)
end

function exchange:give_up()
  if self.is_over then return end
  self.conn:close()
  finish(self, false)
end

local function fail(self, message, code)
  self:give_up()
  return nil, message, code, self.has_begun and "begun" or self.has_sent and "sent" or "nothing"
end

-- ---- sending -----------------------------------------------------------------------

-- True, or nil, message, code.
local function send(self, data)
  local ok, message, code = self.conn:send(data)
  if ok == nil then return nil, message, code or "ECONNRESET" end
  self.has_sent = true
  return true
end

local FLUSHES = 16

local function nothing() end

-- A server that takes all at once leaves nothing to wait for: others have their turn all the same, and who reads.
local function take_turns(self)
  self.flushes = (self.flushes or 0) + 1
  if self.flushes % FLUSHES == 0 then core.wait(core.spawn(nil, nothing)) end
end

-- True, or "answered": there is a response already, and the rest of the body is not for anybody; or nil, message, code.
local function flush(self)
  local ok, message, code = self.conn:flush()
  take_turns(self)
  if self.early then
    local early = (self.skipped or "") .. self.early
    if not is_interim(early) or #early > HEADERS_MAX then
      self.closes = true
      return "answered"
    end
    self.skipped, self.early, self.has_early = early, nil, nil
    watch(self)
  end
  if not ok then return nil, message, code or "ECONNRESET" end
  if self.deadline and core.now() >= self.deadline then return time_out(self) end
  return true
end

-- No faster than the server takes it.
local function send_large(self, head, bytes)
  watch(self)
  local ok, message, code = send(self, head)
  for at = 1, #bytes, PIECE do
    if ok == "answered" then break end
    if ok then ok, message, code = send(self, bytes:sub(at, at + PIECE - 1)) end
    if ok and at + PIECE <= #bytes then ok, message, code = flush(self) end
    if not ok then return nil, message, code end
  end
  return true
end

local function send_pieces(self, head, pieces)
  watch(self)
  local ok, message, code = send(self, head)
  while ok do
    if ok == "answered" then return true end
    local piece, why, of_piece = pieces()
    if piece == nil and why ~= nil then -- as a read says it: what was to be sent has not come whole
      return nil, "the body was not sent whole: " .. tostring(why), of_piece
    end
    if type(piece) ~= "string" and piece ~= nil then
      error("body: the function returns texts, and nil at the end; it has returned " .. type(piece), 0)
    end
    if piece == nil then return send(self, "0\r\n\r\n") end
    if piece ~= "" then
      ok, message, code = send(self, ("%x\r\n%s\r\n"):format(#piece, piece))
      if ok then ok, message, code = flush(self) end
    end
  end
  return nil, message, code
end

local function send_request(self, request)
  local body = request.body
  local head = not self.through and request.head or outgoing.head(request, self.through)
  if body and body.pieces then return send_pieces(self, head, body.pieces) end
  if not body then return send(self, head) end
  if #body.bytes <= AT_ONCE then return send(self, head .. body.bytes) end
  return send_large(self, head, body.bytes)
end

-- ---- bodies ------------------------------------------------------------------------

local inflate -- of perilune.deflate_core

local GZIP = { gzip = true, ["x-gzip"] = true }

local function decode(self, head, bytes)
  local coding = received.field(head, "content-encoding")
  if not (self.compress and coding and GZIP[coding:lower()] and bytes ~= "") then return bytes end
  inflate = inflate or require("perilune.deflate_core").inflate
  local plain, message = inflate(bytes, { format = "gzip", max = self.max_body })
  if plain then return plain end
  if message:find "^the data becomes more" then return nil, "the body is too large: " .. message, "EMSGSIZE" end
  return nil, "the body is no gzip: " .. message, "EPROTO"
end

-- What is left of a response: its body and its trailers; or nil, message, code.
local function read_rest(self)
  local pieces, trailers, size = text_pieces.new(), nil, 0
  while true do
    local event, value, code = next_event(self)
    if event == "data" then
      size = size + #value
      if size > self.max_body then return nil, "the body is too large", "EMSGSIZE" end
      text_pieces.add(pieces, value)
    elseif event == "trailer" then
      trailers = (trailers or "") .. "\r\n" .. value
    elseif event == "end" then
      return text_pieces.joined(pieces), trailers
    else
      return nil, value, code
    end
  end
end

-- ---- bodies in pieces ----------------------------------------------------------------

local rest_methods = {}
rest_methods.__index = rest_methods

--- The next piece; nil at the end; or nil, message, code.
function rest_methods:read(timeout)
  local state, whole = self.state, self.whole
  if whole then
    self.whole = nil
    return whole
  end
  if self.message then return nil, self.message, self.code end
  if state.is_over then return nil end
  if timeout then state.patience = timeout end
  while true do
    local event, value, code = next_event(state)
    if event == "data" then return value end
    if event == "end" then
      finish(state, self.keeps)
      return nil
    end
    if event ~= "trailer" then
      self.message, self.code = ("%s: %s"):format(self.server, value), code
      state:give_up()
      return nil, self.message, code
    end
  end
end

function rest_methods:close() self.state:give_up() end

-- ---- all of it -----------------------------------------------------------------------

-- Its head, its status, how far its body goes; or nil, message, code.
local function begin(self, request)
  http_core.reader_begin(self.reader, request.method == "HEAD", request.wants_rest and math.huge or self.max_body)
  local sent, message, code = send_request(self, request)
  if not sent then return nil, message, code end
  local event, head, status, extent, keeps = next_event(self)
  if not event then return nil, head, status end
  self.keeps = keeps
  return head, status, extent
end

local function run(self, request)
  local head, status, extent = begin(self, request)
  if not head then return fail(self, status, extent) end
  local wants_rest = request.wants_rest
  if wants_rest and extent ~= "none" and wants_rest(head, status) then
    self.deadline = nil -- it was for the head
    local rest = setmetatable({ state = self, keeps = self.keeps, server = request.url.authority }, rest_methods)
    return received.new(head, status, request.shown, nil, nil, rest)
  end
  local body, trailers, code = read_rest(self)
  if not body then return fail(self, trailers, code) end
  finish(self, self.keeps)
  if wants_rest then -- there is nothing to wait for, and it is read in the same way
    local rest = setmetatable({ state = self, whole = body ~= "" and body or nil }, rest_methods)
    return received.new(head, status, request.shown, nil, trailers, rest)
  end
  local plain, message, kind = decode(self, head, body)
  if not plain then return nil, message, kind, "begun" end
  return received.new(head, status, request.shown, plain, trailers)
end

local function returned(self, ok, ...)
  if ok then return ... end
  self:give_up()
  error((...), 0)
end

--- Sends a request over a connection of a pool, and reads the response to it.
---@param pool table
---@param entry table what pooling.borrow() has given: it is given back, whatever comes
---@param request perilune.http.outgoing
---@return table? response
---@return string? message
---@return string? code
---@return "nothing"|"sent"|"begun"|nil stage how far it had come
function M.run(pool, entry, request)
  local self = setmetatable({
    pool = pool, entry = entry, conn = entry.conn, data = "", at = 1, has_begun = false,
    reader = http_core.reader(HEADERS_MAX, FIELDS_MAX), deadline = request.deadline, patience = request.patience,
    max_body = request.max_body, compress = request.compress, through = request.through,
    closes = request.fields.connection ~= nil, call = running(),
  }, exchange)
  return returned(self, pcall(run, self, request))
end

return M
