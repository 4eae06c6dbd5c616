--- WebSockets of clients in memory or over sockets: the handshake, frames as bytes, and frames of bytes.
local bit = require "bit"
local clients = require "perilune.test.client"
local failing = require "perilune.test.fail"
local methods = require "perilune.test.methods"
local transcript = require "perilune.test.transcript"

local M = {}

local OPCODES = { more = 0, text = 1, binary = 2, close = 8, ping = 9, pong = 10 }
local NAMES = {}
for name, opcode in pairs(OPCODES) do NAMES[opcode] = name end

-- Of RFC 6455; nobody can guess what the answer to it must be who does not read the request.
local KEY, ACCEPT = "dGhlIHNhbXBsZSBub25jZQ==", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
local MASK = "\17\34\51\68"
local COMPRESSED, LAST = 0x40, 0x80
local CONTROLS = { close = true, ping = true, pong = true }

---@class perilune.test.websocket
---@field client perilune.test.client
---@field response perilune.test.response to the handshake
---@field subprotocol string?
---@field compresses boolean was permessage-deflate agreed upon?
local websocket = {}
websocket.__index = websocket

-- ---- frames as bytes ----

local function big_endian(n, bytes)
  local out = {}
  for i = bytes, 1, -1 do
    out[i] = string.char(n % 256)
    n = math.floor(n / 256)
  end
  return table.concat(out)
end

local function mask(data)
  local out, from = {}, 1
  while from <= #data do
    local piece = { data:byte(from, from + 4095) }
    for i = 1, #piece do piece[i] = bit.bxor(piece[i], MASK:byte((from + i - 2) % 4 + 1)) end
    out[#out + 1] = string.char(unpack(piece))
    from = from + 4096
  end
  return table.concat(out)
end

local FRAME = { opcode = true, data = true, last = true, reserved = true, masked = true, length = true }

local function opcode_of(opcode)
  if OPCODES[opcode] then return OPCODES[opcode] end
  if type(opcode) == "number" and opcode >= 0 and opcode <= 15 then return opcode end
  failing.misuse("send_frame: opcode is 0 to 15, text, binary, more, close, ping or pong, got " .. tostring(opcode))
end

--- The bytes of a frame.
---@param frame perilune.test.websocket_frame
---@return string
function M.bytes(frame)
  for key in pairs(frame) do
    if not FRAME[key] then
      failing.misuse(("send_frame: unknown key %s (there are: data, last, length, masked, opcode, reserved)")
        :format(tostring(key)))
    end
  end
  local data, is_masked = frame.data or "", frame.masked ~= false
  local first = opcode_of(frame.opcode or "text") + (frame.last == false and 0 or LAST) + (frame.reserved or 0)
  local n = frame.length or #data
  local short = n < 126 and n or n < 65536 and 126 or 127
  local long = short == 126 and big_endian(n, 2) or short == 127 and big_endian(n, 8) or ""
  return string.char(first, short + (is_masked and 128 or 0)) .. long
    .. (is_masked and MASK .. mask(data) or data)
end

-- ---- frames of bytes ----

local function read_number(bytes, from, to)
  local n = 0
  for i = from, to do n = n * 256 + bytes:byte(i) end
  return n
end

--- The frame at the beginning of the bytes, and how many it takes; nil: it is not whole.
local function parse(bytes)
  if #bytes < 2 then return nil end
  local first, second = bytes:byte(1, 2)
  local short = second % 128
  local head = short == 126 and 4 or short == 127 and 10 or 2
  if #bytes < head then return nil end
  local n = head == 2 and short or read_number(bytes, 3, head)
  if #bytes < head + n then return nil end
  local frame = {
    opcode = NAMES[first % 16] or first % 16, last = first >= LAST, reserved = bit.band(first, 0x70),
    masked = second >= 128, data = bytes:sub(head + 1, head + n),
  }
  return frame, head + n
end

-- "close 1000 \"so long\""
local function show_frame(frame)
  local text = transcript.show(frame.data)
  if frame.opcode == "close" then
    if #frame.data < 2 then return "close" end
    local why = frame.data:sub(3)
    return ("close %d"):format(read_number(frame.data, 1, 2)) .. (why ~= "" and " " .. transcript.show(why) or "")
  end
  if frame.opcode ~= "text" and frame.opcode ~= "binary" and frame.data == "" then return tostring(frame.opcode) end
  return ("%s%s%s %s"):format(frame.opcode, frame.last and "" or ", to be continued",
    frame.reserved ~= 0 and (", reserved bits %#x"):format(frame.reserved) or "", text)
end

local function show_all(bytes)
  local shown = {}
  while #bytes > 0 do
    local frame, used = parse(bytes)
    if not frame then break end
    shown[#shown + 1] = show_frame(frame)
    bytes = bytes:sub(used + 1)
  end
  if #bytes > 0 then shown[#shown + 1] = "part of a frame: " .. transcript.show(bytes) end
  return table.concat(shown, ", ")
end

-- ---- the handshake ----

local OPTIONS = { headers = true, origin = true, subprotocols = true, compress = true, answers = true }

local function handshake(path, options)
  local headers = { Upgrade = "websocket", Connection = "Upgrade", ["Sec-WebSocket-Key"] = KEY,
    ["Sec-WebSocket-Version"] = "13", Origin = options.origin }
  if options.subprotocols then headers["Sec-WebSocket-Protocol"] = table.concat(options.subprotocols, ", ") end
  if options.compress then
    headers["Sec-WebSocket-Extensions"] = options.compress == true and "permessage-deflate" or options.compress
  end
  for name, value in pairs(options.headers or {}) do headers[name] = value or nil end
  return { path = path, headers = headers }
end

--- Opens one on a client of an http:// or ws:// listener.
---@param client perilune.test.client
---@param path string
---@param options perilune.test.websocket_options?
---@return perilune.test.websocket
function M.open(client, path, options)
  options = options or {}
  for key in pairs(options) do
    if not OPTIONS[key] then
      failing.misuse(("websocket: unknown option %s (there are: answers, compress, headers, origin, subprotocols)")
        :format(tostring(key)))
    end
  end
  local response = client:ask(handshake(path, options)):response()
  if response.status ~= 101 then
    clients.fail(client, ("expected a WebSocket, got %d: %s"):format(response.status, transcript.show(response.body)))
  end
  if response.headers["sec-websocket-accept"] ~= ACCEPT then
    clients.fail(client, "the handshake is not answered: Sec-WebSocket-Accept is wrong")
  end
  client.show = show_all
  local extensions = response.headers["sec-websocket-extensions"]
  return setmetatable({
    client = client, response = response, bytes = "", answers = options.answers ~= false,
    subprotocol = response.headers["sec-websocket-protocol"],
    compresses = extensions ~= nil,
    keeps = extensions ~= nil and not extensions:find "server_no_context_takeover", sent = "",
  }, websocket)
end

-- ---- receiving ----

local TAIL = "\0\0\255\255"

local function inflate_all(self, data)
  local perilune = require "perilune"
  local whole, message = perilune.inflate(data .. "\3\0", { format = "raw", max = "1g" })
  if not whole then clients.fail(self.client, "a compressed message is broken: " .. message) end
  return whole
end

-- A server that keeps what it has sent may refer to that: it is inflated again with each message.
local function inflate(self, data)
  if not self.keeps then return inflate_all(self, data .. TAIL) end
  local before = self.sent:sub(1, -1 - #data - #TAIL)
  return inflate_all(self, self.sent):sub(#inflate_all(self, before) + 1)
end

local function keep(self, frame)
  if CONTROLS[frame.opcode] then return end
  if frame.opcode ~= "more" then self.is_compressed = frame.reserved == COMPRESSED end
  if self.is_compressed then self.sent = self.sent .. frame.data .. (frame.last and TAIL or "") end
end

local function answer(self, frame)
  if frame.opcode == "ping" and self.answers then
    local shown = "pong " .. transcript.show(frame.data)
    clients.send_bytes(self.client, M.bytes { opcode = "pong", data = frame.data }, shown)
  end
end

--- The next frame as it came, control frames too; nil: none has come.
---@return perilune.test.websocket_frame?
function websocket:frame()
  while true do
    local frame, used = parse(self.bytes)
    if frame then
      self.bytes = self.bytes:sub(used + 1)
      answer(self, frame)
      if self.keeps then keep(self, frame) end
      return frame
    end
    local piece = clients.take(self.client)
    if piece == nil then return nil end
    self.bytes = self.bytes .. piece
  end
end

-- The next message, and the control frames on the way to it are left out, but for a close frame.
local function next_message(self)
  if self.kept then
    local kept = self.kept
    self.kept = nil
    return kept
  end
  local message
  while true do
    local frame = self:frame()
    if not frame or frame.opcode == "close" then return frame end
    if frame.opcode == "text" or frame.opcode == "binary" then message = frame end
    if frame.opcode == "more" and message then message.data = message.data .. frame.data end
    if message and frame.last and frame.opcode ~= "ping" and frame.opcode ~= "pong" then
      if message.reserved == COMPRESSED then message.data = inflate(self, message.data) end
      return message
    end
  end
end

local function nothing(self)
  if #self.bytes > 0 then return "of a frame came " .. transcript.show(self.bytes) end
  return clients.nothing(self.client)
end

local function take_message(self, wanted)
  local message = next_message(self)
  if not message then clients.fail(self.client, ("expected %s: %s"):format(wanted, nothing(self))) end
  if message.opcode == "close" then
    clients.fail(self.client, ("expected %s, got %s"):format(wanted, show_frame(message)))
  end
  return message
end

--- The next message.
---@return string message
---@return "text"|"binary" kind
function websocket:receive()
  local message = take_message(self, "a message")
  return message.data, message.opcode
end

--- Leaves out the next n messages, which must come.
---@param n integer? default 1
---@return perilune.test.websocket
function websocket:skip(n)
  for i = 1, n or 1 do take_message(self, ("message %d of %d to skip"):format(i, n or 1)) end
  return self
end

--- The data of all messages that have come and were not taken yet; they are.
---@return string[]
function websocket:messages()
  local all = {}
  clients.pull(self.client, false)
  while true do
    local message = next_message(self)
    if not message or message.opcode == "close" then
      self.kept = message
      return all
    end
    all[#all + 1] = message.data
  end
end

local function expect(self, kind, ...)
  for i = 1, select("#", ...) do
    local wanted = select(i, ...)
    if wanted == nil then failing.misuse("expect: a message, a pattern or a function is expected, got nil") end
    local message = take_message(self, clients.shown(wanted))
    if message.opcode ~= kind or not clients.agrees(wanted, message.data) then
      clients.fail(self.client, ("expected %s %s, got %s"):format(kind, clients.shown(wanted), show_frame(message)))
    end
  end
  return self
end

--- The next messages must be these texts; or have this pattern (perilune.pattern); or be accepted by a function.
---@param ... any one after the other
---@return perilune.test.websocket
function websocket:expect(...) return expect(self, "text", ...) end

--- The same of binary messages.
---@param ... any
---@return perilune.test.websocket
function websocket:expect_binary(...) return expect(self, "binary", ...) end

--- The next frame must be a pong with this.
---@param data string? default: ""
---@return perilune.test.websocket
function websocket:expect_pong(data)
  local frame = self:frame()
  if not frame or frame.opcode ~= "pong" or frame.data ~= (data or "") then
    clients.fail(self.client, ("expected pong %s: %s"):format(transcript.show(data or ""),
      frame and "got " .. show_frame(frame) or nothing(self)))
  end
  return self
end

--- The next frame must be a ping.
---@return perilune.test.websocket
function websocket:expect_ping()
  local frame = self:frame()
  if not frame or frame.opcode ~= "ping" then
    clients.fail(self.client, "expected a ping: " .. (frame and "got " .. show_frame(frame) or nothing(self)))
  end
  return self
end

--- There must be no message by now.
---@return perilune.test.websocket
function websocket:expect_nothing()
  clients.pull(self.client, false)
  self.kept = next_message(self)
  if self.kept then clients.fail(self.client, "expected nothing, got " .. show_frame(self.kept)) end
  return self
end

--- The next frame that is no ping must be a close frame.
---@param code integer? 1005: without one; nil: whatever it says
---@param text string?
---@return perilune.test.websocket
function websocket:expect_close(code, text)
  local frame = next_message(self)
  if not frame then clients.fail(self.client, "expected a close frame: " .. nothing(self)) end
  local its_code = frame.opcode == "close" and (#frame.data >= 2 and read_number(frame.data, 1, 2) or 1005)
  if not its_code or code and its_code ~= code or text and frame.data:sub(3) ~= text then
    clients.fail(self.client, ("expected close%s%s, got %s"):format(code and " " .. code or "",
      text and " " .. transcript.show(text) or "", show_frame(frame)))
  end
  self.code, self.text = its_code, frame.data:sub(3)
  return self
end

--- Why the connection has ended, as the agent's closed() was told; nil: it has not.
---@return string? reason
function websocket:closed() return self.client:closed() end

--- The connection must have ended, for this reason if one is given.
---@param reason string?
---@return perilune.test.websocket
function websocket:expect_closed(reason)
  self.client:expect_closed(reason)
  return self
end

--- Everything that happened so far, a line each, with the times.
---@return string
function websocket:transcript() return self.client:transcript() end

-- ---- sending ----

local function show_sent(kind, data) return kind .. " " .. transcript.show(data) end

local function check_data(what, data)
  if type(data) ~= "string" then failing.misuse(("%s: a string is expected, got a %s"):format(what, type(data))) end
end

--- Sends a message.
---@param data string
---@param kind "text"|"binary"|nil default: "text"
---@return perilune.test.websocket
function websocket:send(data, kind)
  kind = kind or "text"
  check_data("send", data)
  if kind ~= "text" and kind ~= "binary" then failing.misuse 'send: the kind is "text" or "binary"' end
  clients.send_bytes(self.client, M.bytes { opcode = kind, data = data }, show_sent(kind, data))
  return self
end

--- Sends a message compressed.
---@param data string
---@param kind "text"|"binary"|nil default: "text"
---@return perilune.test.websocket
function websocket:send_compressed(data, kind)
  check_data("send_compressed", data)
  local compressed = require("perilune").deflate(data, { format = "raw" })
  -- A last block may be followed by nothing but a byte of zeroes: RFC 7692, 7.2.3.4.
  local frame = M.bytes { opcode = kind or "text", reserved = COMPRESSED, data = compressed .. "\0" }
  clients.send_bytes(self.client, frame, show_sent((kind or "text") .. ", compressed", data))
  return self
end

--- Sends frames as they are described; several arrive at once.
---@param ... perilune.test.websocket_frame
---@return perilune.test.websocket
function websocket:send_frame(...)
  local bytes, shown = {}, {}
  for i = 1, select("#", ...) do
    local frame = select(i, ...)
    bytes[i] = M.bytes(frame)
    local last, reserved = frame.last ~= false, frame.reserved or 0
    shown[i] = show_frame { opcode = frame.opcode or "text", data = frame.data or "", last = last, reserved = reserved }
  end
  clients.send_bytes(self.client, table.concat(bytes), table.concat(shown, ", "))
  return self
end

--- Sends bytes as they are.
---@param bytes string
---@return perilune.test.websocket
function websocket:send_raw(bytes)
  self.client:send_raw(bytes)
  return self
end

--- Sends a message that arrives byte by byte.
---@param data string
---@param kind "text"|"binary"|nil
---@return perilune.test.websocket
function websocket:send_split(data, kind)
  check_data("send_split", data)
  local bytes = M.bytes { opcode = kind or "text", data = data }
  for i = 1, #bytes do clients.send_bytes(self.client, bytes:sub(i, i), ("byte %d of %d"):format(i, #bytes)) end
  return self
end

--- Sends a ping.
---@param data string?
---@return perilune.test.websocket
function websocket:ping(data) return self:send_frame { opcode = "ping", data = data } end

--- Sends a close frame.
---@param code integer? nil: it says nothing
---@param text string?
---@return perilune.test.websocket
function websocket:close(code, text)
  return self:send_frame { opcode = "close", data = code and big_endian(code, 2) .. (text or "") or "" }
end

--- Hangs up without a word.
---@return perilune.test.websocket
function websocket:hang_up()
  self.client:close()
  return self
end

methods.lock_objects("a websocket", websocket)

return M
