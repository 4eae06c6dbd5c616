--- perilune.splits and perilune.fuzz.
local assert_has = require "spec.support.has"
local failure = require "spec.support.failure"
local perilune = require "perilune.test"

local function opener(agent, frame)
  return function()
    return perilune.app({ listen = "tcp://:0", frame = frame or "line", agent = agent }):connect()
  end
end

describe("perilune.splits", function()
  it("passes a handler that does not care", function()
    perilune.splits({ "ann", "hello", "", "/quit" }, function()
      return perilune.app("spec/workbench/fixtures/chat.lua"):connect()
    end)
    perilune.splits({ "a", "bc" }, opener { proceed = function(_, bytes) return bytes end })
  end)

  it("shows where one does that takes reads for messages", function()
    local text = failure(function()
      perilune.splits({ "one" }, opener({ proceed = function(_, bytes) return "<" .. bytes .. ">" end }, "raw"))
    end)
    assert_has('All at once:\n  "<one>"', text)
    assert_has('each byte alone:\n  "<o><n><e>"', text)
  end)

  it("lets time pass for handlers that sleep", function()
    local core = require "perilune"
    perilune.splits({ "a", "b" }, opener { proceed = function(_, line)
      core.sleep(1)
      return line
    end }, "3s")
  end)
end)

describe("perilune.fuzz", function()
  local fragile = {
    proceed = function(self, line)
      if line:find("^set ") then
        self.name = line:match("^set (%a+)$")
        return "ok"
      end
      return "hello " .. self.name
    end,
  }

  it("passes a handler that takes everything", function()
    local cases = perilune.fuzz(opener { proceed = function(_, line) return line end },
      { frames = { "get 1", "set ann" }, cases = 40, seed = 1 })
    assert.equal(40, cases)
  end)

  it("shows the smallest transcript with which one fails, the same for the same seed", function()
    local function run()
      return failure(function()
        perilune.fuzz(opener(fragile), { frames = { "set ann", "get 1", "set bob" }, cases = 500, seed = 3 })
      end)
    end
    local text = run()
    assert_has("attempt to concatenate field 'name' (a nil value)", text)
    assert_has("the smallest transcript that shows it (seed 3, case ", text)
    assert_has('\n  1  ""', text)
    assert.is_nil(text:find("\n  2  ", 1, true))
    assert.equal(text, run())
  end)

  it("takes what a check has to say", function()
    local text = failure(function()
      perilune.fuzz(opener { proceed = function(_, line) return #line > 20 and "long" or line end }, {
        frames = { ("x"):rep(30), "abc" }, cases = 500, seed = 1,
        check = function(client)
          for _, frame in ipairs(client:frames()) do assert.not_equal("long", frame) end
        end,
      })
    end)
    assert_has("Expected objects to not be equal", text)
    assert_has("(21 bytes)", text:gsub('1  "(.-)"', function(s) return ("(%d bytes)"):format(#s) end))
  end)

  it("finds handlers that never rest, and refuses misuse", function()
    local core = require "perilune"
    local text = failure(function()
      perilune.fuzz(opener { proceed = function(_, line)
        while line:find("!") do core.sleep(0) end
      end }, { frames = { "a!" }, cases = 500, seed = 1 })
    end)
    assert_has("does not come to rest", text)
    assert_has('1  "!"', text)
    assert_has("a table is expected", failure(function() perilune.fuzz(opener {}, {}) end))
    for _, cases in ipairs { 0, 1.5, "10" } do
      assert_has("cases is to be a whole number", failure(function()
        perilune.fuzz(opener {}, { frames = { "a" }, cases = cases })
      end))
    end
  end)
end)
