--- Globals that a script uses and that there are not: found when it is loaded, in functions that nobody has called.
local command = require "spec.support.command"
local has = require "spec.support.has"
local server = require "spec.support.server"

local SCRIPT = [[
local helper = require "helper"
local A = {}
function A:proceed(line)
  if line == "never" then pirnt(line) end
  return helper(line)
end
function A:opened()
  local function inner() cuont = later end
  return inner and nil
end
local later = 1
return { listen = "tcp://127.0.0.1:0", frame = "line", agent = A, limits = { inbox = later } }
]]
local HELPER = [[
return function(line)
  local text = line .. tostring(#line)
  return rawget(_G, "absent") and mispelt or text
end
]]
local TOLD = {
  "app.lua:4: undefined global 'pirnt': did you mean 'print'?",
  "app.lua:8: assignment to global 'cuont': local cuont where ",
  "app.lua:8: undefined global 'later': 'later' is a local from line 11 on, which is below",
  "helper.lua:3: undefined global 'mispelt'",
}

describe("a global that is not defined, in a function that was not called,", function()
  local folder
  before_each(function() folder = command.folder() end)
  after_each(function()
    server.finish()
    command.remove(folder)
  end)

  local function check(script, ...)
    command.write(folder .. "/app.lua", script)
    return command.run { "check", dir = folder, ... }
  end

  it("is told of by perilune check, with its place and what may have been meant", function()
    command.write(folder .. "/helper.lua", HELPER)
    local result = check(SCRIPT)
    assert.equal(0, result.code, result.err)
    for _, text in ipairs(TOLD) do has("perilune: warning: " .. text, result.err) end
    assert.equal(#TOLD, select(2, result.err:gsub("\n", "")))
    has("app.lua: ok", result.out)
  end)

  it("is in the log when the script is served, and after a reload that has it", function()
    local app = server.start { script = SCRIPT, modules = { helper = HELPER } }
    local message = "the script uses a global that is not defined"
    app:wait_log(message, nil, #TOLD)
    for i, text in ipairs(TOLD) do has(text, app:find_log(message)[i].error) end
    command.write(app.folder .. "/app.lua", (SCRIPT:gsub("pirnt", "print"):gsub("cuont = later", "")))
    app:signal "HUP"
    app:wait_log "reloaded"
    app:wait_log(message, nil, #TOLD + 1)
    assert.equal(#TOLD + 1, #app:find_log(message))
    has("helper.lua", app:find_log(message)[#TOLD + 1].error)
  end)

  it("is told once for each file, and not without end", function()
    local lines = {}
    for i = 1, 30 do lines[i] = ("  local _ = unknown_%d, unknown_%d"):format(i, i) end
    local result = check("local A = {}\nfunction A:proceed()\n" .. table.concat(lines, "\n")
      .. '\nend\nreturn { listen = "tcp://:0", agent = A }')
    assert.equal(11, select(2, result.err:gsub("\n", "")))
    has("perilune: warning: and 20 more\n", result.err)
  end)

  it("is none where unsafe opens it, and what Lua has is none", function()
    local use = [[
      local A = {}
      function A:proceed()
        return debug.traceback(), bit.band(1, 2), _VERSION, _G.x, unpack, loadstring, require, xpcall, coroutine, self.y
      end
      return { listen = "tcp://:0", agent = A%s }]]
    assert.equal("", check(use:format ', unsafe = { "debug" }').err)
    has("undefined global 'debug': it leads out of the VM", check(use:format "").err)
  end)

  -- A copy of the examples, with the certificates that the first lines of some make.
  local function copy_examples()
    local copies = command.folder()
    command.shell(("cp -r examples '%s'"):format(copies))
    for path in command.shell "ls examples/*.lua":gmatch "[^\n]+" do
      for line in command.read(path):gsub("\\\n%-%- *", ""):gmatch "\n%-%-   (openssl req [^\n]*)" do
        command.shell(("cd '%s' && %s 2>&1"):format(copies, line))
      end
    end
    return copies
  end

  it("is in none of the examples and templates", function()
    local n, copies = 0, copy_examples()
    local list = ("ls '%s'/examples/*.lua lua/perilune/templates/*/app.lua | grep -v '_spec.lua$\\|_test.lua$'")
      :format(copies)
    for path in command.shell(list):gmatch "[^\n]+" do
      local result = command.run { "check", path, dir = (command.shell "pwd":gsub("\n", "")) }
      -- Which of them would lose something in a reload is reload_examples_spec's to say.
      local others = result.err:gsub("[^\n]*may leave the VM[^\n]*\n", ""):gsub("[^\n]*: handlers fill '[^\n]*\n", "")
      assert.equal("", result.code == 0 and others or result.err, path)
      n = n + 1
    end
    command.remove(copies)
    assert.is_true(n >= 15, n .. " scripts")
  end)
end)
