--- A turn of one connection ends after about 10 ms of handlers, however much there is for it to do, and so does that of
--- all whom one event concerns: others are served, and then the rest, in its order.
local memory = require "spec.support.memory"
local core = require "perilune"
local perilune = require "perilune.test"

local SLOW = 30 -- so many things that take 20 ms each

-- Everything that happened, in order: what is slow is noted as "slow 1", what the neighbour says as it is.
local function slow(what)
  memory.note("slow " .. what)
  perilune.spend "20ms"
end

local function happened(app)
  local what = {}
  for _, entry in ipairs(app:log()) do what[#what + 1] = entry.message end
  return what
end

local function all_slow(app)
  local names = {}
  for _, what in ipairs(happened(app)) do names[#names + 1] = what:match "^slow (.+)" end
  return names
end

-- 1 … n, or n … 1.
local function numbers(n, backwards)
  local all = {}
  for i = 1, n do all[backwards and n + 1 - i or i] = tostring(i) end
  return all
end

-- How many slow things came in a row. The neighbour has a line for each of them, and is read line by line.
local function longest_row(app)
  local row, longest = 0, 0
  for _, what in ipairs(happened(app)) do
    row = what:find "^slow " and row + 1 or 0
    longest = math.max(longest, row)
  end
  return longest
end

-- A client whose every line is read in a poll of its own; the first one lets `go` happen.
local function neighbour(app)
  local client = app:connect { read_max = 5, frame = "line" }
  local lines = { "go 0\n" }
  for i = 1, 2 * SLOW do lines[#lines + 1] = ("n %02d\n"):format(i) end
  client:send_raw(table.concat(lines))
  client:expect "go 0"
  for i = 1, 2 * SLOW do client:expect(("n %02d"):format(i)) end
  return client
end

-- An agent that leaves lines of the neighbour's to this one, and what else is said to `proceed`.
local function agent(go, proceed)
  local Agent, kept = {}, {}
  function Agent:proceed(line)
    line = tostring(line)
    if line == "keep" then
      kept[#kept + 1] = self
      return line
    end
    if line:find "^n %d" then memory.note(line) return line end
    if line == "go 0" then
      go(kept)
      return line
    end
    return proceed(self, line)
  end
  return Agent
end

local function keep(app, n)
  local clients = {}
  for i = 1, n or 1 do clients[i] = app:connect({ frame = "line" }):send("keep"):expect "keep" end
  return unpack(clients)
end

-- Its batches are as large as they get.
local function warm(client)
  for _ = 1, 4 do
    for i = 1, 256 do client:send("fast " .. i) end
    client:skip(256)
  end
end

local function let_go(kept)
  for _, each in ipairs(kept) do each.conn:resume() end
end

local function decode(bytes, position)
  local stop = bytes:find("\n", position, true)
  if stop then return bytes:sub(position, stop - 1), stop + 1 end
end

local function encode(reply) return reply .. "\n" end

describe("a connection's turn ends", function()
  after_each(memory.finish)

  -- A client has sent so many lines while it was paused.
  local function held(Agent, settings)
    local app = memory.start(Agent, settings)
    local client = keep(app)
    warm(client)
    client:send("hold"):expect "hold"
    local lines = {}
    for i = 1, SLOW do lines[i] = "slow " .. i .. "\n" end
    client:send_raw(table.concat(lines)):expect_nothing()
    return app, client
  end

  local function proceed(self, line)
    if line == "hold" then self.conn:pause() end
    if line:find "^slow" then slow(line:match "%d+") end
    return line
  end

  local function served(app, client)
    assert.is_true(longest_row(app) <= 2)
    assert.same(numbers(SLOW), all_slow(app))
    for i = 1, SLOW do client:expect("slow " .. i) end
    client:send("fast"):expect "fast"
  end

  for what, frame in pairs {
    ["strings"] = "line",
    ["views"] = { "line", view = true },
    ["values of a codec in Lua"] = { decode = decode, encode = encode, max = "1k" },
  } do
    it("in the midst of a batch of " .. what, function()
      local app, client = held(agent(let_go, proceed), { frame = frame })
      local before = app:now()
      neighbour(app)
      assert.is_true(math.abs(app:now() - before - 0.02 * SLOW) < 0.0001)
      served(app, client)
    end)
  end

  it("while a codec decodes", function()
    local function slow_decode(bytes, position)
      local line, after = decode(bytes, position)
      if line and line:find "^slow" then slow(line:match "%d+") end
      return line, after
    end
    local function plain(self, line)
      if line == "hold" then self.conn:pause() end
      return line
    end
    local app, client = held(agent(let_go, plain), { frame = { decode = slow_decode, encode = encode, max = "1k" } })
    neighbour(app)
    served(app, client)
  end)

  it("while a codec skips what is no frame", function()
    local function slow_decode(bytes, position)
      local line, after = decode(bytes, position)
      if not line or not line:find "^slow" then return line, after end
      slow(line:match "%d+")
      return nil, after
    end
    local function plain(self, line)
      if line == "hold" then self.conn:pause() end
      return line
    end
    local app, client = held(agent(let_go, plain), { frame = { decode = slow_decode, encode = encode, max = "1k" } })
    neighbour(app)
    assert.is_true(longest_row(app) <= 2)
    assert.same(numbers(SLOW), all_slow(app))
    client:send("fast"):expect "fast"
  end)

  it("while a codec encodes", function()
    local function slow_encode(reply)
      if reply:find "^slow" then slow(reply:match "%d+") end
      return reply .. "\n"
    end
    local function plain(self, line)
      if line == "hold" then self.conn:pause() end
      return line
    end
    local app, client = held(agent(let_go, plain), { frame = { decode = decode, encode = slow_encode, max = "1k" } })
    neighbour(app)
    served(app, client)
  end)

  -- Replies that are encoded in several turns.
  local function encoding(lines, slow_encode)
    local app = memory.start({ proceed = function(_, line)
      if line == "end" then return line, "close" end
      return line
    end }, { frame = { decode = decode, encode = slow_encode, max = "1k" } })
    local client = app:connect { frame = "line" }
    warm(client)
    return app, client:send_raw(table.concat(lines, "\n") .. "\n")
  end

  local function slow_lines(n)
    local lines = {}
    for i = 1, n do lines[i] = "slow " .. i end
    return lines
  end

  local function slow_encode(reply)
    if reply:find "^slow" then perilune.spend "20ms" end
    return reply .. "\n"
  end

  it("while a codec encodes, and then the reply ends the connection", function()
    local lines = slow_lines(SLOW)
    lines[#lines + 1] = "end"
    local _, client = encoding(lines, slow_encode)
    for _, line in ipairs(lines) do client:expect(line) end
    client:expect_closed "agent"
  end)

  it("while a codec encodes, and its peer has shut its side", function()
    local lines = slow_lines(SLOW)
    local _, client = encoding({}, slow_encode)
    client:send_raw(table.concat(lines, "\n") .. "\n"):half_close()
    client:skip(1) -- what an empty line came back as
    for _, line in ipairs(lines) do client:expect(line) end
    client:expect_closed "peer"
  end)

  it("while a codec encodes, until it fails", function()
    local app, client = encoding(slow_lines(SLOW), function(reply)
      if reply == "slow 10" then error "no tens" end
      return slow_encode(reply)
    end)
    for i = 1, 9 do client:expect("slow " .. i) end
    client:expect_closed "error"
    assert.equal("encode", app:faults()[1].callback)
    assert.equal(1, #app:faults())
  end)

  it("in a loop of conn:read that has its bytes already", function()
    local function reading(self, line)
      if line == "hold" then self.conn:pause() end
      while line:find "^slow" do
        slow(line:match "%d+")
        self.conn:send(line)
        line = self.conn:read()
      end
      return line
    end
    local app, client = held(agent(let_go, reading), { frame = "line" })
    neighbour(app)
    assert.is_true(longest_row(app) <= 2)
    for i = 1, SLOW do client:expect("slow " .. i) end
    client:send("end"):expect "end"
  end)

  it("in the midst of its deferred functions, which end before its peer sees the end", function()
    local function go(kept) kept[1].conn:close() end
    local function defer(self, line)
      for i = 1, SLOW do self.conn:defer(function() slow(i) end) end
      return line
    end
    local app = memory.lines(agent(go, defer))
    local client = keep(app):send("defer"):expect "defer"
    neighbour(app)
    assert.is_true(longest_row(app) <= 2)
    assert.same(numbers(SLOW, true), all_slow(app))
    client:expect_closed "agent"
  end)

  it("but it is not idle while frames wait for the next one", function()
    local app, client = held(agent(let_go, proceed), { frame = "line", timeout = { idle = "100ms" } })
    neighbour(app)
    served(app, client)
  end)

  it("and nothing more is handed up if another ends it meanwhile", function()
    local victim
    local function go(kept)
      victim = kept[1]
      victim.conn:resume()
    end
    local Agent = agent(go, proceed)
    local plain = Agent.proceed
    function Agent:proceed(line)
      if line == "n 03" then victim.conn:close() end
      return plain(self, line)
    end
    local app, client = held(Agent, { frame = "line" })
    neighbour(app)
    local done = #all_slow(app)
    assert.is_true(done >= 2 and done <= 4)
    for i = 1, done do client:expect("slow " .. i) end
    client:expect_closed "agent"
  end)
end)

describe("what concerns many at once lets others have their turn:", function()
  after_each(memory.finish)

  local function check(app)
    neighbour(app)
    assert.is_true(longest_row(app) <= 3)
    assert.same(numbers(SLOW), all_slow(app))
  end

  -- Agents that are numbered, in the order of their connections.
  local function numbered(app, n)
    local clients = { keep(app, n) }
    for i, client in ipairs(clients) do client:send("number " .. i):expect("number " .. i) end
    return clients
  end

  local function number(self, line)
    self.n = self.n or line:match "^number (%d+)"
    return line
  end

  it("ends", function()
    local Agent = agent(function(kept) for _, each in ipairs(kept) do each.conn:close() end end, number)
    function Agent:closed() if self.n then slow(self.n) end end
    local app = memory.lines(Agent)
    numbered(app, SLOW)
    check(app)
  end)

  it("time-outs", function()
    local Agent = agent(function() perilune.spend "10s" end, function(self, line)
      self.conn:set_timeout("idle", "5s")
      return number(self, line)
    end)
    function Agent:timeout()
      slow(self.n)
      self.conn:set_timeout("idle", 0)
      return true
    end
    local app = memory.lines(Agent, { timeout = { idle = 0 } })
    numbered(app, SLOW)
    check(app)
  end)

  it("waits that are over", function()
    local Agent = agent(function() perilune.spend "10s" end, function(self, line)
      number(self, line)
      if line == "sleep" then
        core.sleep "5s"
        slow(self.n)
        core.sleep(0) -- is no way to be before the others
        memory.note("woke " .. self.n)
      end
      return line
    end)
    local app = memory.lines(Agent)
    for _, client in ipairs(numbered(app, SLOW)) do client:send "sleep" end
    check(app)
    local woke = {}
    for _, what in ipairs(happened(app)) do woke[#woke + 1] = what:match "^woke (.+)" end
    assert.same(numbers(SLOW), woke)
  end)

  it("frames", function()
    local Agent = agent(let_go, function(self, line)
      number(self, line)
      if line == "hold" then self.conn:pause() end
      if line == "slow" then slow(self.n) end
      return line
    end)
    local app = memory.lines(Agent)
    local clients = numbered(app, SLOW)
    -- They have come to the connection, and wait there.
    for _, client in ipairs(clients) do client:send("hold", "slow"):expect "hold" end
    check(app)
    for _, client in ipairs(clients) do client:expect "slow" end
  end)
end)
