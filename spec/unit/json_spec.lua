local json = require "perilune.json"

describe("json.encode", function()
  for _, case in ipairs {
    { "null", nil }, { "true", true }, { "false", false }, { "0", 0 }, { "-1", -1 }, { "1048576", 1048576 },
    { "0.5", 0.5 }, { "9007199254740991", 2 ^ 53 - 1 }, { "1e+300", 1e300 },
    { '""', "" }, { '"a b"', "a b" }, { '"\\"\\\\"', '"\\' }, { '"\\n\\r\\t\\b\\f"', "\n\r\t\b\f" },
    { '"\\u0000\\u001b\\u007f"', "\0\27\127" }, { '"é→𝄞"', "é→𝄞" },
    { "{}", {} }, { "[]", json.array {} }, { "[1,2]", { 1, 2 } }, { '{"a":[{"b":"c"}]}', { a = { { b = "c" } } } },
  } do
    it("writes " .. case[1], function() assert.equal(case[1], json.encode(case[2])) end)
  end

  it("sorts keys, so that equal values give equal text", function()
    assert.equal('{"a":1,"b":2,"b2":3,"z":4}', json.encode { z = 4, b2 = 3, b = 2, a = 1 })
  end)

  it("never writes bytes that are not UTF-8", function()
    assert.equal('"\\u00ffa\\u00e9"', json.encode "\255a\233")
    assert.equal('"\\u00c0\\u0080"', json.encode "\192\128")              -- overlong
    assert.equal('"\\u00ed\\u00a0\\u0080"', json.encode "\237\160\128")   -- a surrogate
    assert.equal('"\\u00e2\\u0086"', json.encode "\226\134")              -- cut short
  end)

  local loop = {}
  loop.loop = loop
  for what, value in pairs {
    ["a function"] = print, ["not a number"] = 0 / 0, infinity = 1 / 0, ["mixed keys"] = { 1, a = 2 },
    ["a list with holes"] = { [1] = 1, [3] = 3 }, ["a table within itself"] = loop, ["a nested function"] = { a = { print } },
  } do
    it("refuses " .. what, function()
      local text, message = json.encode(value)
      assert.is_nil(text)
      assert.is_string(message)
    end)
  end
end)
