--- What only real sockets can show of conn: addresses, ids over workers, and what a client sees of resets and ends.
--- All else: spec/behaviour/conn_spec.lua.
local server = require "spec.support.server"

local start_lines = server.start_lines

describe("conn", function()
  after_each(server.finish)

  it("tells who it is", function()
    local app = start_lines [[
      function Agent:proceed()
        local conn = self.conn
        return ("%d %s %s %s"):format(conn.id, conn.peer, conn.local_addr, conn.listener)
      end]]
    local client = app:connect()
    client:echo_line("x", ("1 127.0.0.1:%d 127.0.0.1:%d tcp://127.0.0.1:0"):format(client.port, app.port))
  end)

  it("has an id that is unique and ascends, over all listeners and workers", function()
    local app = server.start { script = [[
      local function agent(conn)
        return { proceed = function() return tostring(conn.id) end }
      end
      return { listen = { "tcp://127.0.0.1:0", "tcp://127.0.0.1:0" }, frame = "line", agent = agent }]], workers = 2 }
    local last = 0
    for i = 1, 30 do
      local id = tonumber(app:connect({ listener = 1 + i % 2 }):send("x\n"):recv_line())
      assert.is_true(id > last, "ids do not ascend")
      last = id
    end
  end)

  it(":flush waits until the system has taken all output", function()
    local app = start_lines [[
      function Agent:proceed()
        self.conn:send(("x"):rep(4e6))
        local flushed = self.conn:flush()
        note("flushed " .. tostring(flushed))
        return "done"
      end]]
    local client = app:connect { receive_buffer = 4096 }
    client:send("go\n")
    client:recv_exact(1)
    client:recv_exact(4e6)
    app:wait_log "flushed true"
    assert.equal("done", client:recv_line())
  end)

  it(":abort drops the output and lets the client see a reset", function()
    local app = start_lines [[
      function Agent:proceed(line)
        self.conn:abort()
        return line
      end]]
    app:connect():send("x\n"):expect_reset()
    assert.equal("agent=1", app:stop().summary.reasons)
  end)

  it(":shutdown ends what we send and goes on to receive", function()
    local app = start_lines [[
      function Agent:closed(reason) note("closed " .. reason) end
      function Agent:proceed(line)
        note("got " .. line)
        if line == "bye" then self.conn:shutdown() end
        local sent, why = self.conn:send("s" .. line)
        if line == "bye" then note(tostring(sent) .. " " .. tostring(why)) return nil end
        return "r" .. line
      end]]
    local client = app:connect():send("1\nbye\n")
    assert.equal("s1\nr1\n", (client:recv_all()))
    client:send("more\n")
    app:wait_log "got more"
    client:close()
    app:wait_log "closed peer"
    assert.equal("nil closed", app:notes(1)[3])
  end)
end)
