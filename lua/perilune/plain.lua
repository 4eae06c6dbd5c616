--- Plain data: what goes from one VM to another as bytes. That is nil, booleans, numbers, strings, 64-bit numbers and
--- tables of those. What would come out as something else is refused, and so is what is too large, before it is packed:
--- that goes on to its end, whatever the handler's time is.
local buffer = require "string.buffer"
local printable = require "perilune.printable"

local M = {}

local MOST, DEPTH_MOST = 16 * 2 ^ 20, 100
local ITEM_BYTES = 2 -- at least, packed

-- The way to the item at the keys of a trail.
local function path_of(trail, depth)
  local path = "the value"
  for i = 1, depth do path = ("%s[%s]"):format(path, printable.value(trail[i])) end
  return path
end

local function refuse_item(trail, depth, what) error(path_of(trail, depth) .. " " .. what, 0) end

local METATABLE = "has a metatable, which would be lost: give the fields of an object, the text of decoded JSON; "
  .. "a conn stays where it is"
local NO_DATA = { ["function"] = true, thread = true, userdata = true }

-- What is left of so many bytes behind the value; below 0: it is too large.
local function weigh(value, left, trail, depth)
  local kind = type(value)
  if NO_DATA[kind] then refuse_item(trail, depth, "is a " .. kind) end
  if kind ~= "table" then return left - ITEM_BYTES - (kind == "string" and #value or 0) end
  if depth >= DEPTH_MOST then
    refuse_item(trail, 3, ("has tables within each other, more than %d"):format(DEPTH_MOST))
  end
  if getmetatable(value) ~= nil then
    refuse_item(trail, depth, METATABLE)
  end
  left = left - ITEM_BYTES
  for key, item in next, value do
    trail[depth + 1] = key
    left = weigh(item, weigh(key, left, trail, depth + 1), trail, depth + 1)
    if left < 0 then break end
  end
  return left
end

-- Compiled, a loop of next() within another one has been seen to go on with what was no key of the table: twice in some
-- eight million calls (LuaJIT 2.1, 2022). Where a finaliser is the first to need this file, LuaJIT refuses to be told.
local runtime = package.loaded["perilune.runtime"]
if runtime then pcall(runtime.interpret, weigh) end

local NOT_PLAIN = "%s: only plain data can be %s: %s"
local CDATA = "%s, as a view of a frame is: view:string() makes a text of it" -- 64-bit numbers are packed

--- The bytes, for unpack() in any VM; nil: they are too many.
---@param value any
---@param most integer bytes
---@param what string what it is for, before the error: "shared:set"
---@param done string "shared", as in: only plain data can be shared
---@param level integer? of the error, as of error(); 1, the default, is the caller
---@return string? bytes
function M.pack(value, most, what, done, level)
  level = (level or 1) + 1
  local ok, left = pcall(weigh, value, math.min(most, MOST), {}, 0)
  if not ok then error(NOT_PLAIN:format(what, done, tostring(left)), level) end
  if left < 0 then return nil end
  local packed, bytes = pcall(buffer.encode, value)
  if packed then return bytes end
  error(NOT_PLAIN:format(what, done, CDATA:format(tostring(bytes))), level)
end

--- What pack() has packed. A VM that has not met an int64_t yet, such as string.unpack returns, cannot make one.
---@param bytes string
---@return any
function M.unpack(bytes)
  local ok, data = pcall(buffer.decode, bytes)
  if ok then return data end
  require "perilune.int64"
  return buffer.decode(bytes)
end

local PACKED = ("p"):byte()

--- Values that came with the others, some of them packed: what the first says.
---@param kinds string|false a byte for each: "p": it is packed; false: none is
---@return any ...
function M.open(kinds, ...)
  if not kinds then return ... end
  local list = { ... }
  for i = 1, #kinds do
    if kinds:byte(i) == PACKED then list[i] = M.unpack(list[i]) end
  end
  return unpack(list, 1, #kinds)
end

return M
