--- scripts/layers: no file of src/ includes what lies above it.
local command = require "spec.support.command"
local has = require "spec.support.has"

local function layers(folder)
  local pipe = io.popen(("scripts/layers %s 2>&1; echo code $?"):format(folder or ""))
  local out = pipe:read "*a"
  pipe:close()
  return out:match "^(.-)code (%d+)\n$"
end

describe("scripts/layers", function()
  local folder

  before_each(function()
    folder = command.folder()
    for _, name in ipairs { "base", "conn", "server" } do
      assert(os.execute(("mkdir %s/%s"):format(folder, name)) == 0)
    end
    command.write(folder .. "/base/buf.c", '#include "base/buf.h"\n#include <uv.h>\n')
    command.write(folder .. "/conn/conn.h", '#pragma once\n#include "base/buf.h"\n')
  end)
  after_each(function() command.remove(folder) end)

  it("is satisfied with this tree", function()
    assert.same({ "", "0" }, { layers() })
  end)

  it("lets a file include what lies in its folder and below", function()
    assert.same({ "", "0" }, { layers(folder) })
  end)

  it("fails where one includes what lies above, and says where", function()
    command.write(folder .. "/base/log.c", '#include "base/log.h"\n\n#  include "server/server.h"\n')
    local out, code = layers(folder)
    assert.equal("1", code)
    has("base/log.c:3: base includes server, which lies above it", out)
  end)

  it("fails on a circle of folders: one of the two looks upwards", function()
    command.write(folder .. "/server/server.h", '#include "conn/conn.h"\n')
    command.write(folder .. "/conn/end.c", '#include "server/server.h"\n')
    local out, code = layers(folder)
    assert.equal("1", code)
    has("conn/end.c:1: conn includes server", out)
  end)

  it("fails on a path that leads out of the folder, whatever it leads to", function()
    command.write(folder .. "/base/up.c", '#include "../server/server.h"\n')
    command.write(folder .. "/conn/end.c", '#include "conn/conn.h"\n#include "./../base/buf.h"\n')
    command.write(folder .. "/server/stop.c", '#include "base/../cli/cli.h"\n# include <../src/cli/cli.h>\n')
    local out, code = layers(folder)
    assert.equal("1", code)
    for _, place in ipairs { "base/up.c:1", "conn/end.c:2", "server/stop.c:1", "server/stop.c:2" } do
      has(place .. ": a path with ../ in it: name the file from src/ on", out)
    end
    assert.equal(4, select(2, out:gsub("\n", "")))
  end)

  it("fails on a folder that it does not know", function()
    assert(os.execute(("mkdir %s/attic"):format(folder)) == 0)
    local out, code = layers(folder)
    assert.equal("1", code)
    has("attic: a folder without a layer", out)
  end)
end)
