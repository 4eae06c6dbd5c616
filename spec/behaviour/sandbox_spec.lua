--- What scripts see of the VM that they share with others.
local has = require "spec.support.has"
local memory = require "spec.support.memory"

local RETURN = " return { listen = 'tcp://127.0.0.1:0', frame = 'line', agent = function() end, %s }"

-- The app, or nil and why it cannot be loaded.
local function loads(code, settings) return memory.script(code .. RETURN:format(settings or "")) end

local function refusal(code, settings)
  local app, message = loads(code, settings)
  assert.is_nil(app)
  return message
end

-- The same with a file NAME, which is removed afterwards.
local function loads_with_file(code)
  local name = os.tmpname()
  finally(function() os.remove(name) end)
  return loads(("local NAME = %q "):format(name) .. code)
end

describe("a library", function()
  after_each(memory.finish)

  local LIBRARIES = { "math", "string", "table", "bit", "coroutine", "io", "os" }

  for _, name in ipairs(LIBRARIES) do
    it("cannot be written to by a handler: " .. name, function()
      local app = memory.script_lines(([[function Agent:proceed(line)
        if line == "assign" then %s.field = 1 end
        if line == "raw" then rawset(%s, "field", 1) end
        if line == "meta" then setmetatable(%s, {}) end
        return tostring(rawget(%s, "field"))
      end]]):format(name, name, name, name))
      for line, text in pairs {
        assign = name .. ".field cannot be assigned", raw = "rawset: " .. name, meta = "protected metatable",
      } do
        app:connect():send(line):expect_closed("error")
        local faults = app:faults()
        has(text, faults[#faults].error)
      end
      app:connect():send("x"):expect("nil")
    end)
  end

  for _, name in ipairs { "math", "string", "table", "bit", "coroutine", "io", "os", "perilune" } do
    it("shows what is in it to pairs, and is no more open for that: " .. name, function()
      assert(loads(([[
        local library, found, n = require %q, {}, 0
        for key, value in pairs(library) do
          assert(library[key] == value and not found[key])
          found[key], n = true, n + 1
        end
        assert(n >= 3 and not found.dump and not found.execute, n)
        local step, state, first = pairs(library)
        assert(state == library and first == nil)
        local key = step(state)
        assert(found[key] and not pcall(rawset, state, key, 1) and not pcall(function() state[key] = 1 end))
        assert(not pcall(step, {}) and not pcall(step, state, "no such key"))]]):format(name)))
    end)
  end

  it("leaves pairs as it is for all else", function()
    assert(loads [[
      local t, n = setmetatable({ 1, 2, x = 3 }, { __index = math, __metatable = "locked" }), 0
      for key, value in pairs(t) do n = n + value assert(rawget(t, key) == value) end
      assert(n == 6 and pairs(t) == next and select("#", pairs {}) == 3)
      for key in pairs(t) do t[key] = nil end
      assert(next(t) == nil)
      for _, wrong in ipairs { 1, "text", print, true } do
        local ok, err = pcall(function() return (pairs(wrong)) end)
        assert(not ok and err == "app.lua:7: bad argument #1 to 'pairs' (table expected, got "
          .. type(wrong) .. ")", err)
      end
      n = 0
      for _ in pairs(_G) do n = n + 1 end
      assert(n > 20)]])
  end)

  it("is no way out, nor are strings, globals or load", function()
    assert(loads [[
      for _, name in ipairs { "getfenv", "setfenv", "dofile", "loadfile", "collectgarbage", "module" } do
        assert(not pcall(function() return _G[name] end), name)
      end
      assert(getmetatable("") == "locked" and ("").dump == nil)
      assert(not pcall(rawset, _G, "leak", 1) and not pcall(setmetatable, _G, {}))
      assert(not load("\27LJ") and not load("return 1", "x", "b"))
      assert(load(coroutine.wrap(function() coroutine.yield "return " coroutine.yield "7" end))() == 7)
      for _, globals in ipairs { 5, true, "x", print } do
        local ok, message = pcall(load, "return debug", "=x", "t", globals)
        assert(not ok and message:find("table expected", 1, true), message)
      end
      assert(load("return x", "=x", "t", { x = 7 })() == 7 and not pcall(load("return debug", "=x", "t", nil)))
      for _, name in ipairs { "../secret", "/etc/passwd", "a..b", ".hidden", "x.so/y" } do
        assert(not pcall(require, name), name)
      end]])
  end)
end)

describe("Perilune's own", function()
  after_each(memory.finish)

  -- The names of all modules below lua/, and those that are in C.
  local function internal_modules()
    local names = { "perilune.core", "perilune.guard", "perilune.patterns", "perilune.paths", "perilune.files_core" }
    for path in io.popen("cd lua && find perilune -name '*.lua'"):lines() do
      local name = path:gsub("%.lua$", ""):gsub("/", ".")
      if name ~= "perilune.http" then names[#names + 1] = name end -- which is for scripts
    end
    return names
  end

  it("module can be read and not written, by assignment, rawset or metatable", function()
    local app = memory.script_lines [[function Agent:proceed(line)
      local own = require "perilune"
      if line == "assign" then own.sleep = print end
      if line == "add" then perilune.mine = print end
      if line == "raw" then rawset(perilune, "sleep", print) end
      if line == "meta" then setmetatable(own, {}) end
      return tostring(own == perilune and type(own.sleep) == "function" and next(own) == nil and not own.mine)
    end]]
    for line, text in pairs {
      assign = "perilune.sleep cannot be assigned: libraries are shared by all connections",
      add = "perilune.mine cannot be assigned", raw = "rawset: perilune", meta = "protected metatable",
    } do
      app:connect():send(line):expect_closed("error")
      local faults = app:faults()
      has(text, faults[#faults].error)
    end
    app:connect():send("x"):expect("true")
  end)

  it("internal modules are not for scripts, named in modules or not", function()
    local names = internal_modules()
    assert.is_true(#names > 15)
    for _, name in ipairs(names) do
      for _, settings in ipairs { "", ("modules = { %q }"):format(name) } do
        has("'" .. name .. "' is internal to Perilune", refusal(("require %q"):format(name), settings))
      end
    end
  end)

  it("methods of files cannot be changed for others", function()
    assert(loads_with_file [[
      assert(type(getmetatable(io.stdout)) == "string" and io.stdout.__index == nil and io.stdout.__gc == nil)
      assert(not pcall(function() io.stdout.write = print end) and not pcall(rawset, io.stdout, "write", print))
      local file = assert(io.open(NAME, "w"))
      assert(file:write("one\ntwo\n") and file:flush() and file:setvbuf("no") and file:close())
      file = io.open(NAME)
      assert(file:read() == "one" and file:lines()() == "two" and file:seek("set") == 0)
      assert(tostring(file):find("^file %(") and io.type(file) == "file" and io.stderr:write("") == true)]])
  end)
end)

describe("reading files", function()
  after_each(memory.finish)

  it("refuses unknown formats beside those of lines", function()
    assert(loads [[
      local file = assert(io.open "/dev/null")
      for _, wrong in ipairs { "*x", true, {} } do
        local ok, message = pcall(function() return file:read("*l", wrong) end)
        assert(not ok and message == "app.lua:3: bad argument #2 to 'read' (invalid format)", message)
      end]])
  end)

  it("leaves lines whole that have zero bytes in them", function()
    assert(loads_with_file [[
      local file = assert(io.open(NAME, "w"))
      assert(file:write("a\0b\n\0\n\0") and file:close())
      file = io.open(NAME)
      assert(file:read() == "a\0b" and file:read "*L" == "\0\n" and file:read() == "\0" and file:read() == nil)]])
  end)
end)

describe("default files and the random seed", function()
  after_each(memory.finish)

  it("are nobody's to change", function()
    local app = memory.script_lines [[function Agent:proceed(line)
      if line == "output" then io.output("/dev/null") end
      if line == "input" then io.input("/dev/null") end
      if line == "close" then io.close() end
      if line == "seed" then math.randomseed(7) end
      if line == "use" then
        assert(io.output() == io.stdout and io.input() == io.stdin and io.write("") and io.stdout:write(""))
        local file = assert(io.open("/dev/null", "w"))
        assert(file:write("x") and io.close(file) and io.type(file) == "closed file")
      end
      return line
    end]]
    for line, text in pairs {
      output = "io.output: the default file is shared by all connections: write to one of your own (io.open)",
      input = "io.input: the default file is shared by all connections: read from one of your own (io.open)",
      close = "io.close: the default file is shared by all connections: name the one to close",
      seed = "math.randomseed: its numbers are shared by all connections, and differ at each start: "
        .. "a seed can be set only"
        .. " while the script is loaded",
    } do
      app:connect():send(line):expect_closed("error")
      local faults = app:faults()
      has(text, faults[#faults].error)
      app:connect():send("use"):expect("use")
    end
  end)

  local DRAW = "function Agent:proceed() return ('%d %d'):format(math.random(1e9), math.random(1e9)) end"

  local function ask(one) return one:send("x"):receive() end

  it("are the script's own to set while it is loaded, at its top or in setup()", function()
    for _, code in ipairs { "math.randomseed(7) " .. DRAW, DRAW } do
      local drawn = {}
      for i = 1, 2 do
        local app = memory.script_lines(code, code == DRAW and "setup = function() math.randomseed(7) end")
        drawn[i] = ask(app:connect())
      end
      assert.equal(drawn[1], drawn[2])
    end
  end)
end)

describe("unsafe", function()
  after_each(memory.finish)

  local USES = {
    ffi = "local ffi = require 'ffi'", debug = "local d = debug.getinfo", jit = "local jit = require 'jit'",
    ["io.popen"] = "local p = io.popen", ["os.execute"] = "local e = os.execute", ["os.exit"] = "local e = os.exit",
    ["string.dump"] = "local d = string.dump", package = "local g = require '_G'", newproxy = "local n = newproxy",
    ["string.buffer"] = "local b = require 'string.buffer'", ["os.setlocale"] = "local s = os.setlocale",
  }

  for name, code in pairs(USES) do
    it("is what a script needs for " .. name, function()
      has(('add unsafe = { "%s" }'):format(name), refusal(code))
      assert(loads(code .. " assert(" .. code:match("local (%w+)") .. ")", ("unsafe = { %q }"):format(name)))
    end)
  end

  it("is not opened by a script that tries what it may do", function()
    assert(loads("local ok, ffi = pcall(require, 'ffi') assert(not ok and ffi:find 'out of the VM')"))
  end)

  it("does not open LuaJIT's profiler, which ends calls that do not return", function()
    has("jit.profile cannot be used here", refusal("require 'jit.p'", "unsafe = { 'jit' }"))
  end)

  it("is not opened by modules", function()
    has('add unsafe = { "ffi" }', refusal("require 'ffi'", "modules = { 'ffi' }"))
  end)

  it("knows its names", function()
    has('did you mean "io.popen"?', refusal("", "unsafe = { 'io.popem' }"))
    has("unsafe", refusal("", "unsafe = true"))
  end)

  it("stays shut for handlers that ask later", function()
    local app = memory.script_lines [[function Agent:proceed(line)
      if line == "ffi" then return require("ffi") and "open" end
      return tostring(io.popen)
    end]]
    app:connect():send("x"):expect("nil")
    app:connect():send("ffi"):expect_closed("error")
    has("leads out of the VM", memory.error_of(app))
  end)

end)

describe("a call that was ended", function()
  after_each(memory.finish)

  it("leaves coroutines usable, however often", function()
    local app = memory.script_lines([[function Agent:proceed(line)
      if line == "loop" then coroutine.wrap(function() while true do end end)() end
      return coroutine.wrap(function() return "fine" end)()
    end]], [[limits = { proceed = "5ms" }]])
    for _ = 1, 190 do app:connect():send("loop"):expect_closed("proceed_timeout") end
    app:connect():send("x"):expect("fine")
  end)

  it("leaves the worker able to end others, even from within load()", function()
    local app = memory.script_lines([[function Agent:proceed(line)
      if line == "load" then load(function() while true do end end) end
      while true do end
    end]], [[limits = { proceed = "5ms" }]])
    for _ = 1, 10 do
      app:connect():send("load"):expect_closed("proceed_timeout")
      app:connect():send("loop"):expect_closed("proceed_timeout")
    end
  end)
end)
