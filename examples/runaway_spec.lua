local perilune = require "perilune.test"

describe("examples/runaway.lua", function()
  for line, reason in pairs { loop = "proceed_timeout", fill = "memory", fail = "error" } do
    it("ends the connection that goes wrong, and no other: " .. line, function()
      local app = perilune.app("examples/runaway.lua")
      local neighbour = app:connect():send("before"):expect("before")
      app:connect():send(line):expect_nothing():expect_closed(reason)
      neighbour:send("after"):expect("after")
      app:close()
    end)
  end
end)
