--- Every callback raising every value: one end, one entry of bounded size, and neighbours that notice nothing.
local server = require "spec.support.server"
local wait = require "spec.support.wait"

local ENTRY_MAX = 65536

local SCRIPT = [[
local perilune = require "perilune"

local VALUES = {
  text = "plain", ["nil"] = nil, ["false"] = false, nan = 0 / 0, number = 42, table = {},
  throwing = setmetatable({}, { __tostring = function() error("again") end }),
  looping = setmetatable({}, { __tostring = function() while true do end end }),
  yielding = setmetatable({}, { __tostring = function() perilune.sleep(1) return "x" end }),
  odd = setmetatable({}, { __tostring = function() return 7 end }),
  huge = ("x"):rep(1e7), control = "a\27[2Jb\nc\0d\r\127", utf8 = "caf\233 \255\254 \226\130", func = print,
}

local function raise(self, callback)
  if self.callback == callback then error(VALUES[self.value], self.value == "text" and 1 or 0) end
end

local Agent = {}
function Agent:opened() if self.callback == "opened" then raise(self, "opened") end end
function Agent:proceed(line)
  if line == "echo" then return line end
  self.callback, self.value = line:match("(%S+) (%S+)")
  if self.callback == "deferred" then self.conn:defer(function() raise(self, "deferred") end) end
  if self.callback == "timeout" then self.conn:set_timeout("idle", "1ms") end
  if self.callback == "failed" then error("first") end
  if self.callback == "closed" or self.callback == "deferred" then return nil, "close" end
  if self.callback == "writable" then self.conn:send(("x"):rep(16e6)) end
  if self.callback == "resumed" then perilune.sleep(0) raise(self, "resumed") end
  raise(self, "proceed")
end
for _, name in ipairs { "eof", "timeout", "oversize", "writable", "failed" } do
  Agent[name] = function(self) raise(self, name) end
end
function Agent:closed(reason)
  perilune.log("info", "closed " .. reason)
  raise(self, "closed")
end

return { listen = "tcp://127.0.0.1:0", frame = "line", agent = Agent, limits = { frame = 64, proceed = "2s" } }
]]

local VALUES = {
  "text", "nil", "false", "nan", "number", "table", "throwing", "looping", "yielding", "odd", "huge", "control", "utf8",
  "func",
}
local REASONS = {
  proceed = "error", resumed = "error", eof = "error", timeout = "error", failed = "error", oversize = "error",
  writable = "error", closed = "agent", deferred = "agent",
}

local function provoke(app, callback, value)
  local one = app:connect({ receive_buffer = callback == "writable" and 8192 or nil })
  one:send(("%s %s\n"):format(callback, value))
  if callback == "eof" then one:shutdown("send") end
  if callback == "oversize" then one:send(("x"):rep(100)) end
  return one
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

  for callback, reason in pairs(REASONS) do
    it("of any kind ends its connection and no other: " .. callback, function()
      local app = server.start { script = SCRIPT }
      local neighbour = app:connect():echo_line("echo")
      for i, value in ipairs(VALUES) do
        local one = provoke(app, callback, value)
        one:recv_all()
        neighbour:echo_line("echo")
        local conn = i + 1
        wait.until_true("closed() after " .. value, function() return notes_of(app, conn)[1] end)
        assert.same({ "closed " .. reason }, notes_of(app, conn), value)
      end
      local summary = app:stop().summary
      assert.equal(#VALUES * (callback == "failed" and 2 or 1), summary.faults)
      for line in app:text():gmatch("[^\n]+") do
        assert.is_true(#line <= ENTRY_MAX, "an entry has " .. #line .. " bytes")
        assert.is_nil(line:find("%c"), "a control character came through")
      end
    end)
  end
end)
