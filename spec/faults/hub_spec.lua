--- Each allocation in C fails once while connections join topics and publish to each other: what is not joined or sent
--- is said, and what is sent is accounted for (spec/support/server.lua looks).
local faults = require "spec.support.faults"
local server = require "spec.support.server"

local SCRIPT = [[
  local perilune = require "perilune"
  local Agent = {}
  function Agent:proceed(line)
    local what, topic = line:match "^(%%a+) (%%S+)$"
    local result, _, code
    if what == "join" then result, _, code = self.conn:join(topic)
    elseif what == "hear" then result, _, code = self.conn:join(topic, { deliver = "agent" })
    elseif what == "leave" then result, _, code = self.conn:leave(topic)
    else result, _, code = self.conn:publish(topic, { "a table" }, { others = true }) end
    return line .. " " .. tostring(result == nil and code or result)
  end
  function Agent:message() end
  return { listen = "tcp://127.0.0.1:0", frame = "line", agent = Agent, timeout = { drain = "3s" } }]]

local ANSWERS = { ["true"] = true, ["false"] = true, ENOMEM = true }
local LINES = { "join a", "join a.*", "hear a", "publish a", "publish a.b", "leave a.*" }

-- How many lines were answered; what is published comes to the others in between, or does not.
local function talk(app, fault)
  local one, other, answered = app:connect(), app:connect(), 0
  local function ask(client, line)
    local ok, said
    repeat
      ok, said = pcall(function() return client:send(line .. "\n"):recv_line(20) end)
    until not ok or said ~= '["a table"]'
    if not ok then return end
    assert.is_true(ANSWERS[said:match "(%S*)$"] or false, fault .. ": " .. said)
    answered = answered + 1
  end
  ask(one, "join a")
  ask(one, "join >")
  for _, line in ipairs(LINES) do ask(other, line) end
  one:close()
  other:close()
  return answered
end

describe("without memory for a topic or a message", function()
  after_each(server.finish)

  for _, workers in ipairs { 1, 2 } do
    it(("of %d workers it is not there, and all others are accounted for"):format(workers), function()
      local refused = faults.each_allocation({ script = SCRIPT, workers = workers }, talk, #LINES + 2)
      assert.is_true(refused > 10, refused)
    end)
  end
end)
