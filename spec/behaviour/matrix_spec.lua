--- Streams in memory × every framing × what happens to connections; see spec/support/matrix.lua. Once more with layers
--- on them, by perilune_nasty: spec/support/nasty.lua.
local certificates = require "spec.support.certificates"
local matrix = require "spec.support.matrix"
local memory = require "spec.support.memory"
local nasty = require "spec.support.nasty"

-- One that hands out and takes bytes in small pieces, and one that does not; and the same with TLS on them.
local STREAMS = {
  plain = {}, pieces = { read_max = 3, write_max = 5 },
  tls = { scheme = "tls" }, ["tls in pieces"] = { scheme = "tls", read_max = 3, write_max = 5 },
}

local LAYERS = nasty.LAYERS == 0 and "" or (" below %d nasty"):format(nasty.LAYERS)

local wire = {}
wire.__index = wire

local function new_wire(app, client)
  local peer = nasty.peer(function(bytes) client:send_raw(bytes) end)
  return setmetatable({ app = app, client = client, peer = peer, got = "" }, wire)
end

-- Where there are nasty layers, they are the lowest.
function wire:open(front)
  self.peer:open(function() return memory.bytes(self.client) end)
  if nasty.LAYERS > 0 and front.begin then self:send(front.begin) end
end
function wire:misbegin() self.peer:misbegin() end
function wire:send(bytes) self.client:send_raw(self.peer:encode(bytes)) end
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

function wire:expect_end()
  self:gather()
  self.app:advance "1s"
  self:gather()
  assert.equal("", self.got)
  assert.is_truthy(self.client:closed())
  assert.is_true(self.client:closed() == "tls" or self.peer:has_ended())
end

local made, server

-- One listener for each cell.
local function start(stack, of_each)
  local addresses, scheme = {}, stack.options.scheme or "tcp"
  for i = 1, #matrix.CELLS do addresses[i] = ("%s://127.0.0.1:%d"):format(scheme, 7000 + i) end
  local tls = scheme == "tls" and ("tls = { certificate = %q, key = %q },"):format(server.certificate, server.key) or ""
  return memory.script(matrix.AGENT:format "1" .. ([[
    return { agent = Agent, %s listen = %s }]]):format(tls,
    matrix.listeners(addresses, matrix.with(stack.front, of_each))))
end

local function each_cell(app, stack, run, begins)
  for i, cell in ipairs(matrix.CELLS) do
    local client = app:connect {
      listener = "cell" .. i, frame = "raw", proxy = nasty.LAYERS == 0 and stack.front.begin or nil,
      read_max = stack.options.read_max, write_max = stack.options.write_max,
    }
    local ok, message = xpcall(function()
      local one = new_wire(app, client)
      if begins ~= false then one:open(stack.front) end
      run(one, cell, client)
    end, debug.traceback)
    if not ok then error(("%s: %s"):format(cell.name, tostring(message)), 0) end
  end
end

-- Stacks: a front and a kind of stream each.
local STACKS = {}
for what, front in pairs(matrix.FRONTS) do
  for stream, options in pairs(STREAMS) do
    if nasty.LAYERS == 0 or not options.scheme then STACKS[stream .. what] = { front = front, options = options } end
  end
end

describe("over streams in memory" .. LAYERS, function()
  setup(function()
    made = certificates.new()
    server = made:make "server"
  end)
  teardown(function() made:remove() end)
  after_each(memory.finish)

  for stream, stack in pairs(STACKS) do
    for event, what in pairs(matrix.EVENTS) do
      if nasty.LAYERS > 0 or not what.of_layers then
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

    it(stream .. ", every framing: no memory for a frame that is begun", function()
      local app = assert(start(stack))
      app:no_memory()
      each_cell(app, stack, function(one, cell, client)
        one:send(cell.encode("one two"):sub(1, -2))
        assert.equal("memory", client:closed())
      end)
    end)
  end
end)
