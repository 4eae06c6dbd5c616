local perilune = require "perilune.test"

local FOLDER = debug.getinfo(1, "S").source:match "^@(.*/)" or ""

describe("examples/reload_migrate.lua", function()
  it("notes words, and lists them", function()
    local app = perilune.app("examples/reload_migrate.lua")
    local client = app:connect():send("tea"):expect("noted: tea, the 1. word")
    client:send("milk"):expect("noted: milk, the 2. word"):send("list"):expect("tea, milk")
    app:close()
  end)

  -- A script is a table without side effects, and its methods are functions: they can be called as they are.
  describe("when it is reloaded", function()
    local function agent(fields)
      return setmetatable(fields, { __index = dofile(FOLDER .. "reload_migrate.lua").agent })
    end

    local function noted(new) return new:proceed("list") end

    it("takes what a connection has said to the new code", function()
      local old, new = agent { words = { "tea" }, since = 7 }, agent {}
      new:upgrade(old:snapshot())
      assert.equal(7, new.since)
      assert.equal("noted: milk, the 2. word", new:proceed("milk"))
      assert.equal("tea, milk", noted(new))
    end)

    it("understands the shape of an earlier version", function()
      local new = agent {}
      new:upgrade("tea, milk")
      assert.equal("tea, milk", noted(new))
    end)

    it("leaves a connection with the old code where the shape is another", function()
      local new = agent {}
      assert.has_error(function() new:upgrade { shape = 3, words = {} } end)
    end)
  end)
end)
