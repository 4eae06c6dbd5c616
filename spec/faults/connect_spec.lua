--- Each allocation in C fails once while connections are piped: they are, or they are not and go on as they were, or
--- they end.
local command = require "spec.support.command"
local faults = require "spec.support.faults"
local server = require "spec.support.server"

-- The client's connection is the one that is piped to, and its agent catches that it was not.
local SCRIPT = [[
  local perilune = require "perilune"
  local Agent, Backend = {}, {}
  function Backend:proceed(line) return line:upper(), line == "bye" and "close" or nil end
  function Agent:proceed(line)
    if line ~= "pipe" then return "<" .. line .. ">", line == "bye" and "close" or nil end
    -- Its answer shows that it was accepted, by another thread: from here on it is known which allocation comes when.
    local db = assert(perilune.connect("unix://%s/backend", { frame = "line" }))
    db:send "hello"
    assert(db:read() == "HELLO")
    if not pcall(db.pipe, db, self.conn) then return "not piped" end
  end
  return { frame = "line", agent = Agent, timeout = { drain = "3s" },
    listen = { "tcp://127.0.0.1:0", { address = "unix://%s/backend", agent = Backend } } }]]

local function talk(app)
  local client = app:connect()
  local _, said = pcall(function()
    client:send "pipe\nhello\nbye\n"
    return client:recv_all()
  end)
  client:close()
  return said
end

local PIPED, NOT_PIPED = "HELLO\nBYE\n", "not piped\n<hello>\n<bye>\n"

-- Some of it may have been lost with the connection.
local function is_fair(said)
  return said == PIPED or NOT_PIPED:sub(1, #said) == said or said:find("reset", 1, true) ~= nil
end

describe("without memory for a pipe", function()
  after_each(server.finish)

  it("nobody gets bytes in another framing than was spoken", function()
    local number, counts = 0, { piped = 0, not_piped = 0, ended = 0 }
    repeat
      number = number + 1
      local fault = "memory:" .. number
      local app = faults.start(fault, { script = SCRIPT, workers = 1 })
      faults.arm(app)
      local said = talk(app)
      assert.is_true(is_fair(said), ("%s: %q"):format(fault, said))
      local what = said == PIPED and "piped" or said == NOT_PIPED and "not_piped" or "ended"
      counts[what] = counts[what] + 1
      local fired = faults.fired(app)
      if fired then assert.equal(PIPED, talk(app), fault) end
      assert.equal(0, app:stop().code, fault)
      command.remove(app.folder)
    until not fired
    assert.is_true(counts.not_piped > 0 and counts.ended > 2, counts.not_piped .. ", " .. counts.ended)
  end)
end)
