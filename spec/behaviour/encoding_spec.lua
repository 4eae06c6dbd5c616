--- perilune.encoding and perilune.crc, in handlers.
local has = require "spec.support.has"
local in_handler = require "spec.support.in_handler"
local memory = require "spec.support.memory"
local perilune = require "perilune"

local crc, encoding = perilune.crc, perilune.encoding

local ALL = {}
for i = 0, 255 do ALL[i + 1] = string.char(i) end
ALL = table.concat(ALL)

local function cases_of(cases, check)
  for _, case in ipairs(cases) do check(unpack(case)) end
end

describe("perilune.encoding", function()
  local evaluate

  before_each(function() evaluate = in_handler.open() end)
  after_each(memory.finish)

  it("writes base64 as RFC 4648 has it", function()
    cases_of({
      { "", "" }, { "f", "Zg==" }, { "fo", "Zm8=" }, { "foo", "Zm9v" }, { "foob", "Zm9vYg==" }, { "fooba", "Zm9vYmE=" },
      { "foobar", "Zm9vYmFy" },
    }, function(bytes, text)
      if text == "" then return assert.equal("(empty)", evaluate "encoding.encode_base64 ''") end
      assert.equal(text, evaluate(("encoding.encode_base64 %q"):format(bytes)))
      assert.equal(bytes, evaluate(("encoding.decode_base64 %q"):format(text)))
      local bare = text:gsub("=", "")
      assert.equal(bare, evaluate(("encoding.encode_base64(%q, false)"):format(bytes)))
      assert.equal(bare, evaluate(("encoding.encode_base64url %q"):format(bytes)))
      assert.equal(text, evaluate(("encoding.encode_base64url(%q, true)"):format(bytes)))
      assert.equal(bytes, evaluate(("encoding.decode_base64url %q"):format(bare)))
      assert.equal(bytes, evaluate(("encoding.decode_base64 %q"):format(bare)))
    end)
    assert.equal("+/+/|-_-_",
      evaluate [[encoding.encode_base64 "\251\255\191", encoding.encode_base64url "\251\255\191"]])
  end)

  it("gives back what it was given, of any length", function()
    for _, name in ipairs { "base64", "base64url", "hex", "url" } do
      for n = 0, 256 do
        local bytes = ALL:sub(1, n)
        assert.equal(bytes, encoding["decode_" .. name](encoding["encode_" .. name](bytes)), name)
      end
      local long = ALL:rep(1000) .. "end"
      assert.is_true(long == encoding["decode_" .. name](encoding["encode_" .. name](long)), name)
    end
  end)

  it("refuses what no encoder writes, and names the byte", function()
    cases_of({
      { "decode_base64", "Zg=", "misplaced padding at byte 3" }, { "decode_base64", "Zg===",
      "misplaced padding at byte 3" },
      { "decode_base64", "Z", "the text is cut short at byte 2" }, { "decode_base64", "Zm9vZ", "cut short at byte 6" },
      { "decode_base64", "Zm=v", "no character of the alphabet at byte 3" },
      { "decode_base64", "=", "misplaced padding at byte 1" },
      { "decode_base64", "Zm9v Zm9v", "cut short at byte 10" }, { "decode_base64", "Zm9v\nm9v", "alphabet at byte 5" },
      { "decode_base64", "Zm-v", "alphabet at byte 3" }, { "decode_base64url", "Zm+v", "alphabet at byte 3" },
      { "decode_base64", "Zh==", "bits that belong to no byte at byte 2" },
      { "decode_base64", "Zm9vZm9=", "bits that belong to no byte at byte 7" },
      { "decode_base64", ("Zm9v"):rep(20000) .. "Zm9\255", "alphabet at byte 80004" },
      { "decode_base64", ("Zm9v"):rep(10) .. "\128m9v" .. ("Zm9v"):rep(50000), "alphabet at byte 41" },
      { "decode_hex", "0g", "no hexadecimal digit at byte 2" }, { "decode_hex", "g0",
      "no hexadecimal digit at byte 1" },
      { "decode_hex", "abc", "half a byte at byte 3" }, { "decode_hex", "ab:", "no hexadecimal digit at byte 3" },
      { "decode_url", "%", "without two hexadecimal digits at byte 1" }, { "decode_url", "ab%2", "at byte 3" },
      { "decode_url", "%2G", "at byte 1" }, { "decode_url", "a%%41", "at byte 2" },
    }, function(name, text, expected)
      local bytes, message = encoding[name](text)
      assert.is_nil(bytes, text)
      has(expected, message)
    end)
  end)

  it("writes and reads hexadecimal digits, and percent signs", function()
    assert.equal("00ff7f", evaluate [[encoding.encode_hex "\0\255\127"]])
    assert.equal("true", evaluate [[encoding.decode_hex "00FfaB" == "\0\255\171"]])
    assert.equal("a-b_c.d~e%20%2F%3F%25%C3%A9%00", evaluate [[encoding.encode_url "a-b_c.d~e /?%é\0"]])
    assert.equal("a+b é/", evaluate [[encoding.decode_url "a+b%20%c3%A9/"]])
  end)

  it("raises where it is misused", function()
    has("encoding.encode_base64: the bytes: a string is expected, got no value", evaluate "encoding.encode_base64()")
    has("encoding.decode_hex: the text: a string is expected, got nil", evaluate "encoding.decode_hex(nil)")
    has("encoding.encode_base64: padded: a boolean is expected, got string",
      evaluate "encoding.encode_base64('a', 'url')")
    has("encoding.encode_hex takes one argument, not 2", evaluate "encoding.encode_hex('a', 'b')")
    has("encoding.encode_base64 takes two arguments at most, not 3", evaluate "encoding.encode_base64('a', true, 1)")
  end)
end)

describe("perilune.crc", function()
  after_each(memory.finish)

  -- The check values of the catalogues, of "123456789".
  local CHECKS = {
    arc = 0xBB3D, ibm = 0xBB3D, modbus = 0x4B37, usb = 0xB4C8, maxim = 0x44C2, umts = 0xFEE8, ["ccitt-false"] = 0x29B1,
    xmodem = 0x31C3, genibus = 0xD64E, ["aug-ccitt"] = 0xE5CC, kermit = 0x2189, mcrf4xx = 0x6F91, x25 = 0x906E,
    dnp = 0xEA82, en13757 = 0xC2B7,
  }

  it("has the check values of the catalogues, at once or continued", function()
    for name, expected in pairs(CHECKS) do
      assert.equal(expected, crc.crc16(name, "123456789"), name)
      for n = 0, 9 do
        local before = crc.crc16(name, ("123456789"):sub(1, n))
        assert.equal(expected, crc.crc16(name, ("123456789"):sub(n + 1), before), name)
      end
    end
    for name, expected in pairs { crc32 = 0xCBF43926, crc32c = 0xE3069283 } do
      assert.equal(expected, crc[name] "123456789")
      for n = 0, 9 do
        assert.equal(expected, crc[name](("123456789"):sub(n + 1), crc[name](("123456789"):sub(1, n))))
      end
      assert.equal(0, crc[name] "")
    end
    local all = ALL:rep(1000)
    assert.equal(crc.crc32c(all:sub(70001), crc.crc32c(all:sub(1, 70000))), crc.crc32c(all))
  end)

  it("answers in a handler, and raises where it is misused", function()
    local evaluate = in_handler.open()
    assert.equal("19255|3421780262", evaluate "crc.crc16('modbus', '123456789'), crc.crc32 '123456789'")
    has('did you mean "modbus"?', evaluate "crc.crc16('modbuss', '')")
    has("crc.crc32c: the data: a string is expected, got nil", evaluate "crc.crc32c(nil)")
    has("crc.crc32: the sum so far expects what the last call returned", evaluate "crc.crc32('', -1), 1")
    has("crc.crc16: the sum so far expects what the last call returned", evaluate "crc.crc16('arc', '', 65536), 1")
  end)
end)

describe("a library at hand", function()
  after_each(memory.finish)

  it("is read-only, as all libraries are", function()
    local evaluate = in_handler.open()
    has("perilune.crc.crc32 cannot be assigned", evaluate "(function() perilune.crc.crc32 = 1 end)()")
    has("cannot be assigned to", evaluate "rawset(perilune.encoding, 'encode_hex', 1)")
    has("perilune.crc cannot be assigned", evaluate "(function() perilune.crc = 1 end)()")
    assert.equal("perilune.crypto is read-only", evaluate "getmetatable(perilune.crypto)")
    assert.equal("nil", evaluate "perilune.protect")
    has("function", evaluate "rawget(perilune.crc, 'crc32')")
  end)

  it("is not made before it is asked for", function()
    local app = memory.script_lines [[
      function Agent:proceed(line)
        local found = {}
        for name in pairs(perilune) do if type(perilune[name]) == "table" then found[#found + 1] = name end end
        if line == "use" then return perilune.crc.crc32 "" .. "" end
        return table.concat(found, " ")
      end]]
    local client = app:connect()
    client:send("look"):expect("")
    client:send("use"):expect("0")
    client:send("look"):expect("crc")
  end)
end)
