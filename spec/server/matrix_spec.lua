--- TCP and Unix sockets × every framing × what happens to connections and to the server; see spec/support/matrix.lua.
--- Once more with layers on them, by perilune_nasty: spec/support/nasty.lua.
local command = require "spec.support.command"
local matrix = require "spec.support.matrix"
local nasty = require "spec.support.nasty"
local reload = require "spec.support.reload"
local server = require "spec.support.server"
local trace = require "spec.support.trace"
local wait = require "spec.support.wait"

local LAYERS = nasty.LAYERS == 0 and "" or (" below %d nasty"):format(nasty.LAYERS)

local wire = {}
wire.__index = wire

-- The answer to what has been asked may come when there is nobody any more.
local function new_wire(app, client)
  local peer = nasty.peer(function(bytes) pcall(client.send, client, bytes) end)
  return setmetatable({ app = app, client = client, peer = peer, got = "" }, wire)
end

function wire:open()
  self.peer:open(function() return assert(self.client:recv_some()) end)
  if self.app.front.begin then self:send(self.app.front.begin) end
end
function wire:misbegin() self.peer:misbegin() end
function wire:send(bytes) self.client:send(self.peer:encode(bytes)) end
function wire:send_bytewise(bytes) self.client:trickle(self.peer:encode(bytes)) end
function wire:half_close() self.client:shutdown "send" end
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
  self.app.other = self.app.other or new_wire(self.app, self.app:connect())
  local other, encode = self.app.other, matrix.CELLS[1].encode
  if not other.is_open then other:open() end
  other.is_open = true
  other:send(encode "another")
  other:expect(encode "another")
end

function wire:expect(bytes)
  while #self.got < #bytes do
    local more, how = self.client:recv_some()
    if not more then error(("%s after %q of %q"):format(how, self.got, bytes), 2) end
    self.got = self.got .. self.peer:decode(more)
  end
  assert.equal(bytes, self.got:sub(1, #bytes))
  self.got = self.got:sub(#bytes + 1)
end

function wire:expect_end()
  local bytes, how
  repeat
    self.got = self.got .. self.peer:decode(bytes or "")
    bytes, how = self.client:recv_some()
  until not bytes
  -- What it has not read may make a reset of a close, but not of layers' last words.
  local has_ended = how == "closed" or nasty.LAYERS > 0 and self.peer:has_ended()
  assert.same({ "", true }, { self.got, has_ended })
end

-- A listener for each cell, over TCP and over a Unix socket.
local function script(version, folder, settings, of_each)
  local addresses = {}
  for i = 1, 2 * #matrix.CELLS do
    addresses[i] = i <= #matrix.CELLS and "tcp://127.0.0.1:0" or ("unix://%s/%d.sock"):format(folder, i)
  end
  return matrix.AGENT:format(version) .. ([[
    return { agent = Agent, listen = %s, control = "control.sock", limits = { inbox = 1000 },
      timeout = { write = "10m", drain = "10m" }, %s }]]):format(matrix.listeners(addresses, of_each), settings or "")
end

local function start(front, settings, of_each, env)
  local folder = command.folder()
  local all = matrix.with(front, settings)
  local app = server.start { folder = folder, script = script("1", folder, all, of_each), env = env,
    control = "control.sock", args = { "--log-level=debug" } }
  app.front = front
  return app, function(version) return script(version, folder, all, of_each) end
end

-- The process that has taken over.
local function upgrade(app)
  local successor = app:upgrade()
  successor.front = app.front
  return successor
end

local function name_of(i)
  return (i <= #matrix.CELLS and "tcp, " or "unix, ") .. matrix.CELLS[(i - 1) % #matrix.CELLS + 1].name
end

-- The systems hold little for them, so a server soon sees that one does not read.
local function connect(app)
  local wires = {}
  for i = 1, 2 * #matrix.CELLS do
    wires[i] = new_wire(app, app:connect { listener = i, receive_buffer = 4096, segment = 536 })
  end
  return wires
end

-- Tells whose it was that failed.
local function each(wires, run)
  for i, one in ipairs(wires) do
    local ok, message = xpcall(run, debug.traceback, one, matrix.CELLS[(i - 1) % #matrix.CELLS + 1].encode)
    if not ok then error(("%s: %s"):format(name_of(i), tostring(message)), 0) end
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

-- Why each has ended, by its listener.
local function reasons(app, n)
  local entries = wait.until_true("the end of all connections", function()
    local ended = app:find_log(function(entry) return entry.message == "closed" and entry.conn <= n end)
    return #ended == n and ended
  end)
  local by_listener = {}
  for _, entry in ipairs(entries) do by_listener[tonumber(entry.listener:match "%d+")] = entry.reason end
  return by_listener
end

-- What it has not read makes a reset of a Unix socket's close, and of layers nobody knows how much that is.
local function wanted_reason(what, i, reason)
  if i <= #matrix.CELLS or not what.unix_reason then return what.reason end
  return nasty.LAYERS > 0 and reason == what.reason and reason or what.unix_reason
end

for before, front in pairs(matrix.FRONTS) do
  describe("over sockets" .. LAYERS .. before .. ", every framing:", function()
    after_each(server.finish)

    for event, what in pairs(matrix.EVENTS) do
      local begins = what.begins ~= false
      if nasty.LAYERS > 0 or not what.of_layers then
        it(event, function()
          local app = start(front, nil, what.settings, not begins and nasty.opening(50) or nil)
          local wires = begins and open(app) or connect(app)
          each(wires, what.run)
          each(wires, function(one) one.client:close() end)
          for i, reason in ipairs(reasons(app, #wires)) do
            assert.equal(name_of(i) .. ": " .. wanted_reason(what, i, reason), name_of(i) .. ": " .. reason)
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
