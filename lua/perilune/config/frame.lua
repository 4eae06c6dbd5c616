--- Reads `frame = …`: what users may write, to the one canonical description that the codecs take.
local printable = require "perilune.printable"
local suggest = require "perilune.suggest"
local units = require "perilune.units"

local M = {}

M.MAX_BYTES = 2 ^ 30       -- CODEC_FRAME_LIMIT
local DELIMITER_MAX = 32   -- CODEC_DELIMITER_MAX
local OFFSET_MAX = 64      -- CODEC_OFFSET_MAX
local ADJUST_MAX = 2 ^ 31 - 1
local DATAGRAM_MAX = 65507 -- DATAGRAM_BYTES_MAX

-- What is wrong where the framing and the address do not go together.
M.NO_DATAGRAMS = 'only a udp:// address has datagrams; for others name how bytes become frames, as frame = "line"'
M.ONLY_DATAGRAMS = 'each datagram of udp:// is a frame: leave `frame` out, or write "datagram" or '
  .. '{ "datagram", max = "1400b" }'

---@class perilune.frame
---@field kind "length"|"delimiter"|"line"|"fixed"|"netstring"|"raw"|"datagram"|"lua"
---@field max integer bytes of the largest frame
---@field empty "error"|"deliver"|"ignore" what to do with a frame of no bytes
---@field view boolean handlers get a view of the bytes instead of a string
---@field bytes integer? length: 1, 2, 3, 4, 8, or 0 for a varint
---@field endian "big"|"little"|nil length
---@field offset integer? length: bytes before the field
---@field adjust integer? length: added to the field's value
---@field delimiter string? delimiter: 1 to 32 bytes
---@field fixed integer? fixed: bytes of every frame
---@field decode function? lua
---@field encode function? lua

local quote, value_text = printable.quote, printable.value

local SHORT_LENGTHS = {
  u8 = { bytes = 1, endian = "big" },
  u16be = { bytes = 2, endian = "big" }, u16le = { bytes = 2, endian = "little" },
  u24be = { bytes = 3, endian = "big" },
  u32be = { bytes = 4, endian = "big" }, u32le = { bytes = 4, endian = "little" },
  u64be = { bytes = 8, endian = "big" },
  varint = { bytes = 0, endian = "big" },
}

-- The order decides between equally near suggestions.
local NAMES = {
  "u32be", "u8", "u16be", "u16le", "u24be", "u32le", "u64be", "varint",
  "line", "raw", "netstring", "delimiter", "fixed", "length", "datagram",
}

M.NAMES = NAMES

-- Options: each takes a value and gives the canonical one, or nil and what it expects.

local function whole(from, to)
  return function(value)
    if type(value) == "number" and value == math.floor(value) and value >= from and value <= to then
      return value
    end
    return nil, ("expects a whole number from %d to %d, got %s"):format(from, to, value_text(value))
  end
end

local function one_of(values, listed)
  return function(value)
    local canonical = value ~= nil and values[value]
    if canonical then return canonical end
    return nil, "expects " .. listed .. ", got " .. value_text(value)
  end
end

local function frame_size(value)
  local bytes, message = units.size(value)
  if not bytes then return nil, message end
  if bytes < 1 or bytes > M.MAX_BYTES then
    return nil, "expects a size from 1b to 1g, got " .. value_text(value)
  end
  return bytes
end

local function boolean(value)
  if type(value) == "boolean" then return value end
  return nil, "expects true or false, got " .. value_text(value)
end

local function delimiter(value)
  if type(value) == "string" and #value >= 1 and #value <= DELIMITER_MAX then return value end
  local got = type(value) == "string" and #value .. " bytes" or value_text(value)
  return nil, ('expects a text of 1 to %d bytes, as in { "delimiter", "\\0" }, got %s'):format(DELIMITER_MAX, got)
end

local function fixed_size(value)
  local bytes = frame_size(value)
  if bytes then return bytes end
  return nil, 'expects a size from 1b to 1g, as in { "fixed", 32 }, got ' .. value_text(value)
end

local function callback(value)
  if type(value) == "function" then return value end
  return nil, "expects a function, got " .. value_text(value)
end

local OPTIONS = {
  max = frame_size,
  view = boolean,
  empty = one_of({ error = "error", deliver = "deliver", ignore = "ignore" }, '"error", "deliver" or "ignore"'),
  bytes = one_of({ [1] = 1, [2] = 2, [3] = 3, [4] = 4, [8] = 8, varint = 0 }, '1, 2, 3, 4, 8 or "varint"'),
  endian = one_of({ big = "big", little = "little" }, '"big" or "little"'),
  offset = whole(0, OFFSET_MAX),
  adjust = whole(-ADJUST_MAX, ADJUST_MAX),
  delimiter = delimiter,
  fixed = fixed_size,
  decode = callback,
  encode = callback,
}

--- The options by name, of all kinds together.
M.OPTIONS = OPTIONS

-- Each kind: the options users may give by name, its defaults, the option at [2], options it cannot do without.
local SHORT_LENGTH = {
  kind = "length", allowed = { "max", "empty", "view", "offset", "adjust" },
  defaults = { empty = "error", offset = 0, adjust = 0 },
}
local KINDS = {
  length = {
    kind = "length", allowed = { "bytes", "endian", "offset", "adjust", "max", "empty", "view" },
    defaults = { empty = "error", bytes = 4, endian = "big", offset = 0, adjust = 0 },
  },
  delimiter = {
    kind = "delimiter", allowed = { "max", "empty", "view" },
    defaults = { empty = "deliver" }, second = "delimiter", required = { "delimiter" },
  },
  line = { kind = "line", allowed = { "max", "empty", "view" }, defaults = { empty = "deliver" } },
  netstring = { kind = "netstring", allowed = { "max", "empty", "view" }, defaults = { empty = "deliver" } },
  raw = { kind = "raw", allowed = { "max", "view" }, defaults = { empty = "deliver" } },
  datagram = { kind = "datagram", allowed = { "max", "empty", "view" }, defaults = { empty = "deliver" } },
  fixed = {
    kind = "fixed", allowed = { "view" }, defaults = { empty = "deliver" }, second = "fixed", required = { "fixed" },
  },
  lua = {
    kind = "lua", allowed = { "decode", "encode", "max" },
    defaults = { empty = "deliver" }, required = { "decode", "encode" },
  },
}

local EXPECTED = 'expects a name such as "u32be" or "line", or a table such as { "delimiter", "\\0" }, got '

-- "u16" says no order of its bytes.
local function name_hint(name)
  local big, little = name .. "be", name .. "le"
  if SHORT_LENGTHS[big] and SHORT_LENGTHS[little] then return (" (did you mean %q or %q?)"):format(big, little) end
  if SHORT_LENGTHS[big] then return (" (did you mean %q?)"):format(big) end
  return suggest.hint(name, NAMES)
end

-- nil, message for what names no framing.
local function kind_of(spec)
  local name = spec[1]
  if name == nil then
    if spec.decode ~= nil or spec.encode ~= nil then return KINDS.lua, "lua" end
    return nil, EXPECTED .. "a table without a name at [1]"
  end
  if type(name) ~= "string" then return nil, EXPECTED .. value_text(name) .. " at [1]" end
  local kind = SHORT_LENGTHS[name] and SHORT_LENGTH or (name ~= "lua" and KINDS[name])
  if not kind then return nil, "unknown framing " .. quote(name) .. name_hint(name) end
  return kind, name
end

local function contains(list, word)
  for _, item in ipairs(list) do
    if item == word then return true end
  end
  return false
end

local function sorted_keys(t)
  local keys = {}
  for key in next, t do keys[#keys + 1] = key end
  table.sort(keys, function(a, b) return printable.key(a) < printable.key(b) end)
  return keys
end

-- What the user's key sets: an option's name, or nil and a message; nothing for [1].
local function option_of(key, kind, name)
  if key == 1 and kind ~= KINDS.lua then return nil end
  if key == 2 and kind.second then return kind.second end
  if contains(kind.allowed, key) then return key end
  if OPTIONS[key] and key ~= "delimiter" and key ~= "fixed" then
    return nil, ("%q does not take the option %q"):format(name, key)
  end
  return nil, "unknown option " .. (type(key) == "string" and quote(key) or printable.key(key))
    .. suggest.hint(key, kind.allowed)
end

local function label(option, kind)
  if option == kind.second then return "" end
  return "option " .. quote(option) .. " "
end

local function read_options(spec, kind, name, out, messages)
  for _, key in ipairs(sorted_keys(spec)) do
    local option, message = option_of(key, kind, name)
    if option then
      local value
      value, message = OPTIONS[option](rawget(spec, key))
      out[option] = value
      message = message and label(option, kind) .. message
    end
    messages[#messages + 1] = message
  end
end

-- Options that exclude each other. `given` is what the user wrote.
local function check_together(out, given, messages)
  local function refuse(text) messages[#messages + 1] = text end
  if out.kind == "datagram" and (out.max or 0) > DATAGRAM_MAX then
    refuse(("option \"max\": a datagram has at most %d bytes"):format(DATAGRAM_MAX))
  end
  if out.kind ~= "length" then return end
  if out.bytes == 0 and given.endian ~= nil then refuse('option "endian" makes no sense with a varint') end
  if out.offset ~= 0 and out.view then refuse('option "offset" cannot be combined with "view"') end
end

local function check_required(spec, kind, out, messages)
  for _, option in ipairs(kind.required or {}) do
    local given = rawget(spec, option == kind.second and 2 or option)
    if out[option] == nil and given == nil then
      local _, message = OPTIONS[option](nil)
      messages[#messages + 1] = label(option, kind) .. message
    end
  end
end

local function canonical(spec, kind, name, frame_limit)
  local out, messages = { kind = kind.kind, view = false }, {}
  for option, value in pairs(kind.defaults) do out[option] = value end
  for option, value in pairs(SHORT_LENGTHS[name] or {}) do out[option] = value end
  read_options(spec, kind, name, out, messages)
  check_required(spec, kind, out, messages)
  check_together(out, spec, messages)
  if #messages > 0 then return nil, table.concat(messages, "; ") end
  out.max = out.max or out.fixed or (out.kind == "datagram" and math.min(frame_limit, DATAGRAM_MAX)) or frame_limit
  return out
end

--- Reads a framing.
---@param spec any what a script says: "u32be", { "delimiter", "\0" }, { decode = fn, encode = fn }, …
---@param frame_limit integer bytes: limits.frame of the listener, the default of `max`
---@return perilune.frame?
---@return string? message all that is wrong, joined by "; "
function M.parse(spec, frame_limit)
  if type(spec) == "string" then spec = { spec } end
  if type(spec) ~= "table" then return nil, EXPECTED .. value_text(spec) end
  local kind, name = kind_of({ rawget(spec, 1), decode = rawget(spec, "decode"), encode = rawget(spec, "encode") })
  if not kind then return nil, name end
  return canonical(spec, kind, name, frame_limit)
end

local function short_name(frame)
  if frame.bytes == 0 then return "varint" end
  if frame.bytes == 1 then return "u8" end
  return ("u%d%s"):format(frame.bytes * 8, frame.endian == "big" and "be" or "le")
end

local DETAILS = {
  length = function(frame)
    local text = short_name(frame)
    if frame.offset ~= 0 then text = text .. " offset=" .. frame.offset end
    if frame.adjust ~= 0 then text = text .. " adjust=" .. frame.adjust end
    return text
  end,
  delimiter = function(frame) return "delimiter " .. quote(frame.delimiter, 4 * DELIMITER_MAX) end,
  fixed = function(frame) return "fixed " .. frame.fixed end,
}

--- A canonical framing in one line: `u32be max=1m empty=error`.
---@param frame perilune.frame
---@return string
function M.describe(frame)
  local details = DETAILS[frame.kind]
  local text = (details and details(frame) or frame.kind) .. " max=" .. units.format_size(frame.max)
  if frame.kind ~= "raw" and frame.kind ~= "fixed" and frame.kind ~= "lua" then
    text = text .. " empty=" .. frame.empty
  end
  return text .. (frame.view and " view" or "")
end

return M
