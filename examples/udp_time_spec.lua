local perilune = require "perilune.test"

local FILE = "examples/udp_time.lua"
local FROM_1900_TO_1970 = 2208988800

-- Four bytes of RFC 868, as seconds since 1970.
local function seconds(bytes)
  local a, b, c, d = bytes:byte(1, -1)
  return ((a * 256 + b) * 256 + c) * 256 + d - FROM_1900_TO_1970
end

for name, open in pairs { ["in memory"] = perilune.app, ["over a real socket"] = perilune.start } do
  describe("examples/udp_time.lua, " .. name .. ",", function()
    local app
    before_each(function() app = open(FILE) end)
    after_each(function() app:close() end)

    it("answers nothing with four bytes", function()
      local before = os.time()
      local answer = app:connect():send(""):receive()
      assert.equal(4, #answer)
      assert.is_true(seconds(answer) >= before and seconds(answer) <= os.time())
    end)

    it("tells in words", function()
      app:connect():send("time"):expect(perilune.pattern "^%d%d%d%d%-%d%d%-%d%dT%d%d:%d%d:%d%dZ$")
    end)

    it("does not answer what it does not know", function()
      app:connect():send("what time is it?", "weather", "time"):expect(perilune.pattern "^%d+%-"):expect_nothing()
    end)
  end)
end

describe("examples/udp_time.lua, in memory,", function()
  it("forgets who says nothing for half a minute", function()
    local app = perilune.app(FILE)
    local client = app:connect():send(""):skip()
    app:advance "29s"
    assert.is_nil(client:closed())
    app:advance "1s"
    client:expect_closed "idle_timeout"
    client:send("time"):skip() -- and knows it again as another
    app:close()
  end)
end)
