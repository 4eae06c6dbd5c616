--- How long a single call of C can take: each function that handlers have, with a verdict. The specification
--- spec/behaviour/long_calls_spec.lua looks that none is missing and that the verdicts hold; bench/long_calls.py
--- measures.
local M = {}

--- What these take does not depend on how large what they are given is; or only on how many arguments there are, of
--- which Lua's stack holds 8,000. (A function of the script's that they call is ended as any other.)
M.SHORT = [[
  assert error getmetatable ipairs pairs pcall rawequal rawget select setmetatable tostring type unpack xpcall
  bit.arshift bit.band bit.bnot bit.bor bit.bswap bit.bxor bit.lshift bit.rol bit.ror bit.rshift bit.tobit bit.tohex
  coroutine.create coroutine.isyieldable coroutine.resume coroutine.running coroutine.status coroutine.wrap
  coroutine.yield
  io.input io.output io.type
  math.abs math.acos math.asin math.atan math.atan2 math.ceil math.cos math.cosh math.deg math.exp math.floor math.fmod
  math.frexp math.ldexp math.log math.log10 math.max math.min math.modf math.pow math.rad math.random math.randomseed
  math.sin math.sinh math.sqrt math.tan math.tanh
  os.clock os.difftime os.time
  string.byte string.char string.len
  table.getn
  perilune.log perilune.now perilune.time perilune.after perilune.every perilune.spawn perilune.defer perilune.channel
  perilune.stats perilune.semaphore perilune.pool perilune.shared perilune.register perilune.unregister
  perilune.send perilune.crypto.random perilune.crypto.uuid
  perilune.json.array perilune.json.is_array
  file.setvbuf file.__tostring
  conn.close conn.abort conn.shutdown conn.pause conn.resume conn.set_frame conn.set_timeout conn.defer conn.id
  conn.peer conn.local_addr conn.listener conn.usage conn.tls conn.subprotocol conn.tostring conn.link conn.pipe
  conn.begin conn.join conn.leave conn.publish conn.topics perilune.hub.publish perilune.hub.count perilune.hub.stats
]]

--- These let the system work, and take as long as that does.
M.SYSTEM = [[
  io.close io.flush io.open io.tmpfile os.getenv os.remove os.rename os.tmpname
  file.close file.flush file.seek file.__gc
]]

--- These let other connections go on.
M.WAITING = [[
  perilune.sleep perilune.all perilune.any perilune.timeout perilune.connect perilune.resolve perilune.job conn.flush
  conn.read perilune.call
]]

--- What they work on is no larger than limits.frame.
M.FRAMES = [[
  view.len view.byte view.sub view.string
  view.u8 view.u16be view.u16le view.u24be view.u24le view.u32be view.u32le view.u64be view.u64le
  view.i8 view.i16be view.i16le view.i24be view.i24le view.i32be view.i32le view.i64be view.i64le
  view.f32be view.f32le view.f64be view.f64le
]]

---@class perilune.long_call done once, in a handler, on data that was made beforehand
---@field name string of the function; "operators" and "reply" are none, but calls of C as well
---@field verdict "guarded"|"linear"|"refused" ends soon after the budget is used up | when it has returned, after a
---  time that grows with the data: docs/containment.md names it | it raises at once
---@field data string made at the top level, of N bytes or so
---@field call string
---@field shown integer? bytes of which it takes some 0.3 s or more, if nothing ends it

---@type perilune.long_call[]
M.CASES = {}

local function add(verdict, name, data, call, shown)
  M.CASES[#M.CASES + 1] = { name = name, verdict = verdict, data = data, call = call, shown = shown }
end
local function guarded(...) add("guarded", ...) end
local function linear(...) add("linear", ...) end
local function refused(...) add("refused", ...) end

local MB = 10 ^ 6

local TEXT = [[local s = ("a"):rep(N)]]
local SPACES = [[local s = (" "):rep(N)]]
local DIGITS = [[local s = ("1"):rep(N)]]
local NUMBERS = [[local t = {} for i = 1, N / 16 do t[i] = i end]]
local REALS = [[local t = {} for i = 1, N / 16 do t[i] = i + 0.1 end]]
local EMPTY = [[local t = {} for i = 1, N / 16 do t[i] = "" end]]
local KEYS = [[local t = {} for i = 1, N / 40 do t[i .. ""] = true end]]
-- As many as fill it, so that one more makes it grow.
local FULL_LIST = [[local t = {} for i = 1, 2 ^ math.floor(math.log(N / 8) / math.log(2)) do t[i] = i end]]
local FULL_TABLE = [[local t = {} for i = 1, 2 ^ math.floor(math.log(N / 24) / math.log(2)) do t[i + 0.5] = 1 end]]
local FULL_OF_STRINGS = [[local t = {}
  for i = 1, 2 ^ math.floor(math.log(N / 40) / math.log(2)) - 5e4 do t[i] = "k" .. i end]]
local FILE = [[name = os.tmpname() local file = assert(io.open(name, "w+")) ]]
local WRITTEN = " file:write(s) file:flush()"
local ASSIGNMENTS = [[local s = ("x = 1 "):rep(N / 6)]]

guarded("load", ASSIGNMENTS, "load(s)", 30 * MB)
guarded("load", [[local s = "return {" .. ("1,"):rep(N / 2) .. "}"]], "load(s)", 30 * MB)
guarded("load", [[local s = "return '" .. ("\\1"):rep(N / 2) .. "'"]], "load(s)")
guarded("load", [[local s = "--[[" .. ("x"):rep(N)]], "load(s)")
guarded("load", TEXT, "load(s)")
guarded("load", "", [[load(coroutine.wrap(function() while true do coroutine.yield "x = 1 " end end))]], MB)
linear("load", [[local piece, n = ("x = 1 "):rep(1e4), 0
  local function f() n = n + #piece return n <= N and piece or nil end]], "load(f)")
guarded("loadstring", ASSIGNMENTS, "loadstring(s)", 30 * MB)
guarded("require", "", [[require "large"]]) -- a module of N bytes, but 16 MB at the most
linear("next", KEYS .. " for key in pairs(t) do t[key] = nil end", "next(t)")
linear("print", TEXT, "print(s)")
guarded("print", "local t = setmetatable({}, { __tostring = function() while true do end end })", "print(t)", MB)
linear("rawset", FULL_TABLE, "rawset(t, 'key', 1)")
linear("tonumber", DIGITS, "tonumber(s)")
linear("tonumber", DIGITS, "tonumber(s, 7)")
linear("math.max", DIGITS, "math.max(s, 1)")
linear("bit.bor", DIGITS, "bit.bor(s, 1)")
linear("os.time", DIGITS, "os.time { year = 2026, month = 1, day = s }")
refused("unpack", NUMBERS, "unpack(t, 1, #t)")

guarded("string.find", TEXT, [[s:find(("a"):rep(50) .. "b", 1, true)]], 100 * MB)
guarded("string.find", TEXT, [[s:find(("a"):rep(5000) .. "b", 1, true)]], 100 * MB)
linear("string.find", TEXT .. [[ local text = s:sub(1, N / 2) .. "b"]], [[s:find(text, 1, true)]])
guarded("string.find", TEXT, [[s:find "b"]])
guarded("string.find", TEXT, [[s:find "%d"]])
guarded("string.find", TEXT, [[s:find "[^a]"]])
guarded("string.find", TEXT, [[s:find "a*b"]], 20 * MB)
guarded("string.find", TEXT, [[s:find "[a-f]*b"]])
guarded("string.match", TEXT, [[s:match "(.-)b"]], 20 * MB)
guarded("string.gmatch", TEXT, [[s:gmatch "a-b" ()]], 20 * MB)
guarded("string.gsub", TEXT, [[s:gsub("a", "b")]], 20 * MB)
guarded("string.gsub", TEXT, [[s:gsub("a", tostring)]], 20 * MB)
guarded("string.gsub", TEXT, [[s:gsub("a", { a = "bb" })]], 20 * MB)
guarded("string.gsub", TEXT, [[s:gsub("b", "")]])
linear("string.gsub", TEXT, [[s:gsub("^a", "b")]])
linear("string.gsub", TEXT, [[("aaa"):gsub("a", s)]])
linear("string.format", [[local s = ("\0"):rep(N / 4)]], [[("%q"):format(s)]])
linear("string.format", [[local s = ("%%"):rep(N / 2)]], [[s:format()]])
linear("string.format", TEXT, [[("%s"):format(s)]])
linear("string.format", DIGITS, [[("%d"):format(s)]])
linear("string.lower", TEXT, "s:lower()")
linear("string.upper", TEXT, "s:upper()")
linear("string.reverse", TEXT, "s:reverse()")
linear("string.rep", "", [[("a"):rep(N)]])
linear("string.rep", "", [[("ab"):rep(N / 3, ",")]])
linear("string.sub", TEXT, "s:sub(2)")
linear("string.pack", TEXT, [[string.pack("z", s)]])
linear("string.pack", "", [[string.pack("c" .. N, "a")]])
guarded("string.pack", SPACES, [[string.pack(s)]], 40 * MB)
linear("string.unpack", TEXT .. [[ .. "\0"]], [[string.unpack("z", s)]])
guarded("string.unpack", SPACES, [[string.unpack(s, "")]], 60 * MB)
guarded("string.packsize", SPACES, [[string.packsize(s)]], 100 * MB)

guarded("table.concat", REALS, "table.concat(t)", 100 * MB)
guarded("table.concat", REALS, "table.concat(t, ',', 2)", 100 * MB)
guarded("table.concat", EMPTY, "table.concat(t)")
linear("table.concat", TEXT .. " local t = { s, 'b' }", "table.concat(t)")
guarded("table.foreach", NUMBERS, "table.foreach(t, io.type)")
guarded("table.foreachi", NUMBERS, "table.foreachi(t, io.type)")
linear("table.insert", NUMBERS, "table.insert(t, 1, 0)")
refused("table.insert", "local t = {}", "table.insert(t, -2 ^ 31, 0)")
refused("table.insert", "local t = {}", "table.insert(t, 2 ^ 31, 0)")
refused("table.insert", "local t = {}", "table.insert(t, '-1e9', 0)")
refused("table.insert", "local t = {}", "table.insert(t, 0 / 0, 0)")
guarded("table.maxn", KEYS, "table.maxn(t)")
guarded("table.move", NUMBERS, "table.move(t, 1, #t, 2)")
guarded("table.remove", NUMBERS, "table.remove(t, 1)")
guarded("table.sort", NUMBERS, "table.sort(t)", 20 * MB)
guarded("table.sort", NUMBERS, "table.sort(t, rawequal)", 20 * MB)
guarded("table.sort", NUMBERS, "table.sort(t, function(a, b) return a < b end)", 20 * MB)
linear("table.sort", [[local t = {} for i = 1, 2000 do t[i] = ("a"):rep(N / 2000) .. i end]], "table.sort(t)")

guarded("io.lines", FILE .. TEXT .. WRITTEN, "io.lines(name)()", 100 * MB)
guarded("io.lines", FILE .. SPACES .. WRITTEN, "io.lines(name, '*n')()")
linear("io.lines", FILE .. TEXT .. WRITTEN, "io.lines(name, N)()")
guarded("io.read", "", [[io.read "*l"]]) -- from standard input, if anything is there
linear("io.write", TEXT, "io.write(s)")
guarded("file.lines", FILE .. TEXT .. WRITTEN, "file:seek 'set' file:lines()()", 100 * MB)
guarded("file.read", FILE .. TEXT .. WRITTEN, "file:seek 'set' file:read()", 100 * MB)
guarded("file.read", FILE .. TEXT .. WRITTEN, "file:seek 'set' file:read '*a'", 100 * MB)
guarded("file.read", FILE .. SPACES .. WRITTEN, "file:seek 'set' file:read '*n'")
guarded("file.read", FILE .. DIGITS .. WRITTEN, "file:seek 'set' file:read '*n'")
linear("file.read", FILE .. TEXT .. WRITTEN, "file:seek 'set' file:read(N)")
linear("file.write", FILE .. TEXT, "file:write(s)")
refused("os.date", [[local s = ("%c"):rep(N / 2)]], "os.date(s)")
linear("os.date", [[local s = ("%c"):rep(32768)]], "os.date(s)")

local HAND = [[local perilune = require "perilune" ]]
local function at_hand(verdict, name, call, shown)
  verdict("perilune." .. name, HAND .. TEXT, ("perilune.%s(%s)"):format(name, call), shown)
end

guarded("perilune.crypto.sign", HAND .. TEXT .. [[ local key = "" ]], "perilune.crypto.sign(key, s)")
for _, name in ipairs { "encode_base64", "encode_base64url", "encode_hex", "encode_url", "decode_url" } do
  at_hand(linear, "encoding." .. name, "s")
end
for _, name in ipairs { "decode_base64", "decode_base64url", "decode_hex" } do
  at_hand(linear, "encoding." .. name, "s")
end
at_hand(guarded, "crc.crc32", "s")
at_hand(guarded, "crc.crc32c", "s")
at_hand(guarded, "crc.crc16", "'modbus', s", 150 * MB)
at_hand(guarded, "crypto.digest", "'sha512', s", 150 * MB)
at_hand(guarded, "crypto.hmac", "'sha512', '', s", 150 * MB)
at_hand(guarded, "crypto.equal", "s, s .. 'b'")
at_hand(linear, "crypto.seal", "('k'):rep(16), ('n'):rep(12), s")
at_hand(linear, "crypto.open", "('k'):rep(16), ('n'):rep(12), s")
at_hand(guarded, "crypto.verify", "'', s, ''")

guarded("perilune.json.decode", HAND .. [[local s = "[" .. ("1.5,"):rep(N / 4) .. "1]"]],
  "perilune.json.decode(s, { max = '1g' })", 20 * MB)
guarded("perilune.json.decode", HAND .. [[local s = '"' .. ("\\n"):rep(N / 2) .. '"']],
  "perilune.json.decode(s, { max = '1g' })", 100 * MB)
guarded("perilune.json.encode", HAND .. REALS, "perilune.json.encode(t, { max = '1g' })", 100 * MB)
guarded("perilune.json.encode", HAND .. KEYS, "perilune.json.encode(t, { max = '1g', sorted = true })", 40 * MB)
guarded("perilune.deflate", HAND .. [[local s = ("abc"):rep(N / 3)]], "perilune.deflate(s)", 150 * MB)
linear("perilune.deflate", HAND .. TEXT, "perilune.deflate(s, { level = 0 })")
guarded("perilune.inflate", HAND .. [[local s = perilune.deflate(("a"):rep(N), { level = 1 })]],
  "repeat local _ = pcall(perilune.inflate, s, { max = '1g' }) until false", 50 * MB)
linear("perilune.inflate", HAND .. [[local s = perilune.deflate(("a"):rep(N))]], "perilune.inflate(s, { max = '1g' })")
linear("perilune.json.encode", HAND .. TEXT, "perilune.json.encode(s, { max = '1g' })")

linear("conn.send", TEXT, "self.conn:send(s)")
guarded("conn.send", EMPTY, "self.conn:send(t)", 100 * MB)
linear("conn.set_frame", TEXT, "pcall(self.conn.set_frame, self.conn, s)")
linear("reply", TEXT, "do return s end")
guarded("reply", EMPTY, "do return t end", 100 * MB)

linear("operators", TEXT, "local _ = s .. s")
linear("operators", TEXT .. " local u = s .. 'b' s = s .. 'a'", "local _ = s < u")
linear("operators", DIGITS, "local _ = s + 1")
linear("operators", FULL_LIST, "t[#t + 1] = 1")
linear("operators", FULL_TABLE, "t.key = 1")
linear("operators", FULL_OF_STRINGS, "for i = 1, 1e5 do t[#t + 1] = 'l' .. i end")
linear("operators", "", "pcall(error, ('a'):rep(N))")
guarded("operators", KEYS, "for _ in pairs(t) do end")

local SCRIPT = [[
local N, name = %d, nil
%s
local Agent = {}
function Agent:proceed() %s return "returned" end
function Agent:closed() if name then os.remove(name) end end
return { listen = "%s", frame = "raw", agent = Agent, workers = 1, limits = { proceed = "%s", send_buffer = "1g" } }
]]

--- An app whose only frame is answered with the case's call, on data of n bytes.
---@param case perilune.long_call
---@param n number
---@param listen string
---@param budget string
---@return string
function M.script(case, n, listen, budget) return SCRIPT:format(n, case.data, case.call, listen, budget) end

return M
