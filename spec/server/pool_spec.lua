--- Pools before the real redis-server and memcached, which are stopped, killed and started again under load:
--- each request gets its own reply, or an error, in time.
local command = require "spec.support.command"
local program = require "spec.support.program"
local server = require "spec.support.server"
local wait = require "spec.support.wait"

describe("a pool before", function()
  local backend

  after_each(function()
    server.finish()
    if backend then backend:stop() end
    backend = nil
  end)

  -- Both say again what they are given, each in its own way: the text of a reply is that of its request.
  local KINDS = {
    { name = "redis-server", start = program.redis, ask = [[("ECHO " .. line .. "\r\n")]], read = [[
      local head = conn:read { "delimiter", "\r\n" }
      local text = head and head:find "^%$" and conn:read { "delimiter", "\r\n" }
      return text ]] },
    { name = "memcached", start = program.memcached,
      ask = [[("set " .. line .. " 0 0 " .. #line .. "\r\n" .. line .. "\r\nget " .. line .. "\r\n")]], read = [[
      local stored = conn:read { "delimiter", "\r\n" }
      local head = stored == "STORED" and conn:read { "delimiter", "\r\n" }
      local text = head and head:find "^VALUE" and conn:read { "delimiter", "\r\n" }
      local last = text and conn:read { "delimiter", "\r\n" }
      return last == "END" and text or nil ]] },
  }

  local function start(kind)
    return server.start { script = ([[
      local perilune = require "perilune"
      local pool = perilune.pool("tcp://127.0.0.1:%d", { frame = "raw", size = 4, wait = "1s",
        timeout = { read = "1s", connect = "1s" } })
      local Agent = {}
      function Agent:proceed(line)
        local text, message, code = pool:with(function(conn)
          conn:send%s
          %s
        end)
        return text and "<" .. text .. ">" or "no " .. line .. " " .. tostring(code or message)
      end
      return { listen = "tcp://127.0.0.1:0", frame = "line", agent = Agent }
    ]]):format(backend.port, kind.ask, kind.read) }
  end

  local CLIENTS = 12

  -- A request of each, and what each is told; returns how many had an answer.
  local function round(clients, number)
    local answered = 0
    for i, client in ipairs(clients) do client:send(("r%dc%d\n"):format(number, i)) end
    for i, client in ipairs(clients) do
      local line, request = client:recv_line(), ("r%dc%d"):format(number, i)
      if line == "<" .. request .. ">" then answered = answered + 1
      else assert.equal("no " .. request, line:match "^no %S+") end
    end
    return answered
  end

  for _, kind in ipairs(KINDS) do
    it(kind.name .. " that is stopped, goes on, is killed and comes back", function()
      if not command.has(kind.name) then return pending(kind.name .. " is not installed") end
      backend = kind.start()
      local app = start(kind)
      local clients, number = app:connect_many(CLIENTS), 0
      local function ask()
        number = number + 1
        return round(clients, number)
      end
      local function until_answered(what)
        wait.until_true(what, function() return ask() == CLIENTS end)
      end
      for _ = 1, 10 do ask() end
      until_answered "all are answered"
      backend:signal "STOP"
      assert.equal(0, ask()) -- nobody waits for longer than its time
      backend:signal "CONT"
      until_answered "all are answered again"
      backend:signal "KILL"
      backend:stop()
      assert.is_true(ask() < CLIENTS)
      backend = kind.start(backend.port)
      until_answered "all are answered by the new one"
    end)
  end

  it("redis-server forwards, in order, and tells who asks after that has stopped", function()
    backend = program.redis()
    local app = server.start { script = ([[
      local perilune = require "perilune"
      local pool = perilune.pool("tcp://127.0.0.1:%d", { frame = "line", pipeline = true })
      local OPTIONS = { otherwise = "-ERR no answer" }
      return { listen = "tcp://127.0.0.1:0", frame = "line", agent = {
        proceed = function(_, line) return pool:forward(line, OPTIONS) end } }
    ]]):format(backend.port) }
    local clients, rounds = {}, 300
    for i = 1, 8 do clients[i] = app:connect() end
    for i, client in ipairs(clients) do client:send(("INCR k%d\n"):format(i):rep(rounds)) end
    for _, client in ipairs(clients) do
      for n = 1, rounds do assert.equal(":" .. n, client:recv_line()) end
    end
    backend:stop()
    backend = nil
    for _, client in ipairs(clients) do assert.equal("-ERR no answer", client:send("PING\n"):recv_line()) end
  end)

  describe("of several workers", function()
    local function script(total)
      return ([[
        local perilune = require "perilune"
        local pool = perilune.pool("tcp://127.0.0.1:1", { size = 4, total = %d })
        return { listen = "tcp://127.0.0.1:0", frame = "line", agent = {
          proceed = function() return tostring(pool:status().size) end } }
      ]]):format(total)
    end

    it("has its share of `total` in each", function()
      local app = server.start { script = script(8), workers = 3 }
      local sizes = {}
      for i = 1, 3 do sizes[i] = app:connect():send("x\n"):recv_line() end
      table.sort(sizes)
      assert.same({ "2", "3", "3" }, sizes)
    end)

    it("is refused where that is nothing", function()
      local failed = server.start_failing { script = script(2), workers = 3 }
      assert.truthy(failed.text:find("total: 2 for 3 workers: each needs a connection at least", 1, true), failed.text)
    end)
  end)
end)
