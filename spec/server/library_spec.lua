--- The types in lua/perilune/library/ against what the real binary gives to scripts: which functions, which fields, and
--- which arguments they cannot do without.
local command = require "spec.support.command"
local server = require "spec.support.server"
local stubs_of = require "packaging.stubs"

local stubs = stubs_of.read "lua/perilune/library"

-- Runs each line in the handler, with the connection as ... , and answers with the results.
local EVAL = [[
local Agent, first = {}, nil
function Agent:opened() first = first or self.conn end
function Agent:proceed(code)
  local function results(ok, ...)
    local texts = { tostring(ok) }
    for i = 1, select("#", ...) do texts[i + 1] = tostring((select(i, ...))) end
    return table.concat(texts, " ")
  end
  return results(pcall(load("local conn, debug, first = ... " .. code), self.conn, debug, first))
end
return { listen = "tcp://127.0.0.1:0", frame = { "line", max = "64k" }, agent = Agent, unsafe = { "debug" },
  workers = 1 }
]]

local METHODS = [[local found = {}
  local index = debug.getmetatable(conn).__index
  for i = 1, 9 do
    local name, value = debug.getupvalue(index, i)
    if name == "methods" then for key in pairs(value) do found[#found + 1] = key end end
  end
  table.sort(found)
  return table.concat(found, " ")]]

-- What each argument may be; those of one name are alike.
local SAMPLES = {
  reply = '"x"', fn = "function() end", kind = '"idle"', duration = "1", level = '"info"', message = '"m"',
  other = "first", topic = '"a"', data = '"x"',
}

-- "(…)" with the first n of a function's arguments.
local function arguments(stub, n)
  local parts = {}
  for i = 1, n do parts[i] = assert(SAMPLES[stub.params[i].name], stub.params[i].name) end
  return "(" .. table.concat(parts, ", ") .. ")"
end

local function required(stub)
  local n = 0
  for i, param in ipairs(stub.params) do
    if not param.optional then n = i end
  end
  return n
end

describe("the types of", function()
  after_each(server.finish)

  local client
  local function eval(code)
    if not client then
      local app = server.start { script = EVAL }
      app:connect():echo_line("return 1", "true 1") -- another connection, for who wants one
      client = app:connect()
    end
    return client:send(code:gsub("%s+", " ") .. "\n"):recv_line()
  end
  before_each(function() client = nil end)

  it("conn have its methods", function()
    assert.equal("true " .. table.concat(stubs_of.names_of(stubs, "conn"), " "), eval(METHODS))
  end)

  it("conn have its fields, and no others", function()
    local fields = {}
    for name in command.read("src/bind/conn.c"):gmatch '{ "([%w_]+)", get_%w+' do fields[name] = true end
    for name in pairs(stubs.classes["perilune.conn"].fields) do
      assert.is_true(fields[name], name)
      assert.matches("^true .", eval(("return conn.%s"):format(name)))
      fields[name] = nil
    end
    assert.same({}, fields)
    assert.matches("^false ", eval "return conn.nothing")
    for name in pairs(stubs.classes["perilune.usage"].fields) do
      assert.matches("^true number", eval(("return type(conn.usage.%s)"):format(name)))
    end
  end)

  it("conn say which arguments cannot be left out", function()
    for _, name in ipairs(stubs_of.names_of(stubs, "conn")) do
      local stub = stubs.functions["conn:" .. name]
      local n = required(stub)
      if name == "pipe" then -- what it returns goes out without the end of a line
        assert.matches("^false ", eval "conn:pipe()")
      elseif n > 0 then
        assert.matches("^false ", eval("conn:" .. name .. arguments(stub, n - 1)), name)
        local answer = eval("conn:" .. name .. arguments(stub, n))
        if name == "send" then answer = client:recv_line() end -- "x" came first
        assert.matches("^true", answer, name)
      end
    end
  end)

  it("conn name the deadlines", function()
    for _, kind in ipairs(stubs.aliases["perilune.timeout_kind"]) do
      assert.equal("true true", eval(("return conn:set_timeout(%q, 10)"):format(kind)))
    end
    assert.matches("^false ", eval 'return conn:set_timeout("other", 10)')
  end)

  it("perilune have its functions, and say which arguments cannot be left out", function()
    local function exec(code)
      local result = command.run { "exec", "-e", "local perilune = require 'perilune' " .. code }
      assert.equal(0, result.code, result.err)
      return result.out
    end
    local names = stubs_of.names_of(stubs, "perilune")
    assert.equal(table.concat(names, " "), exec [[
      local found = {}
      assert(perilune.deflate and perilune.inflate) -- which are made when they are asked for
      for name in pairs(perilune) do found[#found + 1] = name end
      table.sort(found)
      io.write(table.concat(found, " "))]])
    -- What is for handlers alone says so here; spec/behaviour/places_spec.lua tries it there.
    for _, name in ipairs { "sleep", "now", "time", "log" } do
      local stub = stubs.functions["perilune." .. name]
      local n = required(stub)
      local call = "print(pcall(function() perilune." .. name .. "%s end))"
      assert.matches("^true", exec(call:format(arguments(stub, n)):gsub("%(1%)", "(0)")), name)
      if n > 0 then assert.matches("^false", exec(call:format(arguments(stub, n - 1))), name) end
    end
    for _, name in ipairs { "after", "every", "spawn", "defer", "all", "any", "timeout", "connect", "resolve" } do
      assert.matches("perilune%." .. name .. ": only inside a running server",
        exec("print(pcall(perilune." .. name .. "))"))
    end
    assert.matches("false\tperilune%.pool: expects an address", exec "print(pcall(perilune.pool))")
  end)
end)
