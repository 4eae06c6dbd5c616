local server = require "spec.support.server"
local unistd = require "posix.unistd"

describe("examples/runaway.lua", function()
  after_each(server.finish)

  for line, reason in pairs { loop = "proceed_timeout", fill = "memory", fail = "error" } do
    it("ends the connection that goes wrong, and no other: " .. line, function()
      if server.sanitizer == "thread" and line == "loop" then return end
      local app = server.start {
        file = unistd.getcwd() .. "/examples/runaway.lua",
        args = { "--listen", "tcp://127.0.0.1:0", "--log-level", "debug" },
      }
      local neighbour = app:connect():echo_line("before")
      app:connect():send(line .. "\n"):recv_all()
      neighbour:echo_line("after")
      assert.equal(reason, app:wait_log({ message = "closed" }).reason)
    end)
  end
end)
