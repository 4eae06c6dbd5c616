--- scripts/names: no two files of src/ have a static function of the same name.
local command = require "spec.support.command"

-- What it says, and its exit code.
local function names(folder)
  local pipe = io.popen(("scripts/names %s 2>&1; echo code $?"):format(folder or ""))
  local text = pipe:read "*a"
  pipe:close()
  return text:match "^(.*)code (%d+)\n$"
end

describe("scripts/names", function()
  it("finds nothing in src/", function()
    local text, code = names()
    assert.same({ "", "0" }, { text, code })
  end)

  it("names a function and the files that have it", function()
    local folder = command.folder()
    command.write(folder .. "/one.c", "static int twice(void)\n{\n}\nint open(void)\n{\n}\nstatic void once(int a);\n"
      .. "static void once(int a)\n{\n}\n")
    command.write(folder .. "/two.c", "static struct it *twice(int a, int b)\n{\n}\nint open(void)\n{\n}\n")
    local text, code = names(folder)
    assert.equal(("scripts/names: twice() is in %s/one.c %s/two.c\n"):format(folder, folder), text)
    assert.equal("1", code)
    command.remove(folder)
  end)
end)
