local perilune = require "perilune.test"

local FILE = "examples/echo.lua"

for name, open in pairs { ["in memory"] = perilune.app, ["over a real socket"] = perilune.start } do
  describe("examples/echo.lua, " .. name .. ",", function()
    local app
    before_each(function() app = open(FILE) end)
    after_each(function() app:close() end)

    it("sends every line back", function()
      app:connect():send("hello"):expect("hello"):send(""):expect(""):send("again"):expect("again")
    end)

    it("says bye and hangs up at quit", function()
      app:connect():send("quit"):expect("bye"):expect_closed("agent")
    end)
  end)
end
