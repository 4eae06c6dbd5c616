--- ngx.shared.NAME: the dictionaries of perilune.shared, with the methods that OpenResty gives them.
local M = {}

local WORDS = { EEXIST = "exists", ENOENT = "not found", EINVAL = "not a number", EMSGSIZE = "no memory",
  EBUSY = "no memory", ENOMEM = "no memory" }

local KEYS_DEFAULT, KEYS_MOST = 1024, 1000000

-- Seconds; 0: for ever.
local function time_of(seconds, name)
  if seconds == nil then return nil end
  if type(seconds) ~= "number" or seconds < 0 then
    error(("shared:%s: bad exptime: expects seconds"):format(name), 3)
  end
  return seconds
end

local function check_flags(flags, name)
  if flags == nil or flags == 0 then return end
  error(("shared:%s: flags are not there: keep them in the value"):format(name), 3)
end

-- As OpenResty says it: ok, err, forcible. Whether others had to go is not told: status() counts them.
local function outcome(ok, message, code)
  if ok then return true, nil, false end
  return false, WORDS[code] or message, false
end

local function method_of(name)
  return function(self, key, value, seconds, flags)
    check_flags(flags, name)
    if value == nil and name == "set" then
      self.dictionary:delete(key)
      return true, nil, false
    end
    return outcome(self.dictionary[name](self.dictionary, key, value, time_of(seconds, name)))
  end
end

local methods = { set = method_of "set", add = method_of "add", replace = method_of "replace" }

function methods.get(self, key) return self.dictionary:get(key) end

function methods.incr(self, key, value, init, seconds)
  local begin = init
  if init == nil then begin = false end
  local sum, message, code = self.dictionary:incr(key, value, begin, time_of(seconds, "incr"))
  if not sum then return nil, WORDS[code] or message end
  if init == nil then return sum end
  return sum, nil, false
end

function methods.delete(self, key) self.dictionary:delete(key) end

function methods.ttl(self, key)
  local seconds = self.dictionary:ttl(key)
  if not seconds then return nil, "not found" end
  return seconds == math.huge and 0 or seconds
end

function methods.expire(self, key, seconds)
  if self.dictionary:expire(key, time_of(seconds, "expire")) then return true end
  return nil, "not found"
end

function methods.get_keys(self, max)
  return self.dictionary:keys(max == 0 and KEYS_MOST or max or KEYS_DEFAULT)
end

function methods.flush_all(self) self.dictionary:clear() end

-- They take no room that anybody wants.
function methods.flush_expired() return 0 end

function methods.capacity(self) return self.dictionary:status().limit end

function methods.free_space(self)
  local status = self.dictionary:status()
  return status.limit - status.bytes
end

local INSTEAD = {
  safe_set = "shared:set, which makes room", safe_add = "shared:add, which makes room", get_stale = "shared:get",
  lpush = "a value that is a list, with perilune.shared NAME:update", rpush = "the same", lpop = "the same",
  rpop = "the same", llen = "the same",
}

--- The table `ngx.shared`: what the script's `shared` declares, and nil for other names.
---@param library fun(name: string, fields: table, instead: table): table that says of what is missing what to use
---@return table
function M.new(library)
  local class = library("ngx.shared.NAME", methods, INSTEAD)
  local metatable = { __index = class, __metatable = "shared dictionary" }
  local made = {}
  return setmetatable({}, { __metatable = "ngx.shared", __newindex = function()
    error("ngx.shared cannot be written to: declare shared = { NAME = \"16m\" }", 2)
  end, __index = function(_, name)
    if made[name] == nil and type(name) == "string" then
      local dictionary = require("perilune.dictionary").find(name)
      made[name] = dictionary and setmetatable({ dictionary = dictionary }, metatable) or false
    end
    return made[name] or nil
  end })
end

return M
