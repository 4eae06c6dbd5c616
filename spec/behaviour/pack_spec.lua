--- string.pack, unpack and packsize: as Lua 5.3 has them, in the VM of handlers.
local has = require "spec.support.has"
local memory = require "spec.support.memory"
local vectors = require "spec.support.pack_vectors"

-- "x6162" → "ab", "12" → 12, 64 bits and all.
local function value_of(shown)
  if shown:sub(1, 1) == "x" then
    return (shown:sub(2):gsub("%x%x", function(byte) return string.char(tonumber(byte, 16)) end))
  end
  if shown == "true" then return true end
  if shown == "table" then return {} end
  if shown == "inf" or shown == "-inf" then return shown == "inf" and math.huge or -math.huge end
  if shown:find "^%-?nan$" then return 0 / 0 end
  local number = tonumber(shown)
  if not shown:find "^%-?%d+$" or math.abs(number) < 2 ^ 53 then return number end
  return loadstring("return " .. (shown == "-9223372036854775808" and "-9223372036854775807LL - 1" or shown .. "LL"))()
end

local function show(value)
  if type(value) == "string" then return "x" .. value:gsub(".", function(c) return ("%02x"):format(c:byte()) end) end
  if type(value) == "cdata" then return (tostring(value):gsub("U?LL$", "")) end
  if value ~= value then return "nan" end
  if value == math.floor(value) and math.abs(value) < 2 ^ 53 then return ("%d"):format(value) end
  return ("%.17g"):format(value)
end

-- Lua 5.3 tells 1.0 from 1, and a NaN's sign.
local function is_same(shown, value)
  local got = show(value)
  return got == shown or shown:find "^%-?nan$" and got == "nan"
    or type(value) == "number" and tonumber(shown) == value
end

local function call(name, ...) return { n = select("#", ...) + 1, pcall(string[name], ...) } end

local function message_of(text) return (tostring(text):gsub("^bad argument (#%d+) to '[^']*'", "bad argument %1")) end

-- What differs from the vector; nil: nothing.
local function difference(vector)
  local name, format, arguments, expected = unpack(vector)
  local values = {}
  for i, shown in ipairs(arguments) do values[i] = value_of(shown) end
  local results = { pcall(string[name], value_of(format), unpack(values, 1, #arguments)) }
  if type(expected) == "string" then
    local message = message_of(results[2])
    return (results[1] or message ~= expected) and message
  end
  if not results[1] then return tostring(results[2]) end
  if #results - 1 ~= #expected then return #results - 1 .. " results" end
  for i, shown in ipairs(expected) do
    if not is_same(shown, results[i + 1]) then return show(results[i + 1]) end
  end
end

describe("string.pack and its kin", function()
  after_each(memory.finish)

  it("answer as Lua 5.3 does", function()
    assert.is_true(#vectors > 1000)
    for _, vector in ipairs(vectors) do
      local differs = difference(vector)
      local arguments, expected = table.concat(vector[3], ", "), vector[4]
      assert.is_true(not differs, ("%s(%q, %s): %s, and not %s"):format(vector[1], value_of(vector[2]), arguments,
        tostring(differs), type(expected) == "table" and table.concat(expected, ", ") or expected))
    end
  end)

  it("give numbers up to 2^53, and integers of 64 bits beyond", function()
    for _, case in ipairs {
      { ">i8", "\0\31\255\255\255\255\255\255", 9007199254740991 },
      { ">i8", "\255\224\0\0\0\0\0\1", -9007199254740991 },
      { ">i8", "\0\32\0\0\0\0\0\0", 9007199254740992LL }, { ">i8", "\255\224\0\0\0\0\0\0", -9007199254740992LL },
      { ">I8", "\255\255\255\255\255\255\255\255", 18446744073709551615ULL },
      { ">I8", "\128\0\0\0\0\0\0\1", 9223372036854775809ULL },
      { ">i8", "\128\0\0\0\0\0\0\0", -9223372036854775807LL - 1 }, { ">I16", ("\0"):rep(8) .. ("\255"):rep(8), -1ULL },
    } do
      local value = string.unpack(case[1], case[2])
      assert.equal(tostring(case[3]), tostring(value))
      assert.is_true(value == case[3])
      assert.equal(case[2], string.pack(case[1], value))
    end
  end)

  it("take doubles of 2^63 and more where there is no sign", function()
    assert.equal("\128\0\0\0\0\0\0\0", string.pack(">I8", 2 ^ 63))
    has("no integer representation", tostring(call("pack", ">I8", 2 ^ 64)[2]))
    has("no integer representation", tostring(call("pack", ">i8", 2 ^ 63)[2]))
    has("integer overflow", tostring(call("pack", ">i8", 2 ^ 63 * 1ULL)[2]))
    has("unsigned overflow", tostring(call("pack", ">I4", 4294967296LL)[2]))
    has("number expected, got cdata", tostring(call("pack", ">I4", 1i)[2]))
  end)

  it("refuse a text that should end in a zero and does not", function()
    assert.equal("bad argument #2 (unfinished string for format 'z')", message_of(call("unpack", "z", "abc")[2]))
    assert.equal("bad argument #2 (unfinished string for format 'z')", message_of(call("unpack", "bz", "abc", 2)[2]))
    assert.same({ "abc", 5 }, { string.unpack("z", "abc\0") })
  end)

  it("give one NaN, whatever the bytes: another would be a value of another type", function()
    for _, bytes in ipairs { "\255\255\255\255\255\255\255\255", "\255\248\0\0\0\0\0\0",
      "\127\255\18\52\86\120\154\188", "\255\254\0\0\0\0\0\1", "\255\250\128\0\0\1\2\3" } do
      local value = string.unpack(">d", bytes)
      assert.is_true(type(value) == "number" and value ~= value)
      value = string.unpack(">f", bytes:sub(1, 4))
      assert.is_true(type(value) == "number" and (value ~= value))
    end
  end)

  it("give back what was packed, whatever the format", function()
    math.randomseed(7)
    local function random_bytes(n)
      local bytes = {}
      for i = 1, n do bytes[i] = string.char(math.random(0, 255)) end
      return table.concat(bytes)
    end
    local function integer(size, is_signed)
      local bytes = random_bytes(math.min(size, 8))
      return (string.unpack((is_signed and "<i" or "<I") .. #bytes, bytes))
    end
    local makers = {
      function() local n = math.random(1, 16) return "i" .. n, integer(n, true) end,
      function() local n = math.random(1, 16) return "I" .. n, integer(n, false) end,
      function() return "d", (math.random() - 0.5) * 2 ^ math.random(-1000, 1000) end,
      function() local n = math.random(2, 16) return "s" .. n, random_bytes(math.random(0, 300)) end,
      function() return "z", (random_bytes(math.random(0, 30)):gsub("%z", "x")) end,
      function() local n = math.random(0, 40) return "c" .. n, random_bytes(n) end,
      function() return "x" end, function() return "Xi4" end, function() return "<" end, function() return ">" end,
      function() return "!" .. 2 ^ math.random(0, 3) end, function() return " " end,
    }
    for _ = 1, 2000 do
      local format, values = { "!1" }, {}
      for _ = 1, math.random(0, 12) do
        local option, value = makers[math.random(#makers)]()
        -- Only sizes of a power of two can be aligned.
        if not option:find "^[iIs]%d" or ("1 2 4 8 16"):find("%f[%d]" .. option:match "%d+" .. "%f[%D]") then
          format[#format + 1], values[#values + 1] = option, value
        end
      end
      format = table.concat(format)
      local bytes = string.pack(format, unpack(values))
      local results = { string.unpack(format, bytes) }
      assert.equal(#values + 1, #results, format)
      for i, value in ipairs(values) do assert.equal(show(value), show(results[i]), format) end
      assert.equal(#bytes + 1, results[#results], format)
      if not format:find "[sz]" then assert.equal(#bytes, string.packsize(format), format) end
      -- Cut short, it is an error and nothing else, whatever the length.
      if #bytes > 0 then pcall(string.unpack, format, bytes:sub(1, math.random(0, #bytes - 1))) end
      pcall(string.unpack, format, random_bytes(math.random(0, 60)))
    end
  end)
end)

describe("string.pack of handlers", function()
  after_each(memory.finish)

  local function answer(expression, settings)
    local app = memory.script_lines(([[function Agent:proceed() return (%s) end
      function Agent:failed(err) return tostring(err) end]]):format(expression), settings)
    return app:connect():send("x"):receive(), app
  end

  it("is there, as a method of texts too", function()
    assert.equal("7 8", answer [[("%d %d"):format(("<i4 i2"):unpack(("<i4 i2"):pack(7, 8)))]])
    assert.equal("6", answer [[string.packsize "<i4 i2" .. ""]])
    assert.equal("-9223372036854775807LL", answer [[tostring((string.unpack(">i8", "\128\0\0\0\0\0\0\1")))]])
  end)

  it("makes nothing that is over limits.memory", function()
    for _, expression in ipairs { [[#string.pack("c2000000000", "")]], [[#string.pack(("c9000000"):rep(30), "", "", "",
      "", "", "", "", "", "", "", "", "", "", "", "", "", "", "", "", "", "", "", "", "", "", "", "", "", "", "")]] } do
      local said, app = answer(expression, [[limits = { memory = "64m" }]])
      has("string.pack: the result is over the memory limit of 64 MiB", said)
      assert.equal(1, #app:faults())
    end
  end)

  it("ends in time, however long its format", function()
    for _, expression in ipairs {
      [[string.packsize((" "):rep(3e7) .. "x")]], [[string.unpack(("<"):rep(3e7), "")]],
      [[#string.pack(("x"):rep(3e7))]],
    } do
      local app = memory.script_lines(([[
        function Agent:proceed() while true do local _ = %s end end]]):format(expression),
        [[limits = { memory = "512m", proceed = "20ms" }]])
      app:connect():send("x"):expect_closed("proceed_timeout")
    end
  end)
end)
