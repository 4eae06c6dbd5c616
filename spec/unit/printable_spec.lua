local cases = require "spec.support.text_cases"
local printable = require "perilune.printable"

describe("printable.escape", function()
  for _, case in ipairs(cases) do
    it("shows " .. case.name, function()
      assert.equal(case.line, printable.escape(case.bytes))
      assert.equal(case.line, printable.escape(printable.escape(case.bytes)))
    end)
  end

  it("knows what is UTF-8", function()
    for _, case in ipairs(cases) do
      local i, is_utf8 = 1, true
      while i <= #case.bytes do
        local n = printable.utf8_at(case.bytes, i)
        is_utf8 = is_utf8 and n ~= nil
        i = i + (n or 1)
      end
      assert.equal(case.is_utf8, is_utf8, case.name)
    end
  end)

  it("cuts between characters", function()
    for _, case in ipairs(cases) do
      local long = (case.bytes .. "."):rep(20)
      local whole = printable.escape(long)
      for max = 3, #whole - 1 do
        local cut = printable.escape(long, max)
        assert.is_true(#cut <= max, case.name)
        assert.equal("…", cut:sub(-3))
        assert.equal(whole:sub(1, #cut - 3), cut:sub(1, -4))
      end
    end
  end)
end)
