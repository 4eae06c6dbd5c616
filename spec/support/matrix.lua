--- What is promised of a connection whatever its stream, its layers and its framing. Specifications run it over what
--- they have: spec/behaviour/matrix_spec.lua over streams in memory, spec/server/matrix_spec.lua over TCP and Unix
--- sockets, each with what stands in front of them (TLS, a proxy), and both over nasty streams
--- (spec/support/nasty.lua). Only a replay has no layers, as what it plays is what they have made of the bytes.
local framings = require "spec.support.framings"
local nasty = require "spec.support.nasty"
local udp = require "spec.support.udp"

local M = {}

--- Source of the agent. Payloads are seven bytes, so that all framings have them; a frame may have a header as well.
M.AGENT = framings.IN_LUA .. [[
local perilune = require "perilune"
local VERSION = "%s"
local Agent = {}
function Agent:opened() self.n = 0 end
-- Past the mark, and five more: "full", and how many there were before those.
local function fill(self, text)
  local sent = 0
  repeat
    local below = self.conn:send(text)
    sent = sent + 1
  until not below
  for _ = 1, 5 do self.conn:send((text:gsub("be full", "dropped"))) end
  perilune.log("info", "full " .. sent)
  self.is_full = true
end
function Agent:proceed(frame)
  local text = tostring(frame)
  self.n = self.n + 1
  if text:find "version" then return (text:gsub("version", VERSION:rep(7))) end
  if text:find "a count" then return (text:gsub("a count", ("%%07d"):format(self.n))) end
  if text:find "closing" then return text, "close" end
  if text:find "be idle" then self.conn:set_timeout("idle", "20ms") end
  if text:find "be slow" then
    perilune.sleep "50ms" -- a view is gone by then
    return text
  end
  if text:find "be read" then return (tostring((self.conn:read()))) end
  if text:find "be full" then return fill(self, text) end
  if text:find "be open" then
    self.open = text -- what is sent once there is room again
    return nil
  end
  return frame
end
function Agent:writable()
  if self.is_full and self.open then self.conn:send(self.open) end
  self.is_full = false
end
function Agent:snapshot() return { n = self.n } end
function Agent:upgrade(data) self.n = data.n end
]]

---@class perilune.spec.cell
---@field name string
---@field framing string source
---@field encode fun(payload: string): string

--- Each framing, and those that have views once more with them.
---@type perilune.spec.cell[]
M.CELLS = {}

local function add(name, framing, encode)
  M.CELLS[#M.CELLS + 1] = { name = name, framing = framing, encode = encode }
end

for _, one in ipairs(framings.LIST) do
  add(one.source, one.source, one.encode)
  local is_table = one.source:find "^{"
  local has_views = one.source ~= "in_lua" and not (is_table and one.source:find "offset")
  if has_views then
    local with_views = is_table and one.source:gsub("}$", ", view = true }")
      or ("{ %s, view = true }"):format(one.source)
    add(one.source .. " with views", with_views, one.encode)
  end
end

-- What threads share has nothing to do with framings: ThreadSanitizer, under which all takes ten times as long, looks
-- at every third.
if os.getenv "SANITIZE" == "thread" then
  local some = {}
  for i = 1, #M.CELLS, 3 do some[#some + 1] = M.CELLS[i] end
  M.CELLS = some
end

--- The same for listeners with datagrams.
M.DATAGRAM_CELLS = {
  { name = '"datagram"', framing = '"datagram"', encode = udp.record },
  { name = '"datagram" with views', framing = '{ "datagram", view = true }', encode = udp.record },
}

--- Those of a front.
---@param front perilune.spec.front
---@return perilune.spec.cell[]
function M.cells(front) return front.has_datagrams and M.DATAGRAM_CELLS or M.CELLS end

--- Listeners of a script: an address and a cell each.
---@param cells perilune.spec.cell[]
---@param addresses string[] in the order of the cells, again and again
---@param settings string? more of each listener
---@return string source of `listen`
function M.listeners(cells, addresses, settings)
  local list = {}
  for i, address in ipairs(addresses) do
    local cell = cells[(i - 1) % #cells + 1]
    list[i] = ("{ address = %q, name = %q, frame = %s, %s }"):format(address, "cell" .. i, cell.framing, settings or "")
  end
  return "{ " .. table.concat(list, ",\n  ") .. " }"
end

local PROXIED = 'proxy = true, trust = { "127.0.0.0/8", "unix" },'
local HEADER = "PROXY TCP4 203.0.113.7 192.0.2.1 5060 9000\r\n"

--- What stands in front of listeners, by its name: their settings, what comes first on each connection, and whether
--- they speak TLS. "": nothing.
---@class perilune.spec.front
---@field tls boolean?
---@field settings string?
---@field begin string?
---@field has_datagrams boolean?

---@type table<string, perilune.spec.front>
M.FRONTS = {
  [""] = {},
  [", behind a proxy"] = { settings = PROXIED, begin = HEADER },
  [", with TLS"] = { tls = true },
  [", with TLS, behind a proxy"] = { tls = true, settings = PROXIED, begin = HEADER },
  [", of datagrams"] = { has_datagrams = true },
}

--- Can clients speak to it through as many nasty layers as there are? Those do not carry all bytes, and TLS has all;
--- and a datagram is nothing to be cut to pieces.
---@param front perilune.spec.front
---@return boolean
function M.is_reached(front) return nasty.LAYERS == 0 or not (front.tls or front.has_datagrams) end

--- Can that happen there?
---@param event perilune.spec.event
---@param front perilune.spec.front
---@return boolean?
function M.is_possible(event, front)
  if front.has_datagrams then return event.of_datagrams end
  return nasty.LAYERS > 0 or front.tls or not event.of_layers
end

--- Settings of listeners, with those of a front.
---@param front perilune.spec.front
---@param settings string?
---@param pair { certificate: string, key: string } of those that speak TLS
---@return string
function M.with(front, settings, pair)
  local tls = front.tls and ("tls = { certificate = %q, key = %q },"):format(pair.certificate, pair.key) or ""
  return (front.settings or "") .. tls .. (settings or "")
end

---@param front perilune.spec.front
---@return "tcp"|"tls"|"udp"
function M.scheme(front) return front.tls and "tls" or front.has_datagrams and "udp" or "tcp" end

--- A connection, however it is made. What it sends and gets is what its framing makes of payloads; layers of its stream
--- add what is theirs.
---@class perilune.spec.wire
---@field send fun(self, bytes: string)
---@field send_bytewise fun(self, bytes: string)
---@field expect fun(self, bytes: string)
---@field expect_end fun(self)
---@field half_close fun(self)
---@field reset fun(self)
---@field stall fun(self) reads nothing, or little
---@field unstall fun(self)
---@field misbegin fun(self) its layers' beginning is none, nor is a record of TLS
---@field filled fun(self): integer waits for the agent's word that it has sent more than is taken: how many frames
---@field settle fun(self) what has been sent has been read, if it is read at all

local function fill_up(is_kept)
  return function(wire, encode)
    wire:send(encode "be open")
    wire:stall()
    wire:send(encode "be full")
    local sent = wire:filled()
    wire:send(encode "a count")
    wire:settle()
    wire:unstall()
    -- It is not read before there is room.
    wire:expect(encode("be full"):rep(sent) .. encode("dropped"):rep(is_kept and 5 or 0) .. encode "be open"
      .. encode "0000003")
    wire:send(encode "closing")
    wire:expect(encode "closing")
    wire:expect_end()
  end
end

local function slow_consumer(policy)
  return ([[limits = { send_buffer = "1k", proceed = "10m", slow_consumer = %q }]]):format(policy)
end

--- What happens, by its name, over each kind of stream.
---@class perilune.spec.event
---@field run fun(wire: perilune.spec.wire, encode: fun(payload: string): string)
---@field reason string that the connection ends for
---@field unix_reason string? the same over a Unix socket, which knows no reset
---@field settings string? of all listeners
---@field dropped integer? frames that are
---@field begins boolean? false: by itself, if layers have a beginning
---@field is_late boolean? it does not begin in time
---@field of_layers boolean? there is no such thing where there are none
---@field of_datagrams boolean? there is, where datagrams come

---@type table<string, perilune.spec.event>
M.EVENTS = {
  ["splits"] = { reason = "agent", run = function(wire, encode)
    wire:send_bytewise(encode "one two" .. encode "version" .. encode "a count")
    wire:expect(encode "one two" .. encode "1111111" .. encode "0000003")
    wire:send(encode "in one!" .. encode "write!!" .. encode("closing"):sub(1, -2))
    wire:expect(encode "in one!" .. encode "write!!")
    wire:send(encode("closing"):sub(-1))
    wire:expect(encode "closing")
    wire:expect_end()
  end },
  ["several at once"] = { reason = "agent", of_datagrams = true, run = function(wire, encode)
    wire:send(encode "one two" .. encode "version" .. encode "a count" .. encode "write!!")
    wire:expect(encode "one two" .. encode "1111111" .. encode "0000003" .. encode "write!!")
    wire:send(encode "closing")
    wire:expect(encode "closing")
    wire:expect_end()
  end },
  ["half-close"] = { reason = "peer", run = function(wire, encode)
    wire:send(encode "one two" .. encode "a count")
    wire:half_close()
    wire:expect(encode "one two" .. encode "0000002")
    wire:expect_end()
  end },
  ["half-close in a frame"] = { reason = "peer", run = function(wire, encode)
    wire:send(encode "one two" .. encode("one two"):sub(1, -2))
    wire:half_close()
    wire:expect(encode "one two")
    wire:expect_end()
  end },
  ["reset"] = { reason = "reset", unix_reason = "peer", run = function(wire, encode)
    wire:send(encode "one two")
    wire:expect(encode "one two")
    wire:send(encode("one two"):sub(1, -2))
    wire:reset()
  end },
  ["many frames, read late"] = { reason = "agent", run = function(wire, encode)
    wire:stall()
    for _ = 1, 20 do wire:send(encode("one two"):rep(50)) end
    wire:unstall()
    wire:expect(encode("one two"):rep(1000))
    wire:send(encode "closing")
    wire:expect(encode "closing")
    wire:expect_end()
  end },
  ["a stall that pauses it"] = { reason = "agent", settings = slow_consumer "pause", run = fill_up(true) },
  ["a stall that drops frames"] = { reason = "agent", settings = slow_consumer "drop", dropped = 5,
    run = fill_up(false) },
  ["a stall that ends it"] = { reason = "slow_consumer", settings = slow_consumer "close", run = function(wire, encode)
    wire:stall()
    wire:send(encode "be full")
    wire:filled()
  end },
  ["a read"] = { reason = "agent", of_datagrams = true, run = function(wire, encode)
    wire:send(encode "be read")
    wire:send(encode "one two" .. encode "a count" .. encode "closing")
    wire:expect(encode "one two" .. encode "0000002" .. encode "closing")
    wire:expect_end()
  end },
  ["time-out"] = { reason = "idle_timeout", of_datagrams = true, run = function(wire, encode)
    wire:send(encode "be idle")
    wire:expect(encode "be idle")
    wire:expect_end()
  end },
  ["no beginning"] = { reason = "tls", begins = false, is_late = true, of_layers = true, run = function(wire)
    wire:expect_end()
  end },
  ["a false beginning"] = { reason = "tls", begins = false, of_layers = true, run = function(wire)
    wire:misbegin()
    wire:expect_end()
  end },
}

return M
