--- In place of perilune.test.inside, in a net: a script draws the same numbers each time. Internal.
math.randomseed(1) -- while it is loaded; then inside.seed() says what from

return require "perilune.test.inside"
