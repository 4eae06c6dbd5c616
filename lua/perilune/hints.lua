--- The way out of mistakes that everybody makes: a line for the report of a fault, only where it is sure to help.
local culprit = require "perilune.culprit"
local dialect = require "perilune.dialect"
local suggest = require "perilune.suggest"

local M = {}

---@class perilune.hint_context what is known beside the message; each part may be missing
---@field line string? the source line
---@field number integer? its number
---@field source string? all of the file
---@field methods string[]? of the agent
---@field is_factory boolean? the agent was made by a factory
---@field self_type string? of `self` where it happened
---@field self_is_agent boolean? is that the connection's agent?
---@field has_no_conn boolean? it is an agent without a socket
---@field method string? what was called, where it was written without self
---@field way_out string? ... how it would be written with it: "function A:proceed(line)"
---@field param string? ... and its only parameter

local function did_you_mean(name, candidates)
  local near = suggest.suggest(name, candidates)
  return near and near ~= name and ("did you mean '%s'?"):format(near) or nil
end

local function keys_of(t)
  local names = {}
  for name in pairs(t) do
    if type(name) == "string" then names[#names + 1] = name end
  end
  table.sort(names)
  return names
end

-- ---- globals -----------------------------------------------------------------

-- Only when it is needed: a worker that has faults keeps what they have loaded.
local function globals() return require("perilune.sandbox").globals() end

local KNOWN_GLOBALS = {
  self = "'self' is there only in a function that is defined with a colon: function Agent:name(…)",
  conn = "an agent made from a prototype has its connection as self.conn",
  perilune = 'local perilune = require "perilune" at the top of the file',
  utf8 = "LuaJIT has the libraries of Lua 5.1, and bit; there is no utf8",
  bit32 = "LuaJIT's library is called bit",
  debug = 'it leads out of the VM: to open it, add unsafe = { "debug" }',
  ffi = 'local ffi = require "ffi", and unsafe = { "ffi" }',
  ngx = 'for what is written for OpenResty, add compat = { "ngx" }',
  loadfile = 'files beside the script are modules: require "name"',
  dofile = 'files beside the script are modules: require "name"',
}

-- The line below `number` where the name is declared as a local of the file.
local function declared_later(context, name)
  if not context.source or not context.number then return nil end
  local text = "\n" .. context.source
  local at = text:find("\nlocal%s+" .. name .. "%f[^%w_]") or text:find("\nlocal%s+function%s+" .. name .. "%f[^%w_]")
  if not at then return nil end
  local number = select(2, text:sub(1, at):gsub("\n", ""))
  return number > context.number and number or nil
end

local DECLARED_LATER = "'%s' is a local from line %d on, which is below: move its declaration up"

local function of_read_global(text, context)
  local name = text:match "^undefined global '([%a_][%w_]*)'"
  if not name then return nil end
  local later = declared_later(context, name)
  if later then return DECLARED_LATER:format(name, later) end
  return KNOWN_GLOBALS[name] or dialect.of_global(name) or did_you_mean(name, globals())
end

local function of_written_global(text)
  local name = text:match "^assignment to global '([%a_][%w_]*)'"
  return name and ("local %s where it is used by this call only; self.%s for this connection; local %s at the top of "
    .. "the file for all connections of a worker"):format(name, name, name)
end

-- ---- names that lead to nil ----------------------------------------------------

-- What stands before the name in the line: "self", "self.conn", "table".
local function receiver_of(context, found)
  if not context.line then return nil end
  local from = culprit.locate(context.line, found.text)
  return from and culprit.mask(context.line):sub(1, from - 1):match "([%a_][%w_.]*)%s*[.:]%s*$"
end

local ENDED = { peer = true, local_addr = true, listener = true, usage = true }

-- A property of a connection that has ended.
local function of_ended_conn(found, context)
  if found.kind ~= "field" or found.value ~= "nil" or not ENDED[found.name] then return nil end
  local receiver = receiver_of(context, found)
  if not receiver or not receiver:find "%f[%w_]conn$" then return nil end
  local text = "%s.%s is nil once the connection has ended: keep it in self while it is there"
  return text:format(receiver, found.name)
end

local CALLED_WITH_DOT = "the method was called with a dot: a colon, as in object:method(…), passes the object on"

local function of_self(found, context)
  if found.kind == "local" and found.name == "self" then return CALLED_WITH_DOT end
  local has_self = not context.self_type or context.self_type == "table" or context.self_type == "userdata"
  if has_self or receiver_of(context, found) ~= "self" then return nil end
  return ("self is a %s here: %s"):format(context.self_type, CALLED_WITH_DOT)
end

local NO_CONN = "an agent without a socket has no conn: what message() returns goes to who calls; to others, "
  .. "perilune.send(name, data)"

local function of_field_of_self(found, context)
  if found.kind ~= "field" or found.value ~= "nil" or not context.self_is_agent then return nil end
  if receiver_of(context, found) ~= "self" then return nil end
  if found.name == "conn" and context.has_no_conn then return NO_CONN end
  if found.name == "conn" and context.is_factory then
    return "what a factory returns has no conn of its own: put it there, as in { conn = conn }"
  end
  if found.action == "call" then return did_you_mean(found.name, context.methods or {}) end
  if found.action ~= "index" then return nil end
  if suggest.distance(found.name, "conn") == 1 and not context.has_no_conn then return "did you mean 'self.conn'?" end
  return ("nothing has set self.%s: opened() is the place for what each connection begins with"):format(found.name)
end

local TIMERS = "timers are perilune.after(duration, fn), once, and perilune.every(duration, fn)"
local TASKS = "it is called perilune.spawn(fn): a task, beside the agent's callbacks"
local CONNECT = 'it is called perilune.connect("tcp://host:port", options)'
local POOL = 'it is called perilune.pool("tcp://host:port", options)'
local HTTP_GET = 'it is http.get(url), with local http = require "perilune.http"'
local HTTP_METHOD = 'http.request { method = "PUT", url = url, … }, or a method of http.client { … }'
local RESOLVE = "it is called perilune.resolve(name)"
local PIPE = "it is called self.conn:pipe(other)"
local HMAC, UUID = 'perilune.crypto.hmac("sha256", key, data)', "perilune.crypto.uuid()"
local PUBLISH = "it is called perilune.hub.publish(topic, data), or self.conn:publish(topic, data)"
local JOIN = "it is called self.conn:join(topic)"
local KNOWN_FIELDS = {
  ["string.gfind"] = "it is called string.gmatch",
  ["perilune.timer"] = TIMERS, ["perilune.interval"] = TIMERS, ["perilune.set_interval"] = TIMERS,
  ["perilune.setInterval"] = TIMERS, ["perilune.set_timeout"] = TIMERS, ["perilune.setTimeout"] = TIMERS,
  ["perilune.tick"] = TIMERS, ["perilune.wait"] = "it is called perilune.sleep",
  ["perilune.clock"] = "it is called perilune.now", ["perilune.print"] = 'perilune.log("info", text)',
  ["perilune.info"] = 'perilune.log("info", text)', ["perilune.warn"] = 'perilune.log("warn", text)',
  ["perilune.error"] = 'perilune.log("error", text), or error(text)',
  ["perilune.debug"] = 'perilune.log("debug", text)',
  ["perilune.close"] = "self.conn:close()",
  ["perilune.task"] = TASKS, ["perilune.go"] = TASKS, ["perilune.fork"] = TASKS, ["perilune.async"] = TASKS,
  ["perilune.race"] = "it is called perilune.any", ["perilune.mutex"] = "perilune.semaphore(1)",
  ["perilune.lock"] = "perilune.semaphore(1)", ["perilune.queue"] = "perilune.channel(n)",
  ["perilune.dial"] = CONNECT, ["perilune.tcp"] = CONNECT, ["perilune.socket"] = CONNECT, ["perilune.open"] = CONNECT,
  ["perilune.client"] = CONNECT, ["perilune.create_connection"] = CONNECT, ["perilune.createConnection"] = CONNECT,
  ["perilune.lookup"] = RESOLVE, ["perilune.dns"] = RESOLVE, ["perilune.getaddrinfo"] = RESOLVE,
  ["perilune.connection_pool"] = POOL, ["perilune.keepalive"] = POOL, ["perilune.set_keepalive"] = POOL,
  ["perilune.setkeepalive"] = POOL, ["perilune.upstream"] = POOL, ["perilune.proxy"] = PIPE, ["perilune.pipe"] = PIPE,
  ["perilune.net"] = 'that is of perilune.test, for specifications: require "perilune.test"',
  ["perilune.base64"] = "perilune.encoding.encode_base64(bytes)",
  ["perilune.hex"] = "perilune.encoding.encode_hex(bytes)",
  ["perilune.sha256"] = 'perilune.crypto.digest("sha256", data)', ["perilune.hmac"] = HMAC, ["perilune.uuid"] = UUID,
  ["perilune.gzip"] = 'perilune.deflate(data, { format = "gzip" })', ["perilune.zlib"] = "perilune.deflate(data)",
  ["perilune.json.parse"] = "it is called perilune.json.decode",
  ["perilune.json.stringify"] = "it is called perilune.json.encode",
  ["perilune.publish"] = PUBLISH, ["perilune.broadcast"] = PUBLISH, ["perilune.hub.broadcast"] = PUBLISH,
  ["perilune.subscribe"] = JOIN, ["perilune.join"] = JOIN, ["perilune.hub.join"] = JOIN,
  ["perilune.hub.subscribe"] = JOIN,
  ["perilune.http"] = 'that is a module of its own: require "perilune.http"',
  ["perilune.fetch"] = HTTP_GET, ["perilune.request"] = HTTP_GET, ["perilune.get"] = HTTP_GET,
  ["http.fetch"] = "http.get(url), or http.request { … }", ["http.Client"] = "it is called http.client",
  ["http.new"] = "http.client { … }", ["http.put"] = HTTP_METHOD, ["http.patch"] = HTTP_METHOD,
  ["http.delete"] = HTTP_METHOD, ["http.head"] = HTTP_METHOD,
  ["perilune.app"] = 'that is of perilune.test, for specifications: require "perilune.test"',
  ["perilune.start"] = 'that is of perilune.test, for specifications: require "perilune.test"',
}
-- Scripts may call the module what they like.
local function unalias(receiver, context)
  if receiver == "perilune" or not context.source or receiver:find "[^%w_]" then return receiver end
  local head = "%f[%w_]local%s+" .. receiver .. "%s*=%s*"
  local required, behind = context.source:match(head .. "require%s*%(?%s*[\"']([%w_.]+)[\"']%s*%)?%s*([^\n]*)")
  if required == "perilune" then return required .. (behind:match "^%.[%w_]+" or "") end
  if required == "perilune.http" then return required end
  return context.source:match(head .. "(perilune%.[%w_]+)%s") or receiver
end

local LIBRARIES = { string = string, table = table, math = math, io = io, os = os, coroutine = coroutine, bit = bit }

-- All names of a module, those that are made when they are asked for included.
local function names_of(module)
  local names = keys_of(module)
  for _, late in ipairs(getmetatable(module).late) do
    for name in pairs(late) do names[#names + 1] = name end
  end
  return names
end

-- The names of the library's fields; nil: it is none.
local function fields_of(path)
  if LIBRARIES[path] then return keys_of(LIBRARIES[path]) end
  local perilune = require "perilune"
  if path == "perilune.http" then return names_of(require "perilune.http") end
  local inner = path:match "^perilune%.([%w_]+)$"
  if inner then
    local library = perilune[inner]
    local metatable = type(library) == "table" and debug.getmetatable(library) -- of what stands for it
    return type(library) == "table" and keys_of(metatable and metatable.__index or library) or nil
  end
  return path == "perilune" and names_of(perilune) or nil
end

local function of_library(found, context)
  if found.kind ~= "field" or found.action ~= "call" then return nil end
  local receiver = receiver_of(context, found)
  if not receiver then return nil end
  receiver = unalias(receiver, context)
  local path = receiver .. "." .. found.name
  if require("perilune.sandbox").is_door(path) then
    return ("it leads out of the VM: to open it, add unsafe = { %q }"):format(path)
  end
  local known = KNOWN_FIELDS[path] or dialect.of_field(path)
  if known then return known end
  local fields = fields_of(receiver)
  return fields and did_you_mean(found.name, fields) or nil
end

-- Where globals are not strict, as in `perilune exec`.
local function of_nil_global(found, context)
  if found.kind ~= "global" or found.value ~= "nil" then return nil end
  local later = declared_later(context, found.name)
  if later then return DECLARED_LATER:format(found.name, later) end
  return did_you_mean(found.name, globals())
end

local function of_method(found, context)
  if found.kind ~= "method" or found.value ~= "nil" then return nil end
  local receiver = receiver_of(context, found)
  if receiver == "self" then return did_you_mean(found.name, context.methods or {}) end
  local is_name = receiver and context.source and not receiver:find "[^%w_]"
  if is_name and context.source:find("%f[%w_]local%s[%w_,%s]*%f[%w_]" .. receiver .. "%f[^%w_][^\n]*%.router%s*%(") then
    return did_you_mean(found.name, require("perilune.http.router").NAMES)
  end
  return did_you_mean(found.name, keys_of(string))
end

-- ---- values of the wrong type ----------------------------------------------------

local MAY_BE_NULL = "this may be json.null, which stands for null: ask if value == json.null first"

-- The objects that scripts have can be indexed: what cannot is no more than a pointer.
local function of_null(found, context)
  if found.value ~= "userdata" then return nil end
  local knows_json = not context.source or context.source:find "json"
  return (found.action == "index" or knows_json) and MAY_BE_NULL or nil
end

local function of_concatenation(found, context)
  if found.action ~= "concatenate" then return nil end
  local receiver = found.kind == "field" and receiver_of(context, found)
  local name = receiver and receiver .. "." .. found.name or found.name
  if found.value == "nil" then
    return ("(%s or \"\") leaves it out; tostring(%s) says \"nil\""):format(name, name)
  end
  return ("tostring(%s) makes a text of it"):format(name)
end

local function is_number_of_text(context, name)
  return context.source and context.source:find("%f[%w_]" .. name .. "%s*=%s*tonumber%s*%(") ~= nil
end

local function of_arithmetic(found, context)
  if found.action ~= "perform arithmetic on" or found.value ~= "nil" then return nil end
  if not is_number_of_text(context, found.name) then return nil end
  return "tonumber(…) gives nil for what is no number: check it first"
end

local function of_comparison(text)
  local one, other = text:match "^attempt to compare (%a+) with (%a+)$"
  if not one then return nil end
  local has = { [one] = true, [other] = true }
  if has.number and has.string then return "frames are strings: tonumber(…) makes a number of one, or nil" end
  if has["nil"] then return "one of the two is nil: check it first, as in if n and n > 0 then" end
  if has.userdata then return MAY_BE_NULL end
end

local REPLIES = {
  { "^a reply is a string, a list of strings or nil, not a boolean",
    'true means something in eof, timeout and drain only; to end the connection, return nil, "close"' },
  { "^a reply is a string, a list of strings or nil, not a function", "call it: return fn(…)" },
  { "^a list of replies holds strings; item %d+ is a",
    "each item is sent as a frame: table.concat(…) makes one text of a list" },
  { "^a list of replies has no holes", "build it with list[#list + 1] = text, which leaves out what is nil" },
  { "^a handler returns a reply and an action; a third value",
    "several replies are a list: return { a, b }; what may fail returns nil, message, code, which is no reply: "
      .. "local reply, why = …; return reply or why" },
  { "^unknown action",
    "several replies are a list: return { a, b }; what may fail returns nil, message, which is no reply: "
      .. "local value, why = …; return value or why" },
  { "^a handler returned an error as its reply",
    "what may fail returns nil, message, code, which is no reply: local reply, why = …; return reply or why" },
  { "^a list of replies has items",
    "a frame is text: make one of the table, or give the framing an encode of its own" },
  { "^the agent factory returned nil", "its last line must be: return agent" },
  { "^attempt to yield across C%-call boundary",
    "nothing can wait inside a function that C calls, such as that of table.sort, of gsub, or a file in require: "
      .. "collect what is needed there, and wait afterwards" },
  { "cannot wait inside a coroutine of the %a+'s own$",
    "let the coroutine yield what it wants, and wait outside of it" },
}

local function of_message(text)
  for _, known in ipairs(REPLIES) do
    if text:find(known[1]) then return known[2] end
  end
end

-- Written without self, a method has the agent where it wants what it is given.
local function of_missing_self(text, context)
  if not context.way_out then return nil end
  local found = culprit.named(text)
  if found then found.text = text end
  local is_of_it = found and (found.name == context.param or receiver_of(context, found) == context.param)
    or text:find "table" or text:find "global 'self'"
  return is_of_it and ("%s was written without self: write %s"):format(context.method, context.way_out) or nil
end

local function of_missing_colon(text, context)
  if not text:find "^a conn is expected before ':'" then return nil end
  local receiver, method = (context.line or ""):match "([%w_.]*%f[%w_]conn)%.(%a+)%s*%("
  return ("write %s:%s(…): the colon passes the connection on"):format(receiver or "conn", method or "send")
end

local function of_syntax(text, context) return dialect.of_syntax(text, context.line) end

-- The first that has something to say.
local OF_TEXT = {
  of_syntax, of_missing_self, of_read_global, of_written_global, of_comparison, of_missing_colon, of_message,
}
local OF_NAME = {
  of_self, of_ended_conn, of_field_of_self, of_library, of_nil_global, of_method, of_null, of_concatenation,
  of_arithmetic,
}

--- A hint in one line, or nil.
---@param text string the message, without its place
---@param context perilune.hint_context
---@return string?
function M.find(text, context)
  for _, of in ipairs(OF_TEXT) do
    local hint = of(text, context)
    if hint then return hint end
  end
  local found = culprit.named(text)
  if not found or not found.value then return nil end
  found.text = text
  for _, of in ipairs(OF_NAME) do
    local hint = of(found, context)
    if hint then return hint end
  end
end

return M
