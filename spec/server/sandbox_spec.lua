--- What scripts see of the VM that they share with others.
local command = require "spec.support.command"
local has = require "spec.support.has"
local server = require "spec.support.server"

local function check(script)
  local folder = command.folder()
  local path = command.write(folder .. "/app.lua", script)
  local result = command.run { "check", path }
  command.remove(folder)
  return result
end

local RETURN = " return { listen = 'tcp://127.0.0.1:0', frame = 'line', agent = function() end, %s }"

local function loads(code, settings) return check(code .. RETURN:format(settings or "")) end

describe("a library", function()
  after_each(server.finish)

  local LIBRARIES = { "math", "string", "table", "bit", "coroutine", "io", "os" }

  for _, name in ipairs(LIBRARIES) do
    it("cannot be written to by a handler: " .. name, function()
      local app = server.start_lines(([[function Agent:proceed(line)
        if line == "assign" then %s.field = 1 end
        if line == "raw" then rawset(%s, "field", 1) end
        if line == "meta" then setmetatable(%s, {}) end
        return tostring(rawget(%s, "field"))
      end]]):format(name, name, name, name))
      for line, text in pairs {
        assign = name .. ".field cannot be assigned", raw = "rawset: " .. name, meta = "protected metatable",
      } do
        app:connect():send(line .. "\n"):expect_closed()
        app:wait_log(function(entry) return entry.error and entry.error:find(text, 1, true) end)
      end
      app:connect():echo_line("x", "nil")
    end)
  end

  for _, name in ipairs { "math", "string", "table", "bit", "coroutine", "io", "os", "perilune" } do
    it("shows what is in it to pairs, and is no more open for that: " .. name, function()
      local result = loads(([[
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
        assert(not pcall(step, {}) and not pcall(step, state, "no such key"))]]):format(name))
      assert.equal(0, result.code, result.err)
    end)
  end

  it("leaves pairs as it is for all else", function()
    local result = loads [[
      local t, n = setmetatable({ 1, 2, x = 3 }, { __index = math, __metatable = "locked" }), 0
      for key, value in pairs(t) do n = n + value assert(rawget(t, key) == value) end
      assert(n == 6 and pairs(t) == next and select("#", pairs {}) == 3)
      for key in pairs(t) do t[key] = nil end
      assert(next(t) == nil)
      for _, wrong in ipairs { 1, "text", print, true } do
        local ok, err = pcall(function() return (pairs(wrong)) end)
        assert(not ok and err == "app.lua:7: bad argument #1 to 'pairs' (table expected, got " .. type(wrong) .. ")", err)
      end
      n = 0
      for _ in pairs(_G) do n = n + 1 end
      assert(n > 20)]]
    assert.equal(0, result.code, result.err)
  end)

  it("is no way out, nor are strings, globals or load", function()
    local result = loads [[
      for _, name in ipairs { "getfenv", "setfenv", "dofile", "loadfile", "collectgarbage", "module" } do
        assert(not pcall(function() return _G[name] end), name)
      end
      assert(getmetatable("") == "locked" and ("").dump == nil)
      assert(not pcall(rawset, _G, "leak", 1) and not pcall(setmetatable, _G, {}))
      assert(not load("\27LJ") and not load("return 1", "x", "b"))
      assert(load(coroutine.wrap(function() coroutine.yield "return " coroutine.yield "7" end))() == 7)
      for _, name in ipairs { "../secret", "/etc/passwd", "a..b", ".hidden", "x.so/y" } do
        assert(not pcall(require, name), name)
      end]]
    assert.equal(0, result.code, result.err)
  end)
end)

describe("Perilune's own", function()
  after_each(server.finish)

  -- The names of all modules below lua/, and those that are in C.
  local function internal_modules()
    local names = { "perilune.core", "perilune.guard", "perilune.patterns", "perilune.paths", "perilune.files_core" }
    for path in io.popen("cd lua && find perilune -name '*.lua'"):lines() do
      names[#names + 1] = path:gsub("%.lua$", ""):gsub("/", ".")
    end
    return names
  end

  it("module can be read and not written, by assignment, rawset or metatable", function()
    local app = server.start_lines [[function Agent:proceed(line)
      local own = require "perilune"
      if line == "assign" then own.sleep = print end
      if line == "add" then perilune.mine = print end
      if line == "raw" then rawset(perilune, "sleep", print) end
      if line == "meta" then setmetatable(own, {}) end
      return tostring(own == perilune and type(own.sleep) == "function" and rawget(own, "sleep") == nil and not own.mine)
    end]]
    for line, text in pairs {
      assign = "perilune.sleep cannot be assigned: libraries are shared by all connections",
      add = "perilune.mine cannot be assigned", raw = "rawset: perilune", meta = "protected metatable",
    } do
      app:connect():send(line .. "\n"):expect_closed()
      app:wait_log(function(entry) return entry.error and entry.error:find(text, 1, true) end)
    end
    app:connect():echo_line("x", "true")
  end)

  it("internal modules are not for scripts, named in modules or not", function()
    local names = internal_modules()
    assert.is_true(#names > 15)
    for _, name in ipairs(names) do
      for _, settings in ipairs { "", ("modules = { %q }"):format(name) } do
        local result = loads(("require %q"):format(name), settings)
        assert.equal(78, result.code, name)
        has("'" .. name .. "' is internal to Perilune", result.err)
      end
    end
  end)

  it("methods of files cannot be changed for others", function()
    local result = loads [[
      assert(type(getmetatable(io.stdout)) == "string" and io.stdout.__index == nil and io.stdout.__gc == nil)
      assert(not pcall(function() io.stdout.write = print end) and not pcall(rawset, io.stdout, "write", print))
      local file = assert(io.open("app.lua", "w"))
      assert(file:write("one\ntwo\n") and file:flush() and file:setvbuf("no") and file:close())
      file = io.open("app.lua")
      assert(file:read() == "one" and file:lines()() == "two" and file:seek("set") == 0)
      assert(tostring(file):find("^file %(") and io.type(file) == "file" and io.stderr:write("") == true)]]
    assert.equal(0, result.code, result.err)
  end)
end)

describe("reading files", function()
  -- The same program with LuaJIT's `io` and with that of scripts.
  local PROGRAM = [[
    local texts = { "", "\n", "one", "one\n", "one\ntwo", "\n\nx\n", "1 2.5 x\nrest\n", ("long"):rep(5000) .. "\nshort\n",
      ("y"):rep(8191) .. "\n", ("y"):rep(8192) .. "\n" .. ("z"):rep(16384), "\r\nend" }
    local FORMATS = { {}, { "*l" }, { "*L" }, { "l" }, { "L" }, { "*a" }, { "*n" }, { 3 }, { 0 }, { "*line" }, { "*l", "*l" },
      { "*n", "*l" }, { 2, "*L", "*a" }, { "*l", 0, "*n" }, { "*x" }, { {} } }
    local out = {}
    local function note(...)
      if select("#", ...) == 0 then out[#out + 1] = '"nil"' end -- the end of io.lines(), with and without formats
      for i = 1, select("#", ...) do out[#out + 1] = ("%q"):format(tostring((select(i, ...)))) end
      out[#out + 1] = "/"
    end
    local function try(fn, ...)
      local function results(ok, ...)
        if ok then note(...) else note("raised", (tostring((...)):gsub("^.-:%d+: ", ""):gsub("'%?'", "'read'"))) end
        return ok and (...) ~= nil
      end
      return results(pcall(fn, ...))
    end
    for _, text in ipairs(texts) do
      local file = assert(io.open(NAME, "w"))
      assert(file:write(text) and file:close())
      for _, formats in ipairs(FORMATS) do
        local n = table.maxn(formats)
        file = assert(io.open(NAME))
        for _ = 1, 4 do try(file.read, file, unpack(formats, 1, n)) end
        file:seek("set")
        local ok, each = pcall(file.lines, file, unpack(formats, 1, n))
        for _ = 1, ok and 4 or 0 do if not try(each) then break end end
        note(io.type(file))
        file:close()
        ok, each = pcall(io.lines, NAME, unpack(formats, 1, n))
        for _ = 1, ok and 4 or 0 do if not try(each) then break end end
      end
    end
    local file = io.open(NAME)
    local each = file:lines()
    file:close()
    try(each)
    try(function() return file:read() end)
    try(function() for _ in file:lines() do note "a line" end end)
    try(function() for _ in io.lines("/nowhere/at/all") do note "a line" end end)
    try(function() for _ in io.lines("/") do note "a line" end end)
    try(function() return io.open("/"):read() end)
    try(io.read)
    for l in io.lines() do note(l) end
    io.write((table.concat(out, " "):gsub("%z", "0"):gsub("\n", "n")), "\n")]]

  it("gives what LuaJIT gives", function()
    local folder = command.folder()
    local program = PROGRAM:gsub("NAME", ("%q"):format(folder .. "/data"))
    local own = command.run { "check", command.write(folder .. "/app.lua", program .. RETURN:format "") }
    local luajits = command.run { "exec", command.write(folder .. "/exec.lua", program) }
    command.remove(folder)
    assert.same({ 0, 0 }, { own.code, luajits.code }, luajits.err)
    local wanted = luajits.out:match "[^\n]*"
    assert.is_true(#wanted > 1e5)
    assert.equal(wanted, own.err:match "[^\n]*") -- where `check` lets scripts write to
  end)

  it("refuses unknown formats beside those of lines", function()
    local result = loads [[
      local file = assert(io.open "/dev/null")
      for _, wrong in ipairs { "*x", true, {} } do
        local ok, message = pcall(function() return file:read("*l", wrong) end)
        assert(not ok and message == "app.lua:3: bad argument #2 to 'read' (invalid format)", message)
      end]]
    assert.equal(0, result.code, result.err)
  end)

  it("leaves lines whole that have zero bytes in them", function()
    local result = loads [[
      local file = assert(io.open("data", "w"))
      assert(file:write("a\0b\n\0\n\0") and file:close())
      file = io.open "data"
      assert(file:read() == "a\0b" and file:read "*L" == "\0\n" and file:read() == "\0" and file:read() == nil)]]
    assert.equal(0, result.code, result.err)
  end)
end)

describe("default files and the random seed", function()
  after_each(server.finish)

  it("are nobody's to change", function()
    local app = server.start_lines [[function Agent:proceed(line)
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
      seed = "math.randomseed: its numbers are shared by all connections, and differ at each start: a seed can be set only"
        .. " while the script is loaded",
    } do
      app:connect():send(line .. "\n"):expect_closed()
      app:wait_log(function(entry) return entry.error and entry.error:find(text, 1, true) end)
      app:connect():echo_line("use")
    end
  end)

  local DRAW = "function Agent:proceed() return ('%d %d'):format(math.random(1e9), math.random(1e9)) end"

  local function ask(one) return one:send("x\n"):recv_line() end

  it("differ from worker to worker and from start to start", function()
    local seen = {}
    for _ = 1, 2 do
      local app = server.start_lines(DRAW, { workers = 2 })
      for _, one in ipairs(app:connect_many(2)) do
        local drawn = ask(one)
        assert.is_nil(seen[drawn])
        seen[drawn] = true
      end
    end
  end)

  it("are the script's own to set while it is loaded, at its top or in setup()", function()
    for _, code in ipairs { "math.randomseed(7) " .. DRAW, DRAW } do
      local drawn = {}
      for i = 1, 2 do
        local app = server.start_lines(code, nil, code == DRAW and "setup = function() math.randomseed(7) end")
        drawn[i] = ask(app:connect())
      end
      assert.equal(drawn[1], drawn[2])
    end
  end)
end)

describe("unsafe", function()
  after_each(server.finish)

  local USES = {
    ffi = "local ffi = require 'ffi'", debug = "local d = debug.getinfo", jit = "local jit = require 'jit'",
    ["io.popen"] = "local p = io.popen", ["os.execute"] = "local e = os.execute", ["os.exit"] = "local e = os.exit",
    ["string.dump"] = "local d = string.dump", package = "local g = require '_G'", newproxy = "local n = newproxy",
    ["string.buffer"] = "local b = require 'string.buffer'", ["os.setlocale"] = "local s = os.setlocale",
  }

  for name, code in pairs(USES) do
    it("is what a script needs for " .. name, function()
      local refused = loads(code)
      assert.equal(78, refused.code)
      has(('add unsafe = { "%s" }'):format(name), refused.err)
      local allowed = loads(code .. " assert(" .. code:match("local (%w+)") .. ")", ("unsafe = { %q }"):format(name))
      assert.equal(0, allowed.code, allowed.err)
    end)
  end

  it("is asked for before anything happens, at the place", function()
    for code, name in pairs { ["os.exit(0)"] = "os.exit", ["os.execute 'touch executed'"] = "os.execute" } do
      local folder = command.folder()
      local path = command.write(folder .. "/app.lua", "\n" .. code .. "\nreturn { agent = {} }")
      local result = command.run { "check", path, dir = folder }
      assert.equal(78, result.code)
      has(("%s leads out of the VM: to open it, add unsafe = { %q }"):format(name, name), result.err)
      has("app.lua:2", result.err)
      assert.is_nil(io.open(folder .. "/executed"))
      command.remove(folder)
    end
  end)

  it("may be a setting, or a module's", function()
    local code = "local e = os.execute return { listen = 'tcp://127.0.0.1:0', agent = { proceed = function() end }%s }"
    local folder = command.folder()
    local path = command.write(folder .. "/app.lua", code:format "")
    assert.equal(0, command.run({ "check", path, "--set", "unsafe=os.execute" }).code)
    command.write(path, code:format ", unsafe = require('settings').unsafe")
    command.write(folder .. "/settings.lua", "return { unsafe = { 'os.execute' } }")
    local result = command.run { "check", path }
    assert.same({ 0, "" }, { result.code, result.err })
    command.write(path, code:format ", unsafe = require('settings')")
    command.write(folder .. "/settings.lua", "return { 'os.execute' }")
    result = command.run { "check", path }
    assert.same({ 0, "" }, { result.code, result.err })
    command.remove(folder)
  end)

  it("is not opened by a script that tries what it may do", function()
    assert.equal(0, loads("local ok, ffi = pcall(require, 'ffi') assert(not ok and ffi:find 'out of the VM')").code)
  end)

  it("does not open LuaJIT's profiler, which ends calls that do not return", function()
    has("jit.profile cannot be used here", loads("require 'jit.p'", "unsafe = { 'jit' }").err)
  end)

  it("is not opened by modules", function()
    has('add unsafe = { "ffi" }', loads("require 'ffi'", "modules = { 'ffi' }").err)
  end)

  it("knows its names", function()
    local result = loads("", "unsafe = { 'io.popem' }")
    assert.equal(78, result.code)
    has('did you mean "io.popen"?', result.err)
    assert.equal(78, loads("", "unsafe = true").code)
  end)

  it("stays shut for handlers that ask later", function()
    local app = server.start_lines [[function Agent:proceed(line)
      if line == "ffi" then return require("ffi") and "open" end
      return tostring(io.popen)
    end]]
    app:connect():echo_line("x", "nil")
    app:connect():send("ffi\n"):expect_closed()
    has("leads out of the VM", app:wait_log("handler failed").error)
  end)

  it("is named in the log at the start", function()
    local app = server.start_lines("function Agent:proceed(line) return line end", nil, "unsafe = { 'ffi', 'os.execute' }")
    assert.equal("ffi, os.execute", app:wait_log({ level = "warn" }).unsafe)
  end)
end)

describe("a call that was ended", function()
  after_each(server.finish)

  it("leaves coroutines usable, however often", function()
    local app = server.start_lines([[function Agent:proceed(line)
      if line == "loop" then coroutine.wrap(function() while true do end end)() end
      return coroutine.wrap(function() return "fine" end)()
    end]], nil, [[limits = { proceed = "5ms" }]])
    for _ = 1, 190 do app:connect():send("loop\n"):recv_all() end
    app:connect():echo_line("x", "fine")
  end)

  it("leaves the worker able to end others, even from within load()", function()
    local app = server.start_lines([[function Agent:proceed(line)
      if line == "load" then load(function() while true do end end) end
      while true do end
    end]], nil, [[limits = { proceed = "5ms" }]])
    for _ = 1, 10 do
      app:connect():send("load\n"):recv_all()
      app:connect():send("loop\n"):recv_all()
    end
    local count = (app:stop().summary.reasons or ""):match("proceed_timeout=(%d+)")
    assert.equal(20, tonumber(count))
  end)
end)
