--- That frames survive real sockets, however they are cut. All else: spec/behaviour/framing_spec.lua.
local server = require "spec.support.server"

local u32be = require("spec.support.client").frame

local function start(frame)
  return server.start { script = ([[
    return { listen = "tcp://127.0.0.1:0", frame = %s, agent = { proceed = function(_, frame) return frame end } }]])
    :format(frame) }
end

describe("framing", function()
  after_each(server.finish)

  for _, codec in ipairs {
    { [["u32be"]], u32be, max = 70000 }, { [["line"]], function(payload) return payload .. "\n" end, max = 70000 },
    { [[{
      decode = function(bytes, at)
        local stop = bytes:find(">", at, true)
        if stop then return bytes:sub(at + 1, stop - 1), stop + 1 end
      end,
      encode = function(reply) return "<" .. reply .. ">" end,
    }]], function(payload) return "<" .. payload .. ">" end, max = 1000 },
  } do
    local name = codec[1]:match "decode" and "a codec in Lua" or codec[1]
    local function stream(max)
      local parts = {}
      for i, n in ipairs { 1, 2, 3, 31, 32, 33, 127, 128, 129, 255, 256, 1000, 16383, 16384, 70000 } do
        if n <= math.min(max, codec.max) then parts[#parts + 1] = codec[2](("%d "):format(i):rep(n):sub(1, n)) end
      end
      return table.concat(parts)
    end

    it("by " .. name .. " gives back what was sent in one write, in many frames of one, and byte by byte", function()
      local app = start(codec[1])
      for _, bytes in ipairs { stream(70000), codec[2]("hello"):rep(1000) } do
        assert.is_true(bytes == app:connect():send(bytes):recv_exact(#bytes))
      end
      local bytes = stream(256)
      assert.equal(bytes, app:connect():trickle(bytes):recv_exact(#bytes))
    end)
  end

  it("by raw bytes hands up what there is", function()
    local client = start([["raw"]]):connect()
    for _, bytes in ipairs { "a", "\0\n\255", ("x"):rep(300000) } do
      assert.is_true(bytes == client:send(bytes):recv_exact(#bytes))
    end
  end)

  it("that is broken ends the connection, and says why in the log", function()
    local app = start([["u32be"]])
    assert.equal(u32be "a", (app:connect():send(u32be("a") .. "\255\255\255\255"):recv_all()))
    assert.equal("frame too large: 4294967295 > 1048576", app:wait_log("bad frame").error)
  end)
end)
