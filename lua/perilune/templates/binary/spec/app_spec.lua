local perilune = require "perilune.test"
local tlv = require "tlv"

local function device(name) return tlv.field(0x01, name) end
local function measurement(n) return tlv.field(0x02, tlv.u32(n)) end
local function summary(count, mean) return tlv.field(0x81, tlv.u32(count) .. tlv.u32(mean)) end

describe("@NAME@", function()
  local app
  before_each(function() app = perilune.app "app.lua" end)
  after_each(function() app:close() end)

  it("answers measurements with their number and mean", function()
    local client = app:connect():send(device "door")
    client:send(measurement(20)):expect(summary(1, 20))
    client:send(measurement(40) .. measurement(60)):expect(summary(3, 40))
  end)

  it("takes the name and measurements in one message, of any size that fits", function()
    app:connect():send(device "door" .. measurement(2 ^ 32 - 1) .. measurement(1)):expect(summary(2, 2 ^ 31))
  end)

  it("keeps devices apart", function()
    local door, roof = app:connect():send(device "door"), app:connect():send(device "roof")
    door:send(measurement(1)):expect(summary(1, 1))
    roof:send(measurement(9)):expect(summary(1, 9))
  end)

  for what, case in pairs {
    ["a measurement of nobody"] = { measurement(1), "who are you?" },
    ["a second name"] = { device "a" .. device "b", "the device is known already" },
    ["an empty name"] = { device "", "a name has 1 to 64 bytes" },
    ["a measurement of another size"] = { device "a" .. tlv.field(0x02, "xyz"), "a measurement has 4 bytes" },
    ["a field that is none"] = { tlv.field(0x7f, ""), "unknown field 0x7f" },
    ["a field that is cut"] = { device("door"):sub(1, -2), "a field is cut" },
  } do
    it("refuses " .. what, function()
      local client = app:connect():send(case[1]):expect(tlv.field(0xff, case[2]))
      assert.equal("agent", client:closed())
    end)
  end

  it("does not wait long for the first message, nor for the rest of one", function()
    local silent, slow = app:connect(), app:connect():send_raw "\0\7\1"
    app:advance "5s"
    assert.equal("read_timeout", slow:closed())
    app:advance "5s"
    assert.equal("idle_timeout", silent:closed())
  end)
end)
