--- A mistake is shown at the line where it is made: at the top level, in a function called from there, in a handler, in
--- a
--- function called by that.
local has = require "spec.support.has"
local memory = require "spec.support.memory"

-- Each raises, from within something of ours.
local MISTAKES = {
  "local x = nosuch",
  "local x = _G.nosuch",
  "nosuch = 1",
  "local x = nosuch.field",
  "nosuch()",
  "string.trim = 1",
  "string.nosuch()",
  "local x = math.nosuch + 1",
  "rawset(_G, 'x', 1)",
  "rawset(string, 'x', 1)",
  "setmetatable(_G, {})",
  "require 'no.such'",
  "require(1)",
  "require 'perilune.config'",
  "require('perilune').sleep 'soon'",
  "require('perilune').log('loud', 'x')",
  "require('perilune').log 'info'",
  "require('perilune').nosuch()",
  "io.output 'x'",
  "io.input 'x'",
  "io.close()",
  "load(function() return 1 end)",
  "string.rep()",
  "('x'):rep({})",
  "('x'):nosuch()",
  "('x'):find('[')",
  "('x'):gsub('x', true)",
  "table.concat({ {} })",
  "table.sort({ 1, 'a' }, 1)",
  "table.insert(1, 2)",
  "coroutine.resume(1)",
  "coroutine.wrap(1)",
  "setmetatable(1, {})",
  "tonumber('z', 99)",
  "local x = nil .. 'a'",
  "local x = {} + 1",
  "local x = #nil",
  "error 'oh'",
  "assert(false, 'oh')",
  "assert(nil)",
  "error('oh', 0)",
  "error({ code = 5 })",
  "error()",
}

local function raises(line, code)
  local app, message = memory.script(code)
  if app then app:close() end
  has(("app.lua:%d"):format(line), message)
end

describe("the line of a mistake", function()
  after_each(memory.finish)

  for _, mistake in ipairs(MISTAKES) do
    it("is told: " .. mistake, function()
      raises(2, ("local one = 1\n%s\nreturn one"):format(mistake))
      raises(3, ("local function inner()\n  local one = 1\n  %s\n"
        .. "  return one\nend\ninner()\nreturn {}"):format(mistake))
      raises(3, ("local function inner()\n  local one = 1\n  %s\n  return one\nend\nreturn inner()"):format(mistake))
      local app = memory.script_lines(([[
        function Agent:proceed(line)
          if line == "twice" then return self:inner() end
          %s
          return line
        end
        function Agent:inner()
          local one = 1
          %s
          return one
        end]]):format(mistake, mistake))
      for i, line in ipairs { "once", "twice" } do
        app:connect():send(line):expect_closed "error"
        local fault = app:faults()[i]
        has("app.lua:" .. (i == 1 and 3 or 8), fault.place, mistake)
        has(mistake:match "^%S+", fault.excerpt)
        app:advance "20s"
      end
    end)
  end
end)
