--- Each allocation in C fails once while agents get names and send to each other: what is not sent is said, what is
--- sent is accounted for (spec/support/server.lua looks), and whoever calls is told something.
local faults = require "spec.support.faults"
local server = require "spec.support.server"

local SCRIPT = [[
  local perilune = require "perilune"
  local Agent = {}
  function Agent:proceed(line)
    if line == "bye" then return "bye", "close" end
    local what, name = line:match "^(%%a+) (%%w+)$"
    local result, _, code
    if what == "register" then result, _, code = perilune.register(name)
    elseif what == "replace" then result, _, code = perilune.register(name, { replace = true })
    elseif what == "call" then result, _, code = perilune.call(name, { "table" }, "30s")
    else result, _, code = perilune.send(name, "text") end
    return line .. " " .. tostring(result == nil and code or result)
  end
  function Agent:message(_, data)
    return type(data) == "table" and ("a longer text than it was"):rep(20)
  end
  return { listen = "tcp://127.0.0.1:0", frame = "line", agent = Agent, timeout = { drain = "3s" } }]]

local ANSWERS = {
  ["true"] = true, ENOENT = true, ENOMEM = true, EEXIST = true, ECANCELED = true, EDEADLK = true,
  [("a longer text than it was"):rep(20)] = true,
}

local LINES = { "register b", "send a", "call a", "send b", "replace a", "call a" }

-- How many lines were answered; what each answer is, it is one of those.
local function talk(app, fault)
  local one, other, answered = app:connect(), app:connect(), 0
  local function ask(client, line)
    local ok, said = pcall(function() return client:send(line .. "\n"):recv_line(20) end)
    if not ok then return end
    assert.is_true(ANSWERS[said:match "(%S*)$"] or ANSWERS[said:sub(#line + 2)] or false, fault .. ": " .. said)
    answered = answered + 1
  end
  ask(one, "register a")
  for _, line in ipairs(LINES) do ask(other, line) end
  one:close()
  other:close()
  return answered
end

describe("without memory for a message", function()
  after_each(server.finish)

  for _, workers in ipairs { 1, 2 } do
    it(("of %d workers it is not sent, and all others are accounted for"):format(workers), function()
      local refused = faults.each_allocation({ script = SCRIPT, workers = workers }, talk, #LINES + 1)
      assert.is_true(refused > 10, refused)
    end)
  end
end)
