--- TCP and Unix sockets × every framing × what happens to connections and to the server; see spec/support/matrix.lua.
--- Once more with layers on them, by perilune_nasty: spec/support/nasty.lua.
local command = require "spec.support.command"
local matrix = require "spec.support.matrix"
local nasty = require "spec.support.nasty"
local pki = require "spec.support.pki"
local reload = require "spec.support.reload"
local server = require "spec.support.server"
local tls_client = require "spec.support.tls_client"
local trace = require "spec.support.trace"
local udp = require "spec.support.udp"
local wait = require "spec.support.wait"

local LAYERS = nasty.LAYERS == 0 and "" or (" below %d nasty"):format(nasty.LAYERS)

local PKI, PAIR

-- What is said over a socket, through nasty layers or none.
local carrier = {}
carrier.__index = carrier

-- The answer to what has been asked may come when there is nobody any more.
local function new_carrier(client)
  local peer = nasty.peer(function(bytes) pcall(client.send, client, bytes) end)
  return setmetatable({ client = client, peer = peer }, carrier)
end

function carrier:open() self.peer:open(function() return assert(self.client:recv_some()) end) end
function carrier:send(bytes) self.client:send(self.peer:encode(bytes)) end
function carrier:trickle(bytes) self.client:trickle(self.peer:encode(bytes)) end

function carrier:recv_some()
  local bytes, how
  repeat
    bytes, how = self.client:recv_some()
    bytes = bytes and self.peer:decode(bytes)
  until bytes ~= ""
  return bytes, how
end

-- What it has not read may make a reset of a close, but not of layers' last words.
function carrier:has_ended(how) return how == "closed" or nasty.LAYERS > 0 and self.peer:has_ended() end

local wire = {}
wire.__index = wire

-- `way`: what is sent and received goes through it, the carrier or the TLS on it.
local function new_wire(app, client, version)
  local below = new_carrier(client)
  return setmetatable({ app = app, client = client, version = version, below = below, way = below, got = "" }, wire)
end

function wire:open()
  local front = self.app.front
  self.below:open()
  if front.begin then self.below:send(front.begin) end
  if front.tls then
    self.way = tls_client.open(self.client, { authority = PKI:path "ca.pem", version = self.version })
  end
  self.is_begun = true
end

function wire:misbegin()
  if nasty.LAYERS > 0 then return self.below.peer:misbegin() end
  self.below:send((self.app.front.begin or "") .. "neither is this\r\n")
end

function wire:send(bytes) self.way:send(bytes) end
function wire:send_bytewise(bytes) self.way:trickle(bytes) end

function wire:half_close()
  if self.way == self.below then self.client:shutdown "send" else self.way:notify() end
end

function wire:reset() self.client:reset() end
function wire:stall() end -- it reads when it expects something
function wire:unstall() end

function wire:filled()
  self.app.filled = (self.app.filled or 0) + 1
  local entry = self.app:wait_log(function(one) return one.message:find "^full" end, nil, self.app.filled)
  return tonumber(entry.message:match "%d+")
end

-- The one worker answers to another client when it has looked at this one.
function wire:settle()
  self.app.other = self.app.other or new_wire(self.app, self.app:connect { listener = self.app.n_wires + 1 })
  local other, encode = self.app.other, matrix.CELLS[1].encode
  if not other.is_begun then other:open() end
  other:send(encode "another")
  other:expect(encode "another")
end

function wire:expect(bytes)
  while #self.got < #bytes do
    local more, how = self.way:recv_some()
    if not more then error(("%s after %q of %q"):format(how, self.got, bytes), 2) end
    self.got = self.got .. more
  end
  assert.equal(bytes, self.got:sub(1, #bytes))
  self.got = self.got:sub(#bytes + 1)
end

-- Of one that has not begun TLS has an alert to say.
function wire:expect_end()
  if self.app.front.has_datagrams then return end -- nobody is told
  local bytes, how
  repeat
    self.got = self.got .. (bytes or "")
    bytes, how = self.way:recv_some()
  until not bytes
  local has_ended = how == "closed by notice" or self.way == self.below and self.below:has_ended(how)
  assert.same({ "", true }, { self.is_begun and self.got or "", has_ended }, how)
end

-- A Unix socket knows no TLS.
local function has_unix(front) return not front.tls and not front.has_datagrams end

-- A listener for each cell, over TCP and over a Unix socket; or over UDP. And the first cell's once more, for settle().
local function script(front, version, folder, settings, of_each)
  local addresses = {}
  local cells = matrix.cells(front)
  for i = 1, #cells do
    addresses[i] = matrix.scheme(front) .. "://127.0.0.1:0"
    if has_unix(front) then addresses[#cells + i] = ("unix://%s/%d.sock"):format(folder, i) end
  end
  addresses[#addresses + 1] = addresses[1]
  return matrix.AGENT:format(version) .. ([[
    return { agent = Agent, listen = %s, control = "control.sock", limits = { inbox = 1000 },
      timeout = { write = "10m", drain = "10m" }, %s }]]):format(matrix.listeners(cells, addresses, of_each),
    matrix.with(front, settings, PAIR))
end

local function start(front, settings, of_each, env)
  local folder = command.folder()
  local app = server.start { folder = folder, script = script(front, "1", folder, settings, of_each), env = env,
    control = "control.sock", args = { "--log-level=debug" } }
  app.front = front
  return app, function(version) return script(front, version, folder, settings, of_each) end
end

-- Settings and environment of a server whose clients have but a moment to begin.
local function hasty()
  return [[timeout = { write = "10m", drain = "10m", handshake = "50ms" }]], nasty.opening(50)
end

-- The process that has taken over.
local function upgrade(app)
  local successor = app:upgrade()
  successor.front = app.front
  return successor
end

local function cell_of(front, i)
  local cells = matrix.cells(front)
  return cells[(i - 1) % #cells + 1]
end

local function name_of(front, i)
  local kind = i > #matrix.cells(front) and "unix" or matrix.scheme(front)
  return kind .. ", " .. cell_of(front, i).name
end

-- The systems hold little for them, so a server soon sees that one does not read.
local function connect(app)
  local wires, n = {}, #matrix.cells(app.front)
  app.n_wires = has_unix(app.front) and 2 * n or n
  for i = 1, app.n_wires do
    local client = app.front.has_datagrams and udp.connect_records(app, { listener = i })
      or app:connect { listener = i, receive_buffer = 4096, segment = 536 }
    wires[i] = new_wire(app, client, i % 2 == 0 and "1.2" or "1.3")
  end
  return wires
end

-- Tells whose it was that failed.
local function each(wires, run)
  for i, one in ipairs(wires) do
    local front = one.app.front
    local ok, message = xpcall(run, debug.traceback, one, cell_of(front, i).encode)
    if not ok then error(("%s: %s"):format(name_of(front, i), tostring(message)), 0) end
  end
end

-- With their layers.
local function open(app)
  local wires = connect(app)
  each(wires, wire.open)
  return wires
end

local function exchange(wires, sent, wanted)
  each(wires, function(one, encode)
    one:send(encode(sent))
    one:expect(encode(wanted))
  end)
end

local function stop(app)
  local stopped = app:stop()
  assert.equal(0, stopped.code)
  command.remove(app.folder)
  return stopped.summary
end

local function number_of(entry) return tonumber(entry.listener:match "%d+") end

-- Why each has ended, by its listener: the order in which a server accepts those of several is nobody's promise.
local function reasons(app)
  local function is_wires_end(entry) return entry.message == "closed" and number_of(entry) <= app.n_wires end
  local entries = wait.until_true("the end of all connections", function()
    local ended = app:find_log(is_wires_end)
    return #ended == app.n_wires and ended
  end)
  local by_listener = {}
  for _, entry in ipairs(entries) do by_listener[number_of(entry)] = entry.reason end
  return by_listener
end

-- What it has not read makes a reset of a Unix socket's close, and of layers nobody knows how much that is.
local function wanted_reason(what, i, reason)
  if i <= #matrix.CELLS or not what.unix_reason then return what.reason end
  return nasty.LAYERS > 0 and reason == what.reason and reason or what.unix_reason
end

local function describe_behind(before, front)
  describe("over sockets" .. LAYERS .. before .. ", every framing:", function()
    if front.tls then
      setup(function()
        PKI = pki.new()
        PAIR = PKI:sign("server", { names = { "localhost" } })
      end)
      teardown(function() PKI:remove() end)
    end
    after_each(server.finish)

    for event, what in pairs(matrix.EVENTS) do
      local begins = what.begins ~= false
      if matrix.is_possible(what, front) then
        it(event, function()
          local settings, env
          if what.is_late then settings, env = hasty() end
          local app = start(front, settings, what.settings, env)
          local wires = begins and open(app) or connect(app)
          each(wires, what.run)
          each(wires, function(one) one.client:close() end)
          for i, reason in ipairs(reasons(app)) do
            local name = name_of(front, i) .. ": "
            assert.equal(name .. wanted_reason(what, i, reason), name .. reason)
          end
          if app.other then app.other.client:close() end
          assert.equal(what.dropped and what.dropped * #wires or 0, stop(app).dropped_frames)
        end)
      end
    end

    it("a drain finishes what has arrived", function()
      local app = start(front)
      local wires = open(app)
      exchange(wires, "one two", "one two")
      each(wires, function(one, encode) one:send(encode "be slow" .. encode "a count") end)
      app:signal "TERM"
      each(wires, function(one, encode)
        one:expect(encode "be slow" .. encode "0000003")
        one:expect_end()
      end)
      assert.equal(0, app:wait_end().code)
      command.remove(app.folder)
    end)

    for policy, wanted in pairs { pin = { "1111111", "0000003" }, migrate = { "2222222", "0000003" } } do
      it("a reload that is to " .. policy, function()
        local app, source = start(front, ("reload = %q"):format(policy))
        local wires = open(app)
        exchange(wires, "version", "1111111")
        reload.reload_to(app, source "2")
        exchange(wires, "version", wanted[1])
        exchange(wires, "a count", wanted[2])
        local new = open(app)
        exchange(new, "version", "2222222")
        each(new, function(one) one.client:close() end)
        each(wires, function(one) one.client:close() end)
        stop(app)
      end)
    end

    it("a reload that is to drain", function()
      local app, source = start(front, [[reload = "drain", timeout = { drain = "6s" }]])
      local wires = open(app)
      exchange(wires, "version", "1111111")
      each(wires, function(one, encode) one:send(encode "be slow") end)
      reload.reload_to(app, source "2")
      each(wires, function(one, encode)
        one:expect(encode "be slow")
        one:expect_end()
      end)
      local new = open(app)
      exchange(new, "version", "2222222")
      each(new, function(one) one.client:close() end)
      stop(app)
    end)

    it("an upgrade", function()
      local app, source = start(front)
      local wires = open(app)
      exchange(wires, "version", "1111111")
      reload.rewrite(app, source "2")
      local successor = upgrade(app)
      exchange(wires, "a count", "0000002")
      local new = open(successor)
      exchange(new, "version", "2222222")
      exchange(wires, "closing", "closing")
      each(wires, function(one) one.client:close() end)
      each(new, function(one) one.client:close() end)
      assert.equal(0, app:wait_end().code)
      stop(successor)
    end)

    it("a recording, which is replayed", function()
      local app, source = start(front)
      local recording = trace.record(app)
      local wires = open(app)
      exchange(wires, "one two", "one two")
      exchange(wires, "be slow", "be slow")
      exchange(wires, "a count", "0000003")
      exchange(wires, "closing", "closing")
      each(wires, function(one) one:expect_end() end)
      assert.equal(0, recording:stop().code)
      local result = trace.replay(app, recording.path, source "1")
      assert.same({ 0, "" }, { result.code, result.err })
      stop(app)
    end)
  end)
end

for before, front in pairs(matrix.FRONTS) do
  local has_client = tls_client.is_there or not front.tls
  if has_client and matrix.is_reached(front) then describe_behind(before, front) end
end
