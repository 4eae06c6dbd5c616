-- Compares trees with copies of theirs, by a recursive function that returns out of its loops: what LuaJIT's trace
-- compiler makes of that has ended the process. Arguments: a seed, how many trees.
local seed, trees = tonumber(arg[1]), tonumber(arg[2])

local function draw(n)
  seed = (seed * 16807) % 2147483647
  return seed % n + 1
end

local SCALARS = { 0, 1 / 3, math.huge, -1, 2 ^ 53, true, false, "", 5LL, 7ULL, "x", "abc" }

local function draw_key()
  local kind = draw(3)
  return kind == 1 and draw(100) or kind == 2 and "k" .. draw(20) or draw(100) / 7
end

local function draw_tree(depth)
  local n = draw(10)
  if depth > 9 or n <= 3 then return SCALARS[draw(#SCALARS)] end
  local tree = {}
  for i = 1, draw(3) do
    if n <= 7 then tree[i] = draw_tree(depth + 1) else tree[draw_key()] = draw_tree(depth + 1) end
  end
  return tree
end

-- One in twenty tables gets something of its own.
local function nearly_copy(value)
  if type(value) ~= "table" then return value end
  local copy = {}
  for key, item in next, value do copy[key] = nearly_copy(item) end
  if draw(20) == 1 then copy[draw(5)] = draw(3) end
  return copy
end

-- Compiled anew for each pair, as what is made in a handler is.
local COMPARE = [[
  local one, other = ...
  local function differs(one, other)
    if type(one) ~= type(other) then return true end
    if type(one) ~= "table" then return one ~= other or one == 0 and 1 / one ~= 1 / other end
    for key, item in pairs(one) do if differs(item, other[key]) then return true end end
    for key in pairs(other) do if one[key] == nil then return true end end
  end
  local function deep(n) if n == 0 then return differs(one, other) end return (deep(n - 1)) end
  return differs(one, other), deep(3) ]]

jit.off(draw_tree)
jit.off(nearly_copy)
local compare = assert(load(COMPARE))
for i = 1, trees do
  local tree = draw_tree(0)
  local at_once, deeper = compare(tree, nearly_copy(tree))
  assert(at_once == deeper, i)
end
print "the same"
