--- A generation is the script and its modules as they were when it was loaded, whatever becomes of the files.
local has = require "spec.support.has"
local reloading = require "spec.support.reload"
local server = require "spec.support.server"

local rewrite, reload, reload_to = reloading.rewrite, reloading.reload, reloading.reload_to

-- Agents that answer with what a module, required when the first line comes, has to say.
local LAZY = server.NOTE .. [[local Agent = {}
  function Agent:proceed(line) return require("words") .. " " .. line end
  return { listen = "tcp://127.0.0.1:0", frame = "line", agent = Agent } ]]

local function start_lazy(words)
  return server.start { script = LAZY, modules = { words = words }, workers = 2 }
end

describe("a generation", function()
  after_each(server.finish)

  it("has its modules as they were, even if it requires them later", function()
    local app = start_lazy "return 'old'"
    local old = app:connect()
    rewrite(app, "return 'new'", "words.lua")
    assert.equal("reloaded", reload(app).message)
    rewrite(app, "this is no Lua", "words.lua")
    app:connect():echo_line("a", "new a")
    old:echo_line("b", "old b")
  end)

  it("keeps a module that was deleted, and does not find one that came later", function()
    local app = start_lazy "return 'old'"
    assert(os.remove(app.folder .. "/words.lua"))
    app:connect():echo_line("a", "old a")
    reload_to(app, LAZY .. "--")
    local later = app:connect()
    rewrite(app, "return 'late'", "words.lua")
    later:send "b\n"
    assert.equal("", (later:recv_all()))
    has("no file of the app", app:wait_log("handler failed").error)
  end)

  it("has the same bytes in all workers, though the file changes while they load", function()
    local SLOW = [[local t = os.clock() while os.clock() - t < 0.2 do end
      local Agent = {}
      function Agent:proceed() return %q end
      return { listen = "tcp://127.0.0.1:0", frame = "line", agent = Agent }]]
    local app = server.start { script = SLOW:format "zero", workers = 3 }
    rewrite(app, SLOW:format "one")
    app:signal "HUP"
    local i, outcome = 0
    repeat
      i = i + 1
      rewrite(app, SLOW:format("later " .. i), "next.txt")
      assert(os.rename(app.folder .. "/next.txt", app.folder .. "/app.lua"))
      outcome = reloading.outcomes(app)[1]
    until outcome
    assert.equal("reloaded", outcome.message)
    local first = app:connect():send("x\n"):recv_line()
    for _ = 1, 5 do assert.equal(first, app:connect():send("x\n"):recv_line()) end
  end)

  it("says of a module that cannot be read why, when it is required", function()
    local app = server.start { script = LAZY:gsub("words", "big") }
    os.execute(("truncate -s 17M %s/big.lua"):format(app.folder))
    assert.equal("reloaded", reload(app).message)
    assert.equal("", (app:connect():send("a\n"):recv_all()))
    has("big.lua: is larger than 16 MiB", app:wait_log("handler failed").error)
  end)

  it("that would be the same as the newest is not made", function()
    local app = server.start { script = LAZY .. "--[[a]]" }
    rewrite(app, "return 1", "other.lua")
    local made = reload(app)
    assert.equal("reloaded", made.message)
    assert.equal(2, made.generation)
    for _ = 1, 2 do
      rewrite(app, "return 1", "other.lua")
      local entry = reload(app)
      assert.equal("reload: nothing has changed", entry.message)
      assert.equal(2, entry.generation)
      assert.equal(made.key, entry.key)
    end
    assert.matches("^%x+$", made.key)
    assert.equal(3, reload_to(app, LAZY).generation)
  end)

  it("is loaded again if it has failed", function()
    local app = server.start { script = LAZY }
    rewrite(app, "return {")
    for _ = 1, 2 do has("reload failed", reload(app).message) end
    rewrite(app, LAZY)
    assert.equal("reload: nothing has changed", reload(app).message)
  end)

  local function failing(name)
    return ("local Agent = {}\nfunction Agent:proceed(line)\n  return %s.field\nend\n"):format(name)
      .. [[return { listen = "tcp://127.0.0.1:0", frame = "line", agent = Agent, jit = true }]]
  end

  it("is named in places and tracebacks, from the second on", function()
    local app = server.start { script = failing "line.a" }
    app:connect():send("x\n"):recv_all()
    local first = app:wait_log "handler failed"
    assert.equal("app.lua:3", first.place)
    reload_to(app, failing "line.b")
    app:connect():send("x\n"):recv_all()
    local second = app:wait_log { message = "handler failed", generation = 2 }
    assert.equal("app.lua#g2:3", second.place)
    assert.matches("^app%.lua#g2:3: in ", second.traceback)
    has("app.lua#g2:3 in ", second.excerpt)
  end)

  it("shows its own source in an excerpt", function()
    local app = server.start { script = failing "line.old" }
    local old = app:connect()
    reload_to(app, "\n\n\n\n" .. failing "line.new")
    rewrite(app, "something else altogether")
    old:send("x\n"):recv_all()
    has("3 |   return line.old.field", app:wait_log({ message = "handler failed", generation = 1 }).excerpt)
    app:connect():send("x\n"):recv_all()
    has("7 |   return line.new.field", app:wait_log({ message = "handler failed", generation = 2 }).excerpt)
  end)

  it("that cannot be loaded has no number in its excerpt", function()
    local app = server.start { script = LAZY }
    rewrite(app, "\nlocal x = nil\nreturn x.y")
    local excerpt = reload(app).excerpt
    has("app.lua:3", excerpt)
    has("3 | return x.y", excerpt)
  end)
end)
