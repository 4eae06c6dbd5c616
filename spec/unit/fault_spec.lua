local fault = require "perilune.fault"

local function excerpt_of(source, line, message)
  local text = fault.render { message = message, file = "t.lua", line = line, source = source }
  return text:match("^[^\n]*\n[^\n]*\n(.*)$")
end

describe("fault.parse", function()
  for _, case in ipairs {
    { "chat.lua:14: boom", "chat.lua", 14, "boom" },
    { "a:b.lua:1: boom", "a:b.lua", 1, "boom" },
    { "chat.lua#g7:14: boom: 1: 2", "chat.lua#g7", 14, "boom: 1: 2" },
    { '[string "x=1..."]:3: near', '[string "x=1..."]', 3, "near" },
    { "t.lua:1: two\nlines", "t.lua", 1, "two\nlines" },
    { "127.0.0.1:80: refused", nil, nil, "127.0.0.1:80: refused" }, { "[::1]:80: refused", nil, nil,
    "[::1]:80: refused" },
    { "an error: 127.0.0.1:80: refused", nil, nil, "an error: 127.0.0.1:80: refused" },
    { "boom", nil, nil, "boom" }, { "", nil, nil, "" }, { ":1: x", nil, nil, ":1: x" },
    { "x:99999999999: y", nil, nil, "x:99999999999: y" }, { "a\nb:1: x", nil, nil, "a\nb:1: x" },
    { false, nil, nil, "false" }, { 12, nil, nil, "12" },
  } do
    it("splits " .. (("%q"):format(tostring(case[1])):gsub("\n", "n")), function()
      local file, line, text = fault.parse(case[1])
      assert.same({ case[2], case[3], case[4] }, { file, line, text })
    end)
  end

  it("takes nil", function() assert.same({ n = 3, nil, nil, "nil" }, { n = 3, fault.parse(nil) }) end)
  it("bounds the text", function()
    assert.is_true(#select(3, fault.parse(("x"):rep(1e6))) <= 1024)
    assert.is_true(#select(3, fault.parse("t.lua:1: " .. ("x"):rep(1e6))) <= 1024)
  end)
  it("agrees with what LuaJIT raises", function()
    local _, raised = pcall(loadstring("local user\nreturn user.name", "@dir/chat.lua"))
    assert.same({ "dir/chat.lua", 2, "attempt to index local 'user' (a nil value)" }, { fault.parse(raised) })
  end)
end)

describe("fault.describe", function()
  local function object(tostring_method) return setmetatable({}, { __tostring = tostring_method }) end
  local function recurse(self) return tostring(self) .. "" end

  for what, case in pairs {
    ["nothing"] = { nil, "nil" }, ["false"] = { false, "false" }, ["a number"] = { 1.5, "1.5" },
    ["a text"] = { "boom", "boom" }, ["control characters"] = { "a\27[31m\nb\0", "a\\x1b[31m\\nb\\x00" },
    ["bytes that are not UTF-8"] = { "\255é", "\\xffé" },
    ["text that is reordered"] = { "a\226\128\174b", "a\\u{202e}b" }, ["a table"] = { {}, "(error object is a table)" },
    ["a function"] = { print, "(error object is a function)" },
    ["a table with a message"] = { { message = "boom" }, "boom" },
    ["a table with fields"] = { { code = 5 }, "{ code = 5 }" }, ["a table with fields of all types"] = {
      { 7, { 1 }, {}, a = "x", b = true, ["c d"] = 1.5, [print] = print, message = 3 },
      '{ ["c d"] = 1.5, [1] = 7, [2] = {…}, [3] = {}, [function] = function, a = "x", b = true, message = 3 }',
    },
    ["a table with a message and fields"] = { { message = "boom", code = 5 }, "boom { code = 5 }" },
    ["a table with long fields"] = { { text = ("x"):rep(1e6) }, '{ text = "' .. ("x"):rep(37) .. '…" }' },
    ["a table with many fields"] = { { 1, 2, 3, 4, 5, 6, 7, 8, 9 },
      "{ [1] = 1, [2] = 2, [3] = 3, [4] = 4, [5] = 5, [6] = 6, [7] = 7, [8] = 8, … }" },
    ["a table with fields that are no text"] = { { code = "\27[2J\n" }, '{ code = "\\x1b[2J\\n" }' },
    ["an object"] = { object(function() return "boom" end), "boom" },
    ["an object that raises"] = { object(error), "(a table whose __tostring failed)" },
    ["an object that raises a table"] = { object(function() error({}) end), "(a table whose __tostring failed)" },
    ["an object that recurses"] = { object(recurse), "(a table whose __tostring failed)" },
    ["an object that gives no text"] = { object(function() return {} end), "(a table whose __tostring failed)" },
    ["an object with a false method"] = { object(12), "(a table whose __tostring failed)" },
    ["an object that hides its metatable"] =
      { setmetatable({}, { __metatable = false, __tostring = error }), "(a table whose __tostring failed)" },
    ["an object whose fields raise"] = { setmetatable({}, { __index = error }), "(error object is a table)" },
  } do
    it("takes " .. what, function() assert.equal(case[2], fault.describe(case[1])) end)
  end

  it("is bounded", function()
    for _, value in ipairs { ("x"):rep(1e6), ("\0"):rep(1e6), object(function() return ("é"):rep(1e6) end) } do
      local text = fault.describe(value)
      assert.is_true(#text <= 1024)
      assert.matches("…$", text)
    end
  end)
end)

describe("fault.render", function()
  -- Name, source, message with its line, what is drawn.
  for _, case in ipairs {
    { "a block that is not closed", "local A = {}\nfunction A.f()\n  if A then\n  end\n\n",
      { 6, "'end' expected (to close 'function' at line 2) near '<eof>'" },
      "2 | function A.f()\n4 |   end\n  |      ^ the file ends here\n" },
    { "an expression that is not", "local a = 1\nlocal b = a +\n", { 3, "unexpected symbol near '<eof>'" },
      "1 | local a = 1\n2 | local b = a +\n  |              ^ the file ends here\n" },
    { "a file without a last line feed", "local b = 1 +", { 1, "unexpected symbol near '<eof>'" },
      "1 | local b = 1 +\n  |              ^ the file ends here\n" },
    { "an empty file", "\n\n", { 3, "unexpected symbol near '<eof>'" }, "" },
    { "what is not closed further down", "f(\n1,\n2\n3)\n", { 4, "')' expected (to close '(' at line 1) near '3'" },
      "1 | f(\n4 | 3)\n  | ^\n" },
    { "one of two", "return a.name .. b.name", { 1, "attempt to concatenate field 'name' (a nil value)" },
      "1 | return a.name .. b.name\n  |          ^^^^      ^^^^ nil here, in one of these\n"
        .. 'hint: (name or "") leaves it out; tostring(name) says "nil"\n' },
    { "the same twice", "return a.n + a.n", { 1, "attempt to perform arithmetic on field 'n' (a nil value)" },
      "1 | return a.n + a.n\n  |          ^ nil here\n" },
    { "the one that is used so", "a.n = a.n + 1", { 1, "attempt to perform arithmetic on field 'n' (a nil value)" },
      "1 | a.n = a.n + 1\n  |         ^ nil here\n" },
    { "methods of two", "a:run() b:run()", { 1, "attempt to call method 'run' (a nil value)" },
      "1 | a:run() b:run()\n  |   ^^^     ^^^ nil here, in one of these\n" },
    { "one of two after tabs", "\tf(a.b.x, c.b.x)", { 1, "attempt to index field 'b' (a nil value)" },
      "1 |     f(a.b.x, c.b.x)\n  |         ^      ^ nil here, in one of these\n" },
  } do
    local what, source, place, drawn = unpack(case)
    it("draws " .. what, function() assert.equal(drawn, excerpt_of(source, place[1], place[2])) end)
  end

  it("draws the design's example", function()
    local source = ("\n"):rep(12) .. "  local user = users[id]\n  send(user.name)\nend\n"
    assert.equal([[
error: attempt to index local 'user' (a nil value)
  --> chat.lua:14 in Chat:proceed    conn 42  10.0.0.7:5060 → :7000  generation 3
13 |   local user = users[id]
14 |   send(user.name)
   |        ^^^^ nil here
]], fault.render {
      message = "attempt to index local 'user' (a nil value)", file = "chat.lua", line = 14, func = "Chat:proceed",
      conn = 42, peer = "10.0.0.7:5060", listener = ":7000", generation = 3, source = source,
    })
  end)

  it("takes file and line from the message", function()
    assert.equal("error: boom\n  --> t.lua:2\n1 | a\n2 | b\n",
      fault.render { message = "t.lua:2: boom", source = "a\nb" })
  end)
  it("keeps another place in the message", function()
    local text = fault.render { message = "lib.lua:9: boom", file = "t.lua", line = 1, source = "a" }
    assert.equal("error: lib.lua:9: boom\n  --> t.lua:1\n1 | a\n", text)
  end)
  it("does without everything but a message", function()
    assert.equal("error: boom\n", fault.render { message = "boom" })
    assert.equal("error: nil\n", fault.render {})
    assert.equal("error: boom\n  --> conn 7\n", fault.render { message = "boom", conn = 7 })
  end)

  describe("underlines", function()
    local global, nil_value = "attempt to index global 'x'", " (a nil value)"
    for what, case in pairs {
      ["a global"] = { "y = x.z", global .. nil_value, "    ^ nil here" },
      ["an upvalue"] = { "y = x[1]", "attempt to index upvalue 'x' (a boolean value)", "    ^ boolean here" },
      ["a field"] = { "b = t.a.b", "attempt to index field 'a'" .. nil_value, "      ^ nil here" },
      ["a field by text"] = { 't["ab"].c = 1', "attempt to index field 'ab'" .. nil_value, "   ^^ nil here" },
      ["a method"] = { "foo(t:foo())", "attempt to call method 'foo'" .. nil_value, "      ^^^ nil here" },
      ["a call"] = { "x = x()", "attempt to call global 'x'" .. nil_value, "    ^ nil here" },
      ["arithmetic"] = { "x = x + 1", "attempt to perform arithmetic on global 'x'" .. nil_value, "    ^ nil here" },
      ["concatenation"] = { "x = 'x' .. x", "attempt to concatenate global 'x' (a table value)",
        "           ^ table here" },
      ["a length"] = { "x = #x", "attempt to get length of local 'x'" .. nil_value, "     ^ nil here" },
      ["whole words only"] = { "xx, _x, x1 = x.y", global .. nil_value, "             ^ nil here" },
      ["not what a string says"] = { "log('x.y', [[x.y]]) x.y = 1 -- x.y", global .. nil_value,
        "                    ^ nil here" },
      ["past an escaped quote"] = { "f('\\'x.') x.y = 1", global .. nil_value, "          ^ nil here" },
      ["after a tab"] = { "\tif\tx.y", global .. nil_value, "        ^ nil here" },
      ["after a wide text"] = { "s = 'é→' x.y = 1", global .. nil_value, "         ^ nil here" },
      ["after a control character"] = { "s = '\27' x.y = 1", global .. nil_value, "           ^ nil here" },
      ["what has no name"] = { "x = t[i].y", "attempt to index field '?'" .. nil_value, "     ^^^ nil here" },
      ["a comparison"] = { "if a.b <= 3 then", "attempt to compare nil with number", "       ^^ nil with number" },
      ["a function that was given the wrong thing"] =
        { "x.insert(insert, 1)", "bad argument #1 to 'insert' (table expected, got nil)", "         ^^^^^^" },
      ["a token"] = { "x = ) 1", "unexpected symbol near ')'", "    ^" },
      ["an undefined global"] = { "y = x", "undefined global 'x'", "    ^" },
    } do
      it(what, function()
        local lines = {}
        for line in excerpt_of(case[1], 1, case[2]):gmatch("[^\n]+") do lines[#lines + 1] = line end
        assert.equal("  | " .. case[3], lines[2])
      end)
    end

    it("nothing when it may be one of several", function()
      for line, message in pairs {
        ["x = t[i].y + t[k].y"] = "attempt to index field '?' (a nil value)",
        ["x = = 1"] = "unexpected symbol near '='", ["if a < 1 or b < 1 then"] = "attempt to compare nil with number",
      } do
        assert.equal("1 | " .. line .. "\n", (excerpt_of(line, 1, message):gsub("hint: [^\n]*\n$", "")))
      end
    end)

    it("nothing when the message names nothing in the line", function()
      for _, message in ipairs {
        "boom", "attempt to compare nil with number", "attempt to compare two table values",
        "attempt to index field '?' (a nil value)", "attempt to index local 'other' (a nil value)",
        "attempt to call a nil value", "'for' limit must be a number",
      } do
        assert.equal("1 | x = y\n", (excerpt_of("x = y", 1, message):gsub("hint: [^\n]*\n$", "")))
      end
    end)
  end)

  describe("shows", function()
    it("line numbers of different width aligned", function()
      assert.equal(" 9 | nine\n10 | ten\n", excerpt_of(("\n"):rep(8) .. "nine\nten", 10, "boom"))
    end)
    it("no blank line before", function() assert.equal("2 | b\n", excerpt_of("  \nb\n", 2, "boom")) end)
    it("lines that end in CR LF", function() assert.equal("1 | a\n2 | b\n", excerpt_of("a\r\nb\r\n", 2, "boom")) end)
    it("no excerpt of a line that does not exist", function()
      for _, line in ipairs { 0, -1, 3, 1e9 } do assert.equal("", excerpt_of("a\nb\n", line, "boom")) end
      assert.equal("", excerpt_of("", 1, "boom"))
    end)

    it("a long line cut around the culprit", function()
      local source = ("é "):rep(500) .. "\tuser.name = 1 " .. ("z "):rep(1e5)
      local shown, marks = excerpt_of(source, 1,
        "attempt to index global 'user' (a nil value)"):match("^1 | (.-)\n  | (.-)\n$")
      assert.matches("^….*…$", shown)
      assert.is_true(#shown < 200)
      local columns = #marks:match("^ *")
      local cells = {}
      for cell in shown:gmatch("[%z\1-\127\194-\244][\128-\191]*") do cells[#cells + 1] = cell end
      assert.equal("user", table.concat(cells, "", columns + 1, columns + 4))
      assert.equal("^^^^ nil here", marks:match("%^.*"))
    end)

    it("no control characters of message, source, names or traceback", function()
      local evil = "\27[2J\r\a\226\128\174\194\155"
      local text = fault.render {
        message = evil, file = "t.lua" .. evil, line = 2, source = evil .. "\n" .. evil, func = evil, peer = evil,
        listener = evil, conn = evil, generation = 1, traceback = { evil },
      }
      assert.is_nil(text:find("[%z\1-\9\11-\31\127]"))
      assert.is_nil(text:find("\226\128\174", 1, true))
      assert.is_nil(text:find("\194\155", 1, true))
    end)

    it("the traceback, bounded", function()
      local traceback = {}
      for i = 1, 20 do traceback[i] = "t.lua:" .. i end
      local text = fault.render { message = "boom", traceback = traceback }
      assert.matches("\n    t.lua:16\n    … 4 more\n$", text)
    end)

    it("the traceback without the place, which is told already", function()
      local function traceback_of(...)
        return fault.render { message = "t.lua:3: boom", traceback = { ... } }:match "\n(    .*)$" or ""
      end
      assert.equal("", traceback_of "t.lua:3: in proceed")
      assert.equal("    t.lua:9: in proceed\n", traceback_of("t.lua:3: in greet", "t.lua:9: in proceed"))
      assert.equal("    t.lua:33: in proceed\n", traceback_of "t.lua:33: in proceed")
    end)

    it("at most 4 KiB whatever comes in", function()
      local long = ("→\0"):rep(1e5)
      local traceback = {}
      for i = 1, 1000 do traceback[i] = long end
      local text = fault.render {
        message = long, file = long, line = 2, source = long .. "\n" .. long, func = long, conn = long, peer = long,
        listener = long, generation = long, traceback = traceback,
      }
      assert.is_true(#text <= 4096)
      assert.matches("…\n$", text)
    end)
  end)

  describe("reads the file", function()
    local path
    before_each(function() path = os.tmpname() end)
    after_each(function() os.remove(path) end)

    local function write(text)
      local file = assert(io.open(path, "wb"))
      file:write(text)
      file:close()
    end

    it("when no source is given, whatever its generation", function()
      write("x = 1\ny = 2\n")
      for _, name in ipairs { path, "@" .. path, path .. "#g12" } do
        assert.matches("\n1 | x = 1\n2 | y = 2\n$", fault.render { message = "boom", file = name, line = 2 })
      end
    end)
    it("up to 1 MiB", function()
      write(("x"):rep(1024 * 1024) .. "\nsecret")
      assert.is_nil(fault.render({ message = "boom", file = path, line = 2 }):find("secret"))
    end)
    it("unless it is not there", function()
      assert.equal("error: boom\n  --> /nonexistent/t.lua:1\n",
        fault.render { message = "boom", file = "/nonexistent/t.lua", line = 1 })
      assert.equal("error: boom\n  --> /:1\n", fault.render { message = "boom", file = "/", line = 1 })
    end)
  end)
end)
