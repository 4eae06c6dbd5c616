local perilune = require "perilune.test"

describe("examples/reload_keep.lua", function()
  it("counts on after a reload", function()
    local app = perilune.app("examples/reload_keep.lua")
    app:connect():send("ada", "bob", "ada"):expect("ada has 1", "bob has 1", "ada has 2")
    app:reload()
    app:connect():send("ada", "votes"):expect("ada has 3", "votes so far: ada 3, bob 1")
    app:close()
  end)
end)
