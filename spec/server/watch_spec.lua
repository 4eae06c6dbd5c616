--- run --watch: the script is loaded anew when its files change, however an editor changes them.
local command = require "spec.support.command"
local has = require "spec.support.has"
local reloading = require "spec.support.reload"
local server = require "spec.support.server"
local wait = require "spec.support.wait"

local rewrite, outcome = reloading.rewrite, reloading.outcome

local function script(version)
  return ([[local Agent = {}
    function Agent:proceed(line) return %q .. " " .. line end
    return { listen = "tcp://127.0.0.1:0", frame = "line", agent = Agent }]]):format(version)
end

local function start(text, options)
  options = options or {}
  options.script, options.args = text, { "--watch" }
  local app = server.start(options)
  if options.format ~= "text" then app:wait_log "watching" end
  return app
end

-- As editors do it: another file takes the name.
local function replace(app, text, name)
  name = name or "app.lua"
  rewrite(app, text, name .. ".tmp")
  assert(os.rename(("%s/%s.tmp"):format(app.folder, name), app.folder .. "/" .. name))
end

local function shell(app, line) assert.equal(0, os.execute("cd " .. app.folder .. " && " .. line)) end

-- Long enough for what is not to happen.
local function let_settle()
  local from = wait.now()
  wait.until_true("a while", function() return wait.now() - from > 0.4 end)
end

describe("a watched app", function()
  after_each(server.finish)

  it("is loaded anew when a file was written after it had been read, before it was watched", function()
    local folder = command.folder()
    local app = server.start {
      folder = folder, args = { "--watch" }, script = ([[
        local file = assert(io.open(%q, "w"))
        file:write(%q)
        file:close()
        ]]):format(folder .. "/app.lua", script "two") .. script "one",
    }
    assert.equal("reloaded", outcome(app, 1).message)
    app:connect():echo_line("a", "two a")
  end)

  it("is loaded anew when a file is written in place", function()
    local app = start(script "one")
    local old = app:connect():echo_line("a", "one a")
    rewrite(app, script "two")
    assert.equal("reloaded", outcome(app, 1).message)
    app:connect():echo_line("b", "two b")
    old:echo_line("c", "one c")
  end)

  it("is loaded anew when a file is replaced, again and again", function()
    local app = start(script "v0")
    for i = 1, 3 do
      replace(app, script("v" .. i))
      assert.equal(i + 1, outcome(app, i).generation)
      app:connect():echo_line("x", ("v%d x"):format(i))
    end
  end)

  it("is loaded once for several quick writes", function()
    local app = start(script "one")
    app:signal "STOP" -- else a busy machine may be slow between two of them
    for i = 1, 20 do rewrite(app, script("quick " .. i)) end
    app:signal "CONT"
    assert.equal("reloaded", outcome(app, 1).message)
    app:connect():echo_line("x", "quick 20 x")
    let_settle()
    assert.equal(1, #reloading.outcomes(app))
  end)

  it("is loaded anew when one of its modules changes", function()
    local app = start((script("one"):gsub('"one"', 'require("words")')), { modules = { words = "return 'old'" } })
    app:connect():echo_line("x", "old x")
    replace(app, "return 'new'", "words.lua")
    assert.equal("reloaded", outcome(app, 1).message)
    app:connect():echo_line("x", "new x")
  end)

  it("notices files in folders that are new, moved, or made again", function()
    local app = start((script("one"):gsub('"one"', 'require("lib.deep.words")')))
    local n = 0
    local function expect(answer)
      n = n + 1
      assert.equal("reloaded", outcome(app, n).message)
      app:connect():echo_line("x", answer .. " x")
    end
    shell(app, "mkdir -p lib/deep && echo 'return 1' >lib/deep/words.lua")
    expect "1"
    shell(app, "echo 'return 2' >lib/deep/words.lua")
    expect "2"
    shell(app, "mkdir -p new/deep && echo 'return 3' >new/deep/words.lua && rm -r lib && mv new lib")
    expect "3"
    shell(app, "echo 'return 4' >lib/deep/words.lua")
    expect "4"
  end)

  it("shows what is wrong with a broken edit, serves on, and takes the next one", function()
    local app = start(script "one")
    rewrite(app, "local x\nreturn x.y\n")
    local entry = outcome(app, 1)
    assert.equal("reload failed: the old generation serves on", entry.message)
    has("2 | return x.y", entry.excerpt)
    app:connect():echo_line("a", "one a")
    rewrite(app, script "two")
    assert.equal("reloaded", outcome(app, 2).message)
    app:connect():echo_line("b", "two b")
  end)

  it("shows it on a terminal as lines", function()
    local app = start(script "one", { format = "text" })
    wait.until_true("it watches", function() return app:text():find("watching", 1, true) end)
    rewrite(app, "local x\nreturn x.y\n")
    local EXCERPT = "\n1 | local x\n2 | return x.y\n  |        ^ nil here\n"
    wait.until_true(function() return "the excerpt; it said:\n" .. app:text() end, function()
      return app:text():find(EXCERPT, 1, true)
    end)
    has("--> " .. app.folder .. "/app.lua:2", app:text())
  end)

  it("serves on while its script is gone, and takes the one that comes", function()
    local app = start(script "one")
    assert(os.remove(app.folder .. "/app.lua"))
    has("No such file or directory", outcome(app, 1).excerpt)
    app:connect():echo_line("a", "one a")
    rewrite(app, script "two")
    assert.equal("reloaded", outcome(app, 2).message)
    app:connect():echo_line("b", "two b")
  end)

  it("survives that its folder is replaced by another", function()
    local folder = command.folder()
    local function make(name, version)
      os.execute(("mkdir %s/%s"):format(folder, name))
      return command.write(("%s/%s/app.lua"):format(folder, name), script(version))
    end
    local app = server.start { file = make("live", "one"), folder = folder, args = { "--watch" } }
    app.own_folder = true
    app:wait_log "watching"
    shell(app, "mv live old")
    has("No such file or directory", outcome(app, 1).excerpt)
    make("next", "two")
    shell(app, "mv next live")
    assert.equal("reloaded", outcome(app, 2).message)
    rewrite(app, script "three", "live/app.lua")
    assert.equal("reloaded", outcome(app, 3).message)
    app:connect():echo_line("x", "three x")
  end)

  it("is not loaded anew for files that are no scripts", function()
    local app = start(script "one")
    shell(app, "touch data.txt notes .app.lua.swp app.lua~ && rm notes && mkdir .git && touch .git/x.lua")
    let_settle()
    assert.same({}, reloading.outcomes(app))
  end)

  it("can be stopped at any moment", function()
    local app = start(script "one")
    rewrite(app, script "two")
    assert.equal(0, app:stop().code)
  end)
end)
