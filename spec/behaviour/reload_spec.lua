--- app:reload of perilune.test: what a reload does to the connections that there are, as in a server.
local core = require "perilune"
local memory = require "memory"
local perilune = require "perilune.test"

local has = require "has"

-- Answers each line with the name of the version and how many lines this agent has had.
local function version(name, settings)
  local Agent = {}
  function Agent:proceed(line)
    self.n = (self.n or 0) + 1
    if line == "wait" then core.sleep "1s" end
    if line == "who" then return name .. " " .. math.min(self.n, 100) end
    return line
  end
  function Agent:closed(reason) core.log("info", name .. " closed: " .. reason) end
  function Agent:snapshot() return { n = self.n or 0 } end
  function Agent:upgrade(data) self.n = data.n end
  local script = { listen = "tcp://127.0.0.1:9000", frame = "line", agent = Agent,
    teardown = function() core.log("info", name .. " torn down") end }
  for key, value in pairs(settings or {}) do script[key] = value end
  return script
end

describe("app:reload", function()
  after_each(memory.finish)

  it("gives new connections the new script, and leaves the others theirs", function()
    local app = memory.open(version "one")
    local old = app:connect():send("who"):expect("one 1")
    app:reload(version "two")
    local new = app:connect():send("who"):expect("two 1")
    old:send("who"):expect("one 2")
    assert.same({}, memory.noted(app))
    old:close()
    assert.same({ "one closed: peer", "one torn down" }, memory.noted(app))
    new:send("who"):expect("two 2")
    assert.equal(2, app:counters().accepted)
  end)

  it("reads a file anew", function()
    local path = os.tmpname()
    finally(function() os.remove(path) end)
    local function write(name)
      local file = assert(io.open(path, "w"))
      file:write(([[return { listen = "tcp://127.0.0.1:0", frame = "line",
        agent = { proceed = function() return %q end } }]]):format(name))
      file:close()
    end
    write "one"
    local app = memory.open(path)
    write "two"
    local old = app:connect():send("who"):expect("one")
    app:reload()
    app:connect():send("who"):expect("two")
    old:send("who"):expect("one")
  end)

  it("begins a generation even where nothing has changed", function()
    local answered = 0
    local app = memory.lines { proceed = function()
      answered = answered + 1
      return tostring(answered)
    end }
    app:connect():send("a", "b"):expect("1", "2")
    app:reload():connect():send("a"):expect("1")
  end)

  it("hands idle connections over to a script that says so, and busy ones when they are free", function()
    local app = memory.open(version "one")
    local idle, busy = app:connect():send("who"):expect("one 1"), app:connect():send("wait")
    app:reload(version("two", { reload = "migrate" }))
    idle:send("who"):expect("two 2")
    busy:expect_nothing()
    app:advance "1s"
    busy:expect("wait"):send("who"):expect("two 2")
    assert.same({ "one torn down" }, memory.noted(app))
  end)

  it("drains connections where the script says so", function()
    local app = memory.open(version "one")
    local idle, busy = app:connect():send("who"):expect("one 1"), app:connect():send("wait")
    app:reload(version("two", { reload = "drain" }))
    idle:expect_closed("drain")
    busy:expect_nothing()
    app:advance "1s"
    busy:expect("wait"):expect_closed("drain")
    app:connect():send("who"):expect("two 1")
  end)

  it("ends at timeout.drain what does not end before", function()
    local app = memory.open(version "one")
    local busy = app:connect():send("wait")
    app:reload(version("two", { reload = "drain", timeout = { drain = "500ms" } }))
    app:advance "499ms"
    assert.is_nil(busy:closed())
    app:advance "1ms"
    busy:expect_closed("drain")
  end)

  it("changes nothing where the script cannot be loaded", function()
    local app = memory.open(version "one")
    local ok, message = pcall(app.reload, app, { frame = "line", agent = { procede = function() end } })
    assert.is_false(ok)
    has("cannot be loaded", tostring(message))
    ok, message = pcall(app.reload, app, version("two", { listen = "tcp://127.0.0.1:9001" }))
    assert.is_false(ok)
    has("in memory a reload keeps the listeners", tostring(message))
    ok, message = pcall(app.reload, app, 7)
    assert.is_false(ok)
    has("reload: the file of a script is expected, or the table that one returns; got a number", tostring(message))
    app:connect():send("who"):expect("one 1")
  end)

  it("has settings of its own, or those that the app was opened with", function()
    local app = memory.open(version "one", { timeout = { idle = "1s" } })
    app:reload(version "two")
    local client = app:connect()
    app:advance "1s"
    client:expect_closed("idle_timeout")
    app:reload(version "three", { limits = { per_ip = 1 } })
    client = app:connect { from = "10.0.0.7:1" }
    app:connect { from = "10.0.0.7:2" }:expect_closed("limit")
    app:advance "1s"
    assert.is_nil(client:closed())
  end)

  it("lets clients read what a codec in Lua has sent that is gone", function()
    local function lua_codec(name)
      return { listen = "tcp://127.0.0.1:9000", agent = { proceed = function() return { name } end },
        frame = {
          decode = function(bytes, at)
            local stop = bytes:find("\n", at, true)
            if stop then return { bytes:sub(at, stop - 1) }, stop + 1 end
          end,
          encode = function(value) return value[1] .. "\n" end,
        } }
    end
    local app = memory.open(lua_codec "one")
    local old = app:connect():send({ "x" })
    old:close()
    app:reload(lua_codec "two")
    local new = app:connect():send({ "x" })
    assert.same({ { "two" } }, new:frames())
    old:frames()
  end)

  it("leaves connections out to the generation that has made them", function()
    local net = perilune.net()
    local db = net:serve("tcp://db:1",
      { frame = "line", agent = { proceed = function(_, line) core.sleep "1s" return "<" .. line .. ">" end } })
    local function proxy(name)
      local pool
      return { listen = "tcp://127.0.0.1:9000", frame = "line", agent = { proceed = function(_, line)
        pool = pool or core.pool("tcp://db:1", { frame = "line" })
        return name .. (pool:request(line) or "?")
      end } }
    end
    local app = net:app(proxy "one")
    local old = app:connect():send("a")
    app:reload(proxy "two")
    local new = app:connect():send("b")
    net:advance "1s"
    old:expect("one<a>"):close()
    new:expect("two<b>")
    assert.equal(1, app:counters().outgoing)
    assert.equal(2, db:counters().accepted)
    has("is reloaded", net:history())
    net:close()
  end)
end)
