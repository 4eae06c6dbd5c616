--- Modules that are loaded late, by handlers that come to an end meanwhile. Where they may lie:
--- spec/server/require_spec.lua.
local memory = require "spec.support.memory"

local count, lines = memory.count, memory.lines

describe("require", function()
  after_each(memory.finish)

  local LAZY = [[
    local Agent = {}
    function Agent:proceed() return require "slow" end
    return { listen = "tcp://127.0.0.1:0", frame = "line", agent = Agent,
      limits = { proceed = PROCEED, memory = "16m" } }]]

  -- Once only: whoever comes next finds the gate shut.
  for what, case in pairs {
    ["was ended for its time"] = { "while true do end", "proceed_timeout" },
    ["was ended for the memory it took"] = { "local t = {} for i = 1, 1e9 do t[i] = {} end", "memory" },
    ["waited when its client left"] = { "perilune.sleep(60)", "peer" },
  } do
    it("loads a module anew after the handler that did so " .. what, function()
      local proceed = case[2] == "proceed_timeout" and "500ms" or "30s"
      local app = assert(memory.script((LAZY:gsub("PROCEED", ("%q"):format(proceed))), {
        gate = "return { open = true }",
        slow = ([[
          local gate, perilune = require "gate", require "perilune"
          if gate.open then
            gate.open = false
            perilune.log("info", "loading")
            %s
          end
          return "loaded"]]):format(case[1]),
      }))
      local first = app:connect():send("x")
      assert.equal(1, count(app, "loading"))
      if case[2] == "peer" then first:close() end
      first:expect_closed(case[2])
      for _ = 1, 2 do app:connect():send("x"):expect("loaded") end
    end)
  end

  it("of Perilune's own modules is not spoilt by handlers that are ended meanwhile", function()
    local Agent = {}
    function Agent:proceed(line)
      local kept = {} -- luacheck: ignore 241
      for i = 1, tonumber(line) or 0 do kept[i] = ("z"):rep(1000) .. i end
      self.conn:set_frame { "delimiter", "\n" }
      return "set"
    end
    local app = lines(Agent, { limits = { allocation = "1m" } })
    for kb = 850, 1010, 4 do app:connect():send(tostring(kb)):half_close():closed() end
    app:connect():send("0"):expect("set")
    assert.is_true(#app:faults() > 0)
  end)
end)
