--- Which tables of a file handlers fill: what connections share by them ends at a worker's and a generation's borders.
local shared = require "perilune.shared"

-- "name:line name:line" of what the agent that the text returns fills.
local function tables(text)
  local found = {}
  local function is_users(source) return source == "@app.lua" end
  for i, one in ipairs(shared.tables(assert(loadstring(text, "@app.lua"))(), is_users)) do
    found[i] = ("%s:%d"):format(one.name, one.line)
  end
  return table.concat(found, " ")
end

describe("tables that handlers fill", function()
  local CASES = {
    ["by the agent itself"] = { "m:2", [[local m, A = {}, {}
      function A:opened() m[self] = true end
      function A:closed() m[self] = nil end
      return A]] },
    ["by a name, in an assignment of several"] = { "users:2", [[local users, A = {}, {}
      function A:proceed(name) self.name, users[name] = name, self end
      return A]] },
    ["within one of them"] = { "rooms:3", [[local rooms, A = {}, {}
      function A:enter(room)
        rooms[room] = rooms[room] or {}
        rooms[room][self] = true
      end
      return A]] },
    ["as a list"] = { "list:2", [[local list, A = {}, {}
      function A:opened() list[#list + 1] = self end
      return A]] },
    ["by table.insert"] = { "list:2", [[local list, A = {}, {}
      function A:opened() table.insert(list, self) end
      return A]] },
    ["by a function that a method calls"] = { "store:2", [[local store, A = {}, {}
      local function put(key, value) store[key] = value end
      function A:proceed(line) put(line, line) end
      return A]] },
    ["by a function of a table that a method refers to"] = { "values:2", [[local values, A = {}, {}
      local commands = { set = function(key) values[key] = 1 end }
      function A:proceed(line) return commands[line](line) end
      return A]] },
    ["in a closure that a method makes"] = { "m:2", [[local m, A = {}, {}
      function A:opened() self.conn:defer(function() m[self] = 1 end) end
      return A]] },
    ["that a factory shares"] = { "shared:3", [[local shared = {}
      return function() return { proceed = function(_, line)
        shared[line] = line
      end } end]] },
    ["of a prototype's prototype"] = { "m:2", [[local m, Base = {}, {}
      function Base:opened() m[self] = true end
      return setmetatable({}, { __index = Base })]] },
  }
  for what, case in pairs(CASES) do
    it("are found, where they are filled " .. what, function() assert.equal(case[1], tables(case[2])) end)
  end

  local INNOCENT = {
    ["an agent's own"] = [[local A = {}
      function A:opened() self.seen = {} end
      function A:proceed(line) self.seen[line] = true end
      return A]],
    ["a local one"] = [[local names, A = { 1 }, {}
      function A:proceed(line) local t = {} t[line] = names[line] return t end
      return A]],
    ["one of a factory's connection"] = [[local known = { a = 1 }
      return function() local mine = {} return { proceed = function(_, line) mine[line] = known[line] end } end]],
    ["one that is only read, emptied or counted in"] = [[local t, A = { n = 0 }, {}
      function A:proceed(line) t.n = t.n + 1 t[line] = nil return t[line] end
      return A]],
    ["one that the top level fills"] = [[local t, A = {}, {}
      for i = 1, 10 do t[i] = i end
      function A:proceed(line) return t[#line] end
      return A]],
  }
  for what, text in pairs(INNOCENT) do
    it("are none of " .. what, function() assert.equal("", tables(text)) end)
  end
end)
