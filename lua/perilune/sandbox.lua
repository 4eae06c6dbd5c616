--- The globals that a user's script sees: private to one load of one app, strict,
--- without the doors that lead out of the VM.
---
--- Reading an undefined global and writing any is an error that names it: state
--- that leaks from one connection to all others is the bug this prevents.
local M = {}

local bounded = require "perilune.bounded"
local compile = require "perilune.compile"

local has_guard, guard = pcall(require, "perilune.guard")
if not has_guard then -- in a plain LuaJIT, as in unit specs
  guard = {
    interrupted = function() return false end, loading = function() return true end, memory = function() end,
    check_nesting = function() end, watched = function(fn) return fn end, is_in_c = function() return false end,
  }
end

local COPIED = {
  "assert", "error", "ipairs", "next", "pairs", "pcall", "print", "rawequal", "rawget",
  "rawset", "select", "setmetatable", "getmetatable", "tonumber", "tostring", "type", "unpack", "xpcall",
  "_VERSION",
}
local LIBRARIES = { "string", "table", "math", "bit", "coroutine", "io", "os" }
local COROUTINES_DEEP = 180 -- LuaJIT crashes the process not far beyond 200

--- Doors out of the VM, by the names that `unsafe` opens them with. Those of libraries are fields; `debug`
--- becomes a global, as does `newproxy`; the rest can be required. `io.special` is no field: with it io.open opens
--- what is no file as well.
M.UNSAFE = {
  "debug", "ffi", "io.popen", "io.special", "jit", "newproxy", "os.execute", "os.exit", "os.setlocale", "package",
  "string.buffer", "string.dump",
}
local GLOBAL = { debug = true, newproxy = true, package = true, jit = true }
local MODULE = { debug = true, ffi = true, package = true, jit = true, ["string.buffer"] = true }

local is_unsafe = {}
for _, name in ipairs(M.UNSAFE) do is_unsafe[name] = true end

--- Is it a name that `unsafe` takes?
---@param name string
---@return boolean
function M.is_door(name) return is_unsafe[name] == true end

--- The names of the globals that scripts have.
---@return string[]
function M.globals()
  local names = { "require", "load", "loadstring" }
  for _, list in ipairs { COPIED, LIBRARIES } do
    for _, name in ipairs(list) do names[#names + 1] = name end
  end
  table.sort(names)
  return names
end

--- The name in `unsafe` that a module of the system needs; nil: it is none of LuaJIT's own.
---@param name string
---@return string?
function M.door_of(name)
  if name == "_G" then return "package" end
  if name:find("^jit%.") then return "jit" end
  return MODULE[name] and name or nil
end

local dump = string.dump

--- Of those that may wait for the system: where they were called is known, should that take long (src/vm/watched.c).
local WATCHED = {
  io = { "close", "popen", "tmpfile" }, os = { "execute", "remove", "rename", "tmpname" },
}
local watched = {}
for library, keys in pairs(WATCHED) do
  for _, key in ipairs(keys) do watched[library .. "." .. key] = guard.watched(_G[library][key]) end
end

local function behind(path)
  if path == "string.dump" then return dump end
  local library, key = path:match("^(%w+)%.(%w+)$")
  if library then return watched[path] or _G[library][key] end
  return _G[path]
end

local function copy_library(name, library, may_open)
  local copy = {}
  for key, value in pairs(library) do
    local path = name .. "." .. key
    if not is_unsafe[path] then copy[key] = watched[path] or value end
  end
  return setmetatable(copy, {
    __index = function(_, key)
      local path = name .. "." .. tostring(key)
      if is_unsafe[path] and may_open(path) then return behind(path) end
    end,
  })
end

local registry, metatable_of = debug.getregistry(), debug.getmetatable

-- A conn is a table for the collector's sake, and not the script's to write to.
local function is_conn(t) return getmetatable(t) == "conn" and metatable_of(t) == registry["perilune.conn"] end

-- What stands for a shared table: its name, and that table.
local protected, contents = setmetatable({}, { __mode = "k" }), setmetatable({}, { __mode = "k" })

-- A table without contents that reads from `shared`: no field is there for an assignment to find, so that each asks
-- __newindex. What writes without asking it is kept away by refuse_shared().
local function stand_in(what, shared, newindex, metatable)
  local proxy = setmetatable({}, { __index = shared, __newindex = newindex, __metatable = metatable })
  protected[proxy], contents[proxy] = what, shared
  return proxy
end

--- What all connections of a worker share can be read and not written.
local function read_only(name, library)
  return stand_in(name, library, function(_, key)
    error(("%s.%s cannot be assigned: libraries are shared by all connections"):format(name, tostring(key)), 2)
  end, name .. " is read-only")
end
M.read_only = read_only

local function next_in(proxy, key)
  local library = contents[proxy]
  if not library then error("this iterator is for a library", 2) end
  return next(library, key)
end

--- LuaJIT has no __pairs, so pairs() looks behind the proxies itself. All other tables get LuaJIT's own iterator,
--- which compiles. next() stays LuaJIT's: were it ours, `for k, v in next, t` would call it for every item.
local function safe_pairs(pairs)
  return function(t)
    if getmetatable(t) ~= nil then
      if contents[t] then return next_in, t, nil end
      if is_conn(t) then return pairs {} end -- what is in it is the core's
    end
    return pairs(t)
  end
end

--- Files have one metatable in a VM, which is the __index of each as well: so io.stdout.__index would hand it out.
--- They get their methods from a table that cannot be reached.
local function lock_files()
  local metatable, methods = debug.getmetatable(io.stdout), {}
  for key, value in pairs(metatable) do
    if not key:find("^__") then methods[key] = value end
  end
  for _, key in ipairs { "close", "flush", "read" } do methods[key] = guard.watched(methods[key]) end
  local of_io = require("perilune.files").install(methods)
  metatable.__index, metatable.__metatable = methods, "files are read-only"
  return of_io
end

--- io.write of one connection would go where another has sent it.
local function safe_defaults(library)
  local function refusing(name, way_out)
    local original = library[name]
    library[name] = function(file)
      if file == nil then return original() end
      local why = "io.%s: the default file is shared by all connections: %s one of your own (io.open)"
      error(why:format(name, way_out), 2)
    end
  end
  refusing("output", "write to")
  refusing("input", "read from")
  local close = library.close
  function library.close(file)
    if file ~= nil then return close(file) end
    error("io.close: the default file is shared by all connections: name the one to close", 2)
  end
end

--- What one connection can foresee, it could foresee of all others.
local function safe_randomseed(randomseed)
  return function(...)
    if guard.loading() then return randomseed(...) end
    error("math.randomseed: its numbers are shared by all connections, and differ at each start: a seed can be set only"
      .. " while the script is loaded", 2)
  end
end

-- Raises where the caller's caller is about to write into what is not the script's own.
local function refuse_shared(writer, t)
  local name = protected[t] or is_conn(t) and "a conn"
  if name then error(("%s: %s cannot be assigned to"):format(writer, name), 3) end
end

--- A function that writes into the table that is its first argument, past __newindex. Tables that have no metatable
--- pass with a look that costs compiled code nothing.
local function safe_writer(name, write)
  return function(t, ...)
    if getmetatable(t) ~= nil then refuse_shared(name, t) end
    return write(t, ...)
  end
end

local function safe_move(move)
  return function(from, first, last, at, into)
    local target = into
    if target == nil then target = from end
    if getmetatable(target) ~= nil then refuse_shared("table.move", target) end
    return move(from, first, last, at, into)
  end
end

--- As if the contents were in what stands for them.
local function safe_rawget(rawget)
  return function(t, key)
    if getmetatable(t) ~= nil and contents[t] then return rawget(contents[t], key) end
    return rawget(t, key)
  end
end

--- LuaJIT's modules that write into tables are the system's, and may be named in `modules`.
---@param name string
---@param value any what requiring it has returned
---@return any
function M.guard_module(name, value)
  return name == "table.clear" and safe_writer(name, value) or value
end

--- Coroutines of the script's own: nested only so deep, and never the one a handler runs in, which
--- only the core may resume.
local function safe_coroutines(library)
  local create, resume = coroutine.create, coroutine.resume
  local running = coroutine.running
  local own, depth = setmetatable({}, { __mode = "k" }), 0
  local function left(...)
    depth = depth - 1
    return ...
  end
  function library.create(fn)
    local co = create(fn)
    own[co] = true
    return co
  end
  function library.resume(co, ...)
    if type(co) == "thread" and not own[co] then
      error("coroutine.resume: a handler is resumed by the server, when what it waits for has come", 2)
    end
    if type(co) ~= "thread" then return resume(co, ...) end -- raises: it must not be counted
    -- A call that is ended from outside leaves the depth as it was: the outermost begins anew.
    local outer = running()
    if not outer or not own[outer] then depth = 0 end
    if depth >= COROUTINES_DEEP then return false, "coroutines are nested too deep" end
    depth = depth + 1
    return left(resume(co, ...))
  end
  local function results(ok, ...)
    if not ok then error((...), 0) end
    return ...
  end
  function library.wrap(fn)
    local co = library.create(fn)
    return function(...) return results(library.resume(co, ...)) end
  end
  return library
end

--- LuaJIT's pcall (and xpcall) of 2022 does not look whether the stack has room: pcall(pcall, pcall, …), or a __call
--- that is pcall, writes past its end. A function in Lua looks each time that it is called.
local function safe_pcall(pcall)
  return function(...) return pcall(...) end
end

--- When a call is ended from outside, the error is raised inside of a hook, and its handler runs there
--- as well, where nothing can interrupt it: so it does not run. A handler is wrapped once and kept, for
--- xpcall compiles, and making a closure does not.
local function safe_xpcall(xpcall)
  local wrapped = setmetatable({}, { __mode = "kv" })
  return function(fn, handler, ...)
    local safe = wrapped[handler]
    if not safe and type(handler) == "function" then
      safe = function(err)
        if guard.interrupted() then return err end
        return handler(err)
      end
      wrapped[handler] = safe
    end
    return xpcall(fn, safe or handler, ...)
  end
end

local SORTED_IN_C = 2000
local function less(a, b) return a < b end

--- Without a function in Lua that compares, a sort is one long call of C and cannot be interrupted. One that compares
--- in C (rawequal) is no better than none.
local function safe_sort(sort)
  return function(list, compare)
    if compare ~= nil then
      guard.check_nesting("table.sort")
      if guard.is_in_c(compare) then
        local original = compare
        compare = function(a, b) return original(a, b) end
      end
    elseif type(list) == "table" and #list > SORTED_IN_C then
      compare = less
    end
    return sort(list, compare)
  end
end

local function undeclared(_, name)
  error("assignment to global '" .. tostring(name) .. "': make it a local of the file, or a field of self", 2)
end

--- The environment of a function that has been compiled, from text or from bytecode. Where it assigns to a global that
--- there is, which would not ask __newindex, it is what stands for the globals; otherwise they are there themselves,
--- which spares interpreted code a look-up.
---@param env table of new()
---@param fn function
---@return table
function M.env_for(env, fn)
  local protos = require "perilune.protos"
  local is_writer = protos.writes_global(fn, function(name) return rawget(env, name) ~= nil end)
  return is_writer and env._G or env
end

-- The pieces are asked for here, since what C calls in the midst of compiling is hard to end.
local function all_of(reader)
  local pieces = {}
  while true do
    local piece = reader()
    if piece == nil or piece == "" then return table.concat(pieces) end
    if type(piece) ~= "string" then error("load: the reader must return strings", 3) end
    pieces[#pieces + 1] = piece
  end
end

--- Text chunks only: bytecode can crash the process.
local function text_loader(env)
  return function(chunk, name, mode, own_env)
    if mode ~= nil and not tostring(mode):find("t", 1, true) then
      return nil, "only text chunks can be loaded"
    end
    if own_env and type(own_env) ~= "table" then
      error("bad argument #4 to 'load' (table expected, got " .. type(own_env) .. ")", 2)
    end
    if type(chunk) == "function" then chunk, name = all_of(chunk), name or "=(load)" end
    if type(chunk) == "string" and (name == nil or type(name) == "string") then
      return compile(chunk, name or chunk, own_env or env._G)
    end
    return load(chunk, name, "t", own_env or env._G)
  end
end

local IS_LIBRARY = {}
for _, name in ipairs(LIBRARIES) do IS_LIBRARY[name] = true end

--- Is it a library that scripts have as a global?
---@return boolean
function M.is_library(name) return IS_LIBRARY[name] == true end

-- One for all loads in a VM: it is behind every string.
local string_library, io_functions, get_limit

local function shut() return false end

--- Also guards the methods of all strings and files of the VM.
--- @param may_open (fun(name: string): boolean)? asked when the script wants one of M.UNSAFE
--- @param find (fun(name: string): any)? asked for a global that there is not
--- @return table env fresh globals; `require` is for the caller to add with rawset
function M.new(may_open, find)
  may_open = may_open or shut
  if not string_library then
    local strings = require "perilune.strings" -- stands on C, which is not there where names alone are of interest
    local limit = guard.memory() or strings.LIMIT
    get_limit = function() return limit end
    string_library = strings.new(get_limit)
    strings.install(string_library)
    io_functions = lock_files()
  end
  local env, libraries = {}, {}
  for _, name in ipairs(COPIED) do env[name] = _G[name] end
  for _, name in ipairs(LIBRARIES) do
    libraries[name] = copy_library(name, name == "string" and string_library or _G[name], may_open)
  end
  safe_coroutines(libraries.coroutine)
  libraries.io.read = io_functions.read
  for name, fn in pairs(io_functions.library(may_open)) do libraries.io[name] = fn end
  safe_defaults(libraries.io)
  libraries.math.randomseed = safe_randomseed(libraries.math.randomseed)
  libraries.table.sort = safe_sort(libraries.table.sort)
  libraries.table.insert = bounded.insert(safe_writer("table.insert", libraries.table.insert))
  libraries.table.move = safe_move(libraries.table.move)
  libraries.table.concat = bounded.concat(libraries.table.concat, get_limit)
  libraries.os.date = bounded.date(libraries.os.date)
  for name, library in pairs(libraries) do env[name] = read_only(name, library) end
  env.pcall, env.xpcall, env.pairs = safe_pcall(env.pcall), safe_xpcall(env.xpcall), safe_pairs(env.pairs)
  env.rawset, env.rawget = safe_writer("rawset", env.rawset), safe_rawget(env.rawget)
  env.load = text_loader(env)
  env.loadstring = function(text, name) return env.load(text, name) end
  env._G = stand_in("a global", env, undeclared, "globals are strict")
  local function missing(_, name)
    if GLOBAL[name] and may_open(name) then return behind(name) end
    local found = find and find(name)
    if found then return found end
    error("undefined global '" .. tostring(name) .. "' (a missing 'local' or 'require'?)", 2)
  end
  return setmetatable(env, { __index = missing, __newindex = undeclared, __metatable = "globals are strict" })
end

return M
