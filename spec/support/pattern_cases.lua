--- Holds a string library against LuaJIT's own over random cases, always the same ones.
---
---     local compare = require "spec.support.pattern_cases"
---     local compared, difference = compare(library, 100000)
---
--- Patterns are put together from pieces that bite: sets that end early, captures left open, quantifiers
--- of everything, anchors anywhere, NULs, and now and then they are damaged.
local bit = require "bit"

-- ---- chance, the same everywhere ----

local state

local function random(n)
  state = bit.bxor(state, bit.lshift(state, 13))
  state = bit.bxor(state, bit.rshift(state, 17))
  state = bit.bxor(state, bit.lshift(state, 5))
  return bit.band(state, 0x7fffffff) % n + 1
end

local function pick(list) return list[random(#list)] end

-- ---- patterns ----

local ITEMS = {
  "a", "a", "b", "c", "-", " ", "1", ".", ".", "%a", "%w", "%s", "%d", "%D", "%W", "%S", "%l", "%u", "%p", "%c", "%x",
  "%g", "%A", "%X", "%P", "%z", "%Z", "%%", "%.", "%-", "%]", "%q", "%Q", "[ab]", "[^ab]", "[a-c]", "[^a-c]", "[%a-]",
  "[-a]", "[a-]", "[]a]", "[^]a]", "[%]]", "[%w_]", "[^%s]", "[a%-c]", "[%a-z]", "[a-%%]", "[+--]", "[^%z]",
  "[\1-\255]", "[^^]", "[$]", "[a^]", "[%d%.]", "[c-a]", "[%W%S]", "\0", "\255", "\128", "]", "^", "$", "*", "+", "?",
}
local QUANTIFIERS = { "", "", "", "", "*", "+", "-", "?", "*", "-", "**", "+?", "-*" }
local OTHERS = {
  "%b()", "%bab", "%baa", "%b", "%ba", "%f[%w]", "%f[^a]", "%f[%z]", "%f[a-c]", "%f", "%fa", "%1", "%2", "%0", "%9",
  "()", "[", "[^", "[]", "[^]", "[a", "[%", "[%]", "[a-", "%", "(", ")", "(()", "$", "^", "%f[", "[a-%", "[]-a]", "[^%",
  "%b%%",
}

local function items(most)
  local parts = {}
  for i = 1, random(most) do
    parts[i] = random(24) == 1 and pick(OTHERS) or pick(ITEMS) .. pick(QUANTIFIERS)
  end
  return table.concat(parts)
end

local function captures()
  local form = random(8)
  if form == 1 then return "(" .. items(3) .. ")" .. items(2) end
  if form == 2 then return items(2) .. "(" .. items(2) .. ")%1" end
  if form == 3 then return "((" .. items(2) .. ")" .. items(2) .. ")" end
  if form == 4 then return "()" .. items(2) .. "()" end
  if form == 5 then return "(" .. items(2) .. ")(" .. items(2) .. ")" .. pick { "", "%2", "%1%2", "$" } end
  if form == 6 then return "(" .. pick(ITEMS) .. "-)" .. pick(ITEMS) end
  if form == 7 then return "(" .. pick(ITEMS) .. "*)" .. pick(ITEMS) .. pick(QUANTIFIERS) end
  return "(" .. items(3)
end

-- Around the limits of 200 levels and 32 captures.
local function deep()
  local n = 194 + random(10)
  return pick {
    ("a?"):rep(n), ("a*"):rep(n), ("a-"):rep(n), ("x*"):rep(n) .. "a", ("x-"):rep(n) .. "a",
    ("()"):rep(20 + random(14)), ("(a"):rep(25 + random(10)), ("a-"):rep(n) .. ")", "(" .. ("x*"):rep(n - 2) .. ")a",
    ("(x?"):rep(31) .. "b", ("(x*)"):rep(31) .. ("x-"):rep(n - 100), ("("):rep(25 + random(10)) .. "a", ("(a)"):rep(2)
      .. ("x*"):rep(n) .. "%1",
  }
end

local function damaged(pattern)
  local at = random(#pattern + 1)
  if random(2) == 1 then return pattern:sub(1, at - 1) .. pattern:sub(at + 1) end
  return pattern:sub(1, at - 1) .. pick { "%", "[", "]", "(", ")", "^", "-", "*", "\0", "$" } .. pattern:sub(at)
end

local function make_pattern()
  local kind = random(50)
  local is_deep = kind == 1
  local pattern = is_deep and deep() or kind <= 20 and captures() or items(5)
  if random(5) == 1 then pattern = "^" .. pattern end
  if random(6) == 1 then pattern = pattern .. "$" end
  if random(16) == 1 then pattern = damaged(pattern) end
  return pattern, is_deep
end

-- ---- subjects and the rest ----

local LETTERS = {
  "a", "a", "a", "b", "b", "c", "A", "1", " ", "-", "(", ")", "\0", "\n", "]", "%", "\255", "\128", "_", ".", "^", "$",
  "+",
}

-- Short for a deep pattern, which may try all ways to part it in 200.
local function make_subject(is_deep)
  local parts = {}
  local few = random(3) == 1 and 5 or #LETTERS
  for i = 1, random(is_deep and 3 or 14) - 1 do parts[i] = LETTERS[random(few)] end
  return table.concat(parts)
end

local INITS = {
  1, 2, 3, 0, -1, -2, -20, 5, 20, "2", 1.5, -1.5, 2 ^ 31, 2 ^ 31 - 1, -2 ^ 31, 2 ^ 40, 2 ^ 32 + 2, -2 ^ 60, 1 / 0,
  -1 / 0, 0 / 0, {},
  "x", true,
}
local COUNTS = { 0, 1, 2, -1, "2", 1.9, 2 ^ 31, 2 ^ 32 + 1, -2 ^ 31, 2 ^ 40, {}, "x", false }

local function recorder(...)
  local n = select("#", ...)
  return n % 2 == 0 and "<" .. n .. ">" or tostring((...)) .. "|"
end

local REPLACEMENTS = {
  "x", "", "%0", "%1", "%2", "%0%0", "<%1>", "a%", "%%", "%a", "%9", "\0%0", "%1%2%3", 7, 1.5, recorder,
  function() end, function() return false end, function(a) return a end, function() return {} end,
  function() return true end, function(_, b) return b end, function() return 12 end, function() error("own", 0) end,
  function() error {} end, { a = "A", b = "B", ab = false, [1] = "one" }, { a = true }, { a = {} },
  setmetatable({}, { __index = function(_, key) return key .. "!" end }),
  setmetatable({}, { __index = function() error "index" end }), true, tostring,
}

-- ---- comparing ----

local function pack(...) return { n = select("#", ...), ... } end

local function text_of(results)
  local parts = {}
  for i = 1, results.n do
    local value = results[i]
    parts[i] = type(value) == "string" and ("%q"):format(value) or type(value) == "table" and "(table)"
      or tostring(value)
  end
  return table.concat(parts, ", ")
end

local function same(one, other)
  if one.n ~= other.n then return false end
  for i = 1, one.n do
    local a, b = one[i], other[i]
    if a ~= b and not (type(a) == "table" and type(b) == "table") then return false end
  end
  return true
end

local function collect(gmatch, s, pattern)
  local all = { n = 0 }
  local function add(...)
    for i = 1, select("#", ...) do all[all.n + i] = (select(i, ...)) end
    all.n = all.n + select("#", ...) + 1
    all[all.n] = "|"
    return (...)
  end
  local next_match = gmatch(s, pattern)
  while add(next_match()) ~= nil and all.n < 200 do end
  add(next_match())
  return unpack(all, 1, all.n)
end

local function call_gmatch(gmatch) return function(s, pattern) return collect(gmatch, s, pattern) end end

-- Called from Lua code, an error has a position, and the function a name.
local CALLERS = {
  loadstring("local f = ... return function(...) local a, b, c = f(...) return a, b, c end", "=caller"),
  loadstring("local t = { method = ... } return function(...)\n local a, b, c = t.method(...) return a, b, c end",
    "=caller"),
  loadstring("local f = ... return function(...) return f(...) end", "=caller"),
}

local function is_exhausted(results)
  return not results[1] and type(results[2]) == "string" and results[2]:find("over %d[%d,]* steps")
end

--- Any results that differ, as text.
local function difference(name, ours, theirs, ...)
  local mine = pack(pcall(ours, ...))
  if is_exhausted(mine) then return nil end -- LuaJIT's own would take long
  local other = pack(pcall(theirs, ...))
  if same(mine, other) then return nil end
  return ("%s(%s)\n ours: %s\n theirs: %s"):format(name, text_of(pack(...)), text_of(mine), text_of(other))
end

---@param library table find, match, gmatch, gsub
---@param n integer how many cases; each is several calls
---@return integer calls that were compared
---@return string? difference the first one found
return function(library, n)
  state = 20260307
  local compared, found = 0, nil
  local function hold(name, ours, theirs, ...)
    compared = compared + 1
    found = found or difference(name, ours, theirs, ...)
  end
  for _ = 1, n do
    local pattern, is_deep = make_pattern()
    local s = make_subject(is_deep)
    local init = random(3) == 1 and pick(INITS) or nil
    local plain = random(20) == 1 or nil
    local caller = random(10) == 1 and pick(CALLERS) or function(f) return f end
    hold("find", caller(library.find), caller(string.find), s, pattern, init, plain)
    hold("match", caller(library.match), caller(string.match), s, pattern, init)
    hold("gmatch", call_gmatch(library.gmatch), call_gmatch(string.gmatch), s, pattern)
    local count = random(5) == 1 and pick(COUNTS) or nil
    hold("gsub", caller(library.gsub), caller(string.gsub), s, pattern, pick(REPLACEMENTS), count)
    if found then break end
  end
  return compared, found
end
