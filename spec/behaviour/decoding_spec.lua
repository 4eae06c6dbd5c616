--- A codec in Lua is code of the user's: what it does to its connection, and what it does wrong.
local memory = require "spec.support.memory"
local perilune = require "perilune.test"

-- A codec of lines. What follows "!" in one is done by decode().
local CODEC = [[
local perilune = require "perilune"
local Agent, current = {}, nil
local DO = {
  line = function(conn) conn:set_frame "line" end,
  offset = function(conn) conn:set_frame { "u32be", offset = 4 } end,
  u8 = function(conn) conn:set_frame "u8" end,
  close = function(conn) conn:close() end,
  abort = function(conn) conn:abort() end,
  pause = function(conn) conn:pause() end,
  fail = function() error("no such thing") end,
  close_and_fail = function(conn) conn:close() error("no such thing") end,
  refuse = function() return false, "not that" end,
}
local done = {}
local function decode(bytes, position)
  local stop = bytes:find("\n", position, true)
  if not stop then return nil end
  local line = bytes:sub(position, stop - 1)
  local what = line:match "!(.*)"
  if what and not done[line] then
    done[line] = line:find "once" ~= nil
    local refused, why = DO[what:gsub(" once", "")](current)
    if refused == false then return false, why end
  end
  return line, stop + 1
end
local function encode(text) return text .. "\n" end
function Agent:opened() current = self.conn end
function Agent:proceed(frame)
  perilune.log("info", ("%q"):format(frame))
  if frame == "wait" then perilune.sleep("1s") end
  if frame == "read" then perilune.log("info", ("read %q"):format(self.conn:read())) end
end
return { listen = "tcp://127.0.0.1:0", frame = { decode = decode, encode = encode }, agent = Agent, %s }
]]

local function start(settings) return assert(memory.script((CODEC:gsub("%%s", settings or "")))) end

local function connect(app) return app:connect { frame = "raw" } end

-- What proceed() got.
local function frames(app, conn) return memory.notes(app, conn or 1) end

describe("a framing that decode() sets", function()
  after_each(memory.finish)

  it("is for the bytes behind the frame at hand, which arrives as it was decoded", function()
    for what, rest in pairs { line = "next\n", u8 = "\4next", offset = "next\0\0\0\0" } do
      local app = start()
      local wanted = { ('"!%s"'):format(what), '"next"' }
      connect(app):send("!" .. what .. "\n" .. rest):close()
      assert.same(wanted, frames(app))
      connect(app):send("!" .. what .. "\n"):send(rest):close()
      assert.same(wanted, frames(app, 2))
    end
  end)

  it("leaves frames of the same piece as they are, and is never met by decode() again", function()
    local app = start()
    connect(app):send "a\nb\nc\nd\n":send "1\n2\n!line\n!u8\n!close\n"
    assert.same({ '"a"', '"b"', '"c"', '"d"', '"1"', '"2"', '"!line"', '"!u8"', '"!close"' }, frames(app))
  end)

  it("applies however the bytes are split", function()
    assert.is_true(pcall(perilune.splits, { "a\n!u8\n\3abc\2de" }, function() return connect(start()) end))
  end)

  it("applies to what conn:read() waits for next, not to what it has asked for", function()
    local app = start()
    connect(app):send "read\n":send "!u8\n\4next"
    assert.same({ '"read"', 'read "!u8"', '"next"' }, frames(app))
  end)

  it("applies to frames that wait for an agent", function()
    local app = start()
    connect(app):send "wait\n":send "!u8\n\4next"
    app:advance "1s"
    assert.same({ '"wait"', '"!u8"', '"next"' }, frames(app))
    connect(app):send "wait\n!u8\n\4next" -- a batch, of which the rest is decoded again
    app:advance "1s"
    assert.same({ '"wait"', '"!u8"', '"next"' }, frames(app, 2))
  end)

  it("may be set by another handler while its bytes are decoded", function()
    local app = start()
    local one = connect(app)
    connect(app):send "!u8\n" -- `current` is this one's
    one:send "!u8\nrest\n"
    assert.same({ '"!u8"', '"rest"' }, frames(app, 1))
  end)
end)

describe("an end that decode() asks for", function()
  after_each(memory.finish)

  for how, reason in pairs { close = "agent", abort = "agent" } do
    it("by " .. how .. "() comes before the frame at hand, and after those before it", function()
      local app = start()
      connect(app):send("a\nb\n!" .. how .. "\nc\n"):expect_closed(reason)
      assert.same({ '"a"', '"b"' }, frames(app))
      assert.equal(#how + 4, app:counters().discarded_bytes)
      connect(app):send("!" .. how .. "\nc\n"):expect_closed(reason)
      assert.same({}, frames(app, 2))
    end)
  end

  it("by a frame that it refuses comes after those before", function()
    local app = start()
    connect(app):send "a\nb\n!refuse\nc\n":expect_closed "frame_error"
    assert.same({ '"a"', '"b"' }, frames(app))
    assert.equal("not that", app:log("bad frame")[1].error)
    assert.equal(0, app:counters().faults)
  end)
end)

describe("a pause that decode() asks for", function()
  after_each(memory.finish)

  it("holds back the frame at hand until resume(): it is asked again then", function()
    local app = assert(memory.script((CODEC:gsub("%%s", ""):gsub("function Agent:opened%(%)",
      "local before\nfunction Agent:opened() if before then before:resume() end before = self.conn "))))
    connect(app):send "a\nb\n!pause once\nc\n"
    assert.same({ '"a"', '"b"' }, frames(app))
    connect(app)
    assert.same({ '"a"', '"b"', '"!pause once"', '"c"' }, frames(app))
  end)
end)

-- ---- what a codec does wrong ----

-- decode() and encode() do what they are told by the line, and `Agent` notes what failed() is told.
local FAULTY = [[
local perilune = require "perilune"
local Agent, current = {}, nil
local function note(text) perilune.log("info", text) end
local WRONG = {
  raise = function() error("no such thing") end,
  object = function() error({ code = 5 }) end,
  loop = function() while true do end end,
  fill = function() local t = {} while true do t[#t + 1] = ("x"):rep(1e6) .. #t end end,
  close = function() current:close() error("no such thing") end,
}
local function decode(bytes, position)
  local stop = bytes:find("\n", position, true)
  if not stop then return nil end
  local line = bytes:sub(position, stop - 1)
  local what = line:match "^decode (%w+)"
  if what == "number" then return line, "x" end
  if WRONG[what] then WRONG[what]() end
  return line, stop + 1
end
local function encode(text)
  local what = text:match "^encode (%w+)"
  if what == "number" then return 42 end
  if WRONG[what] then WRONG[what]() end
  return text .. "\n"
end
function Agent:opened() current = self.conn end
function Agent:proceed(line)
  if line == "read" then
    local frame, message, code = self.conn:read()
    note(("%s %s %s"):format(frame, message, code))
    return "last"
  end
  local sent = line:match "^send (.*)"
  if sent then self.conn:send(sent) return nil end
  local caught = line:match "^caught (.*)"
  if caught then
    local _, err = pcall(self.conn.send, self.conn, caught)
    note(type(err) == "table" and "code " .. err.code or err)
    error("another")
  end
  return line
end
function Agent:failed(err, callback)
  note(("failed %s %s"):format(callback, type(err) == "table" and "code " .. err.code or err))
  return "sorry"
end
return {
  listen = "tcp://127.0.0.1:0", frame = { decode = decode, encode = encode }, agent = Agent,
  limits = { proceed = "20ms", memory = "16m" },
}
]]

local function start_faulty(proceed)
  return assert(memory.script((FAULTY:gsub('proceed = "20ms"', ("proceed = %q"):format(proceed or "20ms")))))
end

local function line_of(text)
  local number = 0
  for line in FAULTY:gmatch "([^\n]*)\n" do
    number = number + 1
    if line:find(text, 1, true) then return number end
  end
end

-- What the client gets, what is logged and counted.
local function check_fault(app, wanted)
  local faults = app:faults()
  assert.equal(1, #faults)
  assert.equal(wanted.callback, faults[1].callback)
  assert.matches(wanted.error, faults[1].error)
  assert.equal(wanted.place, faults[1].place)
  assert.equal(1, app:counters().faults)
  assert.equal(0, memory.count(app, "bad frame"))
  return faults[1]
end

describe("decode() that fails is a fault of the script:", function()
  after_each(memory.finish)

  it("it is logged with its line, failed() is asked, and the connection ends with error", function()
    local app = start_faulty()
    local client = connect(app):send "a\ndecode raise\nb\n"
    client:expect "a\nsorry\n":expect_closed "error"
    local number = line_of "raise = function"
    local fault = check_fault(app, { callback = "decode", error = "^no such thing$", place = "app.lua:" .. number })
    assert.truthy(fault.excerpt:find(number .. " |   raise = function() error(", 1, true))
    assert.truthy(fault.excerpt:find("in decode    conn 1", 1, true))
    assert.matches("^failed decode app%.lua:%d+: no such thing$", memory.notes(app, 1)[1])
  end)

  it("any value may be raised, and failed() gets that", function()
    local app = start_faulty()
    connect(app):send "decode object\n":expect "sorry\n":expect_closed "error"
    check_fault(app, { callback = "decode", error = "^{ code = 5 }$",
      place = "decode, defined at app.lua:" .. line_of "function decode" })
    assert.same({ "failed decode code 5" }, memory.notes(app, 1))
  end)

  it("so are results that it must not have", function()
    local app = start_faulty()
    connect(app):send "decode number\n":expect "sorry\n":expect_closed "error"
    check_fault(app, { callback = "decode", error = "must return a frame and the position after it",
      place = "decode, defined at app.lua:" .. line_of "function decode" })
  end)

  for what, reason in pairs { loop = "proceed_timeout", fill = "memory" } do
    it("one that would not end is ended: " .. what, function()
      local app = start_faulty(what == "fill" and "60s" or nil)
      local other = connect(app):send "x\n":expect "x\n"
      connect(app):send("decode " .. what .. "\n"):expect_closed(reason)
      local fault = app:faults()[1]
      assert.same({ "decode", 1 }, { fault.callback, app:counters().faults })
      assert.equal("app.lua:" .. line_of(what .. " = function"), fault.place)
      other:send "y\n":expect "y\n"
    end)
  end

  it("conn:read is told, and failed() is not asked in the midst of another call", function()
    local app = start_faulty()
    connect(app):send "read\n":send "decode raise\n":expect "last\n":expect_closed "error"
    check_fault(app, { callback = "decode", error = "no such thing", place = "app.lua:" .. line_of "raise = function" })
    assert.same({ "nil app.lua:" .. line_of "raise = function" .. ": no such thing EPROTO" }, memory.notes(app, 1))
  end)

  it("one that has ended its connection before is logged all the same, once", function()
    for _, text in ipairs { "decode close\n", "a\nb\ndecode close\n" } do
      local app = start_faulty()
      connect(app):send(text):expect_closed "agent"
      check_fault(app, { callback = "decode", error = "no such thing",
        place = "app.lua:" .. line_of "close = function" })
    end
  end)

  it("its repeats are counted and not logged", function()
    local app = start_faulty()
    for _ = 1, 20 do connect(app):send "decode raise\n":expect_closed "error" end
    app:advance "11s"
    assert.same({ 1, 20 }, { #app:faults(), app:counters().faults })
    assert.equal(1, memory.count(app, "handler failed again"))
  end)

  it("perilune.fuzz finds it", function()
    local ok, message = pcall(perilune.fuzz, function() return connect(start_faulty()) end,
      { frames = { "decode raise\n" }, cases = 1000 })
    assert.is_false(ok)
    assert.matches("a handler failed: no such thing", tostring(message))
  end)
end)

describe("encode() that fails is a fault of the script:", function()
  after_each(memory.finish)

  for what, wanted in pairs {
    raise = { error = "^no such thing$", place = "raise = function" },
    object = { error = "^{ code = 5 }$", place = "function encode" },
    number = { error = "encode returned a number, not a string", place = "function encode" },
  } do
    it("of a reply that is returned, alone or among others: " .. what, function()
      for _, text in ipairs { "encode " .. what .. "\n", "a\nb\nencode " .. what .. "\nc\n" } do
        local app = start_faulty()
        local place = "app.lua:" .. line_of(wanted.place)
        connect(app):send(text):expect((text:match "^a\nb\n" or "") .. "sorry\n"):expect_closed "error"
        check_fault(app, { callback = "encode", error = wanted.error,
          place = what == "raise" and place or "encode, defined at " .. place })
        assert.matches("^failed encode ", memory.notes(app, 1)[1])
      end
    end)
  end

  it("in conn:send it raises what it raised, from where it did", function()
    local app = start_faulty()
    connect(app):send "send encode raise\n":expect "sorry\n":expect_closed "error"
    local fault = check_fault(app,
      { callback = "proceed", error = "^no such thing$", place = "app.lua:" .. line_of "raise = function" })
    assert.equal("app.lua:" .. line_of "if sent then" .. ": in proceed", fault.traceback)
  end)

  it("in conn:send it can be caught, and is not blamed for what is wrong later", function()
    local app = start_faulty()
    connect(app):send "caught encode object\n":expect "sorry\n":expect_closed "error"
    assert.same({ "code 5", "failed proceed app.lua:" .. line_of [[error("another")]] .. ": another" },
      memory.notes(app, 1))
    check_fault(app, { callback = "proceed", error = "^another$", place = "app.lua:" .. line_of [[error("another")]] })
  end)

  it("one that does not end ends with proceed_timeout, blamed on it", function()
    local app = start_faulty()
    connect(app):send "encode loop\n":expect_closed "proceed_timeout"
    assert.same({ "encode", 1 }, { app:faults()[1].callback, app:counters().faults })
  end)
end)
