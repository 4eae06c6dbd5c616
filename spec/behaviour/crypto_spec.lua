--- perilune.crypto, in handlers.
local has = require "spec.support.has"
local in_handler = require "spec.support.in_handler"
local memory = require "spec.support.memory"
local perilune = require "perilune"

local crypto, encoding = perilune.crypto, perilune.encoding

local function hex(bytes) return encoding.encode_hex(bytes) end
local function bytes(digits) return assert(encoding.decode_hex((digits:gsub("%s", "")))) end

local function pem(label, der)
  return ("-----BEGIN %s-----\n%s\n-----END %s-----\n"):format(label, encoding.encode_base64(der), label)
end

-- RFC 8032, section 7.1, the second test.
local ED_PUBLIC = pem("PUBLIC KEY", bytes "302a300506032b6570032100"
  .. bytes "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c")
local ED_PRIVATE = pem("PRIVATE KEY", bytes "302e020100300506032b657004220420"
  .. bytes "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
local ED_SIGNATURE = bytes [[92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da
  085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00]]

-- Made with openssl, for this file: a key of P-256, what it has signed with SHA-256, and a key of RSA.
local EC_PRIVATE = [[
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgHFzK3VdfmzrENJ6O
B2oQ4I9+iaLzBQVfZ7trDua9CpChRANCAARMgQxoWf5JYiPha3fNESPvPDaCJH5a
fPn3V/Q5f0+oqSu+s1XvHQeYA35mPDuqKRt0TgTVjcQwPeyIbmYsIQIb
-----END PRIVATE KEY-----
]]
local EC_PUBLIC = [[
-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAETIEMaFn+SWIj4Wt3zREj7zw2giR+
Wnz591f0OX9PqKkrvrNV7x0HmAN+Zjw7qikbdE4E1Y3EMD3siG5mLCECGw==
-----END PUBLIC KEY-----
]]
local EC_SIGNATURE = bytes [[304502207268331451dac0a501eb933fe687e0c6767b46c1280329764c0ae3cb828d1b0b
  022100e7195fe0ba87c5ba0ab6d9863bb6b15855f5e2874d4fc77bb98e7a25a21262c9]]
local RSA_PUBLIC = [[
-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEArRYgZWP4YnV7xX/5V+8f
fDZcxdhxEtO9DRIws/RfmxL6LIQc7TjwVQcQ8j5nFxKnQUm40shLn2QYezjGNc/l
zSrLTHmSBcUoP5A8ndWZgRYfMv+q1RYRyoDE/czgj5fWgXRtublekuz3qZowOlxw
d9xFrSbd64RpC0WU3d8kfyqvhqL3Zzxk+bgQTDeaOt5KuhJF+QDgP0zXgzSMnEu2
FVb0v41C9tf/eYInFzA85u4xYBRxzwi4+qXnVOs1qtrPxptS9sfvLrLyru4T49wx
iwuFgauyrxWfwhVKQk1texRpw9LWQVpIFOaZYmcJwBspUcjXcnxe/yj095gbY/l1
NQIDAQAB
-----END PUBLIC KEY-----
]]

describe("perilune.crypto", function()
  after_each(memory.finish)

  it("has the digests of the standards' examples", function()
    for name, digest in pairs {
      md5 = "900150983cd24fb0d6963f7d28e17f72", sha1 = "a9993e364706816aba3e25717850c26c9cd0d89d",
      sha224 = "23097d223405d8228642a477bda255b32aadbce4bda0b3f7e36c9da7",
      sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
      sha384 = "cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed8086072ba1e7cc2358baeca134c825a7",
      sha512 = "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a"
        .. "2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
    } do
      assert.equal(digest, hex(crypto.digest(name, "abc")))
    end
    assert.equal("cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0",
      hex(crypto.digest("sha256", ("a"):rep(1000000))))
  end)

  -- RFC 4231: 1, 2, 6.
  it("has the keyed digests of the standards' examples", function()
    for _, case in ipairs {
      { ("\11"):rep(20), "Hi There", "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7" },
      { "Jefe", "what do ya want for nothing?", "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843" },
      { ("\170"):rep(131), "Test Using Larger Than Block-Size Key - Hash Key First",
        "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54" },
    } do
      assert.equal(case[3], hex(crypto.hmac("sha256", case[1], case[2])))
    end
    assert.equal("effcdf6ae5eb2fa2d27416d5f184df9c259a7c79",
      hex(crypto.hmac("sha1", "Jefe", "what do ya want for nothing?")))
    assert.equal("80b24263c7c1a3ebb71493c1dd7be8b49b46d1f41b4aeec1121b013783f8f352"
      .. "6b56d037e05f2598bd0fd2215d6a1e5295e64f73f63f0aec8b915a985d786598",
      hex(crypto.hmac("sha512", ("\170"):rep(131), "Test Using Larger Than Block-Size Key - Hash Key First")))
    local long = ("0123456789"):rep(20000)
    local short = crypto.digest("sha256", long)
    assert.equal(hex(crypto.hmac("sha256", short, long)), hex(crypto.hmac("sha256", long, long)))
  end)

  it("compares", function()
    for _, case in ipairs { { "", "", true }, { "a", "a", true }, { "a", "b", false }, { "a", "ab", false } } do
      assert.equal(case[3], crypto.equal(case[1], case[2]))
    end
    local long = ("a"):rep(3 * 2 ^ 20)
    assert.is_true(crypto.equal(long, long .. ""))
    assert.is_false(crypto.equal(long .. "b", long .. "c"))
    assert.is_false(crypto.equal("b" .. long, "c" .. long))
  end)

  it("gives random bytes and identifiers", function()
    for _, n in ipairs { 0, 1, 16, 1024, 1025, 2 ^ 20 } do assert.equal(n, #crypto.random(n)) end
    assert.is_true(crypto.random(16) ~= crypto.random(16))
    assert.matches("^%x%x%x%x%x%x%x%x%-%x%x%x%x%-4%x%x%x%-[89ab]%x%x%x%-%x%x%x%x%x%x%x%x%x%x%x%x$", crypto.uuid())
    assert.is_true(crypto.uuid() ~= crypto.uuid())
  end)

  it("gives identifiers that begin with the time, an app's own in memory", function()
    local evaluate, app = in_handler.open()
    local function ms_of(uuid)
      local a, b, rest = uuid:match "^(%x+)%-(%x%x%x%x)%-7(%x%x%x%-[89ab]%x%x%x%-%x+)$"
      assert.truthy(rest, uuid)
      return tonumber(a .. b, 16)
    end
    local before = ms_of(evaluate "crypto.uuid(7)")
    assert.equal(1767225600, math.floor(before / 1000)) -- the first second of 2026
    app:advance(5)
    local passed = ms_of(evaluate "crypto.uuid(7)") - before
    assert.is_true(passed >= 5000 and passed < 5100, passed)
  end)

  -- The Galois/Counter Mode of Operation, McGrew and Viega: test cases 2, 4, 14.
  it("seals and opens, as the standard's examples", function()
    local data = bytes [[d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e24
      49a6b525b16aedf5aa0de657ba637b39]]
    for _, case in ipairs {
      { ("\0"):rep(16), ("\0"):rep(12), ("\0"):rep(16), "", [[0388dace60b6a392f328c2b971b2fe78
        ab6e47d42cec13bdf53a67b21257bddf]] },
      { bytes "feffe9928665731c6d6a8f9467308308", bytes "cafebabefacedbaddecaf888", data,
        bytes "feedfacedeadbeeffeedfacedeadbeefabaddad2", [[42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e0
        35c17e2329aca12e21d514b25466931c7d8f6a5aac84aa051ba30b396a0aac973d58e0915bc94fbc3221a5db94fae95ae7121a47]] },
      { ("\0"):rep(32), ("\0"):rep(12), ("\0"):rep(16), "", [[cea7403d4d606b6e074ec5d3baf39d18
        d0d1c8a799996bf0265b98b5d48ab919]] },
    } do
      local key, nonce, text, aside, expected = unpack(case)
      local sealed = crypto.seal(key, nonce, text, aside)
      assert.equal(hex(bytes(expected)), hex(sealed))
      assert.equal(text, crypto.open(key, nonce, sealed, aside))
    end
  end)

  it("does not open what was changed", function()
    local key, nonce = ("k"):rep(24), ("n"):rep(12)
    local long = ("0123456789"):rep(30000)
    local sealed = crypto.seal(key, nonce, long, "aside")
    assert.is_true(long == crypto.open(key, nonce, sealed, "aside"))
    for _, case in ipairs {
      { key, nonce, sealed, "other" }, { key, nonce, sealed }, { key, ("m"):rep(12), sealed, "aside" },
      { ("l"):rep(24), nonce, sealed, "aside" }, { key, nonce, sealed:sub(1, -2) .. "x", "aside" },
      { key, nonce, "x" .. sealed:sub(2), "aside" }, { key, nonce, sealed:sub(1, -2), "aside" },
    } do
      local text, message = crypto.open(unpack(case))
      assert.is_nil(text)
      has("the seal is broken", message)
    end
    local text, message = crypto.open(key, nonce, ("x"):rep(15))
    assert.is_nil(text)
    has("too short", message)
  end)

  it("signs and verifies with Ed25519", function()
    assert.equal(hex(ED_SIGNATURE), hex(crypto.sign(ED_PRIVATE, "\114")))
    for _ = 1, 2 do -- the second time the key is known
      assert.is_true(crypto.verify(ED_PUBLIC, "\114", ED_SIGNATURE))
      assert.is_false(crypto.verify(ED_PUBLIC, "\115", ED_SIGNATURE))
      assert.is_false(crypto.verify(ED_PUBLIC, "\114", ED_SIGNATURE:sub(2)))
      assert.is_false(crypto.verify(ED_PUBLIC, "\114", ""))
      collectgarbage()
    end
  end)

  it("signs and verifies with keys of elliptic curves", function()
    assert.is_true(crypto.verify(EC_PUBLIC, "hello", EC_SIGNATURE))
    assert.is_true(crypto.verify(EC_PUBLIC, "hello", EC_SIGNATURE, "sha256"))
    assert.is_false(crypto.verify(EC_PUBLIC, "hello", EC_SIGNATURE, "sha384"))
    assert.is_false(crypto.verify(EC_PUBLIC, "Hello", EC_SIGNATURE))
    assert.is_false(crypto.verify(EC_PUBLIC, "hello", "no signature"))
    local long = ("0123456789"):rep(30000)
    for _, digest in ipairs { "sha256", "sha512" } do
      assert.is_true(crypto.verify(EC_PUBLIC, long, crypto.sign(EC_PRIVATE, long, digest), digest))
    end
  end)

  it("says which keys it does not take", function()
    for _, case in ipairs {
      { RSA_PUBLIC, "neither Ed25519 nor of an elliptic curve" }, { "", "no public key in PEM" },
      { ED_PRIVATE, "no public key in PEM" }, { ("x"):rep(100000), "no public key in PEM" },
    } do
      local is_right, message = crypto.verify(case[1], "", "")
      assert.is_nil(is_right)
      has(case[2], message)
    end
    local signature, message = crypto.sign(ED_PUBLIC, "")
    assert.is_nil(signature)
    has("no private key in PEM", message)
  end)

  it("answers in a handler, and raises where it is misused", function()
    local evaluate = in_handler.open()
    assert.equal("900150983cd24fb0d6963f7d28e17f72", evaluate "encoding.encode_hex(crypto.digest('md5', 'abc'))")
    assert.equal("true", evaluate(("crypto.verify(%q, '\\114', %q)"):format(ED_PUBLIC, ED_SIGNATURE)))
    for expression, message in pairs {
      ["crypto.digest('sha3', '')"] = 'crypto.digest: the digest expects "md5", ',
      ["crypto.digest('sha265', '')"] = 'did you mean "sha256"?',
      ["crypto.hmac('sha1', 'key')"] = "crypto.hmac: the data: a string is expected, got no value",
      ["crypto.hmac('sha256', nil, '')"] = "crypto.hmac: the key: a string is expected, got nil",
      ["crypto.digest(nil, '')"] = "crypto.digest: the digest: a string is expected, got nil",
      ["crypto.equal(nil, '')"] = "crypto.equal: the first: a string is expected, got nil",
      ["crypto.verify('', '', nil)"] = "crypto.verify: the signature: a string is expected, got nil",
      ["crypto.open(('k'):rep(16), ('n'):rep(12), nil)"] = "crypto.open: what is sealed: a string is expected, got nil",
      ["crypto.random(-1)"] = "expects 0 to 1048576 bytes", ["crypto.random(1.5)"] = "expects 0 to 1048576 bytes",
      ["crypto.random(0 / 0)"] = "expects 0 to 1048576 bytes",
      ["crypto.random(2 ^ 20 + 1)"] = "expects 0 to 1048576 bytes",
      ["crypto.uuid(5)"] = "crypto.uuid: the version expects 4 or 7, got 5",
      ["crypto.seal('short', ('n'):rep(12), '')"] = "crypto.seal: the key expects 16, 24 or 32 bytes, got 5",
      ["crypto.seal(('k'):rep(16), '', '')"] = "crypto.seal: the nonce expects 12 bytes, got 0",
      ["crypto.open(('k'):rep(16), ('n'):rep(12), '', '', '')"] = "crypto.open takes four arguments at most, not 5",
      [("crypto.verify(%q, '', '', 'sha256')"):format(ED_PUBLIC)] = "a key of Ed25519 has its own digest",
    } do
      has(message, evaluate(expression .. ", nil"))
      has(message, evaluate(expression)) -- a tail call, to which LuaJIT has no name
    end
  end)
end)
