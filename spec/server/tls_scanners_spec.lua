--- Programs that look for weak spots of TLS find none in what tls:// is by default.
local command = require "spec.support.command"
local json_decode = require "spec.support.json_decode"
local pki = require "spec.support.pki"
local server = require "spec.support.server"

local PKI

-- Ends after a line: who asks whether it speaks HTTP need not wait for more.
local AGENT = [[local Agent = {}
  function Agent:proceed(line) return line, "close" end ]]

local function start(names)
  local certificates, keys = {}, {}
  for i, name in ipairs(names) do
    certificates[i], keys[i] = ("%q"):format(name .. ".pem"), ("%q"):format(name .. ".key")
  end
  return server.start { folder = PKI.folder, script = ([[%s
    return { listen = "tls://127.0.0.1:0", frame = "line", agent = Agent,
      tls = { certificate = { %s }, key = { %s } } }]]):format(AGENT, table.concat(certificates, ","),
    table.concat(keys, ",")) }
end

local needs = command.needs

-- What a command of the shell writes, with {port} filled in, in the folder of the certificates.
local function run(app, line)
  return command.shell(("cd '%s' && (%s) 2>&1"):format(PKI.folder, (line:gsub("{port}", app.port))))
end

-- Debian's name, and its author's.
local function testssl()
  for _, name in ipairs { "testssl", "testssl.sh" } do
    if command.has(name) then return name end
  end
  pending "testssl.sh is not installed"
end

-- The protocols, what a server says of itself, the vulnerabilities; it asks nobody but the server. The ciphers are
-- sslscan's: what takes that a moment takes this long.
local TESTSSL = [[timeout 300 %s --quiet --color 0 --warnings off --nodns none --ip 127.0.0.1 --add-ca ca.pem ]] ..
  [[--openssl "$(command -v openssl)" --jsonfile found.json -p -S -U localhost:{port} </dev/null]]

-- What is no fault of the server's.
local EXCUSED = {
  cert_revocation = "the authority of these specifications has neither a list nor a responder",
  DNS_CAArecord = "no name server is asked for who may sign for a name",
}

-- "WARN" is of the program itself: there is something that it cannot test.
local NO_FINDING = { OK = true, INFO = true, DEBUG = true, WARN = true, LOW = true }

-- What it must have tested, and not found.
local TESTED = { "SSLv2", "SSLv3", "heartbleed", "CCS", "ROBOT", "secure_renego", "secure_client_renego", "CRIME_TLS",
  "POODLE_SSL", "fallback_SCSV", "SWEET32", "FREAK", "DROWN", "LOGJAM", "BEAST", "LUCKY13" }

-- What it has found, as text; and how each test ended, by its name.
local function judge(findings)
  local found, ends = {}, {}
  for _, one in ipairs(findings) do
    ends[one.id] = one.severity
    if not NO_FINDING[one.severity] and not EXCUSED[one.id] then
      found[#found + 1] = ("%s %s: %s"):format(one.severity, one.id, one.finding)
    end
  end
  return found, ends
end

-- By the name of each element: its attributes as they stand.
local function elements(xml, name)
  local list = {}
  for attributes in xml:gmatch("<" .. name .. " ([^>]-)/?>") do
    local one = {}
    for key, value in attributes:gmatch '([%w_]+)="([^"]*)"' do one[key] = value end
    list[#list + 1] = one
  end
  return list
end

describe("tls://, and a program that looks for weak spots:", function()
  setup(function()
    PKI = pki.new()
    -- One that ends within two months is a finding.
    PKI:sign("server", { names = { "localhost" }, days = 90 })
    PKI:sign("rsa", { names = { "localhost" }, days = 90, kind = "rsa" })
  end)
  teardown(function() PKI:remove() end)
  after_each(server.finish)

  it("testssl.sh", function()
    local program = testssl()
    local app = start { "server" }
    local out = run(app, TESTSSL:format(program))
    local found, ends = judge(json_decode(command.read(PKI:path "found.json")))
    assert.same({}, found)
    for _, id in ipairs(TESTED) do assert.equal(id .. " OK", id .. " " .. tostring(ends[id]), out) end
  end)

  it("sslscan", function()
    needs "sslscan"
    local app = start { "server", "rsa" }
    local xml = run(app, "timeout 60 sslscan --xml=- --sni-name=localhost 127.0.0.1:{port}")
    local versions = {}
    for _, one in ipairs(elements(xml, "protocol")) do
      if one.enabled == "1" then versions[#versions + 1] = one.type .. " " .. one.version end
    end
    assert.same({ "tls 1.2", "tls 1.3" }, versions)
    for _, one in ipairs(elements(xml, "heartbleed")) do assert.equal("0", one.vulnerable) end
    for _, one in ipairs(elements(xml, "renegotiation")) do assert.equal("0", one.supported) end
    for _, one in ipairs(elements(xml, "compression")) do assert.equal("0", one.supported) end
    local ciphers = elements(xml, "cipher")
    assert.equal(9, #ciphers, xml)
    for _, one in ipairs(ciphers) do
      assert.is_true(one.strength == "strong" or one.strength == "acceptable", one.cipher .. " is " .. one.strength)
    end
  end)
end)
