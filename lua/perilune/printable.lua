--- Makes any value safe to print: bounded, no control characters, valid UTF-8.
--- Nothing here calls a metamethod of a user's value.
local M = {}

local byte, format, sub = string.byte, string.format, string.sub

local SHORT = { [9] = "\\t", [10] = "\\n", [13] = "\\r" }

-- Bytes of a sequence by its lead byte, and the smallest code point that may take as many.
local function lead(b)
  if b >= 0xC2 and b <= 0xDF then return 2, b - 0xC0, 0x80 end
  if b >= 0xE0 and b <= 0xEF then return 3, b - 0xE0, 0x800 end
  if b >= 0xF0 and b <= 0xF4 then return 4, b - 0xF0, 0x10000 end
end

--- The UTF-8 sequence at `i`: its length in bytes and code point, or nil when it is not valid.
---@param s string
---@param i integer
---@return integer? length
---@return integer? code_point
function M.utf8_at(s, i)
  local b = byte(s, i)
  if b < 0x80 then return 1, b end
  local n, code, smallest = lead(b)
  if not n then return nil end
  for k = i + 1, i + n - 1 do
    local c = byte(s, k)
    if not c or c < 0x80 or c > 0xBF then return nil end
    code = code * 64 + (c - 0x80)
  end
  if code < smallest or code > 0x10FFFF or (code >= 0xD800 and code <= 0xDFFF) then return nil end
  return n, code
end

-- C1 controls, line separators, and the marks that reorder text on a terminal ("Trojan Source").
local function is_hidden(code)
  return code < 0x20 or (code >= 0x7F and code <= 0x9F) or code == 0x61C
    or (code >= 0x200B and code <= 0x200F) or (code >= 0x2028 and code <= 0x202E)
    or (code >= 0x2060 and code <= 0x2069) or code == 0xFEFF
end

--- What to print for the character at `i`: "\\n" or "\\x1b" for what must not reach a terminal, else itself.
---@param s string
---@param i integer
---@return string text
---@return integer length bytes of `s` it stands for
function M.char_at(s, i)
  local n, code = M.utf8_at(s, i)
  if not n then return format("\\x%02x", byte(s, i)), 1 end
  if not is_hidden(code) then return sub(s, i, i + n - 1), n end
  if code < 0x80 then return SHORT[code] or format("\\x%02x", code), n end
  return format("\\u{%x}", code), n
end

--- Escapes `s`; at most `max` bytes come out (default 1024), a cut one ends in "…".
--- Backslashes stay as they are, so that escaping twice changes nothing.
---@param s string
---@param max? integer
---@return string
function M.escape(s, max)
  max = max or 1024
  if #s <= max and not s:find("[^\32-\126]") then return s end
  local out, size, i, fits = {}, 0, 1, 0
  while i <= #s do
    local text, n = M.char_at(s, i)
    size = size + #text
    if size > max then
      for k = #out, fits + 1, -1 do out[k] = nil end
      return table.concat(out) .. "…"
    end
    out[#out + 1] = text
    if size <= max - #"…" then fits = #out end
    i = i + n
  end
  return table.concat(out)
end

--- `s` escaped and in double quotes, bounded.
---@param s string
---@param max? integer bytes inside of the quotes, default 60
---@return string
function M.quote(s, max)
  local escaped = M.escape(s, max or 60)
  return '"' .. escaped:gsub('"', '\\"') .. '"'
end

local function number_text(n)
  if n == math.floor(n) and math.abs(n) < 2 ^ 53 then return format("%d", n) end
  return format("%.14g", n)
end

local DESCRIBE = {
  ["nil"] = function() return "nothing" end,
  boolean = tostring,
  number = number_text,
  string = M.quote,
}

--- Names a value in an error message: `"abc"`, `12`, `a table`, `nothing`.
---@param value any
---@return string
function M.value(value)
  local describe = DESCRIBE[type(value)]
  if describe then return describe(value) end
  return "a " .. type(value)
end

--- A key of a table as users would write it: `limits`, `[1]`, `["a b"]`.
---@param key any
---@return string
function M.key(key)
  if type(key) == "string" then
    return #key <= 64 and key:find("^[%a_][%w_]*$") and key or M.quote(key)
  end
  return "[" .. M.value(key) .. "]"
end

return M
