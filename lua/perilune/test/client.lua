--- A client of an app, in memory or over a socket: the wire is what differs. Methods that do something return the
--- client.
local deep = require "perilune.test.deep"
local failing = require "perilune.test.fail"
local methods = require "perilune.test.methods"
local pattern = require "perilune.test.pattern"
local random = require "perilune.test.random"
local transcript = require "perilune.test.transcript"
local web = require "perilune.test.web"

local M = {}

---@class perilune.test.wire what carries the bytes of a client
---@field is_stream boolean frames are whatever has arrived
---@field is_datagram boolean what is sent is whole datagrams, and there is no connection
---@field put fun(self, bytes: string) sends; what they lead to has happened when it returns, or will
---@field encode fun(self, frame: any): string
---@field next fun(self, is_patient: boolean): any, number|string|nil the next frame and its time; nil: none; nil, why
---@field ended fun(self, is_patient: boolean): string?, number? the reason, when
---@field was_reset fun(self): boolean the end that it saw was no end of a stream
---@field about fun(self): string? the log, a hint …: what else a failure should tell
---@field now_ms fun(self): number

---@class perilune.test.client
---@field name string
local client = {}
client.__index = client

---@param name string for messages
---@param wire perilune.test.wire
---@return perilune.test.client
function M.new(name, wire)
  local self = setmetatable({ name = name, wire = wire, inbox = {}, events = {}, pieces = nil }, client)
  self:note("connects")
  return self
end

local function add(self, kind, text, at_ms)
  self.events[#self.events + 1] = { at_ms = at_ms or self.wire:now_ms(), kind = kind, text = text }
end

function client:note(text, at_ms) add(self, "note", text, at_ms) end

-- ---- receiving ----

-- Whatever has come, into the inbox.
local function pull(self, is_patient)
  while true do
    local frame, at = self.wire:next(is_patient)
    if frame == nil then
      if at and at ~= self.wrong then
        self.wrong = at
        add(self, "note", "what came is no frame: " .. at)
      end
      break
    end
    is_patient = false
    self.inbox[#self.inbox + 1] = frame
    add(self, "receive", (self.show or transcript.show)(frame), at)
  end
  local reason, at_ms = self.wire:ended(false)
  if reason and not self.end_noted then
    self.end_noted = true
    add(self, "note", "the connection has ended: " .. reason, at_ms)
  end
end

--- Everything that happened so far, a line each, with the times.
---@return string
function client:transcript()
  pull(self, false)
  return transcript.ladder(self.name, self.events)
end

local function fail(self, text)
  local parts = { text, "", self:transcript() }
  parts[#parts + 1] = self.wire:about()
  failing.fail(table.concat(parts, "\n"))
end

local function take(self)
  if #self.inbox == 0 then pull(self, true) end
  return table.remove(self.inbox, 1)
end

local function nothing(self)
  local reason = self.wire:ended(false)
  if self.wrong then return "what came is no frame: " .. self.wrong end
  return reason and "the connection has ended: " .. reason or "nothing came"
end

--- The next frame.
---@return any
function client:receive()
  local frame = take(self)
  if frame == nil then fail(self, "expected a frame: " .. nothing(self)) end
  return frame
end

local function agrees(wanted, frame)
  if pattern.is(wanted) then return type(frame) == "string" and frame:find(wanted.text) ~= nil end
  if type(wanted) == "function" then
    local ok = wanted(frame)
    return ok ~= false and ok ~= nil
  end
  return deep.equal(wanted, frame)
end

local function shown(wanted)
  return type(wanted) == "function" and "what the function accepts" or transcript.show(wanted)
end

-- A stream has no frames: the text may be part of what has come, or more than one read brings.
local function expect_bytes(self, wanted)
  local got = ""
  while #got < #wanted do
    local piece = take(self)
    if piece == nil then break end
    got = got .. piece
  end
  if got:sub(1, #wanted) ~= wanted then
    local shown_got = got == "" and nothing(self) or transcript.show(got)
    fail(self, ("expected %s, got %s"):format(transcript.show(wanted), shown_got))
  end
  if #got > #wanted then table.insert(self.inbox, 1, got:sub(#wanted + 1)) end
end

--- The next frame must be this one; or have this pattern (perilune.pattern); or be accepted by a function.
---@param ... any one after the other
---@return perilune.test.client
function client:expect(...)
  for i = 1, select("#", ...) do
    local wanted = select(i, ...)
    if wanted == nil then failing.misuse("expect: a frame, a pattern or a function is expected, got nil") end
    if self.wire.is_stream and type(wanted) == "string" then
      expect_bytes(self, wanted)
    else
      local frame = take(self)
      if frame == nil then fail(self, ("expected %s: %s"):format(shown(wanted), nothing(self))) end
      if not agrees(wanted, frame) then
        fail(self, ("expected %s, got %s"):format(shown(wanted), transcript.show(frame)))
      end
    end
  end
  return self
end

--- There must be no frame by now.
---@return perilune.test.client
function client:expect_nothing()
  pull(self, false)
  if #self.inbox > 0 then fail(self, "expected nothing, got " .. transcript.show(self.inbox[1])) end
  return self
end

--- Leaves out the next n frames, which must come.
---@param n integer? default 1
---@return perilune.test.client
function client:skip(n)
  for i = 1, n or 1 do
    if take(self) == nil then
      fail(self, ("expected %d frames to skip, got %d: %s"):format(n or 1, i - 1, nothing(self)))
    end
  end
  return self
end

--- All frames that have come and were not taken yet; they are.
---@return any[]
function client:frames()
  pull(self, false)
  local frames = self.inbox
  self.inbox = {}
  return frames
end

--- Why the connection has ended, as the agent's closed() was told; nil: it has not.
---@return string? reason
function client:closed()
  pull(self, false)
  return (self.wire:ended(true))
end

--- The connection must have ended, for this reason if one is given.
---@param reason string?
---@return perilune.test.client
function client:expect_closed(reason)
  local got = self:closed()
  if not got then fail(self, "expected the connection to end: it is open") end
  if reason and got ~= reason then fail(self, ("expected the end for %s, got %s"):format(reason, got)) end
  return self
end

-- There is no connection to do it to.
local function needs_connection(self, what)
  if self.wire.is_datagram then
    failing.misuse(what .. ": a client of udp:// sends datagrams, and has no connection; close() makes it fall silent")
  end
end

--- The end that the client saw must have been a reset: the app did not want to hear or deliver what there was.
---@return perilune.test.client
function client:expect_reset()
  pull(self, false)
  needs_connection(self, "expect_reset")
  if not self.wire:was_reset() then fail(self, "expected a reset: there was none") end
  return self
end

-- ---- sending ----

local function send_bytes(self, bytes, text)
  pull(self, false) -- what came so far stands before it in the transcript
  add(self, "send", text)
  self.wire:put(bytes)
  return self
end

--- Sends frames, encoded as the listener has it; several arrive at once.
---@param ... any
---@return perilune.test.client
function client:send(...)
  local bytes, texts = {}, {}
  for i = 1, select("#", ...) do
    local frame = select(i, ...)
    if frame == nil then failing.misuse("send: a frame is expected, got nil") end
    bytes[i], texts[i] = self.wire:encode(frame), transcript.show(frame)
  end
  return send_bytes(self, table.concat(bytes), table.concat(texts, ", "))
end

--- Sends bytes as they are.
---@param bytes string
---@return perilune.test.client
function client:send_raw(bytes)
  if type(bytes) ~= "string" then failing.misuse("send_raw: bytes are expected, got a " .. type(bytes)) end
  local as_sent = self.wire.is_datagram and self.wire:encode(bytes) or bytes -- a datagram has nothing around it
  return send_bytes(self, as_sent, transcript.show(bytes) .. " as it is")
end

-- Where the pieces end.
local function random_cuts(n, seed)
  local numbers, cuts = random.new(seed), {}
  for i = 1, n - 1 do
    if numbers:next(3) == 1 then cuts[#cuts + 1] = i end
  end
  cuts[#cuts + 1] = n
  return cuts
end

local function every_cut(n)
  local cuts = {}
  for i = 1, n do cuts[i] = i end
  return cuts
end

M.random_cuts, M.every_cut = random_cuts, every_cut

--- Sends a frame, or a list of them, in pieces that arrive one by one: every byte alone; or, with a seed, cut at
--- random, the same for the same seed. "random": with a new seed, which the transcript shows.
---@param frames any
---@param seed number|"random"|nil
---@return perilune.test.client
function client:send_split(frames, seed)
  if self.wire.is_datagram then failing.misuse "send_split: a datagram comes whole, or not at all" end
  local list = type(frames) == "table" and #frames > 0 and frames or { frames }
  local bytes, texts = {}, {}
  for i, frame in ipairs(list) do bytes[i], texts[i] = self.wire:encode(frame), transcript.show(frame) end
  local text = table.concat(bytes)
  if seed == "random" then seed = random.seed() end
  local cuts = seed and random_cuts(#text, seed) or every_cut(#text)
  pull(self, false)
  add(self, "send", ("%s in %d pieces%s"):format(table.concat(texts, ", "), #cuts, seed and ", seed " .. seed or ""))
  local from = 1
  for _, to in ipairs(cuts) do
    self.wire:put(text:sub(from, to))
    from = to + 1
  end
  return self
end

--- Uses another framing from now on, for what it sends and receives: for handlers that change theirs.
---@param framing any as in `frame =`
---@return perilune.test.client
function client:set_frame(framing)
  if self.wire.is_datagram then failing.misuse "set_frame: a client of udp:// has datagrams, and no other frames" end
  pull(self, false)
  self.wire:set_frame(framing)
  return self
end

-- ---- HTTP ----

local function check_http(self, what)
  if not self.wire.is_stream then failing.misuse(what .. ": only for a client of an http:// listener") end
end

--- Sends a request, whose response is yet to come: response() has it.
---@param request string|perilune.test.request a path stands for GET
---@return perilune.test.client
function client:ask(request)
  check_http(self, "ask")
  if type(request) == "string" then request = { path = request } end
  if type(request) ~= "table" then
    failing.misuse('ask: a path or a table is expected, such as { method = "POST", body = … }')
  end
  self.asked = self.asked or {}
  self.asked[#self.asked + 1] = request.method or "GET"
  return self:send_raw(web.request(request))
end

local function reader_of(self)
  self.reader = self.reader or web.reader(self.asked and self.asked[1])
  return self.reader
end

-- The response is read: what is behind it is of the next one.
local function leave_reader(self)
  local rest = self.reader.buffer
  if rest ~= "" then table.insert(self.inbox, 1, rest) end
  if self.asked then table.remove(self.asked, 1) end
  self.reader, self.event_text = nil, nil
end

-- Reads on. False: there is no more.
local function read_on(self, reader, raw)
  local piece = take(self)
  if piece == nil then return self.wire:ended(false) ~= nil and reader:finish() end
  if raw then raw[#raw + 1] = piece end
  reader:feed(piece)
  return true
end

local function fail_response(self, what, raw)
  local got = table.concat(raw)
  if got ~= "" then table.insert(self.inbox, 1, got) end
  self.reader = nil
  fail(self, ("expected %s: "):format(what) .. (got == "" and nothing(self) or "of it came " .. transcript.show(got)))
end

--- The next response, or what is left of one whose head() was asked for.
---@return perilune.test.response
function client:response()
  check_http(self, "response")
  local reader, raw = reader_of(self), {}
  while not reader.is_over do
    if not read_on(self, reader, raw) then fail_response(self, "a response", raw) end
  end
  reader.response.body = reader:take()
  leave_reader(self)
  return reader.response
end

--- The head of the next response, whose body is yet to come: piece(), event() or response() have that.
---@return perilune.test.response
function client:head()
  check_http(self, "head")
  local reader, raw = reader_of(self), {}
  while not reader.response do
    if not read_on(self, reader, raw) then fail_response(self, "the head of a response", raw) end
  end
  return reader.response
end

--- What has come of a body since this was last asked for, at least a byte of it; nil: the body has ended.
---@return string?
function client:piece()
  self:head()
  local reader = self.reader
  while true do
    local text = reader:take()
    if text ~= "" then return text end
    if reader.is_over then
      leave_reader(self)
      return nil
    end
    if not read_on(self, reader) then fail(self, "expected more of a body: " .. nothing(self)) end
  end
end

--- The next of a stream of server-sent events; comments are left out. nil: the stream has ended.
---@return { event: string?, data: string, id: string?, retry: integer? }?
function client:event()
  check_http(self, "event")
  while true do
    local text, rest = (self.event_text or ""):match "^(.-)\n\n(.*)$"
    if text then
      self.event_text = rest
      local event = web.event(text)
      if event then return event end
    else
      local piece = self:piece()
      if not piece then return nil end
      self.event_text = (self.event_text or "") .. piece
    end
  end
end

--- The next event must have this data, or these fields.
---@param wanted string|table
---@return perilune.test.client
function client:expect_event(wanted)
  if type(wanted) == "string" then wanted = { data = wanted } end
  if type(wanted) ~= "table" then failing.misuse "expect_event: data or a table of fields is expected" end
  local event = self:event()
  if not event then fail(self, "expected an event: the stream has ended") end
  for key, value in pairs(wanted) do
    if not agrees(value, event[key]) then
      fail(self, ("expected an event with %s %s, got %s"):format(tostring(key), shown(value), transcript.show(event)))
    end
  end
  return self
end

--- Sends a request, and returns the response.
---@param request perilune.test.request
---@return perilune.test.response
function client:request(request)
  if type(request) ~= "table" then
    failing.misuse('request: a table is expected, such as { method = "POST", path = "/", body = … }')
  end
  return self:ask(request):response()
end

--- The response to GET of a path.
---@param path string
---@param headers table<string, string|number>?
---@return perilune.test.response
function client:get(path, headers) return self:ask({ path = path, headers = headers }):response() end

--- Asks for a WebSocket, which must be had.
---@param path string
---@param options perilune.test.websocket_options?
---@return perilune.test.websocket
function client:websocket(path, options)
  check_http(self, "websocket")
  return require("perilune.test.websocket").open(self, path, options)
end

-- For what stands on a client: lua/perilune/test/websocket.lua.
M.pull, M.take, M.nothing, M.fail = pull, take, nothing, fail
M.send_bytes, M.agrees, M.shown = send_bytes, agrees, shown

-- ---- what networks do ----

local function act(self, method, text, ...)
  pull(self, false)
  self:note(text)
  self.wire[method](self.wire, ...)
  return self
end

--- What its TLS has settled, as conn.tls: `peer_certificate` is the server's. nil where there is none, or none yet;
--- and why, where it has failed.
---@return perilune.tls_facts?
---@return string? why
function client:tls()
  if not self.wire.tls then return nil end
  return self.wire:tls()
end

--- Reads no more: the app's output waits for it. `bytes`: so many are still read, of what is sent from now on.
---@param bytes integer?
---@return perilune.test.client
function client:stall(bytes) return act(self, "stall", "reads no more", bytes or 0) end

--- Reads again.
---@return perilune.test.client
function client:unstall() return act(self, "unstall", "reads again") end

--- Whose client it is, of the app's workers, from 0 on; nil: it was refused.
---@return integer?
function client:worker()
  if not self.wire.worker then failing.misuse("worker: only for a client of an app in memory") end
  return self.wire:worker()
end

--- Ends its side, and reads on.
---@return perilune.test.client
function client:half_close()
  needs_connection(self, "half_close")
  return act(self, "half_close", "ends its side")
end

--- Resets the connection.
---@return perilune.test.client
function client:reset()
  needs_connection(self, "reset")
  return act(self, "reset", "resets the connection")
end

--- Ends the connection, as a client does that has what it wanted.
---@return perilune.test.client
function client:close() return act(self, "close", "hangs up") end

methods.lock_objects("a client", client)

return M
