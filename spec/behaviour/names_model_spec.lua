--- Random programs of names against a simple model: who has which name, and what has to come of what is sent, whatever
--- is registered, ended, stalled or reloaded meanwhile.
local core = require "perilune"
local memory = require "spec.support.memory"
local perilune = require "perilune.test"

local WORKERS, CLIENTS, KEYS = 3, 8, 5

-- Answers to commands begin with "=", messages that have come with "<", results of calls with ">".
local function script(version)
  local Agent = {}

  local function show(result, _, code) return tostring(result == nil and code or result) end

  function Agent:proceed(line)
    local what, key, n = line:match "^(%a+) ?(%w*) ?(%d*)$"
    if what == "register" then return "=" .. show(core.register(key)) end
    if what == "replace" then return "=" .. show(core.register(key, { replace = true })) end
    if what == "unregister" then return "=" .. show(core.unregister(key)) end
    if what == "send" then return "=" .. show(core.send(key, self.name .. " " .. n)) end
    if what == "table" then return "=" .. show(core.send(key, { self.name .. " " .. n })) end
    if what == "call" then
      core.spawn(function() self.conn:send((">%s %s"):format(n, show(core.call(key, self.name .. " " .. n, "3s")))) end)
      return "=begun"
    end
    if what == "name" then self.name = key return "=named" end
    core.sleep "1s"
    return "=slept"
  end

  function Agent:message(_, data)
    self.conn:send("<" .. (type(data) == "table" and data[1] or data))
    return "reply"
  end

  function Agent:snapshot() return self.name end
  function Agent:upgrade(name) self.name = name end

  return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent, reload = "migrate",
    timeout = { idle = false }, setup = function() return version end }
end

local function run(seed, steps)
  local state = seed
  local function draw(n)
    state = (state * 16807) % 2147483647
    return state % n + 1
  end

  local app = perilune.app(script(1), nil, { workers = WORKERS })
  local clients, serial, owner, stalled = {}, 0, {}, {}
  local sent, taken, calls = {}, {}, {}

  local function is_free(client)
    return client and not stalled[client.worker] and client.busy_until <= app:now()
  end

  local function take_frame(client, frame)
    local sign, text = frame:sub(1, 1), frame:sub(2)
    if sign == "=" then
      client.answer = text
    elseif sign == "<" then
      local from, n = text:match "^(%w+) (%d+)$"
      n = tonumber(n)
      assert(sent[n] and sent[n].to == client, "a message of another: " .. text)
      assert(not taken[n], "twice: " .. text)
      assert(n > (client.last[from] or 0), ("out of order: %d after %d"):format(n, client.last[from] or 0))
      client.last[from], taken[n] = n, true
    else
      local n, result = text:match "^(%d+) (.*)$"
      local call = assert(calls[tonumber(n)], "a reply that nobody waits for: " .. text)
      assert(result == "reply" and taken[tonumber(n)] or result == "ECANCELED" or result == "ETIMEDOUT"
        or result == call.wanted, text)
      calls[tonumber(n)] = nil
    end
  end

  -- Whoever was sent to has got it before who has called gets the reply, but not before we look.
  local function look()
    local later = {}
    for _, client in pairs(clients) do
      for _, frame in ipairs(client.client:frames()) do
        if frame:sub(1, 1) == ">" then
          later[#later + 1] = { client, frame }
        else
          take_frame(client, frame)
        end
      end
    end
    for _, one in ipairs(later) do take_frame(one[1], one[2]) end
  end

  local function resume_all()
    for worker in pairs(stalled) do app:resume(worker) end
    stalled = {}
    look()
  end

  local function ask(client, line)
    client.answer = nil
    client.client:send(line)
    look()
    return client.answer
  end

  local function connect(at)
    serial = serial + 1
    local client = { client = app:connect(), name = "c" .. serial, busy_until = 0, last = {}, own = {} }
    client.worker = client.client:worker()
    if stalled[client.worker] then
      app:resume(client.worker)
      stalled[client.worker] = nil
    end
    clients[at] = client
    assert.equal("named", ask(client, "name " .. client.name))
  end

  local function close(at)
    local client = clients[at]
    look()
    client.client:close()
    app:settle()
    look()
    for key, one in pairs(owner) do
      if one == client then owner[key] = nil end
    end
    for n, call in pairs(calls) do
      if call.by == client then calls[n] = nil end
    end
    clients[at] = nil
  end

  local function register(client, key)
    local replaces = draw(2) == 1
    local wanted = (not owner[key] or owner[key] == client or replaces) and "true" or "EEXIST"
    assert.equal(wanted, ask(client, (replaces and "replace " or "register ") .. key))
    if wanted == "true" then owner[key] = client end
  end

  local function unregister(client, key)
    assert.equal(tostring(owner[key] == client), ask(client, "unregister " .. key))
    if owner[key] == client then owner[key] = nil end
  end

  local function send(client, key)
    serial = serial + 1
    if owner[key] then sent[serial] = { to = owner[key] } end
    local what = draw(3) == 1 and "table " or "send "
    assert.equal(owner[key] and "true" or "ENOENT", ask(client, what .. key .. " " .. serial))
  end

  local function call(client, key)
    serial = serial + 1
    if owner[key] then sent[serial] = { to = owner[key] } end
    calls[serial] = { by = client, wanted = not owner[key] and "ENOENT" or nil }
    assert.equal("begun", ask(client, "call " .. key .. " " .. serial))
  end

  local version = 1
  local DO = {
    function(client, at) if client then close(at) else connect(at) end end,
    function(client, _, key) register(client, key) end,
    function(client, _, key) register(client, key) end,
    function(client, _, key) unregister(client, key) end,
    function(client, _, key) send(client, key) end,
    function(client, _, key) send(client, key) end,
    function(client, _, key) send(client, key) end,
    function(client, _, key) call(client, key) end,
    function(client, _, key) call(client, key) end,
    function(client)
      client.client:send "sleep"
      client.busy_until = app:now() + 1
    end,
    function()
      local worker = draw(WORKERS) - 1
      if stalled[worker] then app:resume(worker) else app:stall(worker) end
      stalled[worker] = not stalled[worker] or nil
    end,
    function() app:advance(draw(2000) / 1000) end,
    function()
      if draw(10) > 1 then return end
      version = version + 1
      resume_all()
      app:reload(script(version))
    end,
  }

  for _ = 1, steps do
    local at, key = draw(CLIENTS), "k" .. draw(KEYS)
    local client = clients[at]
    if not client or is_free(client) then
      local what = client and draw(#DO) or 1
      DO[what](client, at, key)
      look()
    else
      app:advance(0.1)
      look()
      if draw(5) == 1 then resume_all() end
    end
  end
  resume_all()
  app:advance "10s"
  look()
  assert.is_nil(next(calls), "a call that is never answered")
  for n, message in pairs(sent) do
    local is_open = false
    for _, client in pairs(clients) do is_open = is_open or client == message.to end
    assert(taken[n] or not is_open, "a message that never came")
  end
  local c = app:counters()
  local n_sent, n_taken = 0, 0
  for _ in pairs(sent) do n_sent = n_sent + 1 end
  for _ in pairs(taken) do n_taken = n_taken + 1 end
  assert.equal(n_sent, c.messages_sent)
  assert.equal(c.messages_sent, c.messages_delivered + c.messages_dropped)
  assert.is_true(c.messages_delivered >= n_taken)
  app:close()
  return n_sent
end

describe("names", function()
  after_each(memory.finish)

  local seeds = memory.scaled(20, 4)
  for seed = 1, seeds do
    it(("do as a simple model does, in random program %d"):format(seed), function()
      assert.is_true(run(seed * 7919, 400) > 20)
    end)
  end
end)
