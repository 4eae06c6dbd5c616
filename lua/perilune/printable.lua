--- Makes any value safe to print: bounded, no control characters, valid UTF-8.
--- Nothing here calls a metamethod of a user's value. Texts are escaped by the rules of src/base/text.c: one table of
--- cases, spec/support/text_cases.lua, holds both to them.
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

-- From, to: controls, separators of lines, what takes no room, and the marks that reorder text on a terminal
-- ("Trojan Source"). Ascending; src/base/text.c has the same.
local HIDDEN = {
  0x00, 0x1f, 0x7f, 0x9f, 0xad, 0xad, 0x61c, 0x61c, 0x180e, 0x180e, 0x200b, 0x200f, 0x2028, 0x202e, 0x2060, 0x206f,
  0xfeff, 0xfeff, 0xfff9, 0xfffb, 0xe0000, 0xe0fff,
}

local function is_hidden(code)
  for i = 1, #HIDDEN, 2 do
    if code < HIDDEN[i] then return false end
    if code <= HIDDEN[i + 1] then return true end
  end
  return false
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

--- Of any length, and of several lines: line feeds and tabs stay.
---@param s string
---@return string
function M.lines(s)
  return (s:gsub("[^\n\t]+", function(part) return M.escape(part, math.huge) end))
end

--- `s` escaped and in double quotes, bounded.
---@param s string
---@param max? integer bytes inside of the quotes, default 60
---@return string
function M.quote(s, max)
  local escaped = M.escape(s, max or 60)
  return '"' .. escaped:gsub('"', '\\"') .. '"'
end

local function json_unit(code) return format("\\u%04x", code) end

local function json_char(s, i)
  local n, code = M.utf8_at(s, i)
  if not n then return format("\\\\x%02x", byte(s, i)), 1 end
  if code == 34 or code == 92 then return "\\" .. sub(s, i, i), 1 end
  if not is_hidden(code) then return sub(s, i, i + n - 1), n end
  if SHORT[code] then return SHORT[code], 1 end
  if code < 0x10000 then return json_unit(code), n end
  code = code - 0x10000
  return json_unit(0xd800 + math.floor(code / 0x400)) .. json_unit(0xdc00 + code % 0x400), n
end

--- `s` as a JSON string, in its quotes. JSON is made of characters: a byte that belongs to none is the text `\xff`.
---@param s string
---@return string
function M.json(s)
  if not s:find('[%c"\\\128-\255]') then return '"' .. s .. '"' end
  local out, i = {}, 1
  while i <= #s do
    local text, n = json_char(s, i)
    out[#out + 1] = text
    i = i + n
  end
  return '"' .. table.concat(out) .. '"'
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
