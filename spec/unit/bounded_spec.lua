local bounded = require "perilune.bounded"

local MIB = 2 ^ 20
local LIMIT = 4 * MIB

local function limit() return LIMIT end

local own = {
  rep = bounded.rep(string.rep, limit), format = bounded.format(string.format, limit),
  concat = bounded.concat(table.concat, limit),
}
local luajit = { rep = string.rep, format = string.format, concat = table.concat }

-- The error has the line of who called.
local function message_of(name, ...)
  local function caller(...) return (own[name](...)) end
  local ok, err = pcall(caller, ...)
  assert.is_false(ok)
  return (err:gsub("^.-:%d+: ", ""))
end

local function times(n, value)
  local list = {}
  for i = 1, n do list[i] = value end
  return list
end

describe("a bounded function refuses", function()
  local BIG = ("x"):rep(MIB)

  it("string.rep over the limit", function()
    assert.equal("string.rep: a result of 4,194,305 bytes is over the memory limit of 4 MiB",
      message_of("rep", "x", 4 * MIB + 1))
    assert.equal(4 * MIB, #own.rep("x", 4 * MIB))
    assert.equal("string.rep: a result of 4,194,305 bytes is over the memory limit of 4 MiB",
      message_of("rep", "x", 3, ("x"):rep(2 * MIB - 1)))
  end)

  it("string.format over the limit, whichever way it comes to that", function()
    local text = "string.format: a result of 5,242,880 bytes is over the memory limit of 4 MiB"
    assert.equal(text, message_of("format", ("%s"):rep(5), BIG, BIG, BIG, BIG, BIG))
    assert.equal(text, message_of("format", "%s" .. ("x"):rep(4 * MIB), BIG))
    assert.equal(text:gsub("880", "884"),
      message_of("format", ("%q"):rep(5) .. ".%%%d%5.3s", BIG, BIG, BIG, BIG, BIG, 1, BIG)
      :gsub("5,242,8%d%d", "5,242,884"))
    assert.has_error(function() own.format(("%s"):rep(600), unpack(times(600, ("y"):rep(8000)))) end)
  end)

  it("nothing that string.format cuts or leaves out", function()
    assert.equal("xxxxx", own.format("%.5s%.0s%.s", BIG, ("y"):rep(5 * MIB), BIG))
    assert.equal("a", own.format("a", BIG, BIG, BIG, BIG, BIG))
    assert.equal(3 * MIB, #own.format("%s%s%s", BIG, BIG, BIG))
  end)

  it("table.concat over the limit, by its items, its separator or both", function()
    local text = "table.concat: a result of 5,242,880 bytes is over the memory limit of 4 MiB"
    assert.equal(text, message_of("concat", times(5, BIG)))
    assert.equal(text, message_of("concat", times(6, ""), BIG))
    assert.equal(text, message_of("concat", times(9, BIG), 1, 1, 5):gsub("884", "880"))
    assert.equal(text, message_of("concat", times(80, ("x"):rep(65536))))
    assert.equal(text, message_of("concat", setmetatable(times(9, BIG), {}), nil, 2, "6.5"))
  end)

  it("nothing that table.concat leaves out, or makes just fit", function()
    assert.equal(4 * MIB, #own.concat(times(4, BIG)))
    assert.equal(2 * MIB, #own.concat(times(9, BIG), nil, 3, 4))
    assert.equal(4 * MIB, #own.concat(times(4 * MIB + 1, ""), "x"))
    assert.equal("", own.concat(times(9, BIG), nil, 3, 2))
  end)
end)

describe("what is made piece by piece is what LuaJIT makes", function()
  local roomy = { limit = function() return 2 ^ 30 end }
  roomy.rep, roomy.concat = bounded.rep(string.rep, roomy.limit), bounded.concat(table.concat, roomy.limit)

  it("of string.rep", function()
    for _, text in ipairs { "a", "ab", "abc", ("0123456789"):rep(30), ("x"):rep(4095) .. "y" } do
      for _, more in ipairs { 0, 1, 0.5, 7 } do
        local n = math.ceil(17 * MIB / #text) + more
        assert.is_true(text:rep(n) == roomy.rep(text, n), #text .. " bytes, " .. n .. " times")
        if more == 7 then
          assert.is_true(text:rep(n, ", ") == roomy.rep(text, n, ", "), #text .. " bytes, " .. n .. " times, separated")
        end
      end
    end
  end)

  it("of table.concat", function()
    for _, n in ipairs { 65536, 65537, 65536 + 16384, 99999, 131072 } do
      local list = {}
      for i = 1, n do list[i] = i % 3 == 0 and i or i % 3 == 1 and i + 0.25 or "text " .. i end
      assert.is_true(table.concat(list) == roomy.concat(list), n)
      assert.is_true(table.concat(list, ", ") == roomy.concat(list, ", "), n)
      for _, range in ipairs { { 2 }, { 1, n - 1 }, { 0.5, n + 0.5 }, { "7", tostring(n) }, { n, 1 } } do
        local ok, wanted = pcall(table.concat, list, "", range[1], range[2])
        local same, got = pcall(roomy.concat, list, "", range[1], range[2])
        assert.is_true(ok == same and wanted == got, n .. " " .. tostring(range[1]) .. " " .. tostring(range[2]))
      end
    end
  end)

  it("with the same message in the same place", function()
    local list = {}
    for i = 1, 200000 do list[i] = i end
    list[123456] = {}
    local ok, message = pcall(function() local text = roomy.concat(list) return text end)
    local _, wanted = pcall(function() local text = table.concat(list) return text end)
    assert.is_false(ok)
    assert.equal((wanted:gsub("^.-:%d+: ", "")), (message:gsub("^.-:%d+: ", "")))
  end)
end)

describe("a bounded function is LuaJIT's own", function()
  local function shown(ok, ...)
    local parts = { tostring(ok) }
    for i = 1, select("#", ...) do
      local value = select(i, ...)
      parts[#parts + 1] = type(value) .. " "
        .. (type(value) == "string" and value:sub(1, 200):gsub("0x%x+", "0x") or "")
    end
    return table.concat(parts, ", ")
  end

  -- Called by its name, so that messages have it.
  local function result(library, name, n, arguments)
    return shown(pcall(function() return (library[name](unpack(arguments, 1, n))) end))
  end

  local function assert_same(name, ...)
    local n, arguments = select("#", ...), { ... }
    assert.equal(result(luajit, name, n, arguments), result(own, name, n, arguments))
  end

  local ODD = {
    false, true, 0, 1, -1, 2, 2.5, -2.5, 3, 1e9, -1e9, 1e300, -1e300, 0 / 0, 1 / 0, -1 / 0, "", "a", "2", "0x3", " 4 ",
    "2.7", "\0", ("z"):rep(5000), print, coroutine.create(print), {}, { "a" }, { "a", "b", 3 }, { 1, false, "c" },
    { "a", nil, "c" },
    setmetatable({ "m" }, { __index = function() return "deep" end }),
    setmetatable({}, { __tostring = function() return "told" end }), setmetatable({}, { __tostring = error }),
    setmetatable({ "a" }, { __metatable = false }), io.stdout,
  }
  local NIL = {}
  ODD[#ODD + 1] = NIL

  local random = 1
  local function pick(n)
    random = (random * 16807) % 2147483647
    return random % n + 1
  end

  local function odd()
    local value = ODD[pick(#ODD)]
    if value == NIL then return nil end
    return value
  end

  -- For what is as large as that refusing it is the point.
  local function is_large(n) return type(n) == "number" and n > 1e6 end

  it("for odd arguments of string.rep", function()
    for _ = 1, 5000 do
      local n, s, count, separator = pick(5) - 1, odd(), odd(), odd()
      local arguments = { s, count, separator, odd() }
      if not is_large(count) then assert_same("rep", unpack(arguments, 1, n)) end
    end
  end)

  it("for odd arguments of table.concat", function()
    for _ = 1, 20000 do
      local list = pick(2) == 1 and { "a", "b", "c", 4, "e", "f", "g", "h", "i", "j" } or odd()
      local arguments = { list, odd(), odd(), odd(), odd() }
      assert_same("concat", unpack(arguments, 1, pick(6) - 1))
    end
  end)

  it("for odd arguments of string.format", function()
    local PARTS = { "%s", "%d", "%5.2f", "%q", "%%", "%-9s", "%.3s", "%.s", "%c", "%x", "%i", "%", "%y",
      "%100d", "%p", "text", "\0", "%5" }
    for _ = 1, 20000 do
      local parts, arguments = {}, {}
      for i = 1, pick(6) - 1 do parts[i] = PARTS[pick(#PARTS)] end
      local n = pick(12) - 1
      for i = 1, n do arguments[i] = odd() end
      assert_same("format", pick(20) == 1 and odd() or table.concat(parts), unpack(arguments, 1, n))
    end
    assert_same("format")
  end)

  it("for a wrong argument in the line and by the name of who called", function()
    local _, err = pcall(function() own.concat({ {} }) end)
    assert.equal("bounded_spec.lua",
      err:match("([%w_]+%.lua):%d+: invalid value %(table%) at index 1 in table for 'concat'$"))
  end)
end)

describe("table.insert", function()
  local insert = bounded.insert(table.insert)

  it("moves what is there, as LuaJIT's does, and raises what that raises", function()
    local function inserted(fn, ...)
      local list = { 1, 2, 3 }
      local ok, err = pcall(fn, list, ...)
      return { ok, tostring(err):gsub("^.-:%d+: ", ""):gsub("'.-'", ""), list, list[0] }
    end
    for _, case in ipairs { { 4 }, { 1, 0 }, { 2, 9 }, { "2", 9 }, { 4, 9 }, { 9, 9 }, { 0, 9 }, { 1.9, 9 },
      { -0.5, 9 }, { 2, nil, n = 2 }, { nil, n = 1 }, { n = 0 }, { {}, 1 }, { "x", 1 }, { 1, 2, 3 } } do
      local n = case.n or #case
      assert.same(inserted(table.insert, unpack(case, 1, n)), inserted(insert, unpack(case, 1, n)))
    end
  end)

  it("refuses what would be two thousand million places away", function()
    for _, position in ipairs { -1, -2 ^ 31, 2 ^ 31, 2 ^ 53, -1 / 0, 1 / 0, 0 / 0, "-1e9" } do
      local ok, err = pcall(function() insert({}, position, "x") return true end)
      assert.is_false(ok)
      assert.matches("^spec/unit/bounded_spec.lua:%d+: bad argument #2 to 'insert' %(position out of bounds%)$", err)
    end
  end)
end)

describe("os.date", function()
  local date = bounded.date(os.date)

  it("is LuaJIT's, but for a format that would take for ever", function()
    assert.equal(os.date("!%c", 0), date("!%c", 0))
    assert.same(os.date("!*t", 0), date("!*t", 0))
    assert.equal(("x"):rep(65536), date(("x"):rep(65536)))
    local ok, err = pcall(function() return (date(("%c"):rep(40000))) end)
    assert.is_false(ok)
    assert.matches("os.date: a format of 80,000 bytes is over the limit of 65,536 bytes", err)
  end)
end)
