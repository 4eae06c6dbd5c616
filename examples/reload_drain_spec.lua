local perilune = require "perilune.test"

-- In memory a drain is that of a server that stops; one of a reload asks the same of drain().
describe("examples/reload_drain.lua", function()
  it("says good-bye to whoever was there, and how long there is", function()
    local app = perilune.app("examples/reload_drain.lua")
    local client = app:connect():expect("version 1")
    client:send("?"):expect(perilune.pattern "^%d%d:%d%d:%d%d$")
    app:drain()
    client:expect("good-bye: version 1 ends within 5 s, please come back"):expect_closed("drain")
    app:close()
  end)
end)
