--- The string library of scripts: LuaJIT's and Lua 5.3's pack, but no call of it runs or grows without bounds.
---
--- LuaJIT's patterns backtrack in C, where nothing can stop them, so those that have something to
--- backtrack over are matched by src/base/pattern.c. Plain searches stay with LuaJIT, which compiles them.
local bounded = require "perilune.bounded"
local packing = require "perilune.packing" -- in C: src/bind/pack.c
local patterns = require "perilune.patterns" -- in C: src/bind/strings.c

local M = {}

M.LIMIT = 512 * 1024 * 1024

-- LuaJIT's choice of what makes a pattern out of text.
local SPECIALS = "[%^%$%*%+%?%.%(%[%%%-]"
local REMEMBERED = 500
-- Longer texts are for C to search for: LuaJIT compares all of a text at each place where it may begin. Longer subjects
-- too, since a search of ours can be ended.
local SHORT_BYTES = 64
local SUBJECT_BYTES = 65536

--- string.find. It ends in tail calls, so that errors name the script's line.
local function new_find(find, find_in_c)
  local is_plain, count = {}, 0

  --- Whether LuaJIT's own may search for it: looked up in compiled code, decided here.
  local function decide(pattern)
    if type(pattern) ~= "string" or #pattern > SHORT_BYTES then return false end
    if count == REMEMBERED then is_plain, count = {}, 0 end
    local plain = not find(pattern, SPECIALS)
    is_plain[pattern], count = plain, count + 1
    return plain
  end

  return function(s, pattern, init, plain)
    local for_luajit
    if plain then
      for_luajit = type(pattern) == "string" and #pattern <= SHORT_BYTES
    else
      for_luajit = is_plain[pattern]
      if for_luajit == nil then for_luajit = decide(pattern) end
    end
    if for_luajit and (type(s) ~= "string" or #s <= SUBJECT_BYTES) then return find(s, pattern, init, plain) end
    return find_in_c(s, pattern, init, plain)
  end
end

--- string.gmatch.
local function new_gmatch(next_match, check)
  return function(s, pattern)
    if type(s) ~= "string" or type(pattern) ~= "string" then
      if type(s) ~= "number" and type(s) ~= "string" or type(pattern) ~= "number" and type(pattern) ~= "string" then
        return check(s, pattern)
      end
      s, pattern = tostring(s), tostring(pattern)
    end
    local state = { 0 }
    return function() return next_match(s, pattern, state) end
  end
end

--- A string library for scripts. string.dump is not in it: bytecode can crash the process.
---@param limit integer|(fun(): integer)|nil bytes that one result may have; default M.LIMIT
--- results of gsub and pack have the limit of the latest library
---@return table library
function M.new(limit)
  limit = limit or M.LIMIT
  local get_limit = type(limit) == "function" and limit or function() return limit end
  local library = {}
  for name, value in pairs(string) do library[name] = value end
  library.dump = nil
  library.find = new_find(string.find, patterns.find)
  library.match, library.gsub = patterns.match, patterns.gsub
  library.gmatch = new_gmatch(patterns.gmatch_next, patterns.gmatch_check)
  library.rep, library.format = bounded.rep(string.rep, get_limit), bounded.format(string.format, get_limit)
  library.pack, library.unpack, library.packsize = packing.pack, packing.unpack, packing.packsize
  patterns.limit_results(get_limit())
  packing.limit_results(get_limit())
  return library
end

--- Makes a library what methods of strings are found in, throughout the VM. Scripts get copies of it, so
--- that none can change it for the others.
---@param library table
function M.install(library)
  -- The metatable itself is locked, see src/vm/vm.c.
  debug.getmetatable("").__index = library
end

return M
