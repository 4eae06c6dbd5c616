--- Random programs of topics against a simple model: who is a member of what, what each has to get, and that all of it
--- is accounted for, whatever joins, leaves, ends, stalls, does not read or is reloaded meanwhile.
local core = require "perilune"
local memory = require "spec.support.memory"
local perilune = require "perilune.test"

local WORKERS, CLIENTS, INBOX = 3, 9, 8
local TOPICS = { "a", "a.b", "a.c", "a.b.c", "b", "b.b" }
local PATTERNS = { "*", ">", "a.*", "a.>", "*.b", "a.*.c", "b.>" }
local POLICIES = { "disconnect", "drop_newest", "drop_oldest", "latest" }

-- Answers to commands begin with "=", messages with "<" (sent) or ">" (heard), their topic, publisher and number.
local function script(version)
  local Agent = {}

  local function show(result, _, code) return "=" .. tostring(result == nil and code or result) end

  function Agent:proceed(line)
    local what, topic, rest = line:match "^(%a+) ?(%S*) ?(.*)$"
    if what == "join" then
      local policy, messages, deliver = rest:match "^(%S+) (%d+) (%S+)$"
      return show(self.conn:join(topic, { policy = policy, messages = tonumber(messages), deliver = deliver }))
    end
    if what == "leave" then return show(self.conn:leave(topic)) end
    if what == "count" then return show(core.hub.count(topic)) end
    if what == "publish" then
      local key, sign, text = rest:match "^(%S+) (%S+) (.*)$"
      return show(self.conn:publish(topic, "<" .. topic .. " " .. text, { key = key, others = sign == "others" }))
    end
    core.sleep "1s"
    return "=slept"
  end

  function Agent:message(topic, data)
    assert(data:find("<" .. topic .. " ", 1, true) == 1)
    self.conn:send(">" .. data:sub(2))
  end

  function Agent:snapshot() end -- luacheck: no self
  function Agent:upgrade() end -- luacheck: no self

  return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent, reload = "migrate", hub = { inbox = INBOX },
    limits = { send_buffer = 32 }, timeout = { idle = false, write = false }, setup = function() return version end }
end

-- Does a name fit a pattern? By parts, and in another way than src/hub/topic.c does it.
local function fits(pattern, name)
  local text = pattern:gsub("[%^$()%%.%[%]+%-?]", "%%%0"):gsub("%*", "[^.]+"):gsub(">", ".+")
  return name:find("^" .. text .. "$") ~= nil
end

local function run(seed, steps)
  local state = seed
  local function draw(n)
    state = (state * 16807) % 2147483647
    return state % n + 1
  end

  local app = perilune.app(script(1), nil, { workers = WORKERS })
  local clients, serial, stalled = {}, 0, {}
  local published = 0

  local function is_free(client) return not stalled[client.worker] and client.busy_until <= app:now() end

  -- What comes of a publisher on a topic, by one way, has to come in its order: each at most as often as it was to.
  local function take_frame(client, frame)
    local sign, text = frame:sub(1, 1), frame:sub(2)
    if sign == "=" then
      client.answer = text
      return
    end
    local topic, from, n = text:match "^(%S+) (%S+) (%d+)$"
    n = tonumber(n)
    local sent = assert(client.expected[sign .. n], "nobody has sent that to it: " .. frame)
    client.expected[sign .. n] = sent > 1 and sent - 1 or nil
    local last = client.last[sign .. topic .. from] or 0
    -- Two memberships bring it twice, in whatever order these wait.
    assert(n >= last or client.memberships > 1, "out of order: " .. frame .. " after " .. last)
    client.last[sign .. topic .. from] = math.max(n, last)
    client.got = client.got + 1
  end

  local function look()
    for _, client in pairs(clients) do
      for _, frame in ipairs(client.client:frames()) do take_frame(client, frame) end
    end
  end

  local function is_ended(client) return client.client:closed() ~= nil end

  -- Those that were disconnected as they did not keep up.
  local function bury()
    look()
    for at, client in pairs(clients) do
      if is_ended(client) then
        assert.equal("slow_consumer", client.client:closed())
        clients[at] = nil
      end
    end
  end

  local function settle()
    for worker in pairs(stalled) do app:resume(worker) end
    stalled = {}
    for _, client in pairs(clients) do client.client:unstall() end
    app:settle()
    bury()
  end

  local function ask(client, line)
    client.client:unstall()
    client.answer = nil
    client.client:send(line)
    look()
    return client.answer
  end

  local function connect(at)
    serial = serial + 1
    local worker = draw(WORKERS) - 1
    if stalled[worker] then
      app:resume(worker)
      stalled[worker] = nil
    end
    clients[at] = { client = app:connect { worker = worker }, worker = worker, name = "c" .. serial, busy_until = 0,
      topics = {}, memberships = 0, expected = {}, last = {}, got = 0 }
  end

  local function count_of(topic)
    local n = 0
    for _, client in pairs(clients) do
      for pattern in pairs(client.topics) do n = n + (fits(pattern, topic) and 1 or 0) end
    end
    return n
  end

  local function any_topic() return draw(3) == 1 and PATTERNS[draw(#PATTERNS)] or TOPICS[draw(#TOPICS)] end

  local function join(client)
    local topic, deliver = any_topic(), draw(3) == 1 and "agent" or "conn"
    local was = client.topics[topic]
    local line = ("join %s %s %d %s"):format(topic, POLICIES[draw(#POLICIES)], draw(4), deliver)
    if ask(client, line) ~= "true" then return bury() end -- it did not keep up, before
    if not was then client.memberships = client.memberships + 1 end
    client.topics[topic] = deliver
  end

  local function leave(client)
    local topic = any_topic()
    local answer = ask(client, "leave " .. topic)
    if not answer then return bury() end
    assert.equal(tostring(client.topics[topic] ~= nil), answer)
    if client.topics[topic] then client.memberships = client.memberships - 1 end
    client.topics[topic] = nil
  end

  -- Whoever is a member now may get it; who is not never does.
  local function publish(client)
    serial = serial + 1
    local topic, for_others = TOPICS[draw(#TOPICS)], draw(3) == 1
    for _, member in pairs(clients) do
      for pattern, deliver in pairs(member.topics) do
        if fits(pattern, topic) and not (for_others and member == client) then
          local sign = deliver == "agent" and ">" or "<"
          for _, each in ipairs { sign, "<", ">" } do -- it may join again meanwhile, with another `deliver`
            member.expected[each .. serial] = (member.expected[each .. serial] or 0) + 1
          end
        end
      end
    end
    local whom = for_others and "others" or "all"
    local line = ("publish %s k%d %s %s %d"):format(topic, draw(3), whom, client.name, serial)
    local answer = ask(client, line)
    if not answer then return bury() end
    assert(answer == "true" or answer == "EBUSY", answer)
    published = published + 1
  end

  local version = 1
  local DO = {
    function(client, at)
      if draw(2) > 1 then return end
      client.client:stall()
      for _ = 1, 4 do
        local other = clients[draw(CLIENTS)]
        if other and other ~= client and is_free(other) and not is_ended(other) then publish(other) end
      end
      if is_ended(client) then return end
      client.client[draw(2) == 1 and "close" or "reset"](client.client)
      app:settle()
      clients[at] = nil
    end,
    join, join, join, leave, publish, publish, publish, publish, publish,
    function(client) client.client:stall() end,
    function(client) client.client:stall() end,
    function(client) client.client:unstall() end,
    function(client)
      client.client:unstall()
      client.client:send "sleep"
      client.busy_until = app:now() + 1
    end,
    function()
      local worker = draw(WORKERS) - 1
      if stalled[worker] then app:resume(worker) else app:stall(worker) end
      stalled[worker] = not stalled[worker] or nil
    end,
    function() app:advance(draw(2000) / 1000) end,
    function(client)
      settle()
      app:advance "2s"
      bury()
      if is_ended(client) then return end
      local topic = TOPICS[draw(#TOPICS)]
      assert.equal(tostring(count_of(topic)), ask(client, "count " .. topic))
    end,
    function()
      if draw(8) > 1 then return end
      version = version + 1
      settle()
      app:reload(script(version))
    end,
  }

  for _ = 1, steps do
    local at = draw(CLIENTS)
    local client = clients[at]
    if not client then
      connect(at)
    elseif is_free(client) and not is_ended(client) then
      DO[draw(#DO)](client, at)
    else
      app:advance(0.1)
    end
    bury()
  end
  settle()
  app:advance "20s"
  bury()

  local c = app:counters()
  local lost = c.hub_dropped_oldest + c.hub_dropped_newest + c.hub_replaced + c.hub_unfit + c.hub_evicted + c.hub_left
  assert.equal(c.hub_addressed, c.hub_delivered + lost)
  assert.equal(0, c.hub_unfit)
  assert.equal(published, c.hub_published)
  local members, frames = 0, 0
  for _, client in pairs(clients) do
    members, frames = members + client.memberships, frames + client.got
  end
  assert.equal(members, c.hub_joined - c.hub_parted)
  assert.is_true(c.hub_delivered >= frames)
  app:close()
  return c
end

describe("topics", function()
  after_each(memory.finish)

  local seeds = memory.scaled(20, 4)
  local sums = {}
  for seed = 1, seeds do
    it(("do as a simple model does, in random program %d"):format(seed), function()
      for name, n in pairs(run(seed * 7919, 500)) do sums[name] = (sums[name] or 0) + n end
    end)
  end

  it("met all that can become of a message in these programs", function()
    if seeds < 20 then return end
    local ends = { "delivered", "dropped_oldest", "dropped_newest", "replaced", "evicted", "left", "missed" }
    for _, name in ipairs(ends) do
      assert.is_true(sums["hub_" .. name] > 0, name)
    end
  end)
end)
