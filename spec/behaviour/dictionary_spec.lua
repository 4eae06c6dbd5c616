--- perilune.shared: dictionaries that all workers share, as handlers see them. What they do among threads:
--- spec/unit/dict_test.c and spec/server/dictionary_spec.lua.
local perilune = require "perilune.test"
local core = require "perilune"
local has = require "spec.support.has"
local memory = require "spec.support.memory"

describe("a shared dictionary", function()
  local app
  after_each(function()
    if app then app:close() end
    app = nil
    memory.finish()
  end)

  -- An app whose handler is given the dictionary, and a line.
  local function open(proceed, settings)
    local all = {
      listen = "tcp://127.0.0.1:9000", frame = "line", shared = { sessions = "1m" },
      agent = { proceed = function(self, line) return proceed(core.shared "sessions", line, self) end },
    }
    for key, value in pairs(settings or {}) do all[key] = value end
    app = perilune.app(all)
    return app:connect()
  end

  local function show(...)
    local texts = {}
    for i = 1, select("#", ...) do texts[i] = tostring((select(i, ...))) end
    return texts[1] and table.concat(texts, " ") or "nothing"
  end

  local function show_outcome(ok, ...) return ok and show(...) or "raised " .. tostring((...)) end

  -- Answers with what an expression gives, `d` being the dictionary.
  local function shell(settings)
    return open(function(d, line)
      return show_outcome(pcall(assert(loadstring("local d = ... return " .. line, "=line")), d))
    end, settings)
  end

  local function ask(client, line)
    client:send(line)
    return client:receive()
  end

  it("keeps what is put for all connections, and by its key", function()
    local one = shell()
    local two = app:connect()
    assert.equal("true", ask(one, 'd:set("a", "text")'))
    assert.equal("text", ask(two, 'd:get "a"'))
    assert.equal("nil", ask(two, 'd:get "b"'))
    assert.equal("true", ask(one, 'd:set(7, 0.5)'))
    assert.equal("0.5", ask(two, 'd:get "7"'))
    assert.equal("true", ask(two, 'd:delete "a"'))
    assert.equal("false", ask(two, 'd:delete "a"'))
    assert.equal("nil", ask(one, 'd:get "a"'))
  end)

  it("gives values back as what they were", function()
    local client = open(function(d)
      for _, value in ipairs { 0, -1.5, 1 / 0, "", "a\0b", true, false } do
        assert(d:set("k", value))
        assert(d:get "k" == value and type(d:get "k") == type(value))
      end
      d:set("k", 0 / 0)
      assert(d:get "k" ~= d:get "k")
      local list = { 1, 2, { deep = { "x" } }, [10] = "ten" }
      d:set("k", list)
      list[3].deep[1] = "changed" -- it was copied
      local got = d:get "k"
      assert(got ~= list and got[1] == 1 and got[3].deep[1] == "x" and got[10] == "ten")
      got[1] = "changed"
      assert(d:get "k"[1] == 1)
      d:set("k", 12345678901234567LL)
      assert(d:get "k" == 12345678901234567LL)
      return "all"
    end)
    assert.equal("all", ask(client, ""))
  end)

  it("adds, replaces and counts", function()
    local client = shell()
    assert.equal("nil there is no value ENOENT", ask(client, 'd:replace("a", 1)'))
    assert.equal("true", ask(client, 'd:add("a", 1)'))
    assert.equal("nil there is a value already EEXIST", ask(client, 'd:add("a", 2)'))
    assert.equal("true", ask(client, 'd:replace("a", 2)'))
    assert.equal("3", ask(client, 'd:incr "a"'))
    assert.equal("0.5", ask(client, 'd:incr("a", -2.5)'))
    assert.equal("1", ask(client, 'd:incr "new"'))
    assert.equal("110", ask(client, 'd:incr("newer", 10, 100)'))
    assert.equal("nil there is no value ENOENT", ask(client, 'd:incr("newest", 1, false)'))
    ask(client, 'd:set("text", "1")')
    assert.equal("nil the value is no number EINVAL", ask(client, 'd:incr "text"'))
  end)

  it("lets values expire, in the time of the app", function()
    local client = shell()
    ask(client, 'd:set("a", "x", "10s")')
    ask(client, 'd:set("b", "x")')
    ask(client, 'd:incr("c", 1, 0, 10)')
    assert.equal("10", ask(client, 'd:ttl "a"'))
    assert.equal("inf", ask(client, 'd:ttl "b"'))
    assert.equal("nil", ask(client, 'd:ttl "none"'))
    app:advance "9s"
    assert.equal("1", ask(client, 'd:ttl "a"'))
    assert.equal("2", ask(client, 'd:incr("c", 1, 0, 10)')) -- its time goes on
    assert.equal("true", ask(client, 'd:expire("b", "2s")'))
    assert.equal("false", ask(client, 'd:expire("none", "2s")'))
    app:advance "1s"
    assert.equal("nil", ask(client, 'd:get "a"'))
    assert.equal("1", ask(client, 'd:incr("c", 1, 0, 10)'))
    assert.equal("x", ask(client, 'd:get "b"'))
    assert.equal("true", ask(client, 'd:expire("b")'))
    app:advance "50s"
    assert.equal("x", ask(client, 'd:get "b"'))
  end)

  it("is bounded: what was used longest ago goes", function()
    local client = open(function(d, line)
      if line == "status" then
        local s = d:status()
        assert(s.bytes <= s.limit and s.limit == 65536)
        return ("%d %d"):format(s.entries + s.evicted, s.evicted > 0 and 1 or 0)
      end
      for i = 1, 2000 do
        assert(d:set(line .. i, ("x"):rep(100)))
        assert(d:get(line .. i))
      end
      local value, message, code = d:set("large", ("x"):rep(65536))
      return ("%s %s %s"):format(value, message, code)
    end, { shared = { sessions = "64k" } })
    assert.equal("nil larger than the dictionary EMSGSIZE", ask(client, "k"))
    assert.equal("2000 1", ask(client, "status"))
  end)

  it("lists its keys, and forgets them", function()
    local client = open(function(d, line)
      if line == "clear" then d:clear() end
      for i = 1, line == "fill" and 50 or 0 do d:set("k" .. i, i) end
      local keys, seen = d:keys(), {}
      for _, key in ipairs(keys) do seen[key] = true end
      for i = 1, #keys do assert(seen["k" .. i]) end
      return ("%d %d %d"):format(#keys, #d:keys(7), #d:keys(0))
    end)
    assert.equal("50 7 0", ask(client, "fill"))
    assert.equal("0 0 0", ask(client, "clear"))
  end)

  it("changes a value by a function, which is called again where another was quicker", function()
    local client = open(function(d, line)
      if line == "quick" then return tostring(d:incr("n")) end
      local calls = 0
      local value = d:update("n", function(old)
        calls = calls + 1
        if line == "slow" then core.sleep "10ms" end
        if line == "delete" then return nil end
        return (old or 0) + 10
      end)
      return ("%s after %d"):format(tostring(value), calls)
    end)
    local other = app:connect()
    assert.equal("10 after 1", ask(client, "now"))
    client:send("slow")
    assert.equal("11", ask(other, "quick"))
    app:advance "100ms"
    assert.equal("21 after 2", client:receive())
    assert.equal("nil after 1", ask(client, "delete"))
    assert.equal("1", ask(other, "quick"))
  end)

  it("survives reloads", function()
    local function script(text)
      return { listen = "tcp://127.0.0.1:9000", frame = "line", shared = { sessions = "1m" },
        agent = { proceed = function() return text .. " " .. core.shared "sessions":incr "n" end } }
    end
    app = perilune.app(script "old")
    local old = app:connect():send("x"):expect("old 1")
    app:reload(script "new")
    app:connect():send("x"):expect("new 2")
    old:send("x"):expect("old 3")
  end)

  it("refuses views of frames, and says what to do", function()
    local client = open(function(d, view)
      return select(2, pcall(d.set, d, "k", view)) .. "|" .. select(2, pcall(d.set, d, "k", { a = view })) .. "|"
        .. tostring(d:set("k", view:string())) .. d:get "k"
    end, { frame = { "line", view = true } })
    local text = "shared:set: only plain data can be shared: cannot serialize 'cdata', as a view of a frame is: "
      .. "view:string() makes a text of it"
    assert.equal(("%s|%s|truebytes"):format(text, text), (ask(client, "bytes"):gsub("[^|]-: (shared:set)", "%1")))
  end)

  -- Packing goes on to its end, whatever the handler's time is.
  it("refuses what is too large before it is packed", function()
    local client = open(function(d)
      local twice = {}
      for _ = 1, 60 do twice = { twice, twice } end -- of 2^60 items
      local value, message, code = d:set("k", twice)
      return show(value, message, code, d:update("k", function() return twice end))
    end)
    assert.equal("nil larger than the dictionary EMSGSIZE nil larger than the dictionary EMSGSIZE", ask(client, ""))
  end)

  it("keeps what setup() and reloads do in the time of the app", function()
    local function script()
      return { listen = "tcp://127.0.0.1:9000", frame = "line", shared = { sessions = "1m" },
        setup = function()
          local d = core.shared "sessions"
          if not d:get "set up" then d:set("set up", 1, "1m") end
          core.log("info", tostring(d:get "kept"))
        end,
        agent = { proceed = function(_, line)
          local d = core.shared "sessions"
          if line == "keep" then d:set("kept", "kept", "5m") end
          return tostring(d:ttl "set up") .. " " .. tostring(d:get "kept")
        end } }
    end
    app = perilune.app(script())
    assert.equal("60 nil", ask(app:connect(), "look"))
    app:advance "30s"
    assert.equal("30 kept", ask(app:connect(), "keep"))
    app:reload(script())
    assert.equal(1, #app:log "kept")
    assert.equal("30 kept", ask(app:connect(), "look"))
    app:advance "1m"
    assert.equal("nil kept", ask(app:connect(), "look"))
  end)

  it("lists its keys in the same order each time", function()
    local lists = {}
    for i = 1, 2 do
      local client = open(function(d)
        for k = 1, 50 do d:set("k" .. k, k) end
        return table.concat(d:keys(), " ")
      end)
      lists[i] = ask(client, "")
      app:close()
    end
    assert.equal(lists[1], lists[2])
  end)

  it("is of one app, and not of the next", function()
    ask(shell(), 'd:set("a", 1)')
    app:close()
    assert.equal("nil", ask(shell(), 'd:get "a"'))
  end)

  -- ---- what is wrong ----

  it("says what is wrong with a call, and where", function()
    local client = shell()
    for line, message in pairs {
      ['d:get()'] = "shared:get: the key is a string or a number, got no value",
      ['d:get {}'] = "shared:get: the key is a string or a number, got table",
      ['d.get "a"'] = "shared:get: call it with a colon, as in sessions:get(…)",
      ['d.get(io.stdout, "a")'] = "shared:get: call it with a colon",
      ['d:get("a", 1)'] = "shared:get",
      ['d:get(("x"):rep(70000))'] = "shared:get: the key has 70000 bytes, and may have 65535",
      ['d:set("a")'] = "shared:set: there is no value: shared:delete(key) removes one",
      ['d:set("a", print)'] = "shared:set: only plain data can be shared: the value is a function",
      ['d:set("a", { b = { print } })'] = 'the value["b"][1] is a function',
      ['d:set("a", (function() local t = {} t.t = t return t end)())'] = "has tables within each other, more than 100",
      ['d:set("a", { x = setmetatable({}, {}) })'] = "shared:set: only plain data can be shared: "
        .. 'the value["x"] has a metatable, which would be lost',
      ['d:set("a", 1, "soon")'] = "shared: the time to live:",
      ['d:update("a", function() end)'] = "shared:update: the function returned nothing: it is to return the new value",
      ['d:incr("a", 1, "1m")'] = 'the time to live comes behind it, as in incr(key, 1, 0, "1m")',
      ['d:incr("a", "1")'] = "shared:incr: what is added is a number, got string",
      ['d:keys(-1)'] = "shared:keys: how many: from 0 to 1000000",
      ['d:update("a", 1)'] = "shared:update: expects a function of the old value, got 1",
      ['d:gett "a"'] = 'a shared dictionary has no method "gett" (did you mean "get"?)',
      ['rawset(d, "a", 1)'] = "table expected",
      ['(function() d.a = 1 end)()'] = 'a shared dictionary is written by its methods: sessions:set("a", …)',
      ['require "perilune".shared "session"'] = 'perilune.shared: no dictionary "session" is declared '
        .. '(did you mean "sessions"?): in the script\'s settings, shared = { session = "16m" }',
      ['require "perilune".shared(7)'] = 'perilune.shared: expects a name such as "sessions", got 7',
    } do
      has(message, ask(client, line))
    end
    assert.equal("nil", ask(client, 'd:get "a"'))
  end)

  -- ---- at load ----

  local function load_failure(source)
    local loaded, message = memory.script(source)
    assert.is_nil(loaded)
    return message
  end

  local REST = '\nreturn { listen = "tcp://127.0.0.1:9000", agent = { proceed = print }, %s }'

  it("that nobody declares is an error of the script, not of the first request", function()
    local source = 'local d = require("perilune").shared "sesions"' .. REST:format 'shared = { sessions = "1m" }'
    has('shared: perilune.shared: no dictionary "sesions" is declared (did you mean "sessions"?)', load_failure(source))
  end)

  it("cannot be used before the server runs", function()
    local source = 'local d = require("perilune").shared "sessions" d:set("a", 1)'
      .. REST:format 'shared = { sessions = "1m" }'
    has("perilune.shared: sessions:set: only inside a running server", load_failure(source))
  end)

  it("may have another size where a specification says so", function()
    app = perilune.app({ listen = "tcp://127.0.0.1:9000", frame = "line", shared = { sessions = "1m" },
      agent = { proceed = function() return tostring(core.shared "sessions":status().limit) end } },
      { shared = { sessions = "64k", others = "1m" } })
    app:connect():send("x"):expect("65536")
  end)

  it("has a size, and a name", function()
    has('shared: sessions: expects a size from 64k to 64g, got "1k"',
      load_failure(REST:format 'shared = { sessions = "1k" }'))
    has('shared: expects dictionaries and their sizes such as { sessions = "16m" }',
      load_failure(REST:format 'shared = { "16m" }'))
    has("shared: expects dictionaries", load_failure(REST:format 'shared = "16m"'))
  end)

  it("keeps its size as long as the process runs", function()
    local function script(size)
      return { listen = "tcp://127.0.0.1:9000", frame = "line", shared = { sessions = size },
        agent = { proceed = function() return tostring(core.shared "sessions":status().limit) end } }
    end
    app = perilune.app(script "1m")
    local ok, message = pcall(app.reload, app, script "2m")
    assert.is_false(ok)
    has("shared.sessions: it has 1048576 bytes since the process began: a size cannot change without a restart",
      tostring(message))
    app:connect():send("x"):expect("1048576")
  end)

  it("that only a refused reload has declared has not been there", function()
    local function script(size, setup)
      return { listen = "tcp://127.0.0.1:9000", frame = "line", shared = { sessions = "1m", other = size },
        setup = setup, agent = { proceed = function()
          local ok, other = pcall(core.shared, "other")
          return ok and tostring(other:status().limit) or "none"
        end } }
    end
    app = perilune.app(script(nil, nil))
    assert.is_false(pcall(app.reload, app, script("64k", function() error "not yet" end)))
    app:connect():send("x"):expect("none")
    app:reload(script("1m", nil))
    app:connect():send("x"):expect("1048576")
  end)
end)
