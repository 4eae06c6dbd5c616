--- Each allocation in C fails once while agents without a socket are made, sent to and end: who sends is told, or what
--- was sent is dropped and counted; the next message finds one.
local command = require "spec.support.command"
local faults = require "spec.support.faults"
local server = require "spec.support.server"

local SCRIPT = [[
  local perilune = require "perilune"
  local User, Agent = {}, {}
  function User:message(_, data)
    if data == "end" then return "bye", "close" end
    self.n = (self.n or 0) + 1
    return self.n
  end
  function Agent:proceed(line)
    local reply, _, code = perilune.call("user:" .. line, "x", "2s")
    if not reply then return code end
    perilune.send("user:" .. line, "end")
    perilune.send("user:" .. line, "x")
    return perilune.call("user:" .. line, "x", "2s") and "done" or "not done"
  end
  return { frame = "line", agent = Agent, listen = "tcp://127.0.0.1:0", timeout = { drain = "3s" },
    agents = { user = { agent = User } } }]]

local function talk(app, key)
  local client = app:connect()
  local _, said = pcall(function() return client:send(key .. "\n"):recv_line() end)
  client:close()
  return said
end

local FAIR = { done = true, ["not done"] = true, ENOMEM = true, ECANCELED = true, EBUSY = true }

describe("without memory for an agent without a socket", function()
  after_each(server.finish)

  it("who sends is told, and the next message finds one", function()
    local number, counts = 0, {}
    repeat
      number = number + 1
      local fault = "memory:" .. number
      local app = faults.start(fault, { script = SCRIPT, workers = 1, control = "control.sock" })
      faults.arm(app)
      local said = tostring(talk(app, 1))
      local fired = faults.fired(app)
      -- The connection itself may have ended for it.
      assert.is_true(FAIR[said] or not said:find "^%u", ("%s: %q"):format(fault, said))
      counts[said] = (counts[said] or 0) + 1
      if fired then -- it does so once
        assert.equal("done", talk(app, 2), fault)
        assert.equal("done", talk(app, 1), fault)
        local counters = faults.status(app).counters
        assert.equal(counters.messages_sent, counters.messages_delivered + counters.messages_dropped, fault)
      end
      assert.equal(0, app:stop().code, fault)
      command.remove(app.folder)
    until not fired
    assert.is_true(number > 8 and (counts.ENOMEM or 0) > 1 and counts.done > 0)
  end)
end)
