--- The globals that a user's script sees: private to one load of one app, strict,
--- without the doors that lead out of the VM.
---
--- Reading an undefined global and writing any is an error that names it: state
--- that leaks from one connection to all others is the bug this prevents.
local strings = require "perilune.strings"

local M = {}

local has_guard, guard = pcall(require, "perilune.guard")
if not has_guard then -- in a plain LuaJIT, as in unit specs
  guard = { interrupted = function() return false end, call = function() return 0 end, memory = function() end }
end

local COPIED = {
  "assert", "error", "ipairs", "next", "pairs", "pcall", "print", "rawequal", "rawget",
  "rawset", "select", "setmetatable", "getmetatable", "tonumber", "tostring", "type", "unpack", "xpcall",
  "_VERSION",
}
local LIBRARIES = { "string", "table", "math", "bit", "coroutine", "io", "os" }
local COROUTINES_DEEP = 180 -- LuaJIT crashes the process not far beyond 200
local WITHHELD = {
  os = { exit = true, execute = true, setlocale = true },
  io = { popen = true },
}

local function copy_library(name, library)
  local copy, withheld = {}, WITHHELD[name] or {}
  for key, value in pairs(library) do
    if not withheld[key] then copy[key] = value end
  end
  return copy
end

--- Coroutines of the script's own: nested only so deep, and never the one a handler runs in, which
--- only the core may resume.
local function safe_coroutines(library)
  local create, resume = coroutine.create, coroutine.resume
  local own, depth, call = setmetatable({}, { __mode = "k" }), 0, 0
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
    if guard.call() ~= call then call, depth = guard.call(), 0 end -- one that was ended did not count down
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

--- Without a function of its own a sort is one long call of C, that cannot be interrupted.
local function safe_sort(sort)
  return function(list, compare)
    if compare == nil and type(list) == "table" and #list > SORTED_IN_C then compare = less end
    return sort(list, compare)
  end
end

local function undefined(_, name)
  error("undefined global '" .. tostring(name) .. "' (a missing 'local' or 'require'?)", 2)
end

local function undeclared(_, name)
  error("assignment to global '" .. tostring(name) .. "': make it a local of the file, or a field of self", 2)
end

--- Text chunks only: bytecode can crash the process.
local function text_loader(env)
  return function(chunk, name, mode, own_env)
    if mode ~= nil and not tostring(mode):find("t", 1, true) then
      return nil, "only text chunks can be loaded"
    end
    return load(chunk, name, "t", own_env or env)
  end
end

local IS_LIBRARY = {}
for _, name in ipairs(LIBRARIES) do IS_LIBRARY[name] = true end

--- Is it a library that scripts have as a global?
---@return boolean
function M.is_library(name) return IS_LIBRARY[name] == true end

-- One for all loads in a VM: it is behind every string.
local string_library

--- Also guards the methods of all strings of the VM.
--- @return table env fresh globals; `require` is for the caller to add with rawset
function M.new()
  if not string_library then
    string_library = strings.new(guard.memory())
    strings.install(string_library)
  end
  local env = {}
  for _, name in ipairs(COPIED) do env[name] = _G[name] end
  for _, name in ipairs(LIBRARIES) do
    env[name] = copy_library(name, name == "string" and string_library or _G[name])
  end
  safe_coroutines(env.coroutine)
  env.xpcall = safe_xpcall(env.xpcall)
  env.table.sort = safe_sort(env.table.sort)
  env.load = text_loader(env)
  env.loadstring = function(text, name) return env.load(text, name) end
  env._G = env
  return setmetatable(env, { __index = undefined, __newindex = undeclared, __metatable = "globals are strict" })
end

return M
