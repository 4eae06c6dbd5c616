--- What the `tls` of a connection out may say, and what a mistake in it is told.
local tls = require "perilune.config.tls"

local function noop() end

describe("config.tls.outgoing", function()
  it("verifies for the host that is connected to, by default", function()
    local default = { server_name = "db.example", verify = true, alpn = {}, min = "1.2", min_version = 0x0303 }
    assert.same(default, tls.outgoing(nil, "db.example"))
    assert.same(default, tls.outgoing({}, "db.example"))
  end)

  it("takes every key", function()
    assert.same({
      server_name = "a.example", verify = true, authority = "ca.pem", certificate = "me.pem", key = "me.key",
      alpn = { "chat/2", "chat/1" }, min = "1.3", min_version = 0x0304, ciphers = "TLS_AES_128_GCM_SHA256",
    }, tls.outgoing({
      server_name = "a.example", verify = true, authority = "ca.pem", certificate = "me.pem", key = "me.key",
      alpn = { "chat/2", "chat/1" }, min = "1.3", ciphers = "TLS_AES_128_GCM_SHA256",
    }, "10.0.0.7"))
    assert.same({ "mqtt" }, tls.outgoing({ alpn = "mqtt" }, "a").alpn)
    assert.is_false(tls.outgoing({ verify = false }, "a").verify)
  end)

  for host, name in pairs {
    ["db.example"] = "db.example", ["db.example."] = "db.example", localhost = "localhost", ["10.0.0.7"] = "10.0.0.7",
    ["::1"] = "::1", ["2001:db8::7"] = "2001:db8::7", ["fe80::1%eth0"] = "fe80::1", a_b = "a_b",
  } do
    it("takes " .. host .. " for " .. name, function()
      assert.equal(name, tls.outgoing({}, host).server_name)
      assert.equal(name, tls.outgoing({ server_name = host }, "another").server_name)
    end)
  end

  it("leaves the options as they were", function()
    local options = { server_name = "a.", alpn = { "h2" } }
    tls.outgoing(options, "b")
    assert.same({ server_name = "a.", alpn = { "h2" } }, options)
  end)

  local PATH = " expects the path of a PEM file, got "
  local NAME = 'server_name expects a host\'s name or address, such as "db.example", got '

  for _, case in ipairs {
    { true, 'expects a table such as tls = { authority = "ca.pem" }, got true' }, { false, "got false" },
    { "ca.pem", 'got "ca.pem"' }, { noop, "got a function" },
    { { verfy = false }, 'knows no "verfy" (did you mean verify?)' },
    { { ca = "ca.pem" },
      'knows no "ca"; it knows server_name, verify, authority, certificate, key, alpn, min, ciphers' },
    { { names = {} }, 'knows no "names"' }, { { "ca.pem" }, "knows no 1" },
    { { server_name = 1 }, NAME .. "1" }, { { server_name = "" }, NAME .. '""' },
    { { server_name = false }, NAME .. "false" }, { { server_name = "*.example" }, NAME .. '"*.example"' },
    { { server_name = ".example" }, NAME }, { { server_name = "a..b" }, NAME }, { { server_name = "a.." }, NAME },
    { { server_name = "." }, NAME }, { { server_name = "[::1]" }, NAME }, { { server_name = "a b" }, NAME },
    { { server_name = "a\0b" }, NAME }, { { server_name = ("a"):rep(254) }, NAME }, { { server_name = "db:1" }, NAME },
    { { verify = "no" }, 'verify expects true or false, got "no"' }, { { verify = 0 }, "got 0" },
    { { authority = 1 }, "authority" .. PATH .. "1" }, { { authority = "" }, "authority" .. PATH .. '""' },
    { { authority = { "a.pem" } }, "authority" .. PATH .. "a table" },
    { { authority = "ca.pem", verify = false }, "authority has no effect with verify = false" },
    { { certificate = "a.pem" }, "key is missing: it goes with certificate" },
    { { key = "a.key" }, "certificate is missing: it goes with key" },
    { { certificate = { "a.pem" }, key = "a.key" }, "certificate" .. PATH .. "a table" },
    { { certificate = "a.pem", key = "a\0" }, "key" .. PATH }, { { certificate = "a", key = false }, "key" .. PATH },
    { { alpn = 2 }, 'alpn expects a list of protocols such as { "h2", "http/1.1" }, got 2' },
    { { alpn = { "" } }, 'alpn expects names of 1 to 255 bytes such as "h2", got ""' },
    { { min = "1.1" }, 'min expects "1.2" or "1.3", got "1.1"' },
    { { ciphers = "@SECLEVEL=0" }, "ciphers expects names of OpenSSL's" },
  } do
    it("refuses with: " .. case[2], function()
      local parsed, message = tls.outgoing(case[1], "db.example")
      assert.is_nil(parsed)
      assert.truthy(message:find(case[2], 1, true), message)
      assert.is_nil(message:find "\n")
      assert.is_true(#message < 400, message)
    end)
  end

  it("refuses a host that nobody can be", function()
    assert.same({ nil, NAME .. '""' }, { tls.outgoing({}, "") })
  end)

  it("calls nothing of the script's", function()
    local options = setmetatable({}, { __index = function() error "asked" end })
    assert.equal("a", tls.outgoing(options, "a").server_name)
  end)
end)
