--- Clients that we did not write.
local command = require "spec.support.command"
local server = require "spec.support.server"

local function start(frame, agent)
  return server.start { script = ([[
    local Agent = {}
    %s
    return { listen = "tcp://127.0.0.1:0", frame = %s, agent = Agent }]])
    :format(agent or "function Agent:proceed(frame) return frame end", frame) }
end

-- What a command line writes, with {port} and {folder} filled in.
local function run(app, line)
  line = line:gsub("{port}", app.port):gsub("{folder}", app.folder)
  local pipe = assert(io.popen("timeout 20 sh -c '" .. line .. "' 2>&1"))
  local out = pipe:read("*a")
  pipe:close()
  return out
end

local needs = command.needs

local QUIT = [[
  function Agent:proceed(line)
    if line == "quit" then return "bye", "close" end
    return line
  end]]

-- Ten lines, as anyone would write them; each client sends what it reads aloud again.
local PYTHON = [[
import socket, struct, sys
s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
f = s.makefile("rb")
for text in [b"hello", b"\x00\xff", b"x" * 100000, b"bye"]:
    s.sendall(struct.pack(">I", len(text)) + text)
    n, = struct.unpack(">I", f.read(4))
    got = f.read(n)
    print(n, got == text)
s.close()
]]

-- What is behind urgent data, which telnet sends for Ctrl-C, must not wait for more.
local URGENT = [[
import socket, sys
s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
s.settimeout(10)
s.sendall(b"a\n")
f = s.makefile("rb")
print(f.readline())
s.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
s.send(b"b\n")
s.send(b"X", socket.MSG_OOB)
s.send(b"c\n")
s.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)
print(f.readline(), f.readline())
]]

-- Sends on and on, and never reads; tells whether it was ended in time.
local DEAF = [[
import socket, sys, time
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
began = time.time()
try:
    while time.time() - began < 60:
        s.send(b"hi\n")
        time.sleep(0.05)
    print("goes on")
except OSError:
    print("ended")
]]

local NODE = [[
const s = require("net").connect(Number(process.argv[2]), "127.0.0.1");
const texts = [Buffer.from("hello"), Buffer.alloc(100000, "x"), Buffer.from("bye")];
let got = Buffer.alloc(0);
for (const t of texts) { const h = Buffer.alloc(4); h.writeUInt32BE(t.length); s.write(Buffer.concat([h, t])); }
s.on("data", d => {
  got = Buffer.concat([got, d]);
  while (got.length >= 4 && got.length >= 4 + got.readUInt32BE(0)) {
    const n = got.readUInt32BE(0), t = texts.shift();
    console.log(n, got.subarray(4, 4 + n).equals(t));
    got = got.subarray(4 + n);
    if (texts.length === 0) s.end();
  }
});
]]

local ERLANG = [==[
-module(client).
-export([main/1]).
main([Port]) ->
    {ok, S} = gen_tcp:connect("127.0.0.1", list_to_integer(Port), [binary, {packet, 4}, {active, false}]),
    [begin
         ok = gen_tcp:send(S, T),
         {ok, G} = gen_tcp:recv(S, 0, 10000),
         io:format("~w ~w~n", [byte_size(G), G =:= T])
     end || T <- [<<"hello">>, binary:copy(<<"x">>, 100000), <<"bye">>]],
    gen_tcp:close(S),
    halt().
]==]

describe("a foreign client:", function()
  after_each(server.finish)

  it("nc exchanges lines, and is told goodbye", function()
    needs "nc"
    local app = start([["line"]], QUIT)
    assert.equal("hello\nworld\nbye\n", run(app, [[printf "hello\nworld\nquit\n" | nc 127.0.0.1 {port}]]))
  end)

  it("nc that half-closes gets its answers", function()
    needs "nc"
    local app = start [["line"]]
    assert.equal("hello\nworld\n", run(app, [[printf "hello\nworld\n" | nc -N 127.0.0.1 {port}]]))
  end)

  it("nc over a Unix socket", function()
    needs "nc"
    local app = server.start { script = [[
      return { listen = "unix://app.sock", frame = "line", agent = { proceed = function(_, line) return line end } }]] }
    app.port = 0
    assert.equal("hello\n", run(app, [[printf "hello\n" | nc -N -U {folder}/app.sock]]))
  end)

  it("socat with carriage returns", function()
    needs "socat"
    local app = start([["line"]], QUIT)
    assert.equal("hello\nbye\n", run(app, [[printf "hello\r\nquit\r\n" | socat -t 5 - TCP:127.0.0.1:{port}]]))
  end)

  it("socat that sends 5 MB of raw bytes gets them back", function()
    needs "socat"
    local app = start [["raw"]]
    assert.equal("same\n", run(app, [[head -c 5000000 /dev/urandom >{folder}/sent;
      socat -t 10 - TCP:127.0.0.1:{port} <{folder}/sent >{folder}/got; cmp {folder}/sent {folder}/got && echo same]]))
  end)

  it("Python with struct speaks u32be", function()
    needs "python3"
    local app = start [["u32be"]]
    command.write(app.folder .. "/client.py", PYTHON)
    assert.equal("5 True\n2 True\n100000 True\n3 True\n", run(app, "python3 {folder}/client.py {port}"))
  end)

  it("Python sends urgent data, and what is behind it is answered", function()
    needs "python3"
    local app = start [["line"]]
    command.write(app.folder .. "/urgent.py", URGENT)
    assert.equal("b'a\\n'\nb'b\\n' b'c\\n'\n", run(app, "python3 {folder}/urgent.py {port}"))
  end)

  it("Python that sends on and on and never reads is ended by the write time-out", function()
    needs "python3"
    local app = server.start { script = [[
      local Agent = {}
      function Agent:proceed() return ("x"):rep(100000) end
      return {
        listen = { "tcp://127.0.0.1:0", "unix://deaf.sock" }, frame = "line", agent = Agent,
        timeout = { write = "500ms" }, limits = { send_buffer = "256m", buffers = "1g" },
      }]] }
    command.write(app.folder .. "/deaf.py", DEAF)
    assert.equal("ended\n", run(app, "python3 {folder}/deaf.py {folder}/deaf.sock"))
    assert.equal("write_timeout=1", app:stop("TERM").summary.reasons)
  end)

  it("Python reads netstrings", function()
    needs "python3"
    local app = start [["netstring"]]
    command.write(app.folder .. "/client.py", [[
import socket, sys
s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
s.sendall(b"5:hello,0:,3:a,b,")
got = b""
while len(got) < 17: got += s.recv(100)
print(got.decode())
]])
    assert.equal("5:hello,0:,3:a,b,\n", run(app, "python3 {folder}/client.py {port}"))
  end)

  it("Erlang's {packet, 4} is u32be", function()
    needs "erl"
    needs "erlc"
    local app = start [["u32be"]]
    command.write(app.folder .. "/client.erl", ERLANG)
    assert.equal("5 true\n100000 true\n3 true\n", run(app,
      "cd {folder} && erlc client.erl && erl -noshell -run client main {port}"))
  end)

  it("Erlang's {packet, line} is line", function()
    needs "erl"
    local app = start([["line"]], QUIT)
    assert.equal("<<\"hello\\n\">>\n", run(app, [[erl -noshell -eval "
      {ok, S} = gen_tcp:connect({127,0,0,1}, {port}, [binary, {packet, line}, {active, false}]),
      ok = gen_tcp:send(S, <<104,101,108,108,111,10>>), {ok, L} = gen_tcp:recv(S, 0, 10000),
      io:format(\"~p~n\", [L]), halt()."]]))
  end)

  it("Node speaks u32be", function()
    needs "node"
    local app = start [["u32be"]]
    command.write(app.folder .. "/client.js", NODE)
    assert.equal("5 true\n100000 true\n3 true\n", run(app, "node {folder}/client.js {port}"))
  end)
end)
