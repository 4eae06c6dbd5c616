--- Each allocation in C fails once: at the start, while it serves, while it drains. Lua's own are not ours.
local faults = require "spec.support.faults"
local server = require "spec.support.server"

describe("without memory", function()
  after_each(server.finish)

  it("one connection at most ends, or the start fails with a line", function()
    local calls = faults.each("memory", nil, function(result, fault)
      if not result.started then return end
      assert.equal(0, result.code, fault)
      assert.is_true(result.lost <= 1, fault .. ": " .. result.lost .. " connections were lost")
    end)
    assert.is_true(calls > 20)
  end)

  -- It would abort; but it needs all that it needs before anybody is served.
  it("libuv fails the start", function()
    local calls = faults.each("uv_memory", nil, function(result, fault) assert.is_false(result.started, fault) end)
    assert.is_true(calls > 0)
  end)

  it("libuv is asked for nothing while it serves", function()
    local result, message = faults.run("uv_memory:1+", { late = true })
    assert.is_nil(message)
    assert.same({ true, false, 0, 0 }, { result.started, result.fired, result.lost, result.code })
  end)
end)
