--- No function that handlers have is without a verdict on how long a call of it can take, and the verdicts hold.
local calls = require "spec.support.long_calls"
local has = require "spec.support.has"
local memory = require "spec.support.memory"
local places = require "spec.support.places"

local function read(path)
  local file = assert(io.open(path))
  local text = file:read "*a"
  file:close()
  return text
end

local function names_in(text, set)
  for name in text:gmatch "%S+" do set[name] = true end
  return set
end

local function sorted(set)
  local list = {}
  for name in pairs(set) do list[#list + 1] = name end
  table.sort(list)
  return list
end

local WALK = [[
local function walk(prefix, library, names)
  for key, value in pairs(library) do
    if type(value) == "function" then names[#names + 1] = prefix .. key end
    if type(value) == "table" and value ~= _G then walk(prefix .. key .. ".", value, names) end
  end
end
function Agent:proceed()
  local names = {}
  walk("", _G, names)
  for _, name in ipairs { "crc", "crypto", "encoding", "hub", "json", "deflate", "inflate" } do
    assert(perilune[name]) -- makes it
  end
  walk("perilune.", perilune, names)
  return table.concat(names, " ")
end]]

--- All functions that handlers have, from where they are.
local function all_functions()
  local client = memory.script_lines(WALK):connect()
  client:send "go"
  local all = names_in(client:receive(), {})
  for name, value in pairs(debug.getmetatable(io.stdout)) do
    if type(value) == "function" then all["file." .. name] = true end
  end
  for _, name in ipairs(places.METHODS) do all["conn." .. name] = true end -- see places_spec.lua
  for name in read("lua/perilune/view.lua"):gmatch "\nfunction methods%.([%w_]+)" do all["view." .. name] = true end
  for name in read("lua/perilune/library/view.lua"):gmatch "\nfunction view:([%w_]+)" do all["view." .. name] = true end
  return all
end

describe("a function that handlers have", function()
  after_each(memory.finish)

  it("has a verdict on how long it can take", function()
    local all, known = all_functions(), { operators = true, reply = true }
    for _, list in ipairs { calls.SHORT, calls.SYSTEM, calls.WAITING, calls.FRAMES } do names_in(list, known) end
    for _, case in ipairs(calls.CASES) do known[case.name] = true end
    all.operators, all.reply = true, true
    assert.same(sorted(all), sorted(known), "what is new needs a line in spec/support/long_calls.lua")
  end)

  it("is named in the documentation if it cannot be ended", function()
    local text = read "docs/containment.md"
    text = text:sub((assert(text:find("**One long call of C**", 1, true))), (text:find("\n## Files", 1, true)))
    for _, case in ipairs(calls.CASES) do
      local is_function = case.name ~= "operators" and case.name ~= "reply"
      if case.verdict == "linear" and is_function then has("`" .. case.name .. "`", text) end
    end
  end)
end)

describe("a single call", function()
  after_each(memory.finish)

  local SECONDS = memory.scaled(0.15, 0.45)

  -- How much CPU time it takes until the connection has ended with that reason.
  local function run(case, n, reason)
    local script = calls.script(case, memory.scaled(n, n / 5), "tcp://127.0.0.1:0", "5ms")
    local client, began = assert(memory.script(script)):connect(), os.clock()
    client:send("go"):expect_closed(reason)
    return os.clock() - began
  end

  for _, case in ipairs(calls.CASES) do
    if case.shown then
      it(("ends with its budget: %s, of %s"):format(case.call, case.data), function()
        local took = run(case, case.shown, "proceed_timeout")
        assert.is_true(took < SECONDS, ("it took %.2f s"):format(took))
      end)
    elseif case.verdict == "refused" then
      it("is refused: " .. case.call, function() run(case, 10 ^ 6, "error") end)
    end
  end
end)
