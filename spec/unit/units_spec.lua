local units = require "perilune.units"

describe("units.size", function()
  local good = {
    { 0, 0 }, { 1048576, 1048576 }, { "0", 0 }, { "512", 512 }, { "512b", 512 }, { "64k", 65536 },
    { "1m", 1048576 }, { "2g", 2147483648 }, { "1M", 1048576 }, { "1.5k", 1536 }, { " 1 k ", 1024 },
    { 2 ^ 53, 2 ^ 53 },
  }
  for _, case in ipairs(good) do
    it(("reads %s as %d bytes"):format(tostring(case[1]), case[2]), function()
      assert.equal(case[2], units.size(case[1]))
    end)
  end

  local bad = {
    -1, 1.5, 0 / 0, 1 / 0, 2 ^ 54, "", "k", "1kb", "1t", "0x10", "1e3", "-1", "1.3b", "one", "1 2", ("9"):rep(400),
    true, false, {}, print,
  }
  for i, value in ipairs(bad) do
    it(("refuses %s (%d) and says what it expects"):format(tostring(value):sub(1, 20), i), function()
      local bytes, message = units.size(value)
      assert.is_nil(bytes)
      assert.matches('^expects a size such as 4096, "64k" or "1m", got ', message)
      assert.is_true(#message < 200)
    end)
  end

  it("refuses a missing value", function()
    assert.equal('expects a size such as 4096, "64k" or "1m", got nothing', select(2, units.size(nil)))
  end)
end)

describe("units.duration", function()
  local good = {
    { 10, 10000 }, { 0.25, 250 }, { 0, 0 }, { false, 0 }, { "0", 0 }, { "0s", 0 }, { "250ms", 250 }, { "10", 10000 },
    { "10s", 10000 }, { "5m", 300000 }, { "2h", 7200000 }, { "1d", 86400000 }, { "1.5S", 1500 }, { 0.0001, 1 },
    { "0.4ms", 1 }, { 0.0016, 2 },
  }
  for _, case in ipairs(good) do
    it(("reads %s as %d ms"):format(tostring(case[1]), case[2]), function()
      assert.equal(case[2], units.duration(case[1]))
    end)
  end

  for i, value in ipairs { -1, 0 / 0, 1 / 0, "", "5 minutes", "s", "1m30s", "-5s", true, {}, print } do
    it(("refuses %s (%d)"):format(tostring(value):sub(1, 20), i), function()
      local ms, message = units.duration(value)
      assert.is_nil(ms)
      assert.matches('^expects a duration such as 10, "10s" or "5m", got ', message)
    end)
  end

  it("names a value of another type", function()
    assert.equal('expects a duration such as 10, "10s" or "5m", got a table', select(2, units.duration({})))
  end)
end)

describe("units of other programs", function()
  it("are told of", function()
    for given, meant in pairs { ["5min"] = "5m", ["10 sec"] = "10s", ["1.5hours"] = "1.5h", ["20msec"] = "20ms" } do
      assert.matches(('got "%s" (did you mean "%s"?)'):format(given, meant), select(2, units.duration(given)), 1, true)
    end
    for given, meant in pairs { ["4kb"] = "4k", ["2MB"] = "2m", ["1GiB"] = "1g", ["12 bytes"] = "12b" } do
      assert.matches(('got "%s" (did you mean "%s"?)'):format(given, meant), select(2, units.size(given)), 1, true)
    end
  end)

  it("are not, where there is no such unit or no number", function()
    for _, given in ipairs { "5kb", "5x", "min", "5", "-5min" } do
      local _, message = units.duration(given)
      assert.is_nil(message and message:find("did you mean", 1, true))
    end
    assert.is_nil((select(2, units.size "5min")):find("did you mean", 1, true))
  end)
end)

describe("units.format_size", function()
  for bytes, text in pairs { [0] = "0b", [1] = "1b", [1023] = "1023b", [1024] = "1k", [1536] = "1536b",
    [1048576] = "1m", [1048577] = "1048577b", [3 * 2 ^ 30] = "3g", [2 ^ 53] = "8388608g" } do
    it("prints " .. text .. " so that it reads back", function()
      assert.equal(text, units.format_size(bytes))
      assert.equal(bytes, units.size(text))
    end)
  end
end)

describe("units.format_duration", function()
  for ms, text in pairs { [1] = "1ms", [1500] = "1500ms", [10000] = "10s", [60000] = "1m", [90000] = "90s",
    [7200000] = "2h", [86400000] = "1d" } do
    it("prints " .. text .. " so that it reads back", function()
      assert.equal(text, units.format_duration(ms))
      assert.equal(ms, units.duration(text))
    end)
  end

  it("prints 0 as off", function() assert.equal("off", units.format_duration(0)) end)
end)
