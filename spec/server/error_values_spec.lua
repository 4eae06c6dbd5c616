--- Every callback raising every value: one end, one entry of bounded size, and neighbours that notice nothing.
local server = require "spec.support.server"
local support = require "spec.support.reload"
local wait = require "spec.support.wait"

local ENTRY_MAX = 65536

local DEFINE_VALUES = [[
local perilune = require "perilune"

local VALUES = {
  text = "plain", ["nil"] = nil, ["false"] = false, nan = 0 / 0, number = 42, table = {},
  throwing = setmetatable({}, { __tostring = function() error("again") end }),
  looping = setmetatable({}, { __tostring = function() while true do end end }),
  yielding = setmetatable({}, { __tostring = function() perilune.sleep(1) return "x" end }),
  odd = setmetatable({}, { __tostring = function() return 7 end }),
  huge = ("x"):rep(1e7), control = "a\27[2Jb\nc\0d\r\127", utf8 = "caf\233 \255\254 \226\130", func = print,
}
]]

local SCRIPT = DEFINE_VALUES .. [[
local function raise(self, callback)
  if self.callback == callback then error(VALUES[self.value], self.value == "text" and 1 or 0) end
end

-- What the next connection raises before it could be told.
local coming = {}

local Agent = {}
function Agent:opened() raise(coming, "opened") end
function Agent:proceed(line)
  if line == "echo" then return line end
  if line:find "^coming" then
    coming.callback, coming.value = line:match("coming (%S+) (%S+)")
    return "echo"
  end
  self.callback, self.value = line:match("(%S+) (%S+)")
  if self.callback == "encode" then return line end
  if self.callback == "deferred" then self.conn:defer(function() raise(self, "deferred") end) end
  if self.callback == "timeout" then self.conn:set_timeout("idle", "1ms") end
  if self.callback == "failed" then error("first") end
  if self.callback == "closed" or self.callback == "deferred" then return nil, "close" end
  if self.callback == "writable" then
    repeat until not self.conn:send(("x"):rep(1e6))
    perilune.log("info", "full")
  end
  if LASTS[self.callback] then return "echo" end
  if self.callback == "resumed" then perilune.sleep(0) raise(self, "resumed") end
  raise(self, "proceed")
end
for _, name in ipairs { "eof", "timeout", "oversize", "malformed", "writable", "failed" } do
  Agent[name] = function(self) raise(self, name) end
end
function Agent:closed(reason)
  perilune.log("info", "closed " .. reason)
  raise(self, "closed")
end

function Agent:drain() raise(self, "drain") end
function Agent:snapshot()
  raise(self, "snapshot")
  return { value = self.value }
end
function Agent:upgrade(data) raise({ callback = "upgrade", value = data.value }, "upgrade") end

local function make(conn)
  raise(coming, "factory")
  return setmetatable({ conn = conn }, { __index = Agent })
end

local codec = {}
function codec.decode(bytes, at)
  local stop = bytes:find("\n", at, true)
  if not stop then return nil end
  local line = bytes:sub(at, stop - 1)
  raise({ callback = "decode", value = line:match "^decode (%S+)" }, line:match "^%S+")
  return line, stop + 1
end
function codec.encode(reply)
  raise({ callback = "encode", value = reply:match "^encode (%S+)" }, reply:match "^%S+")
  return reply .. "\n"
end

return {
  listen = "tcp://127.0.0.1:0", frame = FRAME, agent = AGENT, reload = "migrate",
  limits = { frame = 64, proceed = "2s" },
}
]]

-- With what the script leaves open.
local function script(frame, agent)
  local text = SCRIPT:gsub("FRAME", frame or '{ "line", empty = "error" }'):gsub("AGENT", agent or "Agent")
  return "local LASTS = { drain = true, snapshot = true, upgrade = true }\n" .. text
end

local VALUES = {
  "text", "nil", "false", "nan", "number", "table", "throwing", "looping", "yielding", "odd", "huge", "control", "utf8",
  "func",
}
local REASONS = {
  proceed = "error", resumed = "error", eof = "error", timeout = "error", failed = "error", oversize = "error",
  malformed = "error", writable = "error", closed = "agent", deferred = "agent",
}

-- The `i`th time.
local function provoke(app, callback, value, i)
  local one = app:connect({ receive_buffer = callback == "writable" and 8192 or nil })
  one:send(("%s %s\n"):format(callback, value))
  if callback == "eof" then one:shutdown("send") end
  if callback == "oversize" then one:send(("x"):rep(100)) end
  if callback == "malformed" then one:send "\n" end
  -- Who reads meanwhile may take all of it before the server has found it to be too much.
  if callback == "writable" then app:wait_log("full", nil, i) end
  return one
end

local function sorted(t)
  local names = {}
  for name in pairs(t) do names[#names + 1] = name end
  table.sort(names)
  return names
end

-- Entries of bounded size, from which nothing can be forged.
local function assert_clean(app)
  for line in app:text():gmatch("[^\n]+") do
    assert.is_true(#line <= ENTRY_MAX, "an entry has " .. #line .. " bytes")
    assert.is_nil(line:find("%c"), "a control character came through")
  end
  for _, entry in ipairs(app:log()) do
    for key, text in pairs(entry) do
      assert.is_nil(tostring(text):find("[%z\1-\9\11-\31\127]"), key .. " has a control character")
      assert.is_true(key == "excerpt" or key == "traceback" or not tostring(text):find "\n",
        key .. " has several lines")
    end
  end
end

local function notes_of(app, conn)
  local notes = {}
  for _, note in ipairs(app:notes(conn)) do
    if note:find("^closed ") then notes[#notes + 1] = note end
  end
  return notes
end

describe("an error value", function()
  after_each(server.finish)

  for _, callback in ipairs(sorted(REASONS)) do
    local reason = REASONS[callback]
    it("of any kind ends its connection and no other: " .. callback, function()
      local app = server.start { script = script() }
      local neighbour = app:connect():echo_line("echo")
      for i, value in ipairs(VALUES) do
        local one = provoke(app, callback, value, i)
        one:recv_all()
        neighbour:echo_line("echo")
        local conn = i + 1
        wait.until_true("closed() after " .. value, function() return notes_of(app, conn)[1] end)
        assert.same({ "closed " .. reason }, notes_of(app, conn), value)
      end
      local summary = app:stop().summary
      assert.equal(#VALUES * (callback == "failed" and 2 or 1), summary.faults)
      assert_clean(app)
    end)
  end

  -- What there is no agent for yet, or what is not the agent's.
  local OTHERS = {
    factory = { agent = "make" }, opened = {}, decode = { frame = "codec" }, encode = { frame = "codec" },
  }
  for _, callback in ipairs(sorted(OTHERS)) do
    it("of any kind ends its connection and no other: " .. callback, function()
      local app = server.start { script = script(OTHERS[callback].frame, OTHERS[callback].agent) }
      local neighbour = app:connect():echo_line("echo")
      for _, value in ipairs(VALUES) do
        local line = callback .. " " .. value
        if not OTHERS[callback].frame then neighbour:echo_line("coming " .. line, "echo") end
        local one = app:connect()
        if OTHERS[callback].frame then one:send(line .. "\n") end
        assert.equal("", (one:recv_all()), value)
        neighbour:echo_line("coming no one", "echo"):echo_line("echo")
      end
      local summary = app:stop().summary
      assert.equal(#VALUES, summary.faults)
      assert.equal(("error=%d drain=1"):format(#VALUES), summary.reasons)
      assert_clean(app)
    end)
  end

  -- What everybody is asked, and survives.
  local function connect_all(app, callback)
    local all = {}
    for i, value in ipairs(VALUES) do
      all[i] = app:connect():echo_line(("%s %s"):format(callback, value), "echo")
    end
    return all
  end

  for _, callback in ipairs { "snapshot", "upgrade" } do
    it("of any kind leaves its connection with the old agent: " .. callback, function()
      local app = server.start { script = script() }
      local all = connect_all(app, callback)
      support.reload_to(app, script() .. "-- another")
      for _, one in ipairs(all) do one:echo_line("echo") end
      local summary = app:stop().summary
      assert.same({ #VALUES, #VALUES, 0, "drain=" .. #VALUES },
        { summary.faults, summary.not_migrated, summary.migrated, summary.reasons })
      assert_clean(app)
    end)
  end

  it("of any kind ends its connection at a stop: drain", function()
    local app = server.start { script = script() }
    connect_all(app, "drain")
    local result = app:stop()
    assert.same({ 0, #VALUES, "error=" .. #VALUES },
      { result.code, result.summary.faults, result.summary.reasons })
    assert_clean(app)
  end)

  -- Raises it in one of a script's own places.
  local function raising(place, value)
    local level = value == "text" and 1 or 0
    return DEFINE_VALUES .. ([[
      local function raise() error(VALUES[%q], %d) end
      local Agent = {}
      function Agent:proceed(line) return line end
      %s
      return { listen = "tcp://127.0.0.1:0", frame = "line", agent = Agent, %s }]]):format(value, level,
      place == "top level" and "raise()" or "", place == "top level" and "" or place .. " = raise")
  end

  for _, place in ipairs { "setup", "top level" } do
    it("of any kind makes a reload fail, with an excerpt: " .. place, function()
      local app = server.start { script = script() }
      local neighbour = app:connect():echo_line("echo")
      for _, value in ipairs(VALUES) do
        -- A script has 10 s to say what it has raised.
        if place == "setup" or value ~= "looping" then
          support.rewrite(app, raising(place, value))
          local entry = support.reload(app)
          assert.equal("reload failed: the old generation serves on", entry.message, value)
          assert.truthy(entry.excerpt:find "^error: .+\n  %-%-> [^\n]*app%.lua", value .. ": " .. entry.excerpt)
          neighbour:echo_line("echo")
        end
      end
      assert.equal(0, app:stop().summary.faults)
      assert_clean(app)
    end)
  end

  it("of any kind is logged with an excerpt, and stops nothing: teardown", function()
    local app = server.start { script = raising("teardown", VALUES[1]) }
    for i = 2, #VALUES do support.reload_to(app, raising("teardown", VALUES[i])) end
    local neighbour = app:connect():echo_line("echo")
    app:wait_log("teardown failed", 10, #VALUES - 1)
    neighbour:echo_line("echo")
    app:stop()
    local failed = app:find_log "teardown failed"
    assert.equal(#VALUES, #failed)
    for i, entry in ipairs(failed) do
      assert.equal(i, entry.generation)
      assert.truthy(entry.excerpt:find "^error: .+\n  %-%-> ", VALUES[i] .. ": " .. entry.excerpt)
    end
    assert_clean(app)
  end)
end)
