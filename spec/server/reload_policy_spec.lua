--- `perilune reload --policy`: for one reload, instead of what the script says.
local command = require "spec.support.command"
local has = require "spec.support.has"
local json_decode = require "spec.support.json_decode"
local operator = require "spec.support.operator"
local server = require "spec.support.server"
local support = require "spec.support.reload"
local wait = require "spec.support.wait"

-- Answers with `version`, the line and how many there have been, which migrating takes along; says "bye" at a drain.
local function script(version, policy, more)
  return support.HEAD .. ([[
    function Agent:opened() self.n = 0 end
    function Agent:proceed(line)
      self.n = self.n + 1
      return ("%s %%s %%d"):format(line, self.n)
    end
    function Agent:snapshot() return self.n end
    function Agent:upgrade(n) self.n = n end
    function Agent:drain() self.conn:send "bye" end
    return { listen = "tcp://127.0.0.1:0", frame = "line", agent = Agent, reload = { policy = %q, %s },
      timeout = { drain = "200ms" } }]]):format(version, policy or "pin", more or "")
end

local function start(text, workers)
  return server.start { script = text, workers = workers, control = "control.sock" }
end

local run = operator.run

-- Reloads and waits; the outcome, as JSON.
local function reload(app, ...)
  local result = run(app, "reload", "--wait", "--json", ...)
  local answer = json_decode(result.out)
  if not answer.ok then error(result.out, 2) end
  return answer.reload
end

local function reload_to(app, text, ...)
  support.rewrite(app, text)
  local outcome = reload(app, ...)
  assert.equal("reloaded", outcome.outcome)
  return outcome
end

local function retired(app, generation, workers)
  wait.until_true("the old generation to go", function()
    return #app:find_log { message = "generation retired", generation = generation } == (workers or 1)
  end)
end

describe("perilune reload --policy", function()
  after_each(server.finish)

  it("migrate takes those along that the script would pin", function()
    local app = start(script "one", 2)
    local one, two = app:connect():echo_line("a", "one a 1"), app:connect():echo_line("a", "one a 1")
    assert.equal("migrate", reload_to(app, script "two", "--policy", "migrate").policy)
    assert.equal("migrate", app:wait_log("reloaded").policy)
    retired(app, 1, 2)
    one:echo_line("b", "two b 2")
    two:echo_line("b", "two b 2")
  end)

  it("drain ends those that the script would migrate", function()
    local app = start(script("one", "migrate"))
    local old = app:connect():echo_line("a", "one a 1")
    reload_to(app, script("two", "migrate"), "--policy=drain")
    assert.equal("bye\n", (old:recv_all()))
    retired(app, 1)
    app:connect():echo_line("a", "two a 1")
  end)

  it("pin keeps those that the script would drain", function()
    local app = start(script("one", "drain"))
    local old = app:connect():echo_line("a", "one a 1")
    reload_to(app, script("two", "drain"), "--policy", "pin")
    app:connect():echo_line("a", "two a 1")
    old:expect_silence(0.4)
    old:echo_line("b", "one b 2")
  end)

  it("holds for all listeners", function()
    local function two(version)
      return (script(version):gsub([[listen = "tcp://127.0.0.1:0"]], [[listen = {
        { "tcp://127.0.0.1:0", name = "a", reload = "pin" }, { "tcp://127.0.0.1:0", name = "b", reload = "drain" } }]]))
    end
    local app = start(two "one")
    local a, b = app:connect { listener = 1 }, app:connect { listener = 2 }
    a:echo_line("x", "one x 1")
    b:echo_line("x", "one x 1")
    reload_to(app, two "two", "--policy=migrate")
    retired(app, 1)
    a:echo_line("y", "two y 2")
    b:echo_line("y", "two y 2")
  end)

  it("is for that one reload", function()
    local app = start(script "one")
    reload_to(app, script "two", "--policy=drain")
    local second = app:connect():echo_line("a", "two a 1")
    assert.is_nil(reload_to(app, script "three").policy)
    app:connect():echo_line("a", "three a 1")
    second:expect_silence(0.4)
    second:echo_line("b", "two b 2")
  end)

  it("drains those whom an earlier reload has pinned, though nothing has changed", function()
    local app = start(script "one", 2)
    local one, two = app:connect():echo_line("a", "one a 1"), app:connect():echo_line("a", "one a 1")
    reload_to(app, script "two")
    local new = app:connect():echo_line("a", "two a 1")
    local outcome = reload(app, "--policy", "drain")
    assert.same({ "reloaded", 2, "nothing has changed", "drain" },
      { outcome.outcome, outcome.generation, outcome.message, outcome.policy })
    assert.equal("drain", app:wait_log("reload: nothing has changed").policy)
    assert.equal("bye\n", (one:recv_all()))
    assert.equal("bye\n", (two:recv_all()))
    retired(app, 1, 2)
    new:echo_line("b", "two b 2")
  end)

  it("drains everybody the second time, though the first was called off in the middle", function()
    local slow = script("one"):gsub([[drain = "200ms"]], [[drain = "2s"]])
    local app = start(slow)
    local clients = app:connect_many(60)
    for _, one in ipairs(clients) do one:echo_line("a", "one a 1") end
    reload_to(app, (slow:gsub([["one ]], [["two ]])), "--policy", "drain")
    reload(app, "--policy", "pin")
    wait.pause(0.7)
    reload(app, "--policy", "drain")
    for _, one in ipairs(clients) do assert.equal("bye\n", (one:recv_all())) end
    retired(app, 1)
  end)

  it("migrates them likewise", function()
    local app = start(script "one")
    local old = app:connect():echo_line("a", "one a 1")
    reload_to(app, script "two")
    old:echo_line("b", "one b 2")
    reload(app, "--policy", "migrate")
    retired(app, 1)
    old:echo_line("c", "two c 3")
  end)

  it("drain makes room where too many old generations have connections", function()
    local app = start(script("one", "pin", "keep = 1"))
    local old = app:connect():echo_line("a", "one a 1")
    reload_to(app, script("two", "pin", "keep = 1"))
    local second = app:connect():echo_line("a", "two a 1")
    support.rewrite(app, script("three", "pin", "keep = 1"))
    local refused = run(app, "reload", "--wait")
    assert.equal(1, refused.code)
    has("--policy drain", refused.err)
    assert.equal("drain", reload(app, "--policy=drain").policy)
    assert.equal("bye\n", (old:recv_all()))
    assert.equal("bye\n", (second:recv_all()))
    app:connect():echo_line("a", "three a 1")
  end)

  it("of whoever asked last holds for the reload that follows the one under way", function()
    local app = start(script "one")
    local old = app:connect():echo_line("a", "one a 1")
    -- All three are there before the first of them has been loaded, as a busy top level gives them the time.
    support.rewrite(app, "local t = os.clock() + 0.3 while os.clock() < t do end " .. script "two")
    local asking = {}
    for i, policy in ipairs { "pin", "drain", "migrate" } do
      asking[i] = app:connect { path = app.folder .. "/control.sock" }
      asking[i]:send(([[{"command":"reload","wait":true,"policy":%q}]]):format(policy) .. "\n")
      -- By its answer the request before it has been read.
      app:connect({ path = app.folder .. "/control.sock" }):send('{"command":"status"}\n'):recv_line()
    end
    local outcomes = {}
    for i, one in ipairs(asking) do outcomes[i] = json_decode(one:recv_line()).reload end
    assert.same({ "pin", "migrate", "migrate" }, { outcomes[1].policy, outcomes[2].policy, outcomes[3].policy })
    assert.same({ 1, 2, 2 }, { outcomes[1].number, outcomes[2].number, outcomes[3].number })
    assert.equal("nothing has changed", outcomes[3].message)
    retired(app, 1)
    old:echo_line("b", "two b 2")
  end)

  it("without --wait answers at once", function()
    local app = start(script "one")
    local old = app:connect():echo_line("a", "one a 1")
    support.rewrite(app, script "two")
    -- ThreadSanitizer does not see libuv close a client's descriptor; ours stays open while the loader opens others.
    local client = app:connect { path = app.folder .. "/control.sock" }
    local answer = json_decode(client:send('{"command":"reload","policy":"drain"}\n'):recv_line())
    assert.same({ true, 1 }, { answer.ok, answer.reload.number })
    assert.equal("bye\n", (old:recv_all()))
  end)

  it("that is unknown is wrong usage, and no request", function()
    local result = command.run { "reload", "--policy", "kill" }
    assert.equal(2, result.code)
    has("--policy expects pin, migrate or drain, got 'kill'", result.err)
    local app = start(script "one")
    local client = app:connect { path = app.folder .. "/control.sock" }
    for policy, answer in pairs {
      ['"kill"'] = [["policy" is to be "pin", "migrate" or "drain", not "kill"]], ["1"] = [["policy" is to be a text]],
    } do
      client:send(([[{"command":"reload","policy":%s}]]):format(policy) .. "\n")
      local got = json_decode(client:recv_line())
      assert.same({ false, "bad_request", answer }, { got.ok, got.code, got.error })
    end
    assert.same({}, support.outcomes(app))
  end)
end)
