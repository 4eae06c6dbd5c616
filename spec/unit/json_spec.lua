local cases = require "spec.support.text_cases"
local json = require "perilune.json"

describe("json.encode", function()
  for _, case in ipairs {
    { "null", nil }, { "true", true }, { "false", false }, { "0", 0 }, { "-1", -1 }, { "1048576", 1048576 },
    { "0.5", 0.5 }, { "9007199254740991", 2 ^ 53 - 1 }, { "1e+300", 1e300 },
    { '""', "" }, { '"a b"', "a b" }, { '"\\"\\\\"', '"\\' }, { '"\\n\\r\\t\\u0008\\u000c"', "\n\r\t\b\f" },
    { '"\\u0000\\u001b\\u007f"', "\0\27\127" }, { '"é→𝄞"', "é→𝄞" },
    { "{}", {} }, { "[]", json.array {} }, { "[1,2]", { 1, 2 } }, { '{"a":[{"b":"c"}]}', { a = { { b = "c" } } } },
  } do
    it("writes " .. case[1], function() assert.equal(case[1], json.encode(case[2])) end)
  end

  it("sorts keys, so that equal values give equal text", function()
    assert.equal('{"a":1,"b":2,"b2":3,"z":4}', json.encode { z = 4, b2 = 3, b = 2, a = 1 })
  end)

  for _, case in ipairs(cases) do
    it("writes a text: " .. case.name, function()
      assert.equal('"' .. case.json .. '"', json.encode(case.bytes))
      assert.equal('{"' .. case.json .. '":1}', json.encode { [case.bytes] = 1 })
    end)
  end

  local loop = {}
  loop.loop = loop
  for what, value in pairs {
    ["a function"] = print, ["not a number"] = 0 / 0, infinity = 1 / 0, ["mixed keys"] = { 1, a = 2 },
    ["a list with holes"] = { [1] = 1, [3] = 3 }, ["a table within itself"] = loop,
    ["a nested function"] = { a = { print } },
  } do
    it("refuses " .. what, function()
      local text, message = json.encode(value)
      assert.is_nil(text)
      assert.is_string(message)
    end)
  end
end)
