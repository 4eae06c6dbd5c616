-- Loops over tables visit all of them, whatever LuaJIT's trace compiler makes of the loops: src/vm/despecialize.c.
local command = require "spec.support.command"
local memory = require "spec.support.memory"

-- Loops within loops. After so many times the compiler gives the outer one up, in the middle of an iteration.
local NESTED = [[
  local inner = { 1, 2, 3, 4, 5 }
  local outer = { a = inner, b = inner, c = inner, d = inner, e = inner }
  local function pause(...) for _ = 1, 100 do end end
  local function count()
    pause()
    local n = 0
    for _, each in OUTER do
      for _ in INNER do end
      n = n + 1
    end
    return n
  end
  local function first_wrong()
    for i = 1, 120000 do
      if count() ~= 5 then return i end
    end
    return "none"
  end
  return first_wrong ]]

local LOOPS = { ["pairs(t)"] = "pairs(%s)", ["next, t"] = "next, %s" }

local function nested_of(loop)
  return (NESTED:gsub("OUTER", (loop:format "outer")):gsub("INNER", (loop:format "each")))
end

after_each(memory.finish)

-- What a handler of this script answers.
local function ask(script)
  local path = os.tmpname()
  command.write(path, script)
  local ok, app = pcall(memory.open, path)
  os.remove(path)
  assert(ok, app)
  local client = app:connect():send "go\n"
  return client:receive()
end

local SCRIPT = [[
  local text = %q
  local first_wrong = %s
  return { listen = "tcp://127.0.0.1:0", frame = "line", limits = { proceed = "1h" },
    agent = { proceed = function() return tostring(first_wrong()) end } } ]]

describe("a loop over", function()
  for what, loop in pairs(LOOPS) do
    local text = nested_of(loop)

    it(what .. " visits all of the table, in a script", function()
      assert.equal("none", ask(SCRIPT:format("", ("(function() %s end)()"):format(text))))
    end)

    it(what .. " visits all of it in what a script loads", function()
      assert.equal("none", ask(SCRIPT:format(text, "load(text)()")))
    end)
  end
end)
