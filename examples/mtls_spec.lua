local perilune = require "perilune.test"

local HERE = debug.getinfo(1, "S").source:match "^@(.*)/[^/]+$"

local function shell(line)
  local pipe = assert(io.popen(line))
  local text = pipe:read "*a"
  pipe:close()
  return text
end

-- A copy of the example in a folder of its own, with the certificates that its first lines make.
local function copy()
  local file = assert(io.open(HERE .. "/mtls.lua"))
  local text = file:read "*a"
  file:close()
  local root = os.tmpname()
  os.remove(root)
  shell(("mkdir -p '%s/examples' && cp '%s/mtls.lua' '%s/examples'"):format(root, HERE, root))
  for line in text:gsub("\\\n%-%- *", ""):gmatch "\n%-%-   (openssl req [^\n]*)" do
    shell(("cd '%s' && %s 2>&1"):format(root, line))
  end
  return root
end

describe("examples/mtls.lua,", function()
  local root, app
  setup(function() root = copy() end)
  teardown(function() shell(("rm -r '%s'"):format(root)) end)
  after_each(function() app:close() end)

  local function path(name) return root .. "/examples/" .. name end

  local function connect(name)
    return app:connect { tls = { certificate = path(name .. ".pem"), key = path(name .. ".key"),
      authority = path "ca.pem", server_name = "localhost" } }
  end

  it("in memory, knows who comes, and what they may do", function()
    app = perilune.app(path "mtls.lua")
    local alice = connect("alice"):expect("hello alice@example.org")
    local bob = connect("bob"):expect("hello bob@example.org")
    bob:send("read"):expect("nothing is written here yet")
    bob:send("write I was here"):expect("that is not for bob@example.org")
    alice:send("write tea at four"):expect("written")
    bob:send("read"):expect("tea at four")
  end)

  it("in memory, refuses who has no certificate, or one of somebody else's", function()
    app = perilune.app(path "mtls.lua")
    app:connect():expect_closed("tls")
    assert.equal("the client has sent no certificate", app:log("TLS failed")[1].error)
    shell(([[cd '%s' && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=alice \
      -addext subjectAltName=email:alice@example.org -keyout mallory.key -out mallory.pem 2>&1]]):format(path ""))
    connect("mallory"):expect_closed("tls")
  end)

  it("over a real socket, serves the client of its first lines", function()
    app = perilune.start(path "mtls.lua")
    local port = app:log("listening")[1].address:match "%d+$"
    local client = "openssl s_client -quiet -connect localhost:%s -CAfile examples/ca.pem -cert examples/%s.pem "
      .. "-key examples/%s.key"
    local function say(name, text)
      return shell(([[cd '%s' && printf '%s\nquit\n' | timeout 60 %s 2>said]]):format(root, text,
        client:format(port, name, name)))
    end
    assert.equal("hello alice@example.org\nwritten\nbye\n", say("alice", "write tea at four"))
    assert.equal("hello bob@example.org\ntea at four\nbye\n", say("bob", "read"))
  end)
end)
