--- What Lua 5.3 and 5.4 have and LuaJIT has not: told before a client comes to it, with the way out.
local command = require "spec.support.command"
local has = require "spec.support.has"

describe("a script for a newer Lua", function()
  local folder
  before_each(function() folder = command.folder() end)
  after_each(function() command.remove(folder) end)

  local function check(body)
    command.write(folder .. "/app.lua", ([[
local A = {}
function A:proceed(line)
%s
end
return { listen = "tcp://127.0.0.1:0", frame = "line", agent = A }
]]):format(body))
    return command.run { "check", dir = folder }
  end

  for _, case in ipairs {
    { "return line // 2", "math.floor(a / b)" }, { "local x = 7 //\n 2", "math.floor(a / b)" },
    { "return line & 3", "bit.band(a, b)" }, { "if line & 3 == 0 then return end", "bit.band(a, b)" },
    { "return f(line | 1)", "bit.bor(a, b)" }, { "local t = { line | 1 }", "bit.bor(a, b)" },
    { "local x = ~line", "bit.bnot(a)" }, { "local x = line ~ 1", "bit.bxor(a, b)" },
    { "local x = line << 1", "bit.lshift(a, n)" }, { "local x = line >> 1", "bit.rshift(a, n)" },
    { "local limit <const> = 5", "local limit = …" }, { "local file <close> = f()", "conn:defer" },
    { "local text = '// & |' local x = line << 1", "bit.lshift(a, n)" },
  } do
    it("has a hint at its syntax: " .. case[1]:gsub("\n", " "), function()
      local result = check(case[1])
      assert.equal(78, result.code)
      has("hint: ", result.err)
      has(case[2], result.err:match "hint: [^\n]*")
      has("--> app.lua:", result.err)
    end)
  end

  for _, body in ipairs { "local x = (", "local s = 'a // b' local t = {", "x = = 1 -- a & b", "if line ~= 1 the end",
    "local x = line >= = 1" } do
    it("has none at what is no Lua at all: " .. body, function()
      local result = check(body)
      assert.equal(78, result.code)
      assert.is_nil(result.err:find("hint: ", 1, true), result.err)
    end)
  end

  it("has none at an error of its own that only looks so", function()
    command.write(folder .. "/app.lua", [[local a <b = 1]])
    assert.is_nil(command.run({ "check", dir = folder }).err:find("hint: ", 1, true))
  end)

  for _, case in ipairs {
    { "return table.unpack { line }", "table.unpack is of Lua 5.2: in LuaJIT it is a global: unpack(…)" },
    { "return #table.pack(line)", "table.pack is of Lua 5.2" },
    { "return math.type(line)", "math.type is of Lua 5.3" },
    { "return math.tointeger(line)", "math.tointeger is of Lua 5.3" },
    { "return math.maxinteger", "math.maxinteger is of Lua 5.3" }, { "return math.mininteger", "math.mininteger" },
    { "return math.ult(1, 2)", "math.ult is of Lua 5.3" },
    { "return coroutine.close(line)", "coroutine.close is of Lua 5.4" },
    { "if line then return math.tointeger(line) end", "math.tointeger" },
    { "return function() return function() return math.type(line) end end", "math.type" },
    { "return utf8.char(65)", "undefined global 'utf8'" }, { "return rawlen(line)", "undefined global 'rawlen': #t" },
    { "warn(line)", [[undefined global 'warn': perilune.log("warn", text)]] },
    { "return bit32.band(1, 2)", "undefined global 'bit32'" },
  } do
    it("is warned of: " .. case[1], function()
      local result = check(case[1])
      assert.equal(0, result.code, result.err)
      has("perilune: warning: app.lua:3: " .. case[2], result.err)
    end)
  end

  for _, body in ipairs {
    "local unpack = table.unpack or unpack return unpack { line }",
    "local unpack = unpack or table.unpack return unpack { line }",
    "if table.unpack then return table.unpack { line } end return unpack { line }",
    "if math.type ~= nil then return math.type(line) end",
    "local integer = math.type and math.type(line) == 'integer' return integer and line",
    "local table = { unpack = unpack } return table.unpack { line }",
    "return string.pack('<i4', 7)", "return ('<i4'):unpack(line)", "return table.concat { line }",
    "return math.floor(1.5)", "return table.move({}, 1, 0, 1)", "return rawget(table, 'unpack') or line",
    "return self.table.unpack", "return coroutine.isyieldable()", "goto done ::done:: return line",
  } do
    it("is not warned of what it has, or looks for itself: " .. body, function()
      local result = check(body)
      assert.same({ 0, "" }, { result.code, result.err })
    end)
  end

  it("is warned of in modules too, once for each name of a file", function()
    command.write(folder .. "/helper.lua",
      "return function(n)\n  return math.type(n), math.type(n), math.ult(n, 1)\nend")
    check [[return line]]
    local script = command.read(folder .. "/app.lua"):gsub("local A", 'local helper = require "helper"; local A', 1)
    command.write(folder .. "/app.lua", script)
    local result = command.run { "check", dir = folder }
    has("warning: helper.lua:2: math.type is of Lua 5.3", result.err)
    has("warning: helper.lua:2: math.ult is of Lua 5.3", result.err)
    assert.equal(2, select(2, result.err:gsub("warning", "")))
  end)

  it("has the same hint when it comes to it", function()
    local result = command.run { "exec", "-e", "local t = { 1 }\nprint(table.unpack(t))" }
    has("hint: in LuaJIT it is a global: unpack(…)", result.err)
    result = command.run { "exec", "-e", "print(7 // 2)" }
    has("hint: ", result.err)
    has("math.floor(a / b)", result.err)
  end)
end)
