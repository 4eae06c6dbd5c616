-- perilune.json beside lua-cjson (Debian: lua-cjson), in one process, in turn: documents of 2 KiB, decoded and encoded.
--
--   build/perilune exec bench/json.lua [ROUNDS]
--   build/perilune exec bench/json.lua --json     -- for scripts/bench: the ratios of the first document, as an object
--
-- A round measures each of the two, the order reversed every other round, in CPU time; a ratio is computed in a round,
-- and the median of the ratios is printed, with the smallest and the largest. Above 1: perilune.json is faster.
local json = require("perilune").json
local has_cjson, cjson = pcall(require, "cjson")
if not has_cjson then error("bench/json.lua: lua-cjson is missing: apt-get install lua-cjson", 0) end

local IS_JSON = arg and arg[1] == "--json"
local ROUNDS = tonumber(arg and arg[1]) or 15
local SECONDS = 0.05

-- ---- the documents -------------------------------------------------------------

local function mixed()
  local items = {}
  for i = 1, 9 do
    items[i] = {
      id = 1000 + i, name = "item number " .. i, price = 19.99 + i, tags = { "new", "in stock", "blue" },
      active = i % 2 == 0,
      position = { x = 12.5 * i, y = -3.25 }, note = "a text of some words, \"quoted\"\n", parent = json.null,
      count = i * 17,
    }
  end
  return { version = 3, page = 1, items = items }
end

local function texts()
  local list = {}
  for i = 1, 32 do list[i] = ("line %d of a text without anything odd in it, as most are"):format(i) end
  return { lines = list }
end

local function integers()
  local list = {}
  for i = 1, 330 do list[i] = i * 997 end
  return { values = list }
end

local function reals()
  local list = {}
  for i = 1, 240 do list[i] = math.floor(i * 1234.567) / 1000 end
  return { values = list }
end

-- Of which each has 16 or 17 digits: the worst there is.
local function long_reals()
  local list = {}
  for i = 1, 105 do list[i] = math.sin(i) end
  return { values = list }
end

local function foreign()
  local list = {}
  for i = 1, 20 do list[i] = "Größe und Maß: çà et là, 日本語のテキスト, 🙂 " .. i end
  return { lines = list }
end

local DOCUMENTS = {
  { "mixed", mixed }, { "texts", texts }, { "integers", integers }, { "reals", reals }, { "17 digits", long_reals },
  { "not ASCII", foreign },
}

-- ---- measuring -----------------------------------------------------------------

local function seconds_of(fn, value, times)
  local began = os.clock()
  for _ = 1, times do fn(value) end
  return os.clock() - began
end

-- As many calls as take SECONDS.
local function times_of(fn, value)
  local times = 10
  while seconds_of(fn, value, times) < SECONDS / 4 do times = times * 2 end
  return times * 2
end

local function median(list)
  table.sort(list)
  return list[math.ceil(#list / 2)]
end

local function compare(ours, theirs, our_value, their_value)
  local times = times_of(ours, our_value)
  local ratios, nanoseconds = {}, {}
  for round = 1, ROUNDS do
    local first, second
    collectgarbage()
    if round % 2 == 0 then
      first = seconds_of(ours, our_value, times)
      collectgarbage()
      second = seconds_of(theirs, their_value, times)
    else
      second = seconds_of(theirs, their_value, times)
      collectgarbage()
      first = seconds_of(ours, our_value, times)
    end
    ratios[round], nanoseconds[round] = second / first, first / times * 1e9
  end
  return median(ratios), ratios[1], ratios[#ratios], median(nanoseconds)
end

if IS_JSON then
  local value = mixed()
  local text = json.encode(value)
  local decode = compare(json.decode, cjson.decode, text, text)
  local encode = compare(json.encode, cjson.encode, json.decode(text), cjson.decode(text))
  print(json.encode { decode_ratio = decode, encode_ratio = encode })
  return
end

print(("%-10s %6s  %-6s %22s %10s"):format("document", "bytes", "", "ratio (least, most)", "µs a call"))
for _, document in ipairs(DOCUMENTS) do
  local name, value = document[1], document[2]()
  local text = json.encode(value)
  local decoded, theirs = json.decode(text), cjson.decode(text)
  local function show(what, ...)
    local ratio, least, most, ns = ...
    print(("%-10s %6d  %-6s %7.2f (%5.2f, %5.2f) %10.2f"):format(name, #text, what, ratio, least, most, ns / 1000))
  end
  show("decode", compare(json.decode, cjson.decode, text, text))
  show("encode", compare(json.encode, cjson.encode, decoded, theirs))
end
