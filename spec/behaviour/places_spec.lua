--- Everything of ours that Lua can reach, from everywhere that code of the user's runs: spec/support/places.lua has the
--- table. What needs several generations or a recording is in spec/server/places_spec.lua.
local memory = require "spec.support.memory"
local places = require "spec.support.places"

local ROWS, NAMES = places.read()

-- ---- how to come to each place: the client that it is of ----

local COME = {}

-- Output leaves byte by byte, so that who flushes has to wait.
local function connect(app, listener)
  return app:connect { listener = listener, write_max = 1, frame = "raw" }
end

local function line(name)
  return function(app) return connect(app, "lines"):send(name .. "\n") end
end

for _, name in ipairs {
  "task", "timer", "task_defer", "proceed", "after_wait", "tostring", "index", "coroutine", "sort", "gsub", "finaliser",
  "message",
} do
  COME[name] = line(name)
end
COME.failed = line "raise"
function COME.opened(app) return connect(app, "lines") end
function COME.factory(app) return connect(app, "factory") end
function COME.batch(app) return connect(app, "lines"):send "a\nb\nbatch\nc\nd\n" end
function COME.eof(app) return connect(app, "lines"):half_close() end
function COME.timeout(app)
  local client = connect(app, "lines")
  app:advance "61s"
  return client
end
function COME.writable(app) return connect(app, "lines"):send "flood\n" end
function COME.oversize(app) return connect(app, "lines"):send(("x"):rep(2000)) end
function COME.malformed(app) return connect(app, "netstrings"):send "no netstring" end
function COME.injected(app)
  app:fail "proceed"
  return connect(app, "lines"):send "x\n"
end
function COME.closed(app) return connect(app, "lines"):close() end
COME.defer = COME.closed
function COME.drain(app)
  local client = connect(app, "lines")
  app:begin_drain()
  return client
end
function COME.kept_coroutine(app)
  connect(app, "lines"):send "keep\n":close()
  return connect(app, "lines"):send "take\n"
end
function COME.look_up(app) return connect(app, "looking"):half_close() end
function COME.look_up_waiting(app) return connect(app, "looking"):send "sleep\n":half_close() end
function COME.decode(app) return connect(app, "coded"):send "decode\n" end
function COME.decode_raises(app) return connect(app, "coded"):send "a\ndecode_raises\nb\n" end
function COME.decode_batch(app) return connect(app, "coded"):send "a\nb\nc\nd\n":send "a\nb\ndecode\nc\nd\n" end
function COME.decode_read(app) return connect(app, "coded"):send "read\n":send "decode\n" end
function COME.encode(app) return connect(app, "coded"):send "encode\n" end
function COME.encode_batch(app) return connect(app, "coded"):send "a\nb\nencode\nc\nd\n" end
function COME.encode_send(app) return connect(app, "coded"):send "send\n" end
function COME.clients_encode(app) return app:connect { listener = "coded" }:send "encode" end
function COME.clients_decode(app)
  local client = app:connect { listener = "coded" }:send "say"
  client:frames()
  return client
end

-- What the script calls it, where it is the same for several.
local CALLED = {
  look_up_waiting = "look_up", decode_batch = "decode", decode_read = "decode", encode_batch = "encode",
  encode_send = "encode", clients_encode = "encode", injected = "failed", clients_decode = "decode",
}

-- These end the app.
local IS_LAST = { drain = true }

-- ---- a cell ----

local function try(app, control, place, target, method)
  app:connect { listener = "kept" }:close()
  if method == "link" or method == "pipe" then app:connect { listener = "kept" } end -- what it is to be with
  app:connect { listener = "kept" }
  control:send(("try %s %s %s"):format(CALLED[place] or place, target, method)):expect "ready"
  local client = COME[place](app)
  -- What waits goes on: for a line, or for the time.
  if not client:closed() then client:send "line\n" end
  app:advance "1s"
  local outcome = control:send("outcome"):receive()
  control:send("forget"):expect "forgotten"
  client:close()
  return outcome
end

local function start()
  local app = memory.script(places.script())
  return app, app:connect { listener = "control" }
end

describe("whoever calls", function()
  after_each(memory.finish)

  for place in pairs(COME) do
    it("from " .. place .. " gets what the table says", function()
      local wanted, got = ROWS[place], {}
      local app, control
      for target, method in places.cells() do
        if not app then app, control = start() end
        got[method] = (got[method] or "") .. try(app, control, place, target, method)
        if IS_LAST[place] then
          control:close()
          app:close()
          app = nil
        end
      end
      assert.same(wanted, got)
    end)
  end
end)

describe("while the script is loaded", function()
  after_each(memory.finish)

  -- Called at the top level, in setup() and in a function of each: what perilune's functions do there.
  local SCRIPT = [[
    local perilune = require "perilune"
    local found = {}
    local function try(place)
      for _, name in ipairs { "sleep", "now", "log" } do
        local arguments = name == "sleep" and { 0.01 } or name == "log" and { "info", place } or {}
        local ok, value = pcall(perilune[name], unpack(arguments))
        found[#found + 1] = ("%s %s: %s"):format(place, name, ok and type(value) or value)
      end
    end
    try "top"
    local Agent = {}
    function Agent:proceed() return found end
    return { listen = "tcp://127.0.0.1:0", frame = "line", agent = Agent, setup = function() try "setup" end }]]

  it("its functions say the same at the top level and in setup()", function()
    local app = assert(memory.script(SCRIPT))
    local wanted = {}
    for _, place in ipairs { "top", "setup" } do
      for _, text in ipairs { "sleep: perilune.sleep: only a running handler can wait", "now: number", "log: nil" } do
        wanted[#wanted + 1] = place .. " " .. text
      end
    end
    assert.same(wanted, app:connect():send("x"):frames())
  end)

  it("nothing of it is there while it is only checked", function()
    for _, name in ipairs { "sleep", "now", "log" } do
      local app, message = memory.script(("require('perilune').%s(1) return {}"):format(name))
      assert.is_nil(app)
      assert.matches("perilune%." .. name .. ": only inside a running server", message)
    end
  end)
end)

-- A method, a callback, or a place from which C calls the user's code, and that is not in the table, is one that nobody
-- has tried.
describe("the table", function()
  local function read(path)
    local file = assert(io.open(path))
    local text = file:read "*a"
    file:close()
    return text
  end

  -- The names in a C table of { "name", … }.
  local function names_in(text, table_name)
    local names = {}
    local body = assert(text:match("[^%w]" .. table_name .. "%[%] = (%b{})"), table_name)
    for name in body:gmatch '{ "([%w_]+)",' do names[#names + 1] = name end
    return names
  end

  local function sorted(...)
    local all = {}
    for _, list in ipairs { ... } do
      for _, name in ipairs(list) do all[#all + 1] = name end
    end
    table.sort(all)
    return all
  end

  it("has all methods and properties of conn, and all functions of perilune", function()
    local conn, core = read "src/bind/conn.c", read "src/bind/core.c"
    local methods, properties = names_in(conn, "METHODS"), names_in(conn, "PROPERTIES")
    assert.is_true(#methods >= 11 and #properties >= 5)
    assert.same(sorted(places.METHODS), sorted(methods, properties, { "tostring" }))
    local c = sorted(names_in(core, "FUNCTIONS"), names_in(read "src/bind/begin.c", "FUNCTIONS"),
      names_in(read "src/bind/sync.c", "FUNCTIONS"), names_in(read "src/bind/connect.c", "FUNCTIONS"),
      names_in(read "src/bind/job.c", "FUNCTIONS"),
      names_in(read "src/bind/names.c", "FUNCTIONS"), names_in(read "src/bind/hub.c", "FUNCTIONS"))
    local in_c = {}
    for _, name in ipairs(c) do in_c[name:gsub("^hub_", "")] = true end
    local own = {}
    for name in read("lua/perilune.lua"):gmatch "\nM%.([%w_]+) =" do own[#own + 1] = name end
    for name in read("lua/perilune.lua"):gmatch "\nfunction M%.([%w_]+)" do own[#own + 1] = name end
    for name in read("lua/perilune/hub.lua"):gmatch "\nM%.([%w_]+) =" do own[#own + 1] = name end
    local listed = { "defer" } -- perilune.defer() is for tasks alone
    for i, name in ipairs(places.FUNCTIONS) do listed[i + 1] = name:match "[%w_]+$" end
    assert.same(sorted(listed), sorted(own))
    for _, name in ipairs(own) do
      local is_lua = name == "all" or name == "any" or name == "timeout" or name == "pool" or name == "shared"
      assert.is_true(in_c[name] or is_lua, name)
    end
  end)

  it("has all callbacks", function()
    local n = 0
    for name in read("src/agent/run.c"):gmatch '%[CALL_[%u_]+%] = { "([%w_]+)"' do
      n = n + 1
      assert.is_table(ROWS[name], "no row for " .. name)
    end
    assert.is_true(n >= 12)
  end)

  -- How often each file calls code of the user's, and in which places of the table that is.
  local CALLS = {
    ["src/agent/agent.c"] = { 4, "look_up look_up_waiting opened factory defer" },
    ["src/agent/batch.c"] = { 1, "proceed batch" },
    ["src/agent/fault.c"] = { 2, "tostring failed" },
    ["src/agent/migrate.c"] = { 2, "snapshot upgrade" },
    ["src/script/instance.c"] = { 2, "teardown" }, -- and what is loaded: above
    ["src/script/phase.c"] = { 1, "tostring" },
    ["src/script/snapshot.c"] = { 1, "keeping" },
    ["src/agent/recipient.c"] = { 1, "message" },
    ["src/agent/resident.c"] = { 1, "opened" },
    ["src/agent/record.c"] = { 1, "redact" },
    -- The other one sends a list, whose items are read as they are: nothing of the user's is called.
    ["src/agent/reply.c"] = { 2, "encode encode_batch encode_send" },
    ["src/agent/member.c"] = { 1, "message" },
    ["src/agent/cast.c"] = { 1, "encode" }, -- what it calls by itself is ours
    ["src/agent/run.c"] = { 1, "after_wait" },
    ["src/agent/websocket.c"] = { 1, "opened factory" }, -- of a connection that is open already
    -- What these call is ours.
    ["src/agent/http.c"] = { 1, "failed" },
    ["src/agent/sync.c"] = { 1, "task" },
    ["src/agent/task.c"] = { 3, "task task_defer" },
    ["src/agent/timer.c"] = { 2, "timer" },
    ["src/bind/codec.c"] = { 1, "decode decode_batch decode_read decode_raises" },
    ["src/bind/job_vm.c"] = { 1, "" }, -- in a VM of its own, where there is no connection
    ["src/workbench/app_box.c"] = { 1, "clients_encode injected" },
  }

  it("has all places from which C calls code of the user's", function()
    local found = {}
    for path in io.popen("ls src/*/*.c | grep -v '^src/vm/\\|^src/exec/'"):lines() do
      local n = 0
      for code in read(path):gmatch "[^\n]+" do
        local calls = code:find "%f[%w_]vm_pcall%(" or code:find "%f[%w_]run_enter%("
        if calls and code:find "^\t" then n = n + 1 end
      end
      if n > 0 then found[path] = n end
    end
    local wanted = {}
    for path, known in pairs(CALLS) do
      wanted[path] = known[1]
      for place in known[2]:gmatch "%S+" do assert.is_table(ROWS[place], place) end
    end
    assert.same(wanted, found, "a call that is new needs a row in spec/support/places.lua, and then a line in CALLS")
  end)

  it("has a way to each place, here or in spec/server", function()
    local others = read "spec/server/places_spec.lua"
    for _, place in ipairs(NAMES) do
      local elsewhere = others:find(('try_row("%s"'):format(place), 1, true) or others:find("ROWS." .. place, 1, true)
      assert.is_true(COME[place] ~= nil or elsewhere ~= nil, place)
    end
  end)
end)
