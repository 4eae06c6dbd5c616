--- ngx.re, of compat = { "ngx" }.
-- luacheck: globals ngx
local memory = require "spec.support.memory"

local has = require "spec.support.has"

-- What a call has returned, as text.
local function show(...)
  local parts = { ... }
  for i = 1, select("#", ...) do parts[i] = tostring(parts[i]) end
  return table.concat(parts, " ")
end

describe("ngx.re", function()
  after_each(memory.finish)

  local function app_of(fn, more)
    local settings = { compat = { "ngx" } }
    for key, value in pairs(more or {}) do settings[key] = value end
    return memory.lines({ proceed = function(_, line) return (show(fn(line))) end }, settings)
  end

  local function gives(expected, fn) app_of(fn):connect():send("go"):expect(expected) end

  it("matches, and has groups by number and name", function()
    gives("ab=12 ab 12 false ab", function()
      local m = ngx.re.match("x ab=12", [[(?<name>\w+)=(\d+)(z)?]], "jo")
      return m[0], m[1], m[2], m[3], m.name
    end)
    gives("nil nil", function()
      local m, err = ngx.re.match("abc", "d")
      return m, err
    end)
  end)

  it("goes on where a context says", function()
    gives("1 2 3 nil", function()
      local context, found = { pos = 1 }, {}
      for i = 1, 4 do
        local m = ngx.re.match("1, 2, 3", [[\d]], "", context)
        found[i] = m and m[0]
      end
      return found[1], found[2], found[3], found[4]
    end)
  end)

  it("takes flags", function()
    gives("AB nil a,b b false Ä", function()
      local ab = ngx.re.match("AB", "ab", "i")[0]
      return ab, ngx.re.match("xab", "ab", "a"), (ngx.re.match("a\nb", "a.b", "s")[0]:gsub("\n", ",")),
        ngx.re.match("a\nb", "^b", "m")[0], (pcall(ngx.re.match, "a", "a", "d")), ngx.re.match("Ä", "^.$", "u")[0]
    end)
  end)

  it("finds places", function()
    gives("3 5 4 4 nil nil nth out of bound", function()
      local from, to = ngx.re.find("xxabc", "a(b)c")
      local first, last = ngx.re.find("xxabc", "a(b)c", "", nil, 1)
      return from, to, first, last, ngx.re.find("xxabc", "a(b)c", "", nil, 2)
    end)
  end)

  it("goes through all matches, those of nothing too", function()
    gives("a=1 b=2 | 4", function()
      local found = {}
      for m in ngx.re.gmatch("a=1, b=2", [[(\w)=(\d)]]) do found[#found + 1] = m[0] end
      local n = 0
      for _ in ngx.re.gmatch("abc", "x*") do n = n + 1 end
      return table.concat(found, " ") .. " | " .. n
    end)
  end)

  it("replaces, by templates and by functions", function()
    gives("b-a c 1 [a][b] 2 $x 1 -a-b- 3 aCab 1", function()
      local swapped, n = ngx.re.sub("a-b c", [[(\w)-(\w)]], "$2-${1}")
      local all, count = ngx.re.gsub("ab", ".", function(m) return "[" .. m[0] .. "]" end)
      local dollar, once = ngx.re.gsub("x", "(x)", "$$$1")
      local empty, thrice = ngx.re.gsub("ab", "", "-")
      return swapped, n, all, count, dollar, once, empty, thrice, ngx.re.sub("abab", "b", "C", "i")
    end)
  end)

  it("tells what is no pattern", function()
    local text = app_of(function() return ngx.re.match("a", "(a") end):connect():send("go"):receive()
    has("nil pcre2_compile() failed: missing closing parenthesis", text)
  end)

  it("tells what is no UTF-8", function()
    local text = app_of(function() return ngx.re.match("\255", ".", "u") end):connect():send("go"):receive()
    has("nil pcre2_match() failed: UTF-8 error", text)
  end)

  it("gives up on what backtracks too much", function()
    gives("nil pcre2_match() failed: match limit exceeded", function()
      return ngx.re.match(("a"):rep(50) .. "b", "^(a+)+$")
    end)
  end)

  it("is bounded over all places where a match may begin", function()
    gives("nil pcre2_match() failed: match limit exceeded", function()
      return ngx.re.match(("ab"):rep(50000), "[ab]*[^ab]b|c$")
    end)
  end)

  it("ends with the handler that has used up its time", function()
    local app = app_of(function()
      for _ = 1, 1e6 do ngx.re.match(("a"):rep(50) .. "b", "^(a+)+$") end
    end, { limits = { proceed = "200ms" } })
    app:connect():send("go"):expect_closed "proceed_timeout"
  end)

  it("goes on with a pattern while many others are used", function()
    gives("a1 b1 | [a][b]", function()
      local function use_many()
        for i = 1, 600 do ngx.re.match("x", "x" .. i) end
        return "1"
      end
      local found = {}
      for m in ngx.re.gmatch("ab", ".") do found[#found + 1] = m[0] .. use_many() end
      return table.concat(found, " ") .. " | " .. ngx.re.gsub("ab", ".", function(m)
        use_many()
        return "[" .. m[0] .. "]"
      end)
    end)
  end)

  it("frees what it has compiled", function()
    local app = app_of(function()
      for i = 1, 3000 do ngx.re.match("a" .. i, "^a(" .. i .. ")$") end
      return ngx.re.match("a5", "^a(5)$")[1]
    end)
    app:connect():send("go"):expect "5"
  end)
end)
