--- perilune.replay: what was recorded, against an app in memory.
local assert_has = require "spec.support.has"
local failure = require "spec.support.failure"
local perilune = require "perilune.test"

local CHAT, TRACE = "spec/workbench/fixtures/chat.lua", "spec/workbench/fixtures/chat.jsonl"
local HEAD = '{"perilune_trace":1,"listeners":[{"name":"tcp://127.0.0.1:9000"}]}'

local path

-- A trace of these lines; what stands before "event" is filled in: line(0.5, 'event":"eof"').
local function write(lines)
  path = os.tmpname()
  local file = assert(io.open(path, "w"))
  file:write(table.concat(lines, "\n"), "\n")
  file:close()
  return path
end

local function line(t, rest) return ('{"t":%f,"conn":1,"event":%s}'):format(t, rest) end
local OPEN = line(0, '"open","worker":0,"listener":"tcp://127.0.0.1:9000","peer":"10.0.0.7:5060"')
local function end_line(reason) return ('{"t":9,"event":"end","reason":"%s","lost":0}'):format(reason or "client") end
local function got(t, frame) return line(t, ('"in","frame":"%s"'):format(frame)) end
local function sent(t, frame) return line(t, ('"out","frame":"%s"'):format(frame)) end

-- A trace of one connection.
local function conversation(...) return write { HEAD, OPEN, unpack { ... } } end

local function app_of(proceed, more)
  local app = { listen = "tcp://127.0.0.1:9000", frame = "line", agent = { proceed = proceed } }
  for key, value in pairs(more or {}) do app[key] = value end
  return app
end

local function echo(_, frame) return frame end

describe("perilune.replay", function()
  after_each(function()
    if path then os.remove(path) end
    path = nil
  end)

  it("passes where everything comes back as it was recorded", function()
    local result = perilune.replay(TRACE, CHAT)
    assert.same({ 4, {} }, { result.connections, result.notes })
    assert.is_true(result.frames > 10)
  end)

  it("fails with what differs, on the connection where it does", function()
    local file = assert(io.open(CHAT))
    local text = file:read "*a":gsub("joined", "came")
    file:close()
    local other = os.tmpname()
    file = assert(io.open(other, "w"))
    file:write(text)
    file:close()
    local message = failure(function() perilune.replay(TRACE, other) end)
    os.remove(other)
    assert_has("replay_spec.lua:", message)
    assert_has('-  "* ann joined"', message)
    assert_has('+  "* ann came"', message)
    assert_has("conn 1 of tcp://127.0.0.1:9000 (127.0.0.1:", message)
    assert_has("→  \"ann\"", message)
  end)

  it("lets the time go by that went by", function()
    local file = conversation(got(1, "a"), sent(1.0004, "a"), line(3601.2, '"close","reason":"idle_timeout"'),
      end_line())
    perilune.replay(file, app_of(echo, { timeout = { idle = "1h" } }))
    local message = failure(function() perilune.replay(file, app_of(echo, { timeout = { idle = "2h" } })) end)
    assert_has("it goes on, where it ended: idle_timeout", message)
    message = failure(function()
      perilune.replay(file, app_of(echo, { timeout = { idle = "1h" } }), { timing = "none" })
    end)
    assert_has("it goes on", message)
  end)

  it("gives connections their ids and addresses, and frames their framing", function()
    local function proceed(self, frame)
      if frame == "who" then return self.conn.id .. " " .. self.conn.peer end
      if frame == "body" then return self.conn:read { "fixed", 3 } end
      self.conn:set_frame "u8"
      return frame
    end
    local file = write { HEAD, (OPEN:gsub('"conn":1', '"conn":77')),
      (got(1, "who"):gsub('"conn":1', '"conn":77')), (sent(1, "77 10.0.0.7:5060"):gsub('"conn":1', '"conn":77')),
      (got(1, "body"):gsub('"conn":1', '"conn":77')), (got(1, "abc"):gsub('"conn":1', '"conn":77')),
      (sent(1, "abc"):gsub('"conn":1', '"conn":77')), (got(1, "u8"):gsub('"conn":1', '"conn":77')),
      (sent(1, "u8"):gsub('"conn":1', '"conn":77')), (got(1, "a\\nb"):gsub('"conn":1', '"conn":77')),
      (sent(1, "a\\nb"):gsub('"conn":1', '"conn":77')), end_line() }
    assert.equal(4, perilune.replay(file, app_of(proceed)).frames)
  end)

  it("replays half-closes, views and raw bytes", function()
    local file = conversation(got(1, "a"), line(1.1, '"eof"'), sent(1.1, "after"),
      line(1.2, '"close","reason":"agent"'), end_line())
    local agent = { proceed = function() end, eof = function() return "after", "close" end }
    perilune.replay(file, { listen = "tcp://127.0.0.1:9000", frame = "line", agent = agent })
    assert_has('-  "after"', failure(function() perilune.replay(file, app_of(function() end)) end))
    file = conversation(line(1, '"in","base64":"AP8="'), line(1, '"out","base64":"AP8="'), end_line())
    perilune.replay(file, app_of(echo, { frame = "raw" }))
    perilune.replay(file, app_of(echo, { frame = { "u32be", view = true } }))
  end)

  it("leaves out what may differ", function()
    local file = conversation(got(1, "a"), sent(1, "at 10:30"), sent(1, "a"), end_line())
    local app = app_of(function(_, frame) return { "at 10:31", frame } end)
    failure(function() perilune.replay(file, app) end)
    perilune.replay(file, app, { ignore = "^at " })
    perilune.replay(file, app, { ignore = { "%d%d:%d%d" } })
    perilune.replay(file, app, { normalize = function(frame) return (frame:gsub("%d", "#")) end })
    perilune.replay(file, app,
      { normalize = function(frame, conn) return conn.id == 1 and #frame == 1 and frame or nil end })
    assert_has("unknown option ignored", failure(function() perilune.replay(file, app, { ignored = "" }) end))
    assert_has("malformed", failure(function() perilune.replay(file, app, { ignore = "[" }) end))
    assert_has("timing is", failure(function() perilune.replay(file, app, { timing = "real" }) end))
  end)

  it("finds the frame that lacks or is too many, and not those behind it", function()
    local lines = {}
    for i = 1, 50 do
      lines[#lines + 1] = got(i, "a" .. i)
      lines[#lines + 1] = sent(i, "a" .. i)
    end
    lines[#lines + 1] = end_line()
    local file = conversation(unpack(lines))
    local function dropping(_, frame) if frame ~= "a20" then return frame end end
    local message = failure(function() perilune.replay(file, app_of(dropping, { timeout = { idle = 0 } })) end)
    assert_has("1 difference\n", message)
    assert_has('-  "a20"', message)
    assert.is_nil(message:find("a50", 1, true))
    local function doubling(_, frame) return frame == "a20" and { frame, frame } or frame end
    assert_has('+  "a20"', failure(function() perilune.replay(file, app_of(doubling)) end))
  end)

  it("compares a connection as far as the trace can be followed", function()
    local file = conversation(got(1, "a"), sent(1, "a"), line(2, '"bad_frame"'), sent(2, "too large"),
      line(2, '"close","reason":"oversize"'), end_line())
    perilune.replay(file, app_of(echo))
    file = conversation(got(1, "a"), sent(1, "a"), line(2, '"drain"'), sent(2, "bye"),
      line(2, '"close","reason":"drain"'), end_line())
    perilune.replay(file, app_of(echo))
    file = conversation(got(1, "a"), line(1, '"lost"'), end_line())
    local said = failure(function() perilune.replay(file, app_of(echo)) end)
    assert_has("it has no connection that could be compared; 1 connection left out", said)
  end)

  it("sends something as long in place of what was redacted, and takes any reply", function()
    local file = conversation(line(1, '"in","redacted":3'), line(1, '"out","redacted":99'), end_line())
    local result = perilune.replay(file, app_of(function(_, frame) return frame == "***" and "yes" or error "no" end))
    assert_has("1 frame redacted", result.notes[1])
    file = conversation(got(1, "a1"), sent(1, "a#"), end_line())
    perilune.replay(file, app_of(echo, { record = { redact = function(frame) return (frame:gsub("%d", "#")) end } }))
  end)

  it("says what is wrong with a connection that cannot begin", function()
    local file = conversation(got(1, "a"), sent(1, "a"), end_line())
    local two = { frame = "line", agent = { proceed = echo },
      listen = { { "tcp://127.0.0.1:1", name = "one" }, { "tcp://127.0.0.1:2", name = "two" } } }
    assert_has("the script has no listener tcp://127.0.0.1:9000; it has one, two",
      failure(function() perilune.replay(file, two) end))
  end)

  it("reads traces that are cut short, and says so", function()
    local file = conversation(got(1, "a"), sent(1, "a"), '{"t":1.5,"conn":1,"eve')
    local handle = assert(io.open(file, "r"))
    local text = handle:read "*a":gsub("\n$", "")
    handle:close()
    handle = assert(io.open(file, "w"))
    handle:write(text)
    handle:close()
    assert_has("line 5, the last one, is not whole", perilune.replay(file, app_of(echo)).notes[1])
    os.remove(file)
    assert_has("its last line is missing",
      perilune.replay(conversation(got(1, "a"), sent(1, "a")), app_of(echo)).notes[1])
  end)

  it("does not take nothing for no difference", function()
    assert_has("it has no connection that could be compared", failure(function()
      perilune.replay(write { HEAD, end_line() }, app_of(echo))
    end))
  end)

  for _, case in ipairs {
    { "not JSON", { HEAD, OPEN, "{'t':1}", end_line() }, ":3: not a line of JSON" },
    { "another file", { '{"a":1}' }, ":1: it does not begin with the line of a trace" },
    { "a later format", { '{"perilune_trace":2}' }, ":1: it has format 2, and this version reads format 1" },
    { "an unknown event", { HEAD, OPEN, line(1, '"dance"'), OPEN }, ':3: unknown event "dance"' },
    { "no time", { HEAD, '{"conn":1,"event":"eof"}', OPEN }, ':2: "t" is to be seconds' },
    { "no connection", { HEAD, got(1, "a"), OPEN }, ":2: connection 1 has not begun" },
    { "two beginnings", { HEAD, OPEN, OPEN, OPEN }, ":3: connection 1 begins a second time" },
    { "no frame", { HEAD, OPEN, line(1, '"in"'), OPEN }, ':3: a frame is missing: "frame", "base64" or "redacted"' },
    { "a wrong Base64", { HEAD, OPEN, line(1, '"in","base64":"A?=="'), OPEN }, ':3: "base64" is not Base64' },
    { "more than the end", { HEAD, OPEN, end_line(), OPEN }, ":4: there is more after the last line" },
    { "nothing", {}, "not a line of JSON" },
  } do
    it("refuses a trace with " .. case[1] .. " by the line", function()
      local file = write(case[2])
      assert_has(case[3], failure(function() perilune.replay(file, app_of(echo)) end))
    end)
  end

  it("refuses a trace that is not there", function()
    assert_has("cannot read the trace no/such", failure(function() perilune.replay("no/such", app_of(echo)) end))
  end)
end)
