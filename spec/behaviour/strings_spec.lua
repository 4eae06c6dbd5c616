--- Patterns and strings that would run or grow without end: they cost their own connection, and nobody else.
local has = require "spec.support.has"
local memory = require "spec.support.memory"

local lines = memory.lines

-- Far less than such a pattern would take, and far more than its budget does, with a sanitizer too.
local SOON_S = memory.scaled(3, 20)

describe("a pattern that backtracks", function()
  after_each(memory.finish)

  local function ends_its_own_connection(work)
    local Agent = {}
    function Agent:proceed(line)
      if line == "plain" then return line end
      work()
      return "done"
    end
    local app = lines(Agent, { limits = { proceed = false } }) -- where patterns are slow, that would come first
    local neighbour = app:connect():send("plain"):expect("plain")
    local from = os.clock()
    app:connect():send("go"):expect_nothing():expect_closed("error")
    assert.is_true(os.clock() - from < SOON_S)
    neighbour:send("plain"):expect("plain")
    local entry = app:faults()[1]
    has("pattern too complex: over 1", entry.error)
    has("simplify the pattern", entry.error)
    has("strings_spec.lua:", entry.place)
  end

  it("exponentially ends its own connection", function()
    ends_its_own_connection(function() local _ = ("a"):rep(40):match(("a?"):rep(40) .. ("a"):rep(40) .. "b") end)
  end)

  it("quadratically ends its own connection", function()
    ends_its_own_connection(function() local _ = ("a"):rep(100000):find(".-b") end)
  end)

  it("in gsub ends its own connection", function()
    ends_its_own_connection(function() local _ = string.gsub(("a"):rep(100000), "a-b", "") end)
  end)

  it("in a loop over matches ends its own connection", function()
    ends_its_own_connection(function() for _ in ("a"):rep(100000):gmatch("%w-%d") do end end) -- luacheck: ignore 542
  end)
end)

describe("a plain search", function()
  after_each(memory.finish)

  it("finds what lies across the pieces that it looks at, and nothing else", function()
    local Agent = {}
    function Agent:proceed()
      local piece, found = 2 ^ 20, {}
      for _, text in ipairs { "b", "bcd", ("b"):rep(70), ("bc"):rep(40000) } do
        for _, at in ipairs { 1, 2, piece - #text, piece - 1, piece, piece + 1, 2 * piece - 1, 2 * piece, 3 * piece } do
          if at >= 1 then
            local subject = ("a"):rep(at - 1) .. text .. ("a"):rep(1000)
            local from, to = subject:find(text, 1, true)
            if from ~= at or to ~= at + #text - 1 or subject:find(text .. "!", 1, true)
              or subject:find(text, at + 1, true) and #text < 70 then
              found[#found + 1] = ("%d bytes at %d: %s"):format(#text, at, tostring(from))
            end
          end
        end
      end
      return "wrong: " .. table.concat(found, ", ")
    end
    local app = memory.lines(Agent, { limits = { proceed = "20s", send_buffer = "1m" } })
    app:connect():send("go"):expect("wrong: ")
  end)
end)

describe("strings of a script", function()
  after_each(memory.finish)

  it("nest the callbacks of gsub only so deep", function()
    local function deep(s) return (s:gsub(".", deep)) end
    local Agent = {}
    function Agent:proceed(line)
      if line == "deep" then return tostring(select(2, pcall(deep, "x"))) end
      return (line:gsub("%w+", string.upper))
    end
    local app = lines(Agent)
    local one, other = app:connect(), app:connect()
    for _ = 1, 3 do has("nested too deep", one:send("deep"):receive()) end
    other:send("a-b"):expect("A-B")
    one:send("c"):expect("C")
  end)

  it("are not repeated beyond the limit", function()
    local Agent = {}
    function Agent:proceed(line)
      local n = tonumber(line)
      return tostring(select(2, pcall(string.rep, "x", n))):sub(1, 100) .. #("ab"):rep(3)
    end
    local client = lines(Agent, { limits = { memory = "512m" } }):connect()
    has("string.rep: a result of 5,000,000,000 bytes is over the memory limit of 512 MiB",
      client:send("5000000000"):receive())
    client:send("3"):expect("xxx6")
  end)

  it("and lists make no result beyond the limit, and it takes no memory to say so", function()
    local mib, list = nil, {}
    local BOMBS = {
      rep = function() return (mib:rep(40)) end,
      format = function() return (("%s"):rep(40):format(unpack(list))) end,
      concat = function() return (table.concat(list)) end,
    }
    local Agent = {}
    function Agent:proceed(line)
      local before = self.conn.usage.bytes
      local _, err = pcall(BOMBS[line])
      return ("%s: %s"):format(self.conn.usage.bytes - before < 2 ^ 18, err)
    end
    local function setup()
      mib = ("x"):rep(2 ^ 20)
      for i = 1, 40 do list[i] = mib end
    end
    local client = lines(Agent, { limits = { memory = "32m" }, setup = setup }):connect()
    for line, name in pairs { rep = "string.rep", format = "string.format", concat = "table.concat" } do
      local told = client:send(line):receive()
      has("true: ", told)
      has((": %s: a result of 41,943,040 bytes is over the memory limit of 32 MiB"):format(name), told)
      assert.matches("strings_spec.lua:%d+: ", told)
    end
  end)

  it("have their methods from the guarded library, and a locked metatable", function()
    local Agent = {}
    function Agent:proceed()
      local same = ("x").match == string.match and ("x").find == string.find and ("x").rep == string.rep
      return tostring(same) .. tostring(getmetatable("")) .. tostring(("x").dump) .. tostring(string.dump)
    end
    lines(Agent):connect():send("x"):expect("truelockednilnil")
  end)
end)
