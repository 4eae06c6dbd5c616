--- Patterns and strings that would run or grow without end: they cost their own connection, and nobody else.
local has = require "spec.support.has"
local server = require "spec.support.server"

local start_lines = server.start_lines

-- Far less than such a pattern would take, and far more than its budget does, with a sanitizer too.
local SOON_S = server.scaled(3, 20)

local function seconds_of(action)
  local socket = require "socket"
  local from = socket.gettime()
  action()
  return socket.gettime() - from
end

describe("a pattern that backtracks", function()
  after_each(server.finish)

  local function ends_its_own_connection(body)
    local app = start_lines([[
      function Agent:proceed(line)
        if line == "plain" then return line end
        ]] .. body .. [[

        return "done"
      end ]], nil, "limits = { proceed = false }") -- where patterns are slow, that would come first
    local neighbour = app:connect()
    neighbour:echo_line("plain")
    local seconds = seconds_of(function()
      assert.equal("", (app:connect():send("go\n"):recv_all(SOON_S)))
      neighbour:echo_line("plain")
    end)
    assert.is_true(seconds < SOON_S)
    local entry = app:wait_log "handler failed"
    has("pattern too complex: over 1", entry.error)
    has("simplify the pattern", entry.error)
    has("app.lua:", entry.place or entry.error)
  end

  it("exponentially ends its own connection", function()
    ends_its_own_connection [[local _ = ("a"):rep(40):match(("a?"):rep(40) .. ("a"):rep(40) .. "b")]]
  end)

  it("quadratically ends its own connection", function()
    ends_its_own_connection [[local _ = ("a"):rep(100000):find(".-b")]]
  end)

  it("in gsub ends its own connection", function()
    ends_its_own_connection [[local _ = string.gsub(("a"):rep(100000), "a-b", "")]]
  end)

  it("in a loop over matches ends its own connection", function()
    ends_its_own_connection [[for _ in ("a"):rep(100000):gmatch("%w-%d") do end]]
  end)
end)

describe("strings of a script", function()
  after_each(server.finish)

  it("nest the callbacks of gsub only so deep", function()
    local app = start_lines [[
      local function deep(s) return (s:gsub(".", deep)) end
      function Agent:proceed(line)
        if line == "deep" then return tostring(select(2, pcall(deep, "x"))) end
        return (line:gsub("%w+", string.upper))
      end ]]
    local one, other = app:connect(), app:connect()
    for _ = 1, 3 do has("nested too deep", one:send("deep\n"):recv_line()) end
    assert.equal("A-B", other:send("a-b\n"):recv_line())
    assert.equal("C", one:send("c\n"):recv_line())
  end)

  it("are not repeated beyond the limit", function()
    local app = start_lines([[
      function Agent:proceed(line)
        local n = tonumber(line)
        return tostring(select(2, pcall(string.rep, "x", n))):sub(1, 100) .. #("ab"):rep(3)
      end ]], nil, [[limits = { memory = "512m" }]])
    local client = app:connect()
    has("string.rep: a result of 5,000,000,000 bytes is over the memory limit of 512 MiB",
      client:send("5000000000\n"):recv_line())
    assert.equal("xxx6", client:send("3\n"):recv_line())
  end)

  it("and lists make no result beyond the limit, and it takes no memory to say so", function()
    local app = start_lines([[
      local mib, list = ("x"):rep(2 ^ 20), {}
      for i = 1, 40 do list[i] = mib end
      local BOMBS = {
        rep = function() return (mib:rep(40)) end,
        format = function() return (("%s"):rep(40):format(unpack(list))) end,
        concat = function() return (table.concat(list)) end,
      }
      function Agent:proceed(line)
        local before = self.conn.usage.bytes
        local _, err = pcall(BOMBS[line])
        return ("%s: %s"):format(self.conn.usage.bytes - before < 2 ^ 18, err)
      end ]], nil, [[limits = { memory = "32m" }]])
    local client = app:connect()
    for line, name in pairs { rep = "string.rep", format = "string.format", concat = "table.concat" } do
      has(("true: app.lua:%d: %s: a result of 41,943,040 bytes is over the memory limit of 32 MiB"):format(
        line == "rep" and 4 or line == "format" and 5 or 6, name), client:send(line .. "\n"):recv_line())
    end
  end)

  it("have their methods from the guarded library, and a locked metatable", function()
    local app = start_lines [[
      function Agent:proceed()
        local same = ("x").match == string.match and ("x").find == string.find and ("x").rep == string.rep
        return tostring(same) .. tostring(getmetatable("")) .. tostring(("x").dump) .. tostring(string.dump)
      end ]]
    assert.equal("truelockednilnil", app:connect():send("x\n"):recv_line())
  end)
end)
