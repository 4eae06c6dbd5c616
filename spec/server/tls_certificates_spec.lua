--- The files of tls://: found wrong before anything is served, told of, and taken anew by a reload.
local command = require "spec.support.command"
local has = require "spec.support.has"
local pki = require "spec.support.pki"
local reload = require "spec.support.reload"
local server = require "spec.support.server"
local tls_client = require "spec.support.tls_client"

local PKI

local AGENT = server.NOTE .. [[local Agent = {}
  function Agent:proceed(line) return line end
  function Agent:closed(reason) note("closed " .. reason) end ]]

local function script(tls, more)
  return AGENT .. ([[return { listen = "tls://127.0.0.1:0", frame = "line", agent = Agent, tls = %s, %s }]]):format(tls,
    more or "")
end

local PAIR = [[{ certificate = "cert.pem", key = "cert.key" }]]

-- A folder with copies of certificates: place { ["cert.pem"] = "server.pem" }.
local function place(folder, files)
  for name, from in pairs(files) do PKI:copy(from, folder .. "/" .. name) end
  return folder
end

local function pair_of(name) return { ["cert.pem"] = name .. ".pem", ["cert.key"] = name .. ".key" } end

local folders = {}

local function new_folder(files)
  folders[#folders + 1] = command.folder()
  return place(folders[#folders], files or {})
end

local function check(folder, text)
  command.write(folder .. "/app.lua", text)
  return command.run { "check", "app.lua", dir = folder }
end

local function finish()
  server.finish()
  for _, folder in ipairs(folders) do command.remove(folder) end
  folders = {}
end

-- A server whose files are beside its script.
local function start(files, text)
  local folder = new_folder(files)
  return server.start { folder = folder, script = text or script(PAIR) }, folder
end

local function open(app, authority)
  return tls_client.open(app:connect(), { authority = PKI:path(authority or "ca.pem") })
end

local function warnings(app)
  local texts = {}
  for i, entry in ipairs(app:find_log "a certificate or its key needs attention") do texts[i] = entry.error end
  return texts
end

-- What can be wrong with files: what is in the folder, what of the script, and what is said.
local BROKEN = {
  ["no certificate"] = { { ["cert.key"] = "server.key" }, PAIR, "cert.pem cannot be read: No such file or directory" },
  ["no key"] = { { ["cert.pem"] = "server.pem" }, PAIR, "cert.key cannot be read: No such file or directory" },
  ["a key of another certificate"] = { { ["cert.pem"] = "server.pem", ["cert.key"] = "other.key" }, PAIR,
    "cert.key is not the key of cert.pem" },
  ["a key of another kind"] = { { ["cert.pem"] = "server.pem", ["cert.key"] = "rsa.key" }, PAIR,
    "cert.key is not the key of cert.pem" },
  ["a locked key"] = { { ["cert.pem"] = "server.pem", ["cert.key"] = "locked.key" }, PAIR,
    "cert.key is locked by a password: leave the key without one" },
  ["a key in the certificate's place"] = { { ["cert.pem"] = "server.key", ["cert.key"] = "server.key" }, PAIR,
    "cert.pem has no certificate that can be used" },
  ["a certificate in the key's place"] = { { ["cert.pem"] = "server.pem", ["cert.key"] = "server.pem" }, PAIR,
    "cert.key has no private key that can be used" },
  ["an empty certificate"] = { { ["cert.pem"] = "empty", ["cert.key"] = "server.key" }, PAIR,
    "cert.pem has no certificate that can be used" },
  ["an empty key"] = { { ["cert.pem"] = "server.pem", ["cert.key"] = "empty" }, PAIR,
    "cert.key has no private key that can be used" },
  ["a certificate that is cut off"] = { { ["cert.pem"] = "cut.pem", ["cert.key"] = "server.key" }, PAIR,
    "cert.pem has no certificate that can be used" },
  ["a broken chain"] = { { ["cert.pem"] = "chain.pem", ["cert.key"] = "server.key" }, PAIR,
    "cert.pem has a certificate in its chain that cannot be used" },
  ["a folder"] = { { ["cert.key"] = "server.key" }, [[{ certificate = ".", key = "cert.key" }]],
    ". cannot be read: it is no file" },
  ["an endless file"] = { { ["cert.key"] = "server.key" }, [[{ certificate = "/dev/zero", key = "cert.key" }]],
    "/dev/zero cannot be read: it is no file" },
  ["a huge file"] = { { ["cert.key"] = "server.key", huge = "huge" }, [[{ certificate = "huge", key = "cert.key" }]],
    "huge cannot be read: File too large" },
  ["no authority of clients"] = { pair_of "server",
    [[{ certificate = "cert.pem", key = "cert.key", client = "ca.pem" }]],
    "ca.pem cannot be read: No such file or directory" },
  ["an authority that is none"] = { { ["cert.pem"] = "server.pem", ["cert.key"] = "server.key", ["ca.pem"] = "empty" },
    [[{ certificate = "cert.pem", key = "cert.key", client = "ca.pem" }]],
    "ca.pem has no certificate of an authority" },
  ["no OCSP response"] = { pair_of "server", [[{ certificate = "cert.pem", key = "cert.key", ocsp = "cert.der" }]],
    "cert.der cannot be read: No such file or directory" },
  ["an OCSP response that is none"] = { { ["cert.pem"] = "server.pem", ["cert.key"] = "server.key",
    ["cert.der"] = "server.pem" }, [[{ certificate = "cert.pem", key = "cert.key", ocsp = "cert.der" }]],
    "cert.der is no OCSP response in DER" },
  ["an authority that is cut off"] = { { ["cert.pem"] = "server.pem", ["cert.key"] = "server.key",
    ["ca.pem"] = "chain.pem" }, [[{ certificate = "cert.pem", key = "cert.key", client = "ca.pem" }]],
    "ca.pem has a certificate of an authority that cannot be used" },
  ["unknown ciphers"] = { pair_of "server", [[{ certificate = "cert.pem", key = "cert.key", ciphers = "ROT13" }]],
    "ciphers: OpenSSL knows no ROT13" },
  ["a name's pair"] = { { ["cert.pem"] = "server.pem", ["cert.key"] = "server.key", ["o.key"] = "other.key" },
    [[{ certificate = "cert.pem", key = "cert.key",
      names = { ["a.org"] = { certificate = "cert.pem", key = "o.key" } } }]], "o.key is not the key of cert.pem" },
}

describe("the files of tls://", function()
  setup(function()
    PKI = pki.new()
    PKI:sign("server", { names = { "example.org", "*.example.org" }, days = 77 })
    PKI:sign("other", { days = 77 })
    PKI:sign("rsa", { kind = "rsa", days = 77, subject = "/CN=of the RSA" })
    PKI:sign("soon", { days = 9 })
    PKI:sign_ended "ended"
    PKI:shell [[
      openssl ec -aes128 -passout pass:secret -in server.key -out locked.key
      : >empty; truncate -s 2M huge; head -c 200 server.pem >cut.pem; cat server.pem cut.pem >chain.pem
      chmod 600 *.key]]
  end)
  teardown(function() PKI:remove() end)
  after_each(finish)

  for what, case in pairs(BROKEN) do
    it("are refused with " .. what .. ", by check, run and a reload", function()
      local folder = new_folder(case[1])
      local result = check(folder, script(case[2]))
      assert.equal(78, result.code)
      has("app.lua:", result.err)
      has("tls: " .. case[3], result.err)
      assert.equal("", result.out)
      local failed = command.run { "run", "app.lua", dir = folder }
      assert.same({ 78, result.err }, { failed.code, failed.err })

      local other = new_folder(case[1])
      place(other, { ["good.pem"] = "server.pem", ["good.key"] = "server.key" })
      local app = server.start { folder = other, script = script [[{ certificate = "good.pem", key = "good.key" }]] }
      local alice = open(app):echo_line "hello"
      reload.rewrite(app, script(case[2]))
      local entry = reload.reload(app)
      assert.equal("reload failed: the old generation serves on", entry.message)
      has("tls: " .. case[3], entry.excerpt)
      alice:echo_line "hello"
      open(app):echo_line "hello"
    end)
  end

  it("are told of with the listener that they are of", function()
    local result = check(new_folder(pair_of "server"), AGENT .. [[return { agent = Agent, frame = "line", listen = {
      "tcp://127.0.0.1:0", { "tls://127.0.0.1:0", tls = { certificate = "cert.pem", key = "none.key" } } } }]])
    assert.equal(78, result.code)
    has("listen[2].tls: none.key cannot be read: No such file or directory", result.err)
  end)

  it("are errors with path and message in check --json", function()
    local folder = new_folder { ["cert.pem"] = "server.pem", ["cert.key"] = "other.key" }
    command.write(folder .. "/app.lua", script(PAIR))
    local result = command.run { "check", "app.lua", "--json", dir = folder }
    assert.equal(78, result.code)
    has([["path":"tls"]], result.out)
    has([["message":"cert.key is not the key of cert.pem"]], result.out)
  end)

  it("lie beside the script, wherever that is started from", function()
    local folder = new_folder(pair_of "server")
    command.write(folder .. "/app.lua", script(PAIR))
    assert.equal(0, command.run({ "check", folder .. "/app.lua", dir = "/" }).code)
    assert.equal(0, command.run({ "check", "app.lua", dir = folder }).code)
  end)

  it("may have a chain, with text around it", function()
    local folder = new_folder(pair_of "server")
    PKI:shell(("(echo the server; cat server.pem; echo its authority; cat ca.pem; echo) >%s/cert.pem"):format(folder))
    assert.equal(0, check(folder, script(PAIR)).code)
  end)

  describe("in check", function()
    it("are listed with names and days", function()
      local folder = new_folder(pair_of "server")
      place(folder, { ["rsa.pem"] = "rsa.pem", ["rsa.key"] = "rsa.key", ["o.pem"] = "other.pem",
        ["o.key"] = "other.key" })
      local result = check(folder, script [[{ certificate = { "cert.pem", "rsa.pem" }, key = { "cert.key", "rsa.key" },
        names = { ["other.org"] = { certificate = "o.pem", key = "o.key" } } }]])
      assert.equal(0, result.code)
      assert.equal("", result.err)
      local lines = {}
      -- A second may have begun since they were made.
      for line in result.out:gsub("; 7[67] days", "; 77 days"):gmatch "[^\n]+" do lines[#lines + 1] = line end
      assert.same({ "  cert.pem: example.org, *.example.org; EC; 77 days left",
        "  rsa.pem: /CN=of the RSA; RSA; 77 days left", "  o.pem: /CN=other; EC; 77 days left" },
        { lines[2], lines[3], lines[4] })
    end)

    it("are warned of when they end soon, or have", function()
      local result = check(new_folder(pair_of "soon"), script(PAIR))
      assert.equal(0, result.code)
      assert.matches("cert.pem ends in [89] days", result.err)
      result = check(new_folder(pair_of "ended"), script(PAIR))
      assert.equal(0, result.code)
      assert.matches("cert.pem ended %d+ days ago: clients refuse it", result.err)
      assert.matches("cert.pem: /CN=ended; EC; %d+ days over", result.out)
    end)

    it("are warned of when others can read the key", function()
      local folder = new_folder(pair_of "server")
      for mode, can in pairs {
        ["600"] = false, ["640"] = false, ["400"] = false, ["644"] = "read by everybody on this machine",
        ["604"] = "read by everybody on this machine", ["660"] = "written by others", ["602"] = "written by others",
      } do
        PKI:shell(("chmod %s %s/cert.key"):format(mode, folder))
        local result = check(folder, script(PAIR))
        assert.equal(0, result.code)
        if can then
          has(("cert.key can be %s (mode 0%s): chmod 600 cert.key"):format(can, mode), result.err)
        else
          assert.equal("", result.err)
        end
      end
    end)
  end)

  it("are warned of in the log, at the start and at a reload", function()
    local app, folder = start(pair_of "soon")
    assert.equal(1, #warnings(app))
    assert.matches("cert.pem ends in [89] days", warnings(app)[1])
    PKI:shell(("chmod 644 %s/cert.key"):format(folder))
    reload.reload_to(app, script(PAIR, "timeout = { idle = 5 }"))
    assert.equal(3, #warnings(app))
    has("cert.key can be read by everybody", warnings(app)[2] .. warnings(app)[3])
  end)

  describe("at a reload", function()
    it("are taken for new connections, and those that are there go on", function()
      local app, folder = start(pair_of "server")
      local old = open(app):echo_line "hello"
      assert.equal("/CN=server", (old:certificate()))
      place(folder, pair_of "other")
      assert.equal("reloaded", reload.reload(app).message)
      old:echo_line "still here"
      assert.equal("/CN=other", (open(app):echo_line("hello"):certificate()))
      old:echo_line "still here"
      old:notify()
      app:wait_log "closed peer"
    end)

    it("are taken though nothing else has changed, again and again", function()
      local app, folder = start(pair_of "server")
      for i = 1, 6 do
        local name = i % 2 == 1 and "other" or "rsa"
        place(folder, pair_of(name))
        assert.equal("reloaded", reload.reload(app).message)
        open(app):echo_line("hello"):notify():close()
        app:wait_log("closed peer", nil, i)
      end
      assert.equal("rsa", (select(2, open(app):certificate())))
    end)

    it("are read anew from where they are told to be", function()
      local app, folder = start(pair_of "server")
      place(folder, { ["new.pem"] = "other.pem", ["new.key"] = "other.key" })
      reload.reload_to(app, script [[{ certificate = "new.pem", key = "new.key" }]])
      assert.equal("/CN=other", (open(app):certificate()))
    end)

    it("that came half way change nothing, and the rest does", function()
      local app, folder = start(pair_of "server")
      place(folder, { ["cert.pem"] = "other.pem" })
      local entry = reload.reload(app)
      assert.equal("reload failed: the old generation serves on", entry.message)
      has("cert.key is not the key of cert.pem", entry.excerpt)
      assert.equal("/CN=server", (open(app):echo_line("hello"):certificate()))
      place(folder, { ["cert.key"] = "other.key" })
      assert.equal("reloaded", reload.reload(app).message)
      assert.equal("/CN=other", (open(app):echo_line("hello"):certificate()))
    end)

    it("a client's authority goes, and another comes", function()
      PKI:sign("alice")
      PKI:authority "others"
      PKI:sign("bob", { by = "others" })
      local text = script [[{ certificate = "cert.pem", key = "cert.key", client = "clients.pem" }]]
      local app, folder = start({ ["cert.pem"] = "server.pem", ["cert.key"] = "server.key",
        ["clients.pem"] = "ca.pem" }, text)
      local function client_of(name, session)
        return { certificate = PKI:path(name .. ".pem"), key = PKI:path(name .. ".key"), session = session }
      end
      local alice = tls_client.open(app:connect(), client_of "alice"):echo_line "hello"
      place(folder, { ["clients.pem"] = "others.pem" })
      assert.equal("reloaded", reload.reload(app).message)
      tls_client.open(app:connect(), client_of "bob"):echo_line "hello"
      alice:echo_line "still here"
      local _, how = tls_client.open(app:connect(), client_of("alice", alice:session())):recv_all()
      has("unknown ca", how)
    end)
  end)
end)
