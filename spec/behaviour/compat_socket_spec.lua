--- compat = { "socket" }: what drivers for LuaSocket find.
local core = require "perilune"
local perilune = require "perilune.test"

local has = require "spec.support.has"

-- What a call has returned, as text.
local function show(...)
  local parts = { ... }
  for i = 1, select("#", ...) do parts[i] = tostring(parts[i]):gsub("\n", "|") end
  return table.concat(parts, " ")
end

describe("compat socket", function()
  local net

  before_each(function() net = perilune.net() end)
  after_each(function() net:close() end)

  -- A backend that sends what a line says, at once or later, or ends.
  local Obedient = {}
  function Obedient:proceed(line)
    local seconds, text = line:match "^later (%S+) (.*)$"
    if seconds then
      core.sleep(tonumber(seconds))
      self.conn:send(text)
    elseif line == "end" then
      return nil, "close"
    end
    return line:match "^send (.*)$"
  end

  local function serve(address) return net:serve(address or "tcp://db:1", { frame = "line", agent = Obedient }) end

  local function app_of(fn, more)
    local script = {
      listen = "tcp://127.0.0.1:9000", frame = "line", compat = { "socket" },
      agent = { proceed = function(self, line) return (show(fn(line, require "socket", self))) end },
    }
    for key, value in pairs(more or {}) do script[key] = value end
    return net:app(script)
  end

  -- What comes of a function that is given a connected socket.
  local function gives(expected, fn)
    serve()
    app_of(function(_, socket)
      local sock = assert(socket.connect("db", 1))
      return fn(sock, socket)
    end):connect():send("go"):expect(expected)
  end

  it("sends, and tells the last byte of what it has sent", function()
    gives("8 11 abc 7 nil closed 0", function(sock)
      local all, part = sock:send "send abc", sock:send("xx\nsend de\nyy", 3, -3)
      local got = sock:receive()
      local last = sock:send(1234567)
      sock:close()
      return all, part, got, last, sock:send "x"
    end)
  end)

  it("receives lines, so many bytes and all", function()
    gives("one tw o three nil closed ", function(sock)
      sock:send "send one\nsend two\nsend three\nend\n"
      return sock:receive(), sock:receive(2), sock:receive "*l", (sock:receive "*a":gsub("\n", "")), sock:receive "*a"
    end)
  end)

  it("puts what was received before in front", function()
    gives("pre-one pre-tw pre-", function(sock)
      sock:send "send one\nsend two\n"
      return sock:receive("*l", "pre-"), sock:receive(6, "pre-"), sock:receive(2, "pre-")
    end)
  end)

  it("times out with what has come, for each wait or for the whole call", function()
    serve()
    local app = app_of(function(line, socket)
      local sock = socket.connect("db", 1)
      sock:settimeout(2, line)
      sock:send "later 1 abc\nlater 1.5 def\n"
      return sock:receive(6)
    end)
    local each, whole = app:connect():send "b", app:connect():send "t"
    app:advance "2s"
    whole:expect "nil timeout abc|"
    app:advance "1s"
    each:expect "abc|de"
  end)

  it("waits as long as it takes by default", function()
    serve()
    local app = app_of(function(_, socket)
      local sock = socket.connect("db", 1)
      sock:send "later 3600 abc\n"
      return sock:receive()
    end)
    local client = app:connect():send "go"
    app:advance "1h"
    client:expect "abc"
  end)

  it("does not wait where it is told so", function()
    serve()
    local app = app_of(function(_, socket)
      local sock = socket.connect("db", 1)
      sock:settimeout(0)
      sock:send "later 1 abc\n"
      local data, why, partial = sock:receive()
      sock:settimeout(nil)
      socket.sleep(0)
      return data, why, partial, sock:receive()
    end)
    local client = app:connect():send "go"
    app:advance "2s"
    client:expect "nil timeout  abc"
  end)

  it("tells who is not there", function()
    app_of(function(_, socket) return socket.connect("db", 1) end):connect():send("go")
      :expect "nil connection refused"
  end)

  it("reaches Unix sockets", function()
    serve "unix:///tmp/db.sock"
    app_of(function()
      local sock = require "socket.unix"()
      local ok = sock:connect "/tmp/db.sock"
      sock:send "send hello\n"
      return ok, sock:receive()
    end):connect():send("go"):expect "1 hello"
  end)

  it("selects those that have something", function()
    serve()
    local app = app_of(function(_, socket)
      local one, other = socket.connect("db", 1), socket.connect("db", 1)
      one:send "later 2 one\n"
      other:send "later 1 other\n"
      local found = socket.select({ one, other }, nil, 10)
      local text = show(#found, found[1] == other, found[other], other:receive())
      local _, writable, why = socket.select({ one }, { one }, 0)
      text = text .. " " .. show(#writable, why)
      found = socket.select({ one, other }, nil, 10)
      text = text .. " " .. show(#found, found[1] == one, one:receive())
      return text, select(3, socket.select({ one, other }, nil, 1))
    end)
    local client = app:connect():send "go"
    app:advance "5s"
    client:expect "1 true true other 1 nil 1 true one timeout"
  end)

  it("lets others be served while it waits", function()
    serve()
    local app = app_of(function(line, socket)
      if line ~= "wait" then return line end
      local sock = socket.connect("db", 1)
      sock:send "later 10 done\n"
      return sock:receive()
    end)
    local slow, quick = app:connect(), app:connect()
    slow:send "wait"
    quick:send("hello"):expect "hello"
    slow:expect_nothing()
    app:advance "10s"
    slow:expect "done"
  end)

  it("has sources and sinks", function()
    gives("one|,two|,  1", function(sock, socket)
      local sink = socket.sink("keep-open", sock)
      local sent = sink "send one\nsend two\nend\n"
      local by_length = socket.source("by-length", sock, 4)
      local first, nothing = by_length(), by_length()
      local until_closed = socket.source("until-closed", sock)
      return first .. "," .. until_closed() .. ",", nothing or "", (sink() and sent > 0) and 1 or 0
    end)
  end)

  it("carries LuaSocket's own modules in Lua", function()
    net:serve("tcp://web:80", {
      frame = { "delimiter", "\r\n\r\n" },
      agent = { proceed = function(_, head)
        local path = head:match "^GET (%S+)"
        return ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Path: %s\r\n\r\nhello"):format(path), "close"
      end },
    })
    app_of(function()
      local chunks, ltn12 = {}, require "ltn12"
      local ok, code, headers = require "socket.http".request {
        url = "http://web/index", sink = ltn12.sink.table(chunks),
      }
      return ok, code, headers["x-path"], table.concat(chunks)
    end, { modules = { "socket.http", "ltn12" } }):connect():send("go"):expect "1 200 /index hello"
  end)

  it("has try and protect", function()
    app_of(function(_, socket)
      local finished = 0
      local try = socket.newtry(function() finished = finished + 1 end)
      local fails = socket.protect(function() return try(nil, "no") end)
      local raises = socket.protect(function() error("yes", 0) end)
      return show(fails()) .. " " .. show(pcall(raises)), finished, socket.try(1), socket.skip(1, "a", "b")
    end):connect():send("go"):expect "nil no false yes 1 1 b"
  end)

  it("looks up names", function()
    serve()
    app_of(function(_, socket)
      local ip, all = socket.dns.toip "db"
      return ip, #all.ip, socket.dns.getaddrinfo "db"[1].family
    end):connect():send("go"):expect "127.0.0.1 1 inet"
  end)

  describe("udp", function()
    local function serve_datagrams(address)
      return net:serve(address, { agent = { proceed = function(_, datagram)
        if datagram:find "^none" then return end
        core.sleep(tonumber(datagram) or 0)
        return "<" .. datagram .. ">"
      end } })
    end

    it("with a peer sends to it and hears it", function()
      serve_datagrams "udp://db:1"
      local client = app_of(function(_, socket)
        local sock = socket.udp()
        local set, sent = sock:setpeername("db", 1), sock:send "a"
        local got = sock:receive()
        local host, port = sock:getsockname()
        sock:settimeout(0.5)
        sock:send "none"
        return set, sent, got, host, tonumber(port) > 0, sock:receive()
      end):connect():send "go"
      net:advance "500ms"
      client:expect "1 1 <a> 127.0.0.1 true nil timeout"
    end)

    it("without a peer sends to anybody, and hears who answers first", function()
      serve_datagrams "udp://db:1"
      serve_datagrams "udp://db:2"
      local client = app_of(function(_, socket)
        local sock = socket.udp()
        sock:settimeout(10)
        local sent = { sock:sendto("0.2", "db", 1), sock:sendto("0.1", "db", 2), sock:sendto("x", "db", 3) }
        local first, host, port = sock:receivefrom()
        return sent[1], sent[2], sent[3], first, host, port, (sock:receive())
      end):connect():send "go"
      net:advance "200ms"
      client:expect "3 3 1 <0.1> 127.0.0.1 2 <0.2>"
    end)
  end)

  it("says what it lacks, and what to use", function()
    local client = app_of(function(line, socket)
      return pcall(loadstring("local socket = ... " .. line), socket)
    end):connect()
    for line, text in pairs {
      ["socket.udp():bind()"] = "bind is not there: setpeername() gives a peer",
      ["socket.udp():send('x')"] = "send: it has no peer: setpeername() gives it one",
      ["socket.udp():receive()"] = "receive: nothing was sent by it, and so nobody can answer",
      ["socket.udp():setsockname('*', 53)"] = 'come to listen = "udp://…"',
      ["socket.udp():getfd()"] = "getfd is not there: scripts have no descriptors",
      ["socket.bind('*', 1)"] = "socket.bind is not there: a script listens with listen",
      ["socket.tcp():accept()"] = "accept is not there: a script listens with listen",
      ["socket.dns.tohostname('x')"] = "socket.dns.tohostname is not there",
    } do
      has(text, client:send(line):receive())
    end
  end)
end)
