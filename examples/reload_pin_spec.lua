local perilune = require "perilune.test"

-- What it says; that a reload lets it finish is a matter of the server.
describe("examples/reload_pin.lua", function()
  it("adds up what is asked for, at the price that it began with", function()
    local app = perilune.app("examples/reload_pin.lua")
    local client = app:connect():expect("a coffee is 3; say how many")
    client:send("2"):expect("6 so far"):send("1"):expect("9 so far")
    client:send("pay"):expect("that makes 9"):expect_closed("agent")
    app:close()
  end)
end)
