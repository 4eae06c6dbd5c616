--- What a script's `tls` may say, and what a mistake in it is told.
local config = require "perilune.config"
local tls = require "perilune.config.tls"

local function noop() end

-- A right one, with these fields changed.
local function with(fields)
  local spec = { certificate = "cert.pem", key = "key.pem" }
  for key, value in pairs(fields) do spec[key] = value end
  return spec
end

local function message_of(spec)
  local parsed, message = tls.parse(spec)
  assert.is_nil(parsed)
  return message
end

describe("config.tls", function()
  it("completes the shortest with the defaults", function()
    assert.same({
      identities = { { pairs = { { certificate = "cert.pem", key = "key.pem" } } } }, client = "any", alpn = {},
      min = "1.2", min_version = 0x0303,
    }, tls.parse(with {}))
  end)

  it("takes every key", function()
    assert.same({
      identities = {
        { pairs = { { certificate = "rsa.pem", key = "rsa.key" }, { certificate = "ec.pem", key = "ec.key" } },
          ocsp = "cert.ocsp" },
        { name = "*.example.org", pairs = { { certificate = "w.pem", key = "w.key" } } },
        { name = "example.org", pairs = { { certificate = "e.pem", key = "e.key" } }, ocsp = "e.ocsp" },
      },
      client = "require", authority = "ca.pem", alpn = { "h2", "http/1.1" }, min = "1.3", min_version = 0x0304,
      ciphers = "TLS_AES_128_GCM_SHA256",
    }, tls.parse {
      certificate = { "rsa.pem", "ec.pem" }, key = { "rsa.key", "ec.key" }, ocsp = "cert.ocsp", client = "ca.pem",
      alpn = { "h2", "http/1.1" }, min = "1.3", ciphers = "TLS_AES_128_GCM_SHA256",
      names = {
        ["example.org"] = { certificate = "e.pem", key = "e.key", ocsp = "e.ocsp" },
        ["*.example.org"] = { certificate = "w.pem", key = "w.key" },
      },
    })
  end)

  it("takes short forms", function()
    assert.is_false(tls.parse(false))
    assert.same({ "mqtt" }, tls.parse(with { alpn = "mqtt" }).alpn)
    assert.equal("any", tls.parse(with { client = false }).client)
    assert.equal("request", tls.parse(with { client = "request" }).client)
    local first = tls.parse({ certificate = { "a" }, key = "b" }).identities[1]
    assert.same({ { certificate = "a", key = "b" } }, first.pairs)
  end)

  it("leaves the spec as it was", function()
    local spec = with { alpn = { "h2" }, names = { a = with {} } }
    tls.parse(spec)
    assert.same(with { alpn = { "h2" }, names = { a = with {} } }, spec)
  end)

  it("says in a line what it is", function()
    assert.equal("none", tls.describe(false))
    assert.equal("cert.pem, from 1.2", tls.describe(tls.parse(with {})))
    assert.equal("cert.pem, *.a.org: w.pem, asks clients for certificates, alpn h2 h3, from 1.3",
      tls.describe(tls.parse(with {
        names = { ["*.a.org"] = { certificate = "w.pem", key = "w.key" } }, client = "request", alpn = { "h2", "h3" },
        min = "1.3",
      })))
    assert.equal("a + b, clients of ca.pem, from 1.2",
      tls.describe(tls.parse { certificate = { "a", "b" }, key = { "c", "d" }, client = "ca.pem" }))
  end)

  it("escapes what it says", function()
    assert.equal("a\\nb, from 1.2", tls.describe(tls.parse(with { certificate = "a\nb" })))
    assert.is_true(#tls.describe(tls.parse(with { certificate = ("x"):rep(4000) })) < 600)
  end)

  local PATH = " expects the path of a PEM file"
  local NAMES = "names expects names such as \"example.org\" or \"*.example.org\", got "

  local deep = with {}
  deep.names = { ["a.org"] = { certificate = "c" } }

  for _, case in ipairs {
    { true, 'expects a table such as tls = { certificate = "cert.pem", key = "key.pem" }, got true' },
    { "cert.pem", "expects a table such as" }, { 1, "got 1" }, { noop, "got a function" },
    { {}, 'certificate is missing: write tls = { certificate = "cert.pem", key = "key.pem" }' },
    { { certificate = "cert.pem" }, 'key is missing: write tls = { certificate = "cert.pem", key = "key.pem" }' },
    { with { certificate = "" }, "certificate" .. PATH .. ', or a list of up to 4, got ""' },
    { with { certificate = 7 }, "certificate" .. PATH .. ", or a list of up to 4, got 7" },
    { with { certificate = "a\0b" }, "certificate" .. PATH }, { with { key = "a\0b" }, "key" .. PATH },
    { with { certificate = {} }, "certificate" .. PATH .. ", or a list of up to 4, got a table" },
    { with { certificate = { "1", "2", "3", "4", "5" } }, "or a list of up to 4, got a table" },
    { with { certificate = { "a", 2 } }, "certificate" .. PATH .. ", got 2" },
    { with { key = ("x"):rep(4096) }, "key" .. PATH },
    { with { certificate = { "a", "b" } }, "key has 1 files and certificate 2: they belong together, one by one" },
    { with { ocsp = 1 }, "ocsp expects the path of a DER file, got 1" }, { with { ocsp = "" }, 'got ""' },
    { with { certficate = "a" }, 'knows no "certficate" (did you mean certificate?)' },
    { with { verify = true }, 'knows no "verify"; it knows certificate, key, ocsp, names, client, alpn, min, ciphers' },
    { with { "cert.pem" }, "knows no 1" },
    { with { names = "a.org" }, 'names expects a table such as { ["*.example.org"] = ' },
    { with { names = { with {} } }, NAMES .. "1" }, { with { names = { [""] = with {} } }, NAMES .. '""' },
    { with { names = { ["a..org"] = with {} } }, NAMES }, { with { names = { ["*"] = with {} } }, NAMES },
    { with { names = { ["a.*.org"] = with {} } }, NAMES }, { with { names = { ["*."] = with {} } }, NAMES },
    { with { names = { [("a"):rep(254)] = with {} } }, NAMES }, { with { names = { ["a b"] = with {} } }, NAMES },
    { with { names = { ["a.org"] = "c.pem" } },
      'names["a.org"] expects a table with certificate and key, got "c.pem"' },
    { with { names = { ["a.org"] = {} } }, 'names["a.org"].certificate is missing' },
    { deep, 'names["a.org"].key is missing' },
    { with { names = { ["a.org"] = with { key = 1 } } }, 'names["a.org"].key' .. PATH .. ", or a list of up to 4" },
    { with { names = { ["a.org"] = with { ocsp = 1 } } }, 'names["a.org"].ocsp expects the path of a DER file' },
    { with { names = { ["a.org"] = with { alpn = "h2" } } },
      'names["a.org"] knows no "alpn"; it knows certificate, key, ocsp' },
    { with { client = true }, 'client expects the path of an authority\'s PEM file, "request" or false, got true' },
    { with { client = "" }, 'or false, got ""' }, { with { client = { "ca.pem" } }, "got a table" },
    { with { alpn = 2 }, 'alpn expects a list of protocols such as { "h2", "http/1.1" }, got 2' },
    { with { alpn = { h2 = true } }, "alpn expects a list of protocols" },
    { with { alpn = { "h2", best = "h2" } }, "alpn expects a list of protocols" },
    { with { alpn = { "h2", nil, "h3" } }, "alpn expects a list of protocols" },
    { with { certificate = { "a", key = "b" } }, "or a list of up to 4, got a table" },
    { with { alpn = { "" } }, 'alpn expects names of 1 to 255 bytes such as "h2", got ""' },
    { with { alpn = { ("x"):rep(256) } }, "alpn expects names of 1 to 255 bytes" },
    { with { alpn = { "h2", 3 } }, "got 3" },
    { with { alpn = { ("a"):rep(255), ("b"):rep(255), ("c"):rep(255), ("d"):rep(255) } }, "alpn is too long" },
    { with { min = "1.1" }, 'min expects "1.2" or "1.3", got "1.1"' }, { with { min = 1.2 }, "got 1.2" },
    { with { min = true }, "got true" },
    { with { ciphers = "" }, 'ciphers expects names of OpenSSL\'s with ":" between, got ""' },
    { with { ciphers = "AES 128" }, "ciphers expects names" }, { with { ciphers = "@SECLEVEL=0" }, "ciphers expects" },
    { with { ciphers = { "a" } }, "ciphers expects names" }, { with { ciphers = ("x"):rep(1000) }, "ciphers expects" },
  } do
    it("refuses with: " .. case[2], function()
      local message = message_of(case[1])
      assert.truthy(message:find(case[2], 1, true), message)
      assert.is_nil(message:find "\n")
      assert.is_true(#message < 400, message)
    end)
  end

  it("refuses more names than there can be", function()
    local names = {}
    for i = 1, 1001 do names["a" .. i] = with {} end
    assert.equal("names has more than 1000 entries", message_of(with { names = names }))
    names.a1 = nil
    assert.equal(1001, #tls.parse(with { names = names }).identities)
  end)

  it("calls nothing of the script's", function()
    local spec = setmetatable({}, { __index = function() error "asked" end })
    assert.matches("^certificate is missing", message_of(spec))
  end)
end)

describe("tls:// and tls", function()
  local function normalise(fields)
    fields.agent = fields.agent or noop
    return config.normalise(fields, { cpus = 2, memory = 2 ^ 32 })
  end

  local function errors_of(fields)
    local conf, errors = normalise(fields)
    assert.is_nil(conf)
    return config.format_errors(errors, "app.lua")
  end

  it("belong together", function()
    local conf = assert(normalise { listen = "tls://:1", tls = with {} })
    assert.equal("cert.pem", conf.listeners[1].tls.identities[1].pairs[1].certificate)
    assert.is_true(conf.listeners[1].secure)
    assert.equal('app.lua: listen: tls:// needs a certificate: tls = { certificate = "cert.pem", key = "key.pem" }',
      (errors_of { listen = "tls://:1" }:gsub("^app.lua: [%w.]+:", "app.lua: listen:")))
    assert.equal("app.lua: tls: only a tls:// address has TLS: write the address as tls://…",
      errors_of { listen = "tcp://:1", tls = with {} })
  end)

  it("are told of where they stand in a list", function()
    assert.truthy(errors_of({ listen = { "tcp://:1", { "tls://:2" } } })
      :find("listen[2].tls: tls:// needs a certificate", 1, true))
    assert.truthy(errors_of({ listen = { { "tcp://:1", tls = with {} } } })
      :find("listen[1].tls: only a tls:// address has TLS", 1, true))
    assert.truthy(errors_of({ listen = { { "tls://:1", tls = with { min = "1" } } } })
      :find('listen[1].tls: min expects "1.2" or "1.3", got "1"', 1, true))
    assert.truthy(errors_of({ listen = { { "unix://a", tls = with {} } } }):find("only a tls:// address", 1, true))
  end)

  it("at the top level is for the tls:// of the list", function()
    local conf = assert(normalise { listen = { "tcp://:1", "tls://:2", { "tls://:3", tls = with { min = "1.3" } } },
      tls = with {} })
    assert.is_false(conf.listeners[1].tls)
    assert.same({ "1.2", "1.3" }, { conf.listeners[2].tls.min, conf.listeners[3].tls.min })
  end)

  it("are off for an entry that says so, which is then no tls://", function()
    assert.truthy(errors_of({ listen = { "tls://:1", { "tls://:2", tls = false } }, tls = with {} })
      :find("listen[2].tls: tls:// needs a certificate", 1, true))
    assert(normalise { listen = { "tls://:1", { "tcp://:2", tls = false } }, tls = with {} })
  end)

  it("cannot be set from outside of the script", function()
    local conf, errors = config.normalise({ listen = "tls://:1", agent = noop, tls = with {} },
      { cpus = 2, memory = 2 ^ 32, overrides = { { path = "tls", value = "off", origin = "--set" } } })
    assert.is_nil(conf)
    assert.equal("--set: can only be set in the script", config.format_errors(errors, "app.lua"))
  end)

  it("have the same port as tcp:// has", function()
    assert.truthy(errors_of({ listen = { "tls://:1", "tls://:1" }, tls = with {} })
      :find("listen[2]: has the same address as listen[1]", 1, true))
    assert.truthy(errors_of({ listen = { "tcp://:1", "tls://:1" }, tls = with {} })
      :find("listen[2]: has the same address as listen[1]", 1, true))
  end)
end)
