--- Makes pack_vectors.lua: what Lua 5.3 answers to calls of string.pack, unpack and packsize. Run by nothing but hand:
---
---     lua5.3 spec/support/make_pack_vectors.lua > spec/support/pack_vectors.lua
---
--- Each vector is the function, the format, its other arguments and its results: strings as hexadecimal text behind an
--- "x", numbers as text, 64 bits and all; or the message.
local vectors = {}

local function show(value)
  if type(value) == "string" then return "x" .. value:gsub(".", function(c) return ("%02x"):format(c:byte()) end) end
  if math.type(value) ~= "float" then return type(value) == "table" and "table" or tostring(value) end
  if value ~= value then return "nan" end
  return ("%.17g"):format(value)
end

local function list(values, n)
  local shown = {}
  for i = 1, n do shown[i] = ("%q"):format(show(values[i])) end
  return "{ " .. table.concat(shown, ", ") .. " }"
end

-- Without the function's name, which depends on how it was called.
local function message_of(text) return (tostring(text):gsub("^bad argument (#%d+) to '[^']*'", "bad argument %1")) end

local function add(name, format, ...)
  local arguments, results = table.pack(...), table.pack(pcall(string[name], format, ...))
  local outcome = results[1] and list({ table.unpack(results, 2, results.n) }, results.n - 1)
    or ("%q"):format(message_of(results[2]))
  vectors[#vectors + 1] = ("  { %q, %q, %s, %s },"):format(name, show(format), list(arguments, arguments.n), outcome)
  return results[1] and results[2]
end

-- Packs, and unpacks what comes of it.
local function both(format, ...)
  local bytes = add("pack", format, ...)
  if bytes then add("unpack", format, bytes) end
end

local ORDERS = { "<", ">" }
local INTEGERS = {
  0, -1, 127, 128, -128, -129, 255, 256, 32767, 32768, -32769, 65535, 65536, 8388608, 16777215, 2147483647,
  2147483648, -2147483648, -2147483649, 4294967295, 4294967296, 0x1fffffffffffff, 0x20000000000001, -0x20000000000001,
  math.maxinteger, math.mininteger,
}

for _, order in ipairs(ORDERS) do
  for _, option in ipairs(order == "<" and { "b", "B", "h", "H", "i", "I", "l", "L", "j", "J", "T", "i7", "I9", "i16" }
    or { "i3", "I3", "i9", "I7" }) do
    for _, value in ipairs(INTEGERS) do
      -- A value of 2^63 or more is unsigned here, and negative to Lua.
      local is_lost = value < 0 and option:find "[JLTI]" and not option:find "[37]" and option ~= "I"
      if is_lost then add("pack", order .. option, value) else both(order .. option, value) end
    end
  end
  for _, value in ipairs { 0.0, 1.5, -2.25, 1e300, -1e-300, 1 / 0, -1 / 0, 0 / 0, 3.4028234663852886e38, 1 / 3 } do
    for _, option in ipairs { "f", "d", "n" } do both(order .. option, value) end
  end
  for _, text in ipairs { "", "a", "hello", "a\0b" } do
    for _, option in ipairs { "s", "s1", "s2", "s3", "s8", "z", "c5", "c0", "c12" } do both(order .. option, text) end
  end
end

both("s1", ("x"):rep(255))
both("s1", ("x"):rep(256))

for n = 1, 16 do both("<i" .. n, -2) both(">I" .. n, 200) both("<s" .. n, "text") end

-- Alignment and padding.
for _, format in ipairs { "<!4 b i4", "<!4 i4 b", "<!8 b Xi8 b", "<!2 b i4", "<! b d", "<!1 b i8", "<b x b",
  "<!4 b Xi2 b", "<!16 b i16", "<!4 b s4", ">!4 b i2 b i4", "<b<i2>i2=i2", "  < i2 ", "<!8 b Xd Xf b",
  "<!4 h Xi3 b" } do
  add("packsize", format)
  both(format, 1, 2, 3, 4)
  both(format, 1, "text", 3, 4)
  add("unpack", format, ("\1\2\3\4"):rep(20))
  add("unpack", format, ("\1\2\3\4"):rep(20), 2)
end

-- Conversions of arguments.
for _, value in ipairs { "10", " 0x10 ", "1e2", "x", "", 1.0, 1.5, 2.0 ^ 53, 2.0 ^ 63, -2.0 ^ 63, 1 / 0, 0 / 0 } do
  add("pack", "<i8", value)
  add("pack", "<d", value)
end
for _, value in ipairs { 12, -3.5 } do add("pack", "<z", value) end

-- Errors.
for _, format in ipairs { "i17", "i0", "I99", "s17", "s0", "!17", "!0", "i99999999999", "c", "y", "\1", "\127", "%",
  "é", "X", "Xz", "X ", "Xc1", "X!4", "Xs", "!3i4", "!8 i3", "!6 i6", "c2147483647", "b9", "Xx" } do
  add("packsize", format)
  add("pack", format, 1)
  add("unpack", format, ("\0"):rep(32))
end
for _, format in ipairs { "s", "z", "i4 z", "bs1", "c2147483639", "c2147483639c10" } do add("packsize", format) end
for _, format in ipairs { "i", "f", "z", "s", "c3", "bb" } do
  add("pack", format)
  add("pack", format, true)
  add("pack", format, {})
  if format ~= "z" then add("unpack", format, "") end -- an error here, as in Lua 5.4
end
for _, at in ipairs { 1, 2, 3, 4, 5, 0, -1, -3, -4, 100, -100, math.maxinteger, math.mininteger, 1.5, 2.0 } do
  add("unpack", "b", "abc", at)
  add("unpack", "", "abc", at)
end
for _, bytes in ipairs { "", "\5", "\5abcd", "\5abcde", "\5abcdef" } do add("unpack", "s1", bytes) end
for _, bytes in ipairs { ("\255"):rep(8), "\255\255\255\255\255\255\255\127", "\5\0\0\0\0\0\0\0abcde" } do
  if bytes ~= ("\255"):rep(8) then add("unpack", "<s8", bytes) end
end
for _, top in ipairs { "\0", "\1", "\255" } do
  for _, option in ipairs { "i", "I" } do
    add("unpack", "<" .. option .. "9", ("\0"):rep(8) .. top)
    add("unpack", "<" .. option .. "16", "\1" .. ("\0"):rep(7) .. top:rep(8))
    add("unpack", ">" .. option .. "10", top:rep(2) .. "\127" .. ("\255"):rep(7))
  end
end
add("unpack", "z", "abc\0def")
add("unpack", "<i2i2 z b", "\1\0\2\0ab\0\7", 1)

print(([[
--- What Lua 5.3 answers to calls of string.pack, unpack and packsize. Made by make_pack_vectors.lua, with %s.
-- luacheck: no max line length
return {
%s
}]]):format("Lua 5.3.6", table.concat(vectors, "\n")))
