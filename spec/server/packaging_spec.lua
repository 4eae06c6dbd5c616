--- The manual page and the completions of shells: they have what the binary's own help has, and work.
local command = require "spec.support.command"
local config = require "perilune.config"
local has = require "spec.support.has"

local function help(...)
  local result = command.run { ... }
  assert.equal(0, result.code, result.err)
  return result.out
end

local function words(text)
  local found = {}
  for word in text:gmatch "%S+" do found[#found + 1] = word end
  table.sort(found)
  return found
end

local names, options = {}, {}
for name in help("--help"):gmatch "\n  (%l+) +" do
  if name ~= "help" then names[#names + 1] = name end
end
for _, name in ipairs(names) do
  options[name] = {}
  for line in help(name, "--help"):gmatch "\n  (%-[^\n]+)" do
    table.insert(options[name], line:match "^%-%-[%w-]+" or line:match "^%-%a, (%-%-[%w-]+)")
  end
end

-- What bash would offer after these words, the last of which is being typed.
local function bash(...)
  local typed = { ... }
  local line = [[source packaging/completions/perilune.bash; COMP_WORDS=(%s); COMP_CWORD=%d
    _perilune 2>/dev/null; printf '%%s\n' "${COMPREPLY[@]}"]]
  line = line:format("'" .. table.concat(typed, "' '") .. "'", #typed - 1)
  return words(command.shell("bash -c '" .. line:gsub("'", [['\'']]) .. "'"))
end

local function sorted(list)
  return words(table.concat(list, " "))
end

describe("packaging/", function()
  it("is what packaging/generate.lua makes", function()
    local folder = io.popen("pwd"):read()
    local result = command.run {
      "exec", "packaging/generate.lua", "--check", dir = folder, env = { PERILUNE = command.binary },
    }
    assert.equal(0, result.code,
      "run `build/perilune exec packaging/generate.lua`: out of date are\n" .. result.out .. result.err)
  end)

  describe("and the reference", function()
    local folder
    before_each(function()
      folder = command.folder()
      os.execute(([[cp -r packaging docs '%s' && cd '%s' && mkdir -p lua/perilune src/base && cd - >/dev/null
        cp -r lua/perilune/library '%s/lua/perilune' && cp src/base/counters.h '%s/src/base']])
        :format(folder, folder, folder, folder))
    end)
    after_each(function() command.remove(folder) end)

    local function generate(...)
      return command.run { "exec", "packaging/generate.lua", dir = folder, env = { PERILUNE = command.binary }, ... }
    end

    local function change(name, from, to)
      local text = command.read(folder .. "/" .. name)
      local start, stop = text:find(from, 1, true)
      assert.truthy(start, from)
      command.write(folder .. "/" .. name, text:sub(1, start - 1) .. to .. text:sub(stop + 1))
    end

    it("is stale when the types have changed, and made anew then", function()
      change("lua/perilune/library/conn.lua", "---@param fn fun()", "---@param fn fun() which does not wait")
      local result = generate "--check"
      assert.equal(1, result.code)
      has("docs/reference.md", result.out)
      assert.equal(0, generate().code)
      has("- `fn` (`fun()`): which does not wait\n", command.read(folder .. "/docs/reference.md"))
      assert.equal(0, generate("--check").code)
    end)

    it("is stale when a counter is new, and has it then", function()
      change("src/base/counters.h", 'X(faults, "errors', 'X(surprises, "what nobody expects") X(faults, "errors')
      assert.equal(1, generate("--check").code)
      assert.equal(0, generate().code)
      has("| `surprises` | what nobody expects |\n| `faults` | errors", command.read(folder .. "/docs/reference.md"))
      assert.equal(0, generate("--check").code)
    end)

    it("is stale when what is made was changed by hand, and says so; what is not made may be", function()
      change("docs/reference.md", "# Reference\n", "# Reference\n\nMine.\n")
      assert.equal(0, generate("--check").code)
      change("docs/reference.md", "**`conn:flush()`**", "**`conn:flush()`** by hand")
      assert.equal(1, generate("--check").code)
    end)

    it("is refused without a place for a part", function()
      change("docs/reference.md", "<!-- made of the types: conn -->", "")
      local result = generate "--check"
      assert.equal(1, result.code)
      has("docs/reference.md: there is no '<!-- made of the types: conn -->'", result.err)
      change("docs/reference.md", "<!-- made of the types: view -->", "<!-- made of the types: veiw -->")
      has("docs/reference.md: 'veiw' is no part that is made of the types", generate("--check").err)
    end)
  end)

  it("has commands with options to speak of", function()
    assert.is_true(#names >= 12)
    for _, name in ipairs(names) do assert.is_true(#options[name] > 0, name) end
  end)
end)

describe("the manual page", function()
  local page = command.read("packaging/perilune.1"):gsub("\\(.)", { ["-"] = "-", ["e"] = "\\" })

  it("has every command and option", function()
    for _, name in ipairs(names) do
      local part = page:match("\n%.SS perilune " .. name .. "[ \n](.-)\n%.S[SH]")
      assert.truthy(part, name)
      for _, option in ipairs(options[name]) do has(option, part) end
    end
  end)

  it("has what a page has", function()
    for _, title in ipairs { "NAME", "SYNOPSIS", "DESCRIPTION", "ENVIRONMENT", "SIGNALS", "FILES", "EXAMPLES",
      "SEE ALSO" } do
      has("\n.SH " .. title .. "\n", page)
    end
  end)

  it("is without mistakes", function()
    if not command.has "groff" then return pending "groff is not there" end
    assert.equal("", command.shell "groff -man -ww -Tutf8 -K utf8 packaging/perilune.1 2>&1 >/dev/null")
  end)
end)

describe("the completion of", function()
  describe("bash offers", function()
    it("the commands", function()
      assert.same(sorted { "help", "--help", "--version", unpack(names) }, bash("perilune", ""))
      assert.same({ "record", "reload", "reopen", "replay" }, bash("perilune", "re"))
      assert.same(sorted(names), bash("perilune", "help", ""))
    end)

    for _, name in ipairs(names) do
      it("the options of " .. name, function()
        local offered = {}
        for _, option in ipairs(bash("perilune", name, "-")) do
          if option:find "^%-%-" then offered[#offered + 1] = option end
        end
        assert.same(sorted(options[name]), offered)
      end)
    end

    it("the values of options, in either form", function()
      local templates = {}
      for template in command.shell("ls lua/perilune/templates"):gmatch "%S+" do
        if template ~= "common" then templates[#templates + 1] = template end
      end
      assert.same(sorted(templates), bash("perilune", "new", "x", "--template", ""))
      assert.same({ "json" }, bash("perilune", "run", "--log-format", "j"))
      assert.same({ "json" }, bash("perilune", "run", "--log-format", "=", "j"))
      assert.same({ "debug", "error", "info", "warn" }, bash("perilune", "run", "--log-level", "="))
    end)

    it("the keys of --set", function()
      local keys = {}
      for i, path in ipairs(config.paths()) do keys[i] = path .. "=" end
      assert.same(sorted(keys), bash("perilune", "run", "--set", ""))
    end)

    it("scripts", function()
      assert.same({ "examples/kv.lua", "examples/kv_spec.lua" }, bash("perilune", "run", "examples/kv"))
      assert.same({}, bash("perilune", "status", "examples/chat"))
    end)
  end)

  -- As text; where the shell is there, it reads the file as well.
  for shell, file in pairs { bash = "perilune.bash", zsh = "_perilune", fish = "perilune.fish" } do
    it(shell .. " is well-formed", function()
      if not command.has(shell) then return pending(shell .. " is not there") end
      assert.equal("", command.shell(("%s -n packaging/completions/%s 2>&1"):format(shell, file)))
    end)
  end

  it("zsh has every command and option", function()
    local text = command.read "packaging/completions/_perilune"
    for _, name in ipairs(names) do
      has("'" .. name .. ":", text)
      local part = text:match("\n\t\t" .. name .. "%)(.-);;")
      for _, option in ipairs(options[name]) do
        assert.truthy(part:find("['*]" .. option:gsub("%-", "%%-") .. "[=%[]"), name .. " " .. option)
      end
    end
  end)

  it("fish has every command and option", function()
    local text = command.read "packaging/completions/perilune.fish"
    for _, name in ipairs(names) do
      has("-n __fish_use_subcommand -a " .. name .. " -d", text)
      for _, option in ipairs(options[name]) do
        local own = "'__fish_seen_subcommand_from " .. name .. "'[^\n]* %-l "
          .. option:gsub("^%-%-", ""):gsub("%-", "%%-") .. " "
        assert.truthy(text:find(own), name .. " " .. option)
      end
    end
  end)
end)
