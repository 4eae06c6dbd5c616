--- What only a real server can show of agents: that events of sockets and signals reach them, and that workers share.
--- What they are promised: spec/behaviour/agent_spec.lua.
local server = require "spec.support.server"

local function start(script, options)
  options = options or {}
  options.script = server.NOTE .. script
  return server.start(options)
end

describe("an agent", function()
  after_each(server.finish)

  it("that closes in the normal way delivers everything first", function()
    local app = server.start_lines [[function Agent:proceed(line) return line:rep(5e6), "close" end]]
    local client = app:connect { receive_buffer = 4096 }
    local bytes, how = client:send("x\n"):recv_all()
    assert.equal("closed", how)
    assert.equal(5e6 + 1, #bytes)
  end)

  describe("hears opened and closed(reason) once each, when", function()
    local SCRIPT = [[
      local Agent = {}
      function Agent:opened() note("opened") end
      function Agent:closed(reason) note("closed " .. reason) end
      function Agent:proceed(what)
        if what == "big" then self.conn:send(("x"):rep(3e7)) end
        return what
      end
      return {
        listen = "tcp://127.0.0.1:0", agent = Agent, limits = { send_buffer = "1m", proceed = "10s" }, %s
      }]]
    local function nothing() end
    local cases = {
      { "the peer closes", "peer", function(client) client:close() end },
      { "the peer resets", "reset", function(client) client:reset() end },
      { "no frame comes", "idle_timeout", nothing, [[timeout = { idle = "150ms" }]] },
      { "the peer does not read", "write_timeout", function(client) client:send_frame("big") end,
        [[timeout = { write = "200ms" }]] },
      { "the server drains", "drain", function(_, app) app:signal("TERM") end },
    }
    for _, case in ipairs(cases) do
      it(case[1], function()
        local app = start(SCRIPT:format(case[4] or ""))
        local client = app:connect()
        app:wait_log "opened"
        case[3](client, app)
        app:wait_log(function(entry) return entry.message:find("^closed") end)
        client:close()
        if case[2] == "drain" then app:wait_end() else app:stop() end
        assert.same({ "opened", "closed " .. case[2] }, app:notes(1))
      end)
    end
  end)
end)

describe("a worker", function()
  after_each(server.finish)

  it("runs setup and teardown once each, with its number", function()
    local app = start([[
      return {
        listen = "tcp://127.0.0.1:0", frame = "line", agent = { proceed = function(_, line) return line end },
        setup = function(app) note(("setup %d of %d"):format(app.worker, app.workers)) end,
        teardown = function(app) note(("teardown %d of %d"):format(app.worker, app.workers)) end,
      }]], { workers = 2 })
    app:connect():echo_line("x")
    app:stop()
    for _, message in ipairs { "setup 0 of 2", "setup 1 of 2", "teardown 0 of 2", "teardown 1 of 2" } do
      assert.equal(1, #app:find_log(message), message)
    end
  end)

  it("gets as many connections as the others", function()
    local app = start([[
      return { listen = "tcp://127.0.0.1:0", frame = "line", agent = function()
        note("made")
        return { proceed = function(_, line) return line end }
      end }]], { workers = 2 })
    for _, client in ipairs(app:connect_many(20)) do client:echo_line("x") end
    local counts = { [0] = 0, 0 }
    for _, entry in ipairs(app:find_log "made") do counts[entry.worker] = counts[entry.worker] + 1 end
    assert.same({ [0] = 10, 10 }, counts)
  end)
end)
