--- Texts, and how they are shown: one table for the escaper in C (src/base/text.c), the one in Lua (perilune.printable,
--- perilune.json), and every place where a text leaves the process.
---
--- `line` is as one line for people, `lines` as several (where it differs), `json` as between the quotes of JSON;
--- without them a text is shown as it is. `is_utf8`: whether all of it is characters; true unless it says otherwise.
local function char(code)
  if code < 0x80 then return string.char(code) end
  local n = code < 0x800 and 1 or code < 0x10000 and 2 or 3
  local tail = ""
  for _ = 1, n do
    tail = string.char(0x80 + code % 0x40) .. tail
    code = math.floor(code / 0x40)
  end
  return string.char(({ 0xc0, 0xe0, 0xf0 })[n] + code) .. tail
end

---@class perilune.text_case
---@field name string
---@field bytes string
---@field line string
---@field lines string
---@field json string
---@field is_utf8 boolean

local CASES = {}

local function add(name, bytes, shown)
  shown = shown or {}
  local line = shown.line or bytes
  CASES[#CASES + 1] = {
    name = name, bytes = bytes, line = line, lines = shown.lines or line, json = shown.json or bytes,
    is_utf8 = shown.is_utf8 ~= false,
  }
end

local function hide(name, code)
  local json = ("\\u%04x"):format(code)
  if code > 0xffff then
    local rest = code - 0x10000
    json = ("\\u%04x\\u%04x"):format(0xd800 + math.floor(rest / 0x400), 0xdc00 + rest % 0x400)
  end
  local line = (code < 0x80 and "\\x%02x" or "\\u{%x}"):format(code)
  add(name, "a" .. char(code) .. "b", { line = "a" .. line .. "b", json = "a" .. json .. "b" })
end

local function break_up(name, bytes)
  local line = bytes:gsub("[\128-\255]", function(c) return ("\\x%02x"):format(c:byte()) end)
  add(name, bytes, { line = line, json = (line:gsub("\\", "\\\\")), is_utf8 = false })
end

add("nothing", "")
add("plain text", "hello, world")
add("two bytes a character", "caf\195\169")
add("three bytes", "\226\130\172 5")
add("four bytes", "\240\159\140\153")
add("the first and the last of each length", char(0xa1) .. char(0x7ff) .. char(0x800) .. char(0xffff) .. char(0x10000)
  .. char(0x10ffff))
add("beside the surrogates", char(0xd7ff) .. char(0xe000))
add("quotes", 'say "hi"', { json = 'say \\"hi\\"' })
add("a backslash", "a\\nb", { json = "a\\\\nb" })
add("a line feed", "a\nb", { line = "a\\nb", lines = "a\nb", json = "a\\nb" })
add("a tab", "a\tb", { line = "a\\tb", lines = "a\tb", json = "a\\tb" })
add("a carriage return", "a\rb", { line = "a\\rb", json = "a\\rb" })
hide("a zero byte", 0)
hide("a backspace", 8)
hide("ESC", 0x1b)
hide("the last of C0", 0x1f)
hide("DEL", 0x7f)
hide("the first of C1", 0x80)
hide("a next line", 0x85)
hide("CSI", 0x9b)
hide("the last of C1", 0x9f)
hide("a soft hyphen", 0xad)
hide("an Arabic letter mark", 0x61c)
hide("a Mongolian vowel separator", 0x180e)
hide("a space of no width", 0x200b)
hide("a joiner", 0x200d)
hide("a left-to-right mark", 0x200e)
hide("a separator of lines", 0x2028)
hide("a separator of paragraphs", 0x2029)
hide("a left-to-right embedding", 0x202a)
hide("a right-to-left override", 0x202e)
hide("a word joiner", 0x2060)
hide("a left-to-right isolate", 0x2066)
hide("a pop of isolates", 0x2069)
hide("a deprecated shaping", 0x206f)
hide("a byte order mark", 0xfeff)
hide("an annotation", 0xfff9)
hide("a tag", 0xe0041)
hide("a selector of variants", 0xe0100)
break_up("a continuation by itself", "a\128b")
break_up("a byte that begins nothing", "a\255b\254")
break_up("two bytes, cut", "a\195")
break_up("three bytes, cut after one", "a\226")
break_up("three bytes, cut after two", "a\226\130")
break_up("four bytes, cut", "a\240\159\140")
break_up("a sequence that a letter ends", "\226\130x")
break_up("a sequence that a quote ends", "\240\159'")
break_up("overlong, two bytes", "\192\175")
break_up("overlong, three bytes", "\224\128\175")
break_up("overlong, four bytes", "\240\128\128\175")
break_up("an overlong zero", "a\192\128")
break_up("a high surrogate as bytes", "\237\160\128")
break_up("a pair of surrogates as bytes", "\237\160\189\237\184\128")
break_up("past the last character", "\244\144\128\128")
break_up("five bytes", "\248\136\128\128\128")
break_up("CSI as one byte", "a\155" .. "31m")

return CASES
