--- Drivers of others, and what they are written for: OpenResty's `ngx` and LuaSocket's `socket`. perilune.app loads
--- this for scripts that have `compat`.
---
--- A driver is a module of the system in Lua. It gets globals that belong to all drivers of the app: those of a script,
--- behind them LuaJIT's own, and what `compat` gives. What it assigns to globals stays there.
local compile = require "perilune.compile"
local sandbox = require "perilune.sandbox"
local waits = require "perilune.compat.waits"

local M = {}

-- By the name that it is required by: which of `compat` it belongs to, and what makes it.
local MODULES = {
  ["ngx.semaphore"] = { "ngx", "perilune.compat.semaphore" },
  socket = { "socket", "perilune.compat.socket" },
  ["socket.core"] = { "socket", "perilune.compat.socket" },
  ["socket.unix"] = { "socket", "perilune.compat.socket_unix" },
}

-- Modules in C that wait for the network themselves, and hold up all connections of the worker.
local BLOCKING = {
  ssl = "socket", ["ssl.core"] = "socket", ["socket.serial"] = "socket", ["posix.sys.socket"] = "socket",
  lsocket = "socket", cqueues = "socket",
}

local function read(path)
  local file, message = io.open(path, "rb")
  if not file then error(message, 0) end
  local text = file:read "*a"
  file:close()
  if text:byte(1) == 27 then error(path .. ": is bytecode; only text is loaded", 0) end
  return (text:gsub("^#[^\n]*", "", 1))
end

---@class perilune.compat
---@field has fun(feature: string): boolean is it in the script's `compat`?
---@field used table<string, true> what the script has asked for
---@field module fun(name: string): any what a module of `compat` is; nil: it is none
---@field global fun(name: string): any
---@field finds fun(name: string): boolean is it a driver, in Lua?
---@field require fun(name: string): any what drivers require with

--- For one load of an app.
---@param env table the script's globals
---@param has fun(feature: string): boolean
---@return perilune.compat
function M.new(env, has)
  local self = { has = has, used = {} }
  local globals, loaded, loading, made = {}, {}, {}, {}
  local host = { coroutines = waits.new(env.coroutine), read_only = sandbox.read_only }

  -- Each is made once: pools of connections are in it.
  local function make(name, maker)
    if made[name] == nil then made[name] = require(maker).new(host) end
    return made[name]
  end

  function self.module(name)
    local entry = MODULES[name]
    if not entry or not self.has(entry[1]) then return nil end
    self.used[entry[1]] = true
    return make(entry[2], entry[2])
  end

  function self.global(name)
    if name ~= "ngx" or not self.has "ngx" then return nil end
    self.used.ngx = true
    return make("ngx", "perilune.compat.ngx")
  end

  function self.finds(name)
    if BLOCKING[name] and self.has(BLOCKING[name]) then return true end
    return not package.loaded[name] and not package.preload[name] and package.searchpath(name, package.path) ~= nil
  end

  local function load_driver(name, path)
    local here = coroutine.running() or true
    if loading[name] == here then error(("require: '%s' requires itself, by way of others"):format(name), 0) end
    local chunk, message = compile(read(path), "@" .. path, globals)
    if not chunk then error(message, 0) end
    loading[name] = here
    local value = setfenv(chunk, globals)(name, path)
    loading[name] = nil
    if value == nil then value = true end
    loaded[name] = value
    return value
  end

  function self.require(name)
    if type(name) ~= "string" then error("require: a module's name is expected, got " .. type(name), 2) end
    local value = self.module(name)
    if value == nil then value = loaded[name] end
    if value == nil and rawget(env, name) then value = globals[name] end -- a library
    if value ~= nil then return value end
    if BLOCKING[name] and self.has(BLOCKING[name]) then
      error(("require: '%s' would hold up all connections of the worker: it waits in C; use perilune.connect, which has"
        .. " tls://"):format(name), 2)
    end
    local path = self.finds(name) and package.searchpath(name, package.path)
    if path then return load_driver(name, path) end
    return require(name)
  end

  for name, value in next, env do globals[name] = value end
  globals._G, globals.require, globals.coroutine = globals, self.require, host.coroutines.library
  setmetatable(globals, {
    __index = function(_, name)
      local value = self.global(name)
      if value == nil then return _G[name] end
      globals[name] = value
      return value
    end,
  })
  return self
end

return M
