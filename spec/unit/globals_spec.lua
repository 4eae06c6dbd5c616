--- Globals of compiled chunks: lua/perilune/globals.lua.
local globals = require "perilune.globals"

local function used_by(text)
  local shown = {}
  for i, use in ipairs(globals.used_by(assert(loadstring(text)))) do
    shown[i] = ("%d %s%s"):format(use.line, use.name, use.is_write and " =" or "")
  end
  return shown
end

local function faults(text, defined)
  return globals.faults("app.lua", assert(loadstring(text)), text, function(name) return defined[name] == true end)
end

describe("globals.used_by", function()
  it("finds reads and writes, in functions within functions, by line", function()
    assert.same({ "1 a", "2 b =", "4 c", "5 d", "6 e =" },
      used_by("local x = a\nb = x\nreturn function()\n  c()\n  return function(y) return d[y] end,\n"
        .. "    function() e = x end\nend"))
  end)

  it("takes no local, upvalue, field or method for a global", function()
    assert.same({}, used_by [[
      local t = {}
      function t:method(x) self.field, t.other = x, t.a.b end
      for i, v in ... do t[i] = v end
      return function(...) return t:method(..., "name") end]])
  end)

  it("finds them in loops that have been compiled", function()
    local text = "local n = 0 for i = 1, 1000 do n = n + tonumber('1') end return n"
    local chunk = assert(loadstring(text))
    for _ = 1, 100 do chunk() end
    assert.equal("tonumber", globals.used_by(chunk)[1].name)
  end)
end)

describe("globals.faults", function()
  it("are reads of what is not there, and all writes", function()
    assert.same({ "app.lua:2: undefined global 'pirnt': did you mean 'print'?" },
      faults("print(1)\npirnt(2)", { print = true }))
    assert.matches("^app%.lua:1: assignment to global 'print'", faults("print = 1", { print = true })[1])
  end)

  it("are told once for each name", function()
    assert.equal(2, #faults("xyzzy()\nxyzzy()\nxyzzy = 1\nxyzzy = 2", {}))
  end)
end)

describe("globals.summary", function()
  it("is none of none, and has an end", function()
    assert.is_nil(globals.summary {})
    assert.equal("a\nb", globals.summary { "a", "b" })
    local many = {}
    for i = 1, 12 do many[i] = tostring(i) end
    assert.matches("\n10\nand 2 more$", globals.summary(many))
  end)
end)
