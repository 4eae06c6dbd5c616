--- What `perilune run` says first, and what becomes of what a script prints.
local command = require "spec.support.command"
local has = require "spec.support.has"
local server = require "spec.support.server"

local SCRIPT = [[
print "from the top level"
return { listen = "tcp://127.0.0.1:0", frame = "line", agent = { proceed = function(_, line) return line end },
  control = "off", workers = 1, %s }
]]

describe("perilune run", function()
  after_each(server.finish)

  it("says first why its log is JSON, where nobody has asked for it", function()
    local app = server.start { script = SCRIPT:format "", scripts_own = true }
    local first = app:log()[1]
    assert.same({ "info", "log.format=json, as this is no terminal", "--log-format=text is for people" },
      { first.level, first.message, first.hint })
  end)

  it("does not where somebody has", function()
    local app = server.start { script = SCRIPT:format 'log = { format = "json" }', scripts_own = true }
    assert.is_nil(app:text():find("as this is no terminal", 1, true))
    app = server.start { script = SCRIPT:format "", format = "text" }
    assert.is_nil(app:text():find("as this is no terminal", 1, true))
  end)

  it("ends with 1 where what the script printed cannot be written, after all else has ended well", function()
    local folder = command.folder()
    command.write(folder .. "/app.lua", SCRIPT:format "")
    local code = command.shell(([[
      cd '%s' || exit 9
      '%s' run --log-format=json >/dev/full 2>err &
      until grep -q '"serving"' err; do sleep 0.02; done
      kill -TERM $!
      wait $!
      echo $?
    ]]):format(folder, command.binary))
    local said = command.read(folder .. "/err")
    assert.equal("1\n", code, said)
    has('"message":"stopped"', said)
    has("perilune: cannot write to standard output: No space left on device", said)
    has("or what the script printed could not be\n      written", command.run({ "run", "--help" }).out)
    command.remove(folder)
  end)

  it("tells its version by -v as well", function()
    assert.equal(command.run({ "--version" }).out, command.run({ "-v" }).out)
  end)
end)
