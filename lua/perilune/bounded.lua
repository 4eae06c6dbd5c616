--- Functions whose result can be far larger than what they are given, for scripts: they refuse one that is over
--- the limit before it is made, and are LuaJIT's own otherwise, to the last error message.
---
--- What else a result may be larger by (numbers as text, escapes of %q, what a __tostring returns) is in proportion
--- to what is in memory already; that is left to the VM's allocator.
local M = {}

-- What is called in the end is called with all that was given, by a tail call: then messages are the same.
local getmetatable, rawget, select, tonumber, tostring, type = getmetatable, rawget, select, tonumber, tostring, type

-- Nothing that is made of so little reaches a limit: limits.memory is 4m at least.
local SMALL = 4096
local NUMBER_MAX = 512 -- bytes of a number, however it is formatted
local QUOTED_TIMES = 4 -- "\0" as "\000"

--- 5000000000 as "5,000,000,000".
local function commas(n)
  local digits = ("%.0f"):format(n)
  local head = (#digits - 1) % 3 + 1
  return digits:sub(1, head) .. digits:sub(head + 1):gsub("%d%d%d", ",%0")
end

local function size(bytes)
  local mib = bytes / 2 ^ 20
  if mib >= 1 and mib % 1 == 0 then return ("%d MiB"):format(mib) end
  return commas(bytes) .. " bytes"
end

--- Raises in the name of the caller's caller, or of whose level it is.
local function refuse(name, bytes, limit, level)
  local text = "%s: a result of %s bytes is over the memory limit of %s"
  error(text:format(name, commas(bytes), size(limit)), level or 3)
end

-- ---- string.rep ----

local function is_text(value) return type(value) == "string" or type(value) == "number" end

--- How large rep(s, n, separator) is; 0: nothing, or an error.
local function size_of_rep(s, n, separator)
  n = tonumber(n)
  if not (n and n > 0 and is_text(s) and (separator == nil or is_text(separator))) then return 0 end
  return #tostring(s) * n + (separator and #tostring(separator) * (n - 1) or 0)
end

-- rep() copies byte by byte, so that 100 MB take up to a quarter of a second; joining larger pieces takes a third.
local LARGE = 16 * 2 ^ 20
local SHORT_PIECE, PIECE = 4096, 65536
local join = table.concat

local function rep_in_pieces(rep, s, n, separator)
  local last = s
  n = n - n % 1
  if separator then s, n = s .. separator, n - 1 end
  local times = (PIECE - PIECE % #s) / #s
  local pieces, count, piece = {}, (n - n % times) / times, rep(s, times)
  for i = 1, count do pieces[i] = piece end
  pieces[count + 1] = rep(s, n % times)
  pieces[count + 2] = separator and last
  return join(pieces)
end

---@param limit fun(): integer
function M.rep(rep, limit)
  return function(...)
    local s, n, separator = ...
    if type(s) == "string" and type(n) == "number" and separator == nil and #s * n <= SMALL then return rep(s, n) end
    local bytes = size_of_rep(s, n, separator)
    if bytes > limit() then refuse("string.rep", bytes, limit()) end
    if bytes > LARGE and type(s) == "string" and type(n) == "number"
      and (separator == nil or type(separator) == "string") and #s + #(separator or "") <= SHORT_PIECE then
      return rep_in_pieces(rep, s, n, separator)
    end
    return rep(...)
  end
end

-- ---- string.format ----

--- Written out: it costs nothing where it is compiled, and a loop would.
local function are_small(n, ...)
  local a, b, c, d, e, f, g, h = ...
  if type(a) == "string" and #a > SMALL or type(b) == "string" and #b > SMALL
    or type(c) == "string" and #c > SMALL then return false end
  if n <= 3 then return true end
  return n <= 8 and not (type(d) == "string" and #d > SMALL or type(e) == "string" and #e > SMALL
    or type(f) == "string" and #f > SMALL or type(g) == "string" and #g > SMALL
    or type(h) == "string" and #h > SMALL)
end

--- No less than format(s, unpack(values, 1, n)) has.
local function most_of_format(s, n, values)
  local bytes = #s
  for i = 1, n do
    bytes = bytes + (type(values[i]) == "string" and QUOTED_TIMES * #values[i] or NUMBER_MAX)
  end
  return bytes
end

--- No more than it has, and nearly that: what is not known counts for nothing.
local function least_of_format(s, values)
  local bytes, at, i = 0, 1, 0
  for before, width, dot, precision, kind, after in s:gmatch("()%%[-+ #0]*(%d*)(%.?)(%d*)(.)()") do
    local len = 1 -- of "%%"
    if kind ~= "%" then
      i = i + 1
      len = type(values[i]) == "string" and #values[i] or 0
      if kind == "s" and dot ~= "" then len = math.min(len, tonumber(precision) or 0) end
      len = math.max(len, tonumber(width) or 0)
    end
    bytes, at = bytes + before - at + len, after
  end
  return bytes + #s + 1 - at
end

local function check_format(limit, s, ...)
  local n, values = select("#", ...), { ... }
  if most_of_format(s, n, values) <= limit then return end
  local bytes = least_of_format(s, values)
  if bytes > limit then refuse("string.format", bytes, limit, 4) end
end

---@param limit fun(): integer
function M.format(format, limit)
  return function(...)
    if not are_small(select("#", ...), ...) and type(...) == "string" then check_format(limit(), ...) end
    return format(...)
  end
end

-- ---- table.concat ----

local INDEX_MAX = 2 ^ 31

--- What LuaJIT makes of a number for an index; nil: nobody knows.
local function whole(n)
  n = tonumber(n)
  if not (n and n > -INDEX_MAX and n < INDEX_MAX) then return end
  return n - math.fmod(n, 1)
end

--- How large list[first] .. list[last] are together, but for numbers; up to what cannot be joined, where
--- LuaJIT will raise.
local function add_up(list, first, last, between)
  local bytes = 0
  for i = first, last do
    local value = rawget(list, i)
    if type(value) ~= "string" and type(value) ~= "number" then break end
    bytes = bytes + (type(value) == "string" and #value or 0) + (i > first and between or 0)
  end
  return bytes
end

--- No less than add_up() of all of a list without a metatable. Eight at a time: a loop of a turn or two is
--- unrolled where it is compiled, and costs nothing that can be measured; one of ten turns half as much as joining.
local function add_up_quickly(list, n, between)
  local bytes = n * between
  for i = 1, n, 8 do
    local a, b, c, d = list[i], list[i + 1], list[i + 2], list[i + 3]
    if type(a) == "string" then bytes = bytes + #a end
    if type(b) == "string" then bytes = bytes + #b end
    if type(c) == "string" then bytes = bytes + #c end
    if type(d) == "string" then bytes = bytes + #d end
    if d ~= nil then
      a, b, c, d = list[i + 4], list[i + 5], list[i + 6], list[i + 7]
      if type(a) == "string" then bytes = bytes + #a end
      if type(b) == "string" then bytes = bytes + #b end
      if type(c) == "string" then bytes = bytes + #c end
      if type(d) == "string" then bytes = bytes + #d end
    end
  end
  return bytes
end

-- Of a long list pieces are joined, and then these, so that it can be ended in between: numbers take 60 ns each. Only
-- where there is room for both.
local LONG_LIST, ITEMS = 65536, 16384
local NUMBER_TEXT = 24 -- bytes, the longest

local function concat_in_steps(concat, list, separator, first, last)
  local pieces = {}
  for i = first, last, ITEMS do
    pieces[#pieces + 1] = concat(list, separator, i, i + ITEMS > last and last or i + ITEMS - 1)
  end
  return concat(pieces, separator)
end

--- nil: it is not done so, or fails; then LuaJIT's own says what is wrong, and where.
local function join_long(concat, limit, bytes, list, separator, first, last)
  local n = last - first
  if n < LONG_LIST or 2 * (bytes + NUMBER_TEXT * n) >= limit then return end
  local ok, joined = pcall(concat_in_steps, concat, list, separator, first, last)
  return ok and joined or nil
end

---@param limit fun(): integer
function M.concat(concat, limit)
  return function(...)
    local list, separator, first, last = ...
    if type(list) ~= "table" or separator ~= nil and not is_text(separator) then
      return concat(...)
    end
    local between = separator == nil and 0 or type(separator) == "string" and #separator or #tostring(separator)
    if first == nil and last == nil and getmetatable(list) == nil then
      local n = #list
      local bytes = add_up_quickly(list, n, between)
      if bytes <= limit() then
        local joined = n > LONG_LIST and join_long(concat, limit(), bytes, list, separator, 1, n)
        if joined then return joined end
        return concat(list, separator)
      end
    end
    local i, j = first == nil and 1 or whole(first), last == nil and #list or whole(last)
    local bytes = i and j and add_up(list, i, j, between) or 0
    if bytes > limit() then refuse("table.concat", bytes, limit()) end
    local joined = i and j and join_long(concat, limit(), bytes, list, separator, i, j)
    if joined then return joined end
    return concat(...)
  end
end

-- ---- table.insert ----

--- LuaJIT takes each position, and moves all that is between that and the end: two thousand million places, and what is
--- no whole number of 32 bits counts as the first of them.
function M.insert(insert)
  return function(...)
    if select("#", ...) == 3 then
      local _, position = ...
      position = tonumber(position)
      if position and not (position > -1 and position < INDEX_MAX) then
        error("bad argument #2 to 'insert' (position out of bounds)", 2)
      end
    end
    return insert(...)
  end
end

-- ---- os.date ----

local FORMAT_MAX = 65536

--- LuaJIT tries the system's strftime() with ever larger buffers: a format of 100 MB takes 12 seconds.
function M.date(date)
  return function(...)
    local format = ...
    if type(format) == "string" and #format > FORMAT_MAX then
      error(("os.date: a format of %s bytes is over the limit of %s"):format(commas(#format), size(FORMAT_MAX)), 2)
    end
    return date(...)
  end
end

return M
