local suggest = require "perilune.suggest"

describe("suggest.distance", function()
  for _, case in ipairs {
    { "", "", 0 }, { "abc", "abc", 0 }, { "", "abc", 3 }, { "abc", "", 3 }, { "abc", "abd", 1 }, { "abc", "abcd", 1 },
    { "abcd", "abc", 1 }, { "abc", "acb", 1 }, { "ca", "abc", 3 }, { "kitten", "sitting", 3 }, { "u23be", "u32be", 1 },
  } do
    it(("of %q and %q is %d"):format(case[1], case[2], case[3]), function()
      assert.equal(case[3], suggest.distance(case[1], case[2]))
      assert.equal(case[3], suggest.distance(case[2], case[1]))
    end)
  end
end)

describe("suggest.suggest", function()
  local keys = { "listen", "frame", "limits", "timeout", "connections", "per_ip", "u8" }

  for word, expected in pairs {
    lisen = "listen", fraem = "frame", limit = "limits", timeouts = "timeout", conections = "connections",
    CONNECTIONS = "connections", perip = "per_ip", u9 = "u8", connexion = "connections",
  } do
    it(("takes %q for %q"):format(word, expected), function()
      assert.equal(expected, suggest.suggest(word, keys))
    end)
  end

  for _, word in ipairs { "colour", "x", "", "zz", "connect_to_the_moon", ("connections"):rep(10) } do
    it(("has nothing for %q"):format(word:sub(1, 24)), function() assert.is_nil(suggest.suggest(word, keys)) end)
  end

  it("keeps names of three letters apart", function() assert.is_nil(suggest.suggest("udp", { "tcp" })) end)
  it("prefers the nearer candidate", function() assert.equal("ab_d", suggest.suggest("ab_c", { "xb_d", "ab_d" })) end)
  it("prefers the first of equals", function() assert.equal("abd", suggest.suggest("abc", { "abd", "abe" })) end)
  it("has nothing for what is no text", function()
    for _, value in ipairs { 1, true, {}, print } do assert.is_nil(suggest.suggest(value, keys)) end
  end)
  it("has nothing among no candidates", function() assert.is_nil(suggest.suggest("frame", {})) end)
end)

describe("suggest.hint", function()
  it("is ready to be appended", function()
    assert.equal(' (did you mean "frame"?)', suggest.hint("fram", { "frame" }))
    assert.equal("", suggest.hint("colour", { "frame" }))
  end)
end)
