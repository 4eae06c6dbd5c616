--- The same of scripts whose commands, workers or log are the point. All else: spec/behaviour/sandbox_spec.lua.
local command = require "spec.support.command"
local has = require "spec.support.has"
local server = require "spec.support.server"

local RETURN = " return { listen = 'tcp://127.0.0.1:0', frame = 'line', agent = function() end, %s }"

describe("reading files", function()
  -- The same program with LuaJIT's `io` and with that of scripts.
  local PROGRAM = [[
    local texts = { "", "\n", "one", "one\n", "one\ntwo", "\n\nx\n", "1 2.5 x\nrest\n",
      ("long"):rep(5000) .. "\nshort\n",
      ("y"):rep(8191) .. "\n", ("y"):rep(8192) .. "\n" .. ("z"):rep(16384), "\r\nend" }
    local FORMATS = { {}, { "*l" }, { "*L" }, { "l" }, { "L" }, { "*a" }, { "*n" }, { 3 }, { 0 },
      { "*line" }, { "*l", "*l" },
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
end)

describe("default files and the random seed", function()
  after_each(server.finish)

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
end)

describe("what connections share", function()
  after_each(server.finish)

  it("is as it was after handlers that wrote into it, and so is each one's conn", function()
    local app = server.start_lines([[
      local first
      function Agent:opened() first = first or self.conn end
      function Agent:proceed(line)
        if line == "global" then pcall = nil end
        if line == "library" then table.insert(string, 7) end
        if line == "all" then for name in pairs(_G) do _G[name] = nil end end
        if line == "conn" then self.conn[1] = first.id end
        if line == "id" then rawset(self.conn, 0, rawget(first, 0)) end
        if line == "copy" then for key, value in next, first do self.conn[key] = value end end
        self.conn:send("I am " .. self.conn.id)
        return tostring(pcall(error)) .. tostring(string[1])
      end]], { workers = 1 })
    local first = app:connect()
    first:send "x\n"
    local id = first:recv_line()
    assert.equal("falsenil", first:recv_line())
    for _, line in ipairs { "global", "library", "all", "conn", "id", "copy" } do
      app:connect():send(line .. "\n"):expect_closed()
      first:send "x\n"
      assert.same({ id, "falsenil" }, { first:recv_line(), first:recv_line() })
    end
    app:wait_log({ message = "handler failed" }, nil, 6)
  end)
end)

describe("unsafe", function()
  after_each(server.finish)

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

  it("is named in the log at the start", function()
    local app = server.start_lines("function Agent:proceed(line) return line end", nil,
      "unsafe = { 'ffi', 'os.execute' }")
    assert.equal("ffi, os.execute", app:wait_log({ level = "warn" }).unsafe)
  end)
end)
