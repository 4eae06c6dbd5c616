--- `perilune record` of a real server, and `perilune replay` of what came of it.
local command = require "spec.support.command"
local has = require "spec.support.has"
local json_decode = require "spec.support.json_decode"
local operator = require "spec.support.operator"
local server = require "spec.support.server"
local trace = require "spec.support.trace"
local wait = require "spec.support.wait"

local SCRIPT = [[
local perilune = require "perilune"
local Agent = {}
function Agent:opened() self.n = 0; return "hello" end
function Agent:proceed(line)
  self.n = self.n + 1
  if line == "bye" then return "bye", "close" end
  if line == "wait" then perilune.sleep(0.02) return "waited" end
  if line == "fail" then error "oh" end
  if line == "body" then return "got " .. self.conn:read { "fixed", 5 } end
  if line == "two" then self.conn:send "one" return { "two", "three" } end
  return self.n .. " " .. line
end
return { listen = "tcp://127.0.0.1:0", frame = "line", agent = Agent, %s }
]]

local function script(settings) return SCRIPT:format(settings or "") end

local function start(options, settings)
  local copy = { script = script(settings), control = "control.sock" }
  for key, value in pairs(options or {}) do copy[key] = value end
  return server.start(copy)
end


-- The script with a part of it replaced.
local function changed(from, to, settings)
  local text = script(settings)
  local at, stop = text:find(from, 1, true)
  return text:sub(1, at - 1) .. to .. text:sub(stop + 1)
end

local function frames_of(lines, conn)
  local found = {}
  for _, line in ipairs(lines) do
    if line.conn == conn and (line.event == "in" or line.event == "out") then
      found[#found + 1] = line.event .. " " .. (line.frame or line.base64 or "#" .. line.redacted)
    end
  end
  return found
end

local function expect_code(code, result) assert.equal(code, result.code, result.out .. result.err) end

local function talk(client, text, ...)
  client:send(text)
  for i = 1, select("#", ...) do assert.equal((select(i, ...)), client:recv_line()) end
  return client
end

describe("record", function()
  after_each(server.finish)

  it("writes frames both ways, in order, to a file that is its owner's alone", function()
    local app = start()
    local before = talk(app:connect(), "", "hello")
    local recording = trace.record(app)
    local client = app:connect()
    talk(client, "a\ntwo\nwait\nbody\n\255\0abcbye\n", "hello", "1 a", "one", "two", "three", "waited",
      "got \255\0abc", "bye"):expect_closed()
    talk(before, "x\n", "1 x")
    local result = recording:stop()
    expect_code(0, result)
    has("1 connections", result.out)
    has("0 lost; ended by: client", result.out)
    local lines = trace.lines(recording.path)
    local head, last = lines[1], lines[#lines]
    assert.same({ 1, "line max=1m empty=deliver", 1, 1 },
      { head.perilune_trace, head.listeners[1].frame, head.generation, head.workers })
    assert.matches("^%d+%-%d%d%-%d%dT", head.began)
    assert.same({ "end", "client", 1, 14, 0 }, { last.event, last.reason, last.connections, last.frames, last.lost })
    local opened = trace.events(lines, "open")
    assert.same({ 1, app.listeners[1].name, ("127.0.0.1:%d"):format(client.port) },
      { #opened, opened[1].listener, opened[1].peer })
    assert.same({ "out hello", "in a", "out 1 a", "in two", "out one", "out two", "out three", "in wait", "out waited",
      "in body", "in /wBhYmM=", "out Z290IP8AYWJj", "in bye", "out bye" }, frames_of(lines, opened[1].conn))
    assert.equal("agent", trace.events(lines, "close")[1].reason)
    for i = 3, #lines do assert.is_true(lines[i].t >= lines[i - 1].t and lines[i].t < 60) end
    assert.equal("600", (command.shell("stat -c %a " .. recording.path):gsub("\n", "")))
    expect_code(0, trace.replay(app, recording.path, script()))
  end)

  it("is the same in a replay, with hundreds of connections on two workers, and else says what differs", function()
    local app = start { workers = 2 }
    local recording = trace.record(app)
    local clients = app:connect_many(server.scaled(300, 60))
    for i, client in ipairs(clients) do client:send(("a%d\ntwo\nwait\n"):format(i)) end
    for i, client in ipairs(clients) do
      talk(client, "", "hello", "1 a" .. i, "one", "two", "three", "waited")
      if i % 3 == 0 then talk(client, "bye\n", "bye"):expect_closed() elseif i % 3 == 1 then client:close() end
    end
    local result = recording:stop()
    expect_code(0, result)
    has(#clients .. " connections", result.out)
    has("0 lost", result.out)
    result = trace.replay(app, recording.path, script())
    expect_code(0, result)
    has(#clients .. " connections", result.out)
    has("no differences", result.out)
    result = trace.replay(app, recording.path, changed([[self.n .. " "]], [[self.n .. (line == "a7" and "! " or " ")]]))
    expect_code(1, result)
    has("1 connection differs (- recorded, + now)", result.out)
    has([[-  "1 a7"]], result.out)
    has([[+  "1! a7"]], result.out)
    result = trace.replay(app, recording.path, changed([["two", "three"]], [["two"]]), "--json")
    expect_code(1, result)
    local report = json_decode(result.out)
    assert.same({ false, #clients, #clients, "lacking", "three" }, { report.same, report.connections,
      #report.differences, report.differences[1].frames[1].kind, report.differences[1].frames[1].frame })
  end)

  it("says where a connection ends another way", function()
    local app = start()
    local recording = trace.record(app)
    talk(app:connect(), "fail\n", "hello"):expect_closed()
    talk(app:connect(), "a\nbye\n", "hello", "1 a", "bye"):expect_closed()
    app:wait_log "handler failed"
    expect_code(0, recording:stop())
    expect_code(0, trace.replay(app, recording.path, script()))
    local result = trace.replay(app, recording.path, changed([[error "oh"]], [[return nil]]))
    expect_code(1, result)
    has("it goes on, where it ended: error", result.out)
    result = trace.replay(app, recording.path, changed([[return "bye", "close"]], [[error "bye"]]))
    expect_code(1, result)
    has("it has ended with error, not agent", result.out)
    has("handler failed", result.out)
    result = trace.replay(app, recording.path, changed([[return self.n .. " " .. line]], [[return nil, "close"]]))
    has([["bye" cannot be sent: the connection has ended: agent]], result.out)
  end)

  it("goes on over a reload, and tells the generation", function()
    local app = start({ workers = 2 }, [[reload = "migrate"]])
    local recording = trace.record(app)
    local one = talk(app:connect(), "a\n", "hello", "1 a")
    command.write(app.folder .. "/app.lua", changed([["hello"]], [["welcome"]]))
    expect_code(0, operator.run(app, "reload", "--wait"))
    local two = talk(app:connect(), "b\n", "welcome", "1 b")
    talk(one, "c\nbye\n", "2 c", "bye"):expect_closed()
    two:close()
    expect_code(0, recording:stop())
    local lines = trace.lines(recording.path)
    local opened = trace.events(lines, "open")
    table.sort(opened, function(a, b) return a.conn < b.conn end)
    assert.same({ 2, nil, 2 }, { #opened, opened[1].generation, opened[2].generation })
    assert.same({ "out hello", "in a", "out 1 a", "in c", "out 2 c", "in bye", "out bye" },
      frames_of(lines, opened[1].conn))
  end)

  it("records the connections of one listener, by name, address or port", function()
    local app = server.start { control = "control.sock", script = [[
      local function agent(word) return { proceed = function() return word end } end
      return { frame = "line", listen = {
        { "tcp://127.0.0.1:0", name = "front", agent = agent "front" },
        { "tcp://[::1]:0", name = "back", agent = agent "back" },
      } }]] }
    for _, which in ipairs { "back", app.listeners[2].address, tostring(app.listeners[2].port) } do
      local recording = trace.record(app, "--listener " .. "'" .. which .. "'")
      talk(app:connect { port = app.listeners[1].port }, "x\n", "front"):close()
      talk(app:connect { host = "::1", port = app.listeners[2].port }, "x\n", "back"):close()
      expect_code(0, recording:stop())
      local lines = trace.lines(recording.path)
      assert.same({ 1, "back" }, { #lines[1].listeners, lines[1].listeners[1].name })
      assert.same({ 1, "back" }, { #trace.events(lines, "open"), trace.events(lines, "open")[1].listener })
    end
    local result = operator.run(app, "record", "--listener", "middle", "--out", app.folder .. "/none.jsonl")
    expect_code(1, result)
    has("there is no listener 'middle'; there are: front (tcp://127.0.0.1:", result.err)
    has("back (tcp://[::1]:", result.err)
    assert.is_nil(io.open(app.folder .. "/none.jsonl"))
  end)

  it("overwrites no file unless it is told to, and refuses wrong options", function()
    local app = start()
    command.write(app.folder .. "/kept.jsonl", "mine")
    local result = operator.run(app, "record", "--out", "kept.jsonl")
    expect_code(1, result)
    has("it is there already (--force overwrites it)", result.err)
    assert.equal("mine", command.read(app.folder .. "/kept.jsonl"))
    result = operator.run(app, "record", "--out", "kept.jsonl", "--json")
    expect_code(1, result)
    local answer = json_decode(result.out)
    assert.same({ false, "bad_file", "" }, { answer.ok, answer.code, result.err })
    answer = json_decode(operator.run(app, "record", "--listener", "none", "--json").out)
    assert.same({ false, "record_refused" }, { answer.ok, answer.code })
    expect_code(0, operator.run(app, "record", "--out", "kept.jsonl", "--force", "--seconds", "50ms"))
    assert.equal("seconds", trace.lines(app.folder .. "/kept.jsonl")[2].reason)
    for _, case in ipairs { { "--seconds", "soon" }, { "--seconds", "0" }, { "--max-size", "1k" },
      { "--max-size", "x" } } do
      result = operator.run(app, "record", unpack(case))
      expect_code(2, result)
      has(case[1] .. " expects", result.err)
    end
  end)

  it("stops before the file is larger than it may be, with whole lines", function()
    local app = start()
    local recording = trace.record(app, "--max-size 16k --json")
    local client = talk(app:connect(), "", "hello")
    for i = 1, 400 do talk(client, ("x"):rep(100) .. "\n", i .. " " .. ("x"):rep(100)) end
    local result = recording:result()
    expect_code(0, result)
    assert.equal("max_size", json_decode(result.out).reason)
    local size = #command.read(recording.path)
    assert.is_true(size <= 16384 and size > 4000, tostring(size))
    local lines = trace.lines(recording.path)
    assert.equal(#trace.events(lines, "in") + #trace.events(lines, "out"), lines[#lines].frames)
    app:wait_log "recording ended"
    expect_code(0, trace.replay(app, recording.path, script()))
    expect_code(0, trace.record(app, "--seconds 50ms"):result()) -- there may be another one
  end)

  it("gives up whole connections where nobody takes what is recorded, and holds up nobody", function()
    local app = start({}, [[limits = { frame = "2m", send_buffer = "8m" }]])
    local reader = operator.client(app)
    assert.is_true(json_decode(reader:send('{"command":"record"}\n'):recv_line()).ok)
    -- Takes so little of it that it is hardly more than nothing, and yet not taken for dead.
    local frame, taken = ("x"):rep(1000000), {}
    for i = 1, 12 do
      talk(app:connect(), frame .. "\n", "hello", "1 " .. frame):close()
      taken[i] = reader:recv_exact(65536)
    end
    talk(app:connect(), "a\n", "hello", "1 a"):close()
    reader:shutdown "send"
    local path = command.write(app.folder .. "/slow.jsonl", table.concat(taken) .. (reader:recv_all()))
    local lines = trace.lines(path)
    local last = lines[#lines]
    assert.equal("client", last.reason)
    assert.is_true(last.lost >= 3 and last.lost < 10, "lost " .. last.lost)
    -- Of each that is there and not given up, all is there.
    local lost, seen = {}, 0
    for _, event in ipairs(trace.events(lines, "lost")) do lost[event.conn] = true end
    for _, event in ipairs(trace.events(lines, "close")) do
      seen = seen + 1
      assert.is_nil(lost[event.conn])
      assert.equal(3, #frames_of(lines, event.conn))
    end
    assert.is_true(seen >= 3)
    local result = trace.replay(app, path, script([[limits = { frame = "2m", send_buffer = "8m" }]]))
    expect_code(0, result)
    has("left out: the recording had no room", result.out)
  end)

  it("ends when its client is killed, and another one can begin", function()
    local app = start { workers = 2, asan = server.SMALL_QUARANTINE }
    expect_code(0, trace.record(app, "--seconds 50ms"):result())
    local recording = trace.record(app)
    local client = talk(app:connect(), "a\n", "hello", "1 a")
    local result = operator.run(app, "record", "--out", "other.jsonl")
    expect_code(1, result)
    has("there is a recording already", result.err)
    recording:signal "KILL"
    wait.until_true("the second entry", function()
      local n = 0
      for _, entry in ipairs(app:log()) do n = n + (entry.message == "recording ended" and 1 or 0) end
      return n == 2
    end)
    talk(client, "b\n", "2 b")
    recording = trace.record(app)
    talk(app:connect(), "a\n", "hello", "1 a"):close()
    expect_code(0, recording:stop())
    assert.equal(1, trace.lines(recording.path)[#trace.lines(recording.path)].connections)
  end)

  it("ends with the server, and has its last words", function()
    local app = start { workers = 2 }
    local recording = trace.record(app)
    local client = talk(app:connect(), "a\n", "hello", "1 a")
    assert.equal(0, app:stop().code or 0)
    client:expect_closed()
    local result = recording:result()
    expect_code(0, result)
    has("ended by: the server has stopped", result.out)
    local lines = trace.lines(recording.path)
    assert.same({ 1, "drain" }, { #trace.events(lines, "drain"), trace.events(lines, "close")[1].reason })
    expect_code(0, trace.replay(app, recording.path, script()))
  end)

  it("is begun with the server: run --record", function()
    local app = start { workers = 2, args = { "--record=all.jsonl" } }
    talk(app:connect(), "a\nbye\n", "hello", "1 a", "bye"):expect_closed()
    app:stop()
    local path = app.folder .. "/all.jsonl"
    local lines = trace.lines(path)
    assert.same({ 1, "the server has stopped" }, { #trace.events(lines, "close"), lines[#lines].reason })
    expect_code(0, trace.replay(app, path, script()))
    local result = command.run { dir = app.folder, "run", "app.lua", "--control=off", "--record=all.jsonl" }
    expect_code(1, result)
    has("cannot record to all.jsonl", result.err)
  end)

  it("leaves the recording to the process that was there first", function()
    local app = start { args = { "--record=all.jsonl" } }
    talk(app:connect(), "a\nbye\n", "hello", "1 a", "bye"):expect_closed()
    local successor = app:upgrade()
    successor:wait_log "not recording: the process that this one replaces has done so"
    talk(successor:connect(), "a\nbye\n", "hello", "1 a", "bye"):expect_closed()
    wait.until_true("the first one's end", function() return app:has_ended() end)
    local lines = trace.lines(app.folder .. "/all.jsonl")
    assert.same({ 1, "end" }, { lines[#lines].connections, lines[#lines].event })
  end)

  it("serves on where the file cannot be written, and its exit code tells", function()
    local app = start { args = { "--record=/dev/full", "--force" } }
    local failure = app:wait_log "the recording is not whole"
    assert.same({ "error", "/dev/full", "no space left on device" }, { failure.level, failure.path, failure.error })
    local entry = app:wait_log "recording ended"
    has("cannot write to the file: ", entry.reason)
    talk(app:connect(), "a\n", "hello", "1 a"):close()
    local result = operator.run(app, "record", "--out", "/dev/full", "--force")
    expect_code(1, result)
    has("cannot write to /dev/full: No space left on device", result.err)
    expect_code(0, trace.record(app, "--seconds 50ms"):result())
    has("crw-rw-rw-", command.shell "ls -l /dev/full")
    assert.equal(1, app:stop().code)
  end)

  it("leaves whole lines in a file that has no more room, and its exit code tells", function()
    local app = start { args = { "--record=all.jsonl" }, fsize = 8192 }
    local one = talk(app:connect(), "", "hello")
    for i = 1, 200 do one:echo_line(("x"):rep(50), i .. " " .. ("x"):rep(50)) end
    app:wait_log "the recording is not whole"
    one:echo_line("a", "201 a"):close()
    assert.equal(1, app:stop().code)
    local lines = trace.lines(app.folder .. "/all.jsonl")
    assert.is_true(#lines > 0)
  end)

  it("does not wait for somebody to read a FIFO", function()
    local folder = command.folder()
    assert(os.execute(("mkfifo %s/fifo"):format(folder)) == 0)
    local result = server.start_failing { script = script(), args = { "--record=" .. folder .. "/fifo", "--force" } }
    assert.equal(1, result.code)
    has("nobody reads this FIFO", result.text)
    command.remove(folder)
  end)

  it("gives a codec in Lua the bytes that it had", function()
    local text = [[
      local codec = {
        decode = function(bytes, at)
          if #bytes < at + 1 then return nil end
          return { a = bytes:byte(at), b = bytes:byte(at + 1) }, at + 2
        end,
        encode = function(reply) return string.char(reply.sum, 0) end,
      }
      return { listen = "tcp://127.0.0.1:0", frame = codec,
        agent = { proceed = function(self, pair) return { sum = pair.a + pair.b } end } }]]
    local app = server.start { control = "control.sock", script = text }
    local recording = trace.record(app)
    local client = app:connect():send "\1\2\100\127"
    assert.equal("\3\0\227\0", client:recv_exact(4))
    client:close()
    expect_code(0, recording:stop())
    local lines = trace.lines(recording.path)
    local frames = trace.events(lines, "in")
    assert.same({ 2, "\1\2", true, "d\127" }, { #frames, frames[1].frame, frames[1].wire, frames[2].frame })
    expect_code(0, trace.replay(app, recording.path, text))
    expect_code(1, trace.replay(app, recording.path, (text:gsub("pair.a %+", "1 + pair.a +"))))
  end)

  describe("redact", function()
    local function redacting(body) return ("record = { redact = function(frame, direction) %s end }"):format(body) end

    it("decides what is recorded", function()
      local settings = redacting [[
        if frame == "secret" then return nil end
        return direction == "in" and frame:gsub("%d", "#") .. "" or frame]]
      local app = start({}, settings)
      local recording = trace.record(app)
      talk(app:connect(), "a1\nsecret\n", "hello", "1 a1", "2 secret"):close()
      expect_code(0, recording:stop())
      local lines = trace.lines(recording.path)
      assert.same({ "out hello", "in a#", "out 1 a1", "in #6", "out 2 secret" },
        frames_of(lines, trace.events(lines, "open")[1].conn))
      local result = trace.replay(app, recording.path, script(settings), "--ignore", "^%d ")
      expect_code(0, result)
      has("1 frame redacted", result.out)
    end)

    it("that fails leaves frames out, is logged once, and harms nobody", function()
      local app = start({}, redacting [[if frame == "a" then error "oh no" end return frame ~= "b" and frame]])
      local recording = trace.record(app)
      talk(app:connect(), "a\na\nb\nc\n", "hello", "1 a", "2 a", "3 b", "4 c"):close()
      local result = recording:stop()
      expect_code(0, result)
      has("failed for 3 frames", result.err)
      local lines = trace.lines(recording.path)
      assert.same({ "out hello", "in #1", "out 1 a", "in #1", "out 2 a", "in #1", "out 3 b", "in c", "out 4 c" },
        frames_of(lines, trace.events(lines, "open")[1].conn))
      local entries = 0
      for _, entry in ipairs(app:log()) do
        if entry.message:find "^record.redact failed" then
          entries = entries + 1
          has("oh no", entry.error)
        end
      end
      assert.equal(1, entries)
    end)

    it("that does not return is ended, and called no more", function()
      local app = start({}, redacting [[if frame == "a" then while true do end end return frame]]
        .. [[, limits = { proceed = "50ms" }]])
      local recording = trace.record(app)
      local client = talk(app:connect(), "a\n", "hello", "1 a")
      app:wait_log "record.redact failed: the frame is left out, as are all for which it fails"
      for i = 2, 30 do talk(client, "b\n", i .. " b") end
      expect_code(0, recording:stop())
      local lines = trace.lines(recording.path)
      local last = trace.events(lines, "out")
      assert.equal(3, last[#last].redacted and 3)
      assert.equal(1, lines[#lines].redaction_failures)
    end)

    -- What it does to connections is for the next time that the tape is taken off, or after the end.
    it("that sends and closes is recorded with what it does, over a reload, too", function()
      local text = "local agents = {}\n" .. script(redacting [[
        for agent in pairs(agents) do
          if frame == "send" and direction == "in" then agent.conn:send(("x"):rep(100000)) end
          if frame == "close" then agent.conn:close() end
        end
        return #frame > 1000 and "long" or frame]]):gsub("function Agent:opened%(%)", "%0 agents[self] = true;")
        :gsub("function Agent:proceed", "function Agent:closed() agents[self] = nil end\n%0")
      local app = server.start { script = text, control = "control.sock" }
      local recording = trace.record(app)
      local client = talk(app:connect(), "a\nsend\n", "hello", "1 a", "2 send", ("x"):rep(100000))
      command.write(app.folder .. "/app.lua", (text:gsub('"hello"', '"welcome"')))
      expect_code(0, operator.run(app, "reload", "--wait"))
      talk(client, "close\n", "3 close"):expect_closed()
      talk(app:connect(), "", "welcome"):close()
      expect_code(0, recording:stop())
      local lines = trace.lines(recording.path)
      assert.same({ "out hello", "in a", "out 1 a", "in send", "out 2 send", "out long", "in close", "out 3 close" },
        frames_of(lines, trace.events(lines, "open")[1].conn))
      assert.equal("agent", trace.events(lines, "close")[1].reason)
    end)

    it("makes no more of a frame than there is room for", function()
      local app = start({}, redacting [[
        return frame == "a" and ("x"):rep(257) or frame == "b" and ("x"):rep(258)
          or frame == "c" and ("x"):rep(3e5) or "y"]])
      local recording = trace.record(app)
      talk(app:connect(), "a\nb\nc\n", "hello", "1 a", "2 b", "3 c"):close()
      local result = recording:stop()
      expect_code(0, result)
      has("failed for 2 frames", result.err)
      local lines = trace.lines(recording.path)
      assert.same({ "out y", "in " .. ("x"):rep(257), "out y", "in #1", "out y", "in #1", "out y" },
        frames_of(lines, trace.events(lines, "open")[1].conn))
    end)

    it("has its time by what it computes, and not by the clock of the wall", function()
      local app = start({}, [[unsafe = { "io.popen" }, ]] .. redacting [[
        local pipe = io.popen "sleep 0.1"
        pipe:read "*a"
        pipe:close()
        return frame]])
      local recording = trace.record(app)
      local client = app:connect()
      client:send "a\nb\nc\n"
      talk(client, "", "hello", "1 a", "2 b", "3 c"):close()
      expect_code(0, recording:stop())
      local lines = trace.lines(recording.path)
      assert.equal(7, lines[#lines].frames)
      assert.equal(0, lines[#lines].redaction_failures)
    end)

    it("that is slow holds up connections for a moment at most", function()
      local app = start({}, redacting [[local x = 0 for i = 1, 1e7 do x = (x + i * i) % 7 end return frame]])
      local recording = trace.record(app)
      local client = app:connect()
      client:send(("two\n"):rep(300))
      talk(client, "", "hello")
      for _ = 1, 300 do talk(client, "", "one", "two", "three") end
      talk(app:connect(), "a\n", "hello", "1 a"):close()
      expect_code(0, recording:stop())
      local lines = trace.lines(recording.path)
      assert.equal(1204, lines[#lines].frames)
      assert.is_true(lines[#lines].redaction_failures > 900)
      assert.is_true(lines[#lines].t < 5)
    end)

    it("has to be a function", function()
      local path = command.write(command.folder() .. "/app.lua", script [[record = { redact = "all" }]])
      local result = command.run { "check", path }
      command.remove(path:match "^(.*)/")
      expect_code(78, result)
      has("record.redact: expects a function", result.err)
    end)
  end)
end)

describe("replay", function()
  local folder

  setup(function()
    folder = command.folder()
    command.write(folder .. "/app.lua", script())
    local OPEN = '{"t":0,"conn":1,"event":"open","worker":0,"listener":"tcp://127.0.0.1:0","peer":"%s"}\n'
    local END = '{"t":1,"event":"end","reason":"client"}\n'
    command.write(folder .. "/good.jsonl", '{"perilune_trace":1}\n' .. OPEN:format "127.0.0.1:5060"
      .. '{"t":0,"conn":1,"event":"out","frame":"hello"}\n' .. END)
    command.write(folder .. "/empty.jsonl", '{"perilune_trace":1}\n' .. END)
    command.write(folder .. "/peer.jsonl", '{"perilune_trace":1}\n' .. OPEN:format "zzz:5" .. END)
    command.write(folder .. "/bad.jsonl", '{"perilune_trace":1}\nnonsense\n{}\n')
    command.write(folder .. "/broken.lua", "return {")
  end)
  teardown(function() command.remove(folder) end)

  local function run(...) return command.run { dir = folder, "replay", ... } end

  it("takes app.lua where no script is named", function()
    local result = run "good.jsonl"
    expect_code(0, result)
    has("1 connection, 1 reply compared: no differences", result.out)
  end)

  it("does not take nothing for no difference", function()
    local result = run "empty.jsonl"
    expect_code(2, result)
    has("empty.jsonl: it has no connection that could be compared", result.err)
  end)

  it("says of a trace that cannot be played why, and not that something differs", function()
    local result = run "peer.jsonl"
    expect_code(2, result)
    has("peer.jsonl: it cannot be replayed: ", result.err)
    has("an address such as", result.err)
  end)

  it("tells by its exit code whose fault it is", function()
    local result = run "bad.jsonl"
    expect_code(2, result)
    has("bad.jsonl:2: not a line of JSON", result.err)
    result = run "none.jsonl"
    expect_code(2, result)
    has("cannot read the trace none.jsonl: No such file", result.err)
    result = run "."
    expect_code(2, result)
    result = run("good.jsonl", "broken.lua")
    expect_code(78, result)
    has("broken.lua", result.err)
  end)

  it("refuses what it does not understand", function()
    for _, case in ipairs {
      { {}, "expects a trace" }, { { "good.jsonl", "app.lua", "more" }, "got 'more' as well" },
      { { "good.jsonl", "--timings=none" }, "did you mean --timing?" },
      { { "good.jsonl", "--timing", "real" }, "expects virtual or none" },
      { { "good.jsonl", "--timing" }, "needs a value" }, { { "good.jsonl", "--ignore", "[" }, "malformed pattern" },
    } do
      local result = run(unpack(case[1]))
      expect_code(2, result)
      has(case[2], result.err)
    end
    has("usage: perilune replay", run("--help").out)
  end)
end)
