--- perilune.deflate and perilune.inflate, in handlers.
local has = require "spec.support.has"
local in_handler = require "spec.support.in_handler"
local memory = require "spec.support.memory"
local perilune = require "perilune"

local deflate, inflate = perilune.deflate, perilune.inflate
local FORMATS = { "zlib", "gzip", "raw" }

-- Of letters that hardly repeat: a generator of its own, so that every run has the same.
local function noise(n)
  local bytes, state = {}, 1
  for i = 1, n do
    state = (state * 16807) % 2147483647
    bytes[i] = string.char(state % 256)
  end
  return table.concat(bytes)
end

local function refused(data, options)
  local bytes, message = inflate(data, options)
  assert.is_nil(bytes)
  return message
end

describe("perilune.deflate", function()
  after_each(memory.finish)

  it("makes what inflate takes, in every format and at every level", function()
    for _, text in ipairs { "", "a", ("hello "):rep(1000), noise(1000), noise(100000), ("\0"):rep(300000) } do
      for _, format in ipairs(FORMATS) do
        for _, level in ipairs { 0, 1, 6, 9 } do
          local bytes = deflate(text, { format = format, level = level })
          assert.is_true(text == inflate(bytes, { format = format }))
        end
      end
      assert.is_true(text == inflate(deflate(text)))
    end
    assert.is_true(#deflate(("hello "):rep(1000)) < 100)
    assert.is_true(#deflate(("hello "):rep(1000), { level = 0 }) > 6000)
  end)

  it("makes the formats that others read", function()
    local zlib, gzip = deflate "hello", deflate("hello", { format = "gzip" })
    assert.equal("\120\156", zlib:sub(1, 2))
    assert.equal("\31\139\8", gzip:sub(1, 3))
    assert.equal(deflate("hello", { format = "raw" }), zlib:sub(3, -5))
    assert.equal(perilune.crc.crc32 "hello", (string.unpack("<I4", gzip, -8)))
  end)

  -- Made by Python's zlib and gzip.
  it("takes what others make", function()
    local hex = perilune.encoding.decode_hex
    assert.equal("hello", inflate(hex "789ccb48cdc9c90700062c0215"))
    assert.equal("hello", inflate(hex "1f8b0800000000000003cb48cdc9c9070086a6103605000000", { format = "gzip" }))
    assert.equal("hello", inflate(hex "cb48cdc9c90700", { format = "raw" }))
  end)
end)

describe("perilune.inflate", function()
  after_each(memory.finish)

  it("tells what is cut short from what is broken, and from what has something behind it", function()
    for _, format in ipairs(FORMATS) do
      local options = { format = format }
      for _, text in ipairs { "hello", noise(3000) } do
        local bytes = deflate(text, options)
        for n = 0, #bytes - 1, #bytes > 100 and 97 or 1 do
          assert.equal("the data is cut short at byte " .. n + 1, refused(bytes:sub(1, n), options))
        end
        assert.equal("there is something behind the end at byte " .. #bytes + 1, refused(bytes .. "x", options))
        assert.equal("there is something behind the end at byte " .. #bytes + 1, refused(bytes .. bytes, options))
        local changed = bytes:sub(1, -2) .. string.char((bytes:byte(-1) + 1) % 256)
        if format ~= "raw" then has("the data is broken (incorrect", refused(changed, options)) end
      end
    end
    has("the data is broken (incorrect header check) at byte 3", refused "junk")
    has("the data is broken (invalid block type) at byte 2", refused("\7\7\7", { format = "raw" }))
    has("it needs a dictionary", refused "\120\187\6\44\2\21\203\0\17\0\6\44\2\21")
    has("incorrect header check", refused(deflate("a", { format = "gzip" })))
  end)

  it("bounds what comes of it, before it is there", function()
    local bomb = deflate(("\0"):rep(2 ^ 24 + 1))
    assert.equal("the data becomes more than 16777216 bytes", refused(bomb))
    assert.equal("the data becomes more than 1024 bytes", refused(bomb, { max = "1k" }))
    assert.equal("the data becomes more than 0 bytes", refused(deflate "a", { max = 0 }))
    assert.equal("", inflate(deflate "", { max = 0 }))
    for _, n in ipairs { 1, 4095, 4096, 4097, 65536, 100000 } do
      local text = ("a"):rep(n)
      assert.is_true(text == inflate(deflate(text), { max = n }))
      assert.equal(("the data becomes more than %d bytes"):format(n), refused(deflate(text .. "a"), { max = n }))
    end
    assert.equal(2 ^ 24 + 1, #inflate(bomb, { max = "17m" }))
  end)

  it("takes no more memory than that", function()
    local app = memory.script_lines([[
      local bomb = perilune.deflate(("\0"):rep(5e7), { level = 1 })
      function Agent:proceed(line)
        if line == "all" then return #perilune.inflate(bomb, { max = "100m" }) .. "" end
        return select(2, perilune.inflate(bomb, { max = "64k" }))
      end]], 'limits = { allocation = "1m" }')
    app:connect():send("some"):expect "the data becomes more than 65536 bytes"
    app:connect():send("all"):expect_closed "memory"
    app:connect():send("some"):expect "the data becomes more than 65536 bytes"
  end)

  it("ends with the budget of its handler, and the next call begins anew", function()
    local app = memory.script_lines([[
      local text = ("abc"):rep(1e7)
      local bomb = perilune.deflate(text, { level = 1 })
      function Agent:proceed(line)
        if line == "deflate" then return perilune.deflate(text, { level = 9 }) end
        if line == "inflate" then repeat local _ = pcall(perilune.inflate, bomb, { max = "100m" }) until false end
        return perilune.inflate(perilune.deflate(line))
      end]], 'limits = { proceed = "5ms" }')
    for _, what in ipairs { "deflate", "inflate" } do
      app:connect():send(what):expect_closed "proceed_timeout"
      app:connect():send("hello"):expect "hello"
    end
  end)

  it("raises where it is misused", function()
    local evaluate = in_handler.open()
    for expression, message in pairs {
      ["perilune.deflate()"] = "perilune.deflate: the data: a string is expected, got no value",
      ["perilune.deflate('', 9)"] = "perilune.deflate: the options: a table is expected, got number",
      ["perilune.deflate('', { level = 10 })"] = "perilune.deflate: level expects 0 to 9",
      ["perilune.deflate('', { format = 'zip' })"] = 'perilune.deflate: format expects "zlib", "gzip" or "raw"',
      ["perilune.deflate('', { max = 1 })"] = 'perilune.deflate: unknown option "max"',
      ["perilune.inflate('', { levle = 1 })"] = 'perilune.inflate: unknown option "levle"',
      ["perilune.inflate('', { formt = 1 })"] = 'did you mean "format"?',
      ["perilune.inflate('', { max = -1 })"] = "perilune.inflate: max expects a size",
    } do
      has(message, evaluate(expression .. ", nil"))
    end
    assert.equal("hello|nil|the data is cut short at byte 1", evaluate
      "(perilune.inflate(perilune.deflate 'hello')), perilune.inflate ''")
  end)
end)
