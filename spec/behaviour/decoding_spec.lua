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
