-- What a loop over a table costs an item: as LuaJIT compiles it, and as Perilune has it compiled
-- (src/vm/despecialize.c), which is as a loop over any iterator.
--
--     luajit bench/pairs.lua [off]          off: interpreted
local ITEMS, ROUNDS, TIMES = 20, 7, 100000

local items = {}
for i = 1, ITEMS do items["key " .. i] = i end

local own = [[
  local items, times = ...
  local sum = 0
  for _ = 1, times do
    for _, item in pairs(items) do sum = sum + item end
  end
  return sum ]]
local any = "local each = pairs " .. own:gsub("pairs", "each")

if arg[1] == "off" then jit.off() end
local seconds = { {}, {} }
for round = 1, ROUNDS do
  for i, text in ipairs { own, any } do
    local loop, began = assert(loadstring(text)), os.clock()
    loop(items, TIMES)
    seconds[i][round] = os.clock() - began
  end
end

local function median(list)
  table.sort(list)
  return list[math.ceil(#list / 2)] / TIMES / ITEMS * 1e9
end

print(("an item: %.1f ns, as over any iterator %.1f ns"):format(median(seconds[1]), median(seconds[2])))
