--- Dictionaries that all workers share: perilune.shared(). perilune.lua loads it when a script first asks for one.
local core = package.loaded["perilune.core"] -- not where a script is only being checked
local plain = require "perilune.plain"
local printable = require "perilune.printable"
local suggest = require "perilune.suggest"

local M = {}

-- ---- while a script is only being checked --------------------------------------

--- What its top level has asked for: is it declared? By name.
---@type table<string, boolean>
M.asked = {}

local METHODS = {
  "get", "set", "add", "replace", "incr", "update", "delete", "expire", "ttl", "keys", "clear", "status",
}

local function no_method(key)
  return ("a shared dictionary has no method %s%s"):format(printable.value(key), suggest.hint(key, METHODS))
end

local OUTSIDE = "perilune.shared: %s:%s: only inside a running server: in a handler, or in setup(app); not at the top "
  .. "level of a file, nor of a specification's own"

local function stand_in(name)
  local function index(_, key)
    for _, method in ipairs(METHODS) do
      if key == method then error(OUTSIDE:format(name, key), 2) end
    end
    error(no_method(key), 2)
  end
  return setmetatable({}, { __index = index, __newindex = index, __metatable = "shared dictionary" })
end

--- What is wrong with asking for a name.
---@param name string
---@param declared string[]
---@return string
function M.undeclared(name, declared)
  local message = ("perilune.shared: no dictionary %s is declared%s"):format(printable.quote(name),
    suggest.hint(name, declared))
  return ("%s: in the script's settings, shared = { %s = \"16m\" }"):format(message,
    name:find "^[%a_][%w_]*$" and name or ("[%q]"):format(name))
end

-- ---- in a worker ---------------------------------------------------------------

local methods = core and core.shared_methods and core.shared_methods()

-- Tables and 64-bit numbers are kept as bytes. nil: they are too many.
local function pack(value, method, limit)
  local bytes = plain.pack(value, limit, "shared:" .. method, "shared", 3)
  return bytes
end

local MOST_TRIES = 1000

local function result_of(...)
  if select("#", ...) > 0 then return (...) end
  error("shared:update: the function returned nothing: it is to return the new value, or nil, which deletes", 3)
end

--- Changes a value by a function of the old one, with nobody in between: if another was quicker, it is called again.
--- nil deletes.
---@param key string|number
---@param change fun(value: any): any
---@param ttl number|string|nil
---@return any value the new one; or nil, message, code
local function update(self, key, change, ttl)
  if type(change) ~= "function" then
    error("shared:update: expects a function of the old value, got " .. printable.value(change), 2)
  end
  for _ = 1, MOST_TRIES do
    local version, old = core.shared_read(self, key)
    local value = result_of(change(old))
    local ok, message, code = core.shared_write(self, key, value, version, ttl)
    if ok then return value end
    if code ~= "EAGAIN" then return nil, message, code end
  end
  return nil, "others were quicker each time", "EAGAIN"
end

local metatable

local function make_metatable()
  methods.update = update
  setmetatable(methods, { __index = function(_, key) error(no_method(key), 2) end })
  metatable = { __index = methods, __metatable = "shared dictionary", pack = pack, unpack = plain.unpack,
    __newindex = function(_, key)
      error(("a shared dictionary is written by its methods: sessions:set(%s, …)"):format(printable.value(key)), 2)
    end }
end

local made = {}

--- The same as shared(), but nil where none of that name is declared. While a script is only being checked nobody knows
--- that yet.
---@param name string
---@return table?
function M.find(name)
  if not methods then return stand_in(name) end
  if not metatable then make_metatable() end
  made[name] = made[name] or core.shared(name, metatable)
  return made[name]
end

--- The dictionary of that name, which the script's `shared` declares.
---@param name string
---@return table
function M.shared(name)
  if type(name) ~= "string" then
    error("perilune.shared: expects a name such as \"sessions\", got " .. printable.value(name), 3)
  end
  if not methods then M.asked[name] = true end
  return M.find(name) or error(M.undeclared(name, core.shared_names()), 3)
end

return M
