local perilune = require "perilune.test"

local HERE = debug.getinfo(1, "S").source:match "^@(.*)/[^/]+$"

local function shell(line)
  local pipe = assert(io.popen(line))
  local text = pipe:read "*a"
  pipe:close()
  return text
end

-- A copy of the example in a folder of its own, with the certificate that its first lines make.
local function copy()
  local file = assert(io.open(HERE .. "/tls_echo.lua"))
  local text = file:read "*a"
  file:close()
  local root = os.tmpname()
  os.remove(root)
  shell(("mkdir -p '%s/examples' && cp '%s/tls_echo.lua' '%s/examples'"):format(root, HERE, root))
  for line in text:gsub("\\\n%-%- *", ""):gmatch "\n%-%-   (openssl req [^\n]*)" do
    shell(("cd '%s' && %s 2>&1"):format(root, line))
  end
  return root
end

describe("examples/tls_echo.lua,", function()
  local root, app
  setup(function() root = copy() end)
  teardown(function() shell(("rm -r '%s'"):format(root)) end)
  after_each(function() app:close() end)

  it("in memory, sends every line back", function()
    app = perilune.app(root .. "/examples/tls_echo.lua")
    app:connect():send("hello"):expect("hello"):send(""):expect(""):send("quit"):expect("bye"):expect_closed("agent")
  end)

  it("in memory, tells what was settled", function()
    app = perilune.app(root .. "/examples/tls_echo.lua")
    local client = app:connect { tls = { server_name = "localhost", authority = root .. "/examples/cert.pem" } }
    client:send("tls"):expect("1.3 " .. client:tls().cipher .. ", asked for localhost")
    app:connect { tls = { version = "1.2" } }:send("hello"):expect("hello")
  end)

  it("in memory, serves nobody without TLS", function()
    app = perilune.app(root .. "/examples/tls_echo.lua")
    app:connect { tls = false }:send("hello, is this encrypted?"):expect_closed("tls")
  end)

  it("over a real socket, serves the client of its first lines", function()
    app = perilune.start(root .. "/examples/tls_echo.lua")
    local port = app:log("listening")[1].address:match "%d+$"
    local client = ("openssl s_client -quiet -connect localhost:%s -CAfile examples/cert.pem -verify_return_error")
      :format(port)
    local said = shell(([[cd '%s' && printf 'hello\ntls\nquit\n' | timeout 60 %s 2>said]]):format(root, client))
    assert.matches("^hello\n1%.3 [%w_]+, asked for no name\nbye\n$", said)
    app:connect { frame = "raw" }:send_raw("hello, is this encrypted?"):expect("\21\3\3\0\2\2\70"):expect_closed()
    assert.has_error(function() app:connect() end) -- clients over sockets speak no TLS
  end)
end)
