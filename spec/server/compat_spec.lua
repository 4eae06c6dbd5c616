--- Drivers that others have written, as Debian has them, against the servers that they are for.
local command = require "spec.support.command"
local drivers = require "spec.support.drivers"
local has = require "spec.support.has"
local program = require "spec.support.program"
local server = require "spec.support.server"

local asks, path_of, start = drivers.asks, drivers.path_of, drivers.start

local function needs(name, package)
  local why = drivers.missing(name, package)
  if why then return pending(why) end
  return true
end

describe("lua-nginx-redis", function()
  local redis

  after_each(function()
    server.finish()
    if redis then redis:stop() end
    redis = nil
  end)

  local BODY = [[local redis = require "nginx.redis"
    local Agent = {}
    local function db(self)
      local db = redis:new()
      db:set_timeouts(5000, 5000, 60000)
      assert(db:connect(PLACE))
      return db
    end
    function Agent:proceed(line)
      local db = redis:new()
      db:set_timeout(60000)
      local ok, why = db:connect(PLACE)
      if not ok then return "no: " .. why end
      local reply
      if line == "wait" then
        reply = db:blpop("list", 0)
        reply = reply and reply[2]
      elseif line == "times" then
        return tostring(db:get_reused_times())
      elseif line == "pipeline" then
        db:init_pipeline()
        db:set("a", "1")
        db:incr("a")
        db:lrange("none", 0, -1)
        db:hget("a", "b")
        local replies = assert(db:commit_pipeline())
        reply = table.concat({ replies[1], replies[2], #replies[3], tostring(replies[4][1]),
          (replies[4][2]:match "^%w+") }, " ")
      elseif line == "null" then
        local value = db:get "none"
        reply = tostring(value == ngx.null)
      elseif line == "big" then
        local text = ("0123456789"):rep(200000)
        assert(db:set("big", text))
        reply = tostring(db:get "big" == text)
      elseif line == "subscribe" then
        local other = redis:new()
        other:connect(PLACE)
        db:subscribe "news"
        other:publish("news", "today")
        local message = db:read_reply()
        other:close()
        db:unsubscribe "news"
        db:close()
        return message[1] .. " " .. message[3]
      elseif line:find "^push " then
        reply = tostring(db:rpush("list", line:sub(6)))
      else
        assert(db:set("line", line))
        reply = db:get "line"
      end
      assert(db:set_keepalive(10000, 10))
      return reply
    end]]

  local function begin(place)
    if not needs("redis-server", "lua-nginx-redis") then return end
    redis = program.redis()
    local where = place == "unix" and ("%q"):format("unix:" .. redis.path) or '"127.0.0.1", ' .. redis.port
    return start(BODY:gsub("PLACE", (where:gsub("%%", "%%%%"))), [[compat = { "ngx" }, modules = { "nginx.redis" }]],
      "lua-nginx-redis")
  end

  for _, place in ipairs { "tcp", "unix" } do
    it("asks and is answered over " .. place, function()
      local app = begin(place)
      if not app then return end
      local client = app:connect()
      asks(client, "hello", "hello")
      asks(client, "pipeline", "OK 2 0 false WRONGTYPE")
      asks(client, "null", "true")
      asks(client, "big", "true")
      asks(client, "times", "4")
      asks(client, "subscribe", "message today")
    end)
  end

  it("lets others be answered while one waits", function()
    local app = begin "tcp"
    if not app then return end
    local waiting, other = app:connect(), app:connect()
    waiting:send "wait\n"
    asks(other, "hello", "hello")
    asks(other, "push x", "1")
    assert.equal("x", waiting:recv_line())
  end)

  it("runs the listing of docs/compat.md", function()
    if not needs("redis-server", "lua-nginx-redis") then return end
    redis = program.redis()
    local listing = command.read("docs/compat.md"):match "```lua\n(%-%- gateway.lua.-)```"
    local app = server.start {
      env = { LUA_PATH = path_of "lua-nginx-redis" },
      script = listing:gsub("6379", tostring(redis.port)):gsub("127.0.0.1:9000", "127.0.0.1:0"),
    }
    local client = app:connect()
    asks(client, "moon", "there is none")
    asks(client, "moon luna", "OK")
    asks(client, "moon", "luna")
    redis:stop()
    redis = nil
    asks(client, "moon", "redis: connection refused")
  end)

  it("says why it is not there", function()
    local app = begin "tcp"
    if not app then return end
    local client = app:connect()
    asks(client, "hello", "hello")
    redis:stop()
    redis = nil
    asks(client, "hello", "no: connection refused")
  end)
end)

describe("lua-nginx-memcached", function()
  local memcached

  after_each(function()
    server.finish()
    if memcached then memcached:stop() end
    memcached = nil
  end)

  it("asks and is answered", function()
    if not needs("memcached", "lua-nginx-memcached") then return end
    memcached = program.memcached()
    local app = start(([[local memcached = require "nginx.memcached"
      local Agent = {}
      function Agent:proceed(line)
        local db = memcached:new()
        db:set_timeout(60000)
        assert(db:connect("127.0.0.1", %d))
        assert(db:set("a key", line, 0, 7))
        local value, flags = db:get "a key"
        assert(db:set("n", "5"))
        local many = db:get { "a key", "n", "none" }
        local n = db:incr("n", 3)
        local none, _, why = db:get "none"
        local version = db:version()
        local times = db:get_reused_times()
        assert(db:set_keepalive(10000, 10))
        return table.concat({ value, flags, many["a key"][1], many.n[1], n, tostring(none), tostring(why),
          tostring(version ~= nil), times }, " ")
      end]]):format(memcached.port), [[compat = { "ngx" }, modules = { "nginx.memcached" }]], "lua-nginx-memcached")
    local client = app:connect()
    asks(client, "hello", "hello 7 hello 5 8 nil nil true 0")
    asks(client, "world", "world 7 world 5 8 nil nil true 1")
  end)
end)

describe("lua-redis", function()
  local redis

  after_each(function()
    server.finish()
    if redis then redis:stop() end
    redis = nil
  end)

  local BODY = [[local redis = require "redis"
    local Agent = {}
    function Agent:opened() self.db = redis.connect(PLACE) end
    function Agent:proceed(line)
      local db = self.db
      if line == "wait" then
        return db:blpop("list", 0)[2]
      elseif line:find "^push " then
        return tostring(db:rpush("list", line:sub(6)))
      elseif line == "pipeline" then
        local replies = db:pipeline(function(p)
          p:set("a", "1")
          p:incrby("a", 41)
          p:get "a"
        end)
        return table.concat({ tostring(replies[1]), replies[2], replies[3] }, " ")
      elseif line == "transaction" then
        local replies = db:transaction({ cas = true, watch = "a" }, function(t)
          local a = t:get "a"
          t:multi()
          t:set("a", a + 1)
          t:get "a"
        end)
        return replies[2]
      elseif line == "listen" then
        local got = {}
        for message, stop in db:pubsub { subscribe = "news" } do
          got[#got + 1] = message.kind .. (message.kind == "message" and " " .. message.payload or "")
          if message.kind == "subscribe" then self.conn:send "listening" end
          if message.payload == "last" then stop() end
        end
        return table.concat(got, " ")
      elseif line:find "^publish " then
        return tostring(db:publish("news", line:sub(9)))
      elseif line == "wrong" then
        local ok, why = pcall(db.lpop, db, "a")
        return (tostring(why):match "WRONGTYPE" or tostring(ok))
      end
      db:set("line", line)
      return db:get "line"
    end]]

  local function begin(place)
    if not needs("redis-server", "lua-redis") then return end
    redis = program.redis()
    local where = place == "unix" and ("{ scheme = 'unix', path = %q }"):format(redis.path)
      or place == "url" and ("'redis://127.0.0.1:%d/?timeout=60'"):format(redis.port) or "'127.0.0.1', " .. redis.port
    return start(BODY:gsub("PLACE", (where:gsub("%%", "%%%%"))), [[compat = { "socket" }, modules = { "redis" }]],
      "lua-redis")
  end

  for _, place in ipairs { "tcp", "unix", "url" } do
    it("asks and is answered: " .. place, function()
      local app = begin(place)
      if not app then return end
      local client = app:connect()
      asks(client, "hello", "hello")
      asks(client, "pipeline", "true 42 42")
      asks(client, "transaction", "43")
      asks(client, "wrong", "WRONGTYPE")
    end)
  end

  it("lets others be answered while one waits, in a coroutine of its own too", function()
    local app = begin "tcp"
    if not app then return end
    local waiting, listening, other = app:connect(), app:connect(), app:connect()
    waiting:send "wait\n"
    listening:send "listen\n"
    assert.equal("listening", listening:recv_line())
    asks(other, "hello", "hello")
    asks(other, "push x", "1")
    assert.equal("x", waiting:recv_line())
    asks(other, "publish first", "1")
    asks(other, "publish last", "1")
    assert.equal("subscribe message first message last", listening:recv_line())
  end)
end)

-- A WebSocket server that sends texts back, in frames whose length takes as many bytes as it has to.
local WEBSOCKET = [[
import base64, hashlib, socket, struct, sys
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
def exact(stream, n):
    data = stream.read(n)
    if len(data) < n: raise SystemExit
    return data
while True:
    peer = listener.accept()[0]
    stream = peer.makefile("rb")
    key = None
    while (line := stream.readline().strip()):
        if line.lower().startswith(b"sec-websocket-key:"): key = line.split(b":")[1].strip()
    digest = hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
    peer.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + base64.b64encode(digest) + b"\r\n\r\n")
    while True:
        head = stream.read(2)
        if len(head) < 2: break
        n = head[1] & 127
        if n == 126: n = struct.unpack(">H", exact(stream, 2))[0]
        mask = exact(stream, 4)
        data = bytes(b ^ mask[i % 4] for i, b in enumerate(exact(stream, n)))
        size = bytes([n]) if n < 126 else b"\x7e" + struct.pack(">H", n)
        peer.sendall(head[:1] + size + data)
        if head[0] & 15 == 8: break
    peer.close()
]]

describe("lua-nginx-websocket", function()
  local folder, pipe

  after_each(function()
    server.finish()
    if pipe then
      os.execute("kill $(cat " .. folder .. "/pid)")
      pipe:close()
      command.remove(folder)
    end
    pipe = nil
  end)

  it("is a client of WebSocket servers", function()
    if not needs("python3", "lua-nginx-websocket") then return end
    folder = command.folder()
    command.write(folder .. "/echo.py", WEBSOCKET)
    pipe = assert(io.popen(("cd %s && echo $$ >pid && exec python3 echo.py"):format(folder)))
    local app = start(([[local client = require "nginx.websocket.client"
      local Agent = {}
      function Agent:proceed(line)
        local db = client:new { timeout = 60000 }
        assert(db:connect "ws://127.0.0.1:%d/chat")
        local all = {}
        for _, text in ipairs { line, (line):rep(100) } do
          assert(db:send_text(text))
          local data, kind = db:recv_frame()
          all[#all + 1] = kind .. " " .. tostring(data == text)
        end
        assert(db:send_ping "x")
        local data, kind = db:recv_frame()
        all[#all + 1] = kind .. " " .. data
        db:send_close(1000, "bye")
        local _, last, code = db:recv_frame()
        all[#all + 1] = last .. " " .. code
        return table.concat(all, " ")
      end]]):format(assert(pipe:read "*n")), [[compat = { "ngx" }, modules = { "nginx.websocket.client" }]],
      "lua-nginx-websocket")
    asks(app:connect(), "hello", "text true text true ping x close 1000")
  end)
end)

describe("a driver", function()
  after_each(server.finish)

  local function load_failure(settings, code)
    local folder = command.folder()
    finally(function() command.remove(folder) end)
    command.write(folder .. "/app.lua", ([[%s return { listen = "tcp://127.0.0.1:0", agent = function() end, %s }]])
      :format(code, settings))
    local ran = command.run { "check", "app.lua", dir = folder, env = { LUA_PATH = path_of("lua-nginx-redis") } }
    return ran.err
  end

  it("has to be named, and what it is written for too", function()
    if not needs("redis-server", "lua-nginx-redis") then return end
    has([[add modules = { "nginx.redis" }]], load_failure([[compat = { "ngx" }]], [[require "nginx.redis"]]))
    has([[the script uses ngx: to have it, add compat = { "ngx" }]],
      load_failure([[compat = { "socket" }]], [[local _ = ngx.now, "ngx"]]))
  end)

  -- The answers of an app to lines, with drivers that lie in a folder of their own.
  local function answers(files, body, lines, expected)
    local folder = command.folder()
    finally(function() command.remove(folder) end)
    local names = {}
    for name, text in pairs(files) do
      command.write(("%s/%s.lua"):format(folder, name), text)
      names[#names + 1] = ("%q"):format(name)
    end
    local app = server.start {
      env = { LUA_PATH = folder .. "/?.lua;;" },
      script = ([[local Agent = {} %s
        return { listen = "tcp://127.0.0.1:0", frame = "line", agent = Agent, compat = { "ngx" }, modules = { %s } }]])
        :format(body, table.concat(names, ",")),
    }
    local client = app:connect()
    for i, line in ipairs(lines) do asks(client, line, expected[i]) end
  end

  it("keeps its globals to itself, and shares them with other drivers", function()
    answers({
      leaky = "leaked = 'by a driver' return { other = require 'other' }",
      other = "return { get = function() return leaked, ngx ~= nil, rawget(_G, 'print') == print end }",
    }, [[function Agent:proceed()
      local ok = pcall(function() return leaked end)
      local text, has_ngx, has_print = require "leaky".other.get()
      return table.concat({ tostring(ok), text, tostring(has_ngx), tostring(has_print) }, " ")
    end]], { "x" }, { "false by a driver true true" })
  end)

  it("may wait in coroutines of its own, however deep", function()
    answers({
      deep = [[
        local function sleeper(n)
          return coroutine.wrap(function(...)
            local got = { ... }
            if n == 0 then ngx.sleep(0.01) else got[#got + 1] = sleeper(n - 1)(n) end
            local more = coroutine.yield(table.concat(got, "+"))
            ngx.sleep(0.01)
            return more
          end)
        end
        return { run = function()
          local co = sleeper(3)
          return co("a") .. " " .. co("b") .. " " .. tostring(pcall(co))
        end }]],
    }, [[function Agent:proceed() return require "deep".run() end]], { "x" }, { "a+3+2+1 b false" })
  end)

  it("that fails to load says why", function()
    local folder = command.folder()
    finally(function() command.remove(folder) end)
    command.write(folder .. "/broken.lua", "local x = ngx.socket.stream")
    command.write(folder .. "/app.lua", [[require "broken"
      return { listen = "tcp://127.0.0.1:0", agent = function() end, compat = { "ngx" }, modules = { "broken" } }]])
    os.execute("mkdir " .. folder .. "/app && mv " .. folder .. "/app.lua " .. folder .. "/app")
    local ran = command.run { "check", folder .. "/app/app.lua", env = { LUA_PATH = folder .. "/?.lua;;" } }
    has("ngx.socket.stream is not there: use ngx.socket.tcp", ran.err)
    has("broken.lua:1", ran.err)
  end)

  it("that is a blocking library is refused", function()
    has("would hold up all connections of the worker",
      load_failure([[compat = { "socket" }, modules = { "ssl" }]], [[require "ssl"]]))
  end)
end)
