--- perilune.json, in handlers.
local cases = require "spec.support.json_cases"
local has = require "spec.support.has"
local in_handler = require "spec.support.in_handler"
local memory = require "spec.support.memory"
local perilune = require "perilune"

local json = perilune.json

local function refused(text, options)
  local value, message = json.decode(text, options)
  assert.is_nil(value, ("%q was accepted"):format(text))
  return message
end

local function raised(value, options)
  local ok, message = pcall(json.encode, value, options)
  assert.is_false(ok)
  return message
end

describe("what JSON is:", function()
  local count = 0

  for _, group in ipairs(cases) do
    count = count + #group.accepted + #group.refused
    it(group.name, function()
      for _, text in ipairs(group.accepted) do
        local value, message = json.decode(text)
        assert.is_true(value ~= nil, ("%q: %s"):format(text, tostring(message)))
        local again = json.encode(value, { sorted = true })
        assert.equal(again, json.encode(json.decode(again), { sorted = true }))
      end
      for _, text in ipairs(group.refused) do assert.matches(" at byte %d+$", refused(text)) end
    end)
  end

  it("all of that is many cases", function() assert.is_true(count >= 400, count) end)
end)

describe("json.decode", function()
  after_each(memory.finish)

  it("gives what the text says", function()
    local value = json.decode [==[
      { "a": [1, 2.5, "x", true, false, null, {}, []], "b": { "c": "\u00e9\ud834\udd1e\n\"" } } ]==]
    assert.equal(1, value.a[1])
    assert.equal(2.5, value.a[2])
    assert.equal("x", value.a[3])
    assert.is_true(value.a[4])
    assert.is_false(value.a[5])
    assert.equal(json.null, value.a[6])
    assert.is_nil(next(value.a[7]))
    assert.is_nil(next(value.a[8]))
    assert.equal(8, #value.a)
    assert.equal("é𝄞\n\"", value.b.c)
    assert.equal("a\0b", json.decode '"a\\u0000b"')
    assert.equal(1, json.decode('{"a\\u0000b":1}')["a\0b"])
    assert.equal(false, json.decode "false")
    assert.equal(json.null, json.decode "null")
  end)

  it("tells arrays from objects, whatever becomes of them", function()
    for _, text in ipairs { "[]", "{}", "[[],{}]", '{"a":[]}', "[1]" } do
      assert.equal(text, json.encode(json.decode(text)))
    end
    local list = json.decode "[1,2]"
    assert.is_true(json.is_array(list))
    assert.is_false(json.is_array(json.decode "{}"))
    list[2], list[1] = nil, nil
    assert.equal("[]", json.encode(list))
  end)

  it("keeps whole numbers exact to 64 bits", function()
    for text, value in pairs {
      ["9007199254740991"] = 9007199254740991, ["-9007199254740991"] = -9007199254740991,
      ["9007199254740992"] = 9007199254740992LL, ["-9007199254740993"] = -9007199254740993LL,
      ["9223372036854775807"] = 9223372036854775807LL, ["-9223372036854775808"] = -9223372036854775807LL - 1,
      ["9223372036854775808"] = 9223372036854775808ULL, ["18446744073709551615"] = 18446744073709551615ULL,
    } do
      local got = json.decode(text)
      assert.equal(type(value), type(got), text)
      assert.equal(tostring(value), tostring(got))
      assert.equal(text, json.encode(got))
    end
    assert.equal(2 ^ 64, json.decode "18446744073709551616")
    assert.equal(-2 ^ 63, json.decode "-9223372036854775809")
    assert.equal(2 ^ 53, json.decode "9007199254740992.0")
    assert.equal(-math.huge, 1 / json.decode "-0")
  end)

  it("reads doubles as the system does", function()
    math.randomseed(7)
    for i = 1, 20000 do
      local form = "%d.%0" .. i % 20 + 1 .. "de%d"
      local text = form:format(math.random(0, 9), math.random(0, 10 ^ 9), math.random(-330, 300))
      assert.equal(tonumber(text), json.decode(text), text)
    end
    for _, text in ipairs {
      "2.2250738585072011e-308", "2.2250738585072012e-308", "2.2250738585072014e-308", "1.7976931348623157e308",
      "4.9e-324",
      "2.4703282292062328e-324", "9007199254740993.0", "5708990770823839524233143877797980545530986496.0", "0.1e-6",
      "1" .. ("0"):rep(100), "0." .. ("0"):rep(100) .. "123456789", "123456789012345678901234567890e-20",
    } do
      assert.equal(tonumber(text), json.decode(text), text)
    end
  end)

  it("takes objects and arrays of any size", function()
    for _, n in ipairs { 0, 1, 15, 16, 17, 31, 32, 33, 100, 5000 } do
      local list, object = json.array {}, {}
      for i = 1, n do list[i], object["key " .. i] = i, i end
      assert.same(list, json.decode(json.encode(list)))
      assert.same(object, json.decode(json.encode(object)))
      local twice = json.encode(object):sub(1, -2) .. ',"key 1":0}'
      if n > 0 then has("a key that the object has already at byte " .. #twice - 9, refused(twice)) end
    end
  end)

  it("names the byte and what is wrong", function()
    for text, message in pairs {
      ["[1,2"] = "a comma or ] is expected at byte 5", ['{"a" 1}'] = "a colon is expected at byte 6",
      ["[1,]"] = "a value is expected at byte 4", ['"a\tb"'] = "a control character in a string at byte 3",
      ['"\\x"'] = "an unknown escape at byte 2", ['"\\ud800"'] = "half of a surrogate pair at byte 2",
      ['"\255"'] = "no UTF-8 at byte 2", ['"abc'] = "the string does not end at byte 5",
      ["1 x"] = "something behind the value at byte 3",
      ["[1e999]"] = "a number that is too large at byte 2", ["{1:2}"] = "a key in quotes is expected at byte 2",
      [""] = "a value is expected at byte 1",
    } do
      has(message, refused(text))
    end
  end)

  it("bounds depth and size", function()
    local function nested(n) return ("["):rep(n) .. ("]"):rep(n) end
    assert.truthy(json.decode(nested(128)))
    has("nested too deeply at byte 129", refused(nested(129)))
    has("nested too deeply at byte 129", refused(("["):rep(100000)))
    has("nested too deeply", refused(('{"a":'):rep(100000)))
    assert.equal(nested(1000), json.encode(json.decode(nested(1000), { depth = 1000 }), { depth = 1000 }))
    local objects = ('{"a":[{"b":1,"c":'):rep(333) .. "2" .. ('}],"d":1}'):rep(333)
    assert.equal(objects, json.encode(json.decode(objects, { depth = 1000 }), { depth = 1000, sorted = true }))
    assert.truthy(json.decode(('{"a":1,"b":'):rep(1000) .. "2" .. ("}"):rep(1000), { depth = 1000 }))
    has("nested too deeply at byte 2", refused("[[]]", { depth = 1 }))
    has("the text is over 10 bytes", refused("[" .. ("1,"):rep(10) .. "1]", { max = 10 }))
    has("the text is over 16777216 bytes", refused((" "):rep(2 ^ 24 + 1)))
    assert.truthy(json.decode(("[%s1]"):format((" "):rep(2 ^ 24)), { max = "17m" }))
  end)

  it("raises where it is misused", function()
    local evaluate = in_handler.open()
    for expression, message in pairs {
      ["json.decode()"] = "json.decode: the text: a string is expected, got no value",
      ["json.decode(1)"] = "json.decode: the text: a string is expected, got number",
      ["json.decode('1', 1)"] = "json.decode: the options: a table is expected, got number",
      ["json.decode('1', { dept = 1 })"] = 'json.decode: unknown option "dept" (did you mean "depth"?)',
      ["json.decode('1', { sorted = true })"] = 'json.decode: unknown option "sorted"',
      ["json.decode('1', { depth = 0 })"] = "json.decode: depth expects 1 to 1000",
      ["json.decode('1', { depth = 1001 })"] = "json.decode: depth expects 1 to 1000",
      ["json.decode('1', { max = 'much' })"] = "json.decode: max expects a size",
      ["json.encode()"] = "json.encode: a value is expected",
      ["json.array('a')"] = "json.array: the list: a table is expected, got string",
      ["json.array(setmetatable({}, {}))"] = "json.array: the list has a metatable of its own",
      ["setmetatable(json.array {}, {})"] = "cannot change a protected metatable",
    } do
      has(message, evaluate(expression .. ", nil"))
    end
    assert.equal("2|json.array", evaluate "json.decode('[1, 2]')[2], getmetatable(json.array())")
    assert.equal("nil|no UTF-8 at byte 2", evaluate [[json.decode '"\255"']])
  end)
end)

describe("json.encode", function()
  after_each(memory.finish)

  it("writes what JSON has", function()
    for text, value in pairs {
      ["true"] = true, ["false"] = false, ["null"] = json.null, ["0"] = 0, ["-1"] = -1, ["1.5"] = 1.5, ['""'] = "",
      ["{}"] = {},
      ["[]"] = json.array {}, ["[1,2]"] = { 1, 2 }, ['{"a":[{"b":"c"}]}'] = { a = { { b = "c" } } }, ["-0"] = -0.0,
      ['"\\"\\\\/\\b\\f\\n\\r\\t\\u0000\\u001f\127é𝄞"'] = "\"\\/\b\f\n\r\t\0\31\127é𝄞", ["[null,1]"] = { json.null, 1 },
      ["[[],{}]"] = { json.array(), {} }, ['{"":1}'] = { [""] = 1 }, ['{"1":2}'] = { ["1"] = 2 },
    } do
      assert.equal(text, json.encode(value))
    end
    assert.equal("null", json.encode(nil))
    local unsorted = { c = { y = 2, x = 1 }, ba = 3, b = 2, a = 1 }
    assert.equal('{"a":1,"b":2,"ba":3,"c":{"x":1,"y":2}}', json.encode(unsorted, { sorted = true }))
  end)

  it("writes the shortest digits that are read as the same double", function()
    for text, value in pairs {
      ["0.1"] = 0.1, ["0.3"] = 0.3, ["0.30000000000000004"] = 0.1 + 0.2, ["1e+300"] = 1e300, ["5e-324"] = 5e-324,
      ["19.99"] = 19.99,
      ["1.7976931348623157e+308"] = 1.7976931348623157e308, ["2.2250738585072014e-308"] = 2.2250738585072014e-308,
      ["0.3333333333333333"] = 1 / 3, ["3.141592653589793"] = math.pi, ["0.000001"] = 1e-6, ["1e-9"] = 1e-9,
      ["-0.5"] = -0.5,
      ["123456789.125"] = 123456789.125, ["9007199254740992"] = 2 ^ 53, ["1152921504606846976"] = 2 ^ 60,
      ["9223372036854775808"] = 2 ^ 63, ["18446744073709549568"] = 2 ^ 64 - 2048, ["1.8446744073709552e+19"] = 2 ^ 64,
      ["4503599627370495.5"] = 4503599627370495.5, ["100000"] = 1e5, ["1e+21"] = 1e21,
    } do
      assert.equal(text, json.encode(value))
    end
    math.randomseed(11)
    for i = 1, 4000 do
      local value = (math.random() - 0.5) * 10 ^ math.random(-320, 300)
      if i % 2 == 0 then value = math.floor(math.random() * 10 ^ math.random(1, 15)) / 10 ^ math.random(0, 9) end
      local text = json.encode(value)
      assert.equal(value, tonumber(text))
      local digits = #text:gsub("e.*", ""):gsub("[-.]", ""):gsub("^0+", ""):gsub("0+$", "")
      for n = 1, value == math.floor(value) and 0 or digits - 1 do -- a whole number has all of its digits
        assert.is_true(tonumber(("%." .. n - 1 .. "e"):format(value)) ~= value, text)
      end
    end
  end)

  it("names the way to what it cannot write", function()
    for _, case in ipairs {
      { print, "json.encode: a function has no JSON form" }, { 0 / 0, "a number that is none (NaN)" }, { math.huge,
      "infinity" },
      { -math.huge, "infinity" }, { { users = { { name = "a" }, { name = print } } },
      "json.encode: users[2].name: a function" },
      { { a = { ["b c"] = 0 / 0 } }, 'a["b c"]: a number that is none' },
      { { 1, nil, 3 }, "json.encode: a list with a hole at item 2: json.null fills it" },
      { { 1, 2, [5] = 5 }, "a list with a hole at item 3: json.null fills it" }, { { [2] = 1 },
      "a list with a hole at item 1" },
      { { 1, a = 2 }, 'a list with the key "a" beside its items' },
      { { [1.5] = 1 }, "the key 1.5 is no string: tostring(key) makes one of it" }, { { [0] = 1 },
      "the key 0 is no string" },
      { { [true] = 1 }, "the key true is no string: tostring(key) makes one of it" },
      { { [{}] = 1 }, "the key (a table) is no string" }, { { a = { [1.5] = 1 } }, "json.encode: a: the key 1.5" },
      { json.array { a = 1 }, 'a list with the key "a" beside its items' },
      { { a = "\255" }, "a: a string that is no UTF-8" },
      { { ["\255"] = 1 }, "a string that is no UTF-8" }, { "\237\160\128", "no UTF-8" },
      { coroutine.create(print), "a thread" },
      { { a = json.array { [3] = 1 } }, "json.encode: a" },
    } do
      has(case[2], raised(case[1]))
      has(case[2], raised(case[1], { sorted = true }))
    end
    assert.is_false(pcall(json.encode, { a = { [1] = 1, b = 2 } }))
  end)

  -- What next() comes to first, and what the border of a table is, depend on how it was made.
  it("writes all of a table or nothing, whatever it looks like inside", function()
    local function check(t, what)
      local n, is_list = 0, true
      for key in pairs(t) do
        n = n + 1
        is_list = is_list and type(key) == "number"
      end
      for i = 1, n do is_list = is_list and t[i] ~= nil end
      local ok, text = pcall(json.encode, t)
      assert.equal(is_list, ok, what)
      if ok then assert.same(t, json.decode(text), what) end
    end
    for i = 2, 1000 do
      check({ [1] = "a", [i] = "b" }, "1 and " .. i)
      check({ [i] = "b", [1] = "a" }, i .. " and 1")
    end
    check({ [0] = "a", [1] = "b" }, "from 0")
    check({ [0] = "a", "b", "c" }, "from 0, with a list")
    math.randomseed(12)
    for round = 1, 3000 do
      local t, most = {}, math.random(2, 40)
      for _ = 1, math.random(1, 20) do t[math.random(0, most)] = round end
      for _ = 1, math.random(0, 5) do t[math.random(0, most)] = nil end
      if next(t) ~= nil then check(t, "round " .. round) end
    end
    for round = 1, 200 do -- lists that have grown in any order
      local t, left = {}, {}
      for i = 1, math.random(1, 30) do left[i] = i end
      while #left > 0 do t[table.remove(left, math.random(#left))] = round end
      check(t, "list " .. round)
    end
  end)

  it("takes lists however they were made", function()
    local backwards = {}
    for i = 40, 1, -1 do backwards[i] = i end
    assert.equal(40, #json.decode(json.encode(backwards)))
    local shrunk = {}
    for i = 1, 100 do shrunk[i] = i end
    for i = 100, 4, -1 do shrunk[i] = nil end
    assert.equal("[1,2,3]", json.encode(shrunk))
    local emptied = { a = 1 }
    emptied.a = nil
    assert.equal("{}", json.encode(emptied))
  end)

  it("bounds depth and size, and so what is within itself", function()
    local loop = {}
    loop.loop = loop
    has("….loop.loop.", raised(loop))
    has("nested too deeply, or within itself", raised(loop))
    has("nested too deeply", raised({ { {} } }, { depth = 2 }))
    assert.equal("[[]]", json.encode({ json.array() }, { depth = 2 }))
    has("the text is over 10 bytes", raised(("a"):rep(9), { max = 10 }))
    assert.equal('"aaaaaaaa"', json.encode(("a"):rep(8), { max = 10 }))
    has("the text is over 16777216 bytes", raised(("a"):rep(2 ^ 24)))
    has("the text is over 10 bytes", raised({ a = ("a"):rep(5) }, { max = 10 }))
    has("the text is over 10 bytes", raised({ ("\n"):rep(5) }, { max = 10 }))
  end)

  it("copies no string that would be over the limit", function()
    local long, key = ("a"):rep(2 ^ 25), ("k"):rep(2 ^ 25)
    collectgarbage()
    collectgarbage "stop"
    local before_kb = collectgarbage "count"
    for _, value in ipairs { long, { a = { long } }, { [key] = 1 } } do
      has("the text is over 16777216 bytes", raised(value))
      has("the text is over 16777216 bytes", raised(value, { sorted = true }))
    end
    local grown_kb = collectgarbage "count" - before_kb
    collectgarbage "restart"
    collectgarbage()
    assert.is_true(grown_kb < 1024, grown_kb)
  end)

  -- Wherever memory is asked for, the collector may come, and call what the script has left behind.
  describe("stays within bounds where finalisers", function()
    local SORTED = { sorted = true }
    local CHANGES = {}

    CHANGES["add keys to the table that it sorts"] = function(t, n)
      for i = 1, 3000 do t["new " .. n .. "." .. i] = i end
    end

    CHANGES["remove keys of the table that it sorts"] = function(t)
      local key = next(t)
      if key then t[key] = nil end
    end

    local sorted, change, calls -- those of earlier rounds are called as well

    local function finaliser()
      if not sorted then return end
      calls = calls + 1
      change(sorted, calls)
    end

    -- What it says, while these are called now and then; nil: it has written it all.
    local function try()
      local t = {}
      for i = 1, 40 do t[("key "):rep(i)] = ("value"):rep(100) end
      for _ = 1, 50 do getmetatable(newproxy(true)).__gc = finaliser end
      sorted, calls = t, 0
      local ok, text = pcall(json.encode, t, SORTED)
      sorted = nil
      if not ok then return text end
      assert.truthy(json.decode(text))
    end

    for what, fn in pairs(CHANGES) do
      it(what, function()
        local failures = 0
        change = fn
        for _ = 1, 30000 do -- when the collector comes is its own affair
          local failure = try()
          if failure then
            assert.equal("json.encode: the table was changed meanwhile, by a finaliser", failure)
            failures = failures + 1
            if failures == 3 then return end
          end
        end
        error "no finaliser came in between"
      end)
    end
  end)

  it("runs nothing of the script's", function()
    local spy = setmetatable({ a = 1 }, {
      __index = function() error "asked" end, __tostring = function() error "asked" end,
      __len = function() error "asked" end, __call = function() error "asked" end,
    })
    assert.equal('{"a":1}', json.encode(spy))
  end)

  it("takes long texts, in a handler", function()
    local evaluate = in_handler.open()
    assert.equal("true", evaluate [[(function()
      local list = {}
      for i = 1, 20000 do list[i] = { id = i, name = ("\"é\n"):rep(i % 7), value = i / 8 } end
      local text = json.encode(list)
      local again = json.decode(text)
      return #again == 20000 and again[777].name == list[777].name and json.encode(again, { sorted = true })
        == json.encode(list, { sorted = true })
    end)()]])
  end)
end)

describe("a call of JSON", function()
  after_each(memory.finish)

  -- Decodes, encodes, what takes longer than it may.
  local SCRIPT = [[
    local json = perilune.json
    local text = "[" .. ("1.5,"):rep(2e6) .. "1]"
    local list = {}
    for i = 1, 3e5 do list[i] = 1 / i end
    function Agent:proceed(line)
      if line == "decode" then return tostring(json.decode(text, { max = "100m" })) end
      if line == "encode" then return json.encode(list, { max = "100m" }) end
      if line == "pcall" then
        repeat local _ = pcall(json.decode, text, { max = "100m" }) until false
      end
      return "here"
    end]]

  it("ends with the budget of its handler", function()
    local app = memory.script_lines(SCRIPT, 'limits = { proceed = "5ms" }')
    for _, what in ipairs { "decode", "encode", "pcall" } do
      app:connect():send(what):expect_closed "proceed_timeout"
    end
    app:connect():send("hello"):expect "here"
  end)

  it("is charged for what it makes", function()
    local app = memory.script_lines(SCRIPT, 'limits = { allocation = "1m", proceed = "60s" }')
    app:connect():send("decode"):expect_closed "memory"
    app:connect():send("hello"):expect "here"
  end)
end)
