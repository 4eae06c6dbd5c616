--- Each allocation in C fails once: at the start, while it serves, while it drains. Lua's own are not ours.
local faults = require "spec.support.faults"
local server = require "spec.support.server"

local function pend(met)
  local texts = {}
  for what, times in pairs(met) do texts[#texts + 1] = ("%s (%d times)"):format(what, times) end
  table.sort(texts)
  if #texts > 0 then pending(table.concat(texts, "; ")) end
end

describe("without memory", function()
  after_each(server.finish)

  it("one connection at most ends, or the start fails with a line", function()
    local calls, met = faults.each("memory", nil, function(result, fault)
      if not result.started then return end
      assert.equal(0, result.code, fault)
      assert.is_true(result.lost <= 1, fault .. ": " .. result.lost .. " connections were lost")
    end)
    assert.is_true(calls > 20)
    pend(met)
  end)

  it("libuv fails the start, or ends the process where it knows no other way", function()
    local calls, met = faults.each("uv_memory", nil, function(result, fault)
      assert.is_true(not result.started or result.lost == 0, fault)
    end, { ["killed by signal 6"] = "libuv aborts: it cannot grow its list of descriptors" })
    assert.is_true(calls > 0)
    pend(met)
  end)
end)
