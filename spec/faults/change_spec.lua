--- A reload to another script, and an upgrade, in which a call of the system fails: they succeed or say why they did
--- not, and either way connections that are there are answered, as are those that come.
local faults = require "spec.support.faults"
local reload = require "spec.support.reload"
local server = require "spec.support.server"

-- The second has another listener, of a connection that asks for it.
local SCRIPT = [[
  local Agent = {}
  function Agent:proceed(line) return "%s " .. line end
  function Agent:snapshot() return { a = { 1, 2, "x" }, text = ("y"):rep(100) } end
  function Agent:upgrade(data) self.text = data.text end
  return { listen = { "unix://FOLDER/socket", %s }, frame = "line", agent = Agent, reload = "%s",
    timeout = { drain = "2s", upgrade = "20s" } }]]

local function script(version, policy, more)
  return (SCRIPT:format(version, more and '"unix://FOLDER/more"' or "", policy):gsub("FOLDER", "%%s"))
end

-- What it keeps is said by who is given it.
local KEPT = [[
  local Agent, kept = {}, ""
  function Agent:proceed(line) return "%s" .. kept .. " " .. line end
  return { listen = "unix://%s/socket", frame = "line", agent = Agent, timeout = { drain = "2s", upgrade = "20s" },
    workers = 2,
    snapshot = function(app) return { worker = app.worker, text = ("y"):rep(70000) } end,
    setup = function(app, data)
      if not data then return end
      assert(data.worker == app.worker and #data.text == 70000)
      kept = "kept"
    end }]]

local function ask(client)
  local ok, answer = pcall(function() return client:send("x\n"):recv_line():match "^%w+" end)
  if not ok and tostring(answer):find("timeout", 1, true) then error(answer, 0) end
  return ok and answer
end

-- The answer to one who comes; one may have been hit.
local function ask_anew(app)
  for _ = 1, 3 do
    local client = app:connect()
    local answer = ask(client)
    client:close()
    if answer then return answer end
  end
  error("nobody is served any more", 0)
end

-- Lets the 1st, 2nd … call of a kind fail in change(app, fault) → what became of it, until there is none any more.
local function each(kind, settings, change)
  local outcomes = {}
  for number = 1, 400 do
    local fault = ("%s:%d"):format(kind, number)
    local app = faults.start(fault, settings)
    assert.is_nil(app.ended, "the start of " .. fault)
    local ok, outcome = pcall(change, app, fault)
    if not ok then error(("with %s: %s; it said:\n%s"):format(fault, tostring(outcome), app:text()), 0) end
    local had_fired = faults.fired(app)
    server.finish()
    if not had_fired then return number - 1, outcomes end
    outcomes[outcome] = (outcomes[outcome] or 0) + 1
  end
  error(kind .. ": there is no end of them", 2)
end

describe("a reload", function()
  after_each(server.finish)

  local function change_to(policy, more)
    return function(app, fault)
      local old = app:connect()
      assert.equal("one", ask(old))
      reload.rewrite(app, script("two", policy, more):format(app.folder, app.folder))
      faults.arm(app)
      local entry = reload.reload(app)
      local taken = entry.message == "reloaded"
      assert.is_true(taken or entry.message == "reload failed: the old generation serves on", entry.message)
      -- The old connection may be the one that was hit.
      local answer = ask(old)
      assert.is_true(not answer or answer == "one" or (taken and policy == "migrate" and answer == "two"), answer)
      assert.equal(taken and "two" or "one", ask_anew(app))
      old:close()
      assert.equal(0, app:stop().code, fault)
      return taken and "reloaded" or "failed"
    end
  end

  for _, policy in ipairs { "pin", "migrate", "drain" } do
    it("without memory succeeds or says why not: " .. policy, function()
      local calls, outcomes = each("memory", { script = script("one", policy) }, change_to(policy))
      assert.is_true(calls > 20 and outcomes.failed > 5, calls .. " calls")
    end)
  end

  it("that adds a listener, without memory, succeeds or says why not", function()
    local calls, outcomes = each("memory", { script = script("one", "pin") }, change_to("pin", true))
    assert.is_true(calls > 20 and outcomes.failed > 5, calls .. " calls")
  end)

  it("that adds a listener asks libuv for no memory", function()
    assert.equal(0, (each("uv_memory", { script = script("one", "pin") }, change_to("pin", true))))
  end)

  for _, kind in ipairs { "socket", "bind", "listen", "opendir", "epoll_ctl" } do
    it(("without %s() succeeds or says why not"):format(kind), function()
      local calls = each(kind, { script = script("one", "migrate") }, change_to("migrate", true))
      assert.is_true(calls > 0)
    end)
  end
end)

describe("what a script keeps", function()
  after_each(server.finish)

  it("goes to the next generation, or nothing does, without memory", function()
    local calls, outcomes = each("memory", { script = KEPT:format("one", "%s"), workers = 2 }, function(app, fault)
      reload.rewrite(app, KEPT:format("two", app.folder))
      faults.arm(app)
      local taken = reload.reload(app).message == "reloaded"
      assert.equal(taken and "twokept" or "one", ask_anew(app))
      assert.equal(0, app:stop().code, fault)
      return taken and "reloaded" or "failed"
    end)
    assert.is_true(calls > 20 and outcomes.failed > 5, calls .. " calls")
  end)

  for _, kind in ipairs { "memory", "pthread_create", "pipe2" } do
    it(("goes to the next process, or nothing does, without %s"):format(kind), function()
      local _, outcomes = each(kind, { script = KEPT:format("one", "%s"), workers = 2 }, function(app, fault)
        reload.rewrite(app, KEPT:format("two", app.folder))
        faults.arm(app)
        local entry = app:try_upgrade()
        local successor = app:successor(entry)
        assert.equal(successor and "twokept" or "one", ask_anew(successor or app))
        if successor then assert.equal(0, app:wait_end().code) end
        assert.equal(0, (successor or app):stop().code, fault)
        return entry.message
      end)
      assert.is_true(outcomes["upgrade failed: this process serves on"] > 0)
    end)
  end
end)

describe("an upgrade", function()
  after_each(server.finish)

  -- The fault is the new process's as well, from its first call on.
  local function upgrade(app)
    local old = app:connect()
    assert.equal("one", ask(old))
    faults.arm(app)
    local entry = app:try_upgrade()
    local successor = app:successor(entry)
    local serving = successor or app
    ask(old)
    assert.equal("one", ask_anew(serving))
    old:close()
    if successor then assert.equal(0, app:wait_end().code) end
    assert.equal(0, serving:stop().code)
    return entry.message
  end

  for _, kind in ipairs { "memory", "uv_memory", "pipe2", "socket", "epoll_create1", "epoll_ctl", "eventfd",
    "pthread_create", "getsockname" } do
    it(("without %s succeeds or says why not"):format(kind), function()
      local calls, outcomes = each(kind, { script = script("one", "pin"), workers = 1 }, upgrade)
      assert.is_true(calls > 0 and outcomes["upgrade failed: this process serves on"] > 0)
    end)
  end
end)
