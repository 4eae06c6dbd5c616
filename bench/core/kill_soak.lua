--- What kill_soak.c runs: calls that never end, of every kind that a script may get stuck in, and innocent ones whose
--- result is known. Both are given a number: a seed, or how much to do. The file itself is given the mix.
local mix = ...
local ffi = require "ffi"

-- luacheck: ignore 241 (what endless calls fill is for nobody)
local M = { endless = {}, innocent = {} }

local function endless(name, run)
  M.endless[#M.endless + 1] = { name = name, run = run }
end

--- `most`: so much of it, no more, that its memory is far from the limit.
local function innocent(name, run, answer, most)
  M.innocent[#M.innocent + 1] = { name = name, run = run, answer = answer, most = most or 5e7 }
end

-- ---- without end -----------------------------------------------------------

endless("nothing", function() while true do end end)

endless("arithmetic", function(seed)
  local n = seed
  for i = 1, math.huge do n = n + i % 7 end
  return n
end)

endless("nested loops", function(seed)
  local n = 0
  while true do
    for i = 1, seed % 50 do
      for k = 1, 10 do n = (n + i * k) % 1000003 end
    end
  end
end)

endless("goto", function(seed)
  local n = seed
  ::again::
  n = n + 1
  goto again
end)

endless("tail calls", function(seed)
  local function f(n) return f(n + 1) end
  return f(seed)
end)

endless("recursion", function()
  local function fib(n) return n < 2 and n or fib(n - 1) + fib(n - 2) end
  return fib(1000)
end)

endless("overflows of the stack", function()
  local function deep(n) return 1 + deep(n + 1) end
  while true do pcall(deep, 1) end
end)

endless("pcall of a loop", function(seed)
  local function spin()
    local n = seed
    while true do n = n + 1 end
  end
  while true do pcall(spin) end
end)

endless("pcall of errors", function()
  while true do pcall(error, "again") end
end)

endless("pcall in pcall", function()
  local function inner() while true do pcall(string.rep) end end
  local function outer() while true do pcall(inner) end end
  while true do pcall(outer) end
end)

endless("xpcall", function()
  local function handler(err) return debug.traceback(err) end
  while true do xpcall(function() error("again") end, handler) end
end)

endless("nested coroutines", function(seed)
  local function nest(depth)
    if depth == 0 then while true do coroutine.yield(depth) end end
    local inner = coroutine.wrap(nest)
    while true do coroutine.yield(inner(depth - 1)) end
  end
  local outermost = coroutine.wrap(nest)
  while true do outermost(seed % 5) end
end)

endless("a coroutine that spins", function()
  while true do
    coroutine.resume(coroutine.create(function() while true do end end))
  end
end)

endless("coroutine after coroutine", function()
  while true do coroutine.wrap(function(a) return a end)(1) end
end)

endless("table stores", function(seed)
  local t, n = {}, seed
  while true do
    n = n + 1
    t[n % 1000] = (t[n % 1000] or 0) + n
  end
end)

endless("table with keys", function()
  local t, n = {}, 0
  while true do
    n = (n + 1) % 500
    t["key" .. n] = not t["key" .. n] and n or nil
  end
end)

endless("pairs", function()
  local t, n = { 1, 2, 3, a = 1, b = 2, c = 3 }, 0
  while true do
    for _, v in pairs(t) do n = n + v end
  end
end)

endless("a table that grows", function()
  local t = {}
  while true do t[#t + 1] = { t[#t] } end
end)

endless("closures that are kept", function()
  local t = {}
  while true do
    local n = #t
    t[n + 1] = function() return n end
  end
end)

endless("a string that doubles", function()
  local s = "0123456789abcdef"
  while true do s = s .. s end
end)

endless("large strings", function()
  local t = {}
  while true do t[#t + 1] = ("x"):rep(100000) .. #t end
end)

endless("a huge request", function()
  while true do ("x"):rep(1e8) end
end)

endless("huge requests in pcall", function()
  while true do pcall(string.rep, "x", 1e8) end
end)

endless("strings", function(seed)
  local s = ""
  while true do
    s = s .. seed
    if #s > 4096 then s = "" end
  end
end)

endless("formats", function(seed)
  local n = seed
  while true do
    n = n + 1
    local s = ("%d %s %5.2f"):format(n, "x", n / 3)
    if s:find("^%d+ y") then n = tonumber(s:match("%d+")) end
  end
end)

endless("gsub", function()
  local n = 0
  while true do
    ("abcdef"):gsub(".", function(c)
      n = n + 1
      return c:upper()
    end)
  end
end)

endless("sort", function(seed)
  while true do
    local t = {}
    for i = 1, 100 do t[i] = i * seed % 101 end
    table.sort(t, function(a, b) return a < b end)
  end
end)

endless("metamethods", function(seed)
  local V = {}
  V.__index = function(_, k) return k end
  V.__add = function(a, b) return setmetatable({ x = a.x + b.x }, V) end
  V.__call = function(v, n) return v[n] end
  local v, one, n = setmetatable({ x = seed }, V), setmetatable({ x = 1 }, V), 0
  while true do
    v = v + one
    n = n + v(3) + v[n % 10]
  end
end)

endless("traces entered and left", function(seed)
  local values, n = { 1, "2", 3.5, "4" }, seed
  local function take(v)
    if type(v) == "string" then return #v end
    if v % 1 > 0 then return math.floor(v) end
    return v
  end
  while true do
    n = n + 1
    for i = 1, 4 do n = n + take(values[i]) end
    if n % 3 == 0 then n = n + select("#", unpack(values)) end
    if n % 11 == 0 then n = n + #tostring(values) end
  end
end)

endless("garbage", function(seed)
  local kept
  while true do
    kept = { { kept and kept[2] }, { seed }, "x" .. (kept and #kept or 0) }
  end
end)

endless("collections", function()
  while true do
    collectgarbage("step", 10)
    local _ = {}
  end
end)

endless("whole collections", function()
  while true do collectgarbage() end
end)

endless("closures", function()
  local n = 0
  while true do
    local function f() n = n + 1 end
    f()
  end
end)

endless("varargs", function()
  local function count(...) return select("#", ...) end
  local n = 0
  while true do n = n + count(unpack({ 1, 2, 3, n })) end
end)

-- Each piece is new and hot, so that the compiler hardly ever rests.
local function fresh(seed, i)
  return load(("local n = 0 for i = 1, 300 do n = n + i %% %d end if n < %d then n = -n end return n")
    :format(seed % 100 + 2, i))
end

endless("fresh code", function(seed)
  for i = 1, math.huge do fresh(seed, i)() end
end)

endless("fresh code in pcall", function(seed)
  for i = 1, math.huge do pcall(fresh(seed, i)) end
end)

endless("code that does not parse", function(seed)
  while true do load("local x = = " .. seed) end
end)

endless("ffi", function(seed)
  local n = ffi.new("int64_t", seed)
  while true do n = n * 3 + ffi.new("int32_t[4]", 1)[2] end
end)

endless("a wait, then nothing", function()
  coroutine.yield()
  while true do end
end)

-- ---- innocent --------------------------------------------------------------

local function triangle(n) return n * (n + 1) / 2 end

--- How many digits the numbers 1 .. n have in all.
local function digits(n)
  local sum, from = 0, 1
  while from <= n do
    sum = sum + n - from + 1
    from = from * 10
  end
  return sum
end

innocent("arithmetic", function(n)
  local s = 0
  for i = 1, n do s = s + i % 7 end
  return s
end, function(n) return math.floor(n / 7) * 21 + triangle(n % 7) end)

innocent("bits", function(n)
  local s = 0
  for i = 1, n do s = bit.bxor(s, i) end
  return s
end, function(n) return ({ [0] = n, 1, n + 1, 0 })[n % 4] end)

innocent("a table", function(n)
  local t, s = {}, 0
  for i = 1, n do t[i % 1000 + 1] = i end
  for i = 1, n do
    local v = t[i % 1000 + 1]
    s = s + v - v + i * 2
  end
  return s
end, function(n) return n * (n + 1) end)

innocent("records", function(n)
  local t, s = {}, 0
  for i = 1, n do
    local k = i % 1000 + 1
    t[k] = { value = i, name = "r" }
    s = s + t[k].value + #t[k].name
  end
  return s
end, function(n) return triangle(n) + n end)

innocent("strings", function(n)
  local s = 0
  for i = 1, n do s = s + #("k" .. i) end
  return s
end, function(n) return n + digits(n) end)

innocent("concat", function(n)
  local t = {}
  for i = 1, n do t[i] = i end
  return #table.concat(t)
end, digits, 1e5)

innocent("gsub", function(n)
  return select(2, ("ab"):rep(n):gsub("a", "c"))
end, function(n) return n end, 1e5)

innocent("gsub with a function", function(n)
  local s = 0
  ("a"):rep(n):gsub(".", function() s = s + 2 end)
  return s
end, function(n) return 2 * n end, 1e5)

innocent("sort", function(n)
  local t, s = {}, 0
  for i = 1, n do t[i] = -i end
  table.sort(t, function(a, b) return a < b end)
  for i = 1, n do s = s - t[i] * i end
  return s
end, function(n) return n * (n + 1) * (n + 2) / 6 end, 1e5)

innocent("metamethods", function(n)
  local V = {}
  V.__add = function(a, b) return setmetatable({ x = a.x + b.x, y = a.y + b.y }, V) end
  V.__index = function() return 1 end
  local v, step, z = setmetatable({ x = 0, y = 0 }, V), setmetatable({ x = 1, y = 2 }, V), 0
  for _ = 1, n do
    v = v + step
    z = z + v.z
  end
  return v.x + v.y + z
end, function(n) return 4 * n end)

innocent("pcall", function(n)
  local s = 0
  for i = 1, n do s = s + select(2, pcall(error, i)) end
  return s
end, triangle)

innocent("a generator", function(n)
  local s = 0
  for v in coroutine.wrap(function() for i = 1, n do coroutine.yield(i) end end) do s = s + v end
  return s
end, triangle)

innocent("waits", function(n)
  local s = 0
  for part = 1, 3 do
    for i = part, n, 3 do s = s + i end
    coroutine.yield()
  end
  return s
end, triangle)

innocent("fresh code", function(n)
  local s = 0
  for i = 1, n do s = s + load("local s = 0 for i = 1, 100 do s = s + i end return s + " .. i)() end
  return s
end, function(n) return triangle(n) + 5050 * n end)

innocent("changing types", function(n)
  local values, s = { 1, "22", { 3, 3, 3 } }, 0
  for i = 1, n do
    local v = values[i % 3 + 1]
    if type(v) == "number" then s = s + v else s = s + #v end
  end
  return s
end, function(n) return math.floor(n / 3) * 6 + ({ [0] = 0, 2, 5 })[n % 3] end)

innocent("ffi", function(n)
  local s = ffi.new("int64_t", 0)
  for i = 1, n do s = s + i end
  return tonumber(s)
end, triangle)

-- ---- the mixes -------------------------------------------------------------

--- What fills the memory, and what needs much of it.
local MEMORY = {
  ["a table that grows"] = true,
  ["a string that doubles"] = true,
  ["large strings"] = true,
  ["a huge request"] = true,
  ["closures that are kept"] = true,
  concat = true,
  gsub = true,
  sort = true,
}

local function only(names, kinds)
  local chosen = {}
  for _, kind in ipairs(kinds) do
    if names[kind.name] then chosen[#chosen + 1] = kind end
  end
  return chosen
end

if mix == "memory" then
  M.endless, M.innocent = only(MEMORY, M.endless), only(MEMORY, M.innocent)
elseif mix ~= "all" then
  error("no such mix: " .. mix)
end

return M
