local rules = require "world"

describe("the world", function()
  it("goes on by one step a tick, round the board", function()
    local world = rules.new(1)
    local ann = rules.enter(world, "ann")
    assert.is_true(rules.turn(ann, "w"))
    rules.step(world)
    assert.same({ rules.SIZE - 1, 0, 1 }, { ann.x, ann.y, world.tick })
    assert.is_true(rules.turn(ann, "stop"))
    rules.step(world)
    assert.same({ rules.SIZE - 1, 0, 2 }, { ann.x, ann.y, world.tick })
  end)

  it("gives a point for a coin, and puts another one somewhere", function()
    local world = rules.new(1)
    local ann = rules.enter(world, "ann")
    world.coin = { x = 1, y = 0 }
    rules.turn(ann, "e")
    rules.step(world)
    assert.equal(1, ann.points)
    assert.is_true(world.coin.x < rules.SIZE and world.coin.y < rules.SIZE)
  end)

  it("is the same for the same turns", function()
    local function play()
      local world = rules.new(7)
      local ann, bob = rules.enter(world, "ann"), rules.enter(world, "bob")
      for i = 1, 500 do
        rules.turn(ann, ({ "n", "e", "s", "w" })[i % 4 + 1])
        rules.turn(bob, i % 16 == 0 and "s" or "e")
        rules.step(world)
      end
      return rules.show(world)
    end
    assert.equal(play(), play())
  end)

  it("knows no other heading", function()
    assert.is_false(rules.turn({}, "up"))
  end)
end)
