--- TCP and Unix sockets × every framing × what happens to connections and to the server; see spec/support/matrix.lua.
local command = require "spec.support.command"
local matrix = require "spec.support.matrix"
local reload = require "spec.support.reload"
local server = require "spec.support.server"
local trace = require "spec.support.trace"
local wait = require "spec.support.wait"

local wire = {}
wire.__index = wire

function wire:send(bytes) self.client:send(bytes) end
function wire:send_bytewise(bytes) self.client:trickle(bytes) end
function wire:half_close() self.client:shutdown "send" end
function wire:reset() self.client:reset() end
function wire:stall() end -- it reads when it expects something
function wire:unstall() end
function wire:expect(bytes) assert.equal(bytes, self.client:recv_exact(#bytes)) end
function wire:expect_end() self.client:expect_closed() end

-- A listener for each cell, over TCP and over a Unix socket.
local function script(version, folder, settings)
  local addresses = {}
  for i = 1, 2 * #matrix.CELLS do
    addresses[i] = i <= #matrix.CELLS and "tcp://127.0.0.1:0" or ("unix://%s/%d.sock"):format(folder, i)
  end
  return matrix.AGENT:format(version) .. ([[
    return { agent = Agent, listen = %s, control = "control.sock", limits = { inbox = 1000 }, %s }]])
    :format(matrix.listeners(addresses), settings or "")
end

local function start(settings)
  local folder = command.folder()
  local app = server.start { folder = folder, script = script("1", folder, settings), control = "control.sock",
    args = { "--log-level=debug" } }
  return app, function(version) return script(version, folder, settings) end
end

local function name_of(i)
  return (i <= #matrix.CELLS and "tcp, " or "unix, ") .. matrix.CELLS[(i - 1) % #matrix.CELLS + 1].name
end

local function connect(app)
  local wires = {}
  for i = 1, 2 * #matrix.CELLS do
    wires[i] = setmetatable({ client = app:connect { listener = i } }, wire)
  end
  return wires
end

-- Tells whose it was that failed.
local function each(wires, run)
  for i, one in ipairs(wires) do
    local ok, message = xpcall(run, debug.traceback, one, matrix.CELLS[(i - 1) % #matrix.CELLS + 1].encode)
    if not ok then error(("%s: %s"):format(name_of(i), tostring(message)), 0) end
  end
end

local function exchange(wires, sent, wanted)
  each(wires, function(one, encode)
    one:send(encode(sent))
    one:expect(encode(wanted))
  end)
end

local function stop(app)
  local stopped = app:stop()
  assert.equal(0, stopped.code)
  command.remove(app.folder)
  return stopped.summary
end

describe("over sockets, every framing:", function()
  after_each(server.finish)

  for event, what in pairs(matrix.EVENTS) do
    it(event, function()
      local app = start()
      local wires = connect(app)
      each(wires, what.run)
      each(wires, function(one) one.client:close() end)
      local ended = wait.until_true("the end of all connections", function()
        local entries = app:find_log { message = "closed" }
        return #entries == #wires and entries
      end)
      for _, entry in ipairs(ended) do
        local i = tonumber(entry.listener:match "%d+")
        local is_unix = i > #matrix.CELLS
        assert.equal(name_of(i) .. ": " .. (is_unix and what.unix_reason or what.reason),
          name_of(i) .. ": " .. entry.reason)
      end
      stop(app)
    end)
  end

  it("a drain finishes what has arrived", function()
    local app = start()
    local wires = connect(app)
    exchange(wires, "one two", "one two")
    each(wires, function(one, encode) one:send(encode "be slow" .. encode "a count") end)
    app:signal "TERM"
    each(wires, function(one, encode)
      one:expect(encode "be slow" .. encode "0000003")
      one:expect_end()
    end)
    assert.equal(0, app:wait_end().code)
    command.remove(app.folder)
  end)

  for policy, wanted in pairs { pin = { "1111111", "0000003" }, migrate = { "2222222", "0000003" } } do
    it("a reload that is to " .. policy, function()
      local app, source = start(("reload = %q"):format(policy))
      local wires = connect(app)
      exchange(wires, "version", "1111111")
      reload.reload_to(app, source "2")
      exchange(wires, "version", wanted[1])
      exchange(wires, "a count", wanted[2])
      local new = connect(app)
      exchange(new, "version", "2222222")
      each(new, function(one) one.client:close() end)
      each(wires, function(one) one.client:close() end)
      stop(app)
    end)
  end

  it("a reload that is to drain", function()
    local app, source = start [[reload = "drain", timeout = { drain = "3s" }]]
    local wires = connect(app)
    exchange(wires, "version", "1111111")
    each(wires, function(one, encode) one:send(encode "be slow") end)
    reload.reload_to(app, source "2")
    each(wires, function(one, encode)
      one:expect(encode "be slow")
      one:expect_end()
    end)
    local new = connect(app)
    exchange(new, "version", "2222222")
    each(new, function(one) one.client:close() end)
    stop(app)
  end)

  it("an upgrade", function()
    local app, source = start()
    local wires = connect(app)
    exchange(wires, "version", "1111111")
    reload.rewrite(app, source "2")
    local successor = app:upgrade()
    exchange(wires, "a count", "0000002")
    local new = connect(successor)
    exchange(new, "version", "2222222")
    each(wires, function(one) one.client:close() end)
    each(new, function(one) one.client:close() end)
    assert.equal(0, app:wait_end().code)
    stop(successor)
  end)

  it("a recording, which is replayed", function()
    local app, source = start()
    local recording = trace.record(app)
    local wires = connect(app)
    exchange(wires, "one two", "one two")
    exchange(wires, "be slow", "be slow")
    exchange(wires, "a count", "0000003")
    exchange(wires, "closing", "closing")
    each(wires, function(one) one:expect_end() end)
    assert.equal(0, recording:stop().code)
    local result = trace.replay(app, recording.path, source "1")
    assert.same({ 0, "" }, { result.code, result.err })
    stop(app)
  end)
end)
