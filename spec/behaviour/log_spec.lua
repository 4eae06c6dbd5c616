--- perilune.log(level, message, fields): what is handed over is in the entry, or is an error.
local has = require "spec.support.has"
local memory = require "spec.support.memory"

local core = require "perilune"

describe("perilune.log", function()
  after_each(memory.finish)

  -- The entry of a handler that logs; `arguments` is Lua text.
  local function log(arguments)
    local app = memory.script_lines(([[
      function Agent:proceed() perilune.log(%s) end
      function Agent:failed(err) return tostring(err) end]]):format(arguments))
    local client = app:connect():send("x")
    local said = client:frames()[1]
    return app:log()[1], said
  end

  it("writes fields beside those of the connection", function()
    local entry = log [["warn", "signed in",
      { user = "ann", tries = 3, share = 0.25, new = true, old = false, big = 2^53 }]]
    assert.same({ "warn", "signed in", "ann", 3, 0.25, true, false, 2 ^ 53 },
      { entry.level, entry.message, entry.user, entry.tries, entry.share, entry.new, entry.old, entry.big })
    assert.same({ 1, "127.0.0.1:40000", "tcp://127.0.0.1:0", 0, 1 },
      { entry.conn, entry.peer, entry.listener, entry.worker, entry.generation })
  end)

  it("takes none as well as nil for none", function()
    assert.equal("plain", log([["info", "plain"]]).message)
    assert.equal("plain", log([["info", "plain", nil]]).message)
    assert.equal("plain", log([["info", "plain", {}]]).message)
  end)

  it("drops no text for being empty, or for what is in it", function()
    local entry = log [["info", "x", { empty = "", zero = "a\0b", control = "\27[0m\n" }]]
    assert.same({ "", "a\0b", "\27[0m\n" }, { entry.empty, entry.zero, entry.control })
  end)

  it("takes numbers that are none", function()
    local entry = log [["info", "x", { nan = 0/0, much = math.huge, little = -math.huge }]]
    assert.is_true(entry.nan ~= entry.nan)
    assert.same({ math.huge, -math.huge }, { entry.much, entry.little })
  end)

  it("does not run what belongs to a table's metatable", function()
    assert.equal("y", log [["info", "x",
      setmetatable({ real = "y" }, { __index = error, __pairs = error, __len = error, __tostring = error })]].real)
  end)

  for _, case in ipairs {
    { [["loud", "x"]], 'got "loud"' },
    { [["info"]], "string expected, got no value" },
    { [["info", "x", "y"]], [[fields are a table, as in { user = "ann" }, not a string]] },
    { [["info", "%s came", "ann"]], "fields are a table" },
    { [["info", "x", {}, 1]], "takes a level, a message and a table of fields, not 4 arguments" },
    { [["info", "x", {}, nil]], "not 4 arguments" },
    { [["info", "x", { "y" }]], [[each field has a name, as in { user = "ann" }: 1 is none]] },
    { [["info", "x", { [true] = 1 }]], "a boolean is none" },
    { [["info", "x", { [2.5] = 1 }]], "2.5 is none" },
    { [["info", "x", { ["a b"] = 1 }]], [[a field's name has letters, digits and _ only, at most 32: "a b"]] },
    { [["info", "x", { [""] = 1 }]], [[at most 32: ""]] }, { [["info", "x", { ["1st"] = 1 }]], [["1st"]] },
    { [["info", "x", { ["a\27\0b"] = 1 }]], [["a\x1b\x00b"]] },
    { [["info", "x", { [("n"):rep(33)] = 1 }]], ("n"):rep(20) },
    { [["info", "x", { t = {} }]], "field 't' is a table: a text, a number or a boolean can be logged" },
    { [["info", "x", { f = print }]], "field 'f' is a function" },
    { [["info", "x", { c = 1LL }]], "field 'c' is a cdata" },
    { [["info", "x", (function() local t = {} for i = 1, 17 do t["f" .. i] = i end return t end)()]],
      "an entry has at most 16 fields" },
  } do
    it("refuses, and writes nothing: " .. case[1], function()
      local entry, said = log(case[1])
      assert.equal("handler failed", entry.message)
      has(case[2], said)
    end)
  end

  it("refuses what the server itself says", function()
    for _, name in ipairs { "time", "at_ms", "level", "message", "conn", "peer", "listener", "worker", "generation",
      "excerpt" } do
      local _, said = log(([["info", "x", { %s = 1 }]]):format(name))
      has(("the field '%s' is the server's own"):format(name), said)
    end
  end)

  it("is misused whether the level is logged or not", function()
    local app = memory.start({ proceed = function() core.log("debug", "x", "y") end },
      { frame = "line", log = { level = "error" } })
    app:connect():send("x"):expect_closed("error")
  end)

  it("cuts a text that is long, so that all fields have room", function()
    local entry = log [["info", "x", { a = ("x"):rep(1e6), z = "end" }]]
    assert.equal(1e6, #entry.a) -- a specification sees all of it; what is written: spec/unit/log_test.c
    assert.equal("end", entry.z)
  end)

  it("is the same in a specification", function()
    assert.has_error(function() core.log("info", "x", "y") end)
    assert.has_error(function() core.log("info", "x", { conn = 1 }) end)
  end)
end)
