--- Lines of files that are opened by name: lua/perilune/files.lua, over a core in Lua.
local function with_files(run)
  local opened, own_lines = 0, io.lines
  package.loaded["perilune.files_core"] = {
    line = function(file, keeps) return file:read(keeps and "*L" or "*l") end,
    all = function(file) return file:read "*a" end,
    number = function(file) return file:read "*n" end,
    opener = function(open)
      return function(...)
        opened = opened + 1
        return open(...)
      end
    end,
  }
  rawset(io, "lines", function() error "opened by name a second time" end)
  package.loaded["perilune.files"] = nil
  local methods = {}
  for key, value in pairs(debug.getmetatable(io.stdout)) do methods[key] = value end
  local library = require("perilune.files").install(methods).library(function() return false end)
  local ok, err = pcall(run, library.lines, function() return opened end)
  rawset(io, "lines", own_lines)
  package.loaded["perilune.files_core"], package.loaded["perilune.files"] = nil, nil
  assert(ok, err)
end

describe("io.lines", function()
  local name

  before_each(function()
    name = os.tmpname()
    local file = assert(io.open(name, "w"))
    assert(file:write("1 2\n3\n") and file:close())
  end)

  after_each(function() os.remove(name) end)

  it("opens the file once, whatever is read of it", function()
    with_files(function(lines, opened)
      for formats, wanted in pairs { [{}] = "1 2|3", [{ "*L" }] = "1 2\n|3\n", [{ "*n" }] = "1|2|3",
        [{ 2 }] = "1 |2\n|3\n", [{ 3, 3 }] = "1 2|\n3\n" } do
        local before, read = opened(), {}
        for one, two in lines(name, unpack(formats)) do
          read[#read + 1] = one
          read[#read + 1] = two
        end
        assert.equal(wanted, table.concat(read, "|"))
        assert.equal(before + 1, opened())
      end
    end)
  end)

  it("closes it at its end", function()
    with_files(function(lines)
      for _, format in ipairs { "*n", 4, "*l" } do
        local each = lines(name, format)
        while each() do end
        assert.has_error(each) -- attempt to use a closed file
      end
    end)
  end)

  it("raises in the name of who reads", function()
    with_files(function(lines)
      local ok, err = pcall(function()
        for line in lines(name, "*x") do assert.is_nil(line) end
      end)
      assert.is_false(ok)
      assert.matches("^spec/unit/files_spec.lua:%d+: .*invalid format", err)
    end)
  end)
end)
