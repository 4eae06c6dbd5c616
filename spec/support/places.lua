--- Everything of ours that Lua can reach, from everywhere that code of the user's runs: the script of it. What has to
--- come of each is in spec/behaviour/places_spec.lua and spec/server/places_spec.lua.
---
--- The script is told by a client of its listener "control" what to try next: a method, on which connection, in which
--- place. It is tried once, by whoever comes to that place first, and what came of it is told when the control asks.
local M = {}

--- Methods and properties of conn.
M.METHODS = {
  "send", "flush", "close", "abort", "shutdown", "pause", "resume", "read", "set_frame", "set_timeout", "defer", "id",
  "peer", "local_addr", "listener", "usage", "tls", "subprotocol", "tostring", "link", "pipe", "begin",
  "join", "leave", "publish", "topics",
}

--- Those of require "perilune".
M.FUNCTIONS = {
  "sleep", "now", "stats", "log", "time", "after", "every", "spawn", "all", "any", "timeout", "channel", "semaphore",
  "connect", "resolve", "pool", "shared", "job", "register", "unregister", "perilune.send", "perilune.call",
  "hub.publish", "hub.count", "hub.stats",
}

--- On whose connection: the one that the place is of, another one, one that has ended. A cell has a sign for each.
M.TARGETS = { "own", "other", "ended" }

--- What may come of it.
M.SIGNS = {
  ["+"] = "it works", ["-"] = "nil", ["c"] = 'nil, "closed"', ["e"] = "nil, and the end of the stream",
  ["m"] = "raises: this callback must not wait", ["h"] = "raises: only a running handler can wait",
  ["o"] = "raises: for its own connection only", ["k"] = "raises: not in a coroutine of its own",
  ["y"] = "raises: not across a call of C", ["w"] = "it waits, and never goes on",
  ["b"] = "raises: this callback must not begin anything", ["r"] = "raises: its bytes are being read, or decoded",
  ["a"] = "raises: there is no agent yet",
}

--- "opened" and so on are callbacks. The others:
---  task, timer, task_defer: what perilune.spawn(), after() and defer() are given
---  batch, after_wait: in the midst of frames that came together; after perilune.sleep()
---  injected: failed(), after a fault of app:fail()
---  tostring, index, finaliser: metamethods, of an error that is logged, of a table that a handler reads, of newproxy()
---  coroutine, kept_coroutine: one of the handler's own; one that another connection's handler has made
---  sort, gsub: functions that C calls
---  look_up, look_up_waiting: the agent's __index, when eof() is called; when it is only looked for
---  decode…, encode…: a codec in Lua, alone, in a batch, for conn:read(), in conn:send(), for a client of a test
---  decode_raises: the same, and then it raises
---  redact: record.redact
---  keeping: the script's own snapshot(), on behalf of a connection that has said so
---  teardown: of a generation whose connections have migrated, which is on the loader's thread
-- luacheck: push ignore 631 (one line a place)
M.TABLE = [[
place           sen flu clo abo shu pau res rea fra tim def id  pee loc lis usa tls sub tos lin pip beg joi lea pub top sntltaesaatcscrpdjruscpcs
opened          ++c ++c ++c ++c ++c ++c ++c +oc ++c ++c ++c +++ ++- ++- ++- ++- --- --- +++ ++c ++c ++c ++c +++ ++c +++ +++++++++++++++++++++++++
factory         ++c ++c ++c ++c ++c ++c ++c +oc ++c ++c ++c +++ ++- ++- ++- ++- --- --- +++ ++c ++c ++c a+c +++ ++c +++ ++++++++++++++++++aa+++++
proceed         ++c ++c ++c ++c ++c ++c ++c +oc ++c ++c ++c +++ ++- ++- ++- ++- --- --- +++ ++c ++c ++c ++c +++ ++c +++ +++++++++++++++++++++++++
batch           ++c ++c ++c ++c ++c ++c ++c +oc ++c ++c ++c +++ ++- ++- ++- ++- --- --- +++ ++c ++c ++c ++c +++ ++c +++ +++++++++++++++++++++++++
after_wait      ++c ++c ++c ++c ++c ++c ++c +oc ++c ++c ++c +++ ++- ++- ++- ++- --- --- +++ ++c ++c ++c ++c +++ ++c +++ +++++++++++++++++++++++++
task            ++c ++c ++c ++c ++c ++c ++c +oc ++c ++c ++c +++ ++- ++- ++- ++- --- --- +++ ++c ++c ++c ++c +++ ++c +++ +++++++++++++++++++++++++
timer           ++c ++c ++c ++c ++c ++c ++c +oc ++c ++c ++c +++ ++- ++- ++- ++- --- --- +++ ++c ++c ++c ++c +++ ++c +++ +++++++++++++++++++++++++
eof             ++c ++c ++c ++c ++c ++c ++c eoc ++c ++c ++c +++ ++- ++- ++- ++- --- --- +++ ++c ++c ++c ++c +++ ++c +++ +++++++++++++++++++++++++
timeout         ++c m+c ++c ++c ++c ++c ++c mmc ++c ++c ++c +++ ++- ++- ++- ++- --- --- +++ ++c ++c ++c ++c +++ ++c +++ m+++++++mmm++mmm+m+++m+++
writable        ++c ++c ++c ++c ++c ++c ++c +oc ++c ++c ++c +++ ++- ++- ++- ++- --- --- +++ ++c ++c ++c ++c +++ ++c +++ +++++++++++++++++++++++++
oversize        ++c m+c ++c ++c ++c ++c ++c mmc ++c ++c ++c +++ ++- ++- ++- ++- --- --- +++ ++c ++c ++c ++c +++ ++c +++ m+++++++mmm++mmm+m+++m+++
malformed       ++c m+c ++c ++c ++c ++c ++c mmc ++c ++c ++c +++ ++- ++- ++- ++- --- --- +++ ++c ++c ++c ++c +++ ++c +++ m+++++++mmm++mmm+m+++m+++
failed          ++c m+c ++c ++c ++c ++c ++c mmc ++c ++c ++c +++ ++- ++- ++- ++- --- --- +++ ++c ++c ++c ++c +++ ++c +++ m+++++++mmm++mmm+m+++m+++
injected        ++c m+c ++c ++c ++c ++c ++c mmc ++c ++c ++c +++ ++- ++- ++- ++- --- --- +++ ++c ++c ++c ++c +++ ++c +++ m+++++++mmm++mmm+m+++m+++
drain           ++c ++c ++c ++c ++c ++c ++c +oc ++c ++c ++c +++ ++- ++- ++- ++- --- --- +++ ++c ++c ++c ++c +++ ++c +++ +++++++++++++++++++++++++
closed          c+c c+c ++c ++c c+c c+c c+c cmc c+c c+c c+c +++ ++- ++- ++- ++- --- --- +++ c+c c+c c+c c+c +++ ++c +++ m++++bbbbbb++bbm+bb++m+++
defer           c+c c+c ++c ++c c+c c+c c+c cmc c+c c+c c+c +++ ++- ++- ++- ++- --- --- +++ c+c c+c c+c c+c +++ ++c +++ m++++bbbbbb++bbm+bb++m+++
task_defer      ++c m+c ++c ++c ++c ++c ++c mmc ++c ++c ++c +++ ++- ++- ++- ++- --- --- +++ ++c ++c ++c ++c +++ ++c +++ m++++bbbbbb++bbm+bb++m+++
tostring        ++c h+c ++c ++c ++c ++c ++c hhc ++c ++c ++c +++ ++- ++- ++- ++- --- --- +++ ++c ++c ++c hhh hhh hhh +++ h++++hhhhhh++hhh+hhhhhh++
index           ++c ++c ++c ++c ++c ++c ++c +oc ++c ++c ++c +++ ++- ++- ++- ++- --- --- +++ ++c ++c ++c ++c +++ ++c +++ +++++++++++++++++++++++++
finaliser       ++c y+c ++c ++c ++c ++c ++c yoc ++c ++c ++c +++ ++- ++- ++- ++- --- --- +++ ++c ++c ++c ++c +++ ++c +++ y+++++++yyy++yyy+y+++y+++
coroutine       ++c k+c ++c ++c ++c ++c ++c kkc ++c ++c ++c +++ ++- ++- ++- ++- --- --- +++ ++c ++c ++c ++c +++ ++c +++ k+++++++kkk++kkk+k+++k+++
kept_coroutine  ++c k+c ++c ++c ++c ++c ++c kkc ++c ++c ++c +++ ++- ++- ++- ++- --- --- +++ ++c ++c ++c ++c +++ ++c +++ k+++++++kkk++kkk+k+++k+++
sort            ++c y+c ++c ++c ++c ++c ++c yoc ++c ++c ++c +++ ++- ++- ++- ++- --- --- +++ ++c ++c ++c ++c +++ ++c +++ y+++++++yyy++yyy+y+++y+++
gsub            ++c y+c ++c ++c ++c ++c ++c yoc ++c ++c ++c +++ ++- ++- ++- ++- --- --- +++ ++c ++c ++c ++c +++ ++c +++ y+++++++yyy++yyy+y+++y+++
look_up         ++c ++c ++c ++c ++c ++c ++c eoc ++c ++c ++c +++ ++- ++- ++- ++- --- --- +++ ++c ++c ++c ++c +++ ++c +++ +++++++++++++++++++++++++
look_up_waiting ++c h+c ++c ++c ++c ++c ++c hhc ++c ++c ++c +++ ++- ++- ++- ++- --- --- +++ ++c ++c ++c hhh hhh hhh +++ h++++hhhhhh++hhh+hhhhhh++
decode          ++c h+c ++c ++c ++c ++c ++c hhc ++c ++c ++c +++ ++- ++- ++- ++- --- --- +++ ++c r+c ++c hhh hhh hhh +++ h++++hhhhhh++hhh+hhhhhh++
decode_batch    ++c h+c ++c ++c ++c ++c ++c hhc ++c ++c ++c +++ ++- ++- ++- ++- --- --- +++ ++c r+c ++c hhh hhh hhh +++ h++++hhhhhh++hhh+hhhhhh++
decode_read     ++c h+c ++c ++c ++c ++c ++c hhc ++c ++c ++c +++ ++- ++- ++- ++- --- --- +++ ++c r+c ++c hhh hhh hhh +++ h++++hhhhhh++hhh+hhhhhh++
decode_raises   ++c h+c ++c ++c ++c ++c ++c hhc ++c ++c ++c +++ ++- ++- ++- ++- --- --- +++ ++c r+c ++c hhh hhh hhh +++ h++++hhhhhh++hhh+hhhhhh++
encode          ++c h+c ++c ++c ++c ++c ++c hhc ++c ++c ++c +++ ++- ++- ++- ++- --- --- +++ ++c ++c ++c hhh hhh hhh +++ h++++hhhhhh++hhh+hhhhhh++
encode_batch    ++c h+c ++c ++c ++c ++c ++c hhc ++c ++c ++c +++ ++- ++- ++- ++- --- --- +++ ++c ++c ++c hhh hhh hhh +++ h++++hhhhhh++hhh+hhhhhh++
encode_send     ++c y+c ++c ++c ++c ++c ++c yoc ++c ++c ++c +++ ++- ++- ++- ++- --- --- +++ ++c ++c ++c ++c +++ ++c +++ y+++++++yyy++yyy+y+++y+++
clients_encode  ++c ++c ++c ++c ++c ++c ++c hhc ++c ++c ++c +++ ++- ++- ++- ++- --- --- +++ ++c ++c ++c hhh hhh hhh +++ h++++hhhhhh++hhh+hhhhhh++
clients_decode  ++c ++c ++c ++c ++c ++c ++c hhc ++c ++c ++c +++ ++- ++- ++- ++- --- --- +++ ++c ++c ++c hhh hhh hhh +++ h++++hhhhhh++hhh+hhhhhh++
redact          ++c ++c ++c ++c ++c ++c ++c hhc ++c ++c ++c +++ ++- ++- ++- ++- --- --- +++ ++c ++c ++c hhh hhh hhh +++ h++++hhhhhh++hhh+hhhhhh++
snapshot        ++c ++c ++c ++c ++c ++c ++c mmc ++c ++c ++c +++ ++- ++- ++- ++- --- --- +++ ++c ++c b+c bbb bbb bbb +++ m++++bbbbbb++bbm+bbbbbb++
upgrade         ++c ++c ++c ++c ++c ++c ++c mmc ++c ++c ++c +++ ++- ++- ++- ++- --- --- +++ ++c ++c b+c ++c +++ ++c +++ m+++++++mmm++mmm+m+++m+++
keeping         ++c ++c ++c ++c ++c ++c ++c hhc ++c ++c ++c +++ ++- ++- ++- ++- --- --- +++ ++c ++c ++c hhh hhh hhh +++ h++++hhhhhh++hhh+hhhhhh++
teardown        ccc ccc ccc ccc ccc ccc ccc ccc ccc ccc ccc +++ --- --- --- --- --- --- +++ ccc ccc ccc hhh hhh hhh +++ h++++hhhhhh++hhh+hhhhhhhh
message         ++c ++c ++c ++c ++c ++c ++c +oc ++c ++c ++c +++ ++- ++- ++- ++- --- --- +++ ++c ++c ++c ++c +++ ++c +++ +++++++++++++++++++++++++
]]
-- luacheck: pop

M.LISTENERS = { "control", "kept", "lines", "factory", "looking", "moving", "redacted", "coded", "netstrings" }

local HEAD = [[
local perilune = require "perilune"

local others = {} -- agents

local ended -- conn

-- For who needs one more: the first, for the last is what is tried on. In a teardown() all have ended.
local function spare() return others[1] and others[1].conn or ended end

-- Nobody listens at that port.
local function is_refused(conn, _, code) return conn == nil and code == "ECONNREFUSED" end

local METHODS = {
  send = function(conn) return conn:send("sent") end,
  flush = function(conn) conn:send("flushed") return conn:flush() end,
  close = function(conn) return conn:close() end,
  abort = function(conn) return conn:abort() end,
  shutdown = function(conn) return conn:shutdown() end,
  pause = function(conn) return conn:pause() end,
  resume = function(conn) conn:pause() return conn:resume() end,
  read = function(conn) return conn:read("line", "1s") end,
  set_frame = function(conn) return conn:set_frame { "u32be", offset = 4 } end,
  set_timeout = function(conn) return conn:set_timeout("read", "5s") end,
  defer = function(conn) return conn:defer(function() end) end,
  id = function(conn) return conn.id end,
  peer = function(conn) return conn.peer end,
  local_addr = function(conn) return conn.local_addr end,
  listener = function(conn) return conn.listener end,
  usage = function(conn) return conn.usage end,
  tls = function(conn) return conn.tls end,
  subprotocol = function(conn) return conn.subprotocol end,
  tostring = function(conn) return tostring(conn):find "^conn %d+ %(" end,
  link = function(conn) return conn:link(spare()) end,
  pipe = function(conn) return conn:pipe(spare()) end,
  begin = function(conn)
    local ok, message, why = pcall(conn.begin, conn)
    if ok then return message, why end
    return message:find "only a WebSocket" and true or error(message, 0)
  end,
  join = function(conn) return conn:join "places" end,
  leave = function(conn)
    local was, why = conn:leave "places.other"
    if was == nil then return nil, why end
    return true
  end,
  publish = function(conn) return conn:publish("places.nobody", "x") end,
  topics = function(conn) return conn:topics() end,
  ["hub.publish"] = function() return perilune.hub.publish("places.nobody", "x") end,
  ["hub.count"] = function() return perilune.hub.count "places" end,
  ["hub.stats"] = function() return perilune.hub.stats() end,
  sleep = function() perilune.sleep("10ms") return true end,
  now = function() return perilune.now() end,
  stats = function() return perilune.stats().accepted > 0 end,
  log = function() perilune.log("debug", "logged") return true end,
  time = function() return perilune.time() end,
  after = function() return perilune.after("1h", function() end):cancel() end,
  every = function() return perilune.every("1h", function() end):cancel() end,
  spawn = function() return perilune.spawn(function() end) end,
  all = function() return perilune.all { function() return true end } end,
  any = function() return perilune.any { function() return true end } end,
  timeout = function() return perilune.timeout("1s", function() return true end) end,
  channel = function()
    local channel = perilune.channel(1)
    channel:send(true)
    return channel:receive()
  end,
  semaphore = function() return perilune.semaphore():acquire() end,
  connect = function() return is_refused(perilune.connect "tcp://127.0.0.1:1") end,
  resolve = function() return perilune.resolve "127.0.0.1" end,
  pool = function() return is_refused(perilune.pool("tcp://127.0.0.1:1"):request "x") end,
  shared = function() return perilune.shared "places":incr "n" end,
  job = function()
    local _, why = pcall(perilune.job, "nowhere", "f")
    return why:find "there is no module 'nowhere'" and true or error(why, 0)
  end,
  register = function() return perilune.register("places", { replace = true }) end,
  unregister = function() return not perilune.unregister "nobody's" end,
  ["perilune.send"] = function() return perilune.send("control", { "sent" }) end,
  ["perilune.call"] = function() return perilune.call("control", true) end,
}

local RAISED = {
  ["must not wait"] = "m", ["only a running handler can"] = "h", ["must not begin anything"] = "b",
  ["a function in C has called"] = "y", ["own connection only"] = "o",
  ["inside a coroutine of the handler's own"] = "k", ["across C-call boundary"] = "y",
  ["a call reads from it"] = "r", ["there is no agent yet"] = "a", ["while its bytes are decoded"] = "r",
}

-- Not pcall(): what is ended must be seen to be.
local function sign_of(ok, value, message)
  if ok then
    if value then return "+" end
    if value == nil and message == "closed" then return "c" end
    if value == nil and message == "end of stream" then return "e" end
    return value == nil and message == nil and "-" or tostring(value) .. " " .. tostring(message)
  end
  for text, sign in pairs(RAISED) do
    if tostring(value):find(text, 1, true) then return sign end
  end
  return tostring(value)
end

local armed, outcome = nil, "not tried"
local other, moved -- conns

local function conn_of(target, own)
  if target == "own" then return own end
  return target == "ended" and ended or other
end

local function is_armed(place) return armed ~= nil and armed.place == place end

local function at(place, own)
  if not is_armed(place) then return end
  local what = armed
  armed, outcome = nil, "w"
  outcome = sign_of(pcall(METHODS[what.method], conn_of(what.target, own)))
  return true
end

-- ---- who is not tried on ----

local Control, Kept = {}, {}

function Control:opened() perilune.register("control", { replace = true }) end
function Control:message(_, data) return data end

function Control:proceed(line)
  if line == "outcome" then
    return outcome
  end
  if line == "forget" then
    other:close() -- it may be paused
    return "forgotten"
  end
  local place, target, method = line:match "^try (%S+) (%S+) (%S+)$"
  outcome, other = "not tried", others[#others].conn
  armed = { place = place, target = target, method = assert(METHODS[method] and method) }
  return "ready"
end

function Control:drain() return true end
function Kept:opened() others[#others + 1] = self end
function Kept:proceed(line) return line end
function Kept:drain() return is_armed "drain" end

function Kept:closed()
  ended = self.conn
  for i, one in ipairs(others) do
    if one == self then table.remove(others, i) end
  end
end
]]

local AGENT = [[
local Agent = {}

function Agent:opened()
  if is_armed "defer" then self.conn:defer(function() at("defer", self.conn) end) end
  at("opened", self.conn)
end

local resume_kept, keeper

local TRIES = {
  proceed = function(conn) at("proceed", conn) end,
  batch = function(conn) at("batch", conn) end,
  after_wait = function(conn) perilune.sleep("1ms") at("after_wait", conn) end,
  task = function(conn) perilune.spawn(function() at("task", conn) end) end,
  timer = function(conn) perilune.after(0, function() at("timer", conn) end) end,
  task_defer = function(conn)
    perilune.spawn(function() perilune.defer(function() at("task_defer", conn) end) end)
  end,
  mine = function(conn)
    keeper = conn
    return "mine"
  end,
  message = function()
    perilune.register("messages", { replace = true })
    perilune.send "messages"
  end,
  flood = function(conn) conn:send(("x"):rep(300)) end,
  raise = function() error("raised on purpose") end,
  tostring = function(conn)
    error(setmetatable({}, { __tostring = function() at("tostring", conn) return "told" end }))
  end,
  index = function(conn)
    return setmetatable({}, { __index = function() at("index", conn) return nil end }).field
  end,
  coroutine = function(conn) coroutine.wrap(function() at("coroutine", conn) end)() end,
  keep = function()
    local taker
    local resume = coroutine.wrap(function()
      coroutine.yield()
      at("kept_coroutine", taker)
    end)
    resume()
    resume_kept = function(conn) taker = conn resume() end
  end,
  take = function(conn) resume_kept(conn) end,
  sort = function(conn) table.sort({ 2, 1 }, function(a, b) at("sort", conn) return a < b end) end,
  gsub = function(conn) return nil, ("x"):gsub("x", function() at("gsub", conn) end) end,
  finaliser = function(conn)
    getmetatable(newproxy(true)).__gc = function() at("finaliser", conn) end
    local garbage
    while is_armed "finaliser" do garbage = { garbage and #garbage } end
  end,
}

function Agent:proceed(line)
  local try = TRIES[line]
  if try then return try(self.conn) end
  return line
end

function Agent:eof() at("eof", self.conn) end
function Agent:timeout() at("timeout", self.conn) end
function Agent:writable() at("writable", self.conn) end
function Agent:oversize() at("oversize", self.conn) end
function Agent:malformed() at("malformed", self.conn) end
function Agent:failed() at("failed", self.conn) end
function Agent:drain() at("drain", self.conn) end
function Agent:closed() at("closed", self.conn) end
function Agent:message() at("message", self.conn) end

local function message() end

local function factory(conn)
  at("factory", conn)
  return setmetatable({ conn = conn }, { __index = Agent })
end

-- An agent whose methods are looked up by code of its own.
local function looking(conn)
  local function proceed(_, line)
    if line == "sleep" then perilune.sleep("100ms") end
    return line
  end
  return setmetatable({ proceed = proceed, message = message }, { __index = function(_, name)
    if name == "eof" then at("look_up", conn) end
  end })
end

-- Goes to the next generation once it is told to.
local Moving = { message = message }

function Moving:proceed(line)
  if line == "hold" then
    perilune.log("info", "held")
    self.conn:read()
  end
  return line
end

function Moving:snapshot()
  at("snapshot", self.conn)
  moved = self.conn
  return {}
end

function Moving:upgrade()
  at("upgrade", self.conn)
  perilune.log("info", "upgraded")
end

local redacted
local Redacted = { message = message }
function Redacted:opened() redacted = self.conn end
function Redacted:proceed(line) return line end

local function redact(frame)
  if frame == "redact" then at("redact", redacted) end
  return frame
end

-- ---- a codec in Lua ----

local Coded, coded = { message = message }, nil

local function decode(bytes, position)
  local stop = bytes:find("\n", position, true)
  if not stop then return nil end
  local line = bytes:sub(position, stop - 1)
  if line == "decode" then at("decode", coded) end
  if line == "decode_raises" and at("decode_raises", coded) then error("raised on purpose") end
  return line, stop + 1
end

local function encode(text)
  if text == "encode" then at("encode", coded) end
  return text .. "\n"
end

function Coded:opened() coded = self.conn end
function Coded:proceed(line)
  if line == "read" then return self.conn:read(nil, "1s") end
  if line == "send" then self.conn:send("encode") return nil end
  if line == "say" then return "decode" end
  return line
end
]]

local TAIL = [[
-- What it can do does not depend on what it has done: all cells at once.
local function teardown()
  for target, conn in pairs { own = moved, other = other, ended = ended } do
    for method in pairs(METHODS) do
      armed = { place = "teardown", target = "own", method = method }
      at("teardown", conn)
      perilune.log("info", ("outcome %s %s %s"):format(target, method, outcome))
    end
  end
end

-- Nothing is to come of a reload in which something is tried.
local function snapshot()
  if at("keeping", keeper) then error("raised on purpose") end
end

return {
  setup = function(_, data) return data end, snapshot = snapshot,
  teardown = teardown, record = { redact = redact }, agent = Agent, frame = "line", unsafe = { "newproxy" },
  shared = { places = "64k" }, jobs = true,
  listen = {
    { "tcp://127.0.0.1:0", name = "control", agent = Control, timeout = { idle = false } },
    { "tcp://127.0.0.1:0", name = "kept", agent = Kept, timeout = { idle = false } },
    { "tcp://127.0.0.1:0", name = "lines", limits = { frame = 1000, send_buffer = 200 } },
    { "tcp://127.0.0.1:0", name = "factory", agent = factory },
    { "tcp://127.0.0.1:0", name = "looking", agent = looking },
    { "tcp://127.0.0.1:0", name = "moving", agent = Moving, reload = "migrate" },
    { "tcp://127.0.0.1:0", name = "redacted", agent = Redacted },
    { "tcp://127.0.0.1:0", name = "coded", agent = Coded, frame = { decode = decode, encode = encode } },
    { "tcp://127.0.0.1:0", name = "netstrings", frame = "netstring" },
  },
}
]]

--- The script.
---@param more string? in front of what it returns
---@return string
function M.script(more) return HEAD .. AGENT .. (more or "") .. TAIL end

-- The names of the columns; the table has a part of each.
local NAMES = {}
for _, list in ipairs { M.METHODS, M.FUNCTIONS } do
  for _, name in ipairs(list) do NAMES[#NAMES + 1] = name end
end

-- The columns of functions have no blanks between them.
local function words_of(line)
  local words = {}
  for word in line:gmatch "%S+" do words[#words + 1] = word end
  for sign in table.remove(words):gmatch "." do words[#words + 1] = sign end
  return words
end

local function check_head(words)
  for i, name in ipairs(NAMES) do
    assert(name:find(words[i + 1] or "?", 1, true), ("column %d is %s"):format(i, name))
  end
end

--- The table: what comes of each method (a sign for each of M.TARGETS) and of each function in each place.
---@return table<string, table<string, string>> rows by place, by method
---@return string[] places in their order
function M.read()
  local rows, places = {}, {}
  for line in M.TABLE:gmatch "[^\n]+" do
    local words = words_of(line)
    assert(#words == #NAMES + 1, "not as many as there are columns: " .. line)
    if words[1] == "place" then
      check_head(words)
    else
      local row = {}
      for i, name in ipairs(NAMES) do
        for sign in words[i + 1]:gmatch "." do assert(M.SIGNS[sign], sign) end
        row[name] = words[i + 1]
      end
      rows[words[1]], places[#places + 1] = row, words[1]
    end
  end
  return rows, places
end

--- Each cell: target, method.
---@return fun(): string?, string?
function M.cells()
  return coroutine.wrap(function()
    for i, target in ipairs(M.TARGETS) do
      for _, method in ipairs(M.METHODS) do coroutine.yield(target, method, i) end
    end
    for _, name in ipairs(M.FUNCTIONS) do coroutine.yield("own", name, 1) end
  end)
end

return M
