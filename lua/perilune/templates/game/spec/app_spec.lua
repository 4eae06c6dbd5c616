local perilune = require "perilune.test"

describe("@NAME@", function()
  local app
  before_each(function() app = perilune.app "app.lua" end)
  after_each(function() app:close() end)

  local function join(name)
    local client = app:connect():expect("your name?"):send(name)
    return client:expect(function(line) return line:find("^welcome, " .. name) end)
  end

  -- The next line that shows the world, and where this player is in it.
  local function place_of(client, name)
    local tick, x, y
    client:expect(function(line)
      tick, x, y = line:match("^tick (%d+) .* " .. name .. " (%d+),(%d+) ")
      return tick
    end)
    return tonumber(x), tonumber(y), tonumber(tick)
  end

  it("moves everybody by a step a tick, whatever they say", function()
    local ann = join "ann"
    ann:send "e"
    local x, _, tick = place_of(ann, "ann")
    app:advance "100ms"
    local later_x, _, later = place_of(ann, "ann")
    assert.equal(later - tick, later_x - x)
  end)

  it("shows everybody the same", function()
    local ann, bob = join "ann", join "bob"
    app:advance "100ms"
    assert.equal(ann:receive(), bob:receive())
  end)

  it("explains what it does not understand", function()
    local ann = join "ann"
    app:advance "100ms"
    ann:skip(1):send("jump"):expect("n, e, s, w turn; stop stops; quit leaves")
  end)

  it("goes on while its only player talks nonsense", function()
    local ann, ticks = join "ann", 0
    for _ = 1, 20 do
      ann:send "zzz"
      app:advance "50ms"
    end
    for _, line in ipairs(ann:frames()) do
      if line:find "^tick " then ticks = ticks + 1 end
    end
    assert.is_true(ticks >= 9, ticks)
  end)

  it("refuses a name that is taken, and frees it when its owner leaves", function()
    local ann = join "ann"
    local other = app:connect():expect("your name?"):send("ann"):expect("that name is taken")
    ann:send "quit"
    app:settle()
    other:send("ann"):expect(function(line) return line:find "^welcome, ann" end)
  end)

  it("sends the silent ones away after two minutes", function()
    local nobody = app:connect():expect("your name?")
    app:advance "121s"
    nobody:expect("you have been silent for too long")
    assert.equal("idle_timeout", nobody:closed())
  end)
end)
