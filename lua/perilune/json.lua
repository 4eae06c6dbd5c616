--- A JSON encoder: sorted keys, so that equal values give equal text. No decoder.
local printable = require "perilune.printable"

local M = {}

-- Deeper than anything we print; stops a table that contains itself.
local DEPTH_MAX = 64

local ARRAY = {}

--- Marks a table as a list, so that an empty one is written `[]`. Returns it.
---@generic T: table
---@param list T
---@return T
function M.array(list) return setmetatable(list, ARRAY) end

local function encode_number(n)
  if n ~= n or n == math.huge or n == -math.huge then error("a number that JSON cannot carry", 0) end
  if n == math.floor(n) and math.abs(n) < 2 ^ 53 then return string.format("%.0f", n) end
  local short = string.format("%.14g", n)
  return tonumber(short) == n and short or string.format("%.17g", n)
end

local function is_list(t)
  if getmetatable(t) == ARRAY then return true end
  local count = 0
  for key in next, t do
    if type(key) ~= "number" then return false end
    count = count + 1
  end
  return count > 0 and count == #t
end

local encode

local function encode_list(t, depth)
  local out = {}
  for i = 1, #t do out[i] = encode(t[i], depth) end
  return "[" .. table.concat(out, ",") .. "]"
end

local function encode_object(t, depth)
  local keys, out = {}, {}
  for key in next, t do
    if type(key) ~= "string" then error("a table with both a list and keys", 0) end
    keys[#keys + 1] = key
  end
  table.sort(keys)
  for i, key in ipairs(keys) do out[i] = printable.json(key) .. ":" .. encode(t[key], depth) end
  return "{" .. table.concat(out, ",") .. "}"
end

local function encode_table(t, depth)
  if depth >= DEPTH_MAX then error("nested too deeply", 0) end
  return (is_list(t) and encode_list or encode_object)(t, depth + 1)
end

local ENCODERS = {
  ["nil"] = function() return "null" end,
  boolean = tostring,
  number = encode_number,
  string = printable.json,
  table = encode_table,
}

function encode(value, depth)
  local encoder = ENCODERS[type(value)]
  if not encoder then error("a " .. type(value) .. " has no JSON form", 0) end
  return encoder(value, depth)
end

--- JSON text of a value made of tables, strings, finite numbers, booleans and nil.
---@param value any
---@return string? json
---@return string? message what cannot be written
function M.encode(value)
  local ok, text = pcall(encode, value, 0)
  if ok then return text end
  return nil, text
end

return M
