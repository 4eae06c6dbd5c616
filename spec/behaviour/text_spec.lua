--- Texts of a handler's, a codec's and a peer's, as the log has them: by the one table of cases.
local cases = require "spec.support.text_cases"
local memory = require "spec.support.memory"

local perilune = require "perilune"

-- Each kind of entry is folded with its like of ten seconds.
local function each(app, act)
  for _, case in ipairs(cases) do
    act(case)
    app:advance "20s"
  end
end

describe("a text", function()
  after_each(memory.finish)

  it("that is logged is whole, whatever is in it", function()
    local app = memory.start({ proceed = function(_, frame) perilune.log("info", frame .. "!") end })
    each(app, function(case)
      app:connect():send(case.bytes .. "."):close()
      assert.equal(1, #app:log(case.bytes .. ".!"), case.name)
    end)
  end)

  it("that is raised is shown as the table has it", function()
    local app = memory.start({ proceed = function(_, frame) error(frame, 0) end })
    each(app, function(case)
      app:connect():send("a" .. case.bytes .. "."):expect_closed "error"
      local faults = app:faults()
      assert.equal("a" .. case.line .. ".", faults[#faults].error, case.name)
      assert.is_truthy(faults[#faults].excerpt:find("error: a" .. case.line .. ".", 1, true), case.name)
    end)
  end)

  it("by which a codec refuses is shown so, too, to the log and to whoever reads", function()
    local codec = {
      decode = function(bytes) return false, "no " .. bytes .. "." end,
      encode = function(reply) return reply end,
    }
    local app = memory.start({ proceed = function() end }, { frame = codec })
    each(app, function(case)
      memory.raw(app):send(case.bytes .. "."):expect_closed "frame_error"
      local log = app:log "bad frame"
      assert.equal("no " .. case.line .. "..", log[#log].error, case.name)
    end)
  end)

  it("that is very long is cut between characters", function()
    local app = memory.start { proceed = function(_, frame) error(frame:rep(100000), 0) end }
    for _, piece in ipairs { "x", "\226\130\172", "\255", "\0", "\240\159\140\153", "\226\128\174" } do
      app:connect():send(piece):expect_closed "error"
      app:advance "20s"
      local fault = app:faults()[#app:faults()]
      assert.is_true(#fault.error <= 1024)
      assert.is_truthy(fault.error:find("…$"))
      assert.equal(fault.error, require("perilune.printable").escape(fault.error))
    end
  end)
end)
