--- compat = { "ngx" }: what drivers for OpenResty find.
-- luacheck: globals ngx
local core = require "perilune"
local perilune = require "perilune.test"

local has = require "spec.support.has"
local memory = require "spec.support.memory"
local pki = require "spec.support.pki"

-- What a call has returned, as text.
local function show(...)
  local parts = { ... }
  for i = 1, select("#", ...) do parts[i] = tostring(parts[i]) end
  return table.concat(parts, " ")
end

describe("compat ngx", function()
  local net

  before_each(function() net = perilune.net() end)
  after_each(function() net:close() end)

  -- A backend that does what each line says: sends a text, waits, ends.
  local Obedient = {}
  function Obedient:proceed(line)
    local what, rest = line:match "^(%w+) ?(.*)$"
    if what == "send" then return (rest:gsub("\\n", "\n"):gsub("\\r", "\r")) end
    if what == "later" then
      local seconds, text = rest:match "^(%S+) (.*)$"
      core.sleep(tonumber(seconds))
      self.conn:send(text)
    elseif what == "end" then
      return nil, "close"
    end
  end

  -- Lines in, and what is sent as it is.
  local function encode(text) return text end
  local function decode(bytes, position)
    local at = bytes:find("\n", position, true)
    if at then return bytes:sub(position, at - 1), at + 1 end
  end

  local function serve_obedient(address)
    return net:serve(address or "tcp://db:1", {
      frame = { decode = decode, encode = encode }, agent = Obedient,
    })
  end

  -- An app that answers each line with what the function returns for it.
  local function app_of(fn, more)
    local script = {
      listen = "tcp://127.0.0.1:9000", frame = "line", compat = { "ngx" },
      agent = { proceed = function(self, line) return (show(fn(line, self))) end },
    }
    for key, value in pairs(more or {}) do script[key] = value end
    return net:app(script)
  end

  -- What the function returns, given a socket that is connected to an obedient backend.
  local function with_socket(fn)
    serve_obedient()
    local client = app_of(function(line)
      local sock = ngx.socket.tcp()
      assert(sock:connect("db", 1))
      return fn(sock, line)
    end):connect()
    return function(expected)
      client:send("go"):expect(expected)
    end
  end

  describe("tcp", function()
    it("sends strings, numbers, and nested tables of them", function()
      with_socket(function(sock)
        local sent = sock:send { "send ", { 1, { "x", 2.5 } }, true, "\n" }
        return sent, sock:receive(9)
      end) "15 1x2.5true"
    end)

    it("receives lines without their ends, whatever pieces they come in", function()
      with_socket(function(sock)
        sock:send "send one\\r\\ntw\nsend o\nsend \\nx\\n\n"
        return sock:receive(), sock:receive "*l", sock:receive "*l"
      end) "one two x"
    end)

    it("receives so many bytes, also given as text", function()
      with_socket(function(sock)
        sock:send "send abcdef\nsend ghi\n"
        return sock:receive(2), sock:receive "6", sock:receive(0), sock:receive(1)
      end) "ab cdefgh  i"
    end)

    it("receives all until the peer ends", function()
      with_socket(function(sock)
        sock:send "send abc\nsend def\nend\n"
        local all = sock:receive "*a"
        return all, sock:receive "*a"
      end) "abcdef nil closed"
    end)

    it("receives what is there", function()
      with_socket(function(sock)
        sock:send "send abcdef\n"
        return sock:receiveany(4), sock:receiveany(100)
      end) "abcd ef"
    end)

    it("times out with what has come, and stays open", function()
      serve_obedient()
      local app = app_of(function()
        local sock = ngx.socket.tcp()
        sock:settimeouts(1000, 1000, 2000)
        sock:connect("db", 1)
        sock:send "send abc\n"
        local data, why, partial = sock:receive(5)
        sock:send "send de\n"
        return data, why, partial, sock:receive(2)
      end)
      local client = app:connect():send "go"
      app:advance "1900ms"
      client:expect_nothing()
      app:advance "200ms"
      client:expect "nil timeout abc de"
    end)

    it("tells that the peer has ended, once with what has come", function()
      with_socket(function(sock)
        sock:send "send abc\nend\n"
        local data, why, partial = sock:receive(5)
        return data, why, partial, sock:receive(1)
      end) "nil closed abc nil closed"
    end)

    it("tells who is not there", function()
      app_of(function()
        return ngx.socket.tcp():connect("db", 1)
      end):connect():send("go"):expect "nil connection refused"
    end)

    it("reads up to a text, however it is cut", function()
      with_socket(function(sock)
        sock:send "send a--\nsend -b---c\nsend d\n"
        local reader = sock:receiveuntil "---"
        local one, two = reader(), reader()
        return one, two, sock:receive(2)
      end) "a b cd"
    end)

    it("reads up to a text in pieces, and then nothing once", function()
      with_socket(function(sock)
        sock:send "send abcdefg--h--\n"
        local reader = sock:receiveuntil "--"
        local parts = {}
        for i = 1, 6 do parts[i] = tostring(reader(3)) end
        return table.concat(parts, " ")
      end) "abc def g nil h nil"
    end)

    it("reads up to a text and that", function()
      with_socket(function(sock)
        sock:send "send abc--d\n"
        return sock:receiveuntil("--", { inclusive = true })(), sock:receive(1)
      end) "abc-- d"
    end)

    it("ends with the agent that has made it", function()
      local backend = serve_obedient()
      local app = app_of(function() return ngx.socket.tcp():connect("db", 1) end)
      local client = app:connect():send("go"):expect "1"
      assert.equal(1, backend:counters().accepted)
      client:close()
      app:advance "1s"
      assert.equal(1, backend:counters().closed)
    end)

    it("lets others be served while it waits", function()
      serve_obedient()
      local app = app_of(function(line)
        if line ~= "wait" then return line end
        local sock = ngx.socket.tcp()
        sock:connect("db", 1)
        sock:send "later 10 done\n"
        return sock:receive(4)
      end)
      local slow, quick = app:connect(), app:connect()
      slow:send "wait"
      quick:send("hello"):expect "hello"
      slow:expect_nothing()
      app:advance "10s"
      slow:expect "done"
    end)

    it("says what it lacks", function()
      local app = app_of(function(line)
        local sock = ngx.socket.tcp()
        return (select(2, pcall(function()
          if line == "backlog" then return sock:connect("db", 1, { backlog = 3 }) end
          return sock[line]
        end)))
      end)
      local client = app:connect()
      client:send "setclientcert"
      has("tcpsock:setclientcert is not there: use perilune.connect with tls", client:receive())
      client:send "backlog"
      has("backlog is not there: bound how many are open at once with perilune.semaphore", client:receive())
      client:send("misspelt"):expect "nil"
    end)
  end)

  describe("setkeepalive", function()
    -- Each line is what to do; the reply is what has come of it.
    local function pooling(line, self)
      local name, pool = line:match "^(%S+) ?(%S*)$"
      if name == "open" then
        self.sock = ngx.socket.tcp()
        local ok, why = self.sock:connect("db", 1, pool ~= "" and { pool = pool } or nil)
        return ok, why, self.sock:getreusedtimes()
      elseif name == "keep" then
        return self.sock:setkeepalive(5000, 2)
      elseif name == "ask" then
        self.sock:send "send hello\n"
        return self.sock:receive(5)
      elseif name == "dirty" then
        self.sock:send "send hello\n"
        return self.sock:receive(2)
      end
    end

    local function start()
      local backend = serve_obedient()
      return app_of(pooling), backend
    end

    it("gives a connection to the next one who connects there, whoever that is", function()
      local app, backend = start()
      local one, other = app:connect(), app:connect()
      one:send("open", "ask", "keep"):expect("1 nil 0", "hello", "1")
      one:close()
      other:send("open", "ask", "keep"):expect("1 nil 1", "hello", "1")
      other:send("open", "ask"):expect("1 nil 2", "hello")
      assert.equal(1, backend:counters().accepted)
    end)

    it("leaves a socket that has no connection", function()
      start():connect():send("open", "keep", "keep", "ask"):expect("1 nil 0", "1", "nil closed", "nil closed")
    end)

    it("keeps the pools of different names apart", function()
      start():connect():send("open a", "keep", "open b", "keep", "open a")
        :expect("1 nil 0", "1", "1 nil 0", "1", "1 nil 1")
    end)

    it("keeps no connection that has something to be read", function()
      start():connect():send("open", "dirty", "keep", "open")
        :expect("1 nil 0", "he", "nil connection in dubious state", "1 nil 0")
    end)

    it("forgets a connection that has idled for too long", function()
      local app, backend = start()
      local client = app:connect():send("open", "keep"):expect("1 nil 0", "1")
      app:advance "4s"
      client:send("open", "keep"):expect("1 nil 1", "1")
      app:advance "8s"
      assert.equal(1, backend:counters().closed)
      client:send("open"):expect "1 nil 0"
    end)

    it("keeps so many, and those that were used last", function()
      local app, backend = start()
      local clients = {}
      for i = 1, 3 do clients[i] = app:connect():send("open"):expect "1 nil 0" end
      for i = 1, 3 do clients[i]:send("keep"):expect "1" end
      app:advance "1s"
      assert.equal(1, backend:counters().closed)
      for i = 1, 3 do clients[i]:send("open"):expect(i < 3 and "1 nil 1" or "1 nil 0") end
    end)

    it("drops a connection that the peer has ended meanwhile", function()
      serve_obedient()
      local app = app_of(function(line)
        local sock = ngx.socket.tcp()
        sock:connect("db", 1)
        local reused = sock:getreusedtimes()
        if line ~= "" then sock:send(line .. "\n") end
        return reused, sock:setkeepalive()
      end)
      local client = app:connect():send("later 2 x"):expect "0 1"
      app:advance "5s"
      client:send "":expect "0 1"
    end)
  end)

  describe("udp", function()
    local function serve_datagrams(address)
      return net:serve(address, { agent = { proceed = function(self, datagram)
        if datagram == "who" then return self.conn.peer end
        return datagram ~= "none" and "<" .. datagram .. ">" or nil
      end } })
    end

    it("sends and receives datagrams", function()
      serve_datagrams "udp://db:1"
      app_of(function()
        local sock = ngx.socket.udp()
        local set, sent = sock:setpeername("db", 1), sock:send { "a", 1, { "b" } }
        local got = sock:receive()
        sock:send "abcdef"
        return set, sent, got, sock:receive(3), sock:close(), sock:send "x"
      end):connect():send("go"):expect "1 1 <a1b> <ab 1 nil closed"
    end)

    it("waits for a reply, as long as it is told", function()
      local db = serve_datagrams "udp://db:1"
      local app = app_of(function(line)
        local sock = ngx.socket.udp()
        sock:settimeout(500)
        sock:setpeername("db", 1)
        sock:send(line)
        return sock:receive()
      end)
      net:link(app, db, { latency = "100ms" })
      local client = app:connect():send "none"
      net:advance "499ms"
      client:expect_nothing()
      net:advance "1ms"
      client:expect("nil timeout"):send "a"
      net:advance "200ms"
      client:expect "<a>"
      net:kill(db):link(app, db, {})
      client:send("a"):expect "nil connection refused"
    end)
  end)

  describe("thread", function()
    it("runs beside its caller, and gives wait the results of the first that ends", function()
      local app = app_of(function()
        local function after(seconds, ...)
          ngx.sleep(seconds)
          return ...
        end
        local slow = ngx.thread.spawn(after, 2, "slow", 1)
        local quick = ngx.thread.spawn(after, 1, "quick", nil, 3)
        return show(ngx.thread.wait(slow, quick)) .. " | " .. show(ngx.thread.wait(slow, quick))
          .. " | " .. show(ngx.thread.wait(slow, quick))
      end)
      local client = app:connect():send "go"
      app:advance "1s"
      client:expect_nothing()
      app:advance "1s"
      client:expect "true quick nil 3 | true slow 1 | nil already waited or killed"
    end)

    it("tells what a thread has raised, and logs it", function()
      local app = app_of(function()
        return ngx.thread.wait(ngx.thread.spawn(function() error("broken", 0) end))
      end)
      app:connect():send("go"):expect "false broken"
      assert.equal(1, #app:log "lua user thread aborted: broken")
    end)

    it("is killed where it waits", function()
      local app = app_of(function()
        local thread = ngx.thread.spawn(function()
          ngx.sleep(1)
          ngx.log(ngx.ERR, "it went on")
        end)
        ngx.sleep(0)
        local one, other = show(ngx.thread.kill(thread)), show(ngx.thread.kill(thread))
        return one, other, ngx.thread.wait(thread)
      end)
      app:connect():send("go"):expect "1 nil already terminated nil already waited or killed"
      app:advance "2s"
      assert.equal(0, #app:log "it went on")
    end)
  end)

  describe("timer", function()
    it("outlives the agent that has begun it", function()
      local app = app_of(function()
        return ngx.timer.at(5, function(premature, text) ngx.log(ngx.NOTICE, text, " ", premature) end, "rings")
      end)
      app:connect():send("go"):expect("true"):close()
      app:advance "4s"
      assert.equal(0, #app:log "rings false")
      app:advance "2s"
      assert.equal(1, #app:log "rings false")
    end)

    it("has a function called again and again, which may connect", function()
      serve_obedient()
      local app = app_of(function()
        return ngx.timer.every(5, function()
          local sock = ngx.socket.tcp()
          sock:connect("db", 1)
          sock:send "send hi\n"
          ngx.log(ngx.INFO, sock:receive(2))
        end)
      end)
      app:connect():send("go"):expect("true"):close()
      app:advance "16s"
      assert.equal(3, #app:log "hi")
    end)

    it("refuses what is no time", function()
      app_of(function() return ngx.timer.every(0, function() end) end):connect():send("go")
        :expect "nil delay cannot be zero"
    end)
  end)

  it("has semaphores", function()
    local app = app_of(function()
      local semaphore = require "ngx.semaphore".new()
      local at_once, after_a_while = show(semaphore:wait(0)), show(semaphore:wait(1))
      ngx.thread.spawn(function()
        ngx.sleep(1)
        semaphore:post(2)
      end)
      return at_once, after_a_while, semaphore:wait(2), semaphore:count()
    end)
    local client = app:connect():send "go"
    app:advance "3s"
    client:expect "nil timeout nil timeout true 1"
  end)

  describe("sslhandshake", function()
    local PKI, server

    setup(function()
      PKI = pki.new()
      server = PKI:sign("server", { names = { "db" } })
    end)
    teardown(function() PKI:remove() end)

    local function start()
      local backend = net:serve("tls://db:1", {
        frame = { decode = decode, encode = encode }, agent = Obedient, tls = server,
      })
      return backend, app_of(function(line)
        local name, verify = line:match "^(%S+) ?(%S*)$"
        local sock = ngx.socket.tcp()
        local ok, why = sock:connect("db", 1)
        if not ok then return ok, why end
        local session, message = sock:sslhandshake(nil, name, verify ~= "")
        if not session then return session, message end
        sock:send "send hello\n"
        return sock:receive(5), sock:getreusedtimes(), (sock:setkeepalive())
      end)
    end

    it("speaks TLS", function()
      local _, app = start()
      app:connect():send("db"):expect "hello 0 1"
    end)

    it("takes from the pool only what was verified in the same way, for the same name", function()
      local _, app = start()
      local client = app:connect()
      client:send("db", "db", "other", "other", "db"):expect(
        "hello 0 1", "hello 1 1", "hello 0 1", "hello 1 1", "hello 2 1")
      client:send "db verified"
      has("certificate", client:receive())
    end)

    it("connects but once where it has been before", function()
      local backend, app = start()
      app:connect():send("db", "other"):expect("hello 0 1", "hello 0 1")
      assert.equal(3, backend:counters().accepted) -- the first is without TLS
    end)
  end)

  describe("text", function()
    local function gives(expected, fn)
      app_of(fn):connect():send("go"):expect(expected)
    end

    it("has digests", function()
      gives("900150983cd24fb0d6963f7d28e17f72 a9993e364706816aba3e25717850c26c9cd0d89d", function()
        local function hex(bytes) return (bytes:gsub(".", function(c) return ("%02x"):format(c:byte()) end)) end
        assert(hex(ngx.md5_bin "abc") == ngx.md5 "abc")
        return ngx.md5 "abc", hex(ngx.sha1_bin "abc")
      end)
      gives("de7c9b85b8b78aa6bc8a7a36f70a90701c9db4d9", function()
        return (ngx.hmac_sha1("key", "The quick brown fox jumps over the lazy dog"):gsub(".", function(c)
          return ("%02x"):format(c:byte())
        end))
      end)
    end)

    it("has checksums", function()
      gives("3421780262 3421780262 0", function()
        return ngx.crc32_short "123456789", ngx.crc32_long "123456789", ngx.crc32_short ""
      end)
    end)

    it("has base64", function()
      gives("Zg== Zg Zm8= Zm9v AP8= f fo foo f nil nil nil 256", function()
        local all = {}
        for i = 0, 255 do all[i + 1] = string.char(i) end
        all = table.concat(all)
        assert(ngx.decode_base64(ngx.encode_base64(all)) == all)
        return ngx.encode_base64 "f", ngx.encode_base64("f", true), ngx.encode_base64 "fo", ngx.encode_base64 "foo",
          ngx.encode_base64 "\0\255", ngx.decode_base64 "Zg==", ngx.decode_base64 "Zm8=", ngx.decode_base64 "Zm9v",
          ngx.decode_base64 "Zg", (ngx.decode_base64 "Z"), (ngx.decode_base64 "Zg=!"),
          (ngx.decode_base64 "Z\0=="), #all
      end)
    end)

    it("escapes parts of URIs", function()
      gives("a%20b%2Fc%3D~ a%20b/c=~ a b/c a=1&b a b", function()
        local args = ngx.decode_args "a=1&b&a=2"
        assert(args.a[1] == "1" and args.a[2] == "2" and args.b == true)
        return ngx.escape_uri "a b/c=~", ngx.escape_uri("a b/c=~", 0), ngx.unescape_uri "a+b%2fc",
          ngx.encode_args { a = 1 } .. "&" .. ngx.encode_args { b = true, c = false }, ngx.unescape_uri "a%20b"
      end)
    end)

    it("quotes text for SQL", function()
      gives([['it\'s \"x\" \\ \n']], function() return ngx.quote_sql_str 'it\'s "x" \\ \n' end)
    end)

    it("tells the time", function()
      local times = "1767225600 2026-01-01 00:00:00 Thu, 01 Jan 2026 00:00:00 GMT "
        .. "Thu, 18-Nov-10 11:27:35 GMT 1290079655"
      gives(times, function()
        return ngx.time(), ngx.utctime(), ngx.http_time(ngx.time()), ngx.cookie_time(1290079655),
          ngx.parse_http_time "Thu, 18 Nov 2010 11:27:35 GMT"
      end)
      local app = app_of(function()
        ngx.sleep(1.5)
        return ngx.now(), ngx.time()
      end)
      local client = app:connect():send "go"
      app:advance "2s"
      client:expect "1767225601.5 1767225601"
    end)
  end)

  it("logs at the levels that there are", function()
    local app = app_of(function()
      ngx.log(ngx.ERR, "a", 1, nil, true)
      ngx.log(ngx.WARN, "b")
      ngx.log(ngx.NOTICE, "c")
      return pcall(ngx.log, 17, "d")
    end)
    has("false", app:connect():send("go"):receive())
    assert.equal("error", app:log "a1niltrue"[1].level)
    assert.equal("warn", app:log "b"[1].level)
    assert.equal("info", app:log "c"[1].level)
  end)

  it("is there at the top level of a script that has it, and of no other", function()
    finally(memory.finish)
    local RETURN = [[ return { listen = "tcp://127.0.0.1:0", frame = "line", %s
      agent = { proceed = function() return md5 "abc" end } }]]
    local app = assert(memory.script("local md5 = ngx.md5 " .. RETURN:format [[compat = { "ngx" },]]))
    app:connect():send("x"):expect "900150983cd24fb0d6963f7d28e17f72"
    local none, why = memory.script("local md5 = ngx.md5 " .. RETURN:format "")
    assert.is_nil(none)
    has("undefined global 'ngx'", why)
    none, why = memory.script("local md5 = ngx.md5 -- \"ngx\"" .. "\n" .. RETURN:format "compat = {},")
    assert.is_nil(none)
    has('the script uses ngx: to have it, add compat = { "ngx" }', why)
  end)

  it("cannot be written to", function()
    local client = app_of(function(line)
      return pcall(function()
        if line == "new" then ngx.mine = 1 else ngx.socket.tcp = print end
      end)
    end):connect()
    has("ngx.mine cannot be assigned", client:send("new"):receive())
    has("ngx.socket.tcp cannot be assigned", client:send("old"):receive())
  end)

  it("has the dictionaries that the script shares, as OpenResty has them", function()
    local app = app_of(function(line)
      return assert(loadstring("local d = ngx.shared.counts return " .. line, "=line", "t"))()
    end, { shared = { counts = "1m" } })
    local client = app:connect()
    for _, one in ipairs {
      { "ngx.shared.others", "nil" },
      { 'd:get "a"', "nil" },
      { 'd:set("a", "x", 5)', "true nil false" },
      { 'd:add("a", 1)', "false exists false" },
      { 'd:replace("b", 1)', "false not found false" },
      { 'd:get "a"', "x" },
      { 'd:ttl "a"', "5" },
      { 'd:ttl "b"', "nil not found" },
      { 'd:incr("n", 1)', "nil not found" },
      { 'd:incr("n", 1, 10)', "11 nil false" },
      { 'd:incr("n", 1)', "12" },
      { 'd:incr("a", 1)', "nil not a number" },
      { 'd:ttl "n"', "0" },
      { 'd:expire("n", 3)', "true" },
      { 'd:expire("b", 3)', "nil not found" },
      { "#d:get_keys()", "2" },
      { "#d:get_keys(1)", "1" },
      { "d:capacity()", "1048576" },
      { "d:free_space() < d:capacity()", "true" },
      { 'd:set("n", nil)', "true nil false" },
      { 'd:get "n"', "nil" },
      { 'pcall(d.set, d, "a", 1, 0, 7)', "false shared:set: flags are not there: keep them in the value" },
      { "(d:flush_all())", "nil" },
      { "#d:get_keys()", "0" },
    } do
      assert.equal(one[2], client:send(one[1]):receive(), one[1])
    end
    client:send('d:set("short", 1, 0.5)'):expect "true nil false"
    app:advance "500ms"
    client:send('d:get "short"'):expect "nil"
  end)

  it("has nil for a dictionary that nobody shares, at the top level as well", function()
    local app = assert(memory.script [[
      local none, counts = ngx.shared.none, ngx.shared.counts
      local function proceed() return tostring(none and none:get "a") .. " " .. tostring(counts:incr("n", 1, 0)) end
      return { listen = "tcp://127.0.0.1:9000", frame = "line", compat = { "ngx" }, shared = { counts = "1m" },
        agent = { proceed = proceed } }
    ]])
    app:connect():send("x"):expect("nil 1")
    memory.finish()
  end)

  it("says what it lacks, and what to use", function()
    local app = app_of(function(line)
      local value = ngx
      local ok, err = pcall(function()
        for name in line:gmatch "[^.]+" do value = value[name] end
      end)
      return ok, err
    end, { shared = { counts = "1m" } })
    local client = app:connect()
    for line, text in pairs {
      ["location.capture"] = "ngx.location.capture is not there: use perilune.connect",
      ["socket.stream"] = "ngx.socket.stream is not there: use ngx.socket.tcp",
      ["worker.id"] = "ngx.worker.id is not there: use app.worker in setup(app)",
      ["shared.counts.lpush"] = "ngx.shared.NAME.lpush is not there: use a value that is a list",
      ["thread.spwan"] = 'ngx.thread.spwan is not there (did you mean "spawn"?): docs/compat.md has the list',
    } do
      has(text, client:send(line):receive())
    end
  end)
end)
