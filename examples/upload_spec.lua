local perilune = require "perilune.test"

local FILE = "examples/upload.lua"

for name, open in pairs { ["in memory"] = perilune.app, ["over a real socket"] = perilune.start } do
  describe("examples/upload.lua, " .. name .. ",", function()
    local app
    before_each(function() app = open(FILE) end)
    after_each(function() app:close() end)

    it("takes a body of the size announced, and goes on with lines", function()
      local client = app:connect():send_raw("PUT logo 5\nhelloPUT empty 0\n")
      client:expect("OK logo 5 062c0215", "OK empty 0 00000001")
      client:send("PUT zeros 1000000"):send_raw(("\0"):rep(1000000)):expect("OK zeros 1000000 43210001")
    end)

    it("answers a client that has ended its side", function()
      local client = app:connect():send_raw("PUT logo 5\nhello"):half_close()
      client:expect("OK logo 5 062c0215"):expect_closed("agent")
    end)

    it("says how much was missing when the stream ends early", function()
      local client = app:connect():send_raw("PUT logo 5\nhel"):half_close()
      client:expect("ERROR end of stream with 5 bytes to go"):expect_closed("agent")
    end)

    it("refuses what is no upload", function()
      app:connect():send("GET logo"):expect("ERROR expected: PUT name size"):expect_closed("agent")
    end)
  end)
end

describe("examples/upload.lua, in memory,", function()
  it("gives each piece of a body 30 s", function()
    local app = perilune.app(FILE)
    local client = app:connect():send_raw("PUT logo 5\nhel")
    app:advance("30s")
    client:expect("ERROR timeout with 5 bytes to go"):expect_closed("agent")
    app:close()
  end)
end)
