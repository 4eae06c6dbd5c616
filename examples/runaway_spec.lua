local perilune = require "perilune.test"

describe("examples/runaway.lua", function()
  for line, reason in pairs { loop = "proceed_timeout", fill = "memory", fail = "error" } do
    it("ends the connection that goes wrong, and no other: " .. line, function()
      -- What is to meet another limit has all the time that a busy machine may take for it.
      local more = line ~= "loop" and { limits = { proceed = "30s" } } or nil
      local app = perilune.app("examples/runaway.lua", more)
      local neighbour = app:connect():send("before"):expect("before")
      app:connect():send(line):expect_nothing():expect_closed(reason)
      neighbour:send("after"):expect("after")
      app:close()
    end)
  end
end)
