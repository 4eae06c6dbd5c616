--- A connection's turn ends, and so does that of all whom one event concerns: with real sockets and handlers that
--- compute. Judged by the order in which things were handled, which no busy machine changes.
local command = require "spec.support.command"
local operator = require "spec.support.operator"
local server = require "spec.support.server"
local support = require "spec.support.reload"
local trace = require "spec.support.trace"

local FRAMES = server.scaled(40, 20)

-- burn(): 20 ms of the processor's time.
local HEAD = server.NOTE .. [[
  local clock = os.clock
  local function burn() local stop = clock() + 0.02; while clock() < stop do end end
  local Agent = {}
]]

local function lines_of(what, n)
  local lines = {}
  for i = 1, n do lines[i] = what .. " " .. i .. "\n" end
  return table.concat(lines)
end

-- Its batches are as large as they get.
local function warm(client)
  for _ = 1, 6 do
    client:send(lines_of("fast", 256))
    for i = 1, 256 do assert.equal("fast " .. i, client:recv_line()) end
  end
  return client
end

-- The entries that a pattern captures, in the order of the log.
local function noted(app, pattern)
  local found = {}
  for _, entry in ipairs(app:log()) do found[#found + 1] = entry.message:match(pattern) end
  return found
end

-- How many in a row are such entries, at most, until the last of the others.
local function longest_row(app, pattern, other)
  local row, longest = 0, 0
  for _, entry in ipairs(app:log()) do
    if entry.message:find(pattern) then
      row = row + 1
    elseif entry.message:find(other) then
      longest, row = math.max(longest, row), 0
    end
  end
  return longest
end

describe("a turn", function()
  after_each(server.finish)

  for what, frame in pairs {
    ["strings"] = [["line"]],
    ["views"] = [[{ "line", view = true }]],
    ["values of a codec in Lua"] = [[{ max = "1k", encode = function(reply) return reply .. "\n" end,
      decode = function(bytes, at)
        local stop = bytes:find("\n", at, true)
        if stop then return bytes:sub(at, stop - 1), stop + 1 end
      end }]],
  } do
    it("ends in the midst of a batch of " .. what, function()
      local app = server.start { script = HEAD .. [[
        local held = {}
        function Agent:proceed(line)
          line = tostring(line)
          if line:find "^slow" then note(line) burn() end
          if line == "hold" then held[#held + 1] = self.conn; self.conn:pause() end
          if line == "go" then for i = 1, #held do held[i]:resume() end end
          if line == "quick" then note(line) end
          return line
        end
        return { listen = "tcp://127.0.0.1:0", agent = Agent, frame = ]] .. frame .. " }" }
      local client, neighbour = warm(app:connect()), app:connect()
      client:echo_line "hold"
      neighbour:echo_line "hold"
      client:send(lines_of("slow", FRAMES))
      neighbour:send "quick\n"
      app:connect():echo_line "go"
      assert.equal("quick", neighbour:recv_line())
      for i = 1, FRAMES do assert.equal("slow " .. i, client:recv_line()) end
      client:echo_line "fast"
      assert.is_true(longest_row(app, "^slow", "^quick") < FRAMES / 2)
    end)
  end

  it("ends while hundreds are accepted at once, and nobody is lost", function()
    local clients_max = server.scaled(60, 30)
    local app = server.start { script = HEAD .. [[
      local met = 0
      function Agent:opened()
        met = met + 1
        self.n = met
        if met > 1 then note("opened " .. self.n) burn() end
      end
      function Agent:proceed(line)
        if line == "block" then note(line) for _ = 1, 50 do burn() end end
        perilune.sleep(0)
        note(line)
        return line .. " of " .. self.n
      end
      return { listen = "tcp://127.0.0.1:0", agent = Agent, frame = "line" }]] }
    local neighbour = app:connect():echo_line("x 1", "x 1 of 1")
    neighbour:send("block\n" .. lines_of("turn", 2 * clients_max))
    app:wait_log "block"
    local clients = app:connect_many(clients_max)
    for i, client in ipairs(clients) do client:echo_line("x", "x of " .. i + 1) end
    for _ = 0, 2 * clients_max do neighbour:recv_line() end
    local opened = noted(app, "^opened (.*)")
    for i = 1, clients_max do assert.equal(tostring(i + 1), opened[i]) end
    assert.is_true(longest_row(app, "^opened", "^turn") <= 4)
  end)

  it("ends while many connections migrate", function()
    local clients_max = 24
    local function script(version)
      return HEAD .. ([[
        local function is_quick()
          local file = io.open "quick"
          return file and file:close()
        end
        function Agent:proceed(line)
          while line == "spin" and not is_quick() do note "turn" burn() perilune.sleep(0) end
          return %q
        end
        function Agent:snapshot() note "snapshot" burn() return {} end
        function Agent:upgrade() burn() end
        return { listen = "tcp://127.0.0.1:0", agent = Agent, frame = "line", reload = "migrate" }]]):format(version)
    end
    local app = server.start { script = script "one" }
    local clients = app:connect_many(clients_max)
    for _, client in ipairs(clients) do client:echo_line("x", "one") end
    local neighbour = app:connect():send "spin\n"
    app:wait_log "turn"
    support.reload_to(app, script "two")
    app:wait_log("snapshot", nil, clients_max)
    app:wait_log("turn", nil, #app:find_log "turn" + 1)
    command.write(app.folder .. "/quick", "")
    assert.equal("one", neighbour:recv_line())
    for _, client in ipairs(clients) do client:echo_line("x", "two") end
    assert.is_true(longest_row(app, "^snapshot", "^turn") <= 2)
  end)
end)

-- What comes between two turns of one batch: its slow lines take their time until the file "quick" is there.
describe("between two turns", function()
  after_each(server.finish)

  local function script(version, settings)
    return HEAD .. ([[
      local function is_quick()
        local file = io.open "quick"
        return file and file:close()
      end
      function Agent:proceed(line)
        if line:find "^slow" and not is_quick() then note(line) burn() end
        return %q .. " " .. line
      end
      function Agent:snapshot() return {} end
      function Agent:upgrade() end
      function Agent:closed(reason) note("closed " .. reason) end
      return { listen = "tcp://127.0.0.1:0", agent = Agent, frame = "line", %s }]]):format(version, settings or "")
  end

  local function hurry(app) command.write(app.folder .. "/quick", "") end

  local function begin(settings, options)
    options = options or {}
    options.script = script("one", settings)
    local app = server.start(options)
    local client = app:connect()
    for _ = 1, 6 do
      client:send(lines_of("fast", 256))
      for i = 1, 256 do assert.equal("one fast " .. i, client:recv_line()) end
    end
    client:send(lines_of("slow", 256))
    app:wait_log "slow 1"
    return app, client
  end

  -- All are answered in order, first by `one` and then by `two`; returns how many by each.
  local function answered(client)
    local by = { one = 0, two = 0 }
    for i = 1, 256 do
      local version, n = client:recv_line():match "^(%a+) slow (%d+)$"
      assert.equal(tostring(i), n)
      assert.is_true(version == "one" or by.two == i - 1 - by.one)
      by[version] = by[version] + 1
      assert.is_true(version == "two" or by.two == 0)
    end
    return by
  end

  it("a reload takes effect: the frames that are left are the new code's", function()
    local app, client = begin [[reload = "migrate"]]
    support.reload_to(app, script("two", [[reload = "migrate"]]))
    app:wait_log { message = "generation retired", generation = 1 }
    hurry(app)
    assert.is_true(answered(client).two > 0)
  end)

  it("a reload leaves a pinned connection its frames and its code", function()
    local app, client = begin()
    support.reload_to(app, script "two")
    hurry(app)
    assert.same({ one = 256, two = 0 }, answered(client))
    app:connect():echo_line("x", "two x")
  end)

  it("a reload that drains has all of its frames served", function()
    local app, client = begin [[reload = "drain"]]
    support.reload_to(app, script("two", [[reload = "drain"]]))
    hurry(app)
    assert.same({ one = 256, two = 0 }, answered(client))
    client:expect_closed()
  end)

  it("a stop has all of its frames served", function()
    local app, client = begin()
    app:signal "TERM"
    app:wait_log "draining"
    hurry(app)
    assert.same({ one = 256, two = 0 }, answered(client))
    client:expect_closed()
    assert.equal(0, app:wait_end().code)
  end)

  it("an upgrade has all of its frames served", function()
    local app, client = begin()
    local successor = app:upgrade()
    hurry(app)
    assert.same({ one = 256, two = 0 }, answered(client))
    client:expect_closed()
    successor:connect():echo_line("x", "one x")
  end)

  it("an end by the operator comes at once, and what was answered is delivered", function()
    local app, client = begin(nil, { control = "control.sock" })
    assert.equal(0, operator.run(app, "kick", tostring(app:find_log("slow 1")[1].conn)).code)
    hurry(app)
    local bytes, how = client:recv_all()
    assert.equal("closed", how)
    local n = 0
    for line in bytes:gmatch "[^\n]+" do
      n = n + 1
      assert.equal("one slow " .. n, line)
    end
    assert.is_true(n < 256)
    app:wait_log "closed kick"
  end)

  it("a recording goes on, and replays alike", function()
    local app = server.start { script = script "one", control = "control.sock" }
    local recording = trace.record(app)
    local client, neighbour = app:connect(), app:connect()
    client:send(lines_of("slow", FRAMES))
    neighbour:send(lines_of("slow", 3))
    for i = 1, 3 do assert.equal("one slow " .. i, neighbour:recv_line()) end
    for i = 1, FRAMES do assert.equal("one slow " .. i, client:recv_line()) end
    client:close()
    neighbour:close()
    app:wait_log("closed peer", nil, 2)
    assert.equal(0, recording:stop().code)
    hurry(app) -- once more, but in no time
    local result = trace.replay(app, recording.path, script "one")
    assert.equal(0, result.code, result.out .. result.err)
  end)
end)
