--- Drivers of others that speak over UDP, or besides it: OpenResty's and LuaSocket's sockets, lua-nginx-dns, and
--- lua-nginx-kafka against a broker that is a script.
local command = require "spec.support.command"
local drivers = require "spec.support.drivers"
local program = require "spec.support.program"
local server = require "spec.support.server"
local socket = require "socket"
local wait = require "spec.support.wait"

local asks, start = drivers.asks, drivers.start

local function needs(name, package)
  local why = drivers.missing(name, package)
  if why then return pending(why) end
  return true
end

local held = {}

-- A socket on loopback that answers nobody by itself, and its port.
local function silent()
  local sock = assert(socket.udp())
  assert(sock:setsockname("127.0.0.1", 0))
  sock:settimeout(wait.SECONDS)
  held[#held + 1] = sock
  return select(2, sock:getsockname()), sock
end

-- A port that nobody listens at.
local function closed()
  local port, sock = silent()
  sock:close()
  return port
end

local function close_held()
  for _, sock in ipairs(held) do sock:close() end
  held = {}
end

-- Sends each datagram back, in brackets; "none" has no answer.
local function echo()
  return server.start { script = [[
    local Agent = {}
    function Agent:proceed(datagram)
      if datagram:find "^none" then return end
      if datagram == "who" then return self.conn.peer end
      return "<" .. datagram .. ">"
    end
    return { listen = "udp://127.0.0.1:0", agent = Agent, amplification = false }]] }
end

-- Lines are Lua: what they return, as text. `port`, `closed` and `silent` are ports.
local function runner(compat, prelude, ports)
  return start(([[
    %s
    local function show(...)
      local parts = { ... }
      for i = 1, select("#", ...) do parts[i] = tostring(parts[i]) end
      return table.concat(parts, " ")
    end
    local Agent = {}
    function Agent:proceed(line)
      self.env = self.env or setmetatable({ made = made, port = %d, closed = %d, silent = %d, perilune = perilune },
        { __index = _G })
      return (show(assert(load(line, "=line", "t", self.env))()))
    end]]):format(prelude, ports.port or 0, ports.closed or 0, ports.silent or 0), ("compat = { %q }"):format(compat))
end

describe("ngx.socket.udp", function()
  after_each(function()
    server.finish()
    close_held()
  end)

  local function begin()
    local silent_port, sock = silent()
    local app = runner("ngx", [[local made = function() return ngx.socket.udp() end]],
      { port = echo().port, closed = closed(), silent = silent_port })
    local client = app:connect()
    asks(client, "sock = made()", "")
    return client, sock, app
  end

  it("sends and receives datagrams", function()
    local client = begin()
    asks(client, "return sock:setpeername('127.0.0.1', port)", "1")
    asks(client, "return sock:send 'a'", "1")
    asks(client, "return sock:receive()", "<a>")
    asks(client, "return sock:send { 'b', 1, { 'c', { 'd' } }, true }", "1")
    asks(client, "return sock:receive()", "<b1cdtrue>")
    asks(client, "return sock:send ''", "1")
    asks(client, "return sock:receive()", "<>")
    asks(client, "sock:send(('x'):rep(9000)) return #sock:receive()", "8192")
    asks(client, "sock:send 'abcdef' return sock:receive(3)", "<ab")
    asks(client, "sock:send 'abcdef' return sock:receive(100)", "<abcdef>")
    asks(client, "return sock:send(('x'):rep(65508))",
      "nil a datagram has at most 65507 bytes, this one has 65508")
    asks(client, "return sock:close()", "1")
    asks(client, "return sock:close()", "nil closed")
    asks(client, "return sock:send 'x'", "nil closed")
    asks(client, "return sock:receive()", "nil closed")
  end)

  it("has a peer that can be changed, by a name too, and an address of ours", function()
    local client = begin()
    asks(client, "return sock:setpeername('127.0.0.1', closed)", "1")
    asks(client, "return sock:bind '127.0.0.9'", "1")
    asks(client, "return sock:setpeername('localhost', port)", "1")
    client:send "sock:send 'who' return sock:receive()\n"
    assert.is_truthy(client:recv_line():find "^127%.0%.0%.9:")
    asks(client, "return sock:setpeername('127.0.0.1', 70000)", "nil bad port number: 70000")
    asks(client, "return sock:send 'x'", "nil closed")
  end)

  it("says why nothing comes, and goes on", function()
    local client, sock = begin()
    asks(client, "sock:settimeout(20) return sock:setpeername('127.0.0.1', silent)", "1")
    asks(client, "sock:send 'a' return sock:receive()", "nil timeout")
    assert.equal("a", (sock:receive()))
    asks(client, "sock:settimeout(60000) return sock:setpeername('127.0.0.1', closed)", "1")
    asks(client, "sock:send 'a' return sock:receive()", "nil connection refused")
    asks(client, "sock:send 'a' return sock:receive()", "nil connection refused")
    asks(client, "sock:setpeername('127.0.0.1', port) sock:send 'b' return sock:receive()", "<b>")
  end)

  it("says what it has not", function()
    local client = begin()
    for line, text in pairs {
      ["sock:setpeername 'unix:/x'"] = "datagrams over Unix sockets are not there",
      ["sock:setpeername()"] = "udpsock:setpeername expects a host, got nil",
      ["sock:setpeername('127.0.0.1')"] = "udpsock:setpeername expects a port, got nil",
      ["sock:setkeepalive()"] = "udpsock:setkeepalive is not there",
      ["sock:settimeout 'x'"] = "udpsock:settimeout expects milliseconds, got x",
      ["sock:receive 'x'"] = "udpsock:receive expects a size, got x",
      ["sock:send(print)"] = "udpsock:send cannot send a function",
    } do
      client:send(("return pcall(function() %s end)\n"):format(line))
      local answer = client:recv_line()
      assert.is_truthy(answer:find("^false ") and answer:find(text, 1, true), answer)
    end
  end)
end)

describe("socket.udp", function()
  after_each(function()
    server.finish()
    close_held()
  end)

  local function begin()
    local silent_port, sock = silent()
    local ports = { port = echo().port, closed = closed(), silent = silent_port }
    local app = runner("socket", [[local socket = require "socket" local made = socket]], ports)
    local client = app:connect()
    asks(client, "sock = made.udp()", "")
    return client, sock, ports
  end

  it("with a peer sends to it and hears it", function()
    local client, _, ports = begin()
    asks(client, "return sock", "udp{unconnected}")
    asks(client, "return sock:setpeername('127.0.0.1', port), sock", "1 udp{connected}")
    asks(client, "return sock:send 'a'", "1")
    asks(client, "return sock:receive()", "<a>")
    asks(client, "sock:send 'abcdef' return sock:receive(3)", "<ab")
    asks(client, "sock:send '' return sock:receivefrom()", "<> 127.0.0.1 " .. ports.port)
    asks(client, "return sock:getpeername()", ("127.0.0.1 %d inet"):format(ports.port))
    asks(client, "local host, n, family = sock:getsockname() return host, n > 0, family", "127.0.0.1 true inet")
    asks(client, "sock:settimeout(0.02) sock:send 'none' return sock:receive()", "nil timeout")
    asks(client, "return sock:gettimeout()", "0.02 -1")
    asks(client, "sock:settimeout(0) sock:send 'none' return sock:receive()", "nil timeout")
    asks(client, "return sock:setpeername '*', sock", "1 udp{unconnected}")
    asks(client, "return sock:setpeername('127.0.0.1', closed)", "1")
    asks(client, "sock:settimeout() sock:send 'x' return sock:receive()", "nil connection refused")
    asks(client, "return sock:close(), sock:send 'x'", "1 nil closed")
  end)

  it("without a peer sends to anybody, and hears who answers", function()
    local client, _, ports = begin()
    asks(client, "return sock:getsockname()", "0.0.0.0 0 inet")
    asks(client, "return sock:sendto('none', '127.0.0.1', port)", "4")
    asks(client, "return sock:sendto('a', '127.0.0.1', port)", "1")
    asks(client, "return sock:receivefrom()", "<a> 127.0.0.1 " .. ports.port)
    asks(client, "return sock:sendto('x', '127.0.0.1', silent)", "1")
    asks(client, "return sock:sendto('y', '127.0.0.1', closed), sock:sendto('y', '127.0.0.1', closed)", "1 1")
    asks(client, "sock:sendto('b', '127.0.0.1', port) return sock:receivefrom()", "<b> 127.0.0.1 " .. ports.port)
    asks(client, "sock:settimeout(0.02) return sock:receive()", "nil timeout")
    asks(client, "return sock:dirty(), sock:setsockname('*', 0), sock:setoption('broadcast', true)",
      "false 1 nil unsupported option broadcast")
    asks(client, "return sock:close(), sock:receivefrom()", "1 nil closed")
  end)

  it("hears several, whoever answers first", function()
    local client, sock = begin()
    local other_port, other = silent()
    asks(client, ("sock:sendto('a', '127.0.0.1', silent) sock:sendto('b', '127.0.0.1', %d)"):format(other_port), "")
    local _, host, port = other:receivefrom()
    client:send "return sock:receive()\n"
    assert(other:sendto("second", host, port))
    assert.equal("second", client:recv_line())
    _, host, port = sock:receivefrom()
    assert(sock:sendto("first", host, port))
    asks(client, "return sock:receive()", "first")
  end)

  it("is waited for by select", function()
    local client, sock = begin()
    asks(client, "two = made.udp() two:setpeername('127.0.0.1', silent) two:send 'x'", "")
    asks(client, "sock:sendto('none', '127.0.0.1', port)", "")
    asks(client, "return select(3, made.select({ sock, two }, nil, 0.02))", "timeout")
    local _, host, port = sock:receivefrom()
    client:send "local found = made.select({ sock, two }) return #found, found[1] == two, two:receive()\n"
    assert(sock:sendto("there", host, port))
    assert.equal("1 true there", client:recv_line())
    client:send "sock:sendto('a', '127.0.0.1', port) local found = made.select({ sock, two }) "
    client:send "return #found, found[1] == sock, sock:receive()\n"
    assert.equal("1 true <a>", client:recv_line())
  end)

  it("of one family goes to addresses of it", function()
    local client = begin()
    asks(client, "return made.udp4():setpeername('127.0.0.1', port)", "1")
    client:send "return made.udp4():setpeername('::1', port)\n"
    assert.is_truthy(client:recv_line():find "^nil .*no address of the local address's family")
    client:send "return made.udp6():setpeername('127.0.0.1', port)\n"
    assert.is_truthy(client:recv_line():find "^nil .*no address of the local address's family")
  end)
end)

describe("lua-nginx-dns", function()
  local name_server

  after_each(function()
    server.finish()
    close_held()
    if name_server then name_server:stop() end
    name_server = nil
  end)

  -- Lines are a name and a type; `ports` are those of the name servers.
  local function begin(ports, options)
    local places = {}
    for i, port in ipairs(ports) do places[i] = ("{ '127.0.0.1', %d }"):format(port) end
    return start(([[local dns = require "nginx.dns.resolver"
      local Agent = {}
      local function show(answer)
        local value = answer.address or answer.cname or answer.txt or answer.target or answer.exchange
          or answer.ptrdname or "?"
        if type(value) == "table" then value = table.concat(value, "+") end
        return value .. (answer.port and ":" .. answer.port or "")
      end
      function Agent:proceed(line)
        if line == "quick" then return line end
        local name, kind = line:match "^(%%S+) ?(%%S*)$"
        if not self.resolver then
          local why
          self.resolver, why = dns:new { nameservers = { %s }, %s }
          if not self.resolver then return "no resolver: " .. why end
        end
        local answers, message
        if kind == "TCP" then
          answers, message = self.resolver:tcp_query(name)
        elseif kind == "REVERSE" then
          answers, message = self.resolver:reverse_query(name)
        else
          answers, message = self.resolver:query(name, { qtype = dns["TYPE_" .. kind] or dns.TYPE_A })
        end
        if not answers then return "no answer: " .. message end
        if answers.errcode then return answers.errcode .. " " .. answers.errstr end
        local texts = {}
        for i, answer in ipairs(answers) do texts[i] = show(answer) end
        table.sort(texts)
        return #texts > 9 and "many: " .. #texts or table.concat(texts, " ")
      end]]):format(table.concat(places, ", "), options or "timeout = 60000"),
      [[compat = { "ngx" }, modules = { "nginx.dns.resolver" }]], "lua-nginx-dns")
  end

  it("asks a name server, over UDP, and over TCP what does not fit", function()
    if not needs("dnsmasq", "lua-nginx-dns") then return end
    local records = { "--local=/test/", "--host-record=db.test,192.0.2.7,2001:db8::7", "--cname=alias.test,db.test",
      "--txt-record=db.test,hello,world", "--srv-host=_x._tcp.test,db.test,5060,1,2", "--mx-host=test,db.test,7" }
    for i = 1, 40 do records[#records + 1] = ("--txt-record=long.test,%d %s"):format(i, ("x"):rep(60)) end
    name_server = program.dnsmasq(records)
    local client = begin({ name_server.port }):connect()
    asks(client, "db.test", "192.0.2.7")
    asks(client, "db.test AAAA", "2001:db8:0:0:0:0:0:7")
    asks(client, "alias.test", "192.0.2.7 db.test")
    asks(client, "db.test TXT", "hello+world")
    asks(client, "_x._tcp.test SRV", "db.test:5060")
    asks(client, "test MX", "db.test")
    asks(client, "192.0.2.7 REVERSE", "db.test")
    asks(client, "nobody.test", "3 name error")
    asks(client, "db.test TCP", "192.0.2.7")
    asks(client, "long.test TXT", "many: 40")
  end)

  it("lets others be answered while one waits for a name server that says nothing", function()
    if not needs(nil, "lua-nginx-dns") then return end
    local port, sock = silent()
    local app = begin { port }
    local waiting, other = app:connect(), app:connect()
    waiting:send "db.test\n"
    assert.is_truthy(sock:receive():find("\2db\4test", 1, true))
    asks(other, "quick", "quick")
  end)

  it("asks the next one when one says nothing, and tells that nobody is there", function()
    if not needs("dnsmasq", "lua-nginx-dns") then return end
    name_server = program.dnsmasq { "--local=/test/", "--host-record=db.test,192.0.2.7" }
    local port, sock = silent()
    local client = begin({ port, name_server.port }, "timeout = 300"):connect()
    for _ = 1, 4 do asks(client, "db.test", "192.0.2.7") end
    assert.is_truthy(sock:receive():find("\2db\4test", 1, true))
    local gone = closed()
    asks(begin({ gone }):connect(), "db.test",
      ("no answer: failed to receive reply from UDP server 127.0.0.1:%d: connection refused"):format(gone))
  end)

  it("takes no answer to another question, nor one that is broken", function()
    if not needs(nil, "lua-nginx-dns") then return end
    local fake = server.start { script = [[
      local Agent = {}
      function Agent:proceed(query)
        local id, question = query:sub(1, 2), query:sub(13)
        if question:find "broken" then return id .. "\129\128\0\1\0\1" end
        local function answer(id, last)
          local record = "\192\12\0\1\0\1\0\0\0\60\0\4\192\0\2" .. string.char(last)
          return id .. "\129\128\0\1\0\1\0\0\0\0" .. question .. record
        end
        local other = string.char((id:byte(1) + 1) % 256) .. id:sub(2)
        return { answer(other, 66), answer(id, 7) }
      end
      return { listen = "udp://127.0.0.1:0", agent = Agent, amplification = false }]] }
    local client = begin({ fake.port }):connect()
    asks(client, "db.test", "192.0.2.7")
    client:send "broken.test\n"
    assert.is_truthy(client:recv_line():find "^no answer: ")
  end)

  it("is tested in memory, on a network that loses its questions", function()
    if not needs(nil, "lua-nginx-dns") then return end
    local folder = command.folder()
    finally(function() command.remove(folder) end)
    command.write(folder .. "/dns_spec.lua", [[
      local perilune = require "perilune.test"
      it("asks again", function()
        local net = perilune.net { seed = 3 }
        local function server(last)
          return { amplification = false, agent = { proceed = function(_, query)
            local record = "\192\12\0\1\0\1\0\0\0\60\0\4\192\0\2" .. string.char(last)
            return query:sub(1, 2) .. "\129\128\0\1\0\1\0\0\0\0" .. query:sub(13) .. record
          end } }
        end
        local one = net:serve("udp://127.0.0.1:53", server(7))
        local two = net:serve("udp://127.0.0.2:53", server(8))
        local app = net:app { listen = "tcp://127.0.0.1:9000", frame = "line", compat = { "ngx" },
          modules = { "nginx.dns.resolver" }, agent = { proceed = function(self, line)
            local dns = require "nginx.dns.resolver"
            self.resolver = self.resolver or assert(dns:new { nameservers = { "127.0.0.1", "127.0.0.2" },
              retrans = 5, timeout = 1000, no_random = true })
            local answers, message = self.resolver:query(line, { qtype = dns.TYPE_A })
            return answers and answers[1].address or "no answer: " .. message
          end } }
        local client = app:connect():send("db.test"):expect(perilune.pattern "^192%.0%.2%.[78]$")
        client:send("db.test"):expect(perilune.pattern "^192%.0%.2%.[78]$")
        net:link({ app }, { one, two }, { loss = 1 })
        client:send("db.test")
        net:advance "2500ms"
        client:expect_nothing()
        net:link({ app }, { one, two }, {})
        net:advance "500ms"
        client:expect(perilune.pattern "^192%.0%.2%.[78]$")
        net:kill(one):kill(two)
        client:send("db.test"):expect(perilune.pattern "^no answer: .*connection refused$")
        net:close()
      end)]])
    local result = command.run { "test", "dns_spec.lua", dir = folder,
      env = { LUA_PATH = drivers.path_of "lua-nginx-dns" } }
    assert(result.code == 0, result.out .. result.err)
  end)
end)

describe("lua-nginx-kafka", function()
  after_each(server.finish)

  -- A broker with one topic of two partitions, which logs what is produced. An unknown topic has none.
  local function broker()
    return server.start { control = "control.sock", script = [[
      local perilune = require "perilune"
      local Broker, offsets = {}, { [0] = 100, 200 }
      local function text(value) return string.pack(">s2", value) end
      local function metadata(conn, topics)
        local host, port = conn.local_addr:match "^(.-):(%d+)$"
        local parts = { string.pack(">i4 i4", 1, 7), text(host), string.pack(">i4 i4", tonumber(port), #topics) }
        for _, topic in ipairs(topics) do
          local known = topic == "news"
          local err, count = known and 0 or 3, known and 2 or 0
          parts[#parts + 1] = string.pack(">i2", err) .. text(topic) .. string.pack(">i4", count)
          for id = 0, count - 1 do
            parts[#parts + 1] = string.pack(">i2 i4 i4 i4 i4 i4 i4", 0, id, 7, 1, 7, 1, 7)
          end
        end
        return table.concat(parts)
      end
      local function produce(request, at)
        local _, topics, topic, count
        _, _, topics, at = string.unpack(">i2 i4 i4", request, at)
        local parts = { string.pack(">i4", topics) }
        for _ = 1, topics do
          topic, count, at = string.unpack(">s2 i4", request, at)
          parts[#parts + 1] = text(topic) .. string.pack(">i4", count)
          for _ = 1, count do
            local id, size, from = string.unpack(">i4 i4", request, at)
            local offset, n = offsets[id], 0
            at = from
            while at < from + size do
              local _, _, crc, key, value, body
              _, _, crc, body = string.unpack(">i8 i4 I4", request, at)
              _, _, key, value, at = string.unpack(">i1 i1 s4 s4", request, body)
              assert(crc == ngx.crc32_long(request:sub(body, at - 1)) % 2 ^ 32, "a wrong checksum")
              perilune.log("info", "produced", { partition = id, key = key, value = value })
              n = n + 1
            end
            offsets[id] = offset + n
            parts[#parts + 1] = string.pack(">i4 i2 i8", id, 0, offset)
          end
        end
        return table.concat(parts)
      end
      function Broker:proceed(request)
        local kind, _, id, client, at = string.unpack(">i2 i2 i4 s2", request)
        if not client:find "^worker%d+$" then return nil, "close" end
        if kind == 0 then return string.pack(">i4", id) .. produce(request, at) end
        local count, topics = string.unpack(">i4", request, at), {}
        at = at + 4
        for i = 1, count do topics[i], at = string.unpack(">s2", request, at) end
        return string.pack(">i4", id) .. metadata(self.conn, topics)
      end
      return { listen = "tcp://127.0.0.1:0", frame = "u32be", agent = Broker, compat = { "ngx" } }]] }
  end

  local BODY = [[local producer = require "nginx.kafka.producer"
    local Agent = {}
    local BROKERS = { { host = "127.0.0.1", port = %d } }
    function Agent:proceed(line)
      local kind, topic, key, value = line:match "^(%%S+) (%%S+) (%%S+) (.*)$"
      if not kind then return line end
      local to = producer:new(BROKERS, { socket_timeout = 60000, producer_type = kind, max_retry = 1 })
      local sent, why = to:send(topic, key ~= "-" and key or nil, value)
      if kind == "async" then to:flush() end
      return sent and tostring(sent) or "no: " .. why
    end]]

  local function begin(port)
    return start(BODY:format(port), [[compat = { "ngx" }, modules = { "nginx.kafka.producer" } ]], "lua-nginx-kafka")
  end

  local function produced(app)
    local texts = {}
    for i, entry in ipairs(app:find_log "produced") do
      texts[i] = ("%d %s %s"):format(entry.partition, entry.key, entry.value)
    end
    return texts
  end

  it("produces messages", function()
    if not needs(nil, "lua-nginx-kafka") then return end
    local db = broker()
    local app = begin(db.port)
    local client = app:connect()
    client:send "sync news a hello\n"
    local first = client:recv_line()
    assert.is_truthy(first == "101LL" or first == "201LL", first)
    client:send "sync news a again\n"
    assert.equal((first:gsub("1LL", "2LL")), client:recv_line())
    asks(client, "async news - later", "true")
    asks(client, "sync olds a x", "no: not found topic")
    wait.until_true("all are there", function() return #produced(db) == 3 end)
    local partition = first:sub(1, 1) - 1
    assert.same({ partition .. " a hello", partition .. " a again" }, { produced(db)[1], produced(db)[2] })
    assert.is_truthy(produced(db)[3]:find "^[01]  later$")
    assert.equal(0, app:stop().code)
  end)

  it("lets others be answered while its broker says nothing, and says so where there is none", function()
    if not needs(nil, "lua-nginx-kafka") then return end
    local deaf = assert(socket.bind("127.0.0.1", 0))
    deaf:settimeout(wait.SECONDS)
    local app = begin(select(2, deaf:getsockname()))
    local waiting, other = app:connect(), app:connect()
    waiting:send "sync news a x\n"
    local peer = assert(deaf:accept())
    peer:settimeout(wait.SECONDS)
    assert.equal(4, #peer:receive(4))
    asks(other, "quick", "quick")
    peer:close()
    deaf:close()
    assert.equal("no: not found topic", waiting:recv_line())
    assert.is_truthy(app:find_log "all brokers failed in fetch topic metadata"[1])
  end)
end)
