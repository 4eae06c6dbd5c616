local server = require "spec.support.server"
local unistd = require "posix.unistd"
local wait = require "spec.support.wait"

local function start(...)
  return server.start {
    file = unistd.getcwd() .. "/examples/chat.lua", args = { "--listen=tcp://127.0.0.1:0", ... },
  }
end

local function join(app, name)
  local client = app:connect()
  assert.equal("your name?", client:recv_line())
  return client:echo_line(name, "welcome, " .. name)
end

describe("examples/chat.lua", function()
  after_each(server.finish)

  it("tells everybody else who comes, what is said, and who leaves", function()
    local app = start()
    local ann = join(app, "ann")
    local bob = join(app, "bob")
    assert.equal("* bob joined", ann:recv_line())
    bob:send("hello\n\nis anybody here?\n")
    assert.equal("bob: hello", ann:recv_line())
    assert.equal("bob: is anybody here?", ann:recv_line())
    bob:echo_line("/quit", "bye")
    bob:expect_closed()
    assert.equal("* bob left", ann:recv_line())
  end)

  it("refuses a name that is taken or malformed, and frees it when its owner leaves", function()
    local app = start()
    local ann = join(app, "ann")
    local other = app:connect()
    other:recv_line()
    other:echo_line("ann", "that name is taken")
    other:echo_line("a b", "letters, digits, _ and - only, at most 20")
    ann:reset()
    wait.until_true("the name to be free", function()
      return other:send("ann\n"):recv_line() == "welcome, ann"
    end)
  end)

  it("says goodbye to the silent ones", function()
    local client = join(start("--set=timeout.idle=200ms"), "ann")
    assert.equal("you have been silent for too long", client:recv_line())
    client:expect_closed()
  end)

  it("tells everybody that the server stops", function()
    local app = start()
    local client = join(app, "ann")
    app:signal("TERM")
    assert.equal("the server is going down", client:recv_line())
    client:expect_closed()
    assert.equal(0, app:wait_end().code)
  end)
end)
