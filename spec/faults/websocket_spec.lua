--- Each allocation in C fails once while a WebSocket migrates: it goes on with one generation or the other, or it ends.
local command = require "spec.support.command"
local faults = require "spec.support.faults"
local reload = require "spec.support.reload"
local server = require "spec.support.server"

local SCRIPT = [[
  local Agent = {}
  function Agent:proceed(message) return message .. " %s\n" end
  function Agent:snapshot() return {} end
  function Agent:upgrade() end
  return { listen = "ws://127.0.0.1:0", agent = Agent, reload = "migrate", timeout = { drain = "3s" } }]]

local HANDSHAKE = "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
  .. "Sec-WebSocket-Version: 13\r\n"
  .. "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n"

-- Texts of one byte, whose replies are lines; or the last one's, in fragments.
local function frame(first, byte) return string.char(first, 129, 0, 0, 0, 0) .. byte end

local CLOSE = "\136\128\0\0\0\0"

-- "All work and no play makes Jack a dull boy.", whose reply is compressed as well.
local COMPRESSED = "\193\171\0\0\0\0"
  .. "\114\204\201\81\40\207\47\202\86\72\204\75\81\200\203\87\40\200\73\172\84\200\77\204\78\45"
  .. "\86\240\74\76\6\10\43\164\148\2\149\36\229\87\234\1\0"

-- The first bytes of frames of a server, none of which has 126 bytes; what is no whole frame is an error.
local function firsts(bytes)
  local out, at = {}, 1
  while at <= #bytes do
    local first, n = bytes:byte(at, at + 1)
    assert(n and n < 126 and at + 1 + n <= #bytes, "a part of an answer")
    out[#out + 1], at = first, at + 2 + n
  end
  return out
end

local function open(app)
  local client = app:connect():send(HANDSHAKE)
  assert.truthy(client:recv_line():find("101", 1, true))
  while client:recv_line() ~= "\r" do end
  return client:send(frame(1, "a")) -- within a message none migrates
end

-- What a connection has got once it was armed before its handshake: whole, or nothing but an end.
local function begin(app)
  local client, said = app:connect(), nil
  local ok, message = pcall(function()
    client:send(HANDSHAKE .. frame(129, "c") .. COMPRESSED .. COMPRESSED .. CLOSE):recv_line()
    said = client:recv_all()
  end)
  client:close()
  if not ok and tostring(message):find("timeout", 1, true) then error(message, 0) end
  local frames = ok and said:match "\r\n\r\n(.*)$" or ""
  local found = firsts(frames)
  for i, first in ipairs(found) do
    local is_right = first == 0x88 or first == 0x81 or (i > 1 and first == 0xc1)
    assert(is_right and (first ~= 0x88 or i == #found), "something else than answers, and an end")
  end
  return found[3] ~= nil and found[3] ~= 0x88
end

-- Who answers the next message; nil: the connection has ended.
local function answered(client)
  local ok, answer = pcall(function()
    assert.equal("\129\7ab one", client:send(frame(128, "b")):recv_line())
    return client:send(frame(129, "c")):recv_line():match "c (%w+)$"
  end)
  if not ok and tostring(answer):find("timeout", 1, true) then error(answer, 0) end
  return ok and answer or nil
end

describe("without memory for a WebSocket that begins", function()
  after_each(server.finish)

  it("it does, or it ends, and the next one begins", function()
    local number, ended = 0, 0
    repeat
      number = number + 1
      local fault = "memory:" .. number
      local app = faults.arm(faults.start(fault, { script = SCRIPT:format "one", workers = 1 }))
      ended = ended + (begin(app) and 0 or 1)
      local fired = faults.fired(app)
      if fired then assert.is_true(begin(app), fault) end
      local stopped = app:stop()
      assert.same({ 0, 0 }, { stopped.code, stopped.summary.websocket_windows }, fault)
      command.remove(app.folder)
    until not fired
    assert.is_true(ended > 2, ended .. " of " .. number)
  end)
end)

describe("without memory for a WebSocket that migrates", function()
  after_each(server.finish)

  it("it goes on with one generation or the other, or it ends", function()
    local number, by = 0, { one = 0, two = 0, none = 0 }
    repeat
      number = number + 1
      local fault = "memory:" .. number
      local app = faults.start(fault, { script = SCRIPT:format "one", workers = 1 })
      local client = open(app)
      reload.reload_to(app, SCRIPT:format "two")
      faults.arm(app)
      local answer = answered(client) or "none"
      by[answer] = by[answer] + 1
      local fired = faults.fired(app)
      client:close()
      local stopped = app:stop()
      assert.same({ 0, 0 }, { stopped.code, stopped.summary.websocket_windows }, fault)
      command.remove(app.folder)
    until not fired
    assert.is_true(by.one > 0 and by.two > 0, ("%d, %d, %d"):format(by.one, by.two, by.none))
  end)
end)
