--- Sizes ("64k" → bytes) and durations ("5m" → milliseconds), both ways; whole numbers and flags of options.
local printable = require "perilune.printable"

local M = {}

--- Larger numbers are no longer exact, so they are refused.
M.MAX = 2 ^ 53

local SIZE_UNITS = { [""] = 1, b = 1, k = 1024, m = 1024 ^ 2, g = 1024 ^ 3 }
local DURATION_UNITS = { [""] = 1000, ms = 1, s = 1000, m = 60e3, h = 3600e3, d = 86400e3 }

local SIZE_EXPECTED = 'expects a size such as 4096, "64k" or "1m", got '
local DURATION_EXPECTED = 'expects a duration such as 10, "10s" or "5m", got '

-- What people write who know other units.
local OTHER_DURATIONS = {
  min = "m", mins = "m", minute = "m", minutes = "m", sec = "s", secs = "s", second = "s", seconds = "s",
  hr = "h", hrs = "h", hour = "h", hours = "h", day = "d", days = "d", msec = "ms", msecs = "ms", millis = "ms",
  millisecond = "ms", milliseconds = "ms",
}
local OTHER_SIZES = {
  kb = "k", kib = "k", ki = "k", mb = "m", mib = "m", mi = "m", gb = "g", gib = "g", gi = "g", byte = "b", bytes = "b",
}

-- ` (did you mean "5m"?)` for "5min"; "" where nothing is near.
local function hint(value, others)
  if type(value) ~= "string" or #value > 32 then return "" end
  local digits, unit = value:match "^%s*(%d+%.?%d*)%s*(%a+)%s*$"
  local meant = digits and others[unit:lower()]
  return meant and (' (did you mean "%s%s"?)'):format(digits, meant) or ""
end

-- nil when value is neither a number nor a text with one of the units.
local function scaled(value, units, number_unit)
  if type(value) == "number" then return value * number_unit end
  if type(value) ~= "string" or #value > 32 then return nil end
  local digits, unit = value:match("^%s*(%d+%.?%d*)%s*(%a*)%s*$")
  local factor = digits and units[unit:lower()]
  return factor and tonumber(digits) * factor
end

-- NaN fails every comparison, so it is refused too.
local function in_range(n) return n and n >= 0 and n <= M.MAX end

--- Bytes of a size: a plain whole number, or text with b, k, m or g (1k = 1024).
---@param value any
---@return integer? bytes
---@return string? message
function M.size(value)
  local bytes = scaled(value, SIZE_UNITS, 1)
  if not in_range(bytes) or bytes ~= math.floor(bytes) then
    return nil, SIZE_EXPECTED .. printable.value(value) .. hint(value, OTHER_SIZES)
  end
  return bytes
end

--- Milliseconds of a duration: a number of seconds (may be fractional), or text with ms, s, m, h or d.
--- 0 and false give 0, which means off; anything shorter than a millisecond but not 0 gives 1.
---@param value any
---@return integer? milliseconds
---@return string? message
function M.duration(value)
  if value == false then return 0 end
  local ms = scaled(value, DURATION_UNITS, 1000)
  if not in_range(ms) then return nil, DURATION_EXPECTED .. printable.value(value) .. hint(value, OTHER_DURATIONS) end
  if ms > 0 and ms < 1 then return 1 end
  return math.floor(ms + 0.5)
end

-- The largest unit that divides n, so that nothing is lost.
local function exact(n, units)
  for _, unit in ipairs(units) do
    if n % unit[1] == 0 then return string.format("%.0f%s", n / unit[1], unit[2]) end
  end
end

local SIZE_STEPS = { { 1024 ^ 3, "g" }, { 1024 ^ 2, "m" }, { 1024, "k" }, { 1, "b" } }
local DURATION_STEPS = { { 86400e3, "d" }, { 3600e3, "h" }, { 60e3, "m" }, { 1000, "s" }, { 1, "ms" } }

--- What reads whole numbers of a range: it returns the number, or nil and a message.
---@param from integer
---@param to integer
---@return fun(value: any): integer?, string?
function M.whole(from, to)
  return function(value)
    if type(value) == "number" and value >= from and value <= to and value == math.floor(value) then return value end
    return nil, ("expects a whole number from %d to %d, got %s"):format(from, to, printable.value(value))
  end
end

--- A boolean; or nil and a message.
---@param value any
---@return boolean?
---@return string?
function M.flag(value)
  if type(value) == "boolean" then return value end
  return nil, "expects true or false, got " .. printable.value(value)
end

--- 1048576 → "1m". Exact: size(format_size(n)) == n.
---@param bytes integer
---@return string
function M.format_size(bytes)
  if bytes == 0 then return "0b" end
  return exact(bytes, SIZE_STEPS)
end

--- 90000 → "90s", 0 → "off". Exact: duration(format_duration(n)) == n, but for 0.
---@param ms integer
---@return string
function M.format_duration(ms)
  if ms == 0 then return "off" end
  return exact(ms, DURATION_STEPS)
end

return M
