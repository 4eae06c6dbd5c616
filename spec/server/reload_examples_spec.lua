--- The examples for trying reloads, reloaded. What they say for themselves: examples/reload_*_spec.lua.
local command = require "spec.support.command"
local has = require "spec.support.has"
local server = require "spec.support.server"
local support = require "spec.support.reload"

describe("examples/reload_pin.lua", function()
  after_each(server.finish)

  it("keeps the old price for whoever was there, until it leaves", function()
    local app, edit = support.start_example "reload_pin"
    local early = app:connect()
    assert.equal("a coffee is 3; say how many", early:recv_line())
    early:echo_line("2", "6 so far")
    edit("PRICE = 3", "PRICE = 4")
    local late = app:connect()
    assert.equal("a coffee is 4; say how many", late:recv_line())
    late:echo_line("2", "8 so far")
    early:echo_line("1", "9 so far"):echo_line("pay", "that makes 9")
    early:expect_closed()
    app:wait_log { message = "generation retired", generation = 1 }
    late:echo_line("pay", "that makes 8")
  end)
end)

describe("examples/reload_migrate.lua", function()
  after_each(server.finish)

  it("takes what a connection has said to the new code", function()
    local app, edit = support.start_example "reload_migrate"
    local client = app:connect():echo_line("tea", "noted: tea, the 1. word")
    edit([["noted"]], [["written down"]])
    app:wait_log { message = "generation retired", generation = 1 }
    client:echo_line("milk", "written down: milk, the 2. word"):echo_line("list", "tea, milk")
  end)

  it("understands the shape of an earlier version", function()
    local SNAPSHOT = "return { shape = SHAPE, words = self.words, since = self.since }"
    local app, edit = support.start_example "reload_migrate"
    edit(SNAPSHOT, [[return table.concat(self.words, ", ")]])
    local client = app:connect():echo_line("tea", "noted: tea, the 1. word")
    client:echo_line("milk", "noted: milk, the 2. word")
    edit([[return table.concat(self.words, ", ") end

-- In place]], SNAPSHOT .. [[ end

-- In place]])
    app:wait_log { message = "generation retired", generation = 2 }
    client:echo_line("list", "tea, milk"):echo_line("sugar", "noted: sugar, the 3. word")
  end)

  it("leaves a connection with the old code where the shape is another", function()
    local app, edit = support.start_example "reload_migrate"
    local client = app:connect():echo_line("tea", "noted: tea, the 1. word")
    edit("SHAPE = 2", "SHAPE = 3")
    app:wait_log { message = "handler failed", callback = "upgrade" }
    client:echo_line("milk", "noted: milk, the 2. word")
    app:connect():echo_line("rice", "noted: rice, the 1. word")
  end)
end)

describe("examples/reload_drain.lua", function()
  after_each(server.finish)

  it("says good-bye to whoever was there, and welcomes it again", function()
    local app, edit = support.start_example("reload_drain", { "--drain=1s" })
    local clients = {}
    for i = 1, 5 do
      clients[i] = app:connect()
      assert.equal("version 1", clients[i]:recv_line())
    end
    edit("VERSION = 1", "VERSION = 2")
    for _, client in ipairs(clients) do
      assert.equal("good-bye: version 1 ends within 1 s, please come back\n", (client:recv_all()))
      assert.equal("version 2", app:connect():recv_line())
    end
    app:wait_log { message = "generation retired", generation = 1 }
  end)
end)

-- Rooms of which nobody is to notice that the script is another one.
describe("a room", function()
  after_each(server.finish)

  -- Serves a file, which an edit then changes.
  local function serve(path)
    local text = command.read(path)
    local app = server.start { script = text, args = { "--listen=tcp://127.0.0.1:0" } }
    return app, function(from, to)
      local start, stop = text:find(from, 1, true)
      text = text:sub(1, assert(start, "there is no such text") - 1) .. to .. text:sub(stop + 1)
      support.reload_to(app, text)
      app:wait_log { message = "generation retired", generation = 1 }
    end
  end

  local function names(app, answers, ...)
    local all = {}
    for i, name in ipairs { ... } do
      all[i] = app:connect()
      assert.equal("your name?", all[i]:recv_line())
      all[i]:send(name .. "\n")
      assert.truthy(all[i]:recv_line():find(answers))
    end
    return all
  end

  it("of examples/chat.lua stays whole in a reload", function()
    local app, edit = serve "examples/chat.lua"
    local ann, bob = unpack(names(app, "^welcome", "ann", "bob"))
    assert.equal("* bob joined", ann:recv_line())
    local nobody = app:connect()
    assert.equal("your name?", nobody:recv_line())
    edit([[": " .. line]], [[" says: " .. line]])
    names(app, "^welcome", "eve")
    for _, one in ipairs { ann, bob } do assert.equal("* eve joined", one:recv_line()) end
    bob:send "hello\n"
    assert.equal("bob says: hello", ann:recv_line())
    nobody:send "ann\n"
    assert.equal("that name is taken", nobody:recv_line())
    bob:send "/quit\n"
    assert.equal("* bob left", ann:recv_line())
  end)

  it("of the template chat stays whole in a reload", function()
    local app, edit = serve "lua/perilune/templates/chat/app.lua"
    local ann, bob = unpack(names(app, "^you are in lobby", "ann", "bob"))
    assert.equal("* bob is here", ann:recv_line())
    bob:echo_line("/join attic", "you are in attic with 0 others")
    assert.equal("* bob has left", ann:recv_line())
    edit([[": " .. line]], [[" says: " .. line]])
    ann:echo_line("/room", "you are in lobby with 0 others")
    ann:echo_line("/join attic", "you are in attic with 1 others")
    assert.equal("* ann is here", bob:recv_line())
    bob:send "hello\n"
    assert.equal("bob says: hello", ann:recv_line())
  end)

  it("of the handbook stays whole in a reload", function()
    local text = command.read("docs/handlers.md"):match "```lua\n(%-%- room.lua.-)```"
    local app = server.start { script = text, args = { "--listen=tcp://127.0.0.1:0" } }
    local ann, bob = app:connect(), app:connect()
    bob:send "one\n"
    assert.equal("one", ann:recv_line())
    support.reload_to(app, text .. "-- changed")
    app:wait_log { message = "generation retired", generation = 1 }
    local eve = app:connect():send "two\n"
    for _, one in ipairs { ann, bob } do assert.equal("two", one:recv_line()) end
    ann:send "three\n"
    for _, one in ipairs { bob, eve } do assert.equal("three", one:recv_line()) end
  end)
end)

describe("perilune check", function()
  local function warnings(settings)
    local folder = command.folder()
    command.write(folder .. "/app.lua", ([[local members, Room = {}, {}
      function Room:opened() members[self] = true end
      function Room:proceed(line) for m in pairs(members) do m.conn:send(line) end end
      function Room:closed() members[self] = nil end
      function Room:snapshot() end
      function Room:upgrade() self:opened() end
      return { listen = "tcp://127.0.0.1:0", frame = "line", agent = Room, %s }]]):format(settings))
    local result = command.run { "check", "app.lua", dir = folder }
    command.remove(folder)
    assert.equal(0, result.code)
    return result.err
  end

  it("warns of a room that a reload or the workers would split", function()
    local both = warnings ""
    has("warning: app.lua:2: handlers fill 'members', and each generation of the script has its own", both)
    has("warning: app.lua:2: handlers fill 'members', and each worker has its own; `workers` is not set", both)
    local pinned = warnings "workers = 1"
    has("each generation", pinned)
    assert.is_nil(pinned:find "each worker")
    local several = warnings 'reload = "migrate"'
    has("each worker", several)
    assert.is_nil(several:find "each generation")
    assert.equal("", warnings 'workers = 1, reload = "migrate"')
    assert.equal("", warnings 'workers = 2, reload = "drain"')
  end)
end)
