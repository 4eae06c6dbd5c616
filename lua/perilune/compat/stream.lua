--- A connection out as a stream of bytes: lines, so many bytes, all until a text. What has come and nobody has read yet
--- is kept here, for who reads next.
---
--- What fails returns nil, "timeout" | "closed" | another message, and the bytes that it had got.
local perilune = require "perilune"

local M = {}

---@class perilune.compat.stream
---@field conn table
---@field coroutines perilune.compat.coroutines
---@field data string what has come
---@field at integer of the first byte of it that was not read
---@field wait number? seconds that a read waits for the next bytes; nil: for ever
---@field deadline number? of perilune.now(): when the call at hand must end
local Stream = {}
Stream.__index = Stream

---@return perilune.compat.stream
function M.new(conn, coroutines)
  return setmetatable({ conn = conn, coroutines = coroutines, data = "", at = 1 }, Stream)
end

-- In the words of LuaSocket and OpenResty.
local function short(message, code)
  if code == "ETIMEDOUT" then return "timeout" end
  if code == nil or code == "EOF" or code == "ECONNRESET" or code == "EPIPE" then return "closed" end
  return message
end
M.short = short

local SHORTEST = 0.001 -- to the core 0 is no time-out

-- The next bytes, for this long at most.
local function read(stream, seconds)
  local conn = stream.conn
  if stream.reader then -- a task that `readable` has begun
    local reader = stream.reader
    local _, _, code = reader:join(seconds and math.max(seconds, SHORTEST))
    if code == "ETIMEDOUT" then return nil, "timeout" end
    if stream.reader == reader then stream.reader = nil end
    local data, message = stream.beside, stream.failure
    stream.beside, stream.failure = nil, nil
    if data or message then return data, message end
  end
  local data, message, code = conn:read(nil, seconds and math.max(seconds, SHORTEST) or 0)
  if data then return data end
  return nil, short(message, code)
end

--- Waits for more. What was read before must have been taken out of `data`.
---@return boolean? came
---@return string? message
function Stream:fill()
  local seconds = self.wait
  if self.deadline then
    local left = self.deadline - perilune.now()
    if left <= 0 then left = SHORTEST end
    seconds = seconds and math.min(seconds, left) or left
  end
  local data, message = self.coroutines.call(read, self, seconds)
  if not data then return nil, message end
  self.data, self.at = data, 1
  return true
end

--- How many bytes have come that nobody has read.
---@return integer
function Stream:count() return #self.data - self.at + 1 end

-- The next n bytes, which are there.
local function take(self, n)
  local at = self.at
  self.at = at + n
  return self.data:sub(at, at + n - 1)
end

--- All that has come, and at most so many bytes.
---@param max number
---@return string? data
---@return string? message
function Stream:any(max)
  if self:count() == 0 then
    local ok, message = self:fill()
    if not ok then return nil, message end
  end
  return take(self, math.min(max, self:count()))
end

---@param n integer
---@return string? data
---@return string? message
---@return string? partial
function Stream:bytes(n)
  if n <= self:count() then return take(self, n) end
  local parts = {}
  while n > self:count() do
    n = n - self:count()
    parts[#parts + 1] = take(self, self:count())
    local ok, message = self:fill()
    if not ok then return nil, message, table.concat(parts) end
  end
  parts[#parts + 1] = take(self, n)
  return table.concat(parts)
end

local function without_returns(line)
  return line:find("\r", 1, true) and line:gsub("\r", "") or line
end

--- Up to the next LF, which is left out, as is every CR.
---@return string? data
---@return string? message
---@return string? partial
function Stream:line()
  local parts
  while true do
    local at = self.data:find("\n", self.at, true)
    local piece = take(self, (at or #self.data + 1) - self.at)
    if at then
      self.at = at + 1
      if parts then piece = table.concat(parts) .. piece end
      return (without_returns(piece))
    end
    parts = parts or {}
    parts[#parts + 1] = piece
    local ok, message = self:fill()
    if not ok then return nil, message, table.concat(parts) end
  end
end

--- All that comes until the peer ends its side.
---@return string? data
---@return string? message
---@return string? partial
function Stream:all()
  local parts = {}
  while true do
    parts[#parts + 1] = take(self, self:count())
    local ok, message = self:fill()
    if not ok then
      local data = table.concat(parts)
      if message == "closed" then return data end
      return nil, message, data
    end
  end
end

--- The next frame whole, where a frame is a datagram.
---@return string? data
---@return string? message
function Stream:datagram()
  local ok, message = self:fill()
  if not ok then return nil, message end
  local data = self.data
  self.data, self.at = "", 1
  return data
end

--- A function that returns what comes until a text, and then, asked for pieces of a size, once nothing.
---@param text string
---@param inclusive boolean? with that text
---@return fun(size: integer?): string?, string?, string?
function Stream:up_to(text, inclusive)
  local is_over = false
  return function(size)
    if is_over then
      is_over = false
      return nil
    end
    local parts, room = {}, size or math.huge
    while true do
      local first, last = self.data:find(text, self.at, true)
      local there = (first and (inclusive and last or first - 1) or #self.data - #text + 1) - self.at + 1
      local piece = take(self, math.max(0, math.min(there, room)))
      parts[#parts + 1], room = piece, room - #piece
      if first and #piece == there then
        self.at, is_over = last + 1, size ~= nil
        return table.concat(parts)
      end
      if room == 0 then return table.concat(parts) end
      local kept = take(self, self:count()) -- it may be the beginning of the text
      local ok, message = self:fill()
      if not ok then return nil, message, table.concat(parts) .. kept end
      self.data = kept .. self.data
    end
  end
end

--- Is there something to read, or the end?
---@return boolean
function Stream:is_readable()
  return self:count() > 0 or self.beside ~= nil or self.failure ~= nil
end

--- Has the next bytes read by a task, which calls `tell` when they have come. Who reads then gets them.
---@param tell fun()
function Stream:watch(tell)
  self.tell = tell
  if self.reader then return end
  self.reader = perilune.spawn(function()
    local data, message, code = self.conn:read(nil, 0)
    self.beside = data
    if not data then self.failure = short(message, code) end
    self.tell()
  end)
end

--- Sends, and waits while more is under way than there should be.
---@param text string
---@return boolean? sent
---@return string? message
function Stream:send(text)
  if text == "" then return true end
  local below, message = self.conn:send(text)
  if below then return true end
  if below == false then below, message = self.coroutines.call(self.conn.flush, self.conn) end
  if below then return true end
  return nil, short(message)
end

return M
