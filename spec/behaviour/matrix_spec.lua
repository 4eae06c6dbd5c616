--- Streams in memory × every framing × what happens to connections; see spec/support/matrix.lua.
local matrix = require "spec.support.matrix"
local memory = require "spec.support.memory"

-- One that hands out and takes bytes in small pieces, and one that does not.
local STREAMS = { plain = {}, pieces = { read_max = 3, write_max = 5 } }

local wire = {}
wire.__index = wire

function wire:send(bytes) self.client:send_raw(bytes) end
function wire:send_bytewise(bytes) for byte in bytes:gmatch "." do self.client:send_raw(byte) end end
function wire:half_close() self.client:half_close() end
function wire:reset() self.client:reset() end
function wire:stall() self.client:stall(0) end
function wire:unstall() self.client:unstall() end

function wire:expect(bytes)
  self.app:advance "10ms"
  self.got = self.got .. memory.bytes(self.client)
  assert.equal(bytes, self.got)
  self.got = ""
end

function wire:expect_end()
  self.app:advance "1s"
  assert.is_truthy(self.client:closed())
end

-- One listener for each cell.
local function start(settings)
  local addresses = {}
  for i = 1, #matrix.CELLS do addresses[i] = "tcp://127.0.0.1:" .. 7000 + i end
  return memory.script(matrix.AGENT:format "1" .. ([[
    return { agent = Agent, listen = %s, %s }]]):format(matrix.listeners(addresses), settings or ""))
end

local function each_cell(app, options, run)
  for i, cell in ipairs(matrix.CELLS) do
    local with = { listener = "cell" .. i, frame = "raw" }
    for key, value in pairs(options) do with[key] = value end
    local client = app:connect(with)
    local ok, message = xpcall(function()
      run(setmetatable({ app = app, client = client, got = "" }, wire), cell, client)
    end, debug.traceback)
    if not ok then error(("%s: %s"):format(cell.name, tostring(message)), 0) end
  end
end

describe("over streams in memory", function()
  after_each(memory.finish)

  for stream, options in pairs(STREAMS) do
    for event, what in pairs(matrix.EVENTS) do
      it(("%s, every framing: %s"):format(stream, event), function()
        each_cell(assert(start()), options, function(one, cell, client)
          what.run(one, cell.encode)
          assert.equal(what.reason, client:closed())
        end)
      end)
    end

    it(stream .. ", every framing: drain", function()
      local app, wires = assert(start()), {}
      each_cell(app, options, function(one, cell)
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
      local app = assert(start())
      app:no_memory()
      each_cell(app, options, function(one, cell, client)
        one:send(cell.encode("one two"):sub(1, -2))
        assert.equal("memory", client:closed())
      end)
    end)
  end
end)
