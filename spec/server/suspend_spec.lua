--- What only real sockets and a real clock can show of handlers that wait. All else: spec/behaviour/suspend_spec.lua.
local server = require "spec.support.server"
local wait = require "spec.support.wait"

local start_lines = server.start_lines

describe("perilune.sleep", function()
  after_each(server.finish)

  it("lasts as long as it was told", function()
    local app = start_lines [[
      function Agent:proceed(line)
        perilune.sleep("200ms")
        return line
      end]]
    local client, began = app:connect(), wait.now()
    client:echo_line("slept")
    assert.is_true(wait.now() - began >= 0.199)
  end)
end)

describe("the inbox of a suspended agent", function()
  after_each(server.finish)

  local COUNTER = [[
    local sleeping
    function Agent:proceed(line)
      self.seen = (self.seen or 0) + 1
      if line == "sleep" then
        note("asleep")
        while not sleeping do perilune.sleep("20ms") end
      elseif line == "wake" then
        sleeping = true
        return line
      elseif line == "count" then
        return tostring(self.seen)
      end
    end ]]

  -- Sends lines until nothing has been taken for a while; returns how many bytes were, at most `max`.
  local function fill(client, line, max)
    local sent, since = 0, wait.now()
    while wait.now() - since < 0.3 and sent < max do
      local n = client:send_some(line:rep(1000):sub(1 + sent % #line))
      if n > 0 then since = wait.now() end
      sent = sent + n
    end
    return sent
  end

  it("is bounded in frames: the socket is no longer read, and nothing is lost", function()
    local app = start_lines(COUNTER, nil, [[limits = { inbox = 16 }]])
    local client, other = app:connect { send_buffer = 16384 }, app:connect()
    client:send("sleep\n")
    app:wait_log "asleep"
    local line, max = "frame of 15 by\n", 48e6
    local sent = fill(client, line, max)
    assert.is_true(sent < max, "it read on")
    other:echo_line("wake")
    client:send(line:rep(2):sub(1 + sent % #line, #line)):send("count\n")
    assert.equal(tostring(2 + math.floor(sent / #line) + 1), client:recv_line())
  end)

  it("is bounded in bytes", function()
    local app = start_lines(COUNTER, { asan = server.SMALL_QUARANTINE },
      [[limits = { inbox = 1000000, frame = "64k" }]])
    local client = app:connect { send_buffer = 16384 }
    client:send("sleep\n")
    app:wait_log "asleep"
    local before = app:rss()
    assert.is_true(fill(client, ("y"):rep(60000) .. "\n", 48e6) < 48e6, "it read on")
    local grown = app:rss() - before
    assert.is_true(not server.measures_memory or grown < 4e6, "it grew by " .. grown)
    client:reset()
  end)
end)

describe("a half-close", function()
  after_each(server.finish)

  it("ends the connection once all replies are delivered", function()
    local app = start_lines [[
      function Agent:closed(reason) note("closed " .. reason) end
      function Agent:proceed(line) return line:rep(1e5) end]]
    local client = app:connect():send(("x\n"):rep(30)):shutdown("send")
    local bytes, how = client:recv_all()
    assert.equal(30 * (1e5 + 1), #bytes)
    assert.equal("closed", how)
    app:wait_log "closed peer"
  end)

  it("lets an agent go on to write whose eof() says true", function()
    local app = start_lines [[
      local first
      function Agent:opened() first = first or self.conn end
      function Agent:closed(reason) note("closed " .. reason) end
      function Agent:eof() note("eof") return true end
      function Agent:proceed(line)
        if line == "close" then return tostring(first:close()) end
        return tostring(first:send(line))
      end]]
    local first, other = app:connect():shutdown("send"), app:connect()
    app:wait_log { message = "eof", conn = 1 }
    other:echo_line("hello", "true"):echo_line("again", "true")
    assert.equal("hello", first:recv_line())
    assert.equal("again", first:recv_line())
    other:echo_line("close", "true")
    first:expect_closed()
    app:wait_log { message = "closed agent", conn = 1 }
    assert.same({ "eof", "closed agent" }, app:notes(1))
  end)
end)

describe("a wait", function()
  after_each(server.finish)

  -- Each leaves a connection in a state in which its socket could be reported ready again and again.
  local cases = {
    { "of a suspended agent with more input than its inbox takes", "sleep 60s\n" .. ("x\n"):rep(100) },
    { "of a suspended agent whose peer has half-closed", "sleep 60s\nx\n", true },
    { "of a paused agent with input", "pause\nx\n" },
    { "of a paused agent whose peer has half-closed", "pause\nx\n", true },
    { "of an agent that goes on after its peer has half-closed", "x\n", true },
    { "for a peer that does not read", "big\nx\n" },
    { "for the rest of a frame", "x" },
  }
  for _, case in ipairs(cases) do
    it(case[1] .. " costs no processor time", function()
      local app = start_lines([[
        function Agent:eof() return true end
        function Agent:proceed(line)
          if line == "pause" then self.conn:pause() end
          if line == "big" then return ("x"):rep(2e7) end
          local duration = line:match("^sleep (.*)$")
          if duration then perilune.sleep(duration) end
        end]], nil, [[limits = { inbox = 4, proceed = "10s" }]])
      local client = app:connect { receive_buffer = 4096 }
      client:send(case[2])
      if case[3] then client:shutdown("send") end
      -- What it was sent is work, and takes as long as it takes; then it has to come to rest.
      wait.until_true("a time in which the server does nothing", function()
        local before = app:cpu()
        wait.pause(0.2)
        return app:cpu() - before <= 0.005
      end)
      client:reset()
    end)
  end
end)
