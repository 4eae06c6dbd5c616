--- Apps in a server of their own, over real sockets. Internal; perilune.test is the door.
local core = require "perilune.workbench.app" -- in C: src/workbench/app.c
local net = require "perilune.workbench.net" -- in C: src/workbench/net.c

local clients = require "perilune.test.client"
local codec = require "perilune.test.codec"
local failing = require "perilune.test.fail"
local host = require "perilune.test.host"
local leftovers = require "perilune.test.leftovers"
local methods = require "perilune.test.methods"
local proxied = require "perilune.test.proxied"
local settings = require "perilune.test.settings"
local transcript = require "perilune.test.transcript"
local units = require "perilune.units"

local M = {}

local PATIENCE_MS = 2000 -- what is expected has to come within
local START_MS = 10000
local REST_MS = 20 -- without anything happening, an app is taken to be at rest

-- ---- the log ----

-- The server writes one JSON object a line, of strings, numbers and booleans: what perilune.log was given among them.
local ESCAPES = { n = "\n", t = "\t", r = "\r", b = "\b", f = "\f" }

local function unescape(text)
  return (text:gsub("\\u00(%x%x)", function(code) return string.char(tonumber(code, 16)) end)
    :gsub("\\(.)", function(c) return ESCAPES[c] or c end))
end

local function parse_entry(line)
  local entry, at = {}, 2
  if line:sub(1, 1) ~= "{" then return nil end
  while true do
    local key, from = line:match('^,?"([%w_ ]+)":()', at)
    if not key then return entry end
    local word, after = line:match('^([^",}]+)()', from)
    if word then
      entry[key], at = tonumber(word) or word == "true", after
    else
      local to = from + 1
      while line:sub(to, to) ~= '"' and to <= #line do to = to + (line:sub(to, to) == "\\" and 2 or 1) end
      entry[key], at = unescape(line:sub(from + 1, to - 1)), to + 1
    end
  end
end

-- ---- a server ----

---@class perilune.test.server
local server = {}
server.__index = server

local function read_log(self)
  if self.errors then self.rest = self.rest .. net.read(self.errors) end
  for line in self.rest:gmatch("([^\n]*)\n") do
    local entry = parse_entry(line)
    if entry then
      entry.at_ms = host.now() * 1000 - self.began_ms
      self.entries[#self.entries + 1] = entry
    else
      self.words[#self.words + 1] = line
    end
  end
  self.rest = self.rest:match("[^\n]*$")
  return self.entries
end

local function find_entry(self, message, field, value)
  for _, entry in ipairs(read_log(self)) do
    if entry.message == message and (not field or entry[field] == value) then return entry end
  end
end

local function said(self)
  local lines = { unpack(self.words) }
  for _, entry in ipairs(self.entries) do
    if entry.level == "error" then
      lines[#lines + 1] = entry.message .. ": " .. tostring(entry.error or entry.excerpt)
    end
  end
  return table.concat(lines, "\n")
end

local function await_start(self)
  host.wait_until(START_MS, function() return find_entry(self, "serving") or net.ended(self.process) end)
  if find_entry(self, "serving") then return end
  local ended = net.ended(self.process)
  host.wait_until(500, function() return select(2, net.state(self.errors)) end) -- its last words
  read_log(self)
  self:dispose()
  failing.misuse(("%s %s\n%s"):format(self.name, ended and "cannot be served:" or "does not start:", said(self)))
end

local function read_listeners(self)
  local addresses = {}
  for _, entry in ipairs(self.entries) do
    if entry.message == "listening" then
      local scheme, at, port = entry.address:match("^(%a+)://%[?(.-)%]?:(%d+)$")
      if at == "0.0.0.0" or at == "::" or at == "" then at = "127.0.0.1" end
      addresses[#addresses + 1] = { host = at, port = tonumber(port), path = entry.address:match("^unix://(.*)$"),
        is_udp = scheme == "udp" }
    end
  end
  return addresses
end

local function words_of(self, overrides)
  local words = { "perilune", "run", self.name, "--log-format=json", "--log-level=debug", "--control=off" }
  local listens, workers = false, false
  for _, override in ipairs(overrides) do
    listens, workers = listens or override.path == "listen", workers or override.path == "workers"
    words[#words + 1] = ("--set=%s=%s"):format(override.path, override.value)
  end
  if not workers then words[#words + 1] = "--workers=1" end
  -- Several listeners may have settings of their own: then the script has to say port 0.
  local names, schemes = core.listeners(self.core)
  if not listens and #names == 1 then
    words[#words + 1] = ("--listen=%s://127.0.0.1:0"):format(schemes[1] == "unix" and "tcp" or schemes[1])
  end
  return words
end

---@param file string
---@param overrides table?
---@return perilune.test.server
function M.start(file, overrides)
  if type(file) ~= "string" then failing.misuse("start: the file of a script is expected, got a " .. type(file)) end
  local list = settings.list(overrides)
  local opened, message = core.open(file, nil, list, "perilune.test.codecs")
  if not opened then failing.cannot_load(file, message) end
  local self = setmetatable({
    core = opened, name = file, clients = {}, entries = {}, words = {}, rest = "", began_ms = host.now() * 1000,
  }, server)
  leftovers.add(self)
  local process, errors = net.spawn(words_of(self, list))
  if not process then failing.misuse("start: the server cannot be started: " .. errors) end
  self.process, self.errors = process, errors
  await_start(self)
  self.addresses = read_listeners(self)
  return self
end

-- ---- a client's wire ----

local wire = {}
wire.__index = wire

function wire:now_ms() return host.now() * 1000 - self.server.began_ms end

local function check_open(self)
  if net.is_closed(self.channel) then failing.misuse("the client has hung up") end
end

function wire:put(bytes)
  check_open(self)
  net.write(self.channel, bytes)
end

function wire:encode(frame) return codec.encode(self.server.core, self.number, frame) end
function wire:set_frame(framing) self.is_stream = codec.set_frame(self.server.core, self.number, framing) end

local function receive(self)
  if net.is_closed(self.channel) then return true end
  local bytes = net.read(self.channel)
  if bytes ~= "" then core.receive(self.server.core, self.number, bytes) end
  return select(2, net.state(self.channel))
end

function wire:next(is_patient)
  local frame, wrong
  host.wait_until(is_patient and self.server.patience_ms or 0, function()
    local is_over = receive(self)
    frame, wrong = codec.next(self.server.core, self.number)
    return frame ~= nil or wrong ~= nil or is_over
  end)
  if frame == nil then return nil, wrong end
  return frame, self:now_ms()
end

-- What the server says of it; over a Unix socket all clients look the same to it.
function wire:ended(is_patient)
  local function look()
    local entry = self.address and find_entry(self.server, "closed", "peer", self.address)
    if entry then return entry.reason end
    local refused = self.address and find_entry(self.server, "connection refused", "peer", self.address)
    if refused then return refused.reason end
    local is_gone = net.is_closed(self.channel) or select(2, net.state(self.channel))
    return not self.address and is_gone and "closed" or nil
  end
  if not is_patient then return look() end
  return host.wait_until(self.server.patience_ms, look)
end

function wire:was_reset()
  if net.is_closed(self.channel) then return false end
  host.wait_until(self.server.patience_ms, function() return receive(self) end)
  return select(3, net.state(self.channel)) == "ECONNRESET"
end

function wire:about()
  local log = transcript.log(read_log(self.server))
  return log and "\n" .. log or ""
end

function wire:stall()
  check_open(self)
  net.stall(self.channel, true)
end

function wire:unstall()
  check_open(self)
  net.stall(self.channel, false)
end

function wire:half_close()
  check_open(self)
  net.half_close(self.channel)
end

function wire:reset() net.close(self.channel, true) end
function wire:close() net.close(self.channel) end

-- ---- what one does with a server ----

local OPTIONS = { listener = true, proxy = true, frame = true, name = true }

local function dial(address)
  if address.path then return net.connect_unix(address.path) end
  if address.is_udp then return net.datagrams(address.host, address.port) end
  return net.connect(address.host, address.port)
end

--- A client connects.
---@param options { listener: integer|string|nil, proxy: any, frame: any, name: string? }?
---@return perilune.test.client
function server:connect(options)
  if self.is_closed then failing.misuse("the app is closed") end
  options = options or {}
  settings.check_options("connect", options, OPTIONS)
  local names, schemes = core.listeners(self.core)
  local listener = settings.listener(names, options.listener)
  if schemes[listener] == "tls" and options.frame ~= "raw" then
    failing.misuse 'connect: clients over sockets do not speak TLS: test in memory, or send bytes: frame = "raw"'
  end
  local header, client
  if options.proxy then header, client = proxied.header(options.proxy) end
  local channel = dial(self.addresses[listener])
  host.wait_until(PATIENCE_MS, function()
    local is_open, is_over = net.state(channel)
    return is_open or is_over
  end)
  local is_open, _, why = net.state(channel)
  if not is_open then failing.fail(("%s: cannot connect: %s"):format(self.name, why or "no answer")) end
  local one = setmetatable({ server = self, channel = channel, number = core.codec(self.core, listener) }, wire)
  local framing = core.framing(self.core, one.number)
  one.address, one.is_stream, one.is_datagram = client or net.address(channel), framing == "raw", framing == "datagram"
  if options.frame then one:set_frame(options.frame) end
  if header then one:put(header) end
  local name = options.name or "client " .. #self.clients + 1
  local made = clients.new(("%s of %s (%s)"):format(name, self.name, one.address or "unix"), one)
  self.clients[#self.clients + 1] = { client = made, wire = one, name = name }
  return made
end

server.patience_ms = PATIENCE_MS

--- Waits so long: the clock is the real one.
---@param time number|string
---@return perilune.test.server
function server:advance(time)
  local ms, message = units.duration(time)
  if not ms then failing.misuse("advance: " .. message) end
  host.wait_until(ms, function() end)
  return self
end

--- Waits until nothing has happened for a moment.
---@return perilune.test.server
function server:settle()
  local function size()
    local n = #read_log(self)
    for _, one in ipairs(self.clients) do
      receive(one.wire)
      n = n + #one.client.inbox
    end
    return n
  end
  local before
  repeat
    before = size()
    host.wait_until(REST_MS, function() end)
  until size() == before
  return self
end

---@return number seconds since it was started
function server:now() return host.now() - self.began_ms / 1000 end

--- What it has logged so far.
---@param message string?
---@return table[]
function server:log(message)
  local found = {}
  for _, entry in ipairs(read_log(self)) do
    if not message or entry.message == message then found[#found + 1] = entry end
  end
  return found
end

---@return table[]
function server:faults() return self:log "handler failed" end

local function not_here(name)
  server[name] = function() failing.misuse(("%s: only for an app in memory"):format(name)) end
end
for _, name in ipairs { "fail", "no_memory", "counters", "stall", "resume" } do not_here(name) end

local function finish(self)
  self.is_closed = true
  for _, one in ipairs(self.clients) do net.close(one.wire.channel) end
  if self.process then
    net.forget(self.process)
    net.close(self.errors)
    self.process, self.errors = nil, nil
  end
  core.close(self.core)
end

--- Tells it to stop.
---@return perilune.test.server
function server:begin_drain()
  -- A second signal would cut what is left.
  if not self.is_closed and not self.told_to_stop then net.kill(self.process, "TERM") end
  self.told_to_stop = true
  return self
end

--- Tells it to stop, and waits for that.
---@return perilune.test.server
function server:drain()
  if self.is_closed then return self end
  self:begin_drain()
  host.wait_until(30000, function() return net.ended(self.process) end)
  read_log(self)
  return self
end

--- Ends it: clients hang up, the server stops, and has to do so in good order.
function server:close()
  if self.is_closed then return end
  for _, one in ipairs(self.clients) do net.close(one.wire.channel) end
  self:drain()
  host.wait_until(500, function() return select(2, net.state(self.errors)) end)
  read_log(self)
  local code, number = net.ended(self.process)
  for _, one in ipairs(self.clients) do one.client:transcript() end
  if not code then net.kill(self.process, "KILL") end
  finish(self)
  if code ~= 0 or number ~= 0 then
    failing.fail(("%s did not end in good order: %s\n%s"):format(self.name,
      not code and "it did not end at all" or number ~= 0 and "signal " .. number or "exit code " .. code, said(self)))
  end
end

-- For perilune.test.leftovers.
function server:logged() return self.entries and read_log(self) or {} end

function server:left()
  if self.is_closed then return nil end
  return ("%s was left running (started with perilune.start): end it with app:close()"):format(self.name)
end

function server:dispose()
  if self.is_closed then return end
  if self.process then net.kill(self.process, "KILL") end
  finish(self)
end

methods.lock_objects("an app", server)

return M
