--- What goes wrong around a server's connections: signals, threads, scripts that do not return. What one of them does
--- wrong:
--- spec/behaviour/containment_spec.lua.
local command = require "spec.support.command"
local has = require "spec.support.has"
local server = require "spec.support.server"
local support = require "spec.support.reload"
local wait = require "spec.support.wait"

local start_lines = server.start_lines

describe("an agent whose end was decided", function()
  after_each(server.finish)

  it("hears of the end of the stream even when that comes with the drain", function()
    local app = start_lines [[
      function Agent:drain() return true end
      function Agent:eof() note("eof") return "bye", "close" end
      function Agent:proceed(line) return line end ]]
    local client = app:connect()
    client:echo_line("a")
    app:signal("STOP")
    client:shutdown("send")
    app:signal("TERM")
    app:signal("CONT")
    assert.equal("bye\n", (client:recv_all()))
    assert.equal(0, app:wait_end().code)
  end)
end)

describe("a worker that cannot be started", function()
  after_each(server.finish)

  it("is a failure of the machine, not of the script", function()
    local failed = server.start_failing {
      script = [[return { listen = "tcp://127.0.0.1:0", agent = function() end }]], workers = 40, nofile = 40,
    }
    assert.equal(1, failed.code)
  end)
end)

describe("the entry serving", function()
  after_each(server.finish)

  it("names the way in which compiled code is interrupted", function()
    local ways = {}
    for way in command.read("docs/containment.md"):gmatch "\n  %- `([%w-]+)`[,:] " do ways[way] = true end
    assert.is_true(ways["hook-mask"] and ways["no-jit"])
    local way = start_lines("function Agent:proceed(line) return line end"):wait_log("serving").interrupts
    assert.is_true(ways[way], way)
  end)
end)

describe("a script", function()
  after_each(server.finish)

  local ENDLESS = "function() while true do end end"
  local SETUP, TEARDOWN = "setup = " .. ENDLESS, "teardown = " .. ENDLESS

  local function teardowns(app) return app:find_log "teardown failed" end

  it("that does not return is told so, by run of its setup(), by check of its top level", function()
    local folder = command.folder()
    finally(function() command.remove(folder) end)
    command.write(folder .. "/app.lua", "\nwhile true do end")
    -- Both at once: it takes 10 s of processor time each. At a reload: reload_spec.lua.
    local check = assert(io.popen(("cd %s && %s check app.lua 2>&1; echo code $?"):format(folder, command.binary)))
    local failing = server.start_failing({ script = support.script("one", SETUP) }, 600)
    local told = check:read "*a"
    check:close()
    assert.equal(78, failing.code)
    local WHY = "it ran for over 10 s of CPU time (the most that loading and setup may take)\n  --> "
    has("/app.lua:4 in setup\n", failing.log[#failing.log - 1].excerpt)
    has("error: " .. WHY, failing.log[#failing.log - 1].excerpt)
    has("error: " .. WHY .. "app.lua:2\n", told)
    has("code 78\n", told)
  end)

  it("whose teardown() does not return is told so, and holds up neither a reload nor the stop", function()
    local app = server.start { script = support.script("one", TEARDOWN), workers = 4 }
    support.reload_to(app, support.script "two")
    wait.until_true("four generations to retire", function() return #app:find_log "generation retired" == 4 end)
    support.reload_to(app, support.script "three")
    assert.is_true(#teardowns(app) <= 2, #teardowns(app) .. " teardowns went before the reload")
    app:stop()
    local failed, skipped = teardowns(app), app:find_log(function(entry)
      return entry.message:find "^teardown skipped"
    end)
    assert.equal(1, #skipped)
    assert.equal(4, #failed + skipped[1].generations)
    has("it ran for over 1 s of CPU time (teardown may take 1 s)", failed[1].error)
    assert.equal(1, failed[1].generation)
    assert.equal("app.lua:4", failed[1].place)
    has("app.lua:4 in teardown    generation 1\n", failed[1].excerpt)
  end)

  it("whose teardown() does not return is told so when the server stops", function()
    local app = server.start { script = support.script("one", TEARDOWN) }
    app:stop()
    assert.equal(1, #teardowns(app))
    has("(teardown may take 1 s)", teardowns(app)[1].error)
  end)
end)

describe("a finaliser that does not return", function()
  after_each(server.finish)

  local AGENT = [[
    function Agent:proceed(line)
      for _ = 1, tonumber(line) do
        getmetatable(newproxy(true)).__gc = function() while true do end end
      end
      return line
    end]]

  it("ends neither the worker that tidies up, nor its calls, nor its end", function()
    local app = start_lines(AGENT, {}, [[unsafe = { "newproxy" }, limits = { proceed = "50ms" }]])
    local client = app:connect()
    client:echo_line "20"
    -- Nobody calls: the worker is idle.
    local entry = app:wait_log "a finaliser failed"
    assert.truthy(entry.error:find "a finaliser %(__gc%) did not return in %d+ ms of CPU time", entry.error)
    client:echo_line "0"
    client:echo_line "20"
    app:connect():echo_line "0"
    assert.equal(0, app:stop().code)
    assert.equal(0, #app:find_log "handler failed")
    -- Those that were left were called when the VM was closed.
    has("did not return", app:find_log("a finaliser failed")[2].error)
  end)
end)
