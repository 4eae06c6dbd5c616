--- The Lua half of a worker: what the C core calls. Internal.
---
--- The core enters Lua with one of these functions in a pooled coroutine; an
--- error in there is that agent's alone. No function here keeps state of a
--- connection but `defers`.
local jit = require "jit"

local M = {}

--- Never compiles a function.
---@param fn function
function M.interpret(fn) jit.off(fn) end

--- What only loading needs is forgotten afterwards, and comes back when it is required again: the
--- collector marks the whole heap in every cycle, so a worker keeps its own small. `fault`, the rest
--- of `config` and so on thus live only while they are of use.
local KEPT = { ["perilune.runtime"] = true, ["perilune.core"] = true, ["perilune.view"] = true,
  ["perilune.guard"] = true, ["perilune.sources"] = true, ["perilune.ended"] = true,
  ["perilune.files_core"] = true, ["perilune.waiting"] = true,
  ["perilune.http"] = true, ["perilune.http_core"] = true, ["perilune.requests"] = true,
  ["perilune.headers"] = true, ["perilune.connecting"] = true, ["perilune.pooling"] = true, ["perilune.jobs"] = true,
  ["perilune.plain"] = true, ["perilune.percent"] = true, ["perilune.pieces"] = true }

function M.forget_loaders()
  for name in pairs(package.loaded) do
    local is_kept = KEPT[name] or name:find "^perilune%.http%."
    if name:find "^perilune%." and not is_kept then package.loaded[name] = nil end
  end
end

--- Runs proceed() for each frame of a batch. The frames are the arguments, the replies the
--- results; between the two, each reply takes the place of its frame in `b`, where the core finds
--- the first ones should it need them early. `c` is the core's control table, laid out in
--- src/agent/run.h: c[1] is the index of the frame at hand, c[2] how many there are (the core
--- lowers it to end a batch early), c[3] is `b`. `surplus` marks the action of who returns a third
--- value: src/agent/reply.c makes an error of it. One that follows after nils goes unnoticed, as
--- counting what came back would make every frame dearer.
---
--- Every listener gets a copy of its own, so that one handler's types never spoil the machine code
--- compiled for another's.
local BATCH_LOOP = [[
local surplus = ...
local unpack = unpack
return function(agent, c, n, ...)
  local b, i = { ... }, 1
  c[2], c[3] = n, b
  repeat
    c[1] = i
    local reply, action, more = agent:proceed(b[i])
    b[i] = reply
    if more ~= nil then action = { surplus, reply, action, more } end
    if action ~= nil then return action, unpack(b, 1, i) end
    i = i + 1
  until i > c[2]
  return nil, unpack(b, 1, i - 1)
end]]

--- The same for a codec in Lua, whose decode() may add a second value to each frame.
local META_LOOP = [[
local surplus, metas = ...
local unpack = unpack
return function(agent, c, n, ...)
  local b, m, i = { ... }, {}, 1
  for k = 1, n do m[k] = metas[k] end
  c[2], c[3] = n, b
  repeat
    c[1] = i
    local reply, action, more = agent:proceed(b[i], m[i])
    b[i] = reply
    if more ~= nil then action = { surplus, reply, action, more } end
    if action ~= nil then return action, unpack(b, 1, i) end
    i = i + 1
  until i > c[2]
  return nil, unpack(b, 1, i - 1)
end]]

--- The same with views: `view` is moved over the frames in the core's own batch, and a view that
--- comes back as the reply is marked, for the core to copy its bytes. Other replies stay in c[3]; the
--- second result is how many frames were used.
local VIEW_LOOP = [[
local surplus, view, lent, frames, echoed, rawequal = ...
return function(agent, c, n)
  local b, i = c[3], 1
  c[2] = n
  repeat
    c[1] = i
    local frame = frames[i - 1]
    lent.data, lent.len = frame.data, frame.len
    local reply, action, more = agent:proceed(view)
    if more ~= nil then action = { surplus, reply, action, more } end
    if rawequal(reply, view) then
      echoed[i - 1] = 1
    else
      echoed[i - 1] = 0
      b[i] = reply
    end
    if action ~= nil then return action, i end
    i = i + 1
  until i > c[2]
  return nil, i - 1
end]]

--- One frame. The first argument is what holds the agent, and of no interest.
local ONE = [[
return function(_, agent, frame, meta)
  return agent:proceed(frame, meta)
end]]

local function build(source, name, ...)
  return assert(loadstring(source, "=(" .. name .. ")"))(...)
end

---@param surplus lightuserdata
---@return function loop for strings
function M.batch_loop(surplus) return build(BATCH_LOOP, "batch", surplus) end

---@param surplus lightuserdata
---@param metas any[] second values of the batch at hand
---@return function loop for a codec in Lua
function M.meta_loop(surplus, metas) return build(META_LOOP, "batch", surplus, metas) end

---@return function one the call for a single frame
function M.single() return build(ONE, "frame") end

---@param surplus lightuserdata
---@param batch lightuserdata the core's frames
---@param echoed lightuserdata one byte a frame
---@return function loop for views
---@return ffi.cdata* view what handlers get; there is one in a VM
---@return ffi.cdata* lent what it stands for: the core ends its life
function M.view_loop(surplus, batch, echoed)
  local view = require "perilune.view"
  local frames, marks = view.core_arrays(batch, echoed)
  return build(VIEW_LOOP, "batch", surplus, view.object, view.lent, frames, marks, rawequal), view.object, view.lent
end

--- Calls agent:name(...) if there is such a method.
---@return boolean found and then the method's results
function M.invoke(agent, name, ...)
  local method = agent[name]
  if method == nil then return false end
  return true, method(agent, ...)
end

---@return boolean
function M.has(agent, name)
  return agent[name] ~= nil
end

-- ---- messages --------------------------------------------------------------

local MESSAGE_BYTES = 1048576

--- What perilune.send sends, as bytes; nil: they are too many.
---@return string?
function M.pack_message(value, what)
  local bytes = require("perilune.plain").pack(value, MESSAGE_BYTES, what, "sent", 3)
  return bytes
end

--- What is published as a table, as the text of JSON.
---@return string?
function M.json_message(value, what)
  local ok, text = pcall(require("perilune.json_core").encode, value)
  if not ok then error(("%s: the data is no JSON: %s"):format(what, tostring(text)), 3) end
  return text
end

--- What was published, as its publisher had it.
---@param is_json boolean
---@return any
function M.open_message(data, is_json)
  if is_json then return (require("perilune.json_core").decode(data)) end
  return data
end

-- A string, a number, a boolean and nil go as they are.
local PACKED = { table = true, cdata = true, userdata = true, thread = true, ["function"] = true }

--- Calls agent:message(). Of a call what it returns goes back.
---@return boolean is_packed
---@return any reply of a call
---@return any action
---@return any more what would be lost
function M.receive(agent, topic, data, from, is_packed, is_call)
  local method = agent.message
  if method == nil then error("the agent has no method message any more", 0) end
  if is_packed == "json" then
    data = M.open_message(data, true)
  elseif is_packed then
    data = require("perilune.plain").unpack(data)
  end
  local reply, action, more = method(agent, topic, data, from)
  if is_call and PACKED[type(reply)] then
    return true, require("perilune.plain").pack(reply, MESSAGE_BYTES, "message: the reply", "sent", -1), action, more
  end
  return false, reply, action, more
end

-- A handler of requests that stands where what makes agents is meant.
local function handler_hint(factory)
  if debug.getlocal(factory, 1) ~= "request" then return "" end
  return "; a function that is called with requests is a handler: agent = { proceed = function(_, request) … end }, or "
    .. "that of a route of http.router()"
end

local function check_agent(agent, needed, factory)
  if agent == nil then error("the agent factory returned nil; it must return the agent", 0) end
  local kind = type(agent)
  if kind ~= "table" and kind ~= "userdata" then
    error("the agent factory returned a " .. kind .. "; it must return the agent, a table with a method " .. needed
      .. (factory and handler_hint(factory) or ""), 0)
  end
  if agent[needed] == nil then error("the agent has no method " .. needed, 0) end
  return agent
end

--- Inherited metamethods work as users expect only when the prototype itself is the metatable.
local function metatable_for(prototype)
  if rawget(prototype, "__index") ~= nil then return prototype end
  return { __index = prototype }
end

-- What makes an agent for a connection, of a factory or a prototype.
local function maker(agent)
  if type(agent) == "function" then
    return function(conn) return check_agent(agent(conn), "proceed", agent) end
  end
  local metatable = metatable_for(agent)
  return function(conn) return setmetatable({ conn = conn }, metatable) end
end

-- The same for one without a socket: of its key, and its whole name.
local function resident_maker(agent)
  if type(agent) == "function" then
    return function(key, name) return check_agent(agent(key, name), "message") end
  end
  local metatable = metatable_for(agent)
  return function(key) return setmetatable({ key = key }, metatable) end
end

-- What each opener makes agents of: where a factory is defined is told when it fails.
local made_of = setmetatable({}, { __mode = "k" })

--- Makes agents.
---@param agent function|table
---@param anchor fun(agent: table) keeps it for the connection
---@param is_kind boolean? they have no connection, but a key and a name
---@return fun(conn: table|string, name: string?) opener: makes the agent, then calls its opened()
function M.opener(agent, anchor, is_kind)
  local make = is_kind and resident_maker(agent) or maker(agent)
  local function opener(conn, name)
    local instance = make(conn, name)
    anchor(instance)
    local opened = instance.opened
    if opened then return opened(instance) end
  end
  made_of[opener] = agent
  return opener
end

-- Of prototypes of WebSockets, of which the core knows nothing before a handler returns one. A metatable leads to its
-- prototype: with weak keys alone neither would ever go.
local adopted = setmetatable({}, { __mode = "kv" })

--- The opener of WebSockets: which agent it is, or what makes it, is known only then.
---@param anchor fun(agent: table)
---@return fun(conn: table, agent: function|table, request: table) opener
function M.adopter(anchor)
  return function(conn, agent, request)
    local instance
    if type(agent) == "function" then
      instance = check_agent(agent(conn, request), "proceed")
    else
      local metatable = adopted[agent] or metatable_for(agent) -- which `adopted` does not keep
      adopted[agent] = metatable
      instance = setmetatable({ conn = conn }, metatable)
    end
    anchor(instance)
    local opened = instance.opened
    if opened then return opened(instance, request) end
  end
end

-- ---- from one generation to the next ---------------------------------------

-- To string.buffer a conn is a table like any other, and it would be one: without its methods.
local function refuse_conns(value, path)
  if type(value) ~= "table" then return end
  if getmetatable(value) == "conn" then
    error(path .. " is a conn: it cannot go along, as the new agent has its own", 0)
  end
  for key, item in pairs(value) do
    refuse_conns(key, "a key of " .. path)
    refuse_conns(item, type(key) == "string" and path .. "." .. key or ("%s[%s]"):format(path, tostring(key)))
  end
end
jit.off(refuse_conns) -- as lua/perilune/plain.lua says

--- What an agent wants to take along, as bytes: plain data, with nothing of this VM in it.
---@param agent table
---@param stands_alone boolean it may have nothing to take along: each of its requests stands alone
---@return string
function M.snapshot(agent, stands_alone)
  local method = agent.snapshot
  if method == nil and stands_alone then return "" end
  if method == nil then error("the agent has no method snapshot: it cannot go to another generation", 0) end
  local data = method(agent)
  local bytes = require("string.buffer").encode(data) -- refuses what is endless
  refuse_conns(data, "snapshot()")
  return bytes
end

--- The opener's counterpart for a connection that comes from another generation.
---@param agent function|table
---@param anchor fun(agent: table)
---@param is_kind boolean? of agents without a socket
---@param stands_alone boolean? where nothing was taken along, the agent begins as with a new connection
---@return fun(conn: table|string, bytes: string, from: integer, name: string?) upgrader
function M.upgrader(agent, anchor, is_kind, stands_alone)
  local make = is_kind and resident_maker(agent) or maker(agent)
  return function(conn, bytes, from, name)
    local instance = make(conn, name)
    anchor(instance)
    if stands_alone and bytes == "" then
      local opened = instance.opened
      if opened then opened(instance) end
      return
    end
    local upgrade = instance.upgrade
    if upgrade == nil then error("the agent has no method upgrade: it cannot take over from another generation", 0) end
    upgrade(instance, require("perilune.plain").unpack(bytes), from)
  end
end

--- The __index of conn objects.
---@param methods table<string, function>
---@param property fun(conn: table, key: any): any
function M.conn_index(methods, property)
  return function(conn, key)
    local method = methods[key]
    if method ~= nil then return method end
    return property(conn, key)
  end
end

-- ---- conn:defer ------------------------------------------------------------

local DEFERS_MAX = 1000
local defers = {}

function M.defer(id, fn)
  if type(fn) ~= "function" then error("conn:defer expects a function, got " .. type(fn), 3) end
  local list = defers[id]
  if not list then
    list = {}
    defers[id] = list
  end
  if #list >= DEFERS_MAX then error("conn:defer: more than " .. DEFERS_MAX .. " functions wait for the end", 3) end
  list[#list + 1] = fn
end

--- Takes a connection's deferred functions; the core runs them, the latest first.
function M.take_defer(id)
  local list = defers[id]
  local fn = list and table.remove(list)
  if not fn then defers[id] = nil end
  return fn
end

-- ---- tasks and timers ------------------------------------------------------

--- What setup() and teardown() are given gets its methods; they are loaded when one is looked for.
function M.dress_app(app)
  return setmetatable(app, { __index = function(_, key) return require("perilune.waiting").app_methods[key] end })
end

-- A fault that was a task's before it was that of who has joined it: its place is there.
local function of_joined(err, serial)
  local waiting = package.loaded["perilune.waiting"]
  if waiting then return waiting.joined_fault(err, serial) end
end

-- ---- faults ----------------------------------------------------------------

local CHAIN_MAX = 16 -- prototypes of prototypes

--- A method as the agent has it, if that can be told without running code of the user's.
local function raw_method(agent, name)
  for _ = 1, CHAIN_MAX do
    local value = type(agent) == "table" and rawget(agent, name)
    if value then return value end
    local meta = debug.getmetatable(agent)
    agent = type(meta) == "table" and rawget(meta, "__index")
    if not agent then return nil end
  end
end

--- What the core has called, and its name: for a fault whose stack has no line of it. A tail call has left none, and a
--- wrong result is found after the end.
local function called_of(about)
  if about.called then return about.called, about.callback end
  if about.agent == nil then return made_of[about.opener], "agent" end
  return raw_method(about.agent, about.callback), about.callback
end

local METHODS_MAX = 200

--- The names of the agent's methods, in the same way: one of them may have been meant.
local function method_names(agent)
  local names = {}
  for _ = 1, CHAIN_MAX do
    if type(agent) ~= "table" then break end
    for name, value in next, agent do
      if type(name) == "string" and type(value) == "function" and #names < METHODS_MAX then names[#names + 1] = name end
    end
    local meta = debug.getmetatable(agent)
    agent = type(meta) == "table" and rawget(meta, "__index")
  end
  table.sort(names)
  return names
end

--- The text of an app's file as its generation has it: on the disk there may be another by now.
local function source_of(file, max)
  return file and require("perilune.sources").text(file:gsub("#g%d+$", ""), max) or nil
end

--- What a fault's log entry needs, as plain strings and numbers of bounded size.
---@param err any the error value
---@param co thread|nil where it was raised
---@param about table directory, callback, conn, peer, listener, generation, agent, opener: see src/agent/fault.c
---@return string message one line
---@return string rendered the excerpt for people
---@return string trace lines of the user's files, separated by "\n"
---@return string place "chat.lua:14", "proceed, defined at chat.lua:9", or ""
---@return string kind what the log folds it by
function M.describe_fault(err, co, about)
  local called, name = called_of(about)
  local blame = require "perilune.blame"
  about.methods, about.is_factory = method_names(about.agent), type(made_of[about.opener]) == "function"
  local task, origin = of_joined(err, about.serial)
  if task then about.callback = "task" end
  about.origin = origin or about.origin
  local options = { called = called, called_name = name, source_of = source_of }
  local requests = package.loaded["perilune.requests"]
  if requests and about.callback == "proceed" and not task then requests.blame(options, co, about.agent) end
  return blame.describe(err, task or co, options, about)
end

--- The same for what belongs to no connection.
---@param err any the error value
---@param about table directory, script, callback (nil: the top level), is_loading, generation: see src/script/phase.c
---@param called function? setup() or teardown()
---@return string message one line
---@return string rendered the excerpt for people
---@return string place
function M.describe_phase(err, about, called)
  if not called then
    return require("perilune.fault").describe(err), require("perilune.app").failure_text(about.script, err), ""
  end
  local options = { called = called, called_name = about.callback, source_of = source_of }
  local message, rendered, _, place = require("perilune.blame").describe(err, nil, options, about)
  return message, rendered, place
end

return M
