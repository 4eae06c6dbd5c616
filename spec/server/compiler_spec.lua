-- What LuaJIT's trace compiler does not survive by itself: src/vm/despecialize.c.
local command = require "spec.support.command"

describe("a recursive function that returns out of its loops", function()
  for seed = 1, 12 do
    it("is compiled to what goes on, and returns the same, for trees of seed " .. seed, function()
      local result = command.run { "exec", "spec/support/recursion.lua", tostring(seed), "200", dir = "." }
      assert.same({ 0, "the same\n", "" }, { result.code, result.out, result.err })
    end)
  end
end)
