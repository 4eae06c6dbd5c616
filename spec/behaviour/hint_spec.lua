--- The mistakes that everybody makes: each is shown with its message, the culprit underlined, and a hint that leads out
--- of
--- it.
local has = require "spec.support.has"
local memory = require "spec.support.memory"

-- One line of code for each kind of frame.
local SCRIPT = [[
local perilune = require "perilune"
local Agent = {}
local helper = {}
function Agent:greet(name) return "hello " .. self.name .. name end
function Agent:opened() self.numbers, self.kept = { 3, 1, 2 }, nil end
function Agent:proceed(line)
  local n, name
%s
  return line .. tostring(n) .. tostring(name) .. tostring(helper) .. tostring(perilune)
end
local function later() end
return { listen = "tcp://127.0.0.1:0", frame = "line", agent = Agent, limits = { proceed = "500ms" } }
]]

-- The mistake (in line 8), what the message says, what is underlined, what the hint says.
local CASES = {
  { "a method of conn called with a dot", 'self.conn.send("x")', "a conn is expected before ':'",
    ".", "write self.conn:send(…): the colon passes the connection on" },
  { "a method of the agent called with a dot", 'n = Agent.greet("ann")',
    "attempt to concatenate field 'name' (a nil value)", "name",
    "self is a string here: the method was called with a dot: a colon, as in object:method(…), passes" },
  { "a method without its object", "n = self.greet()", "attempt to index local 'self' (a nil value)",
    "self", "the method was called with a dot: a colon, as in object:method(…), passes the object on" },
  { "a global that is misspelt", "n = tostrng(line)", "undefined global 'tostrng'", "tostrng",
    "did you mean 'tostring'?" },
  { "a local that is declared below", "n = later()", "undefined global 'later'",
    "later", "'later' is a local from line 11 on, which is below: move its declaration up" },
  { "conn in an agent of a prototype", 'conn:send("x")', "undefined global 'conn'",
    "conn", "an agent made from a prototype has its connection as self.conn" },
  { "a global that is written", "count = 1", "assignment to global 'count'", "count",
    "local count where it is used by this call only; self.count for this connection; "
      .. "local count at the top of the file "
      .. "for all connections of a worker" },
  { "a misspelt conn", [[self.con:send("x")]], "attempt to index field 'con' (a nil value)",
    "con", "did you mean 'self.conn'?" },
  { "a field that nothing has set", "n = self.rooms[1]", "attempt to index field 'rooms' (a nil value)",
    "rooms", "nothing has set self.rooms: opened() is the place for what each connection begins with" },
  { "waiting inside of table.sort", "table.sort(self.numbers, function() perilune.sleep(0.01) return true end)",
    "attempt to yield across C-call boundary", "perilune.sleep",
    "nothing can wait inside a function that C calls, such as that of table.sort, of gsub, "
      .. "or a file in require: collect "
      .. "what is needed there, and wait afterwards" },
  { "waiting inside of gsub", 'line = line:gsub(".", function() self.conn:flush() perilune.sleep(0.01) end)',
    "attempt to yield across C-call boundary", "perilune.sleep", "nothing can wait inside a function that C calls" },
  { "waiting inside of a coroutine", "coroutine.wrap(function() perilune.sleep(1) end)()",
    "cannot wait inside a coroutine of the handler's own", nil,
    "let the coroutine yield what it wants, and wait outside of it" },
  { "nil in a text", 'n = "hello " .. self.kept', "attempt to concatenate field 'kept' (a nil value)",
    "kept", '(self.kept or "") leaves it out; tostring(self.kept) says "nil"' },
  { "a table in a text", 'n = "hello " .. self.numbers', "attempt to concatenate field 'numbers' (a table value)",
    "numbers", "tostring(self.numbers) makes a text of it" },
  { "a method of the agent that is misspelt", "n = self:gret(line)", "attempt to call method 'gret' (a nil value)",
    "gret", "did you mean 'greet'?" },
  { "a method of strings that is misspelt", "n = line:uper()", "attempt to call method 'uper' (a nil value)",
    "uper", "did you mean 'upper'?" },
  { "a method of conn that is misspelt", "self.conn:sned(line)",
    "conn has no field or method 'sned' (did you mean 'send'?)", "sned", nil },
  { "a function of perilune that is misspelt", "perilune.slep(1)", "attempt to call field 'slep' (a nil value)",
    "slep", "did you mean 'sleep'?" },
  { "a function of another Lua", "n = table.unpack(self.numbers)", "attempt to call field 'unpack' (a nil value)",
    "unpack", "in LuaJIT it is a global: unpack(…)" },
  { "true as a reply", "do return true end", "a reply is a string, a list of strings or nil, not a boolean",
    nil, 'true means something in eof, timeout and drain only; to end the connection, return nil, "close"' },
  { "a list in a list of replies", "do return { line, {} } end", "a list of replies holds strings; item 2 is a table",
    nil, "each item is sent as a frame: table.concat(…) makes one text of a list" },
  { "a hole in a list of replies", "do return { line, nil, line } end",
    "a list of replies has no holes: item 2 is nil, and there is an item 3",
    nil, "build it with list[#list + 1] = text, which leaves out what is nil" },
  { "several replies that are no list", "do return line, nil, line end",
    "a handler returns a reply and an action; a third value would be lost",
    nil, "several replies are a list: return { a, b }" },
  { "a table with keys as a reply", "do return { status = line } end",
    "a list of replies has items 1, 2 … and nothing else; this table has the key 'status'",
    nil, "a frame is text: make one of the table, or give the framing an encode of its own" },
  { "text compared with a number", "if line > 3 then return end", "attempt to compare number with string",
    ">", "frames are strings: tonumber(…) makes a number of one, or nil" },
  { "nil compared with a number", "if n < 3 then return end", "attempt to compare nil with number",
    "<", "one of the two is nil: check it first, as in if n and n > 0 then" },
  { "null of JSON in a text", "n = perilune.json.decode '{\"a\":null}' n = 'hello ' .. n.a",
    "attempt to concatenate field 'a' (a userdata value)", "a", "this may be json.null, which stands for null" },
  { "a field of JSON's null", "n = perilune.json.decode '{\"a\":null}' n = n.a.b",
    "attempt to index field 'a' (a userdata value)", "a", "this may be json.null, which stands for null" },
  { "null of JSON compared with a number", "n = perilune.json.null if n > 3 then return end",
    "attempt to compare number with userdata", ">", "this may be json.null, which stands for null" },
  { "arithmetic on what is no number", "n = tonumber(line) n = n + 1",
    "attempt to perform arithmetic on local 'n' (a nil value)", "n",
    "tonumber(…) gives nil for what is no number: check it first" },
}

-- The part of a line above the carets, and what is said of it.
local function underlined(excerpt)
  local line, marks = excerpt:match "\n%d+ | ([^\n]*)\n *| ([^\n]*)"
  if not marks then return nil end
  local from, to = marks:find "%^+"
  return line:sub(from, to)
end

local function hint_of(excerpt) return excerpt:match "\nhint: ([^\n]*)" end

-- Function, what it says.
local NOT_THERE = {
  ["perilune.timer(1)"] = "timers are perilune.after(duration, fn), once, and perilune.every(duration, fn)",
  ["perilune.setTimeout(print, 1)"] = "timers are perilune.after(duration, fn)",
  ["perilune.go(print)"] = "it is called perilune.spawn(fn)", ["perilune.race {}"] = "it is called perilune.any",
  ["perilune.fetch('x')"] = 'it is http.get(url), with local http = require "perilune.http"',
  ["perilune.wait(1)"] = "it is called perilune.sleep", ["perilune.mutex()"] = "perilune.semaphore(1)",
  ["perilune.info('x')"] = 'perilune.log("info", text)',
  ["perilune.publish('x')"] = "it is called perilune.hub.publish",
  ["perilune.subscribe('x')"] = "it is called self.conn:join(topic)",
  ["perilune.hub.subscribe('x')"] = "it is called self.conn:join(topic)",
  ["perilune.app('x')"] = "that is of perilune.test", ["perilune.net()"] = "that is of perilune.test",
  ["perilune.dial('tcp://db:1')"] = 'it is called perilune.connect("tcp://host:port", options)',
  ["perilune.tcp()"] = "it is called perilune.connect", ["perilune.socket()"] = "it is called perilune.connect",
  ["perilune.lookup('db')"] = "it is called perilune.resolve(name)",
  ["perilune.upstream()"] = "it is called perilune.pool", ["perilune.setkeepalive()"] = "it is called perilune.pool",
  ["perilune.pipe(self)"] = "it is called self.conn:pipe(other)",
}

describe("a fault is shown with its culprit and a hint:", function()
  after_each(memory.finish)

  for code, hint in pairs(NOT_THERE) do
    it("what is not there: " .. code, function()
      local app = assert(memory.script(SCRIPT:format("  " .. code)))
      app:connect():send("word"):expect_closed()
      has("hint: " .. hint, app:faults()[1].excerpt)
    end)
  end

  it("what is not there, whatever the script calls the module", function()
    for first, call in pairs {
      ['local p = require "perilune"'] = "p.timer(1)", ["local lune = require('perilune')"] = "lune.timer(1)",
    } do
      local app = assert(memory.script(first .. "\n" .. SCRIPT:format("  " .. call)))
      app:connect():send("word"):expect_closed()
      has("hint: timers are perilune.after(duration, fn)", app:faults()[1].excerpt)
    end
    local app = assert(memory.script("local p = {}\n" .. SCRIPT:format("  p.timer(1)")))
    app:connect():send("word"):expect_closed()
    assert.is_nil(app:faults()[1].excerpt:find("timers", 1, true))
  end)

  it("a method of conn that other programs call so", function()
    for code, said in pairs {
      ["self.conn:write(line)"] = "no field or method 'write' (did you mean 'send'?)",
      ["self.conn:receive()"] = "no field or method 'receive' (did you mean 'read'?)",
      ["self.conn:on('data', print)"] =
        "no field or method 'on': what happens to it is told by calling methods of the agent",
    } do
      local app = assert(memory.script(SCRIPT:format("  " .. code)))
      app:connect():send("word"):expect_closed()
      has(said, app:faults()[1].error)
    end
  end)

  it("a word that is none of a few", function()
    for code, said in pairs {
      ['self.conn:set_timeout("idel", 1)'] =
        'expects "read", "write", "idle" or "first_frame", got "idel" (did you mean "idle"?)',
      ['self.conn:set_timeout("\\27[2J", 1)'] = 'or "first_frame", got "\\x1b[2J"',
      ['self.conn:set_timeout("idle\\0", 1)'] = 'got "idle\\x00"',
      ['perilune.log("wran", "x")'] = 'expects "debug", "info", "warn" or "error", got "wran" (did you mean "warn"?)',
    } do
      local app = assert(memory.script(SCRIPT:format("  " .. code)))
      app:connect():send("word"):expect_closed()
      has(said, app:faults()[1].error)
      has("app.lua:8", app:faults()[1].place)
    end
  end)

  -- The definition of a method, what is done in it, how it would be written.
  for _, case in ipairs {
    { "function A.proceed(line)", "return line:upper()",
      "proceed was written without self: write function A:proceed(line)" },
    { "function A.proceed(line)", "return 'got ' .. line", "write function A:proceed(line)" },
    { "function A.proceed(line)", "return self.name .. line", "write function A:proceed(line)" },
    { "A.proceed = function(frame)", "return frame .. '!'", "write proceed = function(self, frame)" },
    { "function A:proceed() return 'x' end function A.closed(reason)", "return 'left: ' .. reason",
      "closed was written without self: write function A:closed(reason)" },
  } do
    it("a method without self: " .. case[1] .. " " .. case[2], function()
      local app = assert(memory.script(("local A = {}\n%s\n%s\nend\nreturn { listen = %q, frame = 'line', agent = A }")
        :format(case[1], case[2], "tcp://127.0.0.1:0")))
      app:connect():send "x":close():closed()
      has("hint: ", app:faults()[1].excerpt)
      has(case[3], app:faults()[1].excerpt)
    end)
  end

  it("an agent without a socket that uses a conn", function()
    local app = assert(memory.script [[
      local perilune = require "perilune"
      local Room, Agent = {}, {}
      function Room:message(_, line)
        self.conn:send(line)
      end
      function Agent:proceed(line) return perilune.call("room:1", line) or "no reply" end
      return { listen = "tcp://127.0.0.1:0", frame = "line", agent = Agent, agents = { room = { agent = Room } } }
    ]])
    app:connect():send("x"):expect "no reply"
    has("hint: an agent without a socket has no conn: what message() returns goes to who calls; to others, "
      .. "perilune.send(name, data)", app:faults()[1].excerpt)
    app:close()
  end)

  it("no method without self where it has one", function()
    for _, head in ipairs { "function A:proceed()", "function A.proceed(self)", "function A.proceed(_, line)",
      "A.proceed = function(_)", "function A.proceed(...)", "function A.proceed(this)" } do
      local app = assert(memory.script(("local A = {}\n%s\nlocal t = {} return 'a' .. t\nend\n" ..
        "return { listen = %q, frame = 'line', agent = A }"):format(head, "tcp://127.0.0.1:0")))
      app:connect():send "x":expect_closed "error"
      assert.is_nil(app:faults()[1].excerpt:find("without self", 1, true), head)
    end
  end)

  for _, case in ipairs(CASES) do
    local what, code, message, culprit, hint = unpack(case, 1, 5)
    it(what, function()
      local app = assert(memory.script(SCRIPT:format("  " .. code)))
      app:connect():send("word"):expect_closed()
      local entry = app:faults()[1]
      has(message, entry.error)
      assert.equal(culprit, underlined(entry.excerpt), entry.excerpt)
      if hint then has("hint: " .. hint, entry.excerpt) else assert.is_nil(hint_of(entry.excerpt)) end
    end)
  end

  it("a factory that forgets to return", function()
    local app = assert(memory.script [[
      return { listen = "tcp://127.0.0.1:0", frame = "line", agent = function(conn)
        local agent = { proceed = function(_, line) conn:send(line) end }
      end }]])
    app:connect():expect_closed("error")
    local entry = app:faults()[1]
    has("the agent factory returned nil; it must return the agent", entry.error)
    assert.equal("its last line must be: return agent", hint_of(entry.excerpt))
  end)

  it("a factory's agent, which has no conn of its own", function()
    local app = assert(memory.script [[
      return { listen = "tcp://127.0.0.1:0", frame = "line", agent = function()
        return { proceed = function(self, line) self.conn:send(line) end }
      end }]])
    app:connect():send("x"):expect_closed("error")
    local excerpt = app:faults()[1].excerpt
    assert.equal("conn", underlined(excerpt))
    assert.equal("what a factory returns has no conn of its own: put it there, as in { conn = conn }", hint_of(excerpt))
  end)

  it("a connection that is used after its end", function()
    local app = assert(memory.script [[
      local old
      local Agent = {}
      function Agent:proceed(line)
        if line == "leave" then old = self.conn return "bye", "close" end
        return "hello " .. old.conn.peer:upper()
      end
      function Agent:closed() old = self end
      return { listen = "tcp://127.0.0.1:0", frame = "line", agent = Agent }]])
    app:connect():send("leave"):expect("bye"):expect_closed("agent")
    app:connect():send("look"):expect_closed("error")
    local excerpt = app:faults()[1].excerpt
    has("attempt to index field 'peer' (a nil value)", excerpt)
    assert.equal("peer", underlined(excerpt))
    assert.equal("old.conn.peer is nil once the connection has ended: keep it in self while it is there",
      hint_of(excerpt))
  end)

  it("none where none is sure", function()
    local app = assert(memory.script(SCRIPT:format "  error('boom')"))
    app:connect():send("word"):expect_closed()
    assert.is_nil(hint_of(app:faults()[1].excerpt))
  end)
end)
