--- The system has no memory for anything large, not even Perilune's spare: what it was asked for fails, and nothing
--- else.
local client = require "spec.support.client"
local command = require "spec.support.command"
local faults = require "spec.support.faults"
local has = require "spec.support.has"
local server = require "spec.support.server"
local support = require "spec.support.reload"
local trace = require "spec.support.trace"

local LARGE = ("x"):rep(3 * 2 ^ 20)

-- As frames: a length, the same after two bytes that come first, a codec in Lua with a length of eight digits.
local SCRIPT = [[
  local perilune = require "perilune"
  local Agent = {}
  function Agent:proceed(frame)
    if frame == "read" then return tostring(#assert(self.conn:read())) end
    if frame == "sleep" then perilune.sleep(0.1) end
    return tostring(#frame)
  end
  local Digits = {}
  function Digits.decode(bytes, at)
    if #bytes - at + 1 < 8 then return nil, nil, 8 end
    local n = tonumber(bytes:sub(at, at + 7))
    if #bytes - at + 1 < 8 + n then return nil, nil, 8 + n end
    return bytes:sub(at + 8, at + 7 + n), at + 8 + n
  end
  function Digits.encode(text) return ("%08d"):format(#text) .. text end
  return { agent = Agent, limits = { frame = "8m", memory = "256m" },
    record = { redact = function(frame) return frame end }, listen = {
    { "tcp://127.0.0.1:0", name = "plain", frame = "u32be" },
    { "tcp://127.0.0.1:0", name = "pieces", frame = { "length", bytes = 4, offset = 2 } },
    { "tcp://127.0.0.1:0", name = "Lua", frame = Digits },
  } }]]

local ENCODE = {
  client.frame,
  function(text) return "hd" .. client.frame(text) end,
  function(text) return ("%08d"):format(#text) .. text end,
}

local function ask(app)
  local one = app:connect()
  one:send_frame "abc"
  assert.equal("3", one:recv_frame())
  return one
end

-- Everything that was sent may not have been taken.
local function send(one, bytes) pcall(one.send, one, bytes) end

local function await_end(one)
  pcall(one.recv_all, one)
  one:close()
end

describe("without memory for what is large", function()
  after_each(server.finish)

  local function start()
    return faults.arm(faults.start("lua_large:1+", { script = SCRIPT, modules = {}, workers = 1 }))
  end

  local function finish(app, failed)
    has("not enough memory to call the", app:wait_log("handler failed").error)
    local stopped = app:stop()
    assert.equal(0, stopped.code)
    has("memory=" .. failed, stopped.summary.reasons)
    assert.equal(failed, stopped.summary.faults)
    assert.is_true(faults.fired(app))
    command.remove(app.folder)
  end

  for listener, name in ipairs { "in one piece", "in two pieces", "of a codec in Lua" } do
    it("a frame " .. name .. " ends its connection", function()
      local app = start()
      local neighbour = ask(app)
      for _ = 1, 2 do
        local one = app:connect { listener = listener }
        send(one, ENCODE[listener](LARGE))
        await_end(one)
      end
      neighbour:send_frame "abcd"
      assert.equal("4", neighbour:recv_frame())
      finish(app, 2)
    end)
  end

  it("a frame that conn:read waits for ends its connection", function()
    local app = start()
    local one = app:connect()
    send(one, client.frame "read" .. client.frame(LARGE))
    await_end(one)
    ask(app)
    finish(app, 1)
  end)

  it("a frame among small ones ends its connection", function()
    local app = start()
    local one = app:connect()
    send(one, client.frame "sleep" .. client.frame "a" .. client.frame(LARGE) .. client.frame "b")
    await_end(one)
    ask(app)
    finish(app, 1)
  end)

  it("small frames that are large together are handed over", function()
    local app = start()
    local one = app:connect()
    local small = client.frame(("y"):rep(1000))
    one:send(client.frame "sleep" .. small:rep(5000))
    local expected = client.frame "5" .. client.frame "1000":rep(5000)
    assert.equal(expected, one:recv_exact(#expected))
    one:close()
    assert.equal(0, app:stop().code)
    command.remove(app.folder)
  end)

  it("a frame that a recording redacts is left out of it", function()
    local app = faults.start("lua_large:1+", { script = SCRIPT, modules = {}, workers = 1, control = "control.sock" })
    local recording = trace.record(app)
    faults.arm(app)
    local one = app:connect()
    send(one, client.frame(LARGE))
    await_end(one)
    ask(app):close()
    local failed = app:wait_log "record.redact failed: the frame is left out, as are all for which it fails"
    has("not enough memory to call it", failed.error)
    recording:stop()
    local told = {}
    for _, line in ipairs(trace.lines(recording.path)) do
      if line.event == "in" then told[#told + 1] = line.frame or line.redacted end
    end
    assert.same({ #LARGE, "abc" }, told)
    finish(app, 1)
  end)

  it("a snapshot stays with its connection", function()
    local text = [[
      local VERSION = %q
      local Agent = {}
      function Agent:snapshot() return self.kept or "" end
      function Agent:upgrade(kept) self.kept = kept end
      function Agent:proceed(line)
        if line == "keep" then self.kept = ("x"):rep(2 ^ 21) end
        return VERSION
      end
      return { listen = "tcp://127.0.0.1:0", frame = "line", agent = Agent, reload = { policy = "migrate" } }]]
    local app = faults.start("lua_large:1+", { script = text:format "one", modules = {}, workers = 1 })
    local one = app:connect()
    one:echo_line("keep", "one")
    faults.arm(app)
    support.rewrite(app, text:format "two")
    support.reload(app)
    one:echo_line("hello", "one")
    app:connect():echo_line("hello", "two")
    has("not enough memory", app:wait_log("handler failed").error)
    assert.equal(0, app:stop().code)
    command.remove(app.folder)
  end)
end)
