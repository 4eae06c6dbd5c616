--- Streams in memory × every framing × what happens to connections; see spec/support/matrix.lua. Once more with layers
--- on them, by perilune_nasty: spec/support/nasty.lua.
local matrix = require "spec.support.matrix"
local memory = require "spec.support.memory"
local nasty = require "spec.support.nasty"
local pki = require "spec.support.pki"
local udp = require "spec.support.udp"

-- One that hands out and takes bytes in small pieces, and one that does not.
local STREAMS = { plain = {}, pieces = { read_max = 3, write_max = 5 } }

local LAYERS = nasty.LAYERS == 0 and "" or (" below %d nasty"):format(nasty.LAYERS)

local wire = {}
wire.__index = wire

local function new_wire(app, client, front)
  local peer = nasty.peer(function(bytes) client:send_raw(bytes) end)
  return setmetatable({ app = app, client = client, front = front, peer = peer, got = "" }, wire)
end

-- Where there are nasty layers, they are the lowest.
function wire:open()
  self.peer:open(function() return memory.bytes(self.client) end)
  if nasty.LAYERS > 0 and self.front.begin then self:send(self.front.begin) end
end

function wire:misbegin()
  if nasty.LAYERS > 0 then return self.peer:misbegin() end
  self.client:send_raw((self.front.begin or "") .. "neither is this\r\n")
end

function wire:send(bytes)
  if self.front.has_datagrams then return self.client:send(unpack(udp.payloads(bytes))) end
  self.client:send_raw(self.peer:encode(bytes))
end

function wire:send_bytewise(bytes) for byte in bytes:gmatch "." do self:send(byte) end end
function wire:half_close() self.client:half_close() end
function wire:reset() self.client:reset() end
function wire:stall() self.client:stall(nasty.LAYERS == 0 and 0 or 100) end -- layers write to read
function wire:unstall() self.client:unstall() end
function wire:settle() self.app:advance(0) end

function wire:filled()
  local notes = self.app:log()
  for i = #notes, 1, -1 do
    local sent = notes[i].message:match "^full (%d+)$"
    if sent then return tonumber(sent) end
  end
end

-- What has come, and what comes of the answers to it.
function wire:gather()
  if self.front.has_datagrams then
    for _, datagram in ipairs(self.client:frames()) do self.got = self.got .. udp.record(datagram) end
    return
  end
  repeat
    local bytes = memory.bytes(self.client)
    self.got = self.got .. self.peer:decode(bytes)
  until bytes == ""
end

function wire:expect(bytes)
  self.app:advance "10ms"
  self:gather()
  assert.equal(bytes, self.got)
  self.got = ""
end

-- Of one that has not begun TLS has an alert to say.
function wire:expect_end()
  self:gather()
  self.app:advance "1s"
  self:gather()
  assert.equal("", self.is_begun and self.got or "")
  assert.is_truthy(self.client:closed())
  local is_told = self.front.has_datagrams or self.client:closed() == "tls" -- nobody is told of a flow's end
  assert.is_true(is_told or self.peer:has_ended())
end

local PKI, server

-- One listener for each cell.
local function start(stack, of_each)
  local addresses, cells = {}, matrix.cells(stack.front)
  for i = 1, #cells do addresses[i] = ("%s://127.0.0.1:%d"):format(matrix.scheme(stack.front), 7000 + i) end
  return memory.script(matrix.AGENT:format "1" .. ([[
    return { agent = Agent, timeout = { handshake = "1s" }, listen = %s }]]):format(
    matrix.listeners(cells, addresses, matrix.with(stack.front, of_each, server))))
end

-- What its layers begin with: the client does that itself, but for what stands on nasty ones.
local function connect(app, i, stack, begins)
  local by_itself = begins and nasty.LAYERS == 0
  return app:connect {
    listener = "cell" .. i, frame = not stack.front.has_datagrams and "raw" or nil,
    proxy = by_itself and stack.front.begin or nil,
    tls = by_itself and stack.front.tls and {} or false,
    read_max = stack.options.read_max, write_max = stack.options.write_max,
  }
end

local function each_cell(app, stack, run, begins)
  begins = begins ~= false
  for i, cell in ipairs(matrix.cells(stack.front)) do
    local client = connect(app, i, stack, begins)
    local ok, message = xpcall(function()
      local one = new_wire(app, client, stack.front)
      one.is_begun = begins
      if begins then one:open() end
      run(one, cell, client)
    end, debug.traceback)
    if not ok then error(("%s: %s"):format(cell.name, tostring(message)), 0) end
  end
end

-- Stacks: a front and a kind of stream each.
local STACKS = {}
for what, front in pairs(matrix.FRONTS) do
  for stream, options in pairs(STREAMS) do
    local is_whole = not front.has_datagrams or not options.read_max
    if matrix.is_reached(front) and is_whole then STACKS[stream .. what] = { front = front, options = options } end
  end
end

describe("over streams in memory" .. LAYERS, function()
  setup(function()
    PKI = pki.new()
    server = PKI:sign "server"
  end)
  teardown(function() PKI:remove() end)
  after_each(memory.finish)

  for stream, stack in pairs(STACKS) do
    for event, what in pairs(matrix.EVENTS) do
      if matrix.is_possible(what, stack.front) then
        it(("%s, every framing: %s"):format(stream, event), function()
          each_cell(assert(start(stack, what.settings)), stack, function(one, cell, client)
            what.run(one, cell.encode)
            assert.equal(what.reason, client:closed())
          end, what.begins)
        end)
      end
    end

    it(stream .. ", every framing: drain", function()
      local app, wires = assert(start(stack)), {}
      each_cell(app, stack, function(one, cell)
        wires[#wires + 1] = one
        one.cell = cell
        one:send(cell.encode "be slow" .. cell.encode "a count")
      end)
      app:begin_drain()
      app:advance "100ms" -- for the slow ones
      for _, one in ipairs(wires) do
        one:expect(one.cell.encode "be slow" .. one.cell.encode "0000002")
        assert.equal("drain", one.client:closed())
      end
    end)

    if not stack.front.has_datagrams then
      it(stream .. ", every framing: no memory for a frame that is begun", function()
        local app = assert(start(stack))
        app:no_memory()
        each_cell(app, stack, function(one, cell, client)
          one:send(cell.encode("one two"):sub(1, -2))
          assert.equal("memory", client:closed())
        end)
      end)
    end
  end
end)
