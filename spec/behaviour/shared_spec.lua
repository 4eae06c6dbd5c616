--- What connections share is nobody's to change: not by assignment, and not by what writes in C past __newindex.
local has = require "spec.support.has"
local memory = require "spec.support.memory"

-- Each is tried by a connection of its own, `t` being what is shared.
local WRITERS = {
  assign = "t.field = 1", assign_item = "t[1] = 7", clear_field = "t.insert = nil",
  insert = "table.insert(t, 7)", insert_first = "table.insert(t, 1, 7)",
  move = "table.move({ 7, 8 }, 1, 2, 1, t)", move_to_zero = "table.move({ 7 }, 1, 1, 0, t)",
  move_within = "table.move(t, 1, 1, 2)",
  rawset = "rawset(t, 'field', 1)", rawset_item = "rawset(t, 1, 7)", rawset_zero = "rawset(t, 0, 7)",
  setmetatable = "setmetatable(t, nil)", clear = "require 'table.clear'(t)",
  by_metatable = "setmetatable({}, { __newindex = t }).field = 1", by_pcall = "assert(pcall(rawset, t, 1, 7))",
  every_field = "for key in pairs(t) do t[key] = nil end",
}

-- These find nothing there to change, as in any table without items.
local IDLE = {
  remove = "assert(table.remove(t) == nil)", remove_first = "table.remove(t, 1)", sort = "table.sort(t)",
  sort_by = "table.sort(t, function() return true end)", next = "for key in next, t do t[key] = nil end",
}

-- A script whose connections can try each of them on `shared`; "look" tells what `look` says.
local function start(shared, look)
  local tries = {}
  for _, writers in ipairs { WRITERS, IDLE } do
    for name, code in pairs(writers) do tries[#tries + 1] = ("%s = function(t) %s end"):format(name, code) end
  end
  return assert(memory.script(([[
    local perilune = require "perilune"
    local string = require "string"
    local TRIES = { %s }
    local Agent = {}
    function Agent:proceed(line)
      if line == "look" then return %s end
      TRIES[line](%s)
      return "done"
    end
    return { listen = "tcp://127.0.0.1:0", frame = "line", agent = Agent, modules = { "table.clear" } }]]):format(
    table.concat(tries, ", "), look, shared)))
end

describe("a library", function()
  after_each(memory.finish)

  -- What it is for, and whether there is anything in it that was not before.
  local LOOKS = {
    string = "('x'):rep(3) .. string.rep('x', 3) .. tostring(string[1]) .. tostring(rawget(string, 1))",
    math = "tostring(math.max(1, 2)) .. tostring(math[1])", table = "table.concat({ 'x' }) .. tostring(table[1])",
    bit = "tostring(bit.bor(1, 2)) .. tostring(bit[1])", io = "type(io.open) .. tostring(io[1])",
    os = "type(os.time) .. tostring(os[1])", coroutine = "type(coroutine.wrap) .. tostring(coroutine[1])",
    perilune = "type(perilune.now()) .. tostring(perilune[1])",
    _G = "type(pcall) .. tostring(rawget(_G, 'print') == print and rawget(_G, 1))",
  }

  for name, look in pairs(LOOKS) do
    it("is written to by no function: " .. name, function()
      local app = start(name, look)
      local before = app:connect():send("look"):receive()
      for writer in pairs(WRITERS) do
        app:connect():send(writer):expect_closed "error"
        assert.equal(before, app:connect():send("look"):receive(), writer)
      end
      for writer in pairs(IDLE) do
        app:connect():send(writer):expect "done"
        assert.equal(before, app:connect():send("look"):receive(), writer)
      end
    end)
  end

  it("says what it is to who tries", function()
    local app = memory.script_lines [[function Agent:proceed(line)
      if line == "insert" then table.insert(string, 7) end
      if line == "move" then table.move({ 7 }, 1, 1, 1, math) end
      if line == "rawset" then rawset(string, 1, 7) end
      if line == "global" then rawset(_G, "pcall", nil) end
      if line == "field" then _G.pcall = nil end
    end]]
    local i = 0
    for line, text in pairs {
      insert = "table.insert: string cannot be assigned to", move = "table.move: math cannot be assigned to",
      rawset = "rawset: string cannot be assigned to", global = "rawset: a global cannot be assigned to",
      field = "assignment to global 'pcall'",
    } do
      i = i + 1
      app:connect():send(line):expect_closed "error"
      has(text, memory.error_of(app, i))
      assert.matches("^app.lua:%d$", app:faults()[i].place)
    end
  end)

  it("is a table to who asks, with what pairs and rawget find in it", function()
    assert(memory.script [[
      for _, name in ipairs { "string", "math", "table", "bit", "io", "os", "coroutine", "_G" } do
        local library, n = _G[name], 0
        assert(type(library) == "table" and next(library) == nil and #library == 0)
        for key, value in pairs(library) do
          n = n + 1
          assert(library[key] == value and rawget(library, key) == value)
        end
        assert(n > 3 and rawget(library, "absent") == nil)
      end
      assert(_G._G == _G and rawget(_G, "string") == string and _G.string.byte == string.byte)
      assert(rawget({ 1 }, 1) == 1 and rawget(setmetatable({}, { __index = string }), "byte") == nil)
      return { listen = "tcp://127.0.0.1:0", agent = function() end }]])
  end)

  it("leaves tables of the script's own as they are for what writes into them", function()
    assert(memory.script [[
      local t, meta = { 1 }, { __newindex = function() error "asked" end, __metatable = "conn" }
      table.insert(t, 2) table.insert(t, 1, 0) table.insert(t, nil)
      assert(#t == 3 and t[1] == 0 and t[3] == 2)
      setmetatable(t, meta)
      table.insert(t, 3) rawset(t, "x", 4)
      assert(#t == 4 and t.x == 4 and rawget(t, "x") == 4)
      local n = 0
      for _ in pairs(t) do n = n + 1 end
      assert(n == 5)
      assert(table.move({ 1, 2, 3 }, 2, 3, 1)[1] == 2 and table.move({ 5 }, 1, 1, 2, {})[2] == 5)
      assert(not pcall(table.move, { 5 }, 1, 1, 1, false))
      for code, text in pairs {
        ["table.insert()"] = "bad argument #1 to 'insert' (table expected, got ",
        ["table.insert(7, 1)"] = "bad argument #1 to 'insert' (table expected, got number)",
        ["table.insert({})"] = "wrong number of arguments to 'insert'",
        ["table.insert({}, 1, 2, 3)"] = "wrong number of arguments to 'insert'",
        ["rawset('x', 1, 2)"] = "bad argument #1 to 'rawset' (table expected, got string)",
        ["rawset({}, nil, 2)"] = "index is nil",
        ["rawget('x', 1)"] = "bad argument #1 to 'rawget' (table expected, got string)",
      } do
        local ok, err = pcall(assert(load(code, "=x")))
        assert(not ok and tostring(err):find(text, 1, true), tostring(err))
      end
      return { listen = "tcp://127.0.0.1:0", agent = function() end }]])
  end)
end)

describe("what can be reached from the globals", function()
  after_each(memory.finish)

  -- Also by what tables, strings, files, coroutines and numbers have as a metatable or an __index, and from a handler.
  it("is read-only, all of it", function()
    local app = memory.script_lines([[
      local seen, open = {}, {}
      local function walk(value, path)
        if seen[value] then return end
        seen[value] = true
        local meta = getmetatable(value)
        if type(meta) == "table" then open[#open + 1] = "metatable of " .. path end
        if type(value) == "userdata" and pcall(function() value.field = 1 end) then open[#open + 1] = path end
        if type(value) ~= "table" then return end
        for _, write in ipairs { rawset, table.insert, function(t) t[1] = 1 end, function(t) t.field = 1 end } do
          if pcall(write, value, 1, 1) then open[#open + 1] = path end
        end
        if pcall(setmetatable, value, {}) then open[#open + 1] = "metatable of " .. path end
        for key, field in pairs(value) do
          if pcall(function() value[key] = field end) then open[#open + 1] = path .. "." .. tostring(key) end
          walk(field, path .. "." .. tostring(key))
        end
      end
      function Agent:proceed(line)
        for name, value in pairs {
          _G = _G, perilune = perilune, module = require "perilune", conn = self.conn, text = "", number = 1,
          fn = print, co = coroutine.running(), own_co = coroutine.create(print), file = io.stdout, truth = true,
          packed = string.unpack("<i8", "\1\2\3\4\5\6\7\127"), index = ("").__index or 1,
        } do walk(value, name) end
        local n = 0
        for _ in pairs(seen) do n = n + 1 end
        assert(n > 100, n)
        return table.concat(open, " ") .. "."
      end]])
    app:connect():send("x"):expect "."
  end)
end)

-- Modules in Lua that come with busted: beside the script, in its globals, and as the system's.
describe("modules of others", function()
  after_each(memory.finish)

  local function text_of(module)
    local file = assert(io.open(assert(package.searchpath(module, package.path))))
    local text = file:read "*a"
    file:close()
    return text
  end

  local RETURN = " return { listen = 'tcp://127.0.0.1:0', agent = function() end, %s }"

  local JSON = [[
    local json = require "dkjson"
    assert(json.encode({ 1, { a = "x" }, true }) == '[1,{"a":"x"},true]' and json.decode('{"k":[1,2]}').k[2] == 2) ]]

  it("work beside the script", function()
    local app = assert(memory.script(JSON .. [[
      local say, argparse = require "say", require "argparse"
      say:set_namespace "en" say:set("hello", "hello %s")
      assert(say("hello", { "you" }) == "hello you")
      local parser = argparse "tool"
      parser:option "-o"
      assert(parser:parse({ "-o", "x" }).o == "x")]] .. RETURN:format "", {
      dkjson = text_of "dkjson", argparse = text_of "argparse", say = text_of "say.init",
    }))
    app:close()
  end)

  it("work as the system's", function()
    local app = assert(memory.script(JSON .. [[
      local List, tablex, pretty = require "pl.List", require "pl.tablex", require "pl.pretty"
      local list = List { 3, 1, 2 }
      list:sort() list:append(9) list:insert(1, 0) list:extend { 7 }
      assert(tostring(list) == "{0,1,2,3,9,7}" and tablex.deepcompare(tablex.deepcopy { 1, { 2 } }, { 1, { 2 } }))
      assert(pretty.write({ 1, 2 }, "") == "{1,2}" and require "pl.stringx".strip " x " == "x")]]
      .. RETURN:format "modules = { 'dkjson', 'pl.List', 'pl.tablex', 'pl.pretty', 'pl.stringx' }"))
    app:close()
  end)
end)

describe("a global", function()
  after_each(memory.finish)

  local ASSIGNS = {
    plain = "pcall = nil", several = "local a; a, pcall = 1, nil", named = "function pcall() end",
    library = "string = {}", deep = "local function f() return function() pcall = 1 end end f()()",
    loaded = "load('pcall = nil')()", loaded_with = "load('pcall = nil', '=x', 't', _G)()", index = "_G['pcall'] = nil",
    same = "pcall = pcall", required = "require('writer')()", new = "there_is_no_such_name = 1", of_globals = "_G = {}",
    in_a_coroutine = "coroutine.wrap(function() pcall = nil end)() error('assignment to global ?')",
  }

  local function start_globals(code, agent)
    return memory.script(([[
      local Agent = {}
      function Agent:proceed(line)
        if line == "try" then %s end
        return type(pcall) .. type(string.rep) .. type(_G.pcall)
      end
      %s
      return { listen = "tcp://127.0.0.1:0", frame = "line", agent = Agent }]]):format(code, agent or ""),
      { writer = "return function() pcall = nil end" })
  end

  for name, code in pairs(ASSIGNS) do
    it("is assigned by no handler: " .. name, function()
      local app = assert(start_globals(code))
      app:connect():send("try"):expect_closed "error"
      has("assignment to global '", memory.error_of(app))
      app:connect():send("x"):expect "functionfunctionfunction"
    end)
  end

  it("is assigned by no app that a specification writes down", function()
    local Agent = {}
    function Agent:proceed(line)
      if line == "try" then pcall = nil end -- luacheck: ignore
      return type(pcall)
    end
    local app = memory.lines(Agent)
    app:connect():send("try"):expect_closed "error"
    has("assignment to global 'pcall'", memory.error_of(app))
    app:connect():send("x"):expect "function"
  end)

  it("is assigned by no script that is loaded", function()
    for _, code in ipairs { "pcall = nil", "unpack = unpack or table.unpack", "function print() end",
      "_G.print = 1" } do
      local app, message = start_globals("", code)
      assert.is_nil(app)
      assert.matches("assignment to global '%w+': make it a local", message)
    end
  end)

  it("can be a local, a field, a parameter: that is none", function()
    local app = assert(start_globals [[local pcall, t = 1, { type = 2 } t.print = pcall
      for string in ("a"):gmatch "a" do assert(string == "a") end]])
    app:connect():send("try"):expect "functionfunctionfunction"
  end)
end)

describe("a conn", function()
  after_each(memory.finish)

  -- Of two connections, the second tries to make its own conn the first one's.
  local function start_conns(code)
    return assert(memory.script(([[
      local perilune, first, loot = require "perilune", nil, nil
      local Agent = {}
      local function write(conn, t) %s end
      function Agent:opened() first = first or self.conn end
      function Agent:proceed(line)
        if line == "write" then
          local ok, err = pcall(write, first, self.conn)
          perilune.log("info", tostring(err))
        end
        return ("I am %%d"):format(self.conn.id)
      end
      return { listen = "tcp://127.0.0.1:0", frame = "line", agent = Agent,
        modules = { "table.clear" } }]]):format(code)))
  end

  for name, code in pairs {
    assign = "t[1] = conn.id", assign_zero = "t[0] = conn[0]", rawset = "rawset(t, 1, conn.id)",
    rawset_zero = "rawset(t, 0, rawget(conn, 0))", insert = "table.insert(t, 1, conn.id)",
    move = "table.move({ conn.id }, 1, 1, 1, t)", move_all = "table.move(conn, 0, 2, 0, t)",
    clear = "require 'table.clear'(t)",
    sort = "table.insert(t, 2) table.insert(t, 1) table.sort(t)", remove = "table.remove(t)",
    copy = "for key, value in next, conn do t[key] = value end", pairs = "for key in pairs(t) do t[key] = conn.id end",
    number = "t[0] = conn.id",
    wipe = "for key in next, t do t[key] = nil end", nan = "t[0] = 0 / 0", huge = "t[0] = -1e300",
    text = "t[0] = '1'",
  } do
    it("is never another's, whatever is written into it: " .. name, function()
      local app = start_conns(code)
      local first, second = app:connect(), app:connect()
      second:send "write"
      local answer = second:closed() and "error" or second:receive()
      assert.is_true(answer == "error" or answer == "I am 2", answer)
      if answer == "error" then has("something was written into", memory.error_of(app)) end
      first:send("x"):expect "I am 1"
      app:connect():send("x"):expect "I am 3"
    end)
  end

  it("refuses an assignment of whatever there is not", function()
    local app = start_conns "t[1] = conn.id"
    app:connect()
    app:connect():send("write"):expect "I am 2"
    has("conn is read-only", memory.notes(app, 2)[1])
    app = start_conns "rawset(t, 1, 7)"
    app:connect()
    app:connect():send("write"):expect "I am 2"
    has("rawset: a conn cannot be assigned to", memory.notes(app, 2)[1])
  end)

  it("is not made of a table that looks like one", function()
    local app = memory.script_lines [[function Agent:proceed(line)
      local forged = ({ number = { [0] = 1 }, first = { 1 }, none = {}, copied = { [0] = rawget(self.conn, 0) } })[line]
      self.conn.send(forged, "mine")
    end]]
    for _, line in ipairs { "number", "first", "none", "copied" } do
      app:connect():send(line):expect_closed "error"
    end
    -- Once: the log has the same one only counted.
    assert.matches("^a conn is expected before ':'", memory.error_of(app))
    assert.same({ 1, 4 }, { #app:faults(), app:counters().faults })
  end)

  it("has its id for ever, and large ones too", function()
    local app = start_conns ""
    for i = 1, 100 do app:connect():send("x"):expect("I am " .. i):close() end
  end)
end)
